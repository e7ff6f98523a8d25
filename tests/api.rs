//! The HTTP API of a running host: pipelines made, stopped and removed while others go on; who is
//! connected; and who may ask.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::Instant;
use tidemill_tests::host::{Folder, Host, PATIENCE, binary};
use tidemill_tests::peers::{Collector, Feed, Received, dial};
use tidemill_tests::plugin;
use tokio_tungstenite::tungstenite::Message;

const FAST: &str = r#"reconnect = { delay = "10ms", max_delay = "50ms" }"#;

/// A pipeline of the file, from a feed to a collector.
fn relay(name: &str, source: &str, sink: &str) -> String {
    format!(
        r#"
        [[pipelines]]
        name = "{name}"
        source = {{ type = "websocket", url = "{source}", {FAST} }}
        sinks = [{{ type = "websocket", url = "{sink}", {FAST} }}]
        "#
    )
}

/// Asks without holding up the peers, which run in this test's own task.
async fn json(host: &Host, method: &str, path: &str, body: Value) -> (u16, Value) {
    tokio::task::block_in_place(|| host.json(method, path, &body))
}

/// The rows of a pipeline's endpoint in the table of connections.
fn rows(host: &Host, pipeline: &str, endpoint: &str) -> Vec<Value> {
    let (status, answer) = host.json("GET", "/api/v1/connections", &Value::Null);
    assert_eq!(status, 200);
    let rows = answer["endpoints"].as_array().unwrap().iter();
    rows.filter(|row| row["pipeline"] == pipeline && row["endpoint"] == endpoint).cloned().collect()
}

