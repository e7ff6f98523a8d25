//! More at once than may wait for a peer: a burst alone costs nobody anything who reads.

use crate::drive::{
    Metrics, Peer, Seen, dial, fill_until, flush, metric, next_text, push, server_endpoint, server_sink,
    server_source, soon, until_metric,
};
use futures_util::{SinkExt, StreamExt};
use std::future::poll_fn;
use std::time::Duration;
use tidemill::config::{Mode, Peers, ReplySink, SlowPeer};
use tidemill::message::{Message, Payload};
use tidemill::sink::{self, Sink};
use tidemill::websocket::Listeners;
use tokio::net::TcpSocket;
use tokio_tungstenite::{client_async, tungstenite};

const CONNECTED: &[&str] = &["tidemill_connections{", "\"out\"", "\"connected\""];
const BURST: usize = 5000;

async fn reads_all(mut peer: Peer) -> Peer {
    for index in 0..BURST {
        assert_eq!(next_text(&mut peer).await, index.to_string());
    }
    peer
}

#[tokio::test]
async fn a_burst_drops_nothing_for_peers_that_read_at_once() {
    for slow in [SlowPeer::DropOldest, SlowPeer::DropNewest, SlowPeer::Disconnect, SlowPeer::Block] {
        let (listeners, metrics) = (Listeners::default(), Metrics::default());
        let peers = Peers { buffer: 16, slow, ..Peers::default() };
        let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
        let mut readers = Vec::new();
        for _ in 0..3 {
            readers.push(tokio::spawn(reads_all(dial(address, "/").await)));
        }
        until_metric(&metrics, CONNECTED, "3").await;
        let mut failed = Vec::new();
        for index in 0..BURST {
            push(&mut sink, &mut failed, &[&index.to_string()]).await;
        }
        flush(&mut sink, &mut failed).await;
        for reader in readers {
            soon(reader).await.expect("it has read all");
        }
        assert_eq!(metric(&metrics, &["tidemill_peer_messages_dropped_total{"]), "0", "{slow:?}");
        assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), BURST.to_string());
    }
}

#[tokio::test]
async fn a_message_larger_than_the_bound_reaches_peers_among_small_ones() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer_bytes: 1000, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let mut peer = dial(address, "/").await;
    until_metric(&metrics, CONNECTED, "1").await;
    let (large, mut failed) = ("x".repeat(5000), Vec::new());
    let texts = ["a", &large, "b", &large, &large, "c"];
    push(&mut sink, &mut failed, &texts).await;
    flush(&mut sink, &mut failed).await;
    for text in texts {
        assert_eq!(next_text(&mut peer).await, text);
    }
    assert_eq!(metric(&metrics, &["tidemill_peer_messages_dropped_total{"]), "0");
}

#[tokio::test]
async fn a_burst_of_replies_drops_nothing_for_a_peer_that_reads_at_once() {
    for slow in [SlowPeer::DropOldest, SlowPeer::DropNewest, SlowPeer::Disconnect, SlowPeer::Block] {
        let (listeners, metrics) = (Listeners::default(), Metrics::default());
        let endpoint = server_endpoint("/");
        let (mut source, address) = server_source(&listeners, endpoint.clone(), &metrics).await;
        let config =
            ReplySink { peers: Peers { buffer: 16, slow, ..Peers::default() }, ..ReplySink::default() };
        let Mode::Server(listen) = &endpoint.mode else { panic!("a server endpoint") };
        let (of_sink, of_endpoint) = (metrics.sink("p", "back"), metrics.endpoint("p", "back"));
        let reply = sink::Replies::accepted(&config, &endpoint, listen, &listeners, of_sink, of_endpoint);
        let mut sink = Sink::Reply(reply.await.expect("it is open already"));
        let mut peer = dial(address, "/").await;
        soon(peer.send(tungstenite::Message::text("ask"))).await.expect("it is read");
        let (mut seen, mut failed) = (Seen::default(), Vec::new());
        fill_until(&mut source, &mut seen, |seen| !seen.messages.is_empty()).await;
        let metadata = seen.messages[0].metadata.clone();
        let reader = tokio::spawn(reads_all(peer));
        for index in 0..BURST {
            soon(poll_fn(|cx| {
                sink.poll_drive(cx, &mut failed);
                sink.poll_ready(cx)
            }))
            .await;
            let payload = Payload::text(index.to_string());
            sink.push(Message { payload, metadata: metadata.clone() }, &mut failed);
        }
        flush(&mut sink, &mut failed).await;
        soon(reader).await.expect("it has read all");
        assert!(failed.is_empty(), "{slow:?}");
        assert_eq!(metric(&metrics, &["tidemill_messages_dropped_total{"]), "0", "{slow:?}");
    }
}

#[tokio::test]
async fn a_peer_that_reads_large_messages_slowly_but_all_the_time_misses_none_of_a_burst() {
    const LARGE: usize = 1 << 20;
    for slow in [SlowPeer::DropOldest, SlowPeer::DropNewest, SlowPeer::Disconnect] {
        let (listeners, metrics) = (Listeners::default(), Metrics::default());
        let peers = Peers { buffer_bytes: LARGE, slow, ..Peers::default() };
        let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("it is not connected");
        let tcp = soon(socket.connect(address)).await.expect("it listens");
        let mut peer = soon(client_async(format!("ws://{address}/"), tcp)).await.expect("a handshake").0;
        until_metric(&metrics, CONNECTED, "1").await;
        let reader = tokio::spawn(async move {
            for index in 0..10 {
                // Longer in all than a peer that reads nothing is waited for.
                tokio::time::sleep(Duration::from_millis(100)).await;
                let next = soon(peer.next()).await.expect("it is open").expect("sound frames");
                assert!(next.to_text().expect("a text").starts_with(&index.to_string()), "{index}");
            }
        });
        let mut failed = Vec::new();
        for index in 0..10 {
            push(&mut sink, &mut failed, &[&format!("{index}{}", "x".repeat(LARGE))]).await;
            flush(&mut sink, &mut failed).await;
        }
        soon(reader).await.expect("it has read all");
        assert_eq!(metric(&metrics, &["tidemill_peer_messages_dropped_total{"]), "0", "{slow:?}");
    }
}
