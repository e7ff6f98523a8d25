//! The client sink: delivery, buffers, losses, and what is given up.

use crate::drive::{
    Metrics, accept, client_endpoint, client_of, dead_url, flush, listener, message, metric, next_text, pong,
    push, sink_of, soon, until_metric, with_sink,
};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tidemill::config::{Buffer, WhenFull};
use tidemill::reason::Reason;

#[tokio::test]
async fn messages_are_delivered_once_they_are_flushed() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut sink = sink_of(client_endpoint(&url), Buffer::default(), &metrics);
    let mut failed = Vec::new();
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    push(&mut sink, &mut failed, &["a", "b"]).await;
    assert_eq!(sink.in_flight(), 2);
    flush(&mut sink, &mut failed).await;
    assert_eq!(sink.in_flight(), 0);
    assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), "2");
    assert_eq!((next_text(&mut peer).await, next_text(&mut peer).await), ("a".into(), "b".into()));
}

#[tokio::test]
async fn what_waits_while_disconnected_is_sent_after_the_connect() {
    let (listener, url) = listener().await;
    let mut sink = sink_of(client_endpoint(&url), Buffer::default(), &Metrics::default());
    let mut failed = Vec::new();
    sink.push(message("early"), &mut failed);
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, "early");
}

#[tokio::test]
async fn what_was_not_flushed_is_sent_again_on_the_next_connection() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut sink = sink_of(client_endpoint(&url), Buffer::default(), &metrics);
    let mut failed = Vec::new();
    let first = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    push(&mut sink, &mut failed, &["a", "b"]).await;
    drop(first);
    let mut second = soon(async {
        let mut accepted = std::pin::pin!(accept(&listener));
        // Driven and never flushed until the loss is seen.
        poll_fn(|cx| {
            sink.poll_drive(cx, &mut failed);
            accepted.as_mut().poll(cx)
        })
        .await
    })
    .await;
    assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), "0");
    let both = async { (next_text(&mut second).await, next_text(&mut second).await) };
    assert_eq!(with_sink(&mut sink, &mut failed, both).await, ("a".into(), "b".into()));
    assert_eq!(sink.in_flight(), 0);
}

#[tokio::test]
async fn a_full_buffer_blocks_or_drops() {
    let url = dead_url().await;
    for (when_full, kept_first, dropped) in
        [(WhenFull::Block, "0", "0"), (WhenFull::DropOldest, "2", "2"), (WhenFull::DropNewest, "0", "2")]
    {
        let metrics = Metrics::default();
        let mut endpoint = client_endpoint(&url);
        client_of(&mut endpoint).reconnect.max_attempts = Some(1);
        let mut sink = sink_of(endpoint, Buffer { capacity: 3, when_full, ..Buffer::default() }, &metrics);
        let mut failed = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        for text in ["0", "1", "2", "3", "4"] {
            if sink.poll_ready(&mut cx) == Poll::Ready(()) {
                sink.push(message(text), &mut failed);
            }
        }
        assert_eq!(sink.in_flight(), 3, "{when_full:?}");
        // When attempts have run out, what waited is handed back.
        soon(poll_fn(|cx| sink.poll_flush(cx, &mut failed))).await;
        assert_eq!(failed.len(), 3);
        assert_eq!(failed[0].message.payload.as_text(), Some(kept_first));
        assert!(failed.iter().all(|failed| failed.reason == Reason::SinkUnavailable));
        assert_eq!(metric(&metrics, &["tidemill_messages_dropped_total{", "buffer_full"]), dropped);
    }
}

#[tokio::test]
async fn an_unavailable_sink_hands_back_what_comes_and_recovers() {
    let (listener, url) = listener().await;
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).reconnect.max_attempts = Some(0);
    let metrics = Metrics::default();
    let mut sink = sink_of(endpoint, Buffer::default(), &metrics);
    let mut failed = Vec::new();
    sink.push(message("a"), &mut failed);
    flush(&mut sink, &mut failed).await;
    sink.push(message("b"), &mut failed);
    assert_eq!(failed.len(), 2);
    assert!(failed[1].detail.ends_with("connection refused"), "{}", failed[1].detail);
    let listener = tokio::net::TcpListener::bind(address).await.expect("still free");
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    let connected = until_metric(&metrics, &["tidemill_connections{", "\"connected\""], "1");
    with_sink(&mut sink, &mut failed, connected).await;
    push(&mut sink, &mut failed, &["c"]).await;
    assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, "c");
    assert_eq!(failed.len(), 2);
}

