//! What a host says of itself when something is wrong: in its table of connections, its readiness, the states of
//! its pipelines and its log.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use std::net::TcpListener;
use tidemill_tests::host::{Folder, Host, PATIENCE};
use tidemill_tests::peers::Feed;
use tidemill_tests::{guest, plugin};

/// Endpoints of a pipeline that have failed, as the metrics say.
fn failed(host: &Host, pipeline: &str) -> u64 {
    host.metrics().count("tidemill_connections", &[&format!("pipeline=\"{pipeline}\""), "state=\"failed\""])
}

#[test]
fn a_source_that_has_failed_is_shown_with_why_until_its_pipeline_is_started_anew_or_removed() {
    let folder = Folder::default();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "ws://{nobody}/feed", reconnect = {{ enabled = false }} }}
        sinks = [{{ type = "stdout", format = "jsonl" }}]
        "#
    ));
    for _ in 0..2 {
        host.becomes("p", "failed");
        let source = host.endpoint("p", "source").expect("it is shown");
        assert_eq!(source["state"], "failed");
        assert!(source["address"].as_str().unwrap().contains(&nobody.to_string()), "{source}");
        assert!(source["last_error"]["message"].as_str().unwrap().contains("refused"), "{source}");
        assert_eq!(failed(&host, "p"), 1);
        host.json("POST", "/api/v1/pipelines/p/start", &Value::Null);
    }
    host.becomes("p", "failed");
    assert_eq!(host.json("DELETE", "/api/v1/pipelines/p", &Value::Null).0, 204);
    assert_eq!((host.endpoint("p", "source"), failed(&host, "p")), (None, 0));
}

#[test]
fn a_listener_that_cannot_be_opened_is_shown_as_failed_with_its_pipeline() {
    let folder = Folder::default();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "runs"
        source = {{ type = "websocket", mode = "server", port = 0, path = "/in" }}
        sinks = [{{ type = "stdout", format = "jsonl" }}]

        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", mode = "server", port = {port}, path = "/in" }}
        sinks = [{{ type = "stdout", format = "jsonl" }}]
        "#
    ));
    host.becomes("p", "failed");
    let source = host.endpoint("p", "source").expect("it is shown");
    assert_eq!(
        (&source["state"], &source["address"]),
        (&json!("failed"), &json!(format!("ws://127.0.0.1:{port}/in")))
    );
    assert!(source["last_error"]["message"].as_str().unwrap().contains("address in use"), "{source}");
    drop(taken);
    assert_eq!(host.json("POST", "/api/v1/pipelines/p/start", &Value::Null).0, 200);
    assert_eq!(
        (host.endpoint("p", "source").unwrap()["state"].clone(), failed(&host, "p")),
        (json!("listening"), 0)
    );
    assert_eq!(host.json("POST", "/api/v1/pipelines/p/stop", &Value::Null).0, 200);
    assert_eq!(host.endpoint("p", "source"), None);
    // What never came to be is not shown.
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let body = json!({
        "name": "q",
        "source": { "type": "websocket", "mode": "server", "port": taken.local_addr().unwrap().port() },
        "sinks": [{ "type": "stdout", "format": "jsonl" }],
    });
    assert_eq!(host.json("POST", "/api/v1/pipelines", &body).0, 409);
    assert_eq!((host.endpoint("q", "source"), failed(&host, "q")), (None, 0));
}

