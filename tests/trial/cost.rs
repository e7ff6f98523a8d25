//! What a version in shadow costs the messages: figures to read, for whoever asks for the output.

use std::time::Instant;
use tidemill::message::Message;
use tidemill::pipeline::ShadowOutcome;
use tidemill::sink::Receipt;
use tidemill::source::SourceChunk;
use tidemill_tests::scene::{PATIENCE, Scene, Stage};
use tidemill_tests::{load, plugin, texts};

/// Messages in CI.
const MESSAGES: usize = 20_000;
/// Those of one chunk, which a source would give at once.
const CHUNK: usize = 256;

/// Trades of 100 bytes, half of which `notional` keeps.
fn chunk() -> Vec<Message> {
    let trade = |number: usize| {
        let price = if number.is_multiple_of(2) { 99.5 } else { 100.5 };
        format!(
            r#"{{"time":1723075200000,"id":{number:012},"symbol":"BTCUSDT","price":{price:05},"qty":0.25,"side":"buy"}}"#
        )
    };
    texts((0..CHUNK).map(trade))
}

/// Messages a second through the plugin, beside another instance of it in shadow or alone.
async fn rate(name: &str, messages: usize, has_shadow: bool) -> f64 {
    let version = load(&plugin(name));
    let mut scene = Scene::open(&version, Stage::default()).await;
    let verdict = match has_shadow {
        true => Some(scene.shadow(version, messages as u64, PATIENCE).await),
        false => None,
    };
    let feed = scene.feed.take().expect("it is at its beginning");
    let chunks = messages / CHUNK;
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        let messages = chunk();
        for _ in 0..chunks {
            let chunk = SourceChunk { messages: messages.clone(), ..SourceChunk::default() };
            feed.push(chunk).await.expect("the pipeline lives");
        }
    });
    while let Some(batch) = scene.work.next().await {
        scene.work.done(Receipt { delivered: batch.len() as u64, failed: Vec::new() });
    }
    let took = began.elapsed();
    sending.await.expect("sending does not panic");
    let counts = scene.counts();
    assert_eq!((counts.entered, counts.in_flight), ((chunks * CHUNK) as u64, 0));
    if let Some(Ok(shadowed)) = verdict.map(|mut verdict| verdict.try_recv()) {
        assert_eq!(shadowed.outcome, ShadowOutcome::Passed);
        assert_eq!((shadowed.counts.different, shadowed.counts.faulted), (0, 0), "{:?}", shadowed.first);
    }
    (chunks * CHUNK) as f64 / took.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_flow_on_beside_a_version_in_shadow() {
    let messages = std::env::var("TIDEMILL_SHADOW_MESSAGES").map_or(MESSAGES, |text| text.parse().unwrap());
    for name in ["forward", "notional"] {
        for has_shadow in [false, true] {
            let rate = rate(name, messages, has_shadow).await;
            tell(name, has_shadow, rate);
        }
    }
}

#[expect(clippy::print_stdout, reason = "figures for whoever asks for the output")]
fn tell(plugin: &str, has_shadow: bool, rate: f64) {
    println!("{plugin}, {}: {rate:.0} messages a second", if has_shadow { "in shadow" } else { "alone" });
}
