//! The host as a library: built in Rust, told what to do while it runs, over real sockets.

use futures_util::SinkExt;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use tidemill::app::Host;
use tidemill::config::{
    Config, Endpoint, Format, Pipeline, Plugins, Server, SinkKind, SourceConfig, Transform,
};
use tidemill::control::ControlError;
use tidemill::telemetry::PipelineState;
use tidemill_tests::sockets::{self, close_code_at_the_end, soon, until};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, client_async};

type Peer = WebSocketStream<TcpStream>;

/// Where server endpoints listen.
async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    Server { port: listener.local_addr().expect("bound").port(), ..Server::default() }
}

fn config(folder: &Path, pipelines: Vec<Pipeline>) -> Config {
    let plugins = Plugins {
        dir: folder.join("plugins").into(),
        cache: folder.join("cache").into(),
        watch: false,
        ..Plugins::default()
    };
    Config { plugins, pipelines, ..Config::default() }
}

/// From `/NAME/in` to `/NAME/out`.
fn relay(name: &str, server: &Server) -> Pipeline {
    Pipeline::new(name, Endpoint::server(format!("/{name}/in"), server))
        .to(Endpoint::server(format!("/{name}/out"), server))
}

async fn dial(server: &Server, path: &str) -> Result<Peer, tokio_tungstenite::tungstenite::Error> {
    let address: SocketAddr = ([127, 0, 0, 1], server.port).into();
    let tcp = TcpStream::connect(address).await?;
    let request = format!("ws://{address}{path}").into_client_request()?;
    Ok(client_async(request, tcp).await?.0)
}

/// A peer that sends to a relay, and one that receives from it.
async fn peers(server: &Server, name: &str) -> (Peer, Peer) {
    let receiver = soon(dial(server, &format!("/{name}/out"))).await.expect("the sink listens");
    let sender = soon(dial(server, &format!("/{name}/in"))).await.expect("the source listens");
    (sender, receiver)
}

async fn passes((sender, receiver): &mut (Peer, Peer), text: &str) {
    sender.send(Message::text(text)).await.expect("connected");
    assert_eq!(sockets::text(receiver).await, text);
}

#[tokio::test]
async fn pipelines_come_stop_start_and_go_while_another_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server().await;
    let host = Host::start(config(folder.path(), vec![relay("a", &server)])).await.expect("it starts");
    let handle = host.handle();
    let mut first = peers(&server, "a").await;
    passes(&mut first, "1").await;

    let added = handle.add(relay("b", &server)).await.expect("it is added");
    assert_eq!(added.state, PipelineState::Running);
    let mut second = peers(&server, "b").await;
    passes(&mut second, "2").await;

    let stopped = soon(async {
        let (stopped, closed) = tokio::join!(handle.stop("b"), async {
            let (sender, receiver) = second;
            tokio::join!(close_code_at_the_end(sender), close_code_at_the_end(receiver))
        });
        assert_eq!(closed, (Some(1001), Some(1001)));
        stopped.expect("it stops")
    })
    .await;
    assert_eq!(stopped.state, PipelineState::Stopped);
    assert!(dial(&server, "/b/in").await.is_err(), "its endpoints are closed");
    passes(&mut first, "3").await;

    assert_eq!(handle.start("b").await.expect("it starts again").state, PipelineState::Running);
    assert_eq!(handle.start("b").await.expect("it runs").state, PipelineState::Running);
    let mut second = peers(&server, "b").await;
    passes(&mut second, "4").await;
    let (sender, receiver) = second;

    // The peers answer the close frames while they are polled.
    let (removed, _, _) = soon(async {
        let closed = (close_code_at_the_end(sender), close_code_at_the_end(receiver));
        tokio::join!(handle.remove("b"), closed.0, closed.1)
    })
    .await;
    assert_eq!(removed, Ok(()));
    let names: Vec<_> = handle.pipelines().iter().map(|each| each.config.name.clone()).collect();
    assert_eq!(names, ["a"]);
    passes(&mut first, "5").await;
    drop(first);
    host.stop().await.expect("it stops well");
    assert_eq!(handle.pipelines()[0].state, PipelineState::Stopped);
    assert_eq!(handle.start("a").await.err(), Some(ControlError::Ended));
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server().await;
    let host = Host::start(config(folder.path(), vec![relay("a", &server)])).await.expect("it starts");
    let handle = host.handle();
    let missing = ControlError::NotFound("x".to_owned());
    assert_eq!(handle.start("x").await.err(), Some(missing.clone()));
    assert_eq!(handle.stop("x").await.err(), Some(missing.clone()));
    assert_eq!(handle.remove("x").await.err(), Some(missing));
    assert!(handle.pipeline("x").is_none());
    assert_eq!(handle.add(relay("a", &server)).await.err(), Some(ControlError::Taken("a".to_owned())));
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let refused = handle.add(relay("b", &Server { port, ..server.clone() })).await.err();
    let Some(ControlError::Open(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("in use"), "{why}");
    assert_eq!(handle.pipelines().len(), 1);
    drop(taken);
    assert!(handle.add(relay("b", &Server { port, ..server })).await.is_ok());
    host.stop().await.expect("it stops well");
}

