//! What plugins know: kept over a stop and a start of their pipeline, and on the disk where that is asked for.
//!
//! The plugin of these tests counts messages twice: in its memory, which its snapshots have, and in what the host
//! keeps for it. Each of its outputs says the count, so that lost and doubled state is seen.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidemill::generation::Generation;
use tidemill::store::StoreFolder;
use tidemill_tests::guest;
use tidemill_tests::host::{Counted, Folder, Host, PATIENCE};
use tidemill_tests::peers::{Collector, Feed, Received};
use tidemill_tests::pipelines::relay;
use tokio::net::TcpListener;

/// A line of the numbered file has so many bytes.
const LINE_BYTES: u64 = 9;

fn folder() -> Folder {
    let folder = Folder::default();
    folder.install("counter", &guest("counter-v1").expect("guests in Rust are built"));
    folder
}

fn socket_pipeline(feed: &Feed, collector: &Collector, state: &str) -> String {
    socket_pipeline_to(feed, &collector.url(), state)
}

fn socket_pipeline_to(feed: &Feed, sink: &str, state: &str) -> String {
    let transforms = format!("{{ plugin = \"counter\", state = \"{state}\" }}");
    relay("p", &feed.url(), &transforms, sink)
}

/// From a file of numbered lines, through the counter, to another file.
fn file_pipeline(interval: &str) -> String {
    format!(
        r#"
        [state]
        interval = "{interval}"

        [[pipelines]]
        name = "p"
        source = {{ type = "file", path = "in.jsonl", format = "jsonl" }}
        transforms = [{{ plugin = "counter", state = "durable", max_batch = 50 }}]
        sinks = [{{ type = "file", path = "out.jsonl", format = "jsonl", append = true }}]
        "#
    )
}

/// Adds lines with the numbers of this range.
fn number(folder: &Folder, numbers: std::ops::Range<u64>) {
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(folder.path("in.jsonl")).unwrap();
    let lines: String = numbers.map(|number| format!("{number:08}\n")).collect();
    file.write_all(lines.as_bytes()).unwrap();
}

fn output(folder: &Folder) -> Vec<String> {
    let text = std::fs::read_to_string(folder.path("out.jsonl")).unwrap_or_default();
    // A killed process may have written half a line.
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
}

/// The newest generation of the pipeline, and when it was written.
fn newest(folder: &Folder) -> Option<(Generation, Duration)> {
    let mut store = StoreFolder::new(&folder.path(".tidemill/state"), 1 << 30);
    let written_us = store.list().unwrap().first()?.written_us?;
    Some((store.read("p").unwrap()?, Duration::from_micros(written_us)))
}

/// What the counter has counted with the host, in its snapshot, and the last message.
fn counts(generation: &Generation) -> (u64, u64, String) {
    let [transform] = &generation.transforms[..] else { panic!("{generation:?}") };
    let kept = |key: &str| {
        let entry = transform.values.iter().find(|(known, _)| **known == *key);
        entry.and_then(|(_, value)| value.as_ref()).map(|value| value.bytes.clone())
    };
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let snapshot = transform.snapshots.iter().flatten().flatten().next();
    (
        kept("count").map_or(0, |bytes| number(&bytes)),
        snapshot.map_or(0, |bytes| number(bytes)),
        kept("last").map_or_else(String::new, |bytes| String::from_utf8(bytes.into()).unwrap()),
    )
}

/// State, snapshot and position must be of one moment. Gives how many messages that was after.
fn assert_whole(generation: &Generation) -> u64 {
    let (kept, snapshot, last) = counts(generation);
    let offset = generation.position.as_ref().map_or(0, |position| position.offset);
    assert_eq!((kept, snapshot), (offset / LINE_BYTES, offset / LINE_BYTES), "{generation:?}");
    assert_eq!(last, kept.checked_sub(1).map_or_else(String::new, |number| format!("{number:08}")));
    kept
}

