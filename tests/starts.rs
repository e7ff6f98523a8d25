//! Starting pipelines, and the host while it does: nothing that takes its time, hangs or fails holds up
//! anything else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};
use tidemill_tests::host::{Counted, Folder, Host, binary};
use tidemill_tests::peers::{Collector, Feed, Received, dial};
use tidemill_tests::pipelines::{relay, serve};
use tidemill_tests::{guest, plugin};

/// Asks without holding up the peers, which run in this test's own task.
async fn json(host: &Host, method: &str, path: &str, body: Value) -> (u16, Value) {
    tokio::task::block_in_place(|| host.json(method, path, &body))
}

/// The state of a pipeline, and why it has it.
async fn state(host: &Host, pipeline: &str) -> (String, String) {
    let (status, answer) = json(host, "GET", &format!("/api/v1/pipelines/{pipeline}"), Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("error"))
}

/// Waits until a pipeline has a state, and gives why.
async fn becomes(host: &Host, pipeline: &str, wanted: &str) -> String {
    tokio::task::block_in_place(|| host.becomes(pipeline, wanted));
    let (is, error) = state(host, pipeline).await;
    assert_eq!(is, wanted);
    error
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A host in a folder with this whole file, and no HTTP API of its own making.
fn run(folder: &Folder, config: &str) -> Host {
    std::fs::write(folder.path("tidemill.toml"), config).unwrap();
    let mut command = Command::new(binary());
    Host::start(command.args(["run", "--log-format", "json"]).current_dir(folder.path(".")))
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_that_take_their_time_start_side_by_side_and_hold_up_nobody() {
    let folder = Folder::default();
    folder.install("sleeper", &guest("sleeper").expect("guests in Rust are built"));
    folder.install("forward", &plugin("forward"));
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    // It takes its time and little of the machine's, which the neighbour is to have.
    let sleeps = r#"{ plugin = "sleeper", config = { where = "init" } }"#;
    let slow = ["s1", "s2", "s3"];
    let mut config: String =
        slow.iter().map(|name| relay(name, &feed.url(), sleeps, &collector.url())).collect();
    config.push_str(&relay("fast", &feed.url(), "{ plugin = \"forward\" }", &collector.url()));
    let host = folder.run(&config);
    // They get five seconds each; the API answers meanwhile, and shows all of them at it.
    let (_, answer) = json(&host, "GET", "/api/v1/pipelines", Value::Null).await;
    for (pipeline, name) in answer["pipelines"].as_array().unwrap().iter().zip(slow) {
        assert_eq!((&pipeline["name"], &pipeline["state"]), (&json!(name), &json!("starting")));
    }
    assert_eq!(host.get("/readyz").0, 503);
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");
    assert_eq!(state(&host, "s3").await.0, "starting", "the neighbour did not wait for it");
    for name in slow {
        let error = becomes(&host, name, "failed").await;
        assert!(error.contains("init"), "{error}");
    }
    feed.text("2").await;
    assert_eq!(collector.text().await, "2");
    let (status, ready) = json(&host, "GET", "/readyz", Value::Null).await;
    assert_eq!((status, &ready["reasons"]["s1"]["state"]), (503, &json!("failed")), "{ready}");
    assert_eq!(host.stop().status.code(), Some(1), "pipelines have failed");
}

#[test]
fn a_signal_ends_a_host_whose_pipelines_are_still_starting() {
    let folder = Folder::default();
    folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    let host = folder.run(
        r#"
        [[pipelines]]
        name = "p"
        source = { type = "stdin", format = "jsonl" }
        transforms = [{ plugin = "hostile", config = { behaviour = "endless_loop", where = "init" } }]
        sinks = [{ type = "stdout", format = "jsonl" }]
        "#,
    );
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    assert!(!ended.log.contains("does not start"), "it was not waited for: {}", ended.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_without_its_other_end_holds_up_neither_the_api_nor_a_neighbour_nor_the_end() {
    let folder = Folder::default();
    fifo(&folder.path("pipe"));
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let piped = r#"
        [[pipelines]]
        name = "piped"
        source = { type = "file", path = "pipe" }
        sinks = [{ type = "file", path = "out.jsonl" }]
        "#;
    let file = format!("token = \"t\"\n{piped}{}", relay("p", &feed.url(), "", &collector.url()));
    let host = folder.run(&file).with_token("t");
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");
    let body = |name: &str, path: &str| {
        json!({
            "name": name,
            "source": { "type": "file", "path": path },
            "sinks": [{ "type": "file", "path": format!("{name}.jsonl") }],
        })
    };
    // Made and removed through the API, while whoever made it may still wait for its start.
    std::thread::scope(|scope| {
        let made = scope.spawn(|| host.json("POST", "/api/v1/pipelines", &body("made", "pipe")));
        tokio::task::block_in_place(|| {
            host.wait_until("it is known", |now| now.text.contains("pipeline=\"made\""));
            std::fs::write(folder.path("in.jsonl"), "{}\n").unwrap();
            assert_eq!(host.json("POST", "/api/v1/pipelines", &body("other", "in.jsonl")).0, 201);
            assert_eq!(host.json("DELETE", "/api/v1/pipelines/made", &Value::Null).0, 204);
            let (status, answer) = made.join().unwrap();
            assert!(matches!(status, 201 | 409), "{status}: {answer}");
            assert_eq!(host.json("GET", "/api/v1/pipelines/made", &Value::Null).0, 404);
        });
    });
    feed.text("2").await;
    assert_eq!(collector.text().await, "2");
    let ended = tokio::task::block_in_place(|| host.stop());
    assert!(ended.status.success(), "{}", ended.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_run_runs_and_a_pipeline_whose_plugin_refuses_gets_another_chance_with_each_version() {
    let folder = Folder::default();
    folder.install("filter", &plugin("filter"));
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let refused = r#"{ plugin = "filter", config = { by = "/n", outputs = { x = "x" } } }"#;
    let config =
        relay("a", &feed.url(), "", &collector.url()) + &relay("b", &feed.url(), refused, &collector.url());
    let host = folder.run(&config);
    let error = becomes(&host, "b", "failed").await;
    assert!(error.contains("filter"), "{error}");
    let (status, ready) = json(&host, "GET", "/readyz", Value::Null).await;
    assert_eq!((status, &ready["reasons"]["b"]["error"]), (503, &json!(error)));
    assert_eq!(becomes(&host, "a", "running").await, "");
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");
    // Refused by the next version as well, and taken by the one after.
    folder.install("filter", &plugin("notional"));
    host.wait_until("the next version was tried", |_| host.log().matches("does not start").count() == 2);
    folder.install("filter", &plugin("demux"));
    becomes(&host, "b", "running").await;
    assert_eq!(host.get("/readyz").0, 200);
    assert!(tokio::task::block_in_place(|| host.stop()).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_failed_while_it_ran_starts_anew_with_a_new_version_of_its_plugin() {
    let folder = Folder::default();
    folder.install("filter", &plugin("filter"));
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let stops =
        r#"{ plugin = "filter", on_error = "stop", config = { where = [{ field = "/n", op = "exists" }] } }"#;
    let host = folder.run(&relay("p", &feed.url(), stops, &collector.url()));
    feed.text("not JSON").await;
    becomes(&host, "p", "failed").await;
    folder.install_another_version("filter", &plugin("filter"));
    becomes(&host, "p", "running").await;
    feed.text("{\"n\":1}").await;
    assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));
    assert_eq!(collector.text().await, "{\"n\":1}");
    assert!(tokio::task::block_in_place(|| host.stop()).status.success());
}

#[test]
fn a_plugin_that_comes_later_and_refuses_does_not_end_the_host() {
    let folder = Folder::default();
    let host = run(&folder, &serve(r#"{ plugin = "late", config = { by = "/n", outputs = { x = "x" } } }"#));
    host.says("pipeline waits for its plugins");
    folder.install("late", &plugin("filter"));
    host.says("pipeline does not start");
    folder.install("late", &plugin("demux"));
    host.says("pipeline running");
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
}

#[test]
fn nothing_is_opened_or_cut_off_where_no_pipeline_can_start() {
    let folder = Folder::default();
    folder.install("filter", &plugin("filter"));
    std::fs::write(folder.path("in.jsonl"), "{}\n").unwrap();
    let pipeline = |name: &str| {
        std::fs::write(folder.path(&format!("{name}.jsonl")), "kept\n").unwrap();
        format!(
            r#"
            [[pipelines]]
            name = "{name}"
            source = {{ type = "file", path = "in.jsonl" }}
            transforms = [{{ plugin = "filter" }}, {{ plugin = "filter", name = "other", config = {{ where = 7 }} }}]
            sinks = [{{ type = "file", path = "{name}.jsonl", append = false }}]
            "#
        )
    };
    let ended = run(&folder, &(pipeline("a") + &pipeline("b"))).wait();
    assert_eq!(ended.status.code(), Some(78), "{}", ended.log);
    for name in ["a", "b"] {
        let text = format!("pipeline {name}, transform other");
        assert!(ended.log.contains(&text), "{}", ended.log);
        assert_eq!(std::fs::read_to_string(folder.path(&format!("{name}.jsonl"))).unwrap(), "kept\n");
    }
}

#[test]
fn a_configuration_that_asks_for_what_cannot_be_ends_with_78_and_an_address_in_use_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let pipeline = |source: &str, sink: &str| {
        format!("[[pipelines]]\nname = \"p\"\nsource = {{ {source} }}\nsinks = [{{ {sink} }}]\n")
    };
    let (file, out) = ("type = \"file\", path = \"in.jsonl\"", "type = \"file\", path = \"out.jsonl\"");
    // An address for documentation, which no machine has.
    let (nobodys, server) = ("host = \"192.0.2.1\"", "type = \"websocket\", mode = \"server\"");
    let configurations = [
        (78, pipeline("type = \"file\", path = \"missing.jsonl\"", out)),
        (78, pipeline(file, "type = \"file\", path = \"no/such/folder/out.jsonl\"")),
        (78, pipeline(file, "type = \"file\", path = \"plugins\"")),
        (78, pipeline(&format!("{server}, {nobodys}"), out)),
        (78, pipeline(&format!("{server}, host = \"nobody.invalid\""), out)),
        (78, pipeline(file, &format!("{server}, host = \"nobody.invalid\""))),
        (78, format!("server = {{ host = \"nobody.invalid\" }}\n{}", pipeline(server, out))),
        (78, pipeline(&format!("{server}, host = \"fe80::1\""), out)),
        (78, pipeline("type = \"file\", path = \"circle.jsonl\"", out)),
        (78, pipeline(&format!("{server}, tls = {{ cert = \"in.jsonl\", key = \"in.jsonl\" }}"), out)),
        (78, format!("plugins = {{ dir = \"in.jsonl\" }}\n{}", pipeline(file, out))),
        (78, format!("plugins = {{ cache = \"in.jsonl\" }}\n{}", pipeline(file, out))),
        (78, format!("admin = {{ listen = \"192.0.2.1:0\", token = \"t\" }}\n{}", pipeline(file, out))),
        (1, pipeline(&format!("{server}, port = {}", taken.port()), out)),
        (1, format!("admin = {{ listen = \"{taken}\" }}\n{}", pipeline(file, out))),
        (0, pipeline(file, out)),
    ];
    for (code, config) in configurations {
        let folder = Folder::default();
        std::fs::write(folder.path("in.jsonl"), "{}\n").unwrap();
        std::os::unix::fs::symlink("circle.jsonl", folder.path("circle.jsonl")).unwrap();
        let ended = run(&folder, &config).wait();
        assert_eq!(ended.status.code(), Some(code), "{config}\n{}", ended.log);
    }
}

#[test]
fn one_end_that_cannot_be_opened_is_the_failure_of_its_pipeline_alone() {
    let folder = Folder::default();
    std::fs::write(folder.path("in.jsonl"), "{}\n").unwrap();
    let pipeline = |name: &str, path: &str| {
        format!(
            r#"
            [[pipelines]]
            name = "{name}"
            source = {{ type = "file", path = "{path}" }}
            sinks = [{{ type = "file", path = "{name}.jsonl", append = false }}]
            "#
        )
    };
    std::fs::write(folder.path("a.jsonl"), "kept\n").unwrap();
    std::fs::write(folder.path("b.jsonl"), "written anew\n").unwrap();
    let ended = run(&folder, &(pipeline("a", "missing.jsonl") + &pipeline("b", "in.jsonl"))).wait();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert_eq!(std::fs::read_to_string(folder.path("a.jsonl")).unwrap(), "kept\n", "it was not started");
    assert_eq!(std::fs::read_to_string(folder.path("b.jsonl")).unwrap(), "{}\n");
    assert!(ended.log.contains("missing.jsonl"), "{}", ended.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_ready_only_once_the_endpoint_of_its_last_pipeline_is_open() {
    const PIPELINES: usize = 60;
    let folder = Folder::default();
    folder.install("forward", &plugin("forward"));
    let pipelines = (0..PIPELINES).map(|n| {
        format!(
            r#"
            [[pipelines]]
            name = "p{n}"
            source = {{ type = "websocket", mode = "server", path = "/in{n}" }}
            transforms = [{{ plugin = "forward" }}]
            sinks = [{{ type = "websocket", mode = "server", path = "/out{n}" }}]
            "#
        )
    });
    let host = folder.run(&format!("[server]\nport = 0\n{}", pipelines.collect::<String>()));
    loop {
        let (status, answer) = host.get("/readyz");
        if status == 200 {
            break;
        }
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["reasons"].as_object().is_some_and(|reasons| !reasons.is_empty()), "{answer}");
    }
    let address = host.listening("websocket");
    for n in (0..PIPELINES).rev() {
        drop(dial(address, &format!("/in{n}")).await);
    }
    assert!(tokio::task::block_in_place(|| host.stop()).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_one_of_whose_plugins_fails_again_and_again_is_ready_and_says_so() {
    let folder = Folder::default();
    folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    let (feed, collector) = (Feed::open().await, Collector::open().await);
    let panics = r#"{ plugin = "hostile", on_error = "drop", config = { behaviour = "panic" } }"#;
    let host = folder.run(&relay("p", &feed.url(), panics, &collector.url()));
    for _ in 0..64 {
        feed.text("poison").await;
    }
    tokio::task::block_in_place(|| {
        host.wait_until("its messages wait", |_| {
            let (status, ready) = host.json("GET", "/readyz", &Value::Null);
            let why = ready["degraded"]["p"].as_str().unwrap_or_default();
            assert!(why.is_empty() || (status == 200 && why.contains("transform hostile")), "{ready}");
            !why.is_empty()
        });
        let (_, shown) = host.json("GET", "/api/v1/pipelines", &Value::Null);
        let shown = &shown["pipelines"][0];
        assert_eq!(shown["state"], "running");
        assert!(shown["degraded"].as_str().unwrap().contains("transform hostile"), "{shown}");
        assert_eq!(shown["counters"]["transforms"]["hostile"]["paused"], true, "{shown}");
        let faults = |now: &Counted| now.count("tidemill_plugin_faults_total", &["kind=\"trap\""]);
        let before = faults(&host.metrics());
        let now = host.wait_until("two are tried alone", |now| faults(now) >= before + 2);
        assert_eq!(now.count("tidemill_plugin_paused", &["pipeline=\"p\"", "transform=\"hostile\""]), 1);
        let told = host.log().matches("the plugin fails again and again").count();
        assert_eq!(told, 1, "it is told once: {}", host.log());
    });
}

#[test]
fn rejected_content_is_tried_again_when_its_file_is_touched_and_counts_where_a_pipeline_uses_it() {
    let folder = Folder::default();
    std::fs::write(folder.path("used.wasm"), "no component").unwrap();
    folder.install("used", &folder.path("used.wasm"));
    folder.install("unused", &folder.path("used.wasm"));
    let host = folder.run(&serve(r#"{ plugin = "used" }"#));
    let rejected = |plugin: &str| format!("\"plugin\":\"{plugin}\"");
    let times = |plugin: &str| {
        let lines = host.log();
        lines
            .lines()
            .filter(|line| line.contains("plugin rejected") && line.contains(&rejected(plugin)))
            .count()
    };
    host.wait_until("both are rejected", |_| times("used") == 1 && times("unused") == 1);
    let touched = std::fs::File::open(folder.path("plugins/used.wasm")).unwrap();
    touched.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    let metrics = host.wait_until("it is tried again", |now| {
        now.count("tidemill_plugin_swaps_total", &["plugin=\"used\"", "outcome=\"rejected\""]) == 2
    });
    assert_eq!(metrics.count("tidemill_plugin_swaps_total", &["plugin=\"unused\""]), 0);
    assert!(host.stop().status.success());
}
