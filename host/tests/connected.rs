//! `check_connection`: a pipeline starts only once its ends are connected, and fails if they are not.

use futures_util::SinkExt;
use std::time::Duration;
use tempfile::TempDir;
use tidemill::app::Host;
use tidemill::config::{Config, Endpoint, Format, Pipeline, Plugins, Server, SinkKind};
use tidemill::connections::EndpointState;
use tidemill::control::Handle;
use tidemill::telemetry::PipelineState;
use tidemill_tests::sockets::{self, close_code_at_the_end, soon};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

/// A host with one pipeline, into a file.
async fn host(source: Endpoint) -> (Host, Handle, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = Pipeline::new("p", source).to(SinkKind::file(folder.path().join("out"), Format::Jsonl));
    let plugins = Plugins {
        dir: folder.path().join("plugins").into(),
        cache: folder.path().join("cache").into(),
        watch: false,
        ..Plugins::default()
    };
    let config = Config { plugins, pipelines: vec![pipeline], ..Config::default() };
    let host = Host::start(config).await.expect("it starts");
    let handle = host.handle();
    (host, handle, folder)
}

fn state(handle: &Handle) -> PipelineState {
    handle.pipeline("p").expect("it is there").state
}

async fn until(handle: &Handle, is_so: impl Fn(&PipelineState) -> bool) -> PipelineState {
    sockets::until(|| is_so(&state(handle))).await;
    state(handle)
}

/// An endpoint that must be connected before its pipeline starts.
fn checked(endpoint: Endpoint, patience: Duration) -> Endpoint {
    Endpoint { check_connection: Some(patience), ..endpoint }
}

/// Afterwards it can be seen which endpoint it was, and why.
fn is_shown_as_failed(host: &Host) {
    let endpoints = host.connections().list();
    let [source] = &endpoints[..] else { panic!("one endpoint is shown: {endpoints:?}") };
    assert_eq!((&*source.endpoint, source.state), ("source", EndpointState::Failed));
    assert!(source.last_error.is_some());
}

async fn free_server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    Server { port: listener.local_addr().expect("bound").port(), ..Server::default() }
}

#[tokio::test]
async fn a_client_starts_once_its_dial_has_succeeded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    let (host, handle, _folder) = host(checked(Endpoint::client(url), Duration::from_secs(10))).await;
    assert_eq!(state(&handle), PipelineState::Starting, "nobody has answered yet");
    let (tcp, _) = soon(listener.accept()).await.expect("a connection");
    let mut peer = soon(accept_async(tcp)).await.expect("a handshake");
    peer.send(Message::text("1")).await.expect("connected");
    until(&handle, |state| *state == PipelineState::Running).await;
    let metrics = host.metrics().clone();
    sockets::until(|| metrics.delivered_count("p", "sink0") > 0).await;
    let (stopped, _) = tokio::join!(host.stop(), close_code_at_the_end(peer));
    stopped.expect("it stops well");
}

#[tokio::test]
async fn a_client_whose_peer_is_away_fails_and_dials_no_more() {
    let source = checked(Endpoint::client("ws://127.0.0.1:1/"), Duration::from_secs(10));
    let (host, handle, _folder) = host(source).await;
    let failed = until(&handle, |state| *state != PipelineState::Starting).await;
    let error = "source: failed to connect to WebSocket ws://127.0.0.1:1/: connection refused".to_owned();
    assert_eq!(failed, PipelineState::Failed { error });
    is_shown_as_failed(&host);
    assert!(host.stop().await.is_err());
}

#[tokio::test]
async fn a_server_starts_once_one_peer_has_come() {
    let server = free_server().await;
    let source = checked(Endpoint::server("/in", &server), Duration::from_secs(60));
    let (host, handle, _folder) = host(source).await;
    assert_eq!(state(&handle), PipelineState::Starting);
    let tcp = TcpStream::connect(("127.0.0.1", server.port)).await.expect("it listens");
    let (peer, _) = soon(client_async("ws://localhost/in", tcp)).await.expect("a handshake");
    until(&handle, |state| *state == PipelineState::Running).await;
    drop(peer);
    host.stop().await.expect("it stops well");
}

#[tokio::test]
async fn a_server_to_which_nobody_comes_in_time_fails() {
    let server = free_server().await;
    let source = checked(Endpoint::server("/in", &server), Duration::from_millis(20));
    let (host, handle, _folder) = host(source).await;
    let failed = until(&handle, |state| *state != PipelineState::Starting).await;
    let error = format!("source: no peer connected to ws://127.0.0.1:{}/in within 20ms", server.port);
    assert_eq!(failed, PipelineState::Failed { error });
    is_shown_as_failed(&host);
    assert!(host.stop().await.is_err());
}

#[tokio::test]
async fn a_pipeline_that_waits_for_its_ends_stops_at_once() {
    let server = free_server().await;
    let source = checked(Endpoint::server("/in", &server), Duration::from_secs(600));
    let (host, handle, _folder) = host(source).await;
    assert_eq!(state(&handle), PipelineState::Starting);
    assert_eq!(soon(handle.stop("p")).await.expect("it stops").state, PipelineState::Stopped);
    host.stop().await.expect("it stops well");
}