fn tell(host: &Host, what: &str) {
    let (status, answer) = host.json("POST", &format!("/api/v1/pipelines/p/{what}"), &Value::Null);
    assert_eq!(status, 200, "{answer}\n{}", host.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn state_outlives_a_stop_and_a_start_by_the_api_and_not_what_the_end_has_set() {
    for state in ["memory", "durable"] {
        let folder = folder();
        let (feed, mut collector) = (Feed::open().await, Collector::open().await);
        let host = folder.run(&socket_pipeline(&feed, &collector, state));
        for count in [1, 2, 3] {
            feed.text("x").await;
            assert_eq!(collector.text().await, format!("v1 {count} x"));
            tokio::task::block_in_place(|| {
                tell(&host, "stop");
                // The counter refuses to start if it finds what it set at the end.
                tell(&host, "start");
            });
            assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));
        }
        assert_eq!(folder.path(".tidemill/state").exists(), state == "durable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_comes_while_a_pipeline_drains_is_tried_out_with_what_the_next_start_begins_with() {
    for state in ["memory", "durable"] {
        let folder = folder();
        let feed = Feed::open().await;
        // Nobody answers there, until the pipeline may end.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = format!("ws://{}/", listener.local_addr().unwrap());
        let host = folder.run(&socket_pipeline_to(&feed, &sink, state));
        feed.text("x").await;
        let collector = tokio::task::block_in_place(|| {
            host.wait_until("the message waits", |now| {
                now.count("tidemill_messages_emitted_total", &["pipeline=\"p\""]) == 1
            });
            std::thread::scope(|scope| {
                scope.spawn(|| tell(&host, "stop"));
                host.logged("the plugin has finished", |fields| {
                    (fields["message"] == "finished").then_some(())
                });
                // It refuses to start if it finds what its end has set.
                folder.install("counter", &guest("counter-v2").expect("guests in Rust are built"));
                let swaps = |now: &Counted, outcome: &str| {
                    now.count("tidemill_plugin_swaps_total", &[&format!("outcome=\"{outcome}\"")])
                };
                let now = host.wait_until("it is decided who runs", |now| {
                    swaps(now, "swapped") + swaps(now, "rejected") > 0
                });
                assert_eq!(swaps(&now, "swapped"), 1, "{}", host.log());
                Collector::on(listener)
            })
        });
        let mut collector = collector;
        assert_eq!(collector.text().await, "v1 1 x");
        assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));
        feed.text("y").await;
        tokio::task::block_in_place(|| tell(&host, "start"));
        assert_eq!(collector.text().await, "v2 2 y", "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_state_outlives_the_host_and_other_state_does_not() {
    for (state, next) in [("durable", 3), ("memory", 1)] {
        let folder = folder();
        let (feed, mut collector) = (Feed::open().await, Collector::open().await);
        let config = socket_pipeline(&feed, &collector, state);
        let host = folder.run(&config);
        for count in [1, 2] {
            feed.text("x").await;
            assert_eq!(collector.text().await, format!("v1 {count} x"));
        }
        assert!(tokio::task::block_in_place(|| host.stop()).status.success());
        assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));
        let _host = folder.run(&config);
        feed.text("y").await;
        assert_eq!(collector.text().await, format!("v1 {next} y"), "{state}");
    }
}

#[test]
fn a_file_goes_on_where_it_was_read_to_and_a_finished_one_at_its_end() {
    let folder = folder();
    let config = file_pipeline("1s");
    let mut expected = Vec::new();
    for run in 0..3 {
        // The second time there is nothing new.
        let numbers = [0..1000, 1000..1000, 1000..1500][run].clone();
        expected.extend(numbers.clone().map(|number| format!("v1 {} {number:08}", number + 1)));
        number(&folder, numbers);
        let host = folder.run(&config);
        host.becomes("p", "finished");
        assert_eq!(output(&folder), expected, "{run}");
        // A start by the API goes on there too.
        tell(&host, "start");
        host.becomes("p", "finished");
        assert_eq!(output(&folder), expected, "{run}");
        assert!(host.stop().status.success());
        assert_eq!(assert_whole(&newest(&folder).expect("it was written").0), expected.len() as u64);
    }
}

#[test]
fn a_packed_file_goes_on_as_well() {
    let folder = folder();
    let config = file_pipeline("1s").replace("in.jsonl", "in.jsonl.gz");
    let mut expected = Vec::new();
    for numbers in [0..3000, 3000..3500] {
        expected.extend(numbers.clone().map(|number| format!("v1 {} {number:08}", number + 1)));
        let path = folder.path("in.jsonl.gz");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        let lines: String = numbers.map(|number: u64| format!("{number:08}\n")).collect();
        packed.write_all(lines.as_bytes()).unwrap();
        packed.finish().unwrap();
        let host = folder.run(&config);
        host.becomes("p", "finished");
        assert!(host.stop().status.success());
        assert_eq!(output(&folder), expected);
    }
}

