//! A new version of a plugin on trial: in shadow beside the one that runs, and in its probation after it took over.
//!
//! The plugin of these tests counts messages, in its memory and with the host, and its second version does what
//! messages say that are for it alone. Here the ends of the pipeline are the test's; what a user sees of a host is in
//! `trial/host.rs`. What a shadow costs says `trial/cost.rs`, by hand: `TIDEMILL_SHADOW_MESSAGES=2000000` in a release.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "trial/cost.rs"]
mod cost;
#[path = "trial/host.rs"]
mod host;

use std::collections::BTreeSet;
use std::time::Duration;
use tidemill::config::{MessageKey, OnError, Redacted};
use tidemill::pipeline::{Ending, RolledBack, ShadowCounts, ShadowOutcome, Shadowed, VersionChange};
use tidemill::plugin::{FaultKind, Plugin};
use tidemill::reason::Reason;
use tidemill::verdict::ShadowDifference;
use tidemill_tests::scene::{PATIENCE, Scene, Stage};
use tidemill_tests::{guest, load};
use tokio::sync::oneshot;

const SHADOW_METRIC: &str = "tidemill_plugin_shadow_messages_total";

fn version(number: u32) -> Plugin {
    load(&guest(&format!("trial-v{number}")).expect("guests in Rust are built"))
}

async fn scene(stage: Stage) -> Scene {
    Scene::open(&version(1), stage).await
}

