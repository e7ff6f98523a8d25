//! Whom a listener does not let in, and what a peer costs that only asks.

use crate::drive::{
    Metrics, Seen, accept, client_endpoint, close_code, dial, fill_until, listener, metric, server_endpoint,
    server_sink, server_source, sink_of, soon, until_metric, with_sink,
};
use futures_util::SinkExt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;
use tidemill::config::{
    AllowedOrigins, Auth, BearerFrom, Buffer, Endpoint, FromHandshake, Mode, Peers, Server,
};
use tidemill::websocket::Listeners;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

/// So many handshakes may always be in progress.
const HANDSHAKES: usize = 64;
/// What is not to happen is waited for as long.
const A_WHILE: Duration = Duration::from_millis(300);

const CONNECTED: &[&str] = &["tidemill_connections{", "\"source\"", "\"connected\""];

/// What answers a request that asks for a WebSocket, with these headers besides: the status.
async fn status(address: SocketAddr, path: &str, headers: &str) -> u16 {
    let mut tcp = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\n{headers}Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).await.expect("it is read");
    let mut line = [0; 12];
    soon(tcp.read_exact(&mut line)).await.expect("an answer");
    String::from_utf8_lossy(&line[9..]).parse().expect("a status")
}

/// The same for headers that need not be text.
async fn status_of_bytes(address: SocketAddr, headers: &[u8]) -> u16 {
    let mut tcp = TcpStream::connect(address).await.expect("it listens");
    let rest = b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    tcp.write_all(&[b"GET / HTTP/1.1\r\n", headers, rest].concat()).await.expect("it is read");
    let mut line = [0; 12];
    soon(tcp.read_exact(&mut line)).await.expect("an answer");
    String::from_utf8_lossy(&line[9..]).parse().expect("a status")
}

async fn asked(address: SocketAddr, path: &str) -> u16 {
    status(address, path, "Host: localhost\r\n").await
}

fn with_token(path: &str) -> Endpoint {
    let mut endpoint = server_endpoint(path);
    if let Mode::Server(listen) = &mut endpoint.mode {
        let bearer = vec!["secret".into()];
        listen.auth = Some(Auth { bearer, bearer_from: vec![BearerFrom::Header], basic: Vec::new() });
    }
    endpoint
}

fn limited(max_connections: usize) -> (Listeners, Metrics) {
    let metrics = Metrics::default();
    // Nothing here waits for a handshake to run out of time.
    let handshake_timeout = Duration::from_secs(3600);
    let server = Server { max_connections, handshake_timeout, ..Server::default() };
    (Listeners::new(&server).counted_by(metrics.handshakes()), metrics)
}

/// A connection that never asks for anything.
async fn idle(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("it listens")
}

#[tokio::test]
async fn every_handshake_that_is_refused_is_counted_by_its_status() {
    let (listeners, metrics) = limited(1);
    let (_source, address) = server_source(&listeners, with_token("/in"), &metrics).await;
    let (_other, _) = server_source(&listeners, server_endpoint("/open"), &metrics).await;
    for _ in 0..3 {
        assert_eq!(asked(address, "/in").await, 401);
    }
    assert_eq!(asked(address, "/none").await, 404);
    let origin = "Host: localhost\r\nOrigin: http://evil.example\r\n";
    assert_eq!(status(address, "/open", origin).await, 403);
    assert_eq!(status(address, "/in", "").await, 400);
    let _peer = dial(address, "/open").await;
    assert_eq!(asked(address, "/open").await, 503);
    let listener = format!("listener=\"{address}\"");
    for (status, count) in [("401", "3"), ("404", "1"), ("403", "1"), ("400", "1"), ("503", "1")] {
        let of = format!("status=\"{status}\"");
        let parts = ["tidemill_handshakes_refused_total{", &listener, &of];
        assert_eq!(metric(&metrics, &parts), count, "{status}");
    }
}

