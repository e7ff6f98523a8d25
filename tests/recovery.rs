//! A pipeline whose plugin fails: what is kept, what is tried again and when, what a stop and a swap do
//! meanwhile, and that every message is accounted for. The plugin is real, the ends are the test's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidemill::config::{Limits, OnError};
use tidemill::pipeline::{Ended, Ending, Resume, Swapped};
use tidemill::plugin::Plugin;
use tidemill::reason::Reason;
use tidemill::source::SourceChunk;
use tidemill::verdict::CarriedState;
use tidemill_tests::scene::{PATIENCE, Scene, Stage, metric};
use tidemill_tests::{guest, load, plugin, texts};

/// The name of the stage and its plugin.
const MOODY: &str = "moody";

fn moody() -> Plugin {
    load(&guest(MOODY).expect("guests in Rust are built"))
}

async fn scene(stage: Stage) -> Scene {
    Scene::open(&moody(), stage).await
}

#[tokio::test]
async fn state_is_saved_within_a_second_of_a_change_also_when_nothing_follows() {
    let mut scene = scene(Stage::default()).await;
    scene.send(&["count"; 3]).await;
    assert_eq!(scene.receive(3).await, ["1", "2", "3"]);
    // Nothing follows. The length of the snapshot is the count.
    scene.until("tidemill_plugin_snapshot_bytes", |bytes| bytes == 3).await;
    scene.send(&["trap"]).await;
    scene.send(&["count"]).await;
    assert_eq!(scene.receive(1).await, ["4"], "the state was saved");
    assert_eq!(scene.metric("tidemill_plugin_state_lost_total"), 0);
    let (_, ended, metrics) = scene.end().await;
    assert_eq!(ended, Ended { ending: Ending::Finished, given_up: None, resume: Resume::Here(None) });
    assert_eq!(metrics.loss_counts("p", MOODY, Reason::Trap).dropped, 1);
}

#[tokio::test]
async fn while_a_batch_is_narrowed_the_state_of_accepted_messages_is_kept() {
    let mut scene = scene(Stage::default()).await;
    let counts = ["count"; 5];
    let batch = [&counts[..], &["trap"], &counts, &["trap"], &counts].concat();
    scene.send(&batch).await;
    let numbers: Vec<String> = (1..=15).map(|n: u32| n.to_string()).collect();
    assert_eq!(scene.receive(15).await, numbers);
    let (last, ..) = scene.end().await;
    assert_eq!(last, ["final 15"]);
}

