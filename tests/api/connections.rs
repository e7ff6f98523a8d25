//! Who is connected: listed, closed, and tried without a pipeline.

use super::*;
use std::collections::BTreeSet;
use tidemill_tests::host::binary;
use tidemill_tests::peers::Received;
use tidemill_tests::sockets::closed;

#[tokio::test(flavor = "multi_thread")]
async fn a_dialled_connection_is_listed_and_one_that_is_closed_is_dialled_again() {
    let folder = Folder::default();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run(&relay("p", &feed.url(), "", &collector.url()));
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");
    let source = row(&host, "p", "source", |row| row["connections"][0]["messages_received"] == 1).await;
    assert_eq!((&source["state"], &source["address"]), (&json!("connected"), &json!(feed.url())));
    assert!(source["connections"][0]["bytes_received"].as_u64().unwrap() > 0);
    let sink = row(&host, "p", "sink0", |row| row["connections"][0]["messages_sent"] == 1).await;
    let id = sink["connections"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(sink["connections"][0]["metadata"]["__meta_connection"], id);
    let (status, _) = json(&host, "DELETE", &format!("/api/v1/connections/{id}"), Value::Null).await;
    assert_eq!(status, 204);
    assert_eq!(collector.received.recv().await, Some(Received::Closed(Some(1008))));
    let again = row(&host, "p", "sink0", |row| {
        row["state"] == "connected" && row["connections"][0]["id"] != id && !row["connections"][0].is_null()
    })
    .await;
    assert!(again["last_error"]["message"].as_str().unwrap().contains("closed by an operator"), "{again}");
    assert_eq!(json(&host, "DELETE", &format!("/api/v1/connections/{id}"), Value::Null).await.0, 404);
    feed.text("2").await;
    assert_eq!(collector.text().await, "2");
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_listed_with_their_metadata_and_one_is_closed_with_1008() {
    let folder = Folder::default();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "chat"
        source = { type = "websocket", mode = "server", path = "/rooms/{room}", metadata = { room = "path:room" } }
        sinks = [{ type = "websocket", mode = "server", path = "/rooms/{room}" }]
        "#,
    );
    let address = host.listening("websocket");
    let (mut red, mut blue) = (dial(address, "/rooms/red").await, dial(address, "/rooms/blue").await);
    let source = row(&host, "chat", "source", |row| row["connections"].as_array().unwrap().len() == 2).await;
    assert_eq!(source["state"], "listening");
    assert_eq!(source["address"], format!("ws://{address}/rooms/{{room}}"));
    let peers = source["connections"].as_array().unwrap();
    // Who came first is shown first, or not: their connections are made side by side.
    let in_room = |room: &str| peers.iter().find(|peer| peer["metadata"]["room"] == room).unwrap();
    let id = in_room("red")["id"].as_str().unwrap();
    assert_ne!(in_room("blue")["id"], id);
    let sink = row(&host, "chat", "sink0", |row| row["connections"].as_array().unwrap().len() == 2).await;
    let of_sink: BTreeSet<_> =
        sink["connections"].as_array().unwrap().iter().map(|peer| peer["id"].as_str()).collect();
    let of_source = peers.iter().map(|peer| peer["id"].as_str()).collect();
    assert_eq!(of_sink, of_source, "a peer that ends share is one");
    host.wait_until("the gauges say so, too", |now| {
        let gauge = |endpoint: &str, state: &str| {
            let labels = [format!("endpoint=\"{endpoint}\""), format!("state=\"{state}\"")];
            now.count("tidemill_connections", &labels.each_ref().map(String::as_str))
        };
        ["source", "sink0"].iter().all(|end| (gauge(end, "listening"), gauge(end, "connected")) == (1, 2))
    });
    assert_eq!(json(&host, "DELETE", &format!("/api/v1/connections/{id}"), Value::Null).await.0, 204);
    assert_eq!(closed(&mut red).await, (1008, "closed by an operator".to_owned()));
    row(&host, "chat", "source", |row| row["connections"].as_array().unwrap().len() == 1).await;
    blue.send(Message::text("hello")).await.unwrap();
    assert_eq!(text(&mut blue).await, "hello");
    row(&host, "chat", "sink0", |row| row["connections"][0]["messages_sent"] == 1).await;
    host.wait_until("the gauges follow", |now| {
        now.count("tidemill_connections", &["endpoint=\"source\"", "state=\"connected\""]) == 1
    });
    drop((red, blue));
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_checked_without_a_pipeline() {
    let folder = Folder::default();
    let mut collector = Collector::open().await;
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server" }
        sinks = [{ type = "file", path = "out.jsonl" }]
        "#,
    );
    let check = |body: Value| async {
        let (status, answer) = json(&host, "POST", "/api/v1/connections/check", body).await;
        assert_eq!(status, 200, "{answer}");
        (answer["reachable"].as_bool().unwrap(), answer["error"].as_str().unwrap_or_default().to_owned())
    };
    let there = json!({ "type": "websocket", "url": collector.url(), "buffer": { "capacity": 1 } });
    assert_eq!(check(there).await, (true, String::new()));
    assert_eq!(collector.received.recv().await, Some(Received::Closed(Some(1000))));
    let away = "ws://127.0.0.1:1/";
    let (is_reachable, error) = check(json!({ "type": "websocket", "url": away })).await;
    assert!(!is_reachable);
    assert_eq!(error, format!("failed to connect to WebSocket {away}: connection refused"));
    assert!(check(json!({ "type": "websocket", "url": [away, collector.url()] })).await.0);
    let taken = collector.address.port();
    let (is_reachable, error) = check(json!({ "type": "websocket", "mode": "server", "port": taken })).await;
    assert!(!is_reachable && error.contains("in use"), "{error}");
    assert!(check(json!({ "type": "websocket", "mode": "server", "codec": "json" })).await.0);
    let no_socket = json!({ "type": "file", "path": "x" });
    assert_eq!(json(&host, "POST", "/api/v1/connections/check", no_socket).await.0, 422);
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_dials_every_client_endpoint_when_it_is_asked_to() {
    let folder = Folder::default();
    let collector = Collector::open().await;
    let check = |sink: &str| {
        let config = relay("p", &collector.url(), "", sink);
        std::fs::write(folder.path("tidemill.toml"), config).unwrap();
        let mut command = std::process::Command::new(binary());
        command.args(["check", "--connect", "--json"]).current_dir(folder.path("."));
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), answer)
    };
    let (code, answer) = check(&collector.url());
    assert_eq!((code, &answer["ok"]), (Some(0), &json!(true)), "{answer}");
    let (code, answer) = check("ws://127.0.0.1:1/");
    assert_eq!((code, &answer["ok"]), (Some(1), &json!(false)), "{answer}");
    let error = "pipeline p, sink0: failed to connect to WebSocket ws://127.0.0.1:1/: connection refused";
    assert_eq!(answer["errors"][0]["message"], error);
    assert_eq!(answer["errors"].as_array().unwrap().len(), 1);
}