#[test]
fn a_plugin_whose_only_file_is_rubbish_is_said_once_in_the_log_and_in_the_state_of_its_pipeline() {
    let folder = Folder::default();
    folder.put("forward", b"this is no component");
    let config = |name: &str| {
        format!(
            r#"
            [[pipelines]]
            name = "{name}"
            source = {{ type = "websocket", mode = "server", path = "/{name}" }}
            transforms = [{{ plugin = "forward" }}]
            sinks = [{{ type = "stdout", format = "jsonl" }}]
            "#
        )
    };
    let host = folder.run(&format!("[server]\nport = 0\n{}", config("p")));
    let said = |fields: &Value| {
        let is_it = fields.get("message")?.as_str()? == "pipeline waits for a plugin whose file cannot run";
        if is_it { Some(fields.clone()) } else { None }
    };
    let fields = host.logged("that it waits for what cannot run", said);
    assert_eq!((&fields["pipeline"], &fields["plugin"]), (&json!("p"), &json!("forward")));
    assert!(fields["hint"].as_str().unwrap().contains("plugins/forward.wasm"), "{fields}");
    let (_, shown) = host.json("GET", "/api/v1/pipelines/p", &Value::Null);
    assert_eq!((&shown["state"], &shown["plugins"]), (&json!("waiting"), &json!(["forward"])));
    assert_eq!(shown["refused"]["forward"], fields["error"]);
    let (status, ready) = host.json("GET", "/readyz", &Value::Null);
    assert_eq!((status, &ready["reasons"]["p"]["refused"]["forward"]), (503, &fields["error"]));
    // Another plugin that comes is no news for it.
    folder.install("filter", &plugin("filter"));
    host.says("plugin loaded");
    folder.install("forward", &plugin("forward"));
    host.becomes("p", "running");
    let log = host.log();
    assert_eq!(log.matches("whose file cannot run").count(), 1, "{log}");
    assert_eq!(host.get("/readyz").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_drains_is_not_ready_and_says_why() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    // What waits for a sink that is away keeps it from its end for as long as the grace period.
    let config = format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "{}" }}
        sinks = [{{ type = "websocket", url = "ws://127.0.0.1:1/", reconnect = {{ delay = "1m" }} }}]
        "#,
        feed.url()
    );
    let host = folder.run_with_grace(PATIENCE, &config);
    feed.text("waits").await;
    tokio::task::block_in_place(|| {
        host.wait_until("it waits for the sink", |now| {
            now.count("tidemill_messages_in_flight", &["stage=\"sink0\""]) == 1
        });
        assert_eq!(host.get("/readyz").0, 200, "a peer that is away is no reason");
        let pid = rustix::process::Pid::from_raw(host.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        host.says("shutting down");
        // The signal is noticed by another thread than the one that says so.
        host.wait_until("it drains", |_| host.get("/readyz").0 == 503);
        let (_, answer) = host.json("GET", "/readyz", &Value::Null);
        assert_eq!(answer["ready"], false);
        assert!(answer["stopping"].as_str().is_some_and(|why| why.contains("told to stop")), "{answer}");
        assert_eq!(host.get("/healthz").0, 200);
    });
}

#[test]
fn a_pipeline_from_the_api_that_lets_anybody_in_is_warned_of_as_at_the_start() {
    let folder = Folder::default();
    let host = folder.run("");
    let body = |name: &str, auth: Value| {
        let mut source =
            json!({ "type": "websocket", "mode": "server", "host": "0.0.0.0", "port": 0, "path": "/in" });
        if !auth.is_null() {
            source["auth"] = auth;
        }
        json!({ "name": name, "source": source, "sinks": [{ "type": "stdout", "format": "jsonl" }] })
    };
    let asks = body("asks", json!({ "bearer": ["t"] }));
    assert_eq!(host.json("POST", "/api/v1/pipelines", &asks).0, 201);
    // It takes the token from the one that is there, and so it is not open.
    assert_eq!(host.json("POST", "/api/v1/pipelines", &body("takes", Value::Null)).0, 201);
    for name in ["takes", "asks"] {
        assert_eq!(host.json("DELETE", &format!("/api/v1/pipelines/{name}"), &Value::Null).0, 204);
    }
    assert_eq!(host.json("POST", "/api/v1/pipelines", &body("open", Value::Null)).0, 201);
    let warned = host.logged("that anybody may connect", |fields| {
        let warning = fields.get("warning")?.as_str()?;
        let is_it = warning.contains("0.0.0.0 port 0 may connect");
        if is_it { Some((fields["pipeline"].clone(), fields["hint"].clone())) } else { None }
    });
    assert_eq!(warned.0, json!("open"));
    assert!(warned.1.as_str().unwrap().contains("`auth`"), "{}", warned.1);
    assert_eq!(host.log().matches("may connect").count(), 1, "{}", host.log());
}

