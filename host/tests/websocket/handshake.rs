//! Handshakes that do not become connections, on both sides, and the words they are reported in.

use crate::drive::{Metrics, client_of, dead_url, listener, server_endpoint, server_sink, soon};
use std::time::Duration;
use tidemill::config::{Endpoint, Peers, Redacted, Server};
use tidemill::telemetry::ConnectOutcome;
use tidemill::websocket::{ConnectError, Connection, Dial, Listeners, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn dial(endpoint: &mut Endpoint) -> Result<Connection, ConnectError> {
    let subprotocols = endpoint.subprotocols.clone();
    let max_message_size_bytes = endpoint.max_message_size_bytes;
    let client = client_of(endpoint);
    let url = client.urls[0].clone();
    soon(connect(Dial {
        url: &url,
        headers: &client.headers,
        client,
        subprotocols: &subprotocols,
        max_message_size_bytes,
    }))
    .await
}

async fn failed(endpoint: &mut Endpoint) -> ConnectError {
    match dial(endpoint).await {
        Ok(_) => panic!("there is no connection to be had"),
        Err(error) => error,
    }
}

/// Reads a request, and answers it with this.
async fn answer_once(listener: TcpListener, answer: String) {
    let (mut tcp, _) = listener.accept().await.expect("a connection");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).await.expect("a request");
        request.extend(byte);
    }
    let request = String::from_utf8(request).expect("text");
    let key = request.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value)
    });
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.expect("a key").as_bytes());
    tcp.write_all(answer.replace("ACCEPT", &accept).as_bytes()).await.expect("it reads");
    let _ = tcp.read(&mut [0]).await;
}

async fn answered(head: &str, change: impl FnOnce(&mut Endpoint)) -> (String, ConnectError) {
    let (listener, url) = listener().await;
    let mut endpoint = Endpoint::client(&url);
    change(&mut endpoint);
    let answer = tokio::spawn(answer_once(listener, head.replace('\n', "\r\n") + "\r\n\r\n"));
    let error = failed(&mut endpoint).await;
    soon(answer).await.expect("it answered");
    (url, error)
}

#[tokio::test]
async fn nobody_listening_is_connection_refused() {
    let url = dead_url().await;
    let error = failed(&mut Endpoint::client(&url)).await;
    assert_eq!(error.to_string(), format!("failed to connect to WebSocket {url}: connection refused"));
    assert_eq!(error.outcome(), ConnectOutcome::Refused);
}

#[tokio::test]
async fn a_server_that_never_answers_times_out() {
    let (_listener, url) = listener().await;
    let mut endpoint = Endpoint::client(&url);
    client_of(&mut endpoint).connect_timeout = Duration::from_millis(50);
    let error = failed(&mut endpoint).await;
    assert_eq!(error.to_string(), format!("connection to WebSocket {url} timed out after 50ms"));
    assert_eq!(error.outcome(), ConnectOutcome::Timeout);
}

