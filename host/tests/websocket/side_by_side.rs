//! At a stop nobody waits behind another: peers, sinks, and pipelines that share a path end side by side.

use crate::drive::{
    Metrics, Peer, ROOM, Seen, close_code, dial, fill_until, message, metric, next_text, server_endpoint,
    server_sink, soon, source_config, until_metric,
};
use crate::running::{Running, close_source, dial_slow, received};
use futures_util::SinkExt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll, Waker};
use tidemill::config::{Environment, Listen, Peers, SlowPeer, parse};
use tidemill::sink::{self, Receipt, Sink};
use tidemill::source::{self, AcceptedSource, Fill, Source, SourceChunk};
use tidemill::websocket::Listeners;
use tidemill_tests::sockets::until;
use tokio_tungstenite::tungstenite::Message;

const IN_FLIGHT: &[&str] = &["tidemill_messages_in_flight{"];

#[tokio::test]
async fn peers_that_do_not_read_their_replies_are_given_up_together_and_hold_up_nobody_else() {
    const STALLED: usize = 4;
    /// What is read of a peer that is held back is more than a socket takes, in replies of this size.
    const REPLY_BYTES: usize = 16 << 10;
    const READ_WHILE_HELD: u64 = 14;
    let metrics = Metrics::default();
    let peers = Peers { buffer: 4, slow: SlowPeer::Block, ..Peers::default() };
    let (running, address) = Running::answering(peers, &metrics).await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut peer = dial_slow(address).await;
        stalled.push(tokio::spawn(async move {
            for _ in 0..100 {
                peer.send(Message::text("x".repeat(REPLY_BYTES))).await.expect("it is read, or held");
            }
            peer
        }));
    }
    let are_read = || {
        let received = received(&metrics, "p");
        received.len() == STALLED && received.iter().all(|messages| *messages >= READ_WHILE_HELD)
    };
    until(are_read).await;
    let mut quick = dial(address, "/").await;
    for text in ["a", "b", "c"] {
        soon(quick.send(Message::text(text))).await.expect("it is read");
    }
    until(|| received(&metrics, "p").contains(&3)).await;
    let deadline = running.stop().await;
    for text in ["a", "b", "c"] {
        assert_eq!(next_text(&mut quick).await, text);
    }
    assert_eq!(close_code(&mut quick).await, 1001);
    assert_ne!(metric(&metrics, IN_FLIGHT), "0", "it goes while the others are still waited for");
    drop(quick);
    running.ended(deadline).await;
    let given_up = metric(&metrics, &["tidemill_messages_dropped_total{", "\"back\"", "\"shutdown\""]);
    assert!(given_up.parse::<usize>().expect("a number") > 0);
    stalled.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_peers_of_a_sink_that_has_got_everything_go_while_another_sink_is_waited_for() {
    const MESSAGES: usize = 5_000;
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: MESSAGES, ..Peers::default() };
    let (sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let (queue, mut work) = sink::queue(metrics.sink("p", "stuck"));
    let mut peer = dial(address, "/").await;
    until_metric(&metrics, &["tidemill_connections{", "\"out\"", "\"connected\""], "1").await;
    let (feed, source) = source::queue();
    let sinks = vec![("stuck", Sink::Queue(queue)), ("out", sink)];
    let running = Running::new(Source::Queue(source), sinks, &metrics);
    let messages = (0..MESSAGES).map(|n| message(&n.to_string())).collect();
    soon(feed.push(SourceChunk { messages, ..SourceChunk::default() })).await.expect("it runs");
    assert_eq!(next_text(&mut peer).await, "0");
    let deadline = running.stop().await;
    for n in 1..MESSAGES {
        assert_eq!(next_text(&mut peer).await, n.to_string());
    }
    assert_eq!(close_code(&mut peer).await, 1001);
    drop(peer);
    // Nothing was taken of the other one until now, and nothing of it is lost.
    let mut taken = 0;
    while let Some(batch) = soon(work.next()).await {
        taken += batch.len();
        work.done(Receipt { delivered: batch.len() as u64, failed: Vec::new() });
    }
    drop(work);
    running.ended(deadline).await;
    assert_eq!((taken, metric(&metrics, IN_FLIGHT)), (MESSAGES, "0".to_owned()));
    drop(feed);
}

/// A source of a pipeline on a path that it shares.
async fn shared(listeners: &Listeners, pipeline: &str, metrics: &Metrics) -> (Source, SocketAddr) {
    let config = source_config(server_endpoint("/"));
    let listen: &Listen = config.endpoint.listen().expect("a server endpoint");
    let metrics = metrics.endpoint(pipeline, "source");
    let opened = AcceptedSource::open(&config, listen, listeners, false, metrics).await.expect("a free port");
    let address = opened.local_address();
    let source = Source::Accepted(Box::new(opened));
    source.start();
    (source, address)
}

/// Two pipelines share a path, one of which takes nothing.
struct Shared {
    free: Source,
    stuck: Source,
    metrics: Metrics,
    /// What was read of the peers, some of which have left.
    read: usize,
    staying: Vec<Peer>,
}