#[tokio::test]
async fn a_loss_of_a_young_connection_is_no_attempt_that_failed_and_gives_nothing_up() {
    let (first_listener, url) = listener().await;
    let address = first_listener.local_addr().expect("bound");
    let mut endpoint = client_endpoint(&url);
    let reconnect = &mut client_of(&mut endpoint).reconnect;
    reconnect.max_attempts = Some(1);
    let metrics = Metrics::default();
    let mut sink = sink_of(endpoint, Buffer::default(), &metrics);
    let mut failed = Vec::new();
    // It hangs up at once, again and again: the one attempt is used up, and each dial succeeds.
    for _ in 0..4 {
        drop(with_sink(&mut sink, &mut failed, accept(&first_listener)).await);
        push(&mut sink, &mut failed, &["waits"]).await;
    }
    assert!(failed.is_empty() && sink.in_flight() > 0, "{failed:?}");
    let mut peer = with_sink(&mut sink, &mut failed, accept(&first_listener)).await;
    assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, "waits");
    flush(&mut sink, &mut failed).await;
    assert!(failed.is_empty(), "{failed:?}");
    // Now the attempt that follows fails, and what waits is given up.
    drop((peer, first_listener));
    let lost = until_metric(&metrics, &["tidemill_connections{", "\"connected\""], "0");
    with_sink(&mut sink, &mut failed, lost).await;
    push(&mut sink, &mut failed, &["given up"]).await;
    flush(&mut sink, &mut failed).await;
    assert_eq!(failed.iter().map(|failed| failed.reason).collect::<Vec<_>>(), [Reason::SinkUnavailable]);
    assert!(tokio::net::TcpListener::bind(address).await.is_ok());
}

#[tokio::test]
async fn without_reconnection_a_lost_sink_hands_back_all_that_comes() {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).reconnect.enabled = false;
    let metrics = Metrics::default();
    let mut sink = sink_of(endpoint, Buffer::default(), &metrics);
    let mut failed = Vec::new();
    let peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    drop(peer);
    let lost = until_metric(&metrics, &["tidemill_connections{", "\"failed\""], "1");
    with_sink(&mut sink, &mut failed, lost).await;
    push(&mut sink, &mut failed, &["a", "b"]).await;
    assert_eq!(failed.iter().map(|failed| failed.reason).collect::<Vec<_>>(), [Reason::SinkUnavailable; 2]);
    assert_eq!(sink.in_flight(), 0);
}

#[tokio::test]
async fn a_sink_that_sends_is_not_idle() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut endpoint = client_endpoint(&url);
    endpoint.idle_timeout = Some(Duration::from_secs(1));
    let mut sink = sink_of(endpoint, Buffer::default(), &metrics);
    let mut failed = Vec::new();
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    // Back and forth for longer than it may be idle.
    tokio::time::pause();
    for _ in 0..15 {
        tokio::time::advance(Duration::from_millis(100)).await;
        push(&mut sink, &mut failed, &["a"]).await;
        assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, "a");
    }
    assert_eq!(metric(&metrics, &["tidemill_connects_total{", "\"connected\""]), "1");
    // Now it is, and comes back.
    with_sink(&mut sink, &mut failed, accept(&listener)).await;
}

#[tokio::test]
async fn a_buffer_is_bounded_in_bytes_too_and_one_larger_message_goes_alone() {
    let url = dead_url().await;
    for (when_full, kept, dropped) in
        [(WhenFull::Block, 2, "0"), (WhenFull::DropOldest, 2, "2"), (WhenFull::DropNewest, 2, "2")]
    {
        let metrics = Metrics::default();
        let mut endpoint = client_endpoint(&url);
        client_of(&mut endpoint).reconnect.delay = std::time::Duration::from_secs(3600);
        let mut sink = sink_of(endpoint, Buffer { max_bytes: 10, when_full, ..Buffer::default() }, &metrics);
        let mut failed = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        // The second is let in while there is room left, however large it is.
        for text in ["six by", "six by", "six by", "six by"] {
            if sink.poll_ready(&mut cx) == Poll::Ready(()) {
                sink.push(message(text), &mut failed);
            }
        }
        assert_eq!(sink.in_flight(), kept, "{when_full:?}");
        sink.poll_drive(&mut cx, &mut failed);
        assert_eq!(metric(&metrics, &["tidemill_messages_dropped_total{", "buffer_full"]), dropped);
        let mut large =
            sink_of(client_endpoint(&url), Buffer { max_bytes: 1, ..Buffer::default() }, &metrics);
        assert_eq!(large.poll_ready(&mut cx), Poll::Ready(()));
        large.push(message("larger than the buffer"), &mut failed);
        assert_eq!((large.in_flight(), large.poll_ready(&mut cx)), (1, Poll::Pending));
    }
}

