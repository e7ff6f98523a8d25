//! Who is let in to a server endpoint, by which path, and what its messages know of it.

use crate::drive::{Seen, fill_until, server_endpoint, server_source, soon};
use futures_util::SinkExt;
use std::net::SocketAddr;
use tidemill::config::{Endpoint, FromHandshake, Listen, Mode, Redacted};
use tidemill::message::Message;
use tidemill::metadata::{CONNECTION, INGEST_TIME, PEER, SOURCE};
use tidemill::source::Source;
use tidemill::telemetry::Metrics;
use tidemill::websocket::Listeners;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{WebSocketStream, client_async};

type Peer = WebSocketStream<TcpStream>;

/// Dials with these headers; the answer if it is no 101.
async fn dial(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(Peer, Response), Response> {
    let tcp = TcpStream::connect(address).await.expect("it listens");
    let mut request = format!("ws://{address}{path}").into_client_request().expect("a url");
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a header");
        request.headers_mut().append(name, value.parse().expect("a value"));
    }
    match soon(client_async(request, tcp)).await {
        Ok((peer, answer)) => Ok((peer, answer)),
        Err(Error::Http(answer)) => Err(answer.map(|_| None)),
        Err(error) => panic!("neither a connection nor an answer: {error}"),
    }
}

async fn status(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> u16 {
    match dial(address, path, headers).await {
        Ok(_) => 101,
        Err(answer) => answer.status().as_u16(),
    }
}

fn listen_of(endpoint: &mut Endpoint) -> &mut Listen {
    match &mut endpoint.mode {
        Mode::Server(listen) => listen,
        Mode::Client(_) => panic!("a server endpoint"),
    }
}

/// Sends a message, and takes it from the source.
async fn sent(peer: &mut Peer, source: &mut Source) -> Message {
    soon(peer.send(tungstenite::Message::text("hello"))).await.expect("it is read");
    let mut seen = Seen::default();
    fill_until(source, &mut seen, |seen| !seen.messages.is_empty()).await;
    seen.messages.remove(0)
}

#[tokio::test]
async fn a_named_segment_takes_any_value_and_an_exact_path_wins() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let named = server_endpoint("/rooms/{room}");
    let (mut rooms, address) = server_source(&listeners, named, &metrics).await;
    let (mut lobby, _) = server_source(&listeners, server_endpoint("/rooms/lobby"), &metrics).await;
    for path in ["/rooms", "/rooms/", "/rooms/7/", "/rooms/7/x", "/"] {
        assert_eq!(status(address, path, &[]).await, 404, "{path}");
    }
    let (mut peer, _) = dial(address, "/rooms/a%20b?x=y", &[]).await.expect("let in");
    let message = sent(&mut peer, &mut rooms).await;
    assert_eq!(message.metadata.get(SOURCE), format!("ws://127.0.0.1:{}/rooms/a%20b", address.port()));
    let (mut peer, _) = dial(address, "/rooms/lobby", &[]).await.expect("let in");
    let message = sent(&mut peer, &mut lobby).await;
    assert!(message.metadata.get(SOURCE).ends_with("/rooms/lobby"));
}

#[tokio::test]
async fn every_message_knows_its_connection_and_what_the_handshake_said() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = server_endpoint("/rooms/{room}");
    listen_of(&mut endpoint).metadata = vec![
        ("room".to_owned(), FromHandshake::Path("room".to_owned())),
        ("symbol".to_owned(), FromHandshake::Query("symbol".to_owned())),
        ("user".to_owned(), FromHandshake::Header("X-User".to_owned())),
        ("sid".to_owned(), FromHandshake::Cookie("sid".to_owned())),
        ("name".to_owned(), FromHandshake::User),
    ];
    let (mut source, address) = server_source(&listeners, endpoint, &metrics).await;
    let headers = [("X-User", "ann"), ("Cookie", "a=b; sid=s-1")];
    let (mut one, _) = dial(address, "/rooms/7?symbol=BTC%2FUSD", &headers).await.expect("let in");
    let (mut two, _) = dial(address, "/rooms/8", &[]).await.expect("let in");
    let first = sent(&mut one, &mut source).await.metadata;
    let mut all: Vec<_> = first.iter().map(|(key, _)| key.to_owned()).collect();
    all.sort();
    assert_eq!(all, [CONNECTION, INGEST_TIME, PEER, SOURCE, "room", "sid", "symbol", "user"]);
    assert_eq!((&*first.get("room"), &*first.get("symbol")), ("7", "BTC/USD"));
    assert_eq!((&*first.get("user"), &*first.get("sid")), ("ann", "s-1"));
    assert_eq!(first.get(PEER), one.get_ref().local_addr().expect("bound").to_string());
    assert!(first.get(INGEST_TIME).parse::<u64>().is_ok_and(|time| time > 1_700_000_000_000));
    let again = sent(&mut one, &mut source).await.metadata;
    assert_eq!(again.get(CONNECTION), first.get(CONNECTION));
    let other = sent(&mut two, &mut source).await.metadata;
    assert_ne!(other.get(CONNECTION), first.get(CONNECTION));
    assert_eq!((&*other.get("room"), &*other.get("symbol"), &*other.get("user")), ("8", "", ""));
}

#[tokio::test]
async fn two_sources_of_a_path_each_have_their_own_metadata() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let with = |key: &str, from: &str| {
        let mut endpoint = server_endpoint("/in");
        listen_of(&mut endpoint).metadata = vec![(key.to_owned(), FromHandshake::Query(from.to_owned()))];
        endpoint
    };
    let (mut one, address) = server_source(&listeners, with("a", "x"), &metrics).await;
    let (mut two, _) = server_source(&listeners, with("b", "y"), &metrics).await;
    let (mut peer, _) = dial(address, "/in?x=1&y=2", &[]).await.expect("let in");
    let first = sent(&mut peer, &mut one).await.metadata;
    let mut seen = Seen::default();
    fill_until(&mut two, &mut seen, |seen| !seen.messages.is_empty()).await;
    let second = &seen.messages[0].metadata;
    assert_eq!((&*first.get("a"), &*first.get("b")), ("1", ""));
    assert_eq!((&*second.get("a"), &*second.get("b")), ("", "2"));
    assert_eq!(first.get(CONNECTION), second.get(CONNECTION));
    // One that comes while the peer is connected has it from the same handshake.
    let (mut late, _) = server_source(&listeners, with("c", "x"), &metrics).await;
    let third = sent(&mut peer, &mut late).await.metadata;
    assert_eq!((&*third.get("a"), &*third.get("c")), ("", "1"));
}

#[tokio::test]
async fn what_is_hidden_of_a_path_is_hidden_of_its_messages() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = server_endpoint("/");
    listen_of(&mut endpoint).path = Redacted::new("/s3cr3t", "/***");
    let (mut source, address) = server_source(&listeners, endpoint, &metrics).await;
    let (mut peer, _) = dial(address, "/s3cr3t", &[]).await.expect("let in");
    let message = sent(&mut peer, &mut source).await;
    assert_eq!(message.metadata.get(SOURCE), format!("ws://127.0.0.1:{}/***", address.port()));
}