#[test]
fn a_file_that_is_shorter_or_begins_otherwise_fails_its_pipeline() {
    for (content, told) in
        [("00000000\n", "it is shorter than"), (&"11111111\n".repeat(2000), "it begins otherwise than")]
    {
        let folder = folder();
        number(&folder, 0..1000);
        let host = folder.run(&file_pipeline("1s"));
        host.becomes("p", "finished");
        assert!(host.stop().status.success());
        std::fs::write(folder.path("in.jsonl"), content).unwrap();
        let host = folder.run(&file_pipeline("1s"));
        host.becomes("p", "failed");
        let (_, pipeline) = host.json("GET", "/api/v1/pipelines/p", &Value::Null);
        assert!(pipeline["error"].as_str().unwrap().contains(told), "{pipeline}");
        assert_eq!(output(&folder).len(), 1000);
    }
}

#[test]
fn a_damaged_file_fails_its_pipeline_alone_and_the_next_start_begins_fresh() {
    let folder = folder();
    number(&folder, 0..10);
    let config = file_pipeline("1s");
    let other =
        config.split_once("[[pipelines]]").unwrap().1.replace("\"p\"", "\"other\"").replace("out.", "other.");
    let config = format!("{config}\n[[pipelines]]{other}");
    let host = folder.run(&config);
    host.becomes("p", "finished");
    host.becomes("other", "finished");
    assert!(host.stop().status.success());
    let damaged = folder.path(".tidemill/state/p.redb");
    std::fs::write(&damaged, b"not what it was").unwrap();
    let host = folder.run(&config);
    host.becomes("p", "failed");
    host.becomes("other", "finished");
    let (_, pipeline) = host.json("GET", "/api/v1/pipelines/p", &Value::Null);
    let error = pipeline["error"].as_str().unwrap();
    assert!(error.contains("is damaged") && error.contains("p.redb.damaged"), "{error}");
    assert!(folder.path(".tidemill/state/p.redb.damaged").exists());
    assert_eq!(output(&folder).len(), 10);
    tell(&host, "start");
    host.becomes("p", "finished");
    assert_eq!(output(&folder)[10..], output(&folder)[..10], "from the start of everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_is_told_and_the_pipeline_goes_on() {
    let folder = folder();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let config = socket_pipeline(&feed, &collector, "durable");
    let config = format!("[state]\ninterval = \"10ms\"\nmax_size = \"1MiB\"\n{config}");
    let host = folder.run(&config);
    feed.text("x").await;
    assert_eq!(collector.text().await, "v1 1 x");
    // The counter keeps the last message.
    let large = "x".repeat(3 << 20);
    feed.text(&large).await;
    assert_eq!(collector.text().await, format!("v1 2 {large}"));
    tokio::task::block_in_place(|| {
        host.logged("it is told", |line| {
            let told = line["message"].as_str()?.contains("state could not be written");
            (told && line["error"].as_str()?.contains("max_size")).then_some(())
        });
    });
    feed.text("y").await;
    assert_eq!(collector.text().await, "v1 3 y");
    assert!(tokio::task::block_in_place(|| host.stop()).status.success());
    let (generation, _) = newest(&folder).expect("what fits is written again");
    assert_eq!(counts(&generation), (3, 3, "y".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_generation_that_the_disk_does_not_take_is_counted_and_ends_the_host_with_1() {
    let folder = folder();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let config = socket_pipeline(&feed, &collector, "durable");
    let host = folder.run(&format!("[state]\ninterval = \"10ms\"\nmax_size = \"1MiB\"\n{config}"));
    let large = "x".repeat(3 << 20);
    feed.text(&large).await;
    assert_eq!(collector.text().await, format!("v1 1 {large}"));
    let ended = tokio::task::block_in_place(|| {
        host.wait_until("the disk does not take it", |now| {
            now.count("tidemill_state_writes_failed_total", &["pipeline=\"p\""]) >= 1
                && now.count("tidemill_state_unwritten", &["pipeline=\"p\""]) == 1
        });
        host.stop()
    });
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("the last state of pipeline p is not on the disk"), "{}", ended.log);
}

#[test]
fn state_that_cannot_be_read_as_it_is_configured_ends_with_78_and_what_may_mend_itself_with_1() {
    let cases: [(&str, &str, i32, &str); 3] = [
        (
            ".tidemill/state",
            "a file",
            78,
            ".tidemill/state is a file, not a folder: state is kept in a folder",
        ),
        (".tidemill", "a file", 78, ".tidemill is a file, not a folder"),
        (".tidemill/state/p.redb", "not what it was", 1, "the state of pipeline p is damaged"),
    ];
    for (path, content, code, told) in cases {
        let folder = folder();
        number(&folder, 0..10);
        std::fs::create_dir_all(folder.path(path).parent().unwrap()).unwrap();
        std::fs::write(folder.path(path), content).unwrap();
        // Compiled code is kept elsewhere, so that nothing else stands in its way.
        let config = format!("[plugins]\ncache = \"cache\"\n{}", file_pipeline("1s"));
        let run = Host::start(&mut folder.command(PATIENCE / 2, &config)).wait();
        assert_eq!(run.status.code(), Some(code), "{path}: {}", run.log);
        assert!(run.log.contains(told), "{path}: {}", run.log);
    }
}

#[test]
fn a_snapshot_that_is_refused_at_the_start_fails_the_pipeline_and_says_so() {
    let folder = folder();
    number(&folder, 0..10);
    let host = folder.run(&file_pipeline("1s"));
    host.becomes("p", "finished");
    assert!(host.stop().status.success());
    // A plugin that counts with other numbers takes other snapshots.
    folder.install("counter", &tidemill_tests::plugin("vwap"));
    let run = Host::start(&mut folder.command(PATIENCE / 2, &file_pipeline("1s"))).wait();
    assert!(!run.status.success());
    assert!(run.log.contains("does not take its state back"), "{}", run.log);
    assert_eq!(assert_whole(&newest(&folder).expect("it is kept").0), 10);
}

/// How often the host is killed, if the environment does not say otherwise in `TIDEMILL_CRASHES`.
const CRASHES: u32 = 20;
/// The longest life of a host, which is killed at a random moment of it.
const LONGEST_LIFE: Duration = Duration::from_millis(1200);
/// Lines that are added before each life.
const LINES: u64 = 30_000;
/// Lines that wait from which on none are added.
const MOST_WAITING: u64 = 20 * LINES;
/// What a busy machine may add to the age of a generation.
const SLACK: Duration = Duration::from_secs(15);

#[test]
fn after_a_kill_at_any_moment_state_snapshot_and_position_are_of_one_moment_and_each_message_counts_once() {
    let crashes = std::env::var("TIDEMILL_CRASHES").map_or(CRASHES, |text| text.parse().unwrap());
    let folder = folder();
    let interval = Duration::from_millis(50);
    let config = file_pipeline("50ms");
    let (mut lines, mut before, mut midway) = (0, 0, 0);
    for crash in 0..crashes {
        // However often it is killed, no more waits than the last life works off in time.
        if lines < before + MOST_WAITING {
            number(&folder, lines..lines + LINES);
            lines += LINES;
        }
        let host = Host::start(&mut folder.command(PATIENCE, &config));
        std::thread::sleep(LONGEST_LIFE.mul_f64(fastrand::f64()));
        // As `kill -9` does.
        drop(host);
        let killed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let Some((generation, written)) = newest(&folder) else { continue };
        let count = assert_whole(&generation);
        assert!(count >= before, "crash {crash}: {count} after {before}");
        let delivered = output(&folder);
        let newest_count =
            delivered.iter().filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).max();
        let newest_count = newest_count.unwrap_or(0);
        assert!(newest_count >= count, "crash {crash}: state of {count} messages, {newest_count} delivered");
        if newest_count > count && count > before {
            midway += 1;
            assert!(
                killed.saturating_sub(written) < interval + SLACK,
                "crash {crash}: {written:?} at {killed:?}"
            );
        }
        before = count;
    }
    let host = folder.run(&config);
    host.becomes("p", "finished");
    assert!(host.stop().status.success());
    assert_eq!(assert_whole(&newest(&folder).expect("it was written").0), lines);
    // Outputs may repeat, but none is missing, and the count of each message is always the same.
    let mut seen = vec![false; usize::try_from(lines).unwrap()];
    for line in output(&folder) {
        // Half a line of a process that was killed may stand before it.
        let mut words = line.rsplit(' ');
        let (Some(number), Some(count)) = (words.next(), words.next()) else { continue };
        if let (Ok(count), Ok(number), 8) = (count.parse::<u64>(), number.parse::<u64>(), number.len()) {
            assert_eq!(count, number + 1, "a message counts once: {line}");
            seen[usize::try_from(number).unwrap()] = true;
        }
    }
    let missing = seen.iter().position(|seen| !seen);
    assert_eq!(missing, None, "each message is delivered; {midway} of {crashes} kills were in the middle");
}
