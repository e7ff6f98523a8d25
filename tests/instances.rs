//! A stage with several instances of its plugin: which of them gets a message, the order of what they give, and
//! that faults, swaps, timers, stops and the end are those of all. The plugin is real, the ends are the test's.
//!
//! The plugin of these tests answers `{"k":KEY,"n":NUMBER}` with `KEY NUMBER COUNT INSTANCE`, the count being
//! that of the key in that instance.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "instances/durable.rs"]
mod durable;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidemill::config::{Limits, MessageKey, OnError, Redacted};
use tidemill::pipeline::{Ended, Ending, Resume, Swapped};
use tidemill::plugin::{Plugin, StatePart};
use tidemill::reason::Reason;
use tidemill::verdict::CarriedState;
use tidemill_tests::scene::{PATIENCE, Scene, Stage, metric};
use tidemill_tests::{guest, load, plugin};

const TALLY: &str = "tally";

fn tally() -> Plugin {
    load(&guest(TALLY).expect("guests in Rust are built"))
}

async fn scene(stage: Stage) -> Scene {
    Scene::open(&tally(), stage).await
}

fn by_key(instances: u32) -> Stage {
    Stage { instances, key: Some(MessageKey::Pointer(Redacted::plain("/k"))), ..Stage::default() }
}

fn in_order(instances: u32) -> Stage {
    Stage { instances, ..Stage::default() }
}