#[tokio::test]
async fn a_peer_that_resets_in_the_middle_of_a_flush_costs_a_repetition_at_most() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut sink = sink_of(client_endpoint(&url), Buffer::default(), &metrics);
    let mut failed = Vec::new();
    let mut first = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    push(&mut sink, &mut failed, &["before"]).await;
    flush(&mut sink, &mut failed).await;
    assert_eq!(next_text(&mut first).await, "before");
    // More than two sockets hold, so that the flush stands when the peer resets.
    let large = "x".repeat(12 << 20);
    push(&mut sink, &mut failed, &[&large, "after"]).await;
    let _ = sink.poll_flush(&mut Context::from_waker(Waker::noop()), &mut failed);
    assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), "1");
    first.get_ref().set_zero_linger().expect("a socket");
    drop(first);
    let mut second = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    assert!(with_sink(&mut sink, &mut failed, next_text(&mut second)).await == large);
    assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut second)).await, "after");
    flush(&mut sink, &mut failed).await;
    assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), "3", "each once");
    assert!(failed.is_empty());
}

#[tokio::test]
async fn what_waited_for_a_connection_is_settled_piece_by_piece() {
    const MESSAGES: u64 = 20_000;
    /// What a loss may repeat, and as much that may be on its way to be written.
    const UNSETTLED: u64 = 2 * 1024;
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let buffer = Buffer { capacity: usize::MAX, ..Buffer::default() };
    let mut sink = sink_of(client_endpoint(&url), buffer, &metrics);
    let mut failed = Vec::new();
    for _ in 0..MESSAGES {
        sink.push(message("waits"), &mut failed);
    }
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    let delivered =
        || metric(&metrics, &["tidemill_messages_delivered_total{"]).parse::<u64>().expect("a count");
    for received in 1..=MESSAGES {
        let mut next = std::pin::pin!(next_text(&mut peer));
        // Driven and never flushed, as under a source that always has more.
        let text = soon(poll_fn(|cx| {
            sink.poll_drive(cx, &mut failed);
            next.as_mut().poll(cx)
        }));
        assert_eq!(text.await, "waits");
        assert!(delivered() + UNSETTLED >= received, "{received} received, {} delivered", delivered());
    }
}

#[tokio::test]
async fn what_a_peer_does_not_read_is_not_delivered_by_the_megabyte() {
    /// What the peer's kernel takes, and what ours may have that was not sent yet.
    const MOST_BYTES: usize = 1 << 20;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("it is not connected");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(8).expect("it is bound");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    let metrics = Metrics::default();
    let mut sink = sink_of(client_endpoint(&url), Buffer { capacity: 64, ..Buffer::default() }, &metrics);
    let mut failed = Vec::new();
    let _peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    let text = "x".repeat(1 << 10);
    let mut cx = Context::from_waker(Waker::noop());
    // As much as the sink takes, until it takes no more for a while.
    let mut refusals = 0;
    while refusals < 1000 {
        let _ = sink.poll_flush(&mut cx, &mut failed);
        match sink.poll_ready(&mut cx) {
            Poll::Ready(()) => {
                sink.push(message(&text), &mut failed);
                refusals = 0;
            }
            Poll::Pending => {
                refusals += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    let delivered = metric(&metrics, &["tidemill_messages_delivered_total{"]);
    let delivered: usize = delivered.parse().expect("a count");
    assert!(delivered > 0 && delivered * text.len() <= MOST_BYTES, "{delivered} KiB are delivered");
}

#[tokio::test]
async fn a_sink_with_nothing_to_send_answers_pings_and_sees_the_close() {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    let (listener, url) = listener().await;
    let mut sink = sink_of(client_endpoint(&url), Buffer::default(), &Metrics::default());
    let mut failed = Vec::new();
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    soon(peer.send(Message::Ping("are you there".into()))).await.expect("it is read");
    soon(peer.send(Message::text("nobody wants this"))).await.expect("it is read");
    let answer = with_sink(&mut sink, &mut failed, pong(&mut peer)).await;
    assert_eq!(answer, Message::Pong("are you there".into()));
    soon(peer.close(None)).await.expect("it is read");
    let second = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    drop(second);
}
