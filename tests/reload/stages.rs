//! Transforms that change while messages go through them.
//!
//! The plugin here answers `{"k":KEY,"n":NUMBER}` with `KEY NUMBER COUNT INSTANCE`, the count being that of the key: a
//! message that is lost or comes twice, and state that is, are seen in what comes after.

use crate::site::{Site, class, relay};
use serde_json::json;
use std::collections::BTreeMap;
use tidemill_tests::guest;
use tidemill_tests::peers::{Collector, Feed};

fn tally() -> Site {
    let site = Site::default();
    site.folder.install("tally", &guest("tally").expect("guests in Rust are built"));
    site.install("forward", "forward");
    site
}

/// The keys that messages have.
const KEYS: u64 = 5;

/// Sends messages and checks what comes of them, in whatever order those of different keys come.
#[derive(Default)]
struct Flow {
    sent: u64,
    counts: BTreeMap<String, u64>,
    instances: BTreeMap<String, String>,
}

impl Flow {
    async fn send(&mut self, feed: &Feed, messages: u64) {
        for n in self.sent..self.sent + messages {
            feed.text(format!(r#"{{"k":"k{}","n":{n}}}"#, n % KEYS)).await;
        }
        self.sent += messages;
    }

    /// Takes what comes until every message has come that was sent.
    async fn take(&mut self, collector: &mut Collector) {
        while self.counts.values().sum::<u64>() < self.sent {
            let text = collector.text().await;
            let [key, number, count, instance] = text.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{text}")
            };
            let known = self.counts.entry(key.to_owned()).or_default();
            *known += 1;
            assert_eq!(count.parse(), Ok(*known), "{text}: nothing was lost, and nothing came twice");
            let number: u64 = number.parse().unwrap();
            assert_eq!(number, (*known - 1) * KEYS + key[1..].parse::<u64>().unwrap(), "{text}: in order");
            self.instances.insert(key.to_owned(), instance.to_owned());
        }
    }

    async fn pass(&mut self, feed: &Feed, collector: &mut Collector, messages: u64) {
        self.send(feed, messages).await;
        self.take(collector).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_change_in_place_and_state_messages_and_connections_are_what_they_were() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (from, to) = (feed.url(), collector.url());
    let site = tally();
    let file = |keys: &str| relay("p", &from, &format!("{{ plugin = \"tally\"{keys} }}"), &to);
    let site = site.run(&file(""));
    let mut flow = Flow::default();
    flow.pass(&feed, &mut collector, 100).await;
    for (keys, reason) in [
        (", config = { work = 10 }", "transform tally: `config` changed"),
        (", config = { work = 20 }", "transform tally: `config.work` changed"),
        (", limits = { memory = \"32MiB\" }", "transform tally: `config`, `limits` changed"),
        (", on_error = \"drop\"", "transform tally: `limits`, `on_error` changed"),
        (", retries = 1, max_batch = 7, max_batch_bytes = \"1KiB\"", ""),
        (", tick = \"1h\"", ""),
        (", key = \"/k\"", ""),
        (", allow = [\"https://example.com\"], http = { timeout = \"1s\" }", ""),
        ("", ""),
    ] {
        // Messages are on their way while it takes over.
        flow.send(&feed, 200).await;
        let told = site.change(&file(keys)).await;
        assert_eq!(class(&told, "p"), "updated", "{keys}: {told}");
        if !reason.is_empty() {
            assert_eq!(told["pipelines"][0]["reasons"][0], reason);
        }
        flow.take(&mut collector).await;
        flow.pass(&feed, &mut collector, 50).await;
    }
    let swaps = site.get("/api/v1/swaps").await;
    let newest = &swaps["swaps"][0];
    assert_eq!((&newest["plugin"], &newest["outcome"]), (&json!("tally"), &json!("swapped")), "{swaps}");
    assert_eq!(
        (&newest["uses"][0]["state"], &newest["uses"][0]["pipeline"]),
        (&json!("carried"), &json!("p"))
    );
    let connected = site.counted("tidemill_connects_total", &["outcome=\"connected\""]).await;
    assert_eq!(connected, 2, "each end was connected once");
    assert_eq!(site.counted("tidemill_stage_messages_in_total", &["transform=\"tally\""]).await, flow.sent);
    site.until_counted("tidemill_messages_delivered_total", &["sink=\"sink0\""], flow.sent).await;
    assert_eq!(site.counted("tidemill_messages_dropped_total", &[]).await, 0);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_and_fewer_instances_share_out_state_and_messages_anew() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (from, to) = (feed.url(), collector.url());
    let site = tally();
    let file = |keys: &str| relay("p", &from, &format!("{{ plugin = \"tally\"{keys} }}"), &to);
    let site = site.run(&file(", key = \"/k\""));
    let mut flow = Flow::default();
    flow.pass(&feed, &mut collector, 100).await;
    for instances in [3, 2, 1, 4] {
        flow.send(&feed, 300).await;
        let told = site.change(&file(&format!(", key = \"/k\", instances = {instances}"))).await;
        assert_eq!(class(&told, "p"), "updated", "{told}");
        flow.take(&mut collector).await;
        flow.pass(&feed, &mut collector, 50).await;
        assert!(
            flow.instances.values().all(|instance| instance.ends_with(&format!("/{instances}"))),
            "{:?}",
            flow.instances
        );
        let shown = site.counted("tidemill_plugin_memory_bytes", &["transform=\"tally\""]).await;
        assert!(shown > 0);
        let text = tokio::task::block_in_place(|| site.host().metrics().text);
        let gauges = text.lines().filter(|line| line.starts_with("tidemill_plugin_memory_bytes{")).count();
        assert_eq!(gauges, instances, "those of instances that are gone are not shown");
    }
    // Without a key the order of all is kept, and whoever gets a message does not know what others counted.
    let told = site.change(&file("")).await;
    assert_eq!(class(&told, "p"), "updated", "{told}");
    flow.pass(&feed, &mut collector, 50).await;
    assert_eq!(site.counted("tidemill_connects_total", &["outcome=\"connected\""]).await, 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_does_not_share_out_its_state_starts_without_and_the_answer_says_so() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (from, to) = (feed.url(), collector.url());
    let site = tally();
    let file = |instances: u32| {
        let keys = format!("key = \"/k\", instances = {instances}, config = {{ refuses_shares = true }}");
        relay("p", &from, &format!("{{ plugin = \"tally\", {keys} }}"), &to)
    };
    let site = site.run(&file(1));
    feed.text(r#"{"k":"a","n":0}"#).await;
    assert_eq!(collector.text().await, "a 0 1 0/1");
    let told = site.change(&file(2)).await;
    let warning = told["pipelines"][0]["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("transform tally") && warning.contains("starts without"), "{told}");
    feed.text(r#"{"k":"a","n":1}"#).await;
    assert!(collector.text().await.starts_with("a 1 1 "), "it counts from the beginning");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transforms_come_go_and_change_places_and_each_message_takes_the_way_that_is_there_when_it_comes() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (from, to) = (feed.url(), collector.url());
    let site = tally();
    let file = |transforms: &str| relay("p", &from, transforms, &to);
    let tally = "{ plugin = \"tally\" }";
    let site = site.run(&file(tally));
    let mut flow = Flow::default();
    flow.pass(&feed, &mut collector, 20).await;
    for transforms in [
        "{ plugin = \"forward\", name = \"before\" }, { plugin = \"tally\" }",
        "{ plugin = \"forward\", name = \"before\" }, { plugin = \"tally\" }, { plugin = \"forward\", name = \"after\" }",
        "{ plugin = \"forward\", name = \"after\" }, { plugin = \"tally\" }, { plugin = \"forward\", name = \"before\" }",
        "{ plugin = \"tally\" }, { plugin = \"forward\", name = \"after\" }",
        tally,
    ] {
        flow.send(&feed, 300).await;
        let told = site.change(&file(transforms)).await;
        assert_eq!(class(&told, "p"), "updated", "{told}");
        flow.take(&mut collector).await;
        flow.pass(&feed, &mut collector, 20).await;
    }
    let text = tokio::task::block_in_place(|| site.host().metrics().text);
    assert!(!text.contains("\"before\"") && !text.contains("\"after\""), "what is gone is not shown: {text}");
    assert_eq!(site.counted("tidemill_stage_messages_in_total", &["transform=\"tally\""]).await, flow.sent);
    assert_eq!(site.counted("tidemill_connects_total", &["outcome=\"connected\""]).await, 2);
    // Another plugin under the name of one that was there goes on with what that knew, or the pipeline as it was.
    let told = site.change(&file("{ plugin = \"forward\", name = \"tally\" }")).await;
    assert_eq!(class(&told, "p"), "updated", "{told}");
    feed.text("as it is").await;
    assert_eq!(collector.text().await, "as it is");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transform_that_goes_has_gathered_goes_through_those_behind_it() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (from, to) = (feed.url(), collector.url());
    let site = tally();
    site.install("window", "window");
    let file = |transforms: &str| relay("p", &from, transforms, &to);
    let windows = |name: &str| {
        format!(
            "{{ plugin = \"window\", name = \"{name}\", config = {{ size = \"1h\", aggregates = {{ n = {{ op = \"count\" }} }} }} }}"
        )
    };
    let site = site.run(&file(&format!("{}, {{ plugin = \"forward\" }}", windows("first"))));
    for symbol in ["a", "b", "a"] {
        feed.text(format!(r#"{{"s":"{symbol}","T":1000}}"#)).await;
    }
    site.until_counted("tidemill_stage_messages_in_total", &["transform=\"first\""], 3).await;
    // Another name is another transform.
    let told = site.change(&file(&windows("second"))).await;
    assert_eq!(class(&told, "p"), "updated", "{told}");
    let window = |symbol: &str, count: u64| json!({ "symbol": symbol, "window_start": 0, "window_end": 3_600_000, "n": count, "final": false });
    let mut gathered = Vec::new();
    for _ in 0..2 {
        gathered.push(serde_json::from_str::<serde_json::Value>(&collector.text().await).unwrap());
    }
    gathered.sort_by_key(ToString::to_string);
    let mut expected = [window("a", 2), window("b", 1)];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(gathered, expected);
    feed.text(r#"{"s":"a","T":1000}"#.to_owned()).await;
    site.until_counted("tidemill_stage_messages_in_total", &["transform=\"second\""], 1).await;
    site.change(&file("")).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&collector.text().await).unwrap(), window("a", 1));
    assert_eq!(site.counted("tidemill_messages_dropped_total", &[]).await, 0);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_wait_for_a_plugin_that_fails_again_and_again_go_to_the_instances_that_take_over() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (from, to) = (feed.url(), collector.url());
    let site = tally();
    site.folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    let file = |transform: &str| relay("p", &from, transform, &to);
    let site = site.run(&file("{ plugin = \"hostile\", name = \"x\", config = { behaviour = \"panic\" } }"));
    for _ in 0..20 {
        feed.text("poison").await;
    }
    tokio::task::block_in_place(|| {
        site.host().wait_until("it is paused", |now| now.count("tidemill_plugin_paused", &[]) == 1);
    });
    let failed = site.counted("tidemill_messages_dropped_total", &["reason=\"trap\""]).await;
    let told = site.change(&file("{ plugin = \"forward\", name = \"x\" }")).await;
    assert_eq!(class(&told, "p"), "updated", "{told}");
    let now = site.counted("tidemill_messages_dropped_total", &["reason=\"trap\""]).await;
    assert!(now < 20, "a few were tried meanwhile, and the others wait: {failed} {now}");
    for _ in now..20 {
        assert_eq!(collector.text().await, "poison");
    }
    assert_eq!(site.counted("tidemill_plugin_paused", &[]).await, 0);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_some_instances_have_done_and_others_have_not_goes_on_in_order_with_those_that_take_over() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (from, to) = (feed.url(), collector.url());
    let site = tally();
    site.folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    let file = |memory: &str| {
        let keys =
            "plugin = \"hostile\", config = { behaviour = \"panic\" }, on_error = \"drop\", instances = 3";
        relay("p", &from, &format!("{{ {keys}, limits = {{ memory = \"{memory}\" }} }}"), &to)
    };
    let site = site.run(&file("64MiB"));
    let messages = 3_000;
    // What takes no time is not shared out.
    let text = |n: u32| format!("{n:4000}");
    for n in 0..messages {
        feed.text(if n % 10 == 7 { "poison".to_owned() } else { text(n) }).await;
    }
    // Each of these is told while messages at fault are looked for, and most of the others wait for that.
    for memory in ["63MiB", "62MiB", "61MiB", "60MiB"] {
        let told = site.change(&file(memory)).await;
        assert_eq!(class(&told, "p"), "updated", "{told}");
        assert!(told["pipelines"][0]["error"].is_null(), "{told}");
    }
    for n in (0..messages).filter(|n| n % 10 != 7) {
        assert!(collector.text().await == text(n), "{n} is not the next");
    }
    site.stop().await;
}
