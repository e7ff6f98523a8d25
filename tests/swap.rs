//! A plugin is exchanged a thousand times under full load: every message comes out exactly once, in
//! order, and the count that the plugin keeps is carried from version to version.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_tests::guest;
use tidemill_tests::host::Folder;
use tidemill_tests::peers::{Collector, Feed, Received};

const SWAPS: u64 = 1000;

/// What the collector found in what came out.
#[derive(Debug, Default)]
struct Seen {
    messages: u64,
    changes_of_version: u64,
    first_wrong: Option<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_swaps_under_load_lose_double_and_move_nothing() {
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
    let (host, metrics) = tokio::task::spawn_blocking(move || {
        host.wait_until("messages flow", |now| now.count("tidemill_messages_delivered_total", &[]) > 1000);
        for swap in 1..=SWAPS {
            folder.install("counter", &versions[(swap % 2) as usize]);
            host.wait_until(&format!("swap {swap}"), |now| {
                now.count("tidemill_plugin_swaps_total", &["outcome=\"swapped\""]) == swap
            });
        }
        let metrics = host.metrics();
        (host, metrics)
    })
    .await
    .unwrap();
    is_over.store(true, Ordering::Relaxed);
    let (feed, sent) = feeding.await.unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        host.wait_until("all is delivered", |now| {
            now.count("tidemill_messages_delivered_total", &["sink=\"sink0\""]) == sent
        });
        host.stop()
    })
    .await
    .unwrap();
    drop(feed);
    assert!(ended.status.success(), "{}", ended.log);
    let seen = collecting.await.unwrap();
    assert_eq!((seen.first_wrong, seen.messages), (None, sent));
    // Versions may change faster than messages come; nearly every swap is seen in the output.
    assert!(seen.changes_of_version > SWAPS / 2, "{} of {SWAPS}", seen.changes_of_version);
    assert_eq!(metrics.count("tidemill_plugin_swaps_total", &["outcome=\"rejected\""]), 0);
    report_pauses(&metrics.text, sent);
}

/// The pauses are a figure to read, not a limit to pass: machines that run tests are busy.
#[expect(clippy::print_stdout, reason = "figures for whoever asks for the output")]
fn report_pauses(metrics: &str, messages: u64) {
    let buckets = metrics.lines().filter(|line| line.starts_with("tidemill_plugin_swap_duration_seconds"));
    for line in buckets {
        println!("{line}");
    }
    println!("{messages} messages, {SWAPS} swaps");
}
