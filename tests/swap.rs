//! A plugin is exchanged again and again under full load: every message comes out exactly once, in
//! order, the count that the plugin keeps is carried from version to version, and memory stays flat.
//! Then swaps that meet pipelines which are stuck or about to end.
//!
//! `TIDEMILL_SWAPS` and `TIDEMILL_INSTANCES` in the environment say how many, by hand: 10,000 and 1,000.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_tests::host::Folder;
use tidemill_tests::peers::{Collector, Feed, Received};
use tidemill_tests::pipelines::relay;
use tidemill_tests::{guest, plugin};

/// Swaps in CI.
const SWAPS: u64 = 300;
/// Instances of one plugin in CI.
const INSTANCES: u64 = 40;
/// Of the swaps, the share after which memory is taken to have found its size.
const WARM_UP: u64 = 3;
/// What memory may grow by after that, whatever the number of swaps: less than the instances of a hundred.
const MAX_GROWTH_BYTES: u64 = 24 << 20;

/// A number from the environment, or the one for CI.
fn number(name: &str, in_ci: u64) -> u64 {
    std::env::var(name).map_or(in_ci, |text| text.parse().expect("a number"))
}

/// What the collector found in what came out.
#[derive(Debug, Default)]
struct Seen {
    messages: u64,
    changes_of_version: u64,
    first_wrong: Option<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_under_load_lose_double_and_move_nothing_and_memory_stays_flat() {
    let swaps = number("TIDEMILL_SWAPS", SWAPS);
    let versions = ["counter-v1", "counter-v2"].map(|name| guest(name).expect("guests in Rust are built"));
    let folder = Folder::default();
    folder.install("counter", &versions[0]);
    let feed = Feed::open().await;
    let mut collector = Collector::open().await;
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "{}" }}
        transforms = [{{ plugin = "counter" }}]
        sinks = [{{ type = "websocket", url = "{}" }}]
        "#,
        feed.url(),
        collector.url(),
    ));
    let is_over = Arc::new(AtomicBool::new(false));
    let feeding = tokio::spawn({
        let is_over = is_over.clone();
        async move {
            let mut sent = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                feed.text(sent.to_string()).await;
                sent += 1;
            }
            (feed, sent)
        }
    });
    let collecting = tokio::spawn(async move {
        let mut seen = Seen::default();
        let mut version = "v1".to_owned();
        while let Some(Received::Text(text)) = collector.received.recv().await {
            let mut words = text.split(' ');
            let (of, count, message) = (words.next(), words.next(), words.next());
            let right = count.and_then(|count| count.parse().ok()) == Some(seen.messages + 1)
                && message.and_then(|message| message.parse().ok()) == Some(seen.messages);
            if !right && seen.first_wrong.is_none() {
                seen.first_wrong = Some(format!("after {} messages: {text}", seen.messages));
            }
            if of != Some(&version) {
                seen.changes_of_version += 1;
                version = of.unwrap_or_default().to_owned();
            }
            seen.messages += 1;
        }
        seen
    });
    let (host, metrics, warm_bytes) = tokio::task::spawn_blocking(move || {
        host.wait_until("messages flow", |now| now.count("tidemill_messages_delivered_total", &[]) > 1000);
        let mut warm_bytes = 0;
        for swap in 1..=swaps {
            if swap == swaps.div_ceil(WARM_UP) {
                warm_bytes = host.resident_bytes();
            }
            folder.install("counter", &versions[(swap % 2) as usize]);
            host.wait_until(&format!("swap {swap}"), |now| {
                now.count("tidemill_plugin_swaps_total", &["outcome=\"swapped\""]) == swap
            });
        }
        let metrics = host.metrics();
        (host, metrics, warm_bytes)
    })
    .await
    .unwrap();
    is_over.store(true, Ordering::Relaxed);
    let (feed, sent) = feeding.await.unwrap();
    let (last_bytes, ended) = tokio::task::spawn_blocking(move || {
        host.wait_until("all is delivered", |now| {
            now.count("tidemill_messages_delivered_total", &["sink=\"sink0\""]) == sent
        });
        (host.resident_bytes(), host.stop())
    })
    .await
    .unwrap();
    drop(feed);
    assert!(ended.status.success(), "{}", ended.log);
    let seen = collecting.await.unwrap();
    assert_eq!((seen.first_wrong, seen.messages), (None, sent));
    // Versions may change faster than messages come; nearly every swap is seen in the output.
    assert!(seen.changes_of_version > swaps / 2, "{} of {swaps}", seen.changes_of_version);
    assert_eq!(metrics.count("tidemill_plugin_swaps_total", &["outcome=\"rejected\""]), 0);
    report_pauses(&metrics.text, sent, swaps, (warm_bytes, last_bytes));
    assert!(last_bytes < warm_bytes + MAX_GROWTH_BYTES, "{warm_bytes} bytes became {last_bytes}");
}

