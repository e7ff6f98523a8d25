//! The host as a whole: it reconnects, waits for plugins, drains at SIGTERM, and says how it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::{SinkExt, StreamExt};
use tidemill_tests::host::Folder;
use tidemill_tests::peers::{Collector, Feed, Received, dial};
use tidemill_tests::plugin;
use tidemill_tests::sockets::soon;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

fn pipeline(source: &str, transforms: &str, sink: &str) -> String {
    format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "{source}", reconnect = {{ delay = "10ms", max_delay = "50ms" }} }}
        transforms = [{transforms}]
        sinks = [{{ type = "websocket", url = "{sink}" }}]
        "#
    )
}

#[tokio::test]
async fn a_killed_source_is_dialled_again_and_the_flow_goes_on() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let mut collector = Collector::open().await;
    let host = folder.run(&pipeline(&feed.url(), "", &collector.url()));
    feed.text("one").await;
    assert_eq!(collector.text().await, "one");
    let address = feed.address;
    feed.kill().await;
    host.wait_until("the loss is seen", |now| {
        now.count("tidemill_connects_total", &["endpoint=\"source\"", "outcome=\"refused\""]) > 0
    });
    let feed = Feed::on(TcpListener::bind(address).await.unwrap());
    feed.text("two").await;
    assert_eq!(collector.text().await, "two");
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    assert_eq!(collector.received.recv().await, Some(Received::Closed(Some(1001))));
}

#[tokio::test]
async fn a_pipeline_starts_when_its_plugin_appears() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let mut collector = Collector::open().await;
    folder.install("here", &plugin("forward"));
    let transforms = "{ plugin = \"here\" }, { plugin = \"late\" }";
    let host = folder.run(&pipeline(&feed.url(), transforms, &collector.url()));
    let missing = host.logged("waits", |fields| {
        let waits = fields.get("message")?.as_str()? == "pipeline waits for its plugins";
        waits.then(|| fields["missing"].as_str().unwrap().to_owned())
    });
    assert_eq!(missing, "[\"late\"]", "the other one is being compiled");
    let (status, body) = host.get("/readyz");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("waiting") && body.contains("late") && !body.contains("here"), "{body}");
    assert_eq!(host.get("/healthz").0, 200);
    folder.install("late", &plugin("forward"));
    feed.text("now").await;
    assert_eq!(collector.text().await, "now");
    assert_eq!(host.get("/readyz").0, 200);
    assert!(host.stop().status.success());
}

#[tokio::test]
async fn sigterm_in_full_flow_drains_and_exits_with_0() {
    let folder = Folder::default();
    folder.install("forward", &plugin("forward"));
    let feed = Feed::open().await;
    let mut collector = Collector::open().await;
    let host = folder.run(&pipeline(&feed.url(), "{ plugin = \"forward\" }", &collector.url()));
    let feeding = tokio::spawn(async move {
        for n in 0_u64.. {
            feed.text(n.to_string()).await;
        }
    });
    let collecting = tokio::spawn(async move {
        let mut next = 0;
        loop {
            match collector.received.recv().await {
                Some(Received::Text(text)) => {
                    assert_eq!(text, next.to_string());
                    next += 1;
                }
                ended => return (next, ended),
            }
        }
    });
    let (ended, before) = tokio::task::spawn_blocking(move || {
        let before = host
            .wait_until("messages flow", |now| now.count("tidemill_messages_delivered_total", &[]) > 10_000);
        (host.stop(), before)
    })
    .await
    .unwrap();
    feeding.abort();
    assert!(ended.status.success(), "{}", ended.log);
    let (collected, close) = collecting.await.unwrap();
    assert!(collected >= before.count("tidemill_messages_delivered_total", &[]));
    assert_eq!(close, Some(Received::Closed(Some(1001))));
}

#[tokio::test]
async fn servers_on_both_sides_serve_peers() {
    let folder = Folder::default();
    folder.install("filter", &plugin("filter"));
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/in", codec = "json" }
        transforms = [{ plugin = "filter", config = { where = [{ field = "/t", op = "gt", value = 30 }] } }]
        sinks = [{ type = "websocket", mode = "server", path = "/out" }]
        "#,
    );
    let address = host.listening("websocket");
    let mut reader = dial(address, "/out").await;
    let mut device = dial(address, "/in").await;
    for t in [29, 31, 30, 35] {
        device.send(Message::text(format!("{{\"t\":{t}}}"))).await.unwrap();
    }
    assert_eq!(reader.next().await.unwrap().unwrap(), Message::text("{\"t\":31}"));
    assert_eq!(reader.next().await.unwrap().unwrap(), Message::text("{\"t\":35}"));
    let metrics = host.metrics();
    assert_eq!(metrics.count("tidemill_messages_filtered_total", &[]), 2);
    assert!(tokio_tungstenite::connect_async(format!("ws://{address}/nowhere")).await.is_err());
    device.send(Message::text("no json")).await.unwrap();
    host.wait_until("the decode failure is counted", |now| {
        now.count("tidemill_messages_dropped_total", &["stage=\"source\"", "reason=\"decode\""]) == 1
    });
    let stopping = tokio::task::spawn_blocking(move || host.stop());
    let close = loop {
        match reader.next().await {
            Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    };
    assert_eq!(close, 1001);
    drop((reader, device));
    assert!(stopping.await.unwrap().status.success());
}

/// However soon it comes: who has the answer to its handshake is connected.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_handshake_is_answered_misses_nothing_from_there_on() {
    let folder = Folder::default();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/in" }
        sinks = [{ type = "websocket", mode = "server", path = "/out" }]
        "#,
    );
    let address = host.listening("websocket");
    let mut device = dial(address, "/in").await;
    for round in 0..300 {
        let mut reader = dial(address, "/out").await;
        let message = Message::text(format!("round {round}"));
        device.send(message.clone()).await.unwrap();
        assert_eq!(soon(reader.next()).await.unwrap().unwrap(), message);
    }
    assert!(tokio::task::block_in_place(|| host.stop()).status.success());
}

#[tokio::test]
async fn binary_messages_stay_binary() {
    let folder = Folder::default();
    folder.install("forward", &plugin("forward"));
    let feed = Feed::open().await;
    let mut collector = Collector::open().await;
    let host = folder.run(&pipeline(&feed.url(), "{ plugin = \"forward\" }", &collector.url()));
    feed.send(Message::binary(vec![0, 159, 255])).await;
    feed.text("text").await;
    let first = collector.received.recv().await;
    assert_eq!(first, Some(Received::Binary(vec![0, 159, 255])));
    assert_eq!(collector.text().await, "text");
    assert!(host.stop().status.success());
}

#[tokio::test]
async fn a_plugin_that_refuses_its_configuration_exits_with_78() {
    let folder = Folder::default();
    folder.install("filter", &plugin("filter"));
    let config = r#"
        [[pipelines]]
        name = "p"
        source = { type = "stdin", format = "jsonl" }
        transforms = [{ plugin = "filter", config = { where = 7 } }]
        sinks = [{ type = "stdout", format = "jsonl" }]
        "#;
    let ended = folder.run(config).wait();
    assert_eq!(ended.status.code(), Some(78), "{}", ended.log);
    assert!(ended.log.contains("filter"), "{}", ended.log);
}