#[tokio::test]
async fn http_answers_are_told_with_their_status() {
    let (url, error) = answered("HTTP/1.1 401 Unauthorized\nContent-Length: 0", |_| {}).await;
    assert_eq!(error.to_string(), format!("failed to connect to WebSocket {url}: 401 Unauthorized"));
    assert_eq!(error.hint(), Some("check `headers.Authorization`"));
    assert!(error.advice().slow_down);
    let (url, error) = answered("HTTP/1.1 404 Not Found\nContent-Length: 0", |_| {}).await;
    assert_eq!(error.to_string(), format!("failed to connect to WebSocket {url}: 404 Not Found"));
    assert_eq!((error.status(), error.outcome()), (Some(404), ConnectOutcome::Handshake));
    let (url, error) = answered("HTTP/1.1 403 Forbidden\nContent-Length: 0", |_| {}).await;
    assert_eq!(error.to_string(), format!("failed to connect to WebSocket {url}: 403 Forbidden"));
    assert!(error.advice().slow_down && error.hint().is_some());
    for busy in ["429 Too Many Requests", "503 Service Unavailable"] {
        let answer = format!("HTTP/1.1 {busy}\nRetry-After: 7\nContent-Length: 0");
        let (url, error) = answered(&answer, |_| {}).await;
        assert_eq!(error.to_string(), format!("failed to connect to WebSocket {url}: {busy}"));
        assert_eq!(error.advice().at_least, Some(Duration::from_secs(7)));
        assert!(!error.advice().slow_down);
    }
    let moved = "HTTP/1.1 301 Moved Permanently\nLocation: wss://b.example/\nContent-Length: 0";
    let (url, error) = answered(moved, |_| {}).await;
    let text = format!("failed to connect to WebSocket {url}: 301 Moved Permanently to wss://b.example/");
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_peer_that_is_no_websocket_server_is_told_apart() {
    let (_, error) = answered("SSH-2.0-OpenSSH_9.2", |_| {}).await;
    assert_eq!(error.outcome(), ConnectOutcome::Handshake);
    let (listener, url) = listener().await;
    let hang_up = tokio::spawn(async move { drop(listener.accept().await) });
    let error = failed(&mut Endpoint::client(&url)).await;
    assert_eq!(error.outcome(), ConnectOutcome::Closed);
    hang_up.await.expect("it hung up");
    let wrong = "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n\
                 Sec-WebSocket-Accept: wrong";
    let (_, error) = answered(wrong, |_| {}).await;
    assert!(error.to_string().ends_with(": Sec-WebSocket-Accept is wrong"), "{error}");
}

#[tokio::test]
async fn subprotocols_must_agree() {
    const UPGRADE: &str = "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n\
                           Sec-WebSocket-Accept: ACCEPT";
    let offer = |endpoint: &mut Endpoint| endpoint.subprotocols = vec!["v1.json".into()];
    let (_, error) = answered(UPGRADE, offer).await;
    let text = "subprotocol not supported: offered v1.json, the server chose none";
    assert!(error.to_string().ends_with(text), "{error}");
    let chose = format!("{UPGRADE}\nSec-WebSocket-Protocol: v9");
    let (_, error) = answered(&chose, offer).await;
    assert!(error.to_string().ends_with("offered v1.json, the server chose v9"), "{error}");
    let (_, error) = answered(&chose, |_| {}).await;
    assert!(error.to_string().ends_with("offered none, the server chose v9"), "{error}");
    let secret = |endpoint: &mut Endpoint| endpoint.subprotocols = vec![Redacted::new("t0ken", "***")];
    let (_, error) = answered(UPGRADE, secret).await;
    assert!(error.to_string().ends_with("offered ***, the server chose none"), "{error}");
}

#[tokio::test]
async fn our_own_server_chooses_among_what_the_client_prefers() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = server_endpoint("/");
    endpoint.subprotocols = vec!["a".into(), "b".into()];
    let (_sink, address) = server_sink(&listeners, endpoint, Peers::default(), &metrics).await;
    let mut client = Endpoint::client(format!("ws://{address}/"));
    client.subprotocols = vec!["c".into(), "b".into(), "a".into()];
    let connection = dial(&mut client).await.expect("they agree");
    assert_eq!(connection.subprotocol(), Some("b"));
}