fn message(key: &str, number: u64) -> String {
    format!(r#"{{"k":"{key}","n":{number}}}"#)
}

fn told(key: &str, number: u64, what: &str) -> String {
    format!(r#"{{"k":"{key}","n":{number},"do":"{what}"}}"#)
}

/// What came of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    key: String,
    number: u64,
    count: u64,
    instance: String,
}

fn counted(text: &str) -> Counted {
    let [key, number, count, instance] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let number = number.parse().unwrap();
    Counted { key: key.into(), number, count: count.parse().unwrap(), instance: instance.into() }
}

fn all_counted(texts: &[String]) -> Vec<Counted> {
    texts.iter().map(|text| counted(text)).collect()
}

fn finished() -> Ended {
    Ended { ending: Ending::Finished, given_up: None, resume: Resume::Here(None) }
}

/// A key that belongs to this one of so many instances.
fn key_of(instance: usize, of: usize) -> String {
    let mut keys = (0..).map(|n: u32| format!("k{n}"));
    keys.find(|key| StatePart::of_key(key.as_bytes(), of) == instance).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_key_all_messages_of_a_key_go_to_one_instance_and_come_out_in_their_order() {
    const MESSAGES: u64 = 4000;
    let mut scene = scene(by_key(3)).await;
    let mut rng = fastrand::Rng::with_seed(7);
    let mut sent = 0;
    let mut got = Vec::new();
    while sent < MESSAGES {
        let batch: Vec<String> = (sent..MESSAGES.min(sent + rng.u64(1..300)))
            .map(|n| {
                let work = if rng.u32(..10) == 0 { rng.u32(..20_000) } else { 0 };
                format!(r#"{{"work":{work},"k":"key-{}","n":{n}}}"#, n * 7919 % 13)
            })
            .collect();
        sent += batch.len() as u64;
        scene.send(&batch).await;
        got.extend(all_counted(&scene.receive(batch.len()).await));
    }
    let mut of_keys: BTreeMap<&str, Vec<&Counted>> = BTreeMap::new();
    for counted in &got {
        of_keys.entry(&counted.key).or_default().push(counted);
    }
    assert_eq!(of_keys.len(), 13);
    for (key, all) in of_keys {
        let instance = format!("{}/3", StatePart::of_key(key.as_bytes(), 3));
        assert!(
            all.iter().all(|counted| counted.instance == instance),
            "{key} belongs to {instance}: {all:?}"
        );
        assert!(all.is_sorted_by(|a, b| a.number < b.number), "{key}: {all:?}");
        assert!((1..).zip(all).all(|(count, counted)| counted.count == count), "{key}");
    }
    let (last, ended, metrics) = scene.end().await;
    assert_eq!(ended, finished());
    assert_eq!(last.len(), 3, "each instance is told of the end: {last:?}");
    let counts = metrics.stage_counts("p", TALLY);
    assert_eq!((counts.entered, counts.settled.passed, counts.in_flight), (MESSAGES, MESSAGES, 0));
    assert_eq!(counts.settled.emitted, MESSAGES + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_the_order_of_all_is_kept_whatever_becomes_of_each_message_and_however_long_it_takes() {
    const MESSAGES: u64 = 3000;
    let mut scene = scene(in_order(3)).await;
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    let (mut failed, mut filtered) = (0, 0);
    let mut next = 0;
    while next < MESSAGES {
        let mut batch = Vec::new();
        for n in next..MESSAGES.min(next + rng.u64(1..400)) {
            let what = match rng.u32(..400) {
                0..3 => "trap",
                3..10 => "reject",
                10..14 => "wait",
                14..30 => "drop",
                _ => "count",
            };
            match what {
                "trap" | "reject" => failed += 1,
                "drop" => filtered += 1,
                _ => expected.push(n),
            }
            let work = if rng.u32(..10) == 0 { rng.u32(..30_000) } else { 0 };
            batch.push(format!(r#"{{"k":"all","n":{n},"do":"{what}","work":{work}}}"#));
        }
        next += batch.len() as u64;
        scene.send(&batch).await;
        got.extend(all_counted(&scene.receive(expected.len() - got.len()).await));
    }
    assert_eq!(got.iter().map(|counted| counted.number).collect::<Vec<_>>(), expected);
    let instances: BTreeSet<&str> = got.iter().map(|counted| counted.instance.as_str()).collect();
    assert_eq!(instances, ["0/3", "1/3", "2/3"].into());
    let (last, ended, metrics) = scene.end().await;
    assert_eq!((last.len(), ended), (3, finished()));
    let counts = metrics.stage_counts("p", TALLY);
    assert_eq!((counts.entered, counts.in_flight), (MESSAGES, 0));
    assert_eq!((counts.settled.passed, counts.settled.filtered), (expected.len() as u64, filtered));
    let lost = [Reason::Trap, Reason::Rejected].map(|reason| metrics.loss_counts("p", TALLY, reason).dropped);
    assert_eq!(lost.iter().sum::<u64>(), failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_behind_a_message_that_waits_is_held_back_and_comes_in_its_order() {
    let mut scene = scene(Stage { retries: 1000, ..in_order(2) }).await;
    // The first share has the message that waits.
    let batch: Vec<String> =
        (0..40).map(|n| if n == 5 { told("a", n, "wait") } else { message("a", n) }).collect();
    scene.send(&batch).await;
    let got = all_counted(&scene.receive(40).await);
    assert_eq!(got.iter().map(|counted| counted.number).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
    let (_, ended, _) = scene.end().await;
    assert_eq!(ended, finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_costs_the_instance_that_it_is_in_and_no_other() {
    let mut scene = scene(by_key(2)).await;
    let keys = [key_of(0, 2), key_of(1, 2)];
    let batch: Vec<String> = (0..40)
        .map(|n| match n {
            10 | 30 => told(&keys[0], n, "trap"),
            _ => message(&keys[n as usize % 2], n),
        })
        .collect();
    scene.send(&batch).await;
    let got = all_counted(&scene.receive(38).await);
    for (key, expected) in keys.iter().zip([18, 20]) {
        let counts: Vec<u64> = got.iter().filter(|c| c.key == *key).map(|counted| counted.count).collect();
        assert_eq!(counts, (1..=expected).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(scene.metrics.loss_counts("p", TALLY, Reason::Trap).dropped, 2);
    let (last, ended, _) = scene.end().await;
    let expected = vec![format!("final 0/2 {}=18", keys[0]), format!("final 1/2 {}=20", keys[1])];
    assert_eq!((last, ended), (expected, finished()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_instance_fails_again_and_again_the_others_work_and_a_stop_gives_up_what_waits_for_it_alone()
 {
    let mut scene = scene(by_key(2)).await;
    let keys = [key_of(0, 2), key_of(1, 2)];
    let mut batch: Vec<String> = (0..6).map(|n| told(&keys[0], n, "trap")).collect();
    batch.extend((6..20).map(|n| message(&keys[1], n)));
    batch.push(message(&keys[0], 20));
    scene.send(&batch).await;
    let got = all_counted(&scene.receive(14).await);
    assert!(got.iter().all(|counted| counted.instance == "1/2"), "{got:?}");
    scene.until("tidemill_plugin_paused instance=\"0\"", |paused| paused == 1).await;
    assert_eq!(scene.metric("tidemill_plugin_paused instance=\"1\""), 0);
    assert!(scene.metrics.is_paused("p", TALLY));
    let counts = scene.counts();
    assert_eq!((counts.entered, counts.in_flight), (21, 2), "{counts:?}");
    scene.stop(PATIENCE).await;
    let (last, ended, metrics) = scene.end().await;
    assert_eq!(ended, Ended { ending: Ending::Stopped, given_up: Some(2), resume: Resume::Here(None) });
    assert_eq!(last, ["final 0/2".to_owned(), format!("final 1/2 {}=14", keys[1])]);
    assert_eq!(metrics.loss_counts("p", TALLY, Reason::Shutdown).dropped, 2);
    assert_eq!(metric(&metrics, "tidemill_messages_in_flight"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_order_a_stop_cuts_where_an_instance_fails_again_and_again_and_nothing_behind_goes_through() {
    let mut scene = scene(in_order(2)).await;
    // Two shares: the first ends in faults, the second is good and held back.
    let mut batch: Vec<String> = (0..4).map(|n| message("a", n)).collect();
    batch.extend((4..10).map(|n| told("a", n, "trap")));
    batch.extend((10..20).map(|n| message("a", n)));
    scene.send(&batch).await;
    let got = all_counted(&scene.receive(4).await);
    assert_eq!(got.iter().map(|counted| counted.number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    scene.until("tidemill_plugin_paused", |paused| paused == 1).await;
    let counts = scene.counts();
    assert_eq!((counts.entered, counts.in_flight), (20, 11), "one trap and all behind it: {counts:?}");
    scene.stop(PATIENCE).await;
    let (last, ended, metrics) = scene.end().await;
    assert_eq!(ended, Ended { ending: Ending::Stopped, given_up: Some(11), resume: Resume::Here(None) });
    assert!(last.iter().all(|text| text.starts_with("final ")), "{last:?}");
    assert_eq!(metrics.loss_counts("p", TALLY, Reason::Trap).dropped, 5);
    assert_eq!(metric(&metrics, "tidemill_messages_in_flight"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_carries_the_state_of_each_instance_or_changes_none() {
    let mut scene = scene(by_key(3)).await;
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    let batch: Vec<String> = (0..).zip(&keys).map(|(n, key)| message(key, n)).collect();
    for round in 1..=4 {
        scene.send(&batch).await;
        let got = all_counted(&scene.receive(20).await);
        assert!(got.iter().all(|counted| counted.count == round), "round {round}: {got:?}");
        // A version that does not take the counts of one instance takes over in none.
        let other = scene.swap(load(&guest("counter-v1").unwrap()), "{}").await;
        let Swapped { outcome, retired, .. } = tokio::time::timeout(PATIENCE, other).await.unwrap().unwrap();
        assert!(outcome.is_err() && retired.len() == 3, "{outcome:?}");
        let swapped = scene.swap(tally(), "{}").await;
        let Swapped { outcome, retired, .. } =
            tokio::time::timeout(PATIENCE, swapped).await.unwrap().unwrap();
        assert!(matches!(outcome, Ok(CarriedState::Carried)) && retired.len() == 3, "{outcome:?}");
    }
    let kept: Vec<_> = scene.setup.state.snapshots();
    assert!(kept.len() == 3 && kept.iter().all(Option::is_some), "{kept:?}");
    let (_, ended, _) = scene.end().await;
    assert_eq!(ended, finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_back_at_a_swap_goes_on_in_its_order() {
    let mut scene = scene(Stage { retries: 10_000, ..in_order(2) }).await;
    // The message that waits lets nothing go on, until a version comes that decides on everything.
    let waits = (0..2).map(|n| format!(r#"{{"k":"a","n":{n},"do":"pass"}}"#));
    let batch: Vec<String> =
        waits.chain([told("a", 2, "wait-on")]).chain((3..6).map(|n| message("a", n))).collect();
    scene.send(&batch).await;
    assert_eq!(scene.receive(2).await, batch[..2]);
    scene.until("tidemill_plugin_calls_total", |calls| calls >= 4).await;
    assert_eq!(scene.counts().in_flight, 4);
    let swapped = scene.swap(load(&plugin("forward")), "{}").await;
    assert!(tokio::time::timeout(PATIENCE, swapped).await.unwrap().unwrap().outcome.is_ok());
    let rest = scene.receive(4).await;
    assert_eq!(rest[0], batch[2]);
    let counted = all_counted(&rest[1..]);
    assert_eq!(counted.iter().map(|counted| counted.number).collect::<Vec<_>>(), [3, 4, 5]);
    let (_, ended, _) = scene.end().await;
    assert_eq!(ended, finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_are_called_in_each_instance() {
    let mut scene = scene(Stage { config: r#"{ "tick_ms": 10 }"#, ..by_key(3) }).await;
    let ticks: BTreeSet<String> = scene.receive(3).await.into_iter().collect();
    assert_eq!(ticks, ["tick 0/3", "tick 1/3", "tick 2/3"].map(String::from).into());
    let emitted = scene.counts().settled.emitted;
    assert_eq!(emitted % 3, 0, "{emitted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_and_counters_are_those_of_all_instances_and_gauges_of_each() {
    let mut scene = scene(by_key(2)).await;
    let keys: BTreeSet<String> = (0..10).map(|n| format!("k{n}")).collect();
    let batch: Vec<String> = keys.iter().map(|key| message(key, 0)).collect();
    scene.send(&batch).await;
    scene.receive(10).await;
    let kept = scene.setup.state.entries();
    let kept: BTreeSet<&str> = kept.iter().filter_map(|(key, _)| key.strip_prefix("count/")).collect();
    assert_eq!(kept, keys.iter().map(String::as_str).collect());
    assert_eq!(scene.metric("tidemill_guest_seen_total"), 10);
    let gauges = [0, 1].map(|n| scene.metric(&format!("tidemill_guest_keys instance=\"{n}\"")));
    assert!(gauges.iter().sum::<u64>() == 10 && gauges[0] > 0 && gauges[1] > 0, "{gauges:?}");
    for gauge in ["tidemill_plugin_memory_bytes", "tidemill_plugin_snapshot_bytes"] {
        for instance in [0, 1] {
            scene.until(&format!("{gauge} instance=\"{instance}\""), |bytes| bytes > 0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grace_period_ends_every_call() {
    let limits = Limits { deadline: Duration::from_secs(50), ..Limits::default() };
    let scene = scene(Stage { limits, ..by_key(2) }).await;
    let endless = |instance| format!(r#"{{"k":"{}","n":0,"work":4000000000000}}"#, key_of(instance, 2));
    scene.send(&[endless(0), endless(1), message(&key_of(1, 2), 1)]).await;
    scene.until("tidemill_messages_in_flight stage=\"tally\"", |waiting| waiting == 3).await;
    scene.stop(Duration::from_millis(200)).await;
    let (rest, ended, metrics) = scene.end().await;
    assert_eq!(rest, Vec::<String>::new());
    assert_eq!(ended, Ended { ending: Ending::Stopped, given_up: Some(3), resume: Resume::Here(None) });
    assert_eq!(metric(&metrics, "tidemill_messages_in_flight"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_fails_where_that_stops_the_pipeline_stops_it_wherever_it_was() {
    for stage in [by_key(3), in_order(3)] {
        let scene = scene(Stage { on_error: OnError::Stop, ..stage }).await;
        let batch: Vec<String> = (0..30)
            .map(|n| if n == 17 { told("k1", n, "reject") } else { message(&format!("k{}", n % 5), n) })
            .collect();
        scene.send(&batch).await;
        let (rest, ended, metrics) = scene.end().await;
        assert!(matches!(ended.ending, Ending::Failed(_)), "{ended:?}");
        assert_eq!(rest.iter().filter(|text| !text.starts_with("final ")).count(), 29);
        assert_eq!(metrics.loss_counts("p", TALLY, Reason::Rejected).dropped, 1);
    }
}
