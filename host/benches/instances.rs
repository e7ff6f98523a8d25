//! What several instances of a plugin are worth: a pipeline whose plugin takes about 10 us a message, with one instance
//! and with two, in one run.
//!
//! `cargo xtask guests rust`, then `cargo bench --workspace --bench instances`, on a machine that does nothing else: two
//! instances are no faster than one where others have the second processor. The cases take turns, and the best of each
//! counts, so that the noise of a shared machine is not the answer. Source and sink are queues in this process, and
//! take part of a processor too.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures for whoever runs it")]

use std::path::Path;
use std::time::{Duration, Instant};
use tidemill::config::{MessageKey, Redacted};
use tidemill::plugin::{Engine, Plugin};
use tidemill::source::SourceChunk;
use tidemill_tests::scene::{Scene, Stage};
use tidemill_tests::texts;

/// Each run of a case.
const MESSAGES: usize = 50_000;
/// Messages that the source has at a time.
const CHUNK: usize = 256;
const KEYS: usize = 100;
const REPETITIONS: usize = 15;
/// What the plugin is to take for a message.
const AIM: Duration = Duration::from_micros(10);
/// Rounds of work for a first look at how long they take.
const FIRST_WORK: u64 = 10_000;
const FIRST_MESSAGES: usize = 20_000;

struct Case {
    name: &'static str,
    stage: Stage,
    took: Vec<Duration>,
}

fn main() {
    let target =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host is in the checkout").join("target");
    let Ok(wasm) = std::fs::read(target.join("guests/tally.wasm")) else {
        return eprintln!("the guest is not built: `cargo xtask guests rust` does it");
    };
    let engine =
        Engine::try_new(Some(&target.join("tests-cache").into())).expect("plugins run on this machine");
    let plugin = engine.load("tally", &wasm).expect("what xtask builds is a plugin");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
    let stage = |work: u64, instances, key: Option<&str>| Stage {
        config: Box::leak(format!(r#"{{"work":{work}}}"#).into_boxed_str()),
        instances,
        key: key.map(|key| MessageKey::Pointer(Redacted::plain(key))),
        ..Stage::default()
    };
    let idle = runtime.block_on(measure(&plugin, &stage(0, 1, None), FIRST_MESSAGES));
    let busy = runtime.block_on(measure(&plugin, &stage(FIRST_WORK, 1, None), FIRST_MESSAGES));
    let each = busy.saturating_sub(idle).as_nanos() / FIRST_MESSAGES as u128;
    let work = u64::try_from(u128::from(FIRST_WORK) * AIM.as_nanos() / each.max(1)).expect("it is small");
    let mut cases = [
        ("one instance", stage(work, 1, None)),
        ("two instances, by key", stage(work, 2, Some("/k"))),
        ("two instances, in order", stage(work, 2, None)),
        ("no work: one instance", stage(0, 1, None)),
        ("no work: two instances, by key", stage(0, 2, Some("/k"))),
        ("no work: two instances, in order", stage(0, 2, None)),
    ]
    .map(|(name, stage)| Case { name, stage, took: Vec::new() });
    for repetition in 1..=REPETITIONS {
        eprintln!("{repetition}/{REPETITIONS}");
        for case in &mut cases {
            case.took.push(runtime.block_on(measure(&plugin, &case.stage, MESSAGES)));
        }
    }
    let best = |case: &Case| case.took.iter().min().expect("it was measured").as_secs_f64();
    for group in cases.chunks(3) {
        for case in group {
            let took = best(case);
            println!(
                "{:<34} {:>8.0} msg/s {:>7.2} us/msg  {:>5.2} times one instance",
                case.name,
                MESSAGES as f64 / took,
                took * 1e6 / MESSAGES as f64,
                best(&group[0]) / took,
            );
        }
    }
}

/// How long a pipeline takes for so many messages.
async fn measure(plugin: &Plugin, stage: &Stage, messages: usize) -> Duration {
    let mut scene = Scene::open(plugin, stage.clone()).await;
    let feed = scene.feed.take().expect("it was just opened");
    let text =
        |n: usize| format!(r#"{{"k":"key-{}","n":{n},"price":"57123.45","qty":"0.01820000"}}"#, n % KEYS);
    let chunks: Vec<SourceChunk> = (0..messages)
        .step_by(CHUNK)
        .map(|start| SourceChunk {
            messages: texts((start..messages.min(start + CHUNK)).map(text)),
            ..SourceChunk::default()
        })
        .collect();
    let started = Instant::now();
    let feeding = tokio::spawn(async move {
        for chunk in chunks {
            feed.push(chunk).await.expect("the pipeline lives");
        }
        feed
    });
    scene.receive(messages).await;
    let took = started.elapsed();
    drop(feeding.await.expect("it does not panic"));
    scene.end().await;
    took
}
