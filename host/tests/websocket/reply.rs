//! Replies: on the connection a message came on, whoever dialled, and on no other.

use crate::drive::{
    Metrics, Peer, Seen, accept, client_endpoint, client_of, client_source, close_code, dial, fill_until,
    listener, message, metric, next_text, open_source, server_endpoint, soon, source_config, until_metric,
    until_sent,
};
use futures_util::SinkExt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tidemill::config::{Endpoint, Mode, Packing, Peers, ReplySink, SlowPeer};
use tidemill::message::metadata::CLOSE;
use tidemill::message::{Failed, Message, Payload};
use tidemill::reason::Reason;
use tidemill::sink::{self, Sink};
use tidemill::source::Source;
use tidemill::websocket::Listeners;
use tokio_tungstenite::tungstenite;

/// A source and the sink that answers what it receives.
struct Service {
    source: Source,
    sink: Sink,
    seen: Seen,
    failed: Vec<Failed>,
    metrics: Metrics,
}

fn reply(peers: Peers) -> ReplySink {
    ReplySink { peers, ..ReplySink::default() }
}

async fn accepting(endpoint: Endpoint, config: &ReplySink) -> (Service, SocketAddr) {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (source, address) = open_source(&listeners, source_config(endpoint.clone()), &metrics).await;
    let Mode::Server(listen) = &endpoint.mode else { panic!("a server endpoint") };
    let (of_sink, of_endpoint) = (metrics.sink("p", "back"), metrics.endpoint("p", "back"));
    let sink = sink::Replies::accepted(config, &endpoint, listen, &listeners, of_sink, of_endpoint).await;
    (Service::new(source, sink.expect("it is open already"), metrics), address)
}

fn dialling(endpoint: Endpoint, config: &ReplySink) -> Service {
    let metrics = Metrics::default();
    let source = client_source(source_config(endpoint), &metrics);
    let sink = sink::Replies::dialled(config, metrics.sink("p", "back"));
    Service::new(source, sink, metrics)
}

impl Service {
    fn new(source: Source, sink: sink::Replies, metrics: Metrics) -> Self {
        Self { source, sink: Sink::Reply(sink), seen: Seen::default(), failed: Vec::new(), metrics }
    }

    /// Receives messages, as many as there are to be in all.
    async fn receive(&mut self, count: usize) {
        fill_until(&mut self.source, &mut self.seen, |seen| seen.messages.len() >= count).await;
    }

    /// The answer to the message of this number.
    fn answer(&self, number: usize, text: &str) -> Message {
        Message { payload: Payload::text(text), metadata: self.seen.messages[number].metadata.clone() }
    }

    fn push(&mut self, message: Message) {
        self.sink.push(message, &mut self.failed);
    }

    /// Drives both ends while something else happens.
    async fn with<T>(&mut self, other: impl Future<Output = T>) -> T {
        let Self { source, sink, seen, failed, .. } = self;
        let mut other = std::pin::pin!(other);
        soon(poll_fn(|cx| {
            let _ = sink.poll_flush(cx, failed);
            let _ = sink.poll_ready(cx);
            let _ = source.poll_fill(cx, &mut seen.messages, crate::drive::ROOM, &mut seen.failed);
            other.as_mut().poll(cx)
        }))
        .await
    }

    /// Pushes as the pipeline does: when there is room.
    async fn push_in_turn(&mut self, message: Message) {
        let Self { source, sink, seen, failed, .. } = self;
        soon(poll_fn(|cx| {
            sink.poll_drive(cx, failed);
            let _ = source.poll_fill(cx, &mut seen.messages, crate::drive::ROOM, &mut seen.failed);
            sink.poll_ready(cx)
        }))
        .await;
        self.push(message);
    }

    async fn flush(&mut self) {
        let Self { source, sink, seen, failed, .. } = self;
        soon(poll_fn(|cx| {
            let _ = source.poll_fill(cx, &mut seen.messages, crate::drive::ROOM, &mut seen.failed);
            sink.poll_flush(cx, failed)
        }))
        .await;
    }

    fn reasons(&self) -> Vec<Reason> {
        self.failed.iter().map(|failed| failed.reason).collect()
    }