#[tokio::test]
async fn who_stops_what_is_removed_at_the_same_time_is_told_that_it_is_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let host =
        Host::start(config(folder.path(), vec![relay("a", &server().await)])).await.expect("it starts");
    let handle = host.handle();
    let (stopped, removed) = soon(async { tokio::join!(handle.stop("a"), handle.remove("a")) }).await;
    assert_eq!(removed, Ok(()));
    assert_eq!(stopped.err(), Some(ControlError::NotFound("a".to_owned())));
    drop(handle);
    soon(host.ended()).await.expect("nothing is left to wait for");
}

#[tokio::test]
async fn a_pipeline_that_waits_for_its_plugin_can_be_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::start(config(folder.path(), Vec::new())).await.expect("it starts");
    let handle = host.handle();
    let waiting = relay("a", &server().await).through(Transform::new("none"));
    let added = handle.add(waiting).await.expect("it is added");
    assert_eq!(
        added.state,
        PipelineState::Waiting { plugins: vec!["none".to_owned()], refused: BTreeMap::new() }
    );
    assert_eq!(handle.stop("a").await.expect("it stops").state, PipelineState::Stopped);
    assert_eq!(handle.remove("a").await, Ok(()));
    drop(handle);
    soon(host.ended()).await.expect("nothing is left to wait for");
}

#[tokio::test]
async fn a_host_ends_by_itself_when_its_pipelines_have_and_nobody_can_tell_it_anything() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    std::fs::write(&input, "{\"a\":1}\n{\"a\":2}\n").expect("the folder can be written");
    let copy = Pipeline::new("copy", SourceConfig::file(&input, Format::Jsonl));
    let copy = copy.to(SinkKind::file(&output, Format::Jsonl));
    let host = Host::start(config(folder.path(), vec![copy])).await.expect("it starts");
    let metrics = host.metrics().clone();
    soon(host.ended()).await.expect("it ends well");
    assert_eq!(std::fs::read_to_string(&output).expect("written"), "{\"a\":1}\n{\"a\":2}\n");
    assert_eq!(metrics.delivered_count("copy", "sink0"), 2);
}

#[tokio::test]
async fn a_pipeline_that_has_failed_fails_the_host_at_its_end_unless_it_was_removed() {
    for removes in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut endpoint = Endpoint::client("ws://127.0.0.1:1/");
        let tidemill::config::Mode::Client(client) = &mut endpoint.mode else { panic!("a client") };
        client.reconnect.enabled = false;
        let failing = Pipeline::new("f", endpoint).to(SinkKind::file(folder.path().join("o"), Format::Jsonl));
        let host = Host::start(config(folder.path(), vec![failing])).await.expect("it starts");
        let handle = host.handle();
        let state = || handle.pipeline("f").expect("it is there").state;
        until(|| matches!(state(), PipelineState::Failed { .. })).await;
        if removes {
            handle.remove("f").await.expect("it is removed");
        }
        assert_eq!(host.stop().await.is_ok(), removes);
    }
}
