//! One pipeline that is put in the place of another by the API, while all others stay as they are.

use crate::site::Site;
use futures_util::SinkExt;
use serde_json::{Value, json};
use tidemill_tests::peers::dial;
use tidemill_tests::sockets::text;
use tokio_tungstenite::tungstenite::Message;

/// A pipeline that answers readings below a limit.
fn readings(name: &str, below: u32) -> Value {
    json!({
        "name": name,
        "source": { "type": "websocket", "mode": "server", "path": format!("/{name}") },
        "transforms": [
            { "plugin": "filter", "config": { "where": [{ "field": "/n", "op": "lt", "value": below }] } },
        ],
        "sinks": [{ "type": "reply" }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_replaced_in_place_wherever_it_came_from_and_no_other_changes() {
    let site = Site::default();
    site.install("filter", "filter");
    let file = r#"
        [server]
        port = 0
        [[pipelines]]
        name = "filed"
        source = { type = "websocket", mode = "server", path = "/filed" }
        transforms = [{ plugin = "filter", config = { where = [{ field = "/n", op = "lt", value = 10 }] } }]
        sinks = [{ type = "reply" }]
        "#;
    let site = site.run(file);
    let (status, made) = site.json("POST", "/api/v1/pipelines", readings("made", 10)).await;
    assert_eq!(status, 201, "{made}");
    let address = site.host().listening("websocket");
    let mut peers = Vec::new();
    for name in ["filed", "made"] {
        let mut peer = dial(address, &format!("/{name}")).await;
        for reading in [r#"{"n":15}"#, r#"{"n":5}"#] {
            peer.send(Message::text(reading)).await.unwrap();
        }
        assert_eq!(text(&mut peer).await, r#"{"n":5}"#);
        peers.push((name, peer));
    }
    for (name, peer) in &mut peers {
        let path = format!("/api/v1/pipelines/{name}");
        let asked = site.json("PUT", &format!("{path}?dry_run=true"), readings(name, 20)).await;
        let updated = json!({ "pipeline": name, "class": "updated", "reasons": ["transform filter: `config.where` changed"] });
        assert_eq!(asked, (200, updated.clone()));
        for reading in [r#"{"n":15}"#, r#"{"n":6}"#] {
            peer.send(Message::text(reading)).await.unwrap();
        }
        assert_eq!(text(peer).await, r#"{"n":6}"#, "a dry run changes nothing");
        assert_eq!(site.json("PUT", &path, readings(name, 20)).await, (200, updated));
        for reading in [r#"{"n":25}"#, r#"{"n":15}"#] {
            peer.send(Message::text(reading)).await.unwrap();
        }
        assert_eq!(text(peer).await, r#"{"n":15}"#);
        let (_, again) = site.json("PUT", &path, readings(name, 20)).await;
        assert_eq!(again["class"], "unchanged", "{again}");
    }

    // What cannot be changes nothing.
    let refusals = [
        ("made", readings("other", 20), 422),
        ("nobody", readings("nobody", 20), 404),
        ("made", json!({ "name": "made", "source": { "type": "stdin" }, "sinks": 1 }), 422),
        (
            "made",
            readings("made", 0)
                .as_object()
                .map(|made| {
                    let mut made = made.clone();
                    made["transforms"][0]["config"] = json!({ "where": 7 });
                    Value::Object(made)
                })
                .unwrap(),
            422,
        ),
        (
            "made",
            readings("made", 20)
                .as_object()
                .map(|made| {
                    let mut made = made.clone();
                    made["transforms"][0]["plugin"] = json!("absent");
                    Value::Object(made)
                })
                .unwrap(),
            422,
        ),
    ];
    for (name, body, status) in refusals {
        let (got, answer) = site.json("PUT", &format!("/api/v1/pipelines/{name}"), body).await;
        assert_eq!(got, status, "{answer}");
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }

    // The file is the truth for those that it has.
    let (status, told) = site.reload("").await;
    assert_eq!(status, 200, "{told}");
    let row = json!({ "pipeline": "filed", "class": "updated", "reasons": ["transform filter: `config.where` changed"] });
    assert_eq!(told["pipelines"], json!([row]));
    for (name, peer) in &mut peers {
        for reading in [r#"{"n":17}"#, r#"{"n":5}"#] {
            peer.send(Message::text(reading)).await.unwrap();
        }
        if *name == "made" {
            assert_eq!(text(peer).await, r#"{"n":17}"#);
        }
        assert_eq!(text(peer).await, r#"{"n":5}"#);
    }
    assert_eq!(site.counted("tidemill_connects_total", &["endpoint=\"source\""]).await, 2, "each came once");
    site.stop().await;
}