#[tokio::test]
async fn a_snapshot_that_is_refused_costs_only_itself() {
    let mut scene = scene(Stage { config: r#"{ "snapshot": "refuse" }"#, ..Stage::default() }).await;
    scene.send(&["count"]).await;
    scene.until("tidemill_plugin_faults_total kind=\"snapshot\"", |faults| faults >= 1).await;
    scene.send(&["count"]).await;
    assert_eq!(scene.receive(2).await, ["1", "2"]);
    assert_eq!(scene.metric("tidemill_plugin_state_lost_total"), 0, "the instance lives on");
    // Now the state is lost, and that is said.
    scene.send(&["trap"]).await;
    scene.until("tidemill_plugin_state_lost_total", |lost| lost == 1).await;
}

#[tokio::test]
async fn an_instance_that_is_given_up_for_its_snapshot_is_counted_as_state_lost() {
    let mut scene = scene(Stage { config: r#"{ "snapshot": "trap" }"#, ..Stage::default() }).await;
    scene.send(&["count"]).await;
    scene.until("tidemill_plugin_state_lost_total", |lost| lost == 1).await;
    scene.send(&["count"]).await;
    assert_eq!(scene.receive(2).await, ["1", "1"]);
}

#[tokio::test]
async fn an_instance_that_does_not_start_again_is_waited_for_and_a_new_version_is_a_new_chance_at_once() {
    let mut scene = scene(Stage::default()).await;
    // What comes before the trap is accepted, and goes on.
    scene.send(&["count", "no-start", "trap", "after", "after"]).await;
    assert_eq!(scene.receive(1).await, ["1"], "what had passed goes on");
    scene.until("tidemill_plugin_paused", |paused| paused == 1).await;
    assert_eq!(scene.metrics.loss_counts("p", MOODY, Reason::Trap).dropped, 0, "nothing is given up for it");
    let counts = scene.counts();
    assert_eq!((counts.entered, counts.in_flight), (5, 3), "the others wait: {counts:?}");
    let swapped = scene.swap(load(&plugin("forward")), "{}").await;
    let Swapped { outcome, .. } = tokio::time::timeout(PATIENCE, swapped).await.unwrap().unwrap();
    assert!(matches!(outcome, Ok(CarriedState::Older)), "{outcome:?}");
    assert_eq!(scene.receive(3).await, ["trap", "after", "after"], "the new version takes what waited");
    assert_eq!(scene.metric("tidemill_plugin_paused"), 0);
    let (_, ended, _) = scene.end().await;
    assert_eq!(ended, Ended { ending: Ending::Finished, given_up: None, resume: Resume::Here(None) });
}

#[tokio::test]
async fn what_a_plugin_cannot_decide_yet_waits_with_all_behind_it_in_order_and_its_timer_goes_on() {
    let config = r#"{ "tick_ms": 10, "opens_after": 3 }"#;
    let mut scene = scene(Stage { config, retries: 10_000, ..Stage::default() }).await;
    scene.send(&["a", "count", "wait 5", "b", "reject"]).await;
    scene.send(&["wait 5", "c"]).await;
    assert_eq!(scene.receive(2).await, ["a", "1"], "what is before it goes on");
    assert_eq!(scene.receive(4).await, ["wait 5", "b", "wait 5", "c"]);
    let counts = scene.counts();
    assert_eq!((counts.entered, counts.in_flight), (7, 0), "{counts:?}");
    assert_eq!(scene.metrics.loss_counts("p", MOODY, Reason::Rejected).dropped, 1);
    let (_, ended, _) = scene.end().await;
    assert_eq!(ended, Ended { ending: Ending::Finished, given_up: None, resume: Resume::Here(None) });
}

#[tokio::test]
async fn a_message_is_offered_again_as_often_as_the_configuration_says_and_is_rejected_then() {
    for (retries, offers) in [(0, 1), (3, 4)] {
        let mut scene = scene(Stage { retries, ..Stage::default() }).await;
        scene.send(&["a", "wait 1", "b", "wait 0", "count"]).await;
        let count = (2 * offers + 1).to_string();
        assert_eq!(scene.receive(3).await, ["a", "b", &count], "each has a count of its own");
        assert_eq!(scene.metrics.loss_counts("p", MOODY, Reason::Rejected).dropped, 2);
        assert_eq!(scene.metric("tidemill_plugin_faults_total kind=\"rejected\""), 2);
    }
}

#[tokio::test]
async fn what_is_rejected_after_its_retries_goes_where_on_error_says() {
    let mut passed = scene(Stage { retries: 1, on_error: OnError::Pass, ..Stage::default() }).await;
    passed.send(&["wait 1", "b"]).await;
    assert_eq!(passed.receive(2).await, ["wait 1", "b"]);
    let stopped = scene(Stage { retries: 1, on_error: OnError::Stop, ..Stage::default() }).await;
    stopped.send(&["wait 1", "b"]).await;
    let (_, ended, metrics) = stopped.end().await;
    assert!(matches!(ended.ending, Ending::Failed(_)), "{ended:?}");
    assert_eq!(metrics.loss_counts("p", MOODY, Reason::Rejected).dropped, 1);
}

#[tokio::test]
async fn while_a_message_waits_the_source_is_held_and_nothing_behind_it_is_lost() {
    let mut scene = scene(Stage { stages: 2, retries: 10_000, ..Stage::default() }).await;
    scene.send(&["a", "wait 60000", "b"]).await;
    assert_eq!(scene.receive(1).await, ["a"]);
    scene.until("tidemill_messages_received_total", |received| received == 3).await;
    // The pipeline takes no more, and sees what it is told at once: a new version decides.
    let swapped = scene.swap(load(&plugin("forward")), "{}").await;
    let Swapped { outcome, .. } = tokio::time::timeout(PATIENCE, swapped).await.unwrap().unwrap();
    assert!(outcome.is_ok(), "{outcome:?}");
    // The second stage has the same plugin still: there it waits once more.
    let counts = scene.counts();
    assert_eq!(counts.entered, 3, "{counts:?}");
    scene.until_waits_in_the_second_stage().await;
    scene.stop(Duration::from_millis(300)).await;
    let (rest, ended, metrics) = scene.end().await;
    assert_eq!(rest, Vec::<String>::new());
    assert_eq!(ended, Ended { ending: Ending::Stopped, given_up: Some(2), resume: Resume::Here(None) });
    assert_eq!(metrics.loss_counts("p", "moody1", Reason::Shutdown).dropped, 2);
}

#[tokio::test]
async fn new_instances_are_offered_at_once_what_was_put_off_and_how_often_it_was_counts_on() {
    let mut scene = scene(Stage { retries: 2, on_error: OnError::Drop, ..Stage::default() }).await;
    scene.send(&["wait 60000", "b"]).await;
    for (offers, tick_ms) in [(1, 3_600_000), (2, 7_200_000)] {
        scene.until("tidemill_plugin_calls_total", |calls| calls >= offers).await;
        let swapped = scene.swap(moody(), &format!(r#"{{ "tick_ms": {tick_ms} }}"#)).await;
        let Swapped { outcome, .. } = tokio::time::timeout(PATIENCE, swapped).await.unwrap().unwrap();
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    assert_eq!(scene.receive(1).await, ["b"], "what was put off by three instances is given up");
    assert_eq!(scene.metrics.loss_counts("p", MOODY, Reason::Rejected).dropped, 1);
}

#[tokio::test]
async fn at_a_stop_what_waits_is_offered_once_more_at_once() {
    let mut scene = scene(Stage { retries: 10_000, ..Stage::default() }).await;
    scene.send(&["wait 60000", "b"]).await;
    scene.until("tidemill_plugin_calls_total", |calls| calls >= 1).await;
    let state = scene.setup.clone();
    let opener = moody().instantiate(&state).await;
    let mut opener = opener.unwrap();
    opener.process(&texts(["open"])).await.unwrap();
    scene.stop(PATIENCE).await;
    assert_eq!(scene.receive(3).await, ["wait 60000", "b", "final 1"]);
    let (_, ended, _) = scene.end().await;
    assert_eq!(ended, Ended { ending: Ending::Stopped, given_up: None, resume: Resume::Here(None) });
}

#[tokio::test]
async fn a_new_instance_that_describes_other_outputs_is_not_taken() {
    let scene = scene(Stage::default()).await;
    scene.send(&["other-outputs"]).await;
    scene.until("tidemill_messages_filtered_total", |filtered| filtered == 1).await;
    scene.send(&["trap", "side"]).await;
    scene.until("tidemill_plugin_paused", |paused| paused == 1).await;
    assert!(scene.metric("tidemill_plugin_faults_total kind=\"init\"") >= 1);
    assert_eq!(scene.metric("tidemill_messages_delivered_total"), 0);
}

#[tokio::test]
async fn after_five_faults_in_a_row_messages_wait_and_one_is_tried_alone() {
    let mut scene = scene(Stage::default()).await;
    scene.send(&["trap"; 5]).await;
    scene.until("tidemill_plugin_paused", |paused| paused == 1).await;
    assert_eq!(scene.metrics.loss_counts("p", MOODY, Reason::Trap).dropped, 5);
    assert!(scene.metrics.is_paused("p", MOODY));
    scene.send(&["count", "count"]).await;
    assert_eq!(scene.receive(2).await, ["1", "2"], "a trial succeeds");
    assert_eq!(scene.metric("tidemill_plugin_paused"), 0);
    // Rejections are no faults.
    scene.send(&["reject"; 20]).await;
    scene.send(&["count"]).await;
    assert_eq!(scene.receive(1).await, ["3"]);
}

#[tokio::test]
async fn at_a_stop_what_waits_for_a_plugin_that_fails_again_and_again_is_counted_as_shutdown() {
    let scene = scene(Stage::default()).await;
    scene.send(&["no-start", "trap", "after", "after"]).await;
    scene.until("tidemill_plugin_paused", |paused| paused == 1).await;
    scene.stop(PATIENCE).await;
    let (all, ended, metrics) = scene.end().await;
    assert_eq!((all.len(), ended.given_up), (0, Some(2)));
    assert_eq!(metrics.loss_counts("p", MOODY, Reason::Shutdown).dropped, 2);
    assert_eq!(metric(&metrics, "tidemill_messages_in_flight"), 0);
}

#[tokio::test]
async fn a_stop_that_gives_up_what_waits_for_a_plugin_lets_nothing_pass_that_came_later() {
    let mut scene = scene(Stage::default()).await;
    let feed = scene.feed.take().unwrap();
    // What the source has a place for still comes after the stop.
    let late = feed.reserve().await.unwrap();
    let words = ["before", "trap", "trap", "trap", "trap", "trap", "waits"];
    feed.reserve().await.unwrap().push(SourceChunk { messages: texts(words), ..SourceChunk::default() });
    scene.until("tidemill_plugin_paused", |paused| paused == 1).await;
    assert_eq!(scene.receive(1).await, ["before"]);
    scene.stop(PATIENCE).await;
    scene.until("tidemill_messages_dropped_total reason=\"shutdown\"", |dropped| dropped == 1).await;
    // What comes now with another configuration is taken, and works: what was given up before it makes the difference.
    let swapped =
        scene.swap(moody(), "{ }").await.await.expect("it is answered while the source is waited for");
    assert!(swapped.outcome.is_ok(), "{swapped:?}");
    assert_eq!(scene.metric("tidemill_plugin_paused"), 0);
    late.push(SourceChunk { messages: texts(["late", "later"]), ..SourceChunk::default() });
    drop(feed);
    let (all, ended, metrics) = scene.end().await;
    assert_eq!(
        (all, ended),
        (
            vec!["final 0".to_owned()],
            Ended { ending: Ending::Stopped, given_up: Some(3), resume: Resume::Here(None) }
        )
    );
    assert_eq!(metrics.loss_counts("p", MOODY, Reason::Shutdown).dropped, 3);
    assert_eq!(metrics.loss_counts("p", MOODY, Reason::Trap).dropped, 5);
    assert_eq!(metric(&metrics, "tidemill_messages_received_total"), 9);
    assert_eq!(metric(&metrics, "tidemill_messages_in_flight"), 0);
}

#[tokio::test]
async fn whoever_offers_a_version_while_a_pipeline_comes_to_its_end_is_answered() {
    let mut scene = scene(Stage::default()).await;
    // The sink takes nothing: the end is waited for after the plugins have finished.
    scene.send(&["flood 2"]).await;
    scene.until("tidemill_stage_messages_in_total", |count| count == 1).await;
    scene.feed = None;
    scene.stop(PATIENCE).await;
    let mut is_answered_late = false;
    while !is_answered_late {
        let answered = tokio::time::timeout(PATIENCE, scene.swap(moody(), "{}").await).await;
        // It comes before the plugins have finished, or too late, which is an answer too.
        is_answered_late = answered.expect("it does not wait for the end").is_err();
    }
    let (all, ended, _) = scene.end().await;
    assert_eq!(
        (all.len(), ended),
        (3, Ended { ending: Ending::Stopped, given_up: None, resume: Resume::Here(None) })
    );
}

#[tokio::test]
async fn the_grace_period_holds_while_a_plugin_works_and_everything_is_counted() {
    let limits = Limits { deadline: Duration::from_secs(20), ..Limits::default() };
    let scene = scene(Stage { limits, ..Stage::default() }).await;
    scene.send(&["spin"; 16]).await;
    scene.until("tidemill_stage_messages_in_total", |count| count == 16).await;
    // One more chunk waits in the source, read and not taken.
    scene.send(&["after"; 10]).await;
    scene.stop(Duration::from_millis(200)).await;
    let metrics = scene.metrics.clone();
    let ended = tokio::time::timeout(PATIENCE, scene.line).await;
    let ended = ended.expect("16 calls of 20 s are not waited for").unwrap();
    assert_eq!(ended, Ended { ending: Ending::Stopped, given_up: Some(26), resume: Resume::Here(None) });
    assert_eq!(metrics.received_count("p"), 26);
    assert_eq!(metrics.loss_counts("p", "source", Reason::Shutdown).dropped, 10);
    assert_eq!(metrics.loss_counts("p", MOODY, Reason::Shutdown).dropped, 16);
    assert_eq!(metric(&metrics, "tidemill_messages_in_flight"), 0);
}

#[tokio::test]
async fn a_swap_takes_over_between_two_calls_and_the_rest_of_the_batch_runs_on_the_new_version() {
    let next = load(&plugin("forward"));
    // All of them would take longer than a busy machine takes for the swap.
    let limits = Limits { deadline: Duration::from_secs(1), ..Limits::default() };
    let scene = scene(Stage { limits, ..Stage::default() }).await;
    scene.send(&[&["spin"; 8][..], &["after"; 100]].concat()).await;
    scene.until("tidemill_stage_messages_in_total", |count| count == 108).await;
    let swapped = scene.swap(next, "{}").await;
    assert!(tokio::time::timeout(PATIENCE, swapped).await.unwrap().unwrap().outcome.is_ok());
    let (all, ended, metrics) = scene.end().await;
    assert_eq!(ended, Ended { ending: Ending::Finished, given_up: None, resume: Resume::Here(None) });
    let lost = metrics.loss_counts("p", MOODY, Reason::Deadline).dropped as usize;
    assert!(lost < 8, "the old version had only some of them: {lost}");
    assert_eq!(all.len(), 108 - lost);
}

#[tokio::test]
async fn a_timer_that_takes_longer_than_its_interval_leaves_the_source_its_turn() {
    let config = r#"{ "tick_ms": 1, "tick_takes_ms": 5 }"#;
    let mut scene = scene(Stage { config, ..Stage::default() }).await;
    for n in 0..50 {
        scene.send(&["count"]).await;
        assert_eq!(scene.receive(1).await, [(n + 1).to_string()]);
    }
}

#[tokio::test]
async fn a_timer_that_runs_out_of_time_has_nothing_to_do_with_the_size_of_a_batch() {
    let config = r#"{ "tick_ms": 1, "tick_takes_ms": 60000 }"#;
    let limits = Limits { deadline: Duration::from_millis(20), ..Limits::default() };
    let mut scene = scene(Stage { config, limits, ..Stage::default() }).await;
    scene.until("tidemill_plugin_faults_total kind=\"deadline\"", |faults| faults >= 3).await;
    scene.send(&["after"; 200]).await;
    scene.receive(200).await;
    let calls = scene.metric("tidemill_plugin_calls_total outcome=\"ok\"");
    // The circuit may be open, so that one message is tried alone first; halves would be many calls.
    assert!(calls <= 3, "{calls} calls for one batch");
}

#[tokio::test]
async fn a_fault_at_the_end_is_tried_once_more_with_the_last_good_snapshot() {
    let mut scene = scene(Stage::default()).await;
    scene.send(&["count", "count"]).await;
    scene.receive(2).await;
    scene.until("tidemill_plugin_snapshot_bytes", |bytes| bytes == 2).await;
    scene.send(&["poison"]).await;
    let (all, ended, metrics) = scene.end().await;
    assert_eq!((all, ended.ending), (vec!["final 2".to_owned()], Ending::Finished));
    assert!(metric(&metrics, "tidemill_plugin_faults_total kind=\"trap\"") >= 1);
}

#[tokio::test]
async fn a_plugin_that_has_no_good_end_fails_its_pipeline() {
    let mut scene = scene(Stage { config: r#"{ "never_ends": true }"#, ..Stage::default() }).await;
    scene.send(&["count"]).await;
    scene.receive(1).await;
    let (all, ended, _) = scene.end().await;
    assert!(all.is_empty());
    let Ending::Failed(error) = ended.ending else { panic!("{ended:?}") };
    assert!(error.contains("is lost") && error.contains("no good end"), "{error}");
}

#[tokio::test]
async fn a_failure_stops_the_pipeline_while_it_drains_too() {
    let scene = scene(Stage { on_error: OnError::Stop, ..Stage::default() }).await;
    // Both chunks are there before the pipeline is told: the second is read while it stops.
    scene.send(&["count"]).await;
    scene.stop(PATIENCE).await;
    scene.send(&["reject"]).await;
    let (_, ended, _) = scene.end().await;
    assert!(matches!(&ended.ending, Ending::Failed(error) if error.contains("on_error")), "{ended:?}");
}

#[tokio::test]
async fn other_tasks_run_while_a_flood_of_emissions_goes_through_the_next_stage() {
    const EMISSIONS: usize = 50_000;
    let limits = Limits { deadline: Duration::from_secs(20), output_bytes: 256 << 20, ..Limits::default() };
    let scene = scene(Stage { stages: 2, limits, ..Stage::default() }).await;
    scene.send(&["flood 50000"]).await;
    // Everything runs on this one thread: what does not yield lets this task see nothing of it.
    let seen = Arc::new(AtomicU64::new(0));
    let watcher = tokio::spawn({
        let (seen, metrics) = (seen.clone(), scene.metrics.clone());
        async move {
            while metrics.stage_counts("p", "moody1").settled.passed < EMISSIONS as u64 {
                seen.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let (all, _, metrics) = scene.end().await;
    watcher.await.unwrap();
    assert_eq!(all.len() - 2, EMISSIONS, "and two words at the end");
    assert_eq!(metrics.stage_counts("p", "moody1").entered as usize, EMISSIONS + 1);
    // 196 calls; a task may make some 128 in a row.
    assert!(seen.load(Ordering::Relaxed) >= 2, "{seen:?}");
}

#[tokio::test]
async fn a_version_that_comes_while_a_failed_pipeline_drains_is_kept_for_its_next_start() {
    let scene = scene(Stage { on_error: OnError::Stop, ..Stage::default() }).await;
    // The sink does not say what became of the first message, so the pipeline cannot end.
    scene.send(&["count", "reject"]).await;
    scene.until("tidemill_messages_dropped_total", |dropped| dropped == 1).await;
    let swapped = scene.swap(load(&plugin("forward")), "{}").await;
    let swapped = tokio::time::timeout(PATIENCE, swapped).await.unwrap();
    assert!(swapped.is_err(), "whoever offers it is told that it comes too late: {swapped:?}");
    let (_, ended, _) = scene.end().await;
    assert!(matches!(ended.ending, Ending::Failed(_)));
}
