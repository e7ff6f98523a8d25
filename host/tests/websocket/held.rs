//! Sources that are held back: what is read on meanwhile, what is answered, and what is kept.

use crate::drive::{
    Metrics, Peer, Seen, accept, client_endpoint, client_of, dial, fill_until, listener, pong, received,
    server_endpoint, server_source, soon, source_of, until_metric, with_source,
};
use futures_util::SinkExt;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;
use tidemill::config::{Endpoint, Ping};
use tidemill::source::{Fill, Source};
use tidemill::websocket::Listeners;
use tokio_tungstenite::tungstenite::Message;

/// What is read on at most, messages and what they take up beside.
const MOST_BYTES: usize = 256 << 10;

/// Holds a source back while something else happens.
async fn held<T>(source: &mut Source, other: impl Future<Output = T>) -> T {
    let mut other = std::pin::pin!(other);
    soon(poll_fn(|cx| {
        source.poll_hold(cx);
        other.as_mut().poll(cx)
    }))
    .await
}

async fn connected(change: impl FnOnce(&mut Endpoint)) -> (Source, Peer) {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).reconnect.enabled = false;
    change(&mut endpoint);
    let mut source = source_of(endpoint, &Metrics::default());
    let peer = with_source(&mut source, &mut Seen::default(), accept(&listener)).await;
    (source, peer)
}

/// How a source ends from which nothing comes, however long that takes.
async fn end(source: &mut Source) -> Fill {
    poll_fn(|cx| source.poll_fill(cx, &mut Vec::new(), crate::drive::ROOM, &mut Vec::new())).await
}

async fn say(peer: &mut Peer, texts: &[String]) {
    for text in texts {
        peer.feed(Message::from(text.as_str())).await.expect("it is read");
    }
    peer.flush().await.expect("it is read");
}

fn texts(count: usize, bytes: usize) -> Vec<String> {
    (0..count).map(|index| format!("{index:08}{}", "x".repeat(bytes - 8))).collect()
}

#[tokio::test]
async fn pings_are_answered_while_a_dialled_source_is_held_back() {
    let (mut source, mut peer) = connected(|_| {}).await;
    let words = texts(1000, 100);
    for ping in 0..3_u8 {
        say(&mut peer, &words).await;
        peer.send(Message::Ping(vec![ping].into())).await.expect("it is read");
        // Three thousand messages are more than are kept; a thousand are not.
        if ping == 0 {
            assert_eq!(held(&mut source, pong(&mut peer)).await, Message::Pong(vec![ping].into()));
            assert_eq!(source.remaining(), words.len() as u64);
        }
    }
    let mut seen = Seen::default();
    let all = fill_until(&mut source, &mut seen, |seen| seen.messages.len() == 3 * words.len());
    let ((), answered) = tokio::join!(all, async { (pong(&mut peer).await, pong(&mut peer).await) });
    assert_eq!(answered.1, Message::Pong(vec![2].into()));
    assert_eq!(seen.texts(), [&words[..], &words, &words].concat());
}

#[tokio::test]
async fn what_is_read_while_held_back_is_bounded_whatever_the_messages() {
    for bytes in [8, 1000, 100 << 10, 2 << 20] {
        let (mut source, mut peer) = connected(|_| {}).await;
        let words = texts((4 << 20) / bytes.max(64), bytes);
        let wanted = words.clone();
        let saying = tokio::spawn(async move {
            say(&mut peer, &words).await;
            peer
        });
        if bytes < MOST_BYTES {
            soon(poll_fn(|cx| {
                source.poll_hold(cx);
                if source.remaining() == 0 { Poll::Pending } else { Poll::Ready(()) }
            }))
            .await;
        }
        let longer = held(&mut source, std::future::pending::<()>());
        tokio::time::timeout(Duration::from_millis(300), longer).await.expect_err("it is held for so long");
        let unread = usize::try_from(source.remaining()).expect("a few");
        assert!(unread * (bytes + 64) <= MOST_BYTES, "{unread} of {bytes} bytes");
        let mut seen = Seen::default();
        fill_until(&mut source, &mut seen, |seen| seen.messages.len() == wanted.len()).await;
        assert!(seen.texts() == wanted, "{bytes} bytes");
        soon(saying).await.expect("all is said");
    }
}

