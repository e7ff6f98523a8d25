//! Who is let in to a server endpoint, by which path, and what its messages know of it.

use crate::drive::{Metrics, Seen, fill_until, server_endpoint, server_source, soon};
use futures_util::SinkExt;
use std::net::SocketAddr;
use tidemill::config::{
    AllowedOrigins, Auth, BearerFrom, Endpoint, EndpointText, FromHandshake, Listen, Mode, Redacted,
};
use tidemill::message::Message;
use tidemill::message::metadata::{CONNECTION, INGEST_TIME, PEER, SOURCE};
use tidemill::source::Source;
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

const PLACES: [BearerFrom; 2] = [BearerFrom::Header, BearerFrom::Subprotocol];

fn guarded() -> Endpoint {
    let mut endpoint = server_endpoint("/in");
    endpoint.subprotocols = vec!["v1".into()];
    listen_of(&mut endpoint).auth = Some(Auth {
        bearer: vec!["t-1".into()],
        bearer_from: [&PLACES[..], &[BearerFrom::Query("token".to_owned())]].concat(),
        basic: vec![("ann".to_owned(), "pass".into())],
    });
    listen_of(&mut endpoint).metadata = vec![("user".to_owned(), FromHandshake::User)];
    endpoint
}

#[tokio::test]
async fn whoever_has_no_credential_is_told_what_would_do() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (_source, address) = server_source(&listeners, guarded(), &metrics).await;
    let answer = dial(address, "/in", &[]).await.expect_err("it has no token");
    assert_eq!(answer.status(), 401);
    let challenges: Vec<_> = answer.headers().get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, ["Bearer realm=\"tidemill\"", "Basic realm=\"tidemill\", charset=\"UTF-8\""]);
    assert_eq!(status(address, "/in", &[("Authorization", "Bearer t-2")]).await, 401);
    assert_eq!(status(address, "/in", &[("Cookie", "token=t-1")]).await, 401, "no place for one");
    assert_eq!(status(address, "/in", &[("Authorization", "Bearer t-1")]).await, 101);
    assert_eq!(status(address, "/in?token=t%2d1", &[]).await, 101);
    assert_eq!(status(address, "/nowhere", &[]).await, 404);
}

#[tokio::test]
async fn a_token_in_a_file_counts_as_it_is_when_a_peer_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = guarded();
    listen_of(&mut endpoint).auth = Some(Auth {
        bearer: vec![EndpointText::file(&file), "fixed".into()],
        bearer_from: PLACES.to_vec(),
        basic: vec![("ann".to_owned(), EndpointText::file(&file))],
    });
    let (mut source, address) = server_source(&listeners, endpoint, &metrics).await;
    let token =
        async |token: &str| status(address, "/in", &[("Authorization", &format!("Bearer {token}"))]).await;
    assert_eq!((token("one").await, token("fixed").await), (401, 101), "the file is not there yet");
    std::fs::write(&file, "one\n").expect("it is ours");
    let (mut first, _) = dial(address, "/in", &[("Authorization", "Bearer one")]).await.expect("let in");
    std::fs::write(&file, "pass\n").expect("it is ours");
    assert_eq!((token("one").await, token("pass").await), (401, 101));
    // ann:pass
    let basic = [("Authorization", "Basic YW5uOnBhc3M=")];
    let (mut ann, _) = dial(address, "/in", &basic).await.expect("let in");
    assert_eq!(sent(&mut ann, &mut source).await.metadata.get("user"), "ann");
    assert_eq!(sent(&mut first, &mut source).await.metadata.get("user"), "", "who is in stays in");
}

#[tokio::test]
async fn a_token_offered_as_a_subprotocol_is_answered_with_bearer_and_never_with_the_token() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (_source, address) = server_source(&listeners, guarded(), &metrics).await;
    let chosen = async |offer: &str| {
        let (_, answer) = dial(address, "/in", &[("Sec-WebSocket-Protocol", offer)]).await.expect("let in");
        answer.headers()["sec-websocket-protocol"].to_str().expect("text").to_owned()
    };
    assert_eq!(chosen("bearer, t-1").await, "bearer");
    assert_eq!(chosen("bearer, t-1, v1").await, "v1");
    assert_eq!(status(address, "/in", &[("Sec-WebSocket-Protocol", "t-1, bearer")]).await, 401);
}