    fn counted(&self, parts: &[&str]) -> usize {
        metric(&self.metrics, parts).parse().expect("a number")
    }
}

async fn send(peer: &mut Peer, text: &str) {
    soon(peer.send(tungstenite::Message::text(text))).await.expect("it is read");
}

#[tokio::test]
async fn every_peer_gets_the_answers_to_what_it_sent_in_order() {
    let (mut service, address) = accepting(server_endpoint("/"), &ReplySink::default()).await;
    let mut peers = [dial(address, "/").await, dial(address, "/").await, dial(address, "/").await];
    for (n, peer) in peers.iter_mut().enumerate() {
        for index in 0..100 {
            send(peer, &format!("{n}/{index}")).await;
        }
    }
    service.receive(300).await;
    for message in std::mem::take(&mut service.seen.messages) {
        service.push(message);
    }
    assert_eq!(service.sink.in_flight(), 300);
    service.flush().await;
    for (n, peer) in peers.iter_mut().enumerate() {
        for index in 0..100 {
            assert_eq!(next_text(peer).await, format!("{n}/{index}"));
        }
    }
    assert_eq!(service.counted(&["tidemill_messages_delivered_total{"]), 300);
    assert!(service.failed.is_empty());
    until_sent(&service.metrics, "source", &[100, 100, 100]).await;
}

#[tokio::test]
async fn a_dialled_connection_is_answered_too() {
    let (listener, url) = listener().await;
    let mut config = ReplySink { packing: Some(Packing::Gzip), ..ReplySink::default() };
    config.include_metadata = true;
    for config in [ReplySink::default(), config] {
        let mut service = dialling(client_endpoint(&url), &config);
        let mut peer = service.with(accept(&listener)).await;
        send(&mut peer, "{\"ask\":1}").await;
        service.receive(1).await;
        service.push(service.answer(0, "{\"say\":1}"));
        if config.packing.is_none() {
            assert_eq!(service.with(next_text(&mut peer)).await, "{\"say\":1}");
        } else {
            let frame = service.with(futures_util::StreamExt::next(&mut peer)).await;
            let bytes = frame.expect("open").expect("sound").into_data();
            let unpacked = tidemill::packing::Unpacker::new(Packing::Gzip, 1000).unpack(&bytes);
            let text = String::from_utf8(unpacked.expect("it is packed").to_vec()).expect("text");
            assert!(text.starts_with(&format!("{{\"say\":1,\"__meta_source\":\"{url}\"")), "{text}");
        }
        service.flush().await;
        assert_eq!(service.counted(&["tidemill_messages_delivered_total{"]), 1);
    }
}

#[tokio::test]
async fn replies_keep_the_send_interval_of_the_connection() {
    const INTERVAL: Duration = Duration::from_millis(40);
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).send_interval = INTERVAL;
    let mut service = dialling(endpoint, &ReplySink::default());
    let mut peer = service.with(accept(&listener)).await;
    send(&mut peer, "ask").await;
    service.receive(1).await;
    let start = Instant::now();
    for text in ["1", "2", "3", "4"] {
        service.push(service.answer(0, text));
    }
    for text in ["1", "2", "3", "4"] {
        assert_eq!(service.with(next_text(&mut peer)).await, text);
    }
    assert!(start.elapsed() >= 3 * INTERVAL, "{:?}", start.elapsed());
    service.flush().await;
    assert_eq!(service.counted(&["tidemill_messages_delivered_total{"]), 4);
}

#[tokio::test]
async fn a_connection_that_is_gone_or_made_anew_gets_no_replies() {
    let (listener, url) = listener().await;
    let mut service = dialling(client_endpoint(&url), &ReplySink::default());
    let mut first = service.with(accept(&listener)).await;
    send(&mut first, "ask").await;
    service.receive(1).await;
    drop(first);
    let mut second = service.with(accept(&listener)).await;
    send(&mut second, "ask again").await;
    service.receive(2).await;
    service.push(service.answer(0, "too late"));
    service.push(service.answer(1, "in time"));
    assert_eq!(service.with(next_text(&mut second)).await, "in time");
    assert_eq!(service.reasons(), [Reason::SinkUnavailable]);
    assert_eq!(service.failed[0].message.payload.as_text(), Some("too late"));
}