#[tokio::test]
async fn user_info_and_headers_are_sent() {
    let (listener, url) = listener().await;
    let url = url.replace("ws://", "ws://me:p%40ss@");
    let mut endpoint = Endpoint::client(&url);
    client_of(&mut endpoint).headers = vec![("X-Key".to_owned(), Redacted::new("k-1", "***").into())];
    let request = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a connection");
        let mut request = vec![0; 4096];
        let length = tcp.read(&mut request).await.expect("a request");
        request.truncate(length);
        String::from_utf8(request).expect("text")
    });
    let error = failed(&mut endpoint).await;
    let request = request.await.expect("it was read");
    assert!(request.contains("GET /feed HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("Authorization: Basic bWU6cEBzcw==\r\n"), "{request}");
    assert!(request.contains("X-Key: k-1\r\n"), "{request}");
    assert!(!error.to_string().contains("p%40ss"), "{error}");
}

/// The head of the answer to a raw request.
async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.expect("it listens");
    tcp.write_all(request.replace('\n', "\r\n").as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    soon(tcp.read_to_string(&mut answer)).await.expect("an answer, and the end");
    answer.split("\r\n\r\n").next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn requests_that_are_no_handshake_get_a_proper_answer() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (_sink, address) =
        server_sink(&listeners, server_endpoint("/live"), Peers::default(), &metrics).await;
    let upgrade = "Host: localhost\nUpgrade: websocket\nConnection: keep-alive, Upgrade\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";
    let cases = [
        ("GET / HTTP/1.1\nHost: localhost\n\n".to_owned(), "HTTP/1.1 404 ", ""),
        ("GET /live HTTP/1.1\nHost: localhost\n\n".to_owned(), "HTTP/1.1 426 ", "Upgrade: websocket"),
        (
            "POST /live HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n".to_owned(),
            "HTTP/1.1 405 ",
            "Allow: GET",
        ),
        (format!("GET /live HTTP/1.1\n{upgrade}Sec-WebSocket-Version: 13\n\n"), "HTTP/1.1 400 ", ""),
        (
            format!("GET /live HTTP/1.1\n{upgrade}{key}Sec-WebSocket-Version: 8\n\n"),
            "HTTP/1.1 426 ",
            "Sec-Websocket-Version: 13",
        ),
        (format!("GET /nowhere HTTP/1.1\n{upgrade}{key}Sec-WebSocket-Version: 13\n\n"), "HTTP/1.1 404 ", ""),
        ("nonsense\n\n".to_owned(), "HTTP/1.1 400 ", ""),
    ];
    for (request, status, header) in cases {
        let answer = ask(address, &request).await;
        assert!(answer.starts_with(status), "{request}{answer}");
        assert!(answer.contains(header), "{request}{answer}");
    }
}

#[tokio::test]
async fn heads_beyond_the_limits_get_431_and_the_answer_is_not_lost() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (_sink, address) = server_sink(&listeners, server_endpoint("/"), Peers::default(), &metrics).await;
    let many: String = (0..101).map(|n| format!("X-{n}: y\n")).collect();
    let large = format!("X-Large: {}\n", "y".repeat(600 << 10));
    for headers in [many, large] {
        let answer = ask(address, &format!("GET / HTTP/1.1\nHost: localhost\n{headers}\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let body = "z".repeat(600 << 10);
    let posted = format!("POST / HTTP/1.1\nHost: localhost\nContent-Length: {}\n\n{body}", body.len());
    assert!(ask(address, &posted).await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn connections_above_the_limit_of_the_listener_get_503_and_handshakes_in_progress_do_not_count() {
    let server = Server { max_connections: 1, ..Server::default() };
    let (listeners, metrics) = (Listeners::new(&server), Metrics::default());
    let (_sink, address) = server_sink(&listeners, server_endpoint("/"), Peers::default(), &metrics).await;
    let mut slow = TcpStream::connect(address).await.expect("it listens");
    slow.write_all(b"GET / HTTP/1.1\r\n").await.expect("it reads");
    let first = crate::drive::dial(address, "/").await;
    let url = format!("ws://{address}/");
    assert_eq!(failed(&mut Endpoint::client(&url)).await.status(), Some(503));
    drop((first, slow));
    soon(async { while dial(&mut Endpoint::client(&url)).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_hung_up_on() {
    let server = Server { handshake_timeout: Duration::from_millis(30), ..Server::default() };
    let (listeners, metrics) = (Listeners::new(&server), Metrics::default());
    let (_sink, address) = server_sink(&listeners, server_endpoint("/"), Peers::default(), &metrics).await;
    let mut tcp = TcpStream::connect(address).await.expect("it listens");
    tcp.write_all(b"GET / HTTP/1.1\r\n").await.expect("it reads");
    assert_eq!(soon(tcp.read(&mut [0; 64])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("bound");
    let mut endpoint = server_endpoint("/");
    let tidemill::config::Mode::Server(listen) = &mut endpoint.mode else { panic!("a server endpoint") };
    listen.port = address.port();
    let listen = listen.clone();
    let metrics = Metrics::default().endpoint("p", "source");
    let error =
        Listeners::default().open_source(&endpoint, &listen, false, metrics).await.expect_err("it is taken");
    assert_eq!(error.to_string(), format!("failed to listen on {address}: address in use"));
}
