//! Peers that come early: what they send before the pipeline whose source listens on their path is open waits
//! for it, for as long as it may come.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tidemill_tests::host::{Folder, Host, PATIENCE};
use tidemill_tests::peers::{Collector, Dialled, Feed, dial};
use tidemill_tests::plugin;
use tidemill_tests::sockets::{close_code_at_the_end, text};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Error, Message};

/// More than is read of a connection that is held back, and than the sockets of both sides hold.
const FLOOD_BYTES: usize = 24 << 20;

/// A pipeline whose source listens on `/shared`, and whose plugin is not there yet.
fn late(collector: &Collector) -> String {
    format!(
        r#"
        [[pipelines]]
        name = "late"
        source = {{ type = "websocket", mode = "server", path = "/shared" }}
        transforms = [{{ plugin = "later" }}]
        sinks = [{{ type = "websocket", url = "{}" }}]
        "#,
        collector.url()
    )
}

/// That pipeline, and one that has a sink on the same path and runs at once.
fn run(folder: &Folder, feed: &Feed, collector: &Collector) -> Host {
    folder.run(&format!(
        r#"
        [server]
        port = 0
        {}

        [[pipelines]]
        name = "early"
        source = {{ type = "websocket", url = "{}" }}
        sinks = [{{ type = "websocket", mode = "server", path = "/shared" }}]
        "#,
        late(collector),
        feed.url()
    ))
}

async fn state_of(host: &Host, pipeline: &str, wanted: &str) {
    tokio::task::block_in_place(|| host.becomes(pipeline, wanted));
}

async fn tell(host: &Host, method: &str, path: &str) -> u16 {
    tokio::task::block_in_place(|| host.json(method, path, &Value::Null).0)
}