#[tokio::test]
async fn a_peer_that_hangs_up_leaves_its_replies_to_the_dead_letters() {
    let (mut service, address) = accepting(server_endpoint("/"), &ReplySink::default()).await;
    let mut peer = dial(address, "/").await;
    send(&mut peer, "ask").await;
    service.receive(1).await;
    drop(peer);
    let gone: &[&str] = &["tidemill_connections{", "\"back\"", "\"connected\""];
    until_metric(&service.metrics, gone, "0").await;
    service.push(service.answer(0, "nobody"));
    service.flush().await;
    assert_eq!(service.reasons(), [Reason::SinkUnavailable]);
    assert_eq!(service.sink.in_flight(), 0);
}

#[tokio::test]
async fn what_came_on_no_connection_has_no_way_back() {
    let (mut service, _) = accepting(server_endpoint("/"), &ReplySink::default()).await;
    service.push(message("a timer's"));
    assert_eq!(service.reasons(), [Reason::NoOutput]);
    assert_eq!(service.sink.in_flight(), 0);
}

/// More than two sockets hold.
const FLOOD: usize = 400;
/// How long what is before a close frame may take.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

fn flood(index: usize) -> String {
    format!("{index:08} {}", "x".repeat(64 << 10))
}

/// A peer that asks once and reads nothing, and a service that answers with a flood.
async fn flooded(slow: SlowPeer) -> (Service, Peer) {
    let config = reply(Peers { buffer: 16, slow, ..Peers::default() });
    let (mut service, address) = accepting(server_endpoint("/"), &config).await;
    let mut peer = dial(address, "/").await;
    send(&mut peer, "ask").await;
    service.receive(1).await;
    for index in 0..FLOOD {
        service.push_in_turn(service.answer(0, &flood(index))).await;
        tokio::task::yield_now().await;
    }
    (service, peer)
}

#[tokio::test]
async fn a_slow_peer_misses_the_oldest_or_the_newest() {
    for (slow, has_last) in [(SlowPeer::DropOldest, true), (SlowPeer::DropNewest, false)] {
        let (mut service, mut peer) = flooded(slow).await;
        assert!(service.sink.in_flight() < FLOOD);
        service.push_in_turn(service.answer(0, "end")).await;
        let (mut got, mut last) = (0, None);
        let dropped = |service: &Service| service.counted(&["tidemill_messages_dropped_total{", "slow_peer"]);
        while got + dropped(&service) < FLOOD + 1 {
            last = Some(service.with(next_text(&mut peer)).await);
            got += 1;
        }
        service.flush().await;
        assert!(dropped(&service) > 0, "{slow:?}");
        assert_eq!(last.as_deref() == Some("end"), has_last, "{slow:?}");
        assert_eq!(service.counted(&["tidemill_messages_delivered_total{"]), got);
        assert!(service.failed.is_empty());
    }
}

