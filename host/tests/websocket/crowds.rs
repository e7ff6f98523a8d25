//! A hundred peers of which one does not read, under each policy: what it costs whom, counted.

use crate::drive::{
    Metrics, Peer, close_code, dial, flush, message, metric, next_text, push, server_endpoint, server_sink,
    soon, until_metric,
};
use std::net::SocketAddr;
use std::task::{Context, Waker};
use tidemill::config::{Peers, SlowPeer};
use tidemill::sink::Sink;
use tidemill::websocket::Listeners;
use tokio::net::TcpSocket;
use tokio_tungstenite::client_async;

const CONNECTED: &[&str] = &["tidemill_connections{", "\"out\"", "\"connected\""];
const QUICK: usize = 99;
/// How many messages a peer may be behind.
const BUFFER: usize = 8;
/// More than a socket takes whose peer has hardly a buffer.
const FLOOD: usize = 90;

fn flood(index: usize) -> String {
    format!("{index:08} {}", "x".repeat(64 << 10))
}

/// A peer with as small a buffer as there is.
async fn dial_slow(address: SocketAddr) -> Peer {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it is not connected");
    let tcp = soon(socket.connect(address)).await.expect("it listens");
    soon(client_async(format!("ws://{address}/"), tcp)).await.expect("a handshake").0
}

struct Crowd {
    sink: Sink,
    slow: Peer,
    quick: Vec<Peer>,
    metrics: Metrics,
}

async fn crowd(slow: SlowPeer) -> Crowd {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: BUFFER, slow, ..Peers::default() };
    let (sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let mut quick = Vec::new();
    for _ in 0..QUICK {
        quick.push(dial(address, "/").await);
    }
    let slow = dial_slow(address).await;
    until_metric(&metrics, CONNECTED, "100").await;
    Crowd { sink, slow, quick, metrics }
}

impl Crowd {
    /// Sends a flood; each message once all that read have had the one before.
    async fn flood(&mut self) {
        let mut failed = Vec::new();
        for index in 0..FLOOD {
            push(&mut self.sink, &mut failed, &[&flood(index)]).await;
            flush(&mut self.sink, &mut failed).await;
            self.everybody_has(index).await;
        }
    }

    async fn everybody_has(&mut self, index: usize) {
        for peer in &mut self.quick {
            assert!(next_text(peer).await == flood(index), "{index}");
        }
    }

    fn counted(&self, parts: &[&str]) -> usize {
        metric(&self.metrics, parts).parse().expect("a number")
    }

    fn missed(&self) -> usize {
        self.counted(&["tidemill_peer_messages_dropped_total{", "slow_peer"])
    }

    fn delivered(&self) -> usize {
        self.counted(&["tidemill_messages_delivered_total{"])
    }
}

/// The numbers of what the slow peer gets, as many as it is to get.
async fn numbers(slow: &mut Peer, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(next_text(slow).await[..8].parse().expect("a number"));
    }
    numbers
}

#[tokio::test]
async fn drop_oldest_costs_the_slow_peer_the_oldest_and_nobody_else() {
    let mut crowd = crowd(SlowPeer::DropOldest).await;
    crowd.flood().await;
    let missed = crowd.missed();
    let mut got = Vec::new();
    while got.last() != Some(&(FLOOD - 1)) {
        got.extend(numbers(&mut crowd.slow, 1).await);
    }
    let missed_now = crowd.missed();
    assert!(missed <= missed_now && missed_now > 0, "what it missed is counted when it goes on");
    assert_eq!(got.len() + missed_now, FLOOD);
    assert!(got.is_sorted());
    assert_eq!(crowd.delivered(), FLOOD);
    if cfg!(target_os = "linux") {
        assert!(got.len() <= 2 * BUFFER, "{}: what is old did not wait in the kernel", got.len());
    }
}

#[tokio::test]
async fn drop_newest_costs_the_slow_peer_the_newest_and_nobody_else() {
    let mut crowd = crowd(SlowPeer::DropNewest).await;
    crowd.flood().await;
    let missed = crowd.missed();
    assert!(missed > 0);
    let got = numbers(&mut crowd.slow, FLOOD - missed).await;
    assert_eq!(got, (0..FLOOD - missed).collect::<Vec<_>>(), "the first, without a gap");
    assert_eq!(crowd.delivered(), FLOOD);
}

#[tokio::test]
async fn disconnect_costs_the_slow_peer_its_connection_and_nobody_else() {
    let mut crowd = crowd(SlowPeer::Disconnect).await;
    crowd.flood().await;
    until_metric(&crowd.metrics, CONNECTED, "99").await;
    assert!(crowd.missed() > 0);
    assert_eq!(close_code(&mut crowd.slow).await, 1013);
    assert_eq!(crowd.delivered(), FLOOD);
}

#[tokio::test]
async fn block_costs_everybody_time_and_nobody_a_message() {
    let mut crowd = crowd(SlowPeer::Block).await;
    let (mut failed, mut got, mut held) = (Vec::new(), Vec::new(), 0);
    for index in 0..FLOOD {
        while crowd.sink.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
            held += 1;
            got.extend(numbers(&mut crowd.slow, 1).await);
        }
        crowd.sink.push(message(&flood(index)), &mut failed);
        flush(&mut crowd.sink, &mut failed).await;
        crowd.everybody_has(index).await;
    }
    assert!(held > 0, "the slow peer holds the sink");
    let rest = numbers(&mut crowd.slow, FLOOD - got.len()).await;
    got.extend(rest);
    assert_eq!(got, (0..FLOOD).collect::<Vec<_>>());
    assert_eq!((crowd.missed(), crowd.delivered()), (0, FLOOD));
}

#[tokio::test]
async fn peer_buffer_bytes_bounds_what_waits_for_a_peer() {
    for (bytes, is_missed) in [(1 << 20, true), (64 << 20, false)] {
        let (listeners, metrics) = (Listeners::default(), Metrics::default());
        let peers = Peers { buffer: 1000, buffer_bytes: bytes, ..Peers::default() };
        let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
        let mut slow = dial_slow(address).await;
        until_metric(&metrics, CONNECTED, "1").await;
        let mut failed = Vec::new();
        for index in 0..FLOOD {
            push(&mut sink, &mut failed, &[&flood(index)]).await;
            flush(&mut sink, &mut failed).await;
            tokio::task::yield_now().await;
        }
        let mut got = Vec::new();
        while got.last() != Some(&(FLOOD - 1)) {
            got.extend(numbers(&mut slow, 1).await);
        }
        assert_eq!(got.len() < FLOOD, is_missed, "{bytes}");
    }
}
