//! Versions of plugins: each attempt to have one run has a verdict that says what became of it and where, whoever
//! asked for it.
//!
//! A verdict is compared as a whole: what varies from run to run, times and durations, is taken out of it first.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "versions/api.rs"]
mod api;
#[path = "versions/commands.rs"]
mod commands;
#[path = "versions/folder.rs"]
mod folder;

use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tidemill_tests::host::{Counted, Folder, Host};
use tidemill_tests::peers::{Collector, Feed};
use tidemill_tests::pipelines::relay;
use tidemill_tests::{guest, plugin};

/// The content of a guest.
fn content(name: &str) -> Vec<u8> {
    std::fs::read(guest(name).expect("guests in Rust are built")).unwrap()
}

/// The content of a shipped plugin.
fn shipped(name: &str) -> Vec<u8> {
    std::fs::read(plugin(name)).unwrap()
}

/// Content that does what other content does and has another digest, a different one for each number.
fn another(content: &[u8], number: u8) -> Vec<u8> {
    // A custom section, three bytes long: a name of one, and what tells it from others.
    [content, &[0, 3, 1, b'x', number]].concat()
}

/// The version of some content.
fn version(content: &[u8]) -> String {
    tidemill::plugin::version_of(content)
}

/// A pipeline from a feed to a collector through one plugin, in a host of its own.
struct Scene {
    folder: Folder,
    feed: Feed,
    collector: Collector,
}

impl Scene {
    async fn new() -> Self {
        Self { folder: Folder::default(), feed: Feed::open().await, collector: Collector::open().await }
    }

    /// A pipeline through the plugin `x`, with more keys of its transform.
    fn pipeline(&self, keys: &str) -> String {
        relay("p", &self.feed.url(), &format!("{{ plugin = \"x\", {keys} }}"), &self.collector.url())
    }

    fn run(&self, keys: &str) -> Host {
        blocking(|| self.folder.run(&self.pipeline(keys)))
    }

    /// Runs a host whose plugin panics at each message, beside a pipeline that does not run. That one is tried out with
    /// each version, too, and takes its time to fail with any: meanwhile nothing is decided.
    fn run_beside_slow(&self, hostile: &[u8]) -> Host {
        self.folder.put("x", hostile);
        let slow = self.pipeline(r#"config = { behaviour = "endless_loop", where = "init" }"#);
        let config = self.pipeline(r#"config = { behaviour = "panic", where = "process" }"#)
            + &slow.replace("\"p\"", "\"slow\"");
        let host = self.folder.run(&config);
        host.becomes("slow", "failed");
        assert_eq!(host.json("POST", "/api/v1/pipelines/slow/stop", &Value::Null).0, 200);
        host
    }

    /// Sends a message, and compares what comes out.
    async fn passes(&mut self, text: &str, expected: &str) {
        self.feed.text(text).await;
        assert_eq!(self.collector.text().await, expected);
    }
}

/// Does something that waits, without holding up the peers, which run in this test's own task.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// All verdicts of a host, the newest first, as they are.
fn verdicts(host: &Host) -> Vec<Value> {
    let (status, answer) = host.json("GET", "/api/v1/swaps", &Value::Null);
    assert_eq!(status, 200, "{answer}");
    answer["swaps"].as_array().unwrap().clone()
}

/// Waits until there are so many verdicts, and gives them without what varies, the newest first.
fn decided(host: &Host, count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    host.wait_until(&format!("{count} verdicts"), |_| {
        all = verdicts(host);
        all.len() >= count
    });
    assert_eq!(all.len(), count, "{all:#?}\n{}", host.log());
    all.into_iter().map(steady).collect()
}

/// A verdict without its times and durations, which are looked at here.
fn steady(mut verdict: Value) -> Value {
    let members = verdict.as_object_mut().unwrap();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut ms = |key: &str| members.remove(key).unwrap_or_else(|| panic!("no {key}"));
    let (started, decided) = (ms("started").as_u64().unwrap(), ms("decided").as_u64().unwrap());
    assert!(now_ms - 600_000 < started && started <= decided && decided <= now_ms, "{started} {decided}");
    let compile_ms = ms("compile_ms");
    assert!(compile_ms.is_u64() || compile_ms.is_null() && members["outcome"] != "swapped", "{compile_ms}");
    for each in members["uses"].as_array_mut().unwrap() {
        let swap_us = each.as_object_mut().unwrap().remove("swap_us").unwrap();
        let has_swapped = !each["state"].is_null() && each["transform"].is_string();
        assert!(swap_us.is_u64() || swap_us.is_null() && !has_swapped, "{each}");
    }
    verdict
}

/// A use of the plugin `x` in the pipeline `p` that has swapped.
fn swapped(state: &str) -> Value {
    json!({ "pipeline": "p", "transform": "x", "outcome": "swapped", "state": state, "error": null })
}

/// A use of the plugin `x` in the pipeline `p` that runs on with the version before.
fn rejected(error: Option<&str>) -> Value {
    json!({ "pipeline": "p", "transform": "x", "outcome": "rejected", "state": null, "error": error })
}