impl Shared {
    const PEERS: usize = 6;
    /// More than three chunks, and less than is read of a peer that is held back.
    const MESSAGES: usize = 800;

    async fn held() -> Self {
        let (listeners, metrics) = (Listeners::default(), Metrics::default());
        let (free, address) = shared(&listeners, "free", &metrics).await;
        let (stuck, _) = shared(&listeners, "stuck", &metrics).await;
        let (mut leaving, mut staying) = (Vec::new(), Vec::new());
        for n in 0..Self::PEERS {
            let peers = if n % 2 == 0 { &mut leaving } else { &mut staying };
            peers.push(dial(address, "/").await);
        }
        let there = |pipeline: &str| received(&metrics, pipeline).len();
        until(|| there("free") == Self::PEERS && there("stuck") == Self::PEERS).await;
        for peer in leaving.iter_mut().chain(&mut staying) {
            for n in 0..Self::MESSAGES {
                peer.feed(Message::text(format!("{n:0100}"))).await.expect("it is read");
            }
            soon(peer.flush()).await.expect("it is read");
        }
        for peer in &mut leaving {
            soon(peer.close(None)).await.expect("it is read");
        }
        let all_read = || received(&metrics, "stuck") == vec![Self::MESSAGES as u64; staying.len()];
        until(all_read).await;
        Self { free, stuck, metrics, read: Self::PEERS * Self::MESSAGES, staying }
    }
}

/// Stops a source, and takes what is left until its end.
async fn drain(source: &mut Source) -> Seen {
    let mut seen = Seen::default();
    poll_fn(|cx| {
        source.poll_stop(cx, 1001);
        Poll::Ready(())
    })
    .await;
    fill_until(source, &mut seen, |_| false).await;
    assert_eq!(seen.end, Some(Fill::Ended));
    seen
}

#[tokio::test]
async fn a_pipeline_that_stops_gets_what_was_read_for_it_whatever_another_of_its_path_takes() {
    let Shared { mut free, mut stuck, metrics, read, staying } = Shared::held().await;
    let seen = drain(&mut free).await;
    assert_eq!((seen.messages.len(), free.remaining()), (read, 0));
    close_source(&mut free).await;
    assert_eq!(received(&metrics, "stuck").len(), staying.len(), "the peers stay with the other");
    let mut other = Seen::default();
    fill_until(&mut stuck, &mut other, |other| other.messages.len() == read).await;
    assert_eq!(stuck.remaining(), 0);
}

#[tokio::test]
async fn the_last_pipeline_of_a_path_does_not_wait_for_what_another_is_still_to_take() {
    let Shared { mut free, mut stuck, read, mut staying, .. } = Shared::held().await;
    poll_fn(|cx| {
        stuck.poll_stop(cx, 1001);
        Poll::Ready(())
    })
    .await;
    let seen = drain(&mut free).await;
    assert_eq!(seen.messages.len(), read);
    let reads = async {
        for peer in &mut staying {
            assert_eq!(close_code(peer).await, 1001);
        }
        drop(staying);
    };
    soon(async { tokio::join!(close_source(&mut free), reads) }).await;
    assert_eq!(drain(&mut stuck).await.messages.len(), read);
}

#[tokio::test]
async fn sources_of_a_path_that_are_opened_together_get_the_same_messages_from_the_first_one_on() {
    let text = r#"
        [server]
        port = 0
        [[pipelines]]
        name = "one"
        source = { type = "websocket", mode = "server", path = "/" }
        sinks = [{ type = "stdout" }]
        [[pipelines]]
        name = "two"
        source = { type = "websocket", mode = "server", path = "/" }
        sinks = [{ type = "file", path = "two.jsonl" }]
        "#;
    let config = parse(Path::new("t.toml"), text.as_bytes(), &Environment::default()).expect("it is right");
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    config.config.pipelines.iter().for_each(|pipeline| listeners.expect(pipeline));
    listeners.open_together(&["one", "two"]);
    let (mut one, address) = shared(&listeners, "one", &metrics).await;
    listeners.expect_no_more("one");
    let (mut leaving, mut staying) = (dial(address, "/").await, dial(address, "/").await);
    for (peer, text) in [(&mut leaving, "left"), (&mut staying, "stays")] {
        soon(peer.send(Message::text(text))).await.expect("it is on its way");
    }
    soon(leaving.close(None)).await.expect("it is on its way");
    // What was sent before is read and held by then.
    until(|| received(&metrics, "one") == [1]).await;
    let (mut seen, mut other) = (Seen::default(), Seen::default());
    let nothing = &mut Context::from_waker(Waker::noop());
    assert!(one.poll_fill(nothing, &mut seen.messages, ROOM, &mut seen.failed).is_pending());
    let (mut two, _) = shared(&listeners, "two", &metrics).await;
    listeners.expect_no_more("two");
    for (source, seen) in [(&mut one, &mut seen), (&mut two, &mut other)] {
        fill_until(source, seen, |seen| seen.messages.len() == 2).await;
        let mut texts = seen.texts();
        texts.sort();
        assert_eq!(texts, ["left", "stays"]);
    }
}
