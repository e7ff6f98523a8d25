//! Durable state of several instances: kept over a kill, and shared out anew where their number has changed.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;
use tidemill::generation::Generation;
use tidemill::store::StoreFolder;
use tidemill_tests::guest;
use tidemill_tests::host::{Folder, Host, PATIENCE};
use tidemill_tests::peers::{Collector, Feed, Received};

/// So many keys that each of four instances has some.
const KEYS: u64 = 20;

fn folder() -> Folder {
    let folder = Folder::default();
    folder.install("tally", &guest("tally").expect("guests in Rust are built"));
    folder
}

fn socket_pipeline(feed: &Feed, collector: &Collector, instances: u32, refuses_shares: bool) -> Value {
    let reconnect = json!({ "delay": "10ms", "max_delay": "50ms" });
    json!({
        "name": "p",
        "source": { "type": "websocket", "url": feed.url(), "reconnect": reconnect },
        "transforms": [{
            "plugin": "tally", "instances": instances, "key": "/k", "state": "durable",
            "config": { "refuses_shares": refuses_shares },
        }],
        "sinks": [{ "type": "websocket", "url": collector.url(), "reconnect": reconnect }],
    })
}

/// Adds a pipeline, and gives what the host says of it once it runs.
fn start(host: &Host, pipeline: &Value) -> Value {
    let (status, answer) = host.json("POST", "/api/v1/pipelines", pipeline);
    assert!([201, 202].contains(&status), "{answer}\n{}", host.log());
    host.becomes("p", "running");
    host.json("GET", "/api/v1/pipelines/p", &Value::Null).1
}