#[test]
fn a_name_that_is_too_long_is_refused_through_the_api_as_in_the_file() {
    let folder = Folder::default();
    let host = folder.run("");
    let body = |bytes: usize| {
        json!({
            "name": "n".repeat(bytes),
            "source": { "type": "websocket", "mode": "server", "port": 0 },
            "sinks": [{ "type": "stdout", "format": "jsonl" }],
        })
    };
    let (status, answer) = host.json("POST", "/api/v1/pipelines", &body(65));
    let said = answer.to_string();
    assert!(
        status == 422 && said.contains("`name` has 65 bytes, and at most 64 are allowed"),
        "{status}: {said}"
    );
    assert_eq!(host.json("POST", "/api/v1/pipelines", &body(64)).0, 201);
}

#[test]
fn a_line_of_the_log_has_no_empty_hint() {
    let folder = Folder::default();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "ws://{nobody}/feed" }}
        sinks = [{{ type = "stdout", format = "jsonl" }}]
        "#
    ));
    let fields = host.logged("that connecting failed", |fields| {
        let is_it = fields.get("message")?.as_str()? == "connecting failed";
        if is_it { Some(fields.clone()) } else { None }
    });
    assert!(fields.get("hint").is_none_or(|hint| hint != ""), "{fields}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_messages_wait_for_a_plugin_is_not_said_to_be_its_recovery() {
    let folder = Folder::default();
    folder.install("moody", &guest("moody").expect("guests in Rust are built"));
    let feed = Feed::open().await;
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "{}" }}
        transforms = [{{ plugin = "moody" }}]
        sinks = [{{ type = "stdout", format = "jsonl" }}]
        "#,
        feed.url()
    ));
    // Five faults in a row, and one that waits.
    for _ in 0..6 {
        feed.text("trap").await;
    }
    tokio::task::block_in_place(|| {
        host.wait_until("its messages wait", |now| now.count("tidemill_plugin_paused", &[]) == 1);
        let ended = host.stop();
        assert!(!ended.log.contains("works again"), "{}", ended.log);
        // The plugin was told the end all the same.
        assert!(ended.output.contains("final"), "{}\n{}", ended.output, ended.log);
    });
}

#[test]
fn a_transform_that_lets_pass_what_its_plugin_hides_is_told_in_the_log_and_with_its_pipeline() {
    let folder = Folder::default();
    folder.install("redact", &plugin("redact"));
    let config = |name: &str, on_error: &str| {
        format!(
            r#"
            [[pipelines]]
            name = "{name}"
            source = {{ type = "websocket", mode = "server", path = "/{name}" }}
            transforms = [{{ plugin = "redact", config = {{ fields = ["/mail"] }}, on_error = "{on_error}" }}]
            sinks = [{{ type = "stdout", format = "jsonl" }}]
            "#
        )
    };
    let host = folder.run(&format!("[server]\nport = 0\n{}{}", config("p", "pass"), config("q", "drop")));
    host.becomes("p", "running");
    host.becomes("q", "running");
    let said = |fields: &Value| {
        fields.get("message")?.as_str()?.contains("lets messages go on").then(|| fields.clone())
    };
    let fields = host.logged("that messages go on", said);
    let place = (&fields["pipeline"], &fields["transform"], &fields["plugin"]);
    assert_eq!(place, (&json!("p"), &json!("redact"), &json!("redact")));
    assert_eq!(host.log().matches("lets messages go on").count(), 1);
    let (_, shown) = host.json("GET", "/api/v1/pipelines/p", &Value::Null);
    assert_eq!(
        shown["warnings"],
        json!([
            "transform redact: with `on_error = \"pass\"` a message that plugin redact rejects or fails on goes on as \
                it came, with what the plugin is there to hide"
        ])
    );
    assert_eq!(host.json("GET", "/api/v1/pipelines/q", &Value::Null).1["warnings"], Value::Null);
}
