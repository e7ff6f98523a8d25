//! What a hostile plugin in one pipeline costs the pipeline beside it, at 5,000 messages a second: no
//! message, and little time. The figures are printed; what is asserted allows for a machine that does
//! other things too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};
use tidemill_tests::host::{Folder, Host, PATIENCE};
use tidemill_tests::peers::{Collector, Feed, Received};
use tidemill_tests::{guest, plugin};
use tokio::task::JoinHandle;

/// Between two messages of the neighbour: 5,000 a second.
const INTERVAL: Duration = Duration::from_micros(200);
/// Messages of a measurement: three seconds.
const MESSAGES: u64 = 15_000;
/// Between two messages of the hostile pipeline. Each second one is harmless, so that no circuit opens.
const HOSTILE_INTERVAL: Duration = Duration::from_millis(2);
/// What any percentile may be on a busy machine, whatever it was before.
const FLOOR: Duration = Duration::from_millis(50);
/// A busy machine makes figures worse, never better.
const ATTEMPTS: usize = 3;

/// What is hostile, and the plugin and the message that make it so.
const HOSTILITIES: [(&str, &str, &str); 8] = [
    ("an endless loop", "steered", "spin"),
    ("a trap at every message", "steered", "trap"),
    ("a flood of emissions", "steered", "many"),
    ("a flood of output", "steered", "flood"),
    ("a flood of lines", "steered", "lines"),
    ("a flood of metrics", "steered", "changes"),
    ("a memory hog", "steered", "hog"),
    ("a sleeper", "sleeper", "sleep"),
];

struct Scene {
    host: Host,
    hostile: Feed,
    feed: Feed,
    collector: Collector,
    sent: u64,
    began: Instant,
}

impl Scene {
    async fn start(folder: &Folder, name: &str) -> Self {
        folder.install(name, &guest(name).expect("guests in Rust are built"));
        folder.install("forward", &plugin("forward"));
        let config = if name == "steered" { "{ word = 1 }" } else { "{ where = \"process\" }" };
        let (hostile, feed, collector) = (Feed::open().await, Feed::open().await, Collector::open().await);
        let host = folder.run(&format!(
            r#"
            [[pipelines]]
            name = "hostile"
            source = {{ type = "websocket", url = "{}" }}
            transforms = [{{ plugin = "{name}", config = {config} }}]
            sinks = [{{ type = "file", path = "/dev/null", format = "jsonl" }}]

            [[pipelines]]
            name = "neighbour"
            source = {{ type = "websocket", url = "{}" }}
            transforms = [{{ plugin = "forward" }}]
            sinks = [{{ type = "websocket", url = "{}" }}]
            "#,
            hostile.url(),
            feed.url(),
            collector.url(),
        ));
        let mut scene = Self { host, hostile, feed, collector, sent: 0, began: Instant::now() };
        // Plugins are compiled and ends are dialled before anything is measured.
        scene.feed.text("first").await;
        scene.collector.text().await;
        scene.host.wait_until("both pipelines run", |now| {
            now.count("tidemill_pipelines", &["state=\"running\""]) == 2
        });
        scene
    }

    /// Sends at the rate, and gives the 99th percentile of what each message took. Panics if one is
    /// missing or out of order.
    async fn measure(&mut self) -> Duration {
        let (first, began) = (self.sent, self.began);
        self.sent += MESSAGES;
        let start = Instant::now();
        let feed = &self.feed;
        let feeding = async {
            let mut sent = 0;
            while sent < MESSAGES {
                let due = (start.elapsed().as_nanos() / INTERVAL.as_nanos()) as u64;
                while sent < due.min(MESSAGES) {
                    feed.text(format!("{} {}", first + sent, began.elapsed().as_nanos())).await;
                    sent += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let received = &mut self.collector.received;
        let collecting = async {
            let mut took = Vec::new();
            for expected in first..first + MESSAGES {
                let next = tokio::time::timeout(PATIENCE, received.recv()).await;
                let Ok(Some(Received::Text(text))) = next else { panic!("no message: {next:?}") };
                let (number, sent_ns) = text.split_once(' ').unwrap();
                assert_eq!(number, expected.to_string());
                took.push(began.elapsed() - Duration::from_nanos(sent_ns.parse().unwrap()));
            }
            took
        };
        let ((), mut took) = tokio::join!(feeding, collecting);
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }
}

/// Sends hostile messages until it is aborted.
fn feed_hostile(feed: Feed, word: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        for n in 0_u64.. {
            feed.text(format!("{n} {}", if n % 2 == 0 { word } else { "pass" })).await;
            tokio::time::sleep(HOSTILE_INTERVAL).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_plugin_costs_its_neighbour_no_message_and_little_time() {
    for (what, name, word) in HOSTILITIES {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let folder = Folder::default();
            let mut scene = Scene::start(&folder, name).await;
            let alone = scene.measure().await;
            let (unused, address) = (Feed::open().await, scene.hostile.address);
            let hostile = feed_hostile(std::mem::replace(&mut scene.hostile, unused), word);
            scene.host.wait_until(&format!("{what} at {address}"), |now| {
                now.count("tidemill_stage_messages_in_total", &["transform=\"steered\""])
                    + now.count("tidemill_stage_messages_in_total", &["transform=\"sleeper\""])
                    > 0
            });
            let beside = scene.measure().await;
            hostile.abort();
            println!("{what}: p99 {alone:.2?} alone, {beside:.2?} beside it");
            let metrics = scene.host.metrics();
            let neighbour = ["pipeline=\"neighbour\""];
            assert_eq!(metrics.count("tidemill_messages_received_total", &neighbour), 2 * MESSAGES + 1);
            assert_eq!(metrics.count("tidemill_messages_dropped_total", &neighbour), 0);
            assert_eq!(metrics.count("tidemill_plugin_faults_total", &neighbour), 0);
            if beside <= alone * 2 + FLOOR {
                break;
            }
            assert!(attempts < ATTEMPTS, "{what}: p99 {alone:?} alone, {beside:?} beside it");
        }
    }
}
