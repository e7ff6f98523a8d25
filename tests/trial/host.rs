//! The same as users see it: the binary, files of the plugin folder, the metrics, and `GET /api/v1/swaps`.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tidemill_tests::guest;
use tidemill_tests::host::{Folder, Host};
use tidemill_tests::peers::{Collector, Feed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A host with one pipeline or two, and what they have in common.
struct Trial {
    folder: Folder,
    host: Host,
    config: String,
    ends: Vec<(Feed, Collector)>,
}

impl Trial {
    /// A host that runs the first version of the plugin in each of these pipelines; they differ by these keys of
    /// their transforms.
    async fn of(keys: &[&str]) -> Self {
        let folder = Folder::default();
        folder.install("x", &guest("trial-v1").expect("guests in Rust are built"));
        Self::with(folder, keys).await
    }

    async fn with(folder: Folder, keys: &[&str]) -> Self {
        let mut ends = Vec::new();
        let mut config = String::new();
        for (number, keys) in keys.iter().enumerate() {
            let (feed, collector) = (Feed::open().await, Collector::open().await);
            config += &format!(
                r#"
                [[pipelines]]
                name = "p{number}"
                source = {{ type = "websocket", url = "{}" }}
                transforms = [{{ plugin = "x", name = "t", {keys} }}]
                sinks = [{{ type = "websocket", url = "{}" }}]
                "#,
                feed.url(),
                collector.url(),
            );
            ends.push((feed, collector));
        }
        let host = tokio::task::block_in_place(|| {
            let host = folder.run(&config);
            let count = keys.len() as u64;
            host.wait_until("all run", |now| {
                now.count("tidemill_pipelines", &["state=\"running\""]) == count
            });
            host
        });
        Self { folder, host, config, ends }
    }

    /// Has the host read its configuration again, with this in the place of that: its answer for the first pipeline.
    fn reload(&mut self, that: &str, this: &str, query: &str) -> Value {
        let changed = self.config.replace(that, this);
        self.folder.configure(&changed);
        let path = format!("/api/v1/reload{query}");
        let (status, answer) = tokio::task::block_in_place(|| self.host.json("POST", &path, &Value::Null));
        assert_eq!(status, 200, "{answer}");
        self.config = changed;
        answer["pipelines"][0].clone()
    }

    fn install(&self, version: u32) {
        self.folder.install("x", &guest(&format!("trial-v{version}")).expect("guests in Rust are built"));
    }

    /// Sends a message through the first pipeline, and gives what comes out.
    async fn say(&mut self, what: &str) -> String {
        self.say_in(0, what).await
    }

    async fn say_in(&mut self, pipeline: usize, what: &str) -> String {
        let (feed, collector) = &mut self.ends[pipeline];
        feed.text(&super::told(what)).await;
        collector.text().await
    }

    fn swaps(&self, outcome: &str, count: u64) {
        tokio::task::block_in_place(|| {
            self.host.wait_until(&format!("{outcome} {count}"), |now| {
                now.count("tidemill_plugin_swaps_total", &[&format!("outcome=\"{outcome}\"")]) == count
            });
        });
    }

    /// Waits until a version is in shadow in so many pipelines.
    fn in_shadow(&self, count: usize) {
        tokio::task::block_in_place(|| {
            self.host.wait_until("it is in shadow", |_| {
                self.host.log().lines().filter(|line| line.contains("\"plugin in shadow\"")).count() == count
            });
        });
    }

    /// The newest verdict, once there are so many.
    fn verdict(&self, count: usize) -> Value {
        tokio::task::block_in_place(|| {
            let mut newest = Value::Null;
            self.host.wait_until("there is a verdict", |_| {
                let (status, answer) = self.host.json("GET", "/api/v1/swaps", &Value::Null);
                assert_eq!(status, 200, "{answer}");
                let swaps = answer["swaps"].as_array().unwrap();
                newest = swaps.first().cloned().unwrap_or_default();
                swaps.len() == count
            });
            newest
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_takes_over_once_it_has_made_the_same_of_the_next_messages() {
    let mut trial = Trial::of(&["swap = { shadow = 5 }"]).await;
    assert_eq!(trial.say("count").await, "a 1 1");
    trial.install(2);
    trial.in_shadow(1);
    for count in 2..=5 {
        assert_eq!(trial.say("count").await, format!("a {count} {count}"));
    }
    assert_eq!(trial.say("log").await, super::told("log"));
    trial.swaps("swapped", 1);
    let verdict = trial.verdict(1);
    let same = json!({ "same": 5, "different": 0, "faulted": 0, "first": null });
    assert_eq!((&verdict["outcome"], &verdict["uses"][0]["shadow"]), (&json!("swapped"), &same), "{verdict}");
    assert_eq!(verdict["uses"][0]["state"], "carried");
    assert_eq!(trial.say("new-say").await, "as nobody else", "the second version runs");
    assert_eq!(trial.say("count").await, "a 6 6", "and nothing was counted twice");
    tokio::task::block_in_place(|| trial.host.says_times("a line", 2));
    let log = trial.host.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a line")).collect();
    let marked = lines.iter().filter(|line| line.contains("\"shadow\":true")).count();
    assert_eq!((lines.len(), marked), (2, 1), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_faults_in_the_shadow_of_one_pipeline_takes_over_in_none() {
    let mut trial = Trial::of(&["swap = { shadow = 1 }", "swap = { shadow = 100 }"]).await;
    trial.install(2);
    trial.in_shadow(2);
    assert_eq!(trial.say("count").await, "a 1 1");
    assert_eq!(trial.say_in(1, "count").await, "a 1 1");
    assert_eq!(trial.say_in(1, "new-trap").await, super::told("new-trap"));
    trial.swaps("rejected", 1);
    let verdict = trial.verdict(1);
    let error = verdict["error"].as_str().unwrap();
    assert!(error.starts_with("pipeline p1, transform t: in shadow: trap: "), "{error}");
    assert_eq!(verdict["outcome"], "rejected");
    let outcomes: Vec<_> = verdict["uses"].as_array().unwrap().iter().map(|each| &each["outcome"]).collect();
    assert_eq!(outcomes, ["rejected", "rejected"]);
    let faulted = json!({ "same": 1, "different": 0, "faulted": 1, "first": null });
    assert_eq!(verdict["uses"][1]["shadow"], faulted, "{verdict}");
    for pipeline in [0, 1] {
        assert_eq!(trial.say_in(pipeline, "new-trap").await, super::told("new-trap"));
        assert_eq!(trial.say_in(pipeline, "count").await, "a 2 2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_difference_is_in_the_verdict_without_what_is_secret() {
    let mut trial = Trial::of(&[r#"swap = { shadow = 3 }, config = { new_tick = "${HOME:-nobody}" }"#]).await;
    let home = std::env::var("HOME").unwrap_or("nobody".into());
    trial.install(2);
    trial.in_shadow(1);
    trial.say("count").await;
    let (feed, collector) = &mut trial.ends[0];
    let message = json!({ "k": home, "do": "new-reject" }).to_string();
    feed.text(&message).await;
    assert_eq!(collector.text().await, message);
    trial.say("new-say").await;
    trial.swaps("swapped", 1);
    let shadow = &trial.verdict(1)["uses"][0]["shadow"];
    let hidden = message.replace(&home, "***");
    let first = json!({ "old": hidden, "new": "rejected: as the message says" });
    assert_eq!(*shadow, json!({ "same": 1, "different": 2, "faulted": 0, "first": first }));
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_content_ends_a_shadow_and_so_does_a_stop_after_which_the_new_version_starts() {
    let mut trial = Trial::of(&["swap = { shadow = 100 }"]).await;
    trial.say("count").await;
    trial.install(2);
    trial.in_shadow(1);
    trial.say("count").await;
    trial.folder.install_another_version("x", &guest("trial-v2").unwrap());
    trial.in_shadow(2);
    let verdict = trial.verdict(1);
    assert_eq!(
        (&verdict["outcome"], &verdict["error"]),
        (&json!("superseded"), &json!("newer content came first"))
    );
    assert_eq!(trial.say("count").await, "a 3 3");
    let tell = |what: &str| {
        let path = format!("/api/v1/pipelines/p0/{what}");
        tokio::task::block_in_place(|| assert_eq!(trial.host.json("POST", &path, &Value::Null).0, 200));
    };
    tell("stop");
    trial.swaps("swapped", 1);
    tell("start");
    // The collector is dialled anew.
    let (feed, collector) = &mut trial.ends[0];
    feed.text(&super::told("new-say")).await;
    while !matches!(collector.received.recv().await, Some(tidemill_tests::peers::Received::Text(text)) if text == "as nobody else")
    {
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_reload_nor_the_same_content_asked_for_in_another_way_waits_for_a_shadow() {
    let mut trial = Trial::of(&["swap = { shadow = 100 }, max_batch = 5"]).await;
    trial.say("count").await;
    trial.install(2);
    trial.in_shadow(1);
    let told = trial.reload("max_batch = 5", "max_batch = 6", "?dry_run=true");
    assert_eq!(told["class"], "updated", "{told}");
    assert_eq!(trial.say("count").await, "a 2 2", "it is in shadow still");
    let told = trial.reload("max_batch = 6", "max_batch = 7", "");
    assert_eq!((&told["class"], &told["error"]), (&json!("updated"), &Value::Null), "{told}");
    let verdict = trial.verdict(1);
    let why = json!("a change of the configuration came first");
    assert_eq!((&verdict["outcome"], &verdict["error"]), (&json!("superseded"), &why));
    trial.in_shadow(2);
    assert_eq!(trial.say("count").await, "a 3 3");
    let component = std::fs::read(guest("trial-v2").unwrap()).unwrap();
    let headers = [("content-type", "application/wasm")];
    let put = || trial.host.send("PUT", "/api/v1/plugins/x?shadow=0", &headers, &component);
    let (status, answer) = tokio::task::block_in_place(put);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(trial.say("new-say").await, "as nobody else");
    assert_eq!(trial.say("count").await, "a 4 4", "the state was carried");
    let put = || trial.host.send("PUT", "/api/v1/plugins/x", &headers, &component);
    let (status, answer) = tokio::task::block_in_place(put);
    let again: Value = serde_json::from_str(&answer).unwrap();
    let used = json!({
        "pipeline": "p0", "transform": "t", "outcome": "swapped", "state": null, "swap_us": null, "error": null,
    });
    assert_eq!((status, &again["uses"]), (200, &json!([used])), "it ran there before");
    trial.swaps("swapped", 1);
}

/// A server that counts what it is asked, and answers with the count.
async fn counting_server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n")
                && stream.read_buf(&mut head).await.unwrap_or(0) > 0
            {}
            let body = counted.fetch_add(1, Relaxed).to_string();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (origin, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_no_request_is_sent_and_each_is_answered_as_that_of_the_running_version_was() {
    let (origin, count) = counting_server().await;
    let asking = guest("asking").expect("guests in Rust are built");
    let folder = Folder::default();
    folder.install("x", &asking);
    let keys =
        format!(r#"swap = {{ shadow = 4 }}, allow = ["{origin}"], config = {{ init = "{origin}/first" }}"#);
    let mut trial = Trial::with(folder, &[&keys]).await;
    let (feed, collector) = &mut trial.ends[0];
    feed.text(&format!("GET {origin}/a")).await;
    assert_eq!(collector.text().await, "200 0\n200 1");
    trial.folder.install_another_version("x", &asking);
    trial.in_shadow(1);
    let (feed, collector) = &mut trial.ends[0];
    // The new version asks in `init` too, for when it has taken over, and says so with its first message.
    assert_eq!(count.load(Relaxed), 3);
    for (message, answer) in [
        (format!("GET {origin}/a\nGET {origin}/a\nPOST {origin}/b # body"), 3..6),
        (format!("again 5\nGET {origin}/a"), 6..11),
        (format!("GET {origin}/a\nbeside DELETE {origin}/a"), 11..12),
        (format!("GET {origin}/a"), 12..13),
    ] {
        feed.text(&message).await;
        let mut got: Vec<String> = collector.text().await.lines().map(str::to_owned).collect();
        got.sort_by_key(|line| (line.len(), line.clone()));
        let mut expected: Vec<String> = answer.map(|n| format!("200 {n}")).collect();
        expected.sort_by_key(|line| (line.len(), line.clone()));
        assert_eq!(got, expected, "{message}");
    }
    trial.swaps("swapped", 1);
    assert_eq!(count.load(Relaxed), 13, "nobody was asked twice");
    let shadow = trial.verdict(1)["uses"][0]["shadow"].clone();
    let first = shadow["first"]["new"].as_str().unwrap_or_default();
    assert_eq!((&shadow["different"], &shadow["faulted"]), (&json!(2), &json!(0)), "{shadow}");
    assert!(
        first.starts_with("200 2\n") || first.starts_with("200 2\\n"),
        "what it was answered in init: {first}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_back_goes_back_in_all_pipelines_and_is_not_tried_again_until_its_file_changes() {
    let mut trial =
        Trial::of(&[r#"swap = { probation = "10m", max_faults = 1 }, on_error = "drop""#, ""]).await;
    trial.say("count").await;
    trial.say_in(1, "count").await;
    trial.install(2);
    trial.swaps("swapped", 1);
    assert_eq!(trial.say("count").await, "a 2 2");
    assert_eq!(trial.say_in(1, "count").await, "a 2 2");
    // A fault where there is no probation does not count, one where there is, is allowed.
    trial.ends[1].0.text(&super::told("new-trap")).await;
    trial.ends[0].0.text(&super::told("new-trap")).await;
    assert!(trial.say("count").await.ends_with(" 3"));
    assert_eq!(trial.verdict(1)["outcome"], "swapped");
    assert_eq!(trial.say("new-trap").await, super::told("new-trap"), "the message is the old version's");
    assert_eq!(trial.say("count").await, "a 2 2", "with the state of the swap");
    trial.swaps("rolled_back", 1);
    let verdict = trial.verdict(1);
    let error = verdict["error"].as_str().unwrap();
    let expected = "pipeline p0, transform t: 2 faults in its probation, and `max_faults` is 1: trap: ";
    assert!(error.starts_with(expected), "{error}");
    let outcomes: Vec<_> = verdict["uses"].as_array().unwrap().iter().map(|each| &each["outcome"]).collect();
    assert_eq!(verdict["outcome"], "rolled_back", "{verdict}");
    assert_eq!(outcomes, ["rolled_back", "rolled_back"], "{verdict}");
    assert_eq!(trial.say_in(1, "count").await, "a 2 2", "each with its own state");
    tokio::task::block_in_place(|| trial.host.says_times("plugin rolled back", 1));
    // A pipeline that starts now starts with the version that was put back, and the file is tried when it changes.
    trial.folder.install("y", &guest("trial-v1").unwrap());
    let file = std::fs::File::open(trial.folder.path("plugins/x.wasm")).unwrap();
    assert_eq!(trial.say("new-trap").await, super::told("new-trap"));
    assert_eq!(trial.verdict(1)["outcome"], "rolled_back", "nobody has tried it again");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    trial.swaps("swapped", 2);
    assert_eq!(trial.say("new-say").await, "as nobody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_swap_in_a_probation_ends_it_and_has_its_own() {
    let mut trial = Trial::of(&[r#"swap = { probation = "10m" }"#]).await;
    trial.install(2);
    trial.swaps("swapped", 1);
    trial.say("count").await;
    trial.folder.install_another_version("x", &guest("trial-v2").unwrap());
    trial.swaps("swapped", 2);
    assert_eq!(trial.say("count").await, "a 2 2");
    // The version before is the second too, and fails likewise: the message is a dead letter of that.
    trial.ends[0].0.text(&super::told("new-trap")).await;
    assert!(trial.say("count").await.starts_with("a 2 2"));
    trial.swaps("rolled_back", 1);
    let verdict = trial.verdict(2);
    assert_eq!(verdict["outcome"], "rolled_back", "{verdict}");
    assert_eq!(trial.say("new-say").await, "as nobody else", "no further back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_back_is_what_the_disk_has_next() {
    let mut trial = Trial::of(&[r#"swap = { probation = "10m" }, state = "durable""#]).await;
    trial.say("count").await;
    trial.install(2);
    trial.swaps("swapped", 1);
    trial.say("count").await;
    trial.say("count").await;
    assert_eq!(trial.say("new-trap").await, super::told("new-trap"));
    trial.swaps("rolled_back", 1);
    let Trial { folder, host, ends, .. } = trial;
    let ended = tokio::task::block_in_place(|| host.stop());
    assert!(ended.status.success(), "{}", ended.log);
    drop(ends);
    // The folder has the version that was put away.
    let mut trial = Trial::with(folder, &[r#"state = "durable""#]).await;
    assert_eq!(trial.say("count").await, "a 2 2");
    assert_eq!(trial.say("new-trap").await, super::told("new-trap"), "the version before runs");
    trial.host.says("failed in its probation: the one before runs until the file changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_makes_new_instances_says_that_it_ends_a_probation() {
    let mut trial =
        Trial::of(&[r#"swap = { probation = "10m" }, limits = { memory = "64MiB" }, max_batch = 5"#]).await;
    trial.install(2);
    trial.swaps("swapped", 1);
    let told = trial.reload("max_batch = 5", "max_batch = 6", "");
    assert_eq!((&told["class"], &told["warnings"]), (&json!("updated"), &Value::Null), "{told}");
    let told = trial.reload("64MiB", "65MiB", "");
    let warning = told["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("transform t: this change ends its probation"), "{told}");
    let told = trial.reload("65MiB", "66MiB", "");
    assert_eq!((&told["class"], &told["warnings"]), (&json!("updated"), &Value::Null), "{told}");
}
