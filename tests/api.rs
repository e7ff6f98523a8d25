//! The HTTP API of a running host: pipelines made, stopped and removed while others go on; who is
//! connected; and who may ask.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "api/access.rs"]
mod access;
#[path = "api/connections.rs"]
mod connections;

use futures_util::SinkExt;
use serde_json::{Value, json};
use std::time::Instant;
use tidemill_tests::host::{Folder, Host, PATIENCE};
use tidemill_tests::peers::{Collector, Feed, dial};
use tidemill_tests::pipelines::relay;
use tidemill_tests::plugin;
use tidemill_tests::sockets::text;
use tokio_tungstenite::tungstenite::Message;

/// Asks without holding up the peers, which run in this test's own task.
async fn json(host: &Host, method: &str, path: &str, body: Value) -> (u16, Value) {
    tokio::task::block_in_place(|| host.json(method, path, &body))
}

/// Waits until the row of an endpoint is as described.
async fn row(host: &Host, pipeline: &str, endpoint: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tokio::task::block_in_place(|| host.endpoint(pipeline, endpoint)) {
            Some(row) if is_so(&row) => return row,
            row => assert!(Instant::now() < deadline, "{row:#?}\n{}", host.log()),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_made_stopped_started_and_removed_while_another_goes_on() {
    let folder = Folder::default();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let file = relay("file", &feed.url(), "", &collector.url());
    let host = folder.run(&format!("[server]\nport = 0\n{file}"));
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");

    let made = json!({
        "name": "made",
        "source": { "type": "websocket", "mode": "server", "path": "/in" },
        "sinks": [{ "type": "websocket", "mode": "server", "path": "/out", "name": "out" }],
    });
    let (status, answer) = json(&host, "POST", "/api/v1/pipelines", made.clone()).await;
    assert_eq!((status, &answer["state"]), (201, &json!("running")), "{answer}");
    let address = host.listening("websocket");
    let (mut sender, mut receiver) = (dial(address, "/in").await, dial(address, "/out").await);
    sender.send(Message::text("2")).await.unwrap();
    assert_eq!(text(&mut receiver).await, "2");
    host.wait_until("it counts as delivered", |now| {
        now.count("tidemill_messages_delivered_total", &["pipeline=\"made\""]) == 1
    });
    let (status, answer) = json(&host, "GET", "/api/v1/pipelines/made", Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(answer["source"], made["source"]);
    assert_eq!(answer["sinks"], made["sinks"]);
    assert_eq!(answer["counters"]["received"], 1);
    assert_eq!(answer["counters"]["sinks"]["out"]["delivered"], 1);
    assert_eq!(json(&host, "POST", "/api/v1/pipelines", made).await.0, 409);

    drop((sender, receiver));
    let (status, answer) = json(&host, "POST", "/api/v1/pipelines/made/stop", Value::Null).await;
    assert_eq!((status, &answer["state"]), (200, &json!("stopped")));
    assert!(tokio_tungstenite::connect_async(format!("ws://{address}/in")).await.is_err());
    assert_eq!(host.get("/readyz").0, 200, "a pipeline that was stopped is no reason");
    assert!(host.endpoint("made", "source").is_none());
    feed.text("3").await;
    assert_eq!(collector.text().await, "3");

    assert_eq!(json(&host, "POST", "/api/v1/pipelines/made/start", Value::Null).await.0, 200);
    row(&host, "made", "source", |row| row["state"] == "listening").await;
    assert_eq!(json(&host, "DELETE", "/api/v1/pipelines/made", Value::Null).await, (204, Value::Null));
    assert_eq!(json(&host, "GET", "/api/v1/pipelines/made", Value::Null).await.0, 404);
    let (_, answer) = json(&host, "GET", "/api/v1/pipelines", Value::Null).await;
    assert_eq!(answer["pipelines"].as_array().unwrap().len(), 1);
    assert_eq!(answer["pipelines"][0]["name"], "file");
    feed.text("4").await;
    assert_eq!(collector.text().await, "4");
    let text = std::fs::read_to_string(folder.path("tidemill.toml")).unwrap();
    assert!(!text.contains("made"), "what the API made is not written to the file");
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_pipeline_is_said_all_at_once_by_its_path() {
    let folder = Folder::default();
    let host = folder.run("");
    let wrong = json!({
        "name": "p",
        "source": { "type": "websocket", "url": "http://a/", "codex": "json" },
        "transforms": [{ "plugin": "p", "max_batch": 0, "config": { "a": null } }],
        "sinks": [],
    });
    let (status, answer) = json(&host, "POST", "/api/v1/pipelines", wrong.clone()).await;
    let error = &answer["error"];
    assert_eq!((status, &error["code"]), (422, &json!("invalid")));
    assert_eq!(
        error["errors"][0]["path"], "/transforms/0/config/a",
        "null is told before all else: {answer}"
    );
    let mut without_null = wrong;
    without_null["transforms"][0]["config"] = json!({});
    let (status, answer) = json(&host, "POST", "/api/v1/pipelines", without_null).await;
    assert_eq!(status, 422);
    let told: Vec<_> = answer["error"]["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| {
            (
                each["path"].as_str().unwrap(),
                each["message"].as_str().unwrap(),
                each["hint"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("/sinks", "a pipeline needs at least one sink", ""),
            ("/source/codex", "unknown key `codex`", "did you mean `codec`?"),
            ("/source/url", "websocket url must start with ws:// or wss://, got: http://a/", ""),
            ("/transforms/0/max_batch", "`max_batch` must be between 1 and 65536", ""),
        ]
    );
    let cases = [
        ("{", 400, "not_json"),
        ("{} x", 400, "not_json"),
        ("[]", 422, "invalid"),
        (r#"{"name":"p","name":"q"}"#, 422, "invalid"),
        (r#"{"source":{"type":"websocket","url":"${NO_SUCH_VARIABLE}"}}"#, 422, "invalid"),
    ];
    for (body, status, code) in cases {
        let (got, answer) = host.ask("POST", "/api/v1/pipelines", &[], body);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((got, answer["error"]["code"].as_str()), (status, Some(code)), "{body}: {answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(json(&host, "PUT", "/api/v1/pipelines/p", json!({})).await.0, 422);
    assert_eq!(json(&host, "POST", "/api/v1/pipelines/p/start", Value::Null).await.0, 404);
    let (status, answer) = json(&host, "PATCH", "/api/v1/pipelines/p", Value::Null).await;
    assert_eq!((status, &answer["error"]["code"]), (405, &json!("method")));
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_waits_for_its_plugin_and_shows_no_secret() {
    let folder = Folder::default();
    let host = folder.run("token = \"t0ken\"").with_token("t0ken");
    let made = json!({
        "name": "p",
        "source": {
            "type": "websocket", "url": "ws://me:s3cr3t@127.0.0.1:1/${PATH}",
            "headers": { "Authorization": "Bearer s3cr3t" },
        },
        "transforms": [{ "plugin": "none", "config": { "b": 1, "a": "${PATH}" } }],
        "sinks": [{ "type": "file", "path": "out.jsonl" }],
    });
    let (status, answer) = json(&host, "POST", "/api/v1/pipelines", made).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!((&answer["state"], &answer["plugins"]), (&json!("waiting"), &json!(["none"])));
    assert_eq!(answer["transforms"][0]["config"], json!({ "a": "***", "b": 1 }));
    assert_eq!(answer["source"]["url"], "ws://***@127.0.0.1:1/***");
    assert!(!answer.to_string().contains("s3cr3t"));
    assert_eq!(json(&host, "POST", "/api/v1/pipelines/p/start", Value::Null).await.0, 202);
    assert_eq!(host.get("/readyz").0, 503);
    assert_eq!(json(&host, "POST", "/api/v1/pipelines/p/stop", Value::Null).await.0, 200);
    assert_eq!(host.get("/readyz").0, 200);
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_relative_to_the_file_and_an_end_that_cannot_be_opened_adds_nothing() {
    let folder = Folder::default();
    std::fs::write(folder.path("in.jsonl"), "{\"a\":1}\n").unwrap();
    let host = folder.run("token = \"t0ken\"").with_token("t0ken");
    let copy = |name: &str, input: &str| {
        json!({
            "name": name,
            "source": { "type": "file", "path": input },
            "sinks": [{ "type": "file", "path": "out.jsonl" }],
        })
    };
    let (status, answer) = json(&host, "POST", "/api/v1/pipelines", copy("b", "missing.jsonl")).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("not_opened")), "{answer}");
    assert_eq!(json(&host, "POST", "/api/v1/pipelines", copy("a", "in.jsonl")).await.0, 201);
    host.wait_until("it is copied", |now| {
        now.count("tidemill_messages_delivered_total", &["pipeline=\"a\""]) == 1
    });
    let (_, answer) = json(&host, "GET", "/api/v1/pipelines", Value::Null).await;
    assert_eq!(answer["pipelines"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(std::fs::read_to_string(folder.path("out.jsonl")).unwrap(), "{\"a\":1}\n");
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_added_may_not_destroy_the_file_of_another_end() {
    let folder = Folder::default();
    std::fs::write(folder.path("in.jsonl"), "1\n2\n").unwrap();
    let config = "token = \"t\"\n[[pipelines]]\nname = \"a\"\nsource = { type = \"file\", path = \"in.jsonl\" }\n\
                  sinks = [{ type = \"file\", path = \"out.jsonl\" }]\n";
    let host = folder.run(config).with_token("t");
    let pipeline = |source: &str, sink: Value| json!({ "name": "b", "source": { "type": "file", "path": source }, "sinks": [sink] });
    let cases = [
        (pipeline("other.jsonl", json!({ "type": "file", "path": "./in.jsonl", "append": false })), 409),
        (pipeline("other.jsonl", json!({ "type": "file", "path": "out.jsonl", "format": "recording" })), 409),
        (pipeline("own.jsonl", json!({ "type": "file", "path": "own.jsonl" })), 422),
        (pipeline("in.jsonl", json!({ "type": "file", "path": "out.jsonl" })), 201),
    ];
    for (body, expected) in cases {
        let (status, answer) = json(&host, "POST", "/api/v1/pipelines", body).await;
        assert_eq!(status, expected, "{answer}");
        let said = match expected {
            409 => " of pipeline a ",
            422 => "this is the file that /source/path reads",
            _ => "",
        };
        assert!(answer.to_string().contains(said), "{answer}");
    }
    assert_eq!(std::fs::read_to_string(folder.path("in.jsonl")).unwrap(), "1\n2\n");
    assert!(host.stop().status.success());
}

#[test]
fn of_pipelines_that_are_added_at_the_same_time_one_gets_the_file_that_all_would_write() {
    let folder = Folder::default();
    std::fs::write(folder.path("in.jsonl"), "1\n").unwrap();
    let host = folder.run("token = \"t\"\n").with_token("t");
    let add = |name: &str| {
        let body = json!({
            "name": name,
            "source": { "type": "file", "path": "in.jsonl" },
            "sinks": [{ "type": "file", "path": "out.jsonl", "append": false }],
        });
        host.json("POST", "/api/v1/pipelines", &body)
    };
    let mut answers: Vec<_> = std::thread::scope(|scope| {
        let added = ["a", "b", "c", "d"].map(|name| scope.spawn(move || add(name)));
        added.into_iter().map(|added| added.join().unwrap()).collect()
    });
    answers.sort_by_key(|(status, _)| *status);
    let statuses: Vec<_> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [201, 409, 409, 409], "{answers:?}");
    let (status, all) = host.json("GET", "/api/v1/pipelines", &Value::Null);
    assert_eq!((status, all["pipelines"].as_array().unwrap().len()), (200, 1), "{all}");
    let removed = format!("/api/v1/pipelines/{}", answers[0].1["name"].as_str().unwrap());
    assert_eq!(host.json("DELETE", &removed, &Value::Null).0, 204);
    assert_eq!(add("e").0, 201, "nobody has the file any more");
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_a_pipeline_go_with_it() {
    let folder = Folder::default();
    folder.install("vwap", &plugin("vwap"));
    let collector = Collector::open().await;
    let host = folder.run("[server]\nport = 0\n");
    let made = |n: usize| {
        json!({
            "name": format!("p{n}"),
            "source": { "type": "websocket", "mode": "server", "path": format!("/{n}") },
            "transforms": [{ "plugin": "vwap" }],
            "sinks": [
                { "type": "websocket", "mode": "server", "path": format!("/out/{n}") },
                { "type": "websocket", "url": collector.url() },
            ],
        })
    };
    let before = tokio::task::block_in_place(|| host.get("/metrics").1);
    for n in 0..200 {
        assert_eq!(json(&host, "POST", "/api/v1/pipelines", made(n)).await.0, 201);
        if n == 0 {
            row(&host, "p0", "sink1", |row| row["state"] == "connected").await;
            assert_eq!(json(&host, "POST", "/api/v1/pipelines/p0/stop", Value::Null).await.0, 200);
            let now = tokio::task::block_in_place(|| host.get("/metrics").1);
            let memory = |line: &&str| line.starts_with("tidemill_plugin_memory_bytes{");
            let memory = now.lines().find(memory).expect("it is still a pipeline");
            assert!(memory.ends_with(" 0"), "{memory}");
        }
        assert_eq!(json(&host, "DELETE", &format!("/api/v1/pipelines/p{n}"), Value::Null).await.0, 204);
    }
    let after = tokio::task::block_in_place(|| host.get("/metrics").1);
    assert!(!after.contains("pipeline=\"p"), "{after}");
    assert!(after.len() < before.len() + 1_000, "{} bytes, and {} before", after.len(), before.len());
    assert!(host.stop().status.success());
}