fn told(what: &str) -> String {
    format!(r#"{{"k":"a","do":"{what}"}}"#)
}

fn counts(same: u64, different: u64, faulted: u64) -> ShadowCounts {
    ShadowCounts { same, different, faulted }
}

async fn within<T>(answer: oneshot::Receiver<T>) -> T {
    tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("the pipeline lives")
}

/// Shows the second version so many messages, and then the rest of a scene of the usual kind.
async fn shown(messages: &[&str]) -> (Shadowed, Scene) {
    let mut scene = scene(Stage::default()).await;
    let verdict = scene.shadow(version(2), messages.len() as u64, PATIENCE).await;
    let batch: Vec<String> = messages.iter().map(|what| told(what)).collect();
    scene.send(&batch).await;
    let shadowed = within(verdict).await;
    scene.send(&[told("pass")]).await;
    while scene.receive(1).await.last() != Some(&told("pass")) {}
    (shadowed, scene)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_makes_the_same_of_every_message_passes_and_leaves_no_trace() {
    let mut scene = scene(Stage::default()).await;
    scene.send(&[told("count")]).await;
    assert_eq!(scene.receive(1).await, ["a 1 1"]);
    let verdict = scene.shadow(version(2), 10, PATIENCE).await;
    let words =
        ["count", "pass", "drop", "side", "reject", "count", "say-twice", "log", "count", "count", "count"];
    let batch = words.map(told);
    scene.send(&batch).await;
    let Shadowed { outcome, counts: compared, first, retired } = within(verdict).await;
    assert_eq!((outcome, compared, first), (ShadowOutcome::Passed, counts(10, 0, 0), None));
    assert_eq!(retired.len(), 1);
    let mut expected: Vec<String> =
        ["a 2 2", "P", "S", "a 3 3", "again", "again", "L", "a 4 4", "a 5 5", "a 6 6"]
            .map(str::to_owned)
            .into();
    for (mark, word) in [("P", "pass"), ("S", "side"), ("L", "log")] {
        *expected.iter_mut().find(|text| *text == mark).unwrap() = told(word);
    }
    assert_eq!(scene.receive(10).await, expected, "each once, and what the host keeps was counted once");
    assert_eq!(scene.metric("tidemill_guest_seen_total"), 6);
    assert_eq!(scene.metric(&format!("{SHADOW_METRIC} outcome=\"same\"")), 10);
    assert_eq!(scene.metric(&format!("{SHADOW_METRIC} outcome=\"different\"")), 0);
    assert_eq!(scene.metric("tidemill_plugin_calls_total"), 2, "calls of the version in shadow do not count");
    let snapshots = scene.setup.state.snapshots();
    scene.until("tidemill_plugin_snapshot_bytes", |bytes| bytes > 0).await;
    assert!(snapshots.iter().flatten().count() == 1, "{snapshots:?}");
    let (_, ended, metrics) = scene.end().await;
    assert_eq!(ended.ending, Ending::Finished);
    assert_eq!(metrics.stage_counts("p", "trial-v1").in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_counted_and_the_first_difference_is_told() {
    let (shadowed, _) = shown(&["count", "new-say", "pass", "new-drop", "new-reject", "new-say-twice"]).await;
    assert_eq!((shadowed.outcome, shadowed.counts), (ShadowOutcome::Passed, counts(2, 4, 0)));
    let first = ShadowDifference { old: told("new-say"), new: "as nobody else".into() };
    assert_eq!(shadowed.first, Some(first));
    for (word, old, new) in [
        ("new-drop", told("new-drop"), "filtered".to_owned()),
        ("new-reject", told("new-reject"), "rejected: as the message says".to_owned()),
        ("new-side", told("new-side"), format!("to \"side\" {}", told("new-side"))),
        ("new-say-twice", told("new-say-twice"), "again, again".to_owned()),
        ("new-wait", told("new-wait"), "put off: not yet".to_owned()),
    ] {
        let (shadowed, _) = shown(&[word]).await;
        assert_eq!((shadowed.counts, shadowed.first), (counts(0, 1, 0), Some(ShadowDifference { old, new })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_of_any_kind_ends_the_shadow_and_costs_the_running_version_nothing() {
    for (word, kind) in
        [("new-trap", FaultKind::Trap), ("new-spin", FaultKind::Deadline), ("new-flood", FaultKind::Output)]
    {
        let limits = tidemill::config::Limits {
            deadline: Duration::from_millis(100),
            output_bytes: 1 << 20,
            ..tidemill::config::Limits::default()
        };
        let mut scene = scene(Stage { limits, ..Stage::default() }).await;
        let verdict = scene.shadow(version(2), 100, PATIENCE).await;
        scene.send(&[told("count")]).await;
        assert_eq!(scene.receive(1).await, ["a 1 1"]);
        scene.send(&[told(word), told("count")]).await;
        let shadowed = within(verdict).await;
        let ShadowOutcome::Faulted(fault) = shadowed.outcome else { panic!("{:?}", shadowed.outcome) };
        assert_eq!((fault.kind, shadowed.counts), (kind, counts(1, 0, 1)), "{fault}");
        assert_eq!(scene.receive(2).await, [told(word), "a 2 2".to_owned()]);
        assert_eq!(scene.metric("tidemill_plugin_faults_total"), 0);
        scene.send(&[told("count")]).await;
        assert_eq!(scene.receive(1).await, ["a 3 3"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_running_version_rejects_fails_on_or_puts_off_is_compared_message_by_message() {
    let mut scene = scene(Stage { on_error: OnError::Drop, ..Stage::default() }).await;
    scene.send(&[told("count")]).await;
    scene.receive(1).await;
    let verdict = scene.shadow(version(2), 8, PATIENCE).await;
    let words = ["count", "reject", "wait", "count", "wait", "wait", "pass", "count"];
    scene.send(&words.map(told)).await;
    let shadowed = within(verdict).await;
    assert_eq!((shadowed.outcome, shadowed.counts), (ShadowOutcome::Passed, counts(8, 0, 0)));
    assert_eq!(shadowed.first, None);
    let got = scene.receive(7).await;
    assert_eq!((got[0].as_str(), got[6].as_str()), ("a 2 2", "a 4 4"));
    // The version in shadow is at fault with the running one: that one goes on as ever, and this one is rejected.
    let verdict = scene.shadow(version(2), 8, PATIENCE).await;
    scene.send(&["count", "trap", "count"].map(told)).await;
    let shadowed = within(verdict).await;
    assert!(matches!(&shadowed.outcome, ShadowOutcome::Faulted(fault) if fault.kind == FaultKind::Trap));
    assert_eq!(scene.receive(2).await, ["a 5 5", "a 6 6"]);
    assert_eq!(scene.metrics.loss_counts("p", "trial-v1", Reason::Trap).dropped, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_running_version_begins_anew_after_a_fault_so_does_the_one_in_shadow() {
    // The second version repairs what the first fails on.
    let mut scene = Scene::open(&version(2), Stage { on_error: OnError::Drop, ..Stage::default() }).await;
    let verdict = scene.shadow(version(1), 5, PATIENCE).await;
    scene.send(&["count", "new-trap", "count", "count"].map(told)).await;
    let got = scene.receive(3).await;
    scene.send(&[told("count")]).await;
    let shadowed = within(verdict).await;
    assert_eq!(shadowed.counts, counts(4, 1, 0), "{got:?}: {:?}", shadowed.first);
    let first = shadowed.first.unwrap();
    assert!(first.old.starts_with("failed: trap: ") && first.new == told("new-trap"), "{first:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_are_told_the_same_time_and_draw_the_same_numbers() {
    let (shadowed, _) = shown(&["tell"; 50]).await;
    assert_eq!((shadowed.counts, shadowed.first), (counts(50, 0, 0), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_the_timer_are_compared_and_one_that_differs_counts() {
    for (config, differs) in [(r#"{ "tick_ms": 5 }"#, false), (r#"{ "tick_ms": 5, "new_tick": "!" }"#, true)]
    {
        let mut scene = scene(Stage { config, ..Stage::default() }).await;
        let verdict = scene.shadow(version(2), 2, PATIENCE).await;
        scene.send(&[told("pass")]).await;
        while scene.receive(1).await.last() != Some(&told("pass")) {}
        assert_eq!(scene.receive(3).await, ["tick"; 3]);
        scene.send(&[told("pass")]).await;
        let shadowed = within(verdict).await;
        assert_eq!((shadowed.counts.same, shadowed.counts.different > 0), (2, differs));
        let first = ShadowDifference { old: "tick".into(), new: "tick!".into() };
        assert_eq!(shadowed.first, differs.then_some(first));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_instances_are_shadowed_each_by_its_own_with_its_state_and_its_keys() {
    let key = Some(MessageKey::Pointer(Redacted::plain("/k")));
    let mut scene = scene(Stage { instances: 2, key, ..Stage::default() }).await;
    let batch: Vec<String> = (0..20).map(|n| format!(r#"{{"k":"k{n}"}}"#)).collect();
    scene.send(&batch).await;
    scene.receive(20).await;
    let verdict = scene.shadow(version(2), 35, PATIENCE).await;
    for _ in 0..2 {
        scene.send(&batch).await;
        scene.receive(20).await;
    }
    let shadowed = within(verdict).await;
    assert_eq!((shadowed.outcome, shadowed.counts), (ShadowOutcome::Passed, counts(35, 0, 0)));
    assert_eq!((shadowed.first, shadowed.retired.len()), (None, 2));
    scene.send(&batch).await;
    let got: BTreeSet<String> = scene.receive(20).await.into_iter().collect();
    assert_eq!(got, (0..20).map(|n| format!("k{n} 4 4")).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_message_comes_the_shadow_ends() {
    let mut scene = scene(Stage::default()).await;
    // Longer than a busy machine makes the message wait.
    let patience = Duration::from_secs(5);
    let verdict = scene.shadow(version(2), 100, patience).await;
    scene.send(&[told("count")]).await;
    let shadowed = within(verdict).await;
    assert_eq!((shadowed.outcome, shadowed.counts), (ShadowOutcome::Silent(patience), counts(1, 0, 0)));
    assert_eq!(scene.receive(1).await, ["a 1 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_a_swap_and_another_shadow_end_a_shadow_without_a_verdict() {
    let mut scene = scene(Stage::default()).await;
    let first = scene.shadow(version(2), 100, PATIENCE).await;
    let second = scene.shadow(version(2), 100, PATIENCE).await;
    assert!(tokio::time::timeout(PATIENCE, first).await.unwrap().is_err());
    let swapped = scene.swap(version(2), "{}").await;
    assert!(within(swapped).await.outcome.is_ok());
    assert!(tokio::time::timeout(PATIENCE, second).await.unwrap().is_err());
    let third = scene.shadow(version(1), 100, PATIENCE).await;
    scene.send(&[told("count")]).await;
    assert_eq!(scene.receive(1).await, ["a 1 1"]);
    scene.stop(PATIENCE).await;
    assert!(tokio::time::timeout(PATIENCE, third).await.unwrap().is_err());
    let (_, ended, _) = scene.end().await;
    assert_eq!((ended.ending, ended.given_up), (Ending::Stopped, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_version_that_fails_again_and_again_nobody_waits_to_see_more() {
    let mut scene = scene(Stage::default()).await;
    scene.send(&["trap"; 6].map(told)).await;
    scene.until("tidemill_plugin_paused", |paused| paused == 1).await;
    let verdict = scene.shadow(version(2), 100, PATIENCE).await;
    assert_eq!(within(verdict).await.outcome, ShadowOutcome::Passed);
    let swapped = scene.swap(version(2), "{}").await;
    assert!(within(swapped).await.outcome.is_ok());
    scene.send(&[told("count")]).await;
    assert_eq!(scene.receive(1).await, ["a 1 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fault_too_many_puts_the_version_before_back_with_the_state_of_the_swap() {
    let mut scene = scene(Stage { on_error: OnError::Drop, ..Stage::default() }).await;
    scene.send(&["count", "count"].map(told)).await;
    assert_eq!(scene.receive(2).await, ["a 1 1", "a 2 2"]);
    let rolled_back = scene.swap_on_probation(version(2), PATIENCE, 1).await;
    scene.send(&["count", "new-trap", "count", "new-reject", "count"].map(told)).await;
    let got = scene.receive(3).await;
    assert_eq!(
        got.last().map(String::as_str),
        Some("a 5 5"),
        "one fault is allowed, and rejections do not count"
    );
    // The message that is one too many is the old version's, and so is all that follows it.
    scene.send(&["count", "new-trap", "count"].map(told)).await;
    let got = scene.receive(3).await;
    assert!(got[0].ends_with(" 6"), "{got:?}");
    assert_eq!(got[1..], [told("new-trap"), "a 3 3".to_owned()]);
    let RolledBack { reason } = within(rolled_back).await;
    let reason = reason.unwrap();
    assert!(reason.starts_with("2 faults in its probation, and `max_faults` is 1: trap: "), "{reason}");
    let counts = scene.counts();
    assert_eq!((counts.entered, counts.in_flight, counts.settled.emitted), (10, 0, 7), "{counts:?}");
    assert_eq!(scene.metrics.loss_counts("p", "trial-v1", Reason::Trap).dropped, 1);
    assert_eq!(scene.metrics.loss_counts("p", "trial-v1", Reason::Rejected).dropped, 1);
    scene.send(&[told("new-trap")]).await;
    assert_eq!(scene.receive(1).await, [told("new-trap")], "the old version stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_does_not_start_and_a_timer_that_fails_count_in_a_probation() {
    let mut scene = scene(Stage { on_error: OnError::Drop, ..Stage::default() }).await;
    scene.send(&[told("count")]).await;
    scene.receive(1).await;
    let rolled_back = scene.swap_on_probation(version(2), PATIENCE, 1).await;
    // After the first fault no instance starts any more, until what was set since the swap is undone.
    scene.send(&["die", "new-trap", "count"].map(told)).await;
    assert_eq!(scene.receive(2).await, [told("new-trap"), "a 2 2".to_owned()]);
    let reason = within(rolled_back).await.reason.unwrap();
    assert!(reason.contains("init: ") && reason.contains("it does not start any more"), "{reason}");
    assert_eq!(scene.metric("tidemill_plugin_paused"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_instances_go_back_together_each_with_its_own_state() {
    let key = Some(MessageKey::Pointer(Redacted::plain("/k")));
    let mut scene = scene(Stage { instances: 3, key, ..Stage::default() }).await;
    let batch: Vec<String> = (0..20).map(|n| format!(r#"{{"k":"k{n}"}}"#)).collect();
    scene.send(&batch).await;
    scene.receive(20).await;
    let rolled_back = scene.swap_on_probation(version(2), PATIENCE, 0).await;
    scene.send(&batch).await;
    scene.receive(20).await;
    scene.send(&[told("new-trap")]).await;
    assert_eq!(scene.receive(1).await, [told("new-trap")]);
    assert!(within(rolled_back).await.reason.is_some());
    scene.send(&batch).await;
    let got: BTreeSet<String> = scene.receive(20).await.into_iter().collect();
    assert_eq!(got, (0..20).map(|n| format!("k{n} 2 2")).collect(), "as if the second round had not been");
    let (_, ended, _) = scene.end().await;
    assert_eq!((ended.ending, ended.given_up), (Ending::Finished, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probation_ends_with_its_time_a_newer_version_or_the_pipeline() {
    let mut scene = scene(Stage { on_error: OnError::Drop, ..Stage::default() }).await;
    let is_over = async |rolled_back: oneshot::Receiver<RolledBack>| {
        tokio::time::timeout(PATIENCE, rolled_back).await.unwrap().is_err()
    };
    let short = scene.swap_on_probation(version(2), Duration::from_millis(50), 0).await;
    assert!(is_over(short).await);
    scene.send(&["new-trap", "count"].map(told)).await;
    assert_eq!(scene.receive(1).await, ["a 1 1"]);
    let replaced = scene.swap_on_probation(version(1), PATIENCE, 0).await;
    let newest = scene.swap_on_probation(version(2), PATIENCE, 0).await;
    assert!(is_over(replaced).await);
    scene.send(&["new-trap", "count"].map(told)).await;
    assert_eq!(
        scene.receive(2).await,
        [told("new-trap"), "a 2 2".to_owned()],
        "back to the one before the newest"
    );
    assert!(within(newest).await.reason.is_some());
    let last = scene.swap_on_probation(version(2), PATIENCE, 0).await;
    scene.stop(PATIENCE).await;
    assert!(is_over(last).await);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_before_is_put_back_when_that_is_told_and_only_from_the_version_that_is_meant() {
    let mut scene = scene(Stage::default()).await;
    scene.send(&[told("count")]).await;
    scene.receive(1).await;
    let rolled_back = scene.swap_on_probation(version(2), PATIENCE, 0).await;
    scene.send(&[told("count")]).await;
    assert_eq!(scene.receive(1).await, ["a 2 2"]);
    for meant in [version(1), version(2)] {
        let version = meant.version().clone();
        scene.change(VersionChange::RollBack { stage: 0, version }).await;
    }
    assert_eq!(within(rolled_back).await, RolledBack { reason: None });
    scene.send(&[told("count")]).await;
    assert_eq!(scene.receive(1).await, ["a 2 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_goes_on_beside_the_version_that_was_put_back() {
    let mut scene = scene(Stage { on_error: OnError::Drop, ..Stage::default() }).await;
    scene.send(&[told("count")]).await;
    scene.receive(1).await;
    let rolled_back = scene.swap_on_probation(version(2), PATIENCE, 0).await;
    let verdict = scene.shadow(version(1), 4, PATIENCE).await;
    scene.send(&[told("count")]).await;
    assert_eq!(scene.receive(1).await, ["a 2 2"]);
    scene.send(&["new-trap", "count", "count"].map(told)).await;
    assert!(within(rolled_back).await.reason.is_some());
    let shadowed = within(verdict).await;
    assert_eq!(scene.receive(3).await[1..], ["a 2 2", "a 3 3"]);
    assert_eq!(
        (shadowed.outcome, shadowed.counts.faulted),
        (ShadowOutcome::Passed, 0),
        "{:?}",
        shadowed.first
    );
}