#[tokio::test]
async fn what_was_read_while_held_back_is_there_after_a_stop_and_no_more_is_read() {
    let (mut source, mut peer) = connected(|_| {}).await;
    let words = texts(100, 100);
    say(&mut peer, &words).await;
    peer.send(Message::Ping("read".into())).await.expect("it is read");
    held(&mut source, pong(&mut peer)).await;
    say(&mut peer, &words).await;
    let mut seen = Seen::default();
    soon(poll_fn(|cx| {
        source.poll_stop(cx, 1001);
        Poll::Ready(())
    }))
    .await;
    fill_until(&mut source, &mut seen, |_| false).await;
    assert_eq!((seen.texts(), seen.end), (words, Some(Fill::Ended)));
    assert_eq!(source.remaining(), 0);
}

#[tokio::test]
async fn a_peer_that_leaves_while_held_back_is_told_at_once_and_dialled_once_all_is_read() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut source = source_of(client_endpoint(&url), &metrics);
    let mut peer = with_source(&mut source, &mut Seen::default(), accept(&listener)).await;
    let words = texts(100, 100);
    say(&mut peer, &words).await;
    peer.close(None).await.expect("it is read");
    held(&mut source, until_metric(&metrics, &["tidemill_connections{", "\"waiting\""], "1")).await;
    assert_eq!(close_code_or_none(&mut peer).await, None, "the close frame is answered");
    let mut seen = Seen::default();
    fill_until(&mut source, &mut seen, |seen| seen.messages.len() == words.len()).await;
    assert_eq!(seen.texts(), words);
    with_source(&mut source, &mut seen, accept(&listener)).await;
}

/// The code of the close frame that comes next, if it has one.
async fn close_code_or_none(peer: &mut Peer) -> Option<u16> {
    match received(peer).await {
        Message::Close(frame) => frame.map(|frame| frame.code.into()),
        other => panic!("unexpected: {other:?}"),
    }
}

#[tokio::test]
async fn pings_are_answered_while_an_accepted_peer_is_held_back() {
    let (mut source, address) =
        server_source(&Listeners::default(), server_endpoint("/"), &Metrics::default()).await;
    let mut peer = dial(address, "/").await;
    // More chunks than the way to the source holds, and the rest is read ahead.
    let words = texts(3000, 20);
    say(&mut peer, &words).await;
    peer.send(Message::Ping("are you there".into())).await.expect("it is read");
    assert_eq!(pong(&mut peer).await, Message::Pong("are you there".into()));
    drop(peer);
    let mut seen = Seen::default();
    fill_until(&mut source, &mut seen, |seen| seen.messages.len() == words.len()).await;
    assert_eq!(seen.texts(), words);
}

#[tokio::test]
async fn an_accepted_peer_that_leaves_while_held_back_is_shown_as_gone_at_once() {
    const SOURCE: &[&str] = &["tidemill_connections{", "\"source\"", "\"connected\""];
    let metrics = Metrics::default();
    let (mut source, address) = server_source(&Listeners::default(), server_endpoint("/"), &metrics).await;
    // More chunks than the way to the source holds, and the rest is read ahead.
    let words = texts(3000, 20);
    for is_polite in [true, false] {
        let mut peer = dial(address, "/").await;
        until_metric(&metrics, SOURCE, "1").await;
        say(&mut peer, &words).await;
        if is_polite {
            peer.close(None).await.expect("it is read");
        }
        drop(peer);
        until_metric(&metrics, SOURCE, "0").await;
        let mut seen = Seen::default();
        fill_until(&mut source, &mut seen, |seen| seen.messages.len() == words.len()).await;
        assert_eq!(seen.texts(), words);
    }
}

#[tokio::test]
async fn a_ping_that_was_due_while_held_back_is_judged_at_its_time_after_the_hold() {
    const PING: Ping = Ping { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };
    let (mut source, _silent) = connected(|endpoint| endpoint.ping = Some(PING)).await;
    tokio::time::pause();
    let hold = |seconds| Duration::from_secs(seconds);
    // The ping goes out after 30 s, and its timer fires while held: 5 s of its time are left then.
    tokio::time::timeout(hold(35), end(&mut source)).await.expect_err("nobody is given up");
    let start = tokio::time::Instant::now();
    tokio::time::timeout(hold(7), held(&mut source, std::future::pending::<()>())).await.expect_err("held");
    let end = end(&mut source).await;
    assert!(matches!(&end, Fill::Failed(why) if why.ends_with("no answer to a ping")), "{end:?}");
    let took = start.elapsed();
    assert!(took >= hold(12) && took < hold(13), "{took:?}");
}
