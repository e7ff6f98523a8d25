//! The client source: what it reads, how it ends connections, and how it comes back.

use crate::drive::{
    Metrics, Peer, Seen, accept, client_endpoint, client_of, close_code, dead_url, fill_until, listener,
    metric, next_text, soon, source_of, with_source,
};
use futures_util::SinkExt;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;
use tidemill::config::Ping;
use tidemill::message::metadata::{CONNECTION, PEER, SOURCE};
use tidemill::source::{Fill, Room};
use tokio_tungstenite::tungstenite::{self, Message};

async fn send(peer: &mut Peer, message: Message) {
    soon(peer.send(message)).await.expect("it is read");
}

#[tokio::test]
async fn texts_and_binaries_arrive_with_their_metadata() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut source = source_of(client_endpoint(&url), &metrics);
    let mut seen = Seen::default();
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    send(&mut peer, Message::text("one")).await;
    send(&mut peer, Message::binary(vec![1, 2])).await;
    fill_until(&mut source, &mut seen, |seen| seen.messages.len() == 2).await;
    let [text, binary] = &seen.messages[..] else { panic!("two messages") };
    assert_eq!((text.payload.as_text(), text.metadata.get(SOURCE).as_ref()), (Some("one"), &*url));
    assert_eq!((binary.payload.is_text(), binary.payload.as_bytes()), (false, &[1, 2][..]));
    assert_eq!(text.metadata.get(CONNECTION), binary.metadata.get(CONNECTION));
    assert_eq!(text.metadata.get(PEER), "");
    assert!(text.metadata.received_us() > 0);
    assert_eq!(metric(&metrics, &["tidemill_connections{", "connected"]), "1");
}

#[tokio::test]
async fn room_is_kept_and_a_larger_message_goes_alone() {
    let (listener, url) = listener().await;
    let mut source = source_of(client_endpoint(&url), &Metrics::default());
    let mut seen = Seen::default();
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    for text in ["aa", "bb", "a large one", "cc"] {
        send(&mut peer, Message::text(text)).await;
    }
    let mut batches: Vec<Vec<String>> = Vec::new();
    let room = Room { messages: 2, bytes: 5 };
    while batches.iter().flatten().count() < 4 {
        let mut batch = Vec::new();
        let fill = poll_fn(|cx| source.poll_fill(cx, &mut batch, room, &mut seen.failed));
        assert!(matches!(soon(fill).await, Fill::More | Fill::Drained));
        assert!(batch.len() <= 2);
        let bytes: usize = batch.iter().map(|m| m.payload.len()).sum();
        assert!(bytes <= 5 || batch.len() == 1);
        batches.push(batch.iter().filter_map(|m| m.payload.as_text().map(str::to_owned)).collect::<Vec<_>>());
    }
    assert_eq!(batches.concat(), ["aa", "bb", "a large one", "cc"]);
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_greets_again() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut endpoint = client_endpoint(&url);
    endpoint.on_connect = vec!["hello".into()];
    let mut source = source_of(endpoint, &metrics);
    let mut seen = Seen::default();
    for text in ["first", "second"] {
        let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
        assert_eq!(with_source(&mut source, &mut seen, next_text(&mut peer)).await, "hello");
        send(&mut peer, Message::text(text)).await;
        fill_until(&mut source, &mut seen, |seen| seen.texts().last().is_some_and(|last| last == text)).await;
    }
    let [first, second] = &seen.messages[..] else { panic!("two messages") };
    assert_ne!(first.metadata.get(CONNECTION), second.metadata.get(CONNECTION));
    assert_eq!(metric(&metrics, &["tidemill_connects_total{", "\"connected\""]), "2");
}

#[tokio::test]
async fn urls_are_taken_in_turn() {
    let (listener, url) = listener().await;
    let dead = dead_url().await;
    let metrics = Metrics::default();
    let mut endpoint = client_endpoint(&dead);
    client_of(&mut endpoint).urls.push((&*url).into());
    let mut source = source_of(endpoint, &metrics);
    with_source(&mut source, &mut Seen::default(), accept(&listener)).await;
    assert_eq!(metric(&metrics, &["tidemill_connects_total{", "refused"]), "1");
}

#[tokio::test]
async fn attempts_that_run_out_fail_the_source_with_the_last_error() {
    let url = dead_url().await;
    let metrics = Metrics::default();
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).reconnect.max_attempts = Some(2);
    let mut source = source_of(endpoint, &metrics);
    let mut seen = Seen::default();
    fill_until(&mut source, &mut seen, |_| false).await;
    let text = format!("failed to connect to WebSocket {url}: connection refused");
    assert_eq!(seen.end, Some(Fill::Failed(text)));
    assert_eq!(metric(&metrics, &["tidemill_connects_total{", "refused"]), "3");
    assert_eq!(metric(&metrics, &["tidemill_connections{", "failed"]), "1");
}

#[tokio::test]
async fn without_reconnection_the_first_loss_is_the_end() {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).reconnect.enabled = false;
    let mut source = source_of(endpoint, &Metrics::default());
    let mut seen = Seen::default();
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    send(&mut peer, Message::text("last words")).await;
    soon(peer.close(None)).await.expect("it is read");
    fill_until(&mut source, &mut seen, |_| false).await;
    assert_eq!(seen.texts(), ["last words"]);
    assert!(matches!(seen.end, Some(Fill::Failed(why)) if why.ends_with("was closed by the peer")));
}

