//! Requests and answers on one socket, with a plugin between: whoever dialled, and at the end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::SinkExt;
use tidemill_tests::host::Folder;
use tidemill_tests::peers::dial;
use tidemill_tests::plugin;
use tidemill_tests::sockets::{accept, stopped, text};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

const NOTIONAL: &str = r#"
    [server]
    port = 0

    [[pipelines]]
    name = "p"
    source = { type = "websocket", mode = "server", path = "/ask" }
    transforms = [{ plugin = "notional", config = { above = 0 } }]
    sinks = [{ type = "reply", name = "back" }]
"#;

#[tokio::test]
async fn peers_ask_a_plugin_and_each_gets_its_own_answers() {
    let folder = Folder::default();
    folder.install("notional", &plugin("notional"));
    let host = folder.run(NOTIONAL);
    let address = host.listening("websocket");
    let mut peers = [dial(address, "/ask").await, dial(address, "/ask").await];
    for round in 1..=50 {
        for (n, peer) in peers.iter_mut().enumerate() {
            let ask = format!("{{\"peer\":{n},\"price\":{round},\"qty\":2}}");
            peer.send(Message::text(ask)).await.unwrap();
        }
    }
    for round in 1..=50 {
        for (n, peer) in peers.iter_mut().enumerate() {
            let answer: serde_json::Value = serde_json::from_str(&text(peer).await).unwrap();
            assert_eq!((answer["peer"].as_u64(), answer["price"].as_u64()), (Some(n as u64), Some(round)));
            assert_eq!(answer["notional"].as_f64(), Some(2.0 * round as f64));
        }
    }
    host.wait_until("all are delivered", |now| {
        now.count("tidemill_messages_delivered_total", &["sink=\"back\""]) == 100
    });
    assert!(host.stop().status.success());
}

#[tokio::test]
async fn a_server_that_we_dialled_is_answered_on_the_same_socket() {
    let folder = Folder::default();
    folder.install("notional", &plugin("notional"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = format!(r#"{{ type = "websocket", url = "ws://{}" }}"#, listener.local_addr().unwrap());
    let config = NOTIONAL.replace(r#"{ type = "websocket", mode = "server", path = "/ask" }"#, &source);
    let host = folder.run(&config);
    let mut server = accept(&listener).await;
    server.send(Message::text("{\"price\":3,\"qty\":2}")).await.unwrap();
    assert_eq!(text(&mut server).await, "{\"price\":3,\"qty\":2,\"notional\":6.0}");
    assert!(stopped(host, [server]).await.status.success());
}

#[tokio::test]
async fn what_the_end_makes_has_no_connection_to_go_back_on() {
    let folder = Folder::default();
    folder.install("vwap", &plugin("vwap"));
    let config = NOTIONAL.replace(r#"plugin = "notional", config = { above = 0 }"#, r#"plugin = "vwap""#);
    let host = folder.run(&format!("{config}\ndead_letter = {{ type = \"file\", path = \"dead.jsonl\" }}\n"));
    let mut peer = dial(host.listening("websocket"), "/ask").await;
    for minute in [1, 2] {
        let time = minute * 60_000;
        let trade = format!(r#"{{"data":{{"e":"trade","s":"A","p":"{minute}","q":"1","T":{time}}}}}"#);
        peer.send(Message::text(trade)).await.unwrap();
    }
    let window: serde_json::Value = serde_json::from_str(&text(&mut peer).await).unwrap();
    assert_eq!((window["window_start"].as_u64(), window["final"].as_bool()), (Some(60_000), Some(true)));
    assert!(stopped(host, [peer]).await.status.success());
    let letter = std::fs::read_to_string(folder.path("dead.jsonl")).unwrap();
    let letter: serde_json::Value = serde_json::from_str(letter.trim()).unwrap();
    assert_eq!((letter["stage"].as_str(), letter["reason"].as_str()), (Some("back"), Some("no_output")));
    assert!(letter["payload"].as_str().unwrap().contains(r#""final":false"#), "{letter}");
}
