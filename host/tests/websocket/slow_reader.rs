//! A peer that reads slowly but steadily, while kernels hold far more than it reads in the timeout of a
//! ping: the answer is late, and it is not silent.

use crate::drive::{
    Metrics, Peer, accept, client_endpoint, metric, next_text, push, server_endpoint, server_sink, sink_of,
    until_metric, with_sink,
};
use std::time::Duration;
use tidemill::config::{Buffer, Endpoint, Peers, Ping};
use tidemill::websocket::Listeners;
use tokio::net::TcpSocket;
use tokio_tungstenite::client_async;

const PING: Ping = Ping { interval: Duration::from_millis(100), timeout: Duration::from_millis(800) };
/// More than the kernels of both sides hold, and what is read slowly.
const MESSAGES: usize = 2048;
/// It takes several timeouts.
const SLOWLY: usize = 320;
const PAUSE: Duration = Duration::from_millis(12);

fn text(index: usize) -> String {
    format!("{index:08} {}", "x".repeat(16 << 10))
}

fn texts() -> Vec<String> {
    (0..MESSAGES).map(text).collect()
}

/// A socket that takes megabytes before anybody reads.
fn roomy() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(2 << 20).expect("it is not connected");
    socket
}

fn watched(mut endpoint: Endpoint) -> Endpoint {
    endpoint.ping = Some(PING);
    endpoint
}

async fn reads_all(peer: &mut Peer) {
    for index in 0..MESSAGES {
        assert!(next_text(peer).await == text(index), "{index}");
        if index < SLOWLY {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[tokio::test]
async fn a_dialled_peer_that_reads_slowly_is_not_silent() {
    let (socket, metrics) = (roomy(), Metrics::default());
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(8).expect("it is bound");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    let buffer = Buffer { capacity: MESSAGES, ..Buffer::default() };
    let mut sink = sink_of(watched(client_endpoint(&url)), buffer, &metrics);
    let mut failed = Vec::new();
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    push(&mut sink, &mut failed, &texts().iter().map(String::as_str).collect::<Vec<_>>()).await;
    with_sink(&mut sink, &mut failed, reads_all(&mut peer)).await;
    assert_eq!(metric(&metrics, &["tidemill_connections{", "\"connected\""]), "1");
}

#[tokio::test]
async fn an_accepted_peer_that_reads_slowly_is_not_silent() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: MESSAGES, buffer_bytes: 62 << 20, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, watched(server_endpoint("/")), peers, &metrics).await;
    let tcp = roomy().connect(address).await.expect("it listens");
    let (mut peer, _) = client_async(format!("ws://{address}/"), tcp).await.expect("a handshake");
    until_metric(&metrics, &["tidemill_connections{", "\"connected\""], "1").await;
    let mut failed = Vec::new();
    push(&mut sink, &mut failed, &texts().iter().map(String::as_str).collect::<Vec<_>>()).await;
    with_sink(&mut sink, &mut failed, reads_all(&mut peer)).await;
    assert_eq!(metric(&metrics, &["tidemill_connections{", "\"connected\""]), "1");
}