#[tokio::test]
async fn a_slow_peer_can_be_disconnected() {
    let (mut service, mut peer) = flooded(SlowPeer::Disconnect).await;
    service.flush().await;
    assert!(!service.failed.is_empty());
    assert!(service.reasons().iter().all(|reason| *reason == Reason::SlowPeer));
    assert_eq!(close_code(&mut peer).await, 1013);
    let delivered = service.counted(&["tidemill_messages_delivered_total{"]);
    assert_eq!(delivered + service.failed.len(), FLOOD);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed_by_its_pipeline_all_the_same() {
    let (mut service, mut peer) = flooded(SlowPeer::DropOldest).await;
    let mut closing = service.answer(0, "");
    closing.metadata.set(&CLOSE.into(), "1008 enough");
    let since = Instant::now();
    service.push_in_turn(closing).await;
    // It goes on sending, and is read until it is closed.
    let cut = async {
        while peer.send(tungstenite::Message::text("more")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    service.with(cut).await;
    assert!(since.elapsed() >= CLOSING_TIMEOUT, "what was before the close frame had no time");
    assert!(since.elapsed() < CLOSING_TIMEOUT * 3, "it took {:?}", since.elapsed());
    service.flush().await;
    assert!(service.reasons().iter().all(|reason| *reason == Reason::SinkUnavailable));
    assert!(!service.failed.is_empty());
}

#[tokio::test]
async fn a_slow_peer_can_hold_the_pipeline() {
    let config = reply(Peers { buffer: 4, slow: SlowPeer::Block, ..Peers::default() });
    let (mut service, address) = accepting(server_endpoint("/"), &config).await;
    let (mut slow, mut other) = (dial(address, "/").await, dial(address, "/").await);
    send(&mut slow, "ask").await;
    service.receive(1).await;
    let mut cx = Context::from_waker(Waker::noop());
    let mut pushed = 0;
    // The peer's task writes until the socket is full, then the lane fills, then the sink says no.
    while service.sink.poll_ready(&mut cx).is_ready() {
        service.push(service.answer(0, &flood(pushed)));
        pushed += 1;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        service.sink.poll_drive(&mut cx, &mut service.failed);
    }
    assert!(pushed < FLOOD, "it is held");
    for index in 0..pushed {
        assert_eq!(service.with(next_text(&mut slow)).await, flood(index));
    }
    service.flush().await;
    assert_eq!(service.sink.poll_ready(&mut cx), Poll::Ready(()));
    assert_eq!(service.counted(&["tidemill_messages_delivered_total{"]), pushed);
    send(&mut other, "still here").await;
    service.receive(2).await;
    service.push(service.answer(1, "yes"));
    assert_eq!(service.with(next_text(&mut other)).await, "yes");
}

#[tokio::test]
async fn a_dialled_peer_that_does_not_read_is_bounded_as_well() {
    let (listener, url) = listener().await;
    let config = reply(Peers { buffer: 16, slow: SlowPeer::Disconnect, ..Peers::default() });
    let mut service = dialling(client_endpoint(&url), &config);
    let mut slow = service.with(accept(&listener)).await;
    send(&mut slow, "ask").await;
    service.receive(1).await;
    for index in 0..FLOOD {
        service.push_in_turn(service.answer(0, &flood(index))).await;
        service.with(tokio::task::yield_now()).await;
    }
    // It is closed, and dialled again.
    let second = service.with(accept(&listener)).await;
    assert!(service.reasons().iter().all(|reason| *reason == Reason::SlowPeer));
    assert!(!service.failed.is_empty());
    drop(second);
}

#[tokio::test]
async fn at_the_end_replies_go_out_before_the_connection_closes() {
    let (mut service, address) = accepting(server_endpoint("/"), &ReplySink::default()).await;
    let mut peer = dial(address, "/").await;
    send(&mut peer, "ask").await;
    service.receive(1).await;
    let Service { source, sink, seen, failed, .. } = &mut service;
    // As a pipeline ends: the source stops first, its messages go through, then the sinks close.
    let mut cx = Context::from_waker(Waker::noop());
    source.poll_stop(&mut cx, 1001);
    sink.push(seen.messages.remove(0), failed);
    let close = poll_fn(|cx| {
        let sink = sink.poll_close(cx, 1001, failed);
        let source = source.poll_close(cx, 1001);
        if sink.is_ready() && source.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    });
    let reads = async {
        assert_eq!(next_text(&mut peer).await, "ask");
        assert_eq!(close_code(&mut peer).await, 1001);
        drop(peer);
    };
    soon(async { tokio::join!(close, reads) }).await;
    assert!(failed.is_empty());
}

#[tokio::test]
async fn a_dialled_connection_stays_for_its_replies_when_its_source_stops() {
    let (listener, url) = listener().await;
    let mut service = dialling(client_endpoint(&url), &ReplySink::default());
    let mut peer = service.with(accept(&listener)).await;
    send(&mut peer, "ask").await;
    service.receive(1).await;
    service.source.poll_stop(&mut Context::from_waker(Waker::noop()), 1001);
    service.push(service.answer(0, "said"));
    service.flush().await;
    assert_eq!(next_text(&mut peer).await, "said");
    let closed = poll_fn(|cx| service.source.poll_close(cx, 1001));
    let reads = async {
        assert_eq!(close_code(&mut peer).await, 1001);
        drop(peer);
    };
    soon(async { tokio::join!(closed, reads) }).await;
}
