//! Several messages in a frame, as a JSON array: when it is sent, what is counted, what a loss repeats.

use crate::drive::{
    Metrics, accept, client_endpoint, client_of, client_sink, dead_url, dial, flush, listener, message,
    metric, next_text, open_sink, push, server_endpoint, sink_config, soon, until_metric, with_sink,
};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tidemill::config::{Batch, Buffer, Peers, WebSocketSink, WhenFull};
use tidemill::message::{Message, Payload};
use tidemill::sink::Sink;
use tidemill::websocket::Listeners;

const LONG: Duration = Duration::from_secs(3600);

fn batch(max_messages: usize, linger: Duration) -> Option<Batch> {
    Some(Batch { max_messages, linger, max_bytes: 1 << 20 })
}

fn to(url: &str, batch: Option<Batch>) -> WebSocketSink {
    WebSocketSink { batch, ..sink_config(client_endpoint(url), Buffer::default(), Peers::default()) }
}

fn delivered(metrics: &Metrics) -> String {
    metric(metrics, &["tidemill_messages_delivered_total{"])
}

/// Polls a sink once, as a pipeline does whose source has nothing.
fn turn(sink: &mut Sink) {
    let mut failed = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    sink.poll_drive(&mut cx, &mut failed);
    let _ = sink.poll_flush(&mut cx, &mut failed);
    assert!(failed.is_empty());
}

#[tokio::test]
async fn a_flush_sends_what_has_gathered_in_arrays_of_at_most_so_many() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let (mut sink, mut failed) = (client_sink(to(&url, batch(3, Duration::ZERO)), &metrics), Vec::new());
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    push(&mut sink, &mut failed, &["1", "{\"a\":2}", "three", "4"]).await;
    sink.push(Message { payload: Payload::binary(&b"\xff"[..]), ..message("") }, &mut failed);
    flush(&mut sink, &mut failed).await;
    assert_eq!(next_text(&mut peer).await, r#"[1,{"a":2},"three"]"#);
    assert_eq!(next_text(&mut peer).await, r#"[4,{"$binary":"/w=="}]"#);
    assert_eq!(delivered(&metrics), "5", "messages are counted, not frames");
    push(&mut sink, &mut failed, &["6"]).await;
    flush(&mut sink, &mut failed).await;
    assert_eq!(next_text(&mut peer).await, "[6]", "one alone is an array too");
}

#[tokio::test]
async fn a_batch_lingers_until_its_time_is_over() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let linger = Duration::from_secs(1);
    let (mut sink, mut failed) = (client_sink(to(&url, batch(3, linger)), &metrics), Vec::new());
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    push(&mut sink, &mut failed, &["1"]).await;
    let started = std::time::Instant::now();
    turn(&mut sink);
    push(&mut sink, &mut failed, &["2"]).await;
    turn(&mut sink);
    assert_eq!((sink.in_flight(), delivered(&metrics)), (2, "0".into()), "a flush does not hurry it");
    assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, "[1,2]");
    assert!(started.elapsed() >= linger, "it came after {:?}", started.elapsed());
    flush(&mut sink, &mut failed).await;
    assert_eq!(delivered(&metrics), "2");
}

#[tokio::test]
async fn a_full_batch_does_not_linger_and_the_end_sends_the_rest() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let (mut sink, mut failed) = (client_sink(to(&url, batch(2, LONG)), &metrics), Vec::new());
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    push(&mut sink, &mut failed, &["1", "2", "3"]).await;
    assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, "[1,2]");
    turn(&mut sink);
    assert_eq!(sink.in_flight(), 1);
    sink.drain();
    flush(&mut sink, &mut failed).await;
    assert_eq!(next_text(&mut peer).await, "[3]");
    assert_eq!(delivered(&metrics), "3");
}

#[tokio::test]
async fn a_full_buffer_ends_the_wait_and_closing_sends_the_rest() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let mut config = to(&url, batch(100, LONG));
    config.buffer.capacity = 2;
    let (mut sink, mut failed) = (client_sink(config, &metrics), Vec::new());
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    push(&mut sink, &mut failed, &["1", "2", "3"]).await;
    assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, "[1,2]");
    let close = poll_fn(|cx| sink.poll_close(cx, 1001, &mut failed));
    let reads = async {
        assert_eq!(next_text(&mut peer).await, "[3]");
        drop(peer);
    };
    soon(async { tokio::join!(close, reads) }).await;
    assert_eq!(delivered(&metrics), "3");
}