#[tokio::test]
async fn one_that_does_not_ask_in_time_is_counted_too() {
    let metrics = Metrics::default();
    let server = Server { handshake_timeout: Duration::from_millis(20), ..Server::default() };
    let listeners = Listeners::new(&server).counted_by(metrics.handshakes());
    let (_source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut idle = idle(address).await;
    assert_eq!(soon(idle.read(&mut [0])).await.expect("it is hung up on"), 0);
    until_metric(&metrics, &["tidemill_handshakes_refused_total{", "status=\"timeout\""], "1").await;
}

#[tokio::test]
async fn handshakes_in_progress_take_no_connection_of_a_peer() {
    let (listeners, metrics) = limited(1);
    let (_source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut waiting = Vec::new();
    for _ in 1..HANDSHAKES {
        waiting.push(idle(address).await);
    }
    let _peer = dial(address, "/").await;
    assert_eq!(asked(address, "/").await, 503, "one connection is allowed");
}

#[tokio::test]
async fn handshakes_beyond_their_bound_wait_for_one_that_ends() {
    let (listeners, metrics) = limited(4);
    let (_source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut waiting = Vec::new();
    for _ in 0..HANDSHAKES {
        waiting.push(idle(address).await);
    }
    let mut beyond = std::pin::pin!(dial(address, "/"));
    assert!(tokio::time::timeout(A_WHILE, &mut beyond).await.is_err(), "all are taken");
    waiting.pop();
    let _peer = soon(beyond).await;
}

#[tokio::test]
async fn a_handshake_in_progress_delays_no_stop() {
    let (listeners, metrics) = limited(10);
    let (mut source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut silent = idle(address).await;
    let mut halfway = idle(address).await;
    halfway.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").await.expect("it is read");
    // One that came later is in already, so that these are looked at.
    let peer = dial(address, "/").await;
    until_metric(&metrics, CONNECTED, "1").await;
    drop(peer);
    soon(poll_fn(|cx| source.poll_close(cx, 1001))).await;
    for tcp in [&mut silent, &mut halfway] {
        assert!(matches!(soon(tcp.read(&mut [0])).await, Ok(0) | Err(_)), "it is hung up on");
    }
    tokio::net::TcpListener::bind(address).await.expect("the address is free");
}

#[tokio::test]
async fn a_page_whose_name_was_made_to_lead_here_is_not_let_in() {
    let (listeners, metrics) = limited(10);
    let (_open, address) = server_source(&listeners, server_endpoint("/open"), &metrics).await;
    let (_asks, _) = server_source(&listeners, with_token("/asks"), &metrics).await;
    let mut listed = server_endpoint("/listed");
    if let Mode::Server(listen) = &mut listed.mode {
        let origin = "http://app.example:81".into();
        listen.allowed_origins = AllowedOrigins::listed(&[origin]).expect("an origin");
    }
    let (_listed, _) = server_source(&listeners, listed, &metrics).await;
    let port = address.port();
    let page = |name: &str| format!("Host: {name}:{port}\r\nOrigin: http://{name}:{port}\r\n");
    assert_eq!(status(address, "/open", &page("evil.example")).await, 403);
    assert_eq!(status(address, "/open", &format!("Host: evil.example:{port}\r\n")).await, 403);
    for own in ["localhost", "127.0.0.1", "[::1]"] {
        assert_eq!(status(address, "/open", &page(own)).await, 101, "{own}");
    }
    assert_eq!(status(address, "/asks", &page("evil.example")).await, 401, "it asks for more");
    let app = "Host: evil.example\r\nOrigin: http://app.example:81\r\n";
    assert_eq!(status(address, "/listed", app).await, 101);
}

#[tokio::test]
async fn a_producer_that_comes_back_has_its_seat_though_its_pipeline_holds_it_back() {
    let (listeners, metrics) = limited(100);
    let mut endpoint = server_endpoint("/");
    if let Mode::Server(listen) = &mut endpoint.mode {
        listen.max_connections = 1;
    }
    let (mut source, address) = server_source(&listeners, endpoint, &metrics).await;
    let (mut sent, mut seen) = (0, Seen::default());
    // More than the pipeline takes by itself, and more than is read beyond.
    for count in [4000, 8000] {
        let mut producer = dial(address, "/").await;
        for n in 0..count {
            producer.feed(Message::text(n.to_string())).await.expect("it is read");
        }
        soon(producer.flush()).await.expect("it is read");
        sent += count;
        drop(producer);
        let again = dial(address, "/").await;
        assert_eq!(asked(address, "/").await, 503, "there is one seat");
        drop(again);
        fill_until(&mut source, &mut seen, |seen| seen.messages.len() == sent).await;
    }
    let _last = dial(address, "/").await;
}

#[tokio::test]
async fn connections_that_ended_while_held_back_are_closed_at_once_and_bounded() {
    const MAX_CONNECTIONS: usize = 2;
    /// More than the pipeline takes by itself, and less than is read beyond.
    const MESSAGES: usize = 3000;
    let (listeners, metrics) = limited(100);
    let mut endpoint = server_endpoint("/");
    if let Mode::Server(listen) = &mut endpoint.mode {
        listen.max_connections = MAX_CONNECTIONS;
    }
    let (mut source, address) = server_source(&listeners, endpoint, &metrics).await;
    // As many give their seats up as there are seats, and then as many keep them.
    for round in 0..2 * MAX_CONNECTIONS {
        let mut producer = dial(address, "/").await;
        for n in 0..MESSAGES {
            producer.feed(Message::text((round * MESSAGES + n).to_string())).await.expect("it is read");
        }
        soon(producer.flush()).await.expect("it is read");
        let tcp = producer.get_mut();
        soon(tcp.shutdown()).await.expect("it is open");
        // The host closes its side though it holds what it has read.
        assert_eq!(soon(tcp.read(&mut [0; 64])).await.expect("no reset"), 0);
    }
    assert_eq!(asked(address, "/").await, 503, "messages of all that may be are held");
    assert_eq!(metric(&metrics, CONNECTED), "0", "nobody is connected");

    let mut seen = Seen::default();
    let sent = 2 * MAX_CONNECTIONS * MESSAGES;
    fill_until(&mut source, &mut seen, |seen| seen.messages.len() == sent).await;
    let text = |message: &tidemill::message::Message| {
        let text = String::from_utf8_lossy(message.payload.as_bytes());
        text.parse::<usize>().expect("a number")
    };
    let mut arrived: Vec<usize> = seen.messages.iter().map(text).collect();
    arrived.sort_unstable();
    assert!(arrived.into_iter().eq(0..sent), "every message once");
    soon(async { while asked(address, "/").await != 101 {} }).await;
}

#[tokio::test]
async fn what_is_too_large_is_counted_where_the_endpoint_is_a_sink() {
    let too_large = Message::binary(vec![0; 2000]);
    let counted = ["tidemill_peer_messages_dropped_total{", "sink=\"out\"", "reason=\"too_large\""];

    let (listeners, metrics) = limited(10);
    let endpoint = Endpoint { max_message_size_bytes: 1000, ..server_endpoint("/") };
    let (_sink, address) = server_sink(&listeners, endpoint, Peers::default(), &metrics).await;
    let mut peer = dial(address, "/").await;
    soon(peer.send(too_large.clone())).await.expect("it is read");
    assert_eq!(close_code(&mut peer).await, 1009);
    until_metric(&metrics, &counted, "1").await;

    let metrics = Metrics::default();
    let (listener, url) = listener().await;
    let endpoint = Endpoint { max_message_size_bytes: 1000, ..client_endpoint(&url) };
    let mut sink = sink_of(endpoint, Buffer::default(), &metrics);
    let mut failed = Vec::new();
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    let sends = async {
        peer.send(too_large).await.expect("it is read");
        assert_eq!(close_code(&mut peer).await, 1009);
    };
    with_sink(&mut sink, &mut failed, sends).await;
    assert_eq!(metric(&metrics, &counted), "1");
}

#[tokio::test]
async fn a_request_with_two_hosts_is_refused_whatever_they_say() {
    let (_source, address) =
        server_source(&Listeners::default(), server_endpoint("/"), &Metrics::default()).await;
    for hosts in ["Host: localhost\r\nHost: localhost\r\n", "Host: localhost\r\nhost: evil.example\r\n"] {
        assert_eq!(status(address, "/", hosts).await, 400, "{hosts}");
    }
    assert_eq!(status(address, "/", "").await, 400, "none is too few");
    assert_eq!(asked(address, "/").await, 101);
}

#[tokio::test]
async fn a_header_that_metadata_is_taken_from_must_be_utf_8() {
    let mut endpoint = server_endpoint("/");
    if let Mode::Server(listen) = &mut endpoint.mode {
        listen.metadata = vec![
            ("user".to_owned(), FromHandshake::Header("X-User".to_owned())),
            ("sid".to_owned(), FromHandshake::Cookie("sid".to_owned())),
        ];
    }
    let (_source, address) = server_source(&Listeners::default(), endpoint, &Metrics::default()).await;
    for (headers, wanted) in [
        (&b"X-User: caf\xe9\r\n"[..], 400),
        (b"x-user: caf\xe8\r\n", 400),
        (b"Cookie: theme=caf\xe9; sid=1\r\n", 400),
        ("X-User: café\r\n".as_bytes(), 101),
        (b"X-Other: caf\xe9\r\n", 101),
    ] {
        assert_eq!(status_of_bytes(address, headers).await, wanted, "{}", String::from_utf8_lossy(headers));
    }
}