#[tokio::test]
async fn the_user_of_basic_authentication_is_known_to_the_messages() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut source, address) = server_source(&listeners, guarded(), &metrics).await;
    // ann:pass
    let basic = [("Authorization", "Basic YW5uOnBhc3M=")];
    let (mut peer, _) = dial(address, "/in", &basic).await.expect("let in");
    assert_eq!(sent(&mut peer, &mut source).await.metadata.get("user"), "ann");
    let (mut peer, _) = dial(address, "/in", &[("Authorization", "Bearer t-1")]).await.expect("let in");
    assert_eq!(sent(&mut peer, &mut source).await.metadata.get("user"), "");
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_unless_they_are_listed() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (_own, address) = server_source(&listeners, server_endpoint("/own"), &metrics).await;
    let mut listed = server_endpoint("/listed");
    let origins = [Redacted::plain("https://*.example.com")];
    listen_of(&mut listed).allowed_origins = AllowedOrigins::listed(&origins).expect("an origin");
    let (_listed, _) = server_source(&listeners, listed, &metrics).await;
    let own = format!("http://{address}");
    let from = |origin: &'static str| [("Origin", origin)];
    assert_eq!(status(address, "/own", &[]).await, 101, "no browser");
    assert_eq!(status(address, "/own", &[("Origin", &own)]).await, 101);
    assert_eq!(status(address, "/own", &from("https://a.example.com")).await, 403);
    assert_eq!(status(address, "/own", &from("null")).await, 403);
    assert_eq!(status(address, "/listed", &from("https://a.example.com")).await, 101);
    assert_eq!(status(address, "/listed", &[("Origin", &own)]).await, 403);
    assert_eq!(status(address, "/listed", &[]).await, 101);
}

#[tokio::test]
async fn each_endpoint_has_a_limit_of_its_own() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut few = server_endpoint("/few");
    listen_of(&mut few).max_connections = 1;
    let (_few, address) = server_source(&listeners, few, &metrics).await;
    let (_many, _) = server_source(&listeners, server_endpoint("/many"), &metrics).await;
    let (only, _) = dial(address, "/few", &[]).await.expect("let in");
    assert_eq!(status(address, "/few", &[]).await, 503);
    assert_eq!(status(address, "/many", &[]).await, 101);
    drop(only);
    soon(async { while status(address, "/few", &[]).await != 101 {} }).await;
}

#[tokio::test]
async fn what_is_hidden_of_an_endpoint_is_hidden_of_its_messages_and_errors() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = server_endpoint("/");
    listen_of(&mut endpoint).path = Redacted::new("/s3cr3t", "/***");
    listen_of(&mut endpoint).host = Redacted::new("127.0.0.1", "***");
    let (mut source, address) = server_source(&listeners, endpoint, &metrics).await;
    let (mut peer, _) = dial(address, "/s3cr3t", &[]).await.expect("let in");
    let message = sent(&mut peer, &mut source).await;
    let port = address.port();
    assert_eq!(message.metadata.get(SOURCE), format!("ws://***:{port}/***"));
    assert_eq!(metrics.connections().list()[0].address, format!("ws://***:{port}/***"));
    let mut other = server_endpoint("/");
    listen_of(&mut other).port = port;
    listen_of(&mut other).host = Redacted::new("0.0.0.0", "a-***");
    let listen = listen_of(&mut other).clone();
    let opened = listeners.open_source(&other, &listen, false, metrics.endpoint("q", "source")).await;
    let why = opened.err().map(|error| error.to_string());
    let owner = format!("address in use by the source of pipeline p, at ***:{port}");
    assert_eq!(why, Some(format!("failed to listen on a-***:{port}: {owner}")));
}