/// The status that a handshake for a path is answered with.
async fn status(address: SocketAddr, path: &str) -> u16 {
    match tokio_tungstenite::connect_async(format!("ws://{address}{path}")).await {
        Ok(_) => 101,
        Err(Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

async fn send(peer: &mut Dialled, texts: &[&str]) {
    for text in texts {
        peer.send(Message::text(*text)).await.unwrap();
    }
}

/// Sends more than is read of a connection that is held.
fn flood(mut peer: Dialled) -> JoinHandle<Dialled> {
    let (piece, pieces) = ("x".repeat(64 << 10), FLOOD_BYTES >> 16);
    tokio::spawn(async move {
        for _ in 0..pieces {
            peer.feed(Message::text(piece.clone())).await.unwrap();
        }
        peer.flush().await.unwrap();
        peer
    })
}

async fn is_read(flood: JoinHandle<Dialled>) {
    tokio::time::timeout(PATIENCE, flood).await.expect("it is read to its end").unwrap();
}

/// That it is not read is known when the host has done much else meanwhile. Then it goes.
async fn is_held(flood: JoinHandle<Dialled>, host: &Host) {
    for _ in 0..100 {
        tell(host, "GET", "/api/v1/connections").await;
    }
    assert!(!flood.is_finished(), "it is read");
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_peers_send_before_the_source_of_their_path_is_open_waits_for_it() {
    let folder = Folder::default();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = run(&folder, &feed, &collector);
    state_of(&host, "early", "running").await;
    state_of(&host, "late", "waiting").await;
    let address = tokio::task::block_in_place(|| host.listening("websocket"));
    let (mut left, mut stays) = (dial(address, "/shared").await, dial(address, "/shared").await);
    send(&mut left, &["1", "2"]).await;
    left.close(None).await.unwrap();
    // Its end was seen, and the sink counts it no more.
    close_code_at_the_end(left).await;
    send(&mut stays, &["3"]).await;
    // What the sink of the path sends comes through meanwhile.
    feed.text("hello").await;
    assert_eq!(text(&mut stays).await, "hello");
    folder.install("later", &plugin("forward"));
    let mut came = [collector.text().await, collector.text().await, collector.text().await];
    came.sort();
    assert_eq!(came, ["1", "2", "3"]);
    send(&mut stays, &["4"]).await;
    assert_eq!(collector.text().await, "4");
    tokio::task::block_in_place(|| {
        host.wait_until("all is counted", |now| {
            let late = |name| now.count(name, &["pipeline=\"late\""]);
            let received = late("tidemill_messages_received_total");
            received == 4 && late("tidemill_messages_delivered_total") == 4
        });
        let ended = host.stop();
        assert!(ended.status.success(), "{}", ended.log);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_peers_send_is_read_and_ignored_once_the_source_of_their_path_will_not_come() {
    let folder = Folder::default();
    let (feed, collector) = (Feed::open().await, Collector::open().await);
    let host = run(&folder, &feed, &collector);
    state_of(&host, "early", "running").await;
    state_of(&host, "late", "waiting").await;
    let address = tokio::task::block_in_place(|| host.listening("websocket"));
    is_held(flood(dial(address, "/shared").await), &host).await;
    let held = flood(dial(address, "/shared").await);
    assert_eq!(tell(&host, "POST", "/api/v1/pipelines/late/stop").await, 200);
    is_read(held).await;
    is_read(flood(dial(address, "/shared").await)).await;
    assert_eq!(tell(&host, "POST", "/api/v1/pipelines/late/start").await, 202);
    is_held(flood(dial(address, "/shared").await), &host).await;
    let held = flood(dial(address, "/shared").await);
    assert_eq!(tell(&host, "DELETE", "/api/v1/pipelines/late").await, 204);
    is_read(held).await;
    tokio::task::block_in_place(|| assert!(host.stop().status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_open_yet_is_busy_and_one_that_will_not_be_is_not_found() {
    let folder = Folder::default();
    let collector = Collector::open().await;
    let rooms = r#"
        [[pipelines]]
        name = "rooms"
        source = { type = "websocket", mode = "server", path = "/{room}" }
        sinks = [{ type = "stdout", format = "jsonl" }]
        "#;
    let host = folder.run(&format!("[server]\nport = 0\n{}{rooms}", late(&collector)));
    state_of(&host, "rooms", "running").await;
    state_of(&host, "late", "waiting").await;
    let address = tokio::task::block_in_place(|| host.listening("websocket"));
    // It leads to the pipeline that waits, and not to another that would take it, too.
    assert_eq!((status(address, "/shared").await, status(address, "/other").await), (503, 101));
    assert_eq!(status(address, "/no/where").await, 404);
    let refused = tokio::task::block_in_place(|| host.metrics());
    assert_eq!(refused.count("tidemill_handshakes_refused_total", &["status=\"503\""]), 1);
    assert_eq!(tell(&host, "POST", "/api/v1/pipelines/late/stop").await, 200);
    assert_eq!(status(address, "/shared").await, 101, "it is one of the rooms");
    let body = json!({
        "name": "later",
        "source": { "type": "websocket", "mode": "server", "path": "/a/b" },
        "transforms": [{ "plugin": "absent" }],
        "sinks": [{ "type": "websocket", "url": collector.url() }],
    });
    let made = tokio::task::block_in_place(|| host.json("POST", "/api/v1/pipelines", &body).0);
    assert_eq!((made, status(address, "/a/b").await), (201, 503));
    assert_eq!(tell(&host, "DELETE", "/api/v1/pipelines/later").await, 204);
    assert_eq!(status(address, "/a/b").await, 404);
    tokio::task::block_in_place(|| assert!(host.stop().status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_start_of_the_host_opens_on_one_path_gets_the_same_messages_from_the_first_one_on() {
    /// So many that they are not all open when the first one is.
    const PIPELINES: u64 = 100;
    let folder = Folder::default();
    let pipeline = |n| {
        format!(
            r#"
            [[pipelines]]
            name = "p{n}"
            source = {{ type = "websocket", mode = "server", path = "/shared" }}
            sinks = [{{ type = "file", path = "{n}.jsonl" }}]
            "#
        )
    };
    let pipelines: String = (0..PIPELINES).map(pipeline).collect();
    let host = folder.run(&format!("[server]\nport = 0\n{pipelines}"));
    // The first of them listens.
    let address = tokio::task::block_in_place(|| host.address_of("websocket"));
    let mut peer = dial(address, "/shared").await;
    send(&mut peer, &["first"]).await;
    tokio::task::block_in_place(|| {
        host.wait_until("each pipeline has the message", |now| {
            now.count("tidemill_messages_delivered_total", &[]) == PIPELINES
        });
    });
    drop(peer);
    tokio::task::block_in_place(|| assert!(host.stop().status.success()));
}

/// A pipeline from the peers of `/checked` to a sink that has to be connected first.
fn checked(server: SocketAddr) -> Value {
    json!({
        "name": "checked",
        "source": { "type": "websocket", "mode": "server", "path": "/checked" },
        "sinks": [{ "type": "websocket", "url": format!("ws://{server}/"), "check_connection": true }],
    })
}

async fn add(host: &Host, pipeline: &Value) {
    let (status, answer) = tokio::task::block_in_place(|| host.json("POST", "/api/v1/pipelines", pipeline));
    assert_eq!(status, 201, "{answer}");
}

async fn received(host: &Host, pipeline: &str) -> u64 {
    let label = format!("pipeline=\"{pipeline}\"");
    let now = tokio::task::block_in_place(|| host.metrics());
    now.count("tidemill_messages_received_total", &[&label])
}

/// A host with a pipeline on another path, so that it listens.
async fn listening(folder: &Folder) -> (Host, SocketAddr) {
    let host = folder.run(
        r#"
        [server]
        port = 0
        [[pipelines]]
        name = "other"
        source = { type = "websocket", mode = "server", path = "/checked/too" }
        sinks = [{ type = "file", path = "other.jsonl" }]
        "#,
    );
    let address = tokio::task::block_in_place(|| host.listening("websocket"));
    (host, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_peers_send_while_a_sink_is_checked_waits_and_comes_through_once_it_is_connected() {
    let folder = Folder::default();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, address) = listening(&folder).await;
    add(&host, &checked(server.local_addr().unwrap())).await;
    let (dialled, _) = server.accept().await.unwrap();
    let mut left = dial(address, "/checked").await;
    send(&mut left, &["1", "2"]).await;
    left.close(None).await.unwrap();
    is_held(flood(dial(address, "/checked").await), &host).await;
    assert_eq!(received(&host, "checked").await, 0);
    let mut stays = dial(address, "/checked").await;
    send(&mut stays, &["3"]).await;
    let mut sink = tokio_tungstenite::accept_async(dialled).await.unwrap();
    let mut wanted = vec!["1", "2", "3"];
    while !wanted.is_empty() {
        let came = text(&mut sink).await;
        wanted.retain(|text| *text != came);
    }
    tokio::spawn(close_code_at_the_end(sink));
    drop(stays);
    tokio::task::block_in_place(|| assert!(host.stop().status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_sink_cannot_be_connected_has_received_nothing() {
    let folder = Folder::default();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, address) = listening(&folder).await;
    add(&host, &checked(server.local_addr().unwrap())).await;
    let (dialled, _) = server.accept().await.unwrap();
    let mut peer = dial(address, "/checked").await;
    send(&mut peer, &["1", "2"]).await;
    is_held(flood(dial(address, "/checked").await), &host).await;
    drop((dialled, server));
    state_of(&host, "checked", "failed").await;
    assert_eq!(received(&host, "checked").await, 0);
    while let Some(Ok(message)) = peer.next().await {
        assert!(message.is_close(), "{message}");
    }
    tokio::task::block_in_place(|| assert_eq!(host.stop().status.code(), Some(1), "it has failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_checked_holds_up_no_other_source_of_the_path() {
    let folder = Folder::default();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, address) = listening(&folder).await;
    let runs = json!({
        "name": "runs",
        "source": { "type": "websocket", "mode": "server", "path": "/checked" },
        "sinks": [{ "type": "websocket", "mode": "server", "path": "/out" }],
    });
    add(&host, &runs).await;
    state_of(&host, "runs", "running").await;
    add(&host, &checked(server.local_addr().unwrap())).await;
    let (dialled, _) = server.accept().await.unwrap();
    is_read(flood(dial(address, "/checked").await)).await;
    assert_eq!(received(&host, "checked").await, 0);
    drop((dialled, server));
    state_of(&host, "checked", "failed").await;
    is_read(flood(dial(address, "/checked").await)).await;
    assert_eq!(received(&host, "checked").await, 0);
    tokio::task::block_in_place(|| assert_eq!(host.stop().status.code(), Some(1), "one has failed"));
}
