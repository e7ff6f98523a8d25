//! What it costs to hand a batch to a plugin and to check what comes back, in each language.
//!
//! `cargo xtask guests`, then `cargo bench -p tidemill --bench boundary [-- FILTER]`. Criterion's time
//! is that of one call; divided by the batch it is the price of a message, which its throughput
//! shows. Guests that were not built are left out, by name.
//!
//! The messages are JSON texts of 105 bytes. `forward` sends them through, `observe` also shows the
//! guest one metadata column and the times, `emit` has the guest emit each, `mark` also sets one
//! metadata value of each emission. `filter` forwards by two fields that the host finds, and `add` edits
//! one number into each. What ends in `-blind` does without payloads.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tidemill::config::Limits;
use tidemill::message::metadata::{Metadata, Origin};
use tidemill::message::{Message, Payload};
use tidemill::plugin::{Engine, HostState, Plugin, Setup};
use tidemill::telemetry::Metrics;

const GUESTS: [&str; 4] = ["contract-rust", "contract-c", "contract-javascript", "contract-python"];
const BATCHES: [usize; 3] = [1, 16, 256];
const JSON: &str = r#"{"e":"trade","E":1723075200123,"s":"BTCUSDT","t":37482,"p":"57123.45","q":"0.01820000","T":1723075200120}"#;

/// Name, configuration, and what stands before the JSON.
const CASES: [(&str, &str, &str); 9] = [
    ("forward", "{}", ""),
    ("forward-blind", r#"{"blind":true}"#, ""),
    ("filter", r#"{"filter":true}"#, ""),
    ("filter-blind", r#"{"filter":true,"blind":true}"#, ""),
    ("add", r#"{"notional":true}"#, ""),
    ("add-blind", r#"{"notional":true,"blind":true}"#, ""),
    ("observe", r#"{"observe":true}"#, ""),
    ("emit", "{}", "emit:default::"),
    ("mark", "{}", "emit:default:hot:"),
];

fn boundary(criterion: &mut Criterion) {
    let target =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host is in the checkout").join("target");
    let engine =
        Engine::try_new(Some(&target.join("tests-cache").into())).expect("plugins run on this machine");
    if let Some(plugin) = load(&engine, &target.join("plugins/forward.wasm")) {
        measure(criterion, &plugin, &CASES[..1]);
    }
    for guest in GUESTS {
        if let Some(plugin) = load(&engine, &target.join(format!("guests/{guest}.wasm"))) {
            measure(criterion, &plugin, &CASES);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a guest that is left out is left out by name")]
fn load(engine: &Engine, file: &Path) -> Option<Plugin> {
    let name = file.file_stem()?.to_str()?;
    match std::fs::read(file) {
        Ok(wasm) => Some(engine.load(name, &wasm).expect("what xtask builds is a plugin")),
        Err(error) => {
            eprintln!("{name} is left out: {}: {error}", file.display());
            None
        }
    }
}

fn measure(criterion: &mut Criterion, plugin: &Plugin, cases: &[(&str, &str, &str)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    let mut group = criterion.benchmark_group(&**plugin.name());
    for (case, config, command) in cases {
        let setup = setup(config);
        let mut instance = runtime.block_on(plugin.instantiate(&setup)).expect("the fixture starts");
        for batch in BATCHES {
            let messages = messages(&format!("{command}{JSON}"), batch);
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::new(*case, batch), |bencher| {
                bencher.iter_custom(|calls| {
                    runtime.block_on(async {
                        let start = Instant::now();
                        for _ in 0..calls {
                            black_box(instance.process(&messages).await.expect("the fixture answers"));
                        }
                        start.elapsed()
                    })
                });
            });
        }
    }
    group.finish();
}

fn messages(text: &str, count: usize) -> Vec<Message> {
    let origin = Origin::new([("room", "lobby")]);
    let message =
        |time| Message { payload: Payload::text(text), metadata: Metadata::new(Arc::clone(&origin), time) };
    (1_723_075_200_000_000..).take(count).map(message).collect()
}

fn setup(config: &str) -> Setup {
    Setup {
        pipeline: "bench".into(),
        transform: "guest".into(),
        config: config.into(),
        limits: Limits::default(),
        is_replay: false,
        state: HostState::default(),
        http: None,
        metrics: Metrics::default().guest("bench", "guest"),
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(40).without_plots();
    targets = boundary
}
criterion_main!(benches);