/// Waits until the one row of an endpoint is as described.
async fn row(host: &Host, pipeline: &str, endpoint: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = tokio::task::block_in_place(|| rows(host, pipeline, endpoint));
        match rows.as_slice() {
            [row] if is_so(row) => return row.clone(),
            _ => assert!(Instant::now() < deadline, "{rows:#?}\n{}", host.log()),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_made_stopped_started_and_removed_while_another_goes_on() {
    let folder = Folder::default();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let file = relay("file", &feed.url(), &collector.url());
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
    row(&host, "made", "out", |row| row["connections"].as_array().unwrap().len() == 1).await;
    sender.send(Message::text("2")).await.unwrap();
    assert_eq!(receiver.next().await.unwrap().unwrap(), Message::text("2"));
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
    assert!(rows(&host, "made", "source").is_empty());
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
async fn only_who_knows_the_token_and_is_no_foreign_page_may_ask() {
    let folder = Folder::default();
    let host = folder.run("token = \"s3cr3t\"\n");
    let token = ("Authorization", "Bearer s3cr3t");
    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let (status, answer) = host.ask(method, path, headers, body);
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        (status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask("GET", path, &[], "").0, 200, "{path}");
    }
    for path in ["/metrics", "/api/v1/pipelines", "/api/v1/connections", "/nowhere"] {
        assert_eq!(ask("GET", path, &[], ""), (401, "unauthorized".to_owned()), "{path}");
        let wrong = [("Authorization", "Bearer s3cr3")];
        assert_eq!(ask("GET", path, &wrong, ""), (401, "unauthorized".to_owned()), "{path}");
        let basic = [("Authorization", "Basic s3cr3t")];
        assert_eq!(ask("GET", path, &basic, "").0, 401, "{path}");
    }
    assert_eq!(ask("GET", "/api/v1/pipelines", &[token], "").0, 200);
    assert_eq!(ask("GET", "/nowhere", &[token], ""), (404, "not_found".to_owned()));
    for (header, code) in [
        (("Host", "evil.example:10080"), "foreign_host"),
        (("Origin", "http://evil.example"), "foreign_origin"),
        (("Origin", "null"), "foreign_origin"),
    ] {
        assert_eq!(ask("GET", "/healthz", &[token, header], ""), (403, code.to_owned()));
        assert_eq!(ask("POST", "/api/v1/pipelines", &[token, header], "{}"), (403, code.to_owned()));
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let headers = [token, ("Content-Type", content_type)];
        assert_eq!(ask("POST", "/api/v1/pipelines", &headers, "{}"), (415, "media_type".to_owned()));
    }
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    assert_eq!(ask("POST", "/api/v1/pipelines", &[token], &large), (413, "too_large".to_owned()));
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialled_connection_is_listed_and_one_that_is_closed_is_dialled_again() {
    let folder = Folder::default();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run(&relay("p", &feed.url(), &collector.url()));
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
    let rooms: Vec<_> = peers.iter().map(|peer| peer["metadata"]["room"].as_str().unwrap()).collect();
    assert_eq!(rooms, ["red", "blue"]);
    let sink = row(&host, "chat", "sink0", |row| row["connections"].as_array().unwrap().len() == 2).await;
    assert_eq!(sink["connections"][0]["id"], peers[0]["id"], "a peer that ends share is one");
    let metrics = host.metrics();
    let gauge = |endpoint: &str, state: &str| {
        let labels = [format!("endpoint=\"{endpoint}\""), format!("state=\"{state}\"")];
        metrics.count("tidemill_connections", &labels.each_ref().map(String::as_str))
    };
    for endpoint in ["source", "sink0"] {
        assert_eq!((gauge(endpoint, "listening"), gauge(endpoint, "connected")), (1, 2), "{endpoint}");
    }
    let id = peers[0]["id"].as_str().unwrap();
    assert_eq!(json(&host, "DELETE", &format!("/api/v1/connections/{id}"), Value::Null).await.0, 204);
    let Some(Ok(Message::Close(Some(frame)))) = red.next().await else { panic!("a close frame") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "closed by an operator"));
    row(&host, "chat", "source", |row| row["connections"].as_array().unwrap().len() == 1).await;
    blue.send(Message::text("hello")).await.unwrap();
    assert_eq!(blue.next().await.unwrap().unwrap(), Message::text("hello"));
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
        let config = relay("p", &collector.url(), sink);
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

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_a_body_takes_no_variable_and_names_no_file() {
    let folder = Folder::default();
    let collector = Collector::open().await;
    let url = format!("{}?home=${{HOME}}", collector.url());
    let pipeline = json!({
        "name": "p",
        "source": { "type": "websocket", "url": url },
        "sinks": [{ "type": "file", "path": "out.jsonl" }],
    });
    let secret = json!({
        "type": "websocket", "url": collector.url(), "headers": { "X-File": "${file:/etc/hostname}" },
    });
    let host = folder.run("");
    let told = |answer: &Value| -> Vec<String> {
        let errors = answer["error"]["errors"].as_array().unwrap().iter();
        let mut told: Vec<_> = errors.map(|each| each["path"].as_str().unwrap().to_owned()).collect();
        told.sort();
        told
    };
    let (status, answer) = json(&host, "POST", "/api/v1/pipelines", pipeline.clone()).await;
    assert_eq!((status, told(&answer)), (422, vec!["/sinks/0/type".to_owned(), "/source/url".to_owned()]));
    let (status, answer) = json(&host, "POST", "/api/v1/connections/check", secret.clone()).await;
    assert_eq!((status, told(&answer)), (422, vec!["/headers/X-File".to_owned()]), "{answer}");
    assert!(!folder.path("out.jsonl").exists());
    assert!(host.stop().status.success());

    let host = folder.run("token = \"t\"").with_token("t");
    assert_eq!(json(&host, "POST", "/api/v1/pipelines", pipeline).await.0, 201);
    assert_eq!(json(&host, "POST", "/api/v1/connections/check", secret).await.0, 200);
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

#[test]
fn half_a_request_holds_up_no_shutdown_and_more_than_256_connections_take_no_more_files() {
    let folder = Folder::default();
    let host = folder.run("");
    let files = || std::fs::read_dir(format!("/proc/{}/fd", host.id())).unwrap().count();
    let before = files();
    let half = || {
        let mut stream = std::net::TcpStream::connect(host.admin()).unwrap();
        stream.write_all(b"GET /healthz HTT").unwrap();
        stream
    };
    let mut halves: Vec<_> = (0..300).map(|_| half()).collect();
    // One of the first is answered, so that all that have a seat have been accepted by then.
    halves[255].write_all(b"P/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    halves[255].read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(files() <= before + 260, "{} files, and {before} before", files());
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    drop(halves);
}