#[tokio::test]
async fn a_silent_peer_is_closed_with_1011() {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    endpoint.ping = Some(Ping { interval: Duration::from_millis(20), timeout: Duration::from_millis(20) });
    let mut source = source_of(endpoint, &Metrics::default());
    let mut seen = Seen::default();
    let mut silent = with_source(&mut source, &mut seen, accept(&listener)).await;
    // It does not read, so it does not answer: the source gives it up and dials again.
    let second = with_source(&mut source, &mut seen, accept(&listener)).await;
    assert_eq!(close_code(&mut silent).await, 1011);
    drop(second);
}

#[tokio::test]
async fn held_reading_counts_against_nobody() {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    endpoint.ping = Some(Ping { interval: Duration::from_millis(10), timeout: Duration::from_millis(10) });
    let mut source = source_of(endpoint, &Metrics::default());
    let mut seen = Seen::default();
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    // Held back for many timeouts, told by the pings that arrive meanwhile.
    let held = poll_fn(|cx| {
        source.poll_hold(cx);
        Poll::<()>::Pending
    });
    let pings = async {
        for _ in 0..5 {
            let next = futures_util::StreamExt::next(&mut peer).await.expect("open").expect("sound");
            assert!(matches!(next, tungstenite::Message::Ping(_)), "{next:?}");
        }
    };
    soon(async {
        tokio::select! {
            () = held => {}
            () = pings => {}
        }
    })
    .await;
    send(&mut peer, Message::text("still here")).await;
    fill_until(&mut source, &mut seen, |seen| !seen.messages.is_empty()).await;
    assert_eq!(seen.texts(), ["still here"]);
}

#[tokio::test]
async fn a_dial_that_succeeded_is_a_check_that_is_met_though_the_connection_is_gone() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).reconnect.delay = Duration::from_secs(3600);
    client_of(&mut endpoint).reconnect.max_delay = Duration::from_secs(3600);
    endpoint.check_connection = Some(Duration::from_secs(10));
    let mut source = source_of(endpoint, &metrics);
    let mut seen = Seen::default();
    drop(with_source(&mut source, &mut seen, accept(&listener)).await);
    let lost = crate::drive::until_metric(&metrics, &["tidemill_connections{", "\"waiting\""], "1");
    with_source(&mut source, &mut seen, lost).await;
    assert_eq!(soon(poll_fn(|cx| source.poll_connected(cx))).await, Ok(()));
}

#[tokio::test]
async fn a_source_that_drains_dials_no_more() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut endpoint = client_endpoint(&url);
    endpoint.ping = Some(Ping { interval: Duration::from_millis(200), timeout: Duration::from_millis(200) });
    let mut source = source_of(endpoint, &metrics);
    let mut seen = Seen::default();
    let _silent = with_source(&mut source, &mut seen, accept(&listener)).await;
    let connected = crate::drive::until_metric(&metrics, &["tidemill_connections{", "\"connected\""], "1");
    with_source(&mut source, &mut seen, connected).await;
    // It stays open for replies, and then the peer turns out to be dead.
    let closed = crate::drive::until_metric(&metrics, &["tidemill_connections{", "\"closed\""], "1");
    let mut closed = std::pin::pin!(closed);
    soon(poll_fn(|cx| {
        source.poll_stop(cx, 1001);
        let _ = source.poll_fill(cx, &mut seen.messages, crate::drive::ROOM, &mut seen.failed);
        closed.as_mut().poll(cx)
    }))
    .await;
    tokio::time::pause();
    let drained = poll_fn(|cx| {
        source.poll_hold(cx);
        Poll::<()>::Pending
    });
    tokio::time::timeout(Duration::from_secs(60), drained).await.expect_err("nothing happens");
    assert_eq!(metric(&metrics, &["tidemill_connects_total{", "\"connected\""]), "1");
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_1000() {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    endpoint.idle_timeout = Some(Duration::from_millis(30));
    let mut source = source_of(endpoint, &Metrics::default());
    let mut seen = Seen::default();
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    assert_eq!(with_source(&mut source, &mut seen, close_code(&mut peer)).await, 1000);
}

#[tokio::test]
async fn closing_a_source_tells_the_peer() {
    let (listener, url) = listener().await;
    let mut source = source_of(client_endpoint(&url), &Metrics::default());
    let mut seen = Seen::default();
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    send(&mut peer, Message::text("hello")).await;
    fill_until(&mut source, &mut seen, |seen| !seen.messages.is_empty()).await;
    let close = poll_fn(|cx| source.poll_close(cx, 1001));
    let (code, ()) = soon(async {
        tokio::join!(
            async {
                let code = close_code(&mut peer).await;
                drop(peer);
                code
            },
            close
        )
    })
    .await;
    assert_eq!(code, 1001);
}

#[tokio::test]
async fn a_peer_that_accepts_and_hangs_up_uses_up_the_attempts() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).reconnect.max_attempts = Some(3);
    let mut source = source_of(endpoint, &metrics);
    let mut seen = Seen::default();
    let flap = async {
        loop {
            drop(accept(&listener).await);
        }
    };
    let failed = fill_until(&mut source, &mut seen, |_| false);
    tokio::select! {
        () = failed => {}
        () = flap => {}
    }
    assert!(matches!(seen.end, Some(Fill::Failed(_))), "{:?}", seen.end);
    assert_eq!(metric(&metrics, &["tidemill_connects_total{", "\"connected\""]), "4");
    assert_eq!(metric(&metrics, &["tidemill_connections{", "\"connected\""]), "0");
}