#[tokio::test]
async fn max_bytes_bounds_a_frame() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let limit = Some(Batch { max_messages: 100, linger: LONG, max_bytes: 8 });
    let (mut sink, mut failed) = (client_sink(to(&url, limit), &metrics), Vec::new());
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    push(&mut sink, &mut failed, &["111", "222", "333333333333", "4"]).await;
    sink.drain();
    flush(&mut sink, &mut failed).await;
    let mut frames = Vec::new();
    for _ in 0..4 {
        frames.push(next_text(&mut peer).await);
    }
    assert_eq!(frames, ["[111]", "[222]", "[333333333333]", "[4]"]);
}

#[tokio::test]
async fn what_a_broken_write_had_not_delivered_is_sent_again_and_counted_once() {
    let (listener, url) = listener().await;
    let metrics = Metrics::default();
    let (mut sink, mut failed) = (client_sink(to(&url, batch(2, Duration::ZERO)), &metrics), Vec::new());
    let first = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    // Larger than two sockets hold, so that the flush stands when the peer resets.
    let large = format!("\"{}\"", "x".repeat(12 << 20));
    push(&mut sink, &mut failed, &[&large, "2", "3"]).await;
    turn(&mut sink);
    assert_eq!((sink.in_flight(), delivered(&metrics)), (3, "0".into()));
    first.get_ref().set_zero_linger().expect("a socket");
    drop(first);
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    let again = with_sink(&mut sink, &mut failed, next_text(&mut peer)).await;
    assert_eq!(again.len(), large.len() + 2);
    assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, "[2,3]");
    flush(&mut sink, &mut failed).await;
    assert_eq!(delivered(&metrics), "3");
}

#[tokio::test]
async fn the_policies_of_a_full_buffer_count_messages() {
    let url = dead_url().await;
    for (when_full, dropped) in [(WhenFull::DropOldest, "3"), (WhenFull::DropNewest, "3")] {
        let metrics = Metrics::default();
        let mut config = to(&url, batch(10, LONG));
        client_of(&mut config.endpoint).reconnect.delay = LONG;
        config.buffer = Buffer { capacity: 2, when_full, ..Buffer::default() };
        let (mut sink, mut failed) = (client_sink(config, &metrics), Vec::new());
        for text in ["1", "2", "3", "4", "5"] {
            sink.push(message(text), &mut failed);
        }
        turn(&mut sink);
        assert_eq!(sink.in_flight(), 2);
        assert_eq!(metric(&metrics, &["tidemill_messages_dropped_total{", "buffer_full"]), dropped);
    }
}

#[tokio::test]
async fn a_server_sink_gathers_for_all_peers_at_once() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut config =
        sink_config(server_endpoint("/"), Buffer::default(), Peers { replay: 2, ..Peers::default() });
    config.batch = batch(2, LONG);
    let (mut sink, address) = open_sink(&listeners, config, &metrics).await;
    let (mut one, mut two) = (dial(address, "/").await, dial(address, "/").await);
    until_metric(&metrics, &["tidemill_connections{", "\"connected\""], "2").await;
    let mut failed = Vec::new();
    push(&mut sink, &mut failed, &["1", "2", "3"]).await;
    turn(&mut sink);
    assert_eq!((sink.in_flight(), delivered(&metrics)), (1, "2".into()));
    for peer in [&mut one, &mut two] {
        assert_eq!(next_text(peer).await, "[1,2]");
    }
    sink.drain();
    flush(&mut sink, &mut failed).await;
    for peer in [&mut one, &mut two] {
        assert_eq!(next_text(peer).await, "[3]");
    }
    assert_eq!(delivered(&metrics), "3");
    let mut late = dial(address, "/").await;
    assert_eq!((next_text(&mut late).await, next_text(&mut late).await), ("[1,2]".into(), "[3]".into()));
    assert_eq!(metric(&metrics, &["tidemill_replayed_total{"]), "3");
}

#[tokio::test]
async fn a_blocking_peer_is_not_waited_for_by_a_batch_that_waits_for_more() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: 2, slow: tidemill::config::SlowPeer::Block, ..Peers::default() };
    let mut config = sink_config(server_endpoint("/"), Buffer::default(), peers);
    config.batch = batch(10, LONG);
    let (mut sink, address) = open_sink(&listeners, config, &metrics).await;
    let mut peer = dial(address, "/").await;
    until_metric(&metrics, &["tidemill_connections{", "\"connected\""], "1").await;
    let mut failed = Vec::new();
    for text in ["1", "2", "3"] {
        soon(poll_fn(|cx| sink.poll_ready(cx))).await;
        sink.push(message(text), &mut failed);
    }
    assert_eq!(next_text(&mut peer).await, "[1,2]");
    assert_eq!(sink.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
}