/// Sends one message of each key, and says what each is counted as.
async fn counts(feed: &Feed, collector: &mut Collector, instances: u32) -> Vec<u64> {
    for key in 0..KEYS {
        feed.text(format!(r#"{{"k":"k{key}","n":1}}"#)).await;
    }
    let mut counts = BTreeMap::new();
    while counts.len() < KEYS as usize {
        let text = collector.text().await;
        let words: Vec<&str> = text.split(' ').collect();
        assert!(words[3].ends_with(&format!("/{instances}")), "{text}");
        counts.insert(words[0].to_owned(), words[2].parse().unwrap());
    }
    counts.into_values().collect()
}

/// Takes what the end of a pipeline gives, up to the end of its connection.
async fn until_closed(collector: &mut Collector) {
    while let Some(Received::Text(text)) = collector.received.recv().await {
        assert!(text.starts_with("final "), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_number_of_instances_changes_each_goes_on_with_the_counts_of_its_share() {
    let folder = folder();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run("");
    for (round, instances) in (1..).zip([2, 3, 1, 4, 4]) {
        let pipeline = socket_pipeline(&feed, &collector, instances, false);
        let answer = tokio::task::block_in_place(|| start(&host, &pipeline));
        assert_eq!(answer["warnings"], Value::Null, "{answer}\n{}", host.log());
        let counts = counts(&feed, &mut collector, instances).await;
        assert_eq!(counts, [round; KEYS as usize], "{instances} instances");
        let (status, answer) =
            tokio::task::block_in_place(|| host.json("DELETE", "/api/v1/pipelines/p", &Value::Null));
        assert_eq!(status, 204, "{answer}");
        until_closed(&mut collector).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_does_not_share_its_state_out_starts_without_and_the_answer_and_the_log_say_so() {
    let folder = folder();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    for (instances, expected, is_told) in [(2, 1, false), (2, 2, false), (3, 1, true), (3, 2, false)] {
        let host = folder.run("");
        let pipeline = socket_pipeline(&feed, &collector, instances, true);
        let answer = tokio::task::block_in_place(|| start(&host, &pipeline));
        let warning = answer["warnings"][0].as_str().unwrap_or_default();
        assert_eq!(warning.contains("not to be shared out"), is_told, "{answer}");
        assert_eq!(counts(&feed, &mut collector, instances).await, [expected; KEYS as usize]);
        let ended = tokio::task::block_in_place(|| host.stop());
        assert!(ended.status.success());
        assert_eq!(ended.log.contains("starts without"), is_told, "{}", ended.log);
        until_closed(&mut collector).await;
    }
}

/// How often the host is killed.
const CRASHES: u64 = 8;
/// The longest life of a host, which is killed at a random moment of it.
const LONGEST_LIFE: Duration = Duration::from_millis(1200);
/// Lines that are added before each life.
const LINES: u64 = 20_000;

fn line(number: u64) -> String {
    format!("{{\"k\":\"k{:02}\",\"n\":\"{number:08}\"}}\n", number % KEYS)
}

fn file_pipeline(instances: u64) -> String {
    format!(
        r#"
        [state]
        interval = "50ms"

        [[pipelines]]
        name = "p"
        source = {{ type = "file", path = "in.jsonl", format = "jsonl" }}
        transforms = [{{ plugin = "tally", state = "durable", max_batch = 50, instances = {instances}, key = "/k" }}]
        sinks = [{{ type = "file", path = "out.jsonl", format = "jsonl", append = true }}]
        "#
    )
}

/// The newest generation, if one was ever written.
fn newest(folder: &Folder) -> Option<Generation> {
    let mut store = StoreFolder::new(&folder.path(".tidemill/state"), 1 << 30);
    store.list().unwrap().first()?.written_us?;
    store.read("p").unwrap()
}

/// What was counted, by the snapshots of all instances and with the host, must be what was read. Gives how many
/// messages that was.
fn assert_whole(generation: &Generation) -> u64 {
    let [transform] = &generation.transforms[..] else { panic!("{generation:?}") };
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for snapshot in transform.snapshots.iter().flatten().flatten() {
        for line in std::str::from_utf8(snapshot).unwrap().lines() {
            let (key, count) = line.split_once(' ').unwrap();
            assert_eq!(counted.insert(key.into(), count.parse().unwrap()), None, "{key} is in two instances");
        }
    }
    let kept = transform.values.iter().map(|(key, value)| {
        let count = std::str::from_utf8(&value.as_ref().unwrap().bytes).unwrap().parse().unwrap();
        (key.strip_prefix("count/").unwrap().to_owned(), count)
    });
    assert_eq!(counted, kept.collect(), "what the host keeps is of another moment");
    let read = generation.position.as_ref().map_or(0, |position| position.offset) / line(0).len() as u64;
    let expected = (0..KEYS).map(|key| (format!("k{key:02}"), (read + KEYS - 1 - key) / KEYS));
    assert_eq!(counted, expected.filter(|(_, count)| *count > 0).collect(), "of {read} lines");
    read
}

#[test]
fn after_a_kill_at_any_moment_the_state_of_all_instances_is_of_one_moment_and_each_message_counts_once() {
    let folder = folder();
    let (mut lines, mut before) = (0, 0);
    for crash in 0..CRASHES {
        let mut new = String::new();
        (lines..lines + LINES).for_each(|number| write!(new, "{}", line(number)).unwrap());
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(folder.path("in.jsonl")).unwrap();
        file.write_all(new.as_bytes()).unwrap();
        lines += LINES;
        let host = Host::start(&mut folder.command(PATIENCE, &file_pipeline(crash % 3 + 1)));
        std::thread::sleep(LONGEST_LIFE.mul_f64(fastrand::f64()));
        // As `kill -9` does.
        drop(host);
        let Some(generation) = newest(&folder) else { continue };
        let read = assert_whole(&generation);
        assert!(read >= before, "crash {crash}: {read} after {before}");
        before = read;
    }
    let host = folder.run(&file_pipeline(2));
    host.becomes("p", "finished");
    assert!(host.stop().status.success());
    assert_eq!(assert_whole(&newest(&folder).expect("it was written")), lines);
    // Outputs may repeat, but none is missing, and the count of each message is always the same.
    let mut seen = vec![false; usize::try_from(lines).unwrap()];
    for output in std::fs::read_to_string(folder.path("out.jsonl")).unwrap().lines() {
        let [key, number, count, _] = output.split(' ').collect::<Vec<_>>()[..] else { continue };
        // Half a line of a process that was killed may stand before it.
        if let (3, Ok(number), Ok(count)) = (key.len(), number.parse::<u64>(), count.parse::<u64>()) {
            assert_eq!(count, number / KEYS + 1, "a message counts once: {output}");
            seen[usize::try_from(number).unwrap()] = true;
        }
    }
    assert_eq!(seen.iter().position(|seen| !seen), None, "each message is delivered");
}