/// The pauses are a figure to read, not a limit to pass: machines that run tests are busy.
#[expect(clippy::print_stdout, reason = "figures for whoever asks for the output")]
fn report_pauses(metrics: &str, messages: u64, swaps: u64, (warm, last): (u64, u64)) {
    let buckets = metrics.lines().filter(|line| line.starts_with("tidemill_plugin_swap_duration_seconds"));
    for line in buckets {
        println!("{line}");
    }
    println!(
        "{messages} messages, {swaps} swaps; {warm} bytes resident after a third of them, {last} at the end"
    );
}

/// A pipeline from a feed through the plugin `x` to a collector.
fn through_x(name: &str, feed: &Feed, collector: &Collector, config: &str) -> String {
    relay(name, &feed.url(), &format!("{{ plugin = \"x\", {config} }}"), &collector.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_plugin_is_stuck_holds_up_neither_the_swap_of_another_nor_the_api() {
    let folder = Folder::default();
    let hostile = guest("hostile").expect("guests in Rust are built");
    folder.install("x", &hostile);
    let stuck = (Feed::open().await, Collector::open().await);
    let mut healthy = (Feed::open().await, Collector::open().await);
    // It would be stuck for longer than anyone here waits.
    let spins = r#"config = { behaviour = "endless_loop" }, limits = { deadline = "10m" }"#;
    let config = through_x("stuck", &stuck.0, &stuck.1, spins)
        + &through_x(
            "healthy",
            &healthy.0,
            &healthy.1,
            r#"config = { behaviour = "panic", where = "finish" }"#,
        );
    let host = folder.run(&config);
    healthy.0.text("1").await;
    assert_eq!(healthy.1.text().await, "1");
    stuck.0.text("poison").await;
    tokio::task::block_in_place(|| {
        host.wait_until("it is stuck", |now| {
            now.count("tidemill_messages_received_total", &["pipeline=\"stuck\""]) == 1
        });
        folder.install_another_version("x", &hostile);
        host.wait_until("the other one has swapped", |now| {
            let labels = ["pipeline=\"healthy\""];
            now.count("tidemill_plugin_swap_duration_seconds_count", &labels) == 1
        });
        let (status, answer) = host.get("/api/v1/pipelines");
        assert!(status == 200 && answer.contains("\"stuck\""), "{answer}");
    });
    healthy.0.text("2").await;
    assert_eq!(healthy.1.text().await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_about_to_end_refuses_no_version() {
    let folder = Folder::default();
    let versions = ["counter-v1", "counter-v2"].map(|name| guest(name).expect("guests in Rust are built"));
    folder.install("x", &versions[0]);
    std::fs::write(folder.path("in.jsonl"), "1\n").unwrap();
    // Its source has ended, and its sink is away: it drains for as long as anyone here waits.
    let host = folder.run(
        r#"
        [[pipelines]]
        name = "ending"
        source = { type = "file", path = "in.jsonl" }
        transforms = [{ plugin = "x" }]
        sinks = [{ type = "websocket", url = "ws://127.0.0.1:1" }]
        "#,
    );
    let swaps = |now: &tidemill_tests::host::Counted, outcome: &str| {
        now.count("tidemill_plugin_swaps_total", &[&format!("outcome=\"{outcome}\"")])
    };
    tokio::task::block_in_place(|| {
        host.wait_until("it drains", |now| {
            now.count("tidemill_messages_in_flight", &["pipeline=\"ending\"", "stage=\"sink0\""]) == 1
        });
        folder.install("x", &versions[1]);
        let metrics =
            host.wait_until("it is decided", |now| swaps(now, "swapped") + swaps(now, "rejected") > 0);
        assert_eq!((swaps(&metrics, "swapped"), swaps(&metrics, "rejected")), (1, 0), "{}", host.log());
    });
    // What starts now starts with the version that came.
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let late = serde_json::json!({
        "name": "late",
        "source": { "type": "websocket", "url": feed.url() },
        "transforms": [{ "plugin": "x" }],
        "sinks": [{ "type": "websocket", "url": collector.url() }],
    });
    assert_eq!(tokio::task::block_in_place(|| host.json("POST", "/api/v1/pipelines", &late)).0, 201);
    feed.text("2").await;
    assert_eq!(collector.text().await, "v2 1 2");
}

#[test]
fn a_use_that_refuses_a_version_is_told_apart_and_is_offered_it_again_when_the_file_is_touched() {
    let folder = Folder::default();
    let hostile = guest("hostile").expect("guests in Rust are built");
    folder.install("x", &hostile);
    let pipeline = |name: &str, place: &str| {
        format!(
            r#"
            [[pipelines]]
            name = "{name}"
            source = {{ type = "websocket", mode = "server", path = "/{name}/in" }}
            transforms = [{{ plugin = "x", config = {{ behaviour = "panic", where = "{place}" }} }}]
            sinks = [{{ type = "websocket", mode = "server", path = "/{name}/out" }}]
            "#
        )
    };
    let config = pipeline("refuses", "restore") + &pipeline("takes", "process");
    let host = folder.run(&format!("[server]\nport = 0\n{config}"));
    host.wait_until("both run", |now| now.count("tidemill_pipelines", &["state=\"running\""]) == 2);
    let lines = |message: &str, pipeline: &str| {
        let log = host.log();
        let pipeline = format!("\"pipeline\":\"{pipeline}\"");
        log.lines().filter(|line| line.contains(message) && line.contains(&pipeline)).count()
    };
    let (kept, taken) = ("plugin not swapped here", "plugin swapped");
    folder.install_another_version("x", &hostile);
    host.wait_until("it is decided", |_| lines(kept, "refuses") == 1 && lines(taken, "takes") == 1);
    std::fs::File::open(folder.path("plugins/x.wasm"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let metrics = host.wait_until("it is offered again, and nobody takes it", |now| {
        now.count("tidemill_plugin_swaps_total", &["outcome=\"rejected\""]) == 1
    });
    // The log has a thread of its own, and is a moment behind the metrics.
    // The guest's own words come first, where they were heard.
    let is_said = |line: &str| line.contains("pipeline refuses, transform x: ") && line.contains("restore: ");
    host.wait_until("it is said", |_| host.log().lines().any(is_said));
    assert_eq!(lines(taken, "takes"), 1, "it runs it already");
    assert_eq!(lines(taken, "refuses"), 0);
    assert_eq!(metrics.count("tidemill_plugin_swaps_total", &["outcome=\"swapped\""]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_a_stopped_pipeline_could_not_be_started_with_is_rejected_and_the_one_before_starts() {
    let folder = Folder::default();
    folder.install("x", &plugin("filter"));
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let config = r#"config = { where = [{ field = "/n", op = "exists" }] }"#;
    // Neither plugin takes it.
    let broken = r#"config = { no_such_key = 1 }"#;
    let other = (Feed::open().await, Collector::open().await);
    let host = folder
        .run(&(through_x("p", &feed, &collector, config) + &through_x("fails", &other.0, &other.1, broken)));
    let swaps = |outcome: &str, count: u64| {
        host.wait_until(&format!("{outcome} {count}"), |now| {
            now.count("tidemill_plugin_swaps_total", &[&format!("outcome=\"{outcome}\"")]) == count
        });
    };
    let tell = |what: &str| {
        assert_eq!(
            host.json("POST", &format!("/api/v1/pipelines/p/{what}"), &serde_json::Value::Null).0,
            200
        );
    };
    feed.text("{\"n\":1}").await;
    assert_eq!(collector.text().await, "{\"n\":1}");
    tokio::task::block_in_place(|| {
        host.becomes("fails", "failed");
        tell("stop");
        // It takes other keys, and refuses those of the pipeline that is down.
        folder.install("x", &plugin("notional"));
        swaps("rejected", 1);
        let is_said =
            |line: &str| line.contains("plugin rejected") && line.contains("pipeline p, transform x: ");
        host.wait_until("it is said", |_| host.log().lines().any(is_said));
        tell("start");
        host.becomes("p", "running");
    });
    assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));
    feed.text("{\"n\":2}").await;
    assert_eq!(collector.text().await, "{\"n\":2}");
    tokio::task::block_in_place(|| {
        tell("stop");
        // A good one is taken, though a pipeline that has failed with both does not start with it either.
        folder.install_another_version("x", &plugin("filter"));
        swaps("swapped", 1);
        tell("start");
        host.becomes("p", "running");
    });
    assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));
    feed.text("{\"n\":3}").await;
    assert_eq!(collector.text().await, "{\"n\":3}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_each_of_many_instances_is_told() {
    let instances = number("TIDEMILL_INSTANCES", INSTANCES);
    let folder = Folder::default();
    folder.install("x", &guest("counter-v1").expect("guests in Rust are built"));
    let pipelines = (0..instances).map(|n| {
        format!(
            r#"
            [[pipelines]]
            name = "p{n}"
            source = {{ type = "websocket", mode = "server", path = "/in{n}" }}
            transforms = [{{ plugin = "x" }}]
            sinks = [{{ type = "websocket", mode = "server", path = "/out{n}" }}]
            "#
        )
    });
    let host = folder.run(&format!("[server]\nport = 0\n{}", pipelines.collect::<String>()));
    tokio::task::block_in_place(|| {
        let metrics = host.wait_until("all of them run", |now| {
            now.count("tidemill_pipelines", &["state=\"running\""]) == instances
        });
        for n in 0..instances {
            let of_one = metrics.count("tidemill_plugin_memory_bytes", &[&format!("pipeline=\"p{n}\"")]);
            assert!(of_one >= 64 << 10, "p{n} has {of_one} bytes");
        }
        report_memory(instances, host.resident_bytes());
        assert!(host.stop().status.success());
    });
}

#[expect(clippy::print_stdout, reason = "figures for whoever asks for the output")]
fn report_memory(instances: u64, resident_bytes: u64) {
    println!("{instances} instances; {resident_bytes} bytes resident in all");
}
