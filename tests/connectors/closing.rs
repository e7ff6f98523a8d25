//! What plugins do to the connection that a message came from.

use super::*;
use tidemill_tests::peers::dial;
use tidemill_tests::plugin;
use tidemill_tests::sockets::{close_code_at_the_end, closed};

/// A pipeline that watches the numbers of a feed, and replies by a sink that is named `back`.
fn watched(folder: &Folder, source: &str, sinks: &str) -> Host {
    folder.install("gap", &guest("gap").unwrap());
    let config = format!(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = {source}
        transforms = [{{ plugin = "gap" }}]
        sinks = [{{ type = "reply", name = "back", outputs = ["back"] }}, {sinks}]
        dead_letter = {{ type = "file", path = "dead.jsonl" }}
        "#
    );
    blocking(|| folder.run(&config))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_a_feed_leads_to_a_new_connection() {
    let (folder, feed, mut collector) = (Folder::default(), Door::open().await, Collector::open().await);
    let source = format!(r#"{{ type = "websocket", url = "ws://{}/", {RECONNECT} }}"#, feed.address);
    let host =
        watched(&folder, &source, &format!(r#"{{ type = "websocket", url = "{}" }}"#, collector.url()));
    let mut socket = feed.caller().await.accept().await;
    for number in ["1", "2", "5"] {
        socket.send(Message::text(number)).await.unwrap();
        assert_eq!(collector.text().await, number);
    }
    assert_eq!(closed(&mut socket).await, (4000, "gap of 2".to_owned()));
    close_code_at_the_end(socket).await;
    let mut socket = feed.caller().await.accept().await;
    socket.send(Message::text("6")).await.unwrap();
    assert_eq!(collector.text().await, "6");
    blocking(|| {
        host.wait_until("the close frame counts as delivered", |now| {
            now.count("tidemill_messages_delivered_total", &["sink=\"back\""]) == 1
                && now.count("tidemill_messages_in_flight", &["stage=\"back\""]) == 0
        });
    });
    let error = last_error(&host);
    assert!(error.ends_with("was given up: closed by its pipeline: 4000"), "{error}");
    assert!(stopped(host, [socket]).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_gap_has_a_feed_dialled_anew_and_says_what_is_missing() {
    let (folder, feed, mut collector) = (Folder::default(), Door::open().await, Collector::open().await);
    folder.install("gap", &plugin("gap"));
    let config = format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "ws://{}/", {RECONNECT} }}
        transforms = [{{ plugin = "gap", config = {{ reconnect = true, mark = "/missing" }} }}]
        sinks = [{{ type = "reply", outputs = ["control"] }}, {{ type = "websocket", url = "{}" }}]
        "#,
        feed.address,
        collector.url()
    );
    let host = blocking(|| folder.run(&config));
    let mut socket = feed.caller().await.accept().await;
    for (sent, marked) in
        [(r#"{"u":1}"#, r#"{"u":1}"#), (r#"{"u":2}"#, r#"{"u":2}"#), (r#"{"u":5}"#, r#"{"u":5,"missing":2}"#)]
    {
        socket.send(Message::text(sent)).await.unwrap();
        assert_eq!(collector.text().await, marked);
    }
    assert_eq!(closed(&mut socket).await, (4000, "2 missing before 5".to_owned()));
    close_code_at_the_end(socket).await;
    let mut socket = feed.caller().await.accept().await;
    // What was missed meanwhile is a gap, and no reason to dial once more.
    socket.send(Message::text(r#"{"u":9}"#)).await.unwrap();
    assert_eq!(collector.text().await, r#"{"u":9,"missing":3}"#);
    socket.send(Message::text(r#"{"u":10}"#)).await.unwrap();
    assert_eq!(collector.text().await, r#"{"u":10}"#);
    blocking(|| {
        host.wait_until("what is missing is counted", |now| {
            now.count("tidemill_guest_gap_messages_total", &[]) == 5
        });
    });
    assert!(stopped(host, [socket]).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_closes_the_peer_that_a_message_came_from_and_no_other() {
    let folder = Folder::default();
    let source = r#"{ type = "websocket", mode = "server", path = "/ask" }"#;
    let host = watched(&folder, source, r#"{ type = "stdout" }"#);
    let address = blocking(|| host.listening("websocket"));
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(dial(address, "/ask").await);
    }
    peers[0].send(Message::text("close 1008 go away")).await.unwrap();
    assert_eq!(closed(&mut peers[0]).await, (1008, "go away".to_owned()));
    peers[1].send(Message::text("last 4001 farewell")).await.unwrap();
    assert_eq!(text(&mut peers[1]).await, "bye");
    assert_eq!(closed(&mut peers[1]).await, (4001, "farewell".to_owned()));
    for wrong in ["close 1005 no", "close 1010 no", "close 999", "close goodbye"] {
        peers[2].send(Message::text(wrong)).await.unwrap();
    }
    let dead = blocking(|| {
        host.wait_until("what is none has failed", |now| {
            let dead = "tidemill_messages_dead_lettered_total";
            now.count(dead, &["stage=\"back\"", "reason=\"invalid\""]) == 4
        });
        host.wait_until("what closed counts as delivered", |now| {
            now.count("tidemill_messages_delivered_total", &["sink=\"back\""]) == 2
        });
        std::fs::read_to_string(folder.path("dead.jsonl")).unwrap()
    });
    assert!(
        dead.contains("__meta_close has the close code 1005, and only 1000 to 1003, 1007 to 1013"),
        "{dead}"
    );
    assert!(dead.contains("__meta_close begins with no close code"), "{dead}");
    peers[2].send(Message::text("last 1000")).await.unwrap();
    assert_eq!(text(&mut peers[2]).await, "bye", "it is still there");
    assert!(stopped(host, peers).await.status.success());
}
