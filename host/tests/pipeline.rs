//! A pipeline between mock ends, without plugins: order, backpressure, fan-out, endings, and that
//! every message is counted once.

use std::sync::Arc;
use std::time::Duration;
use tidemill::config::{DEAD_LETTER, Outputs};
use tidemill::message::metadata::{Metadata, Origin};
use tidemill::message::{Failed, Message, Payload};
use tidemill::pipeline::{self, Control, Ending, Parts, Persistence};
use tidemill::reason::Reason;
use tidemill::sink::{self, Receipt, Sink, Work};
use tidemill::source::{self, Source, SourceChunk, SourceFeed};
use tidemill::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

struct Running {
    feed: SourceFeed,
    sinks: Vec<Work>,
    dead: Option<Work>,
    control: mpsc::Sender<Control>,
    line: JoinHandle<pipeline::Ended>,
    metrics: Arc<Metrics>,
}

fn run(takes: &[&str], with_dead_letters: bool) -> Running {
    let metrics = Arc::new(Metrics::default());
    let (feed, queue) = source::queue();
    let mut sinks = Vec::new();
    let mut works = Vec::new();
    for (n, output) in takes.iter().enumerate() {
        let name: Arc<str> = format!("sink{n}").into();
        let (queue, work) = sink::queue(metrics.sink("p", &name));
        sinks.push((name, Outputs::Named(vec![(*output).into()]), Sink::Queue(queue)));
        works.push(work);
    }
    let dead = with_dead_letters.then(|| sink::queue(metrics.sink("p", DEAD_LETTER)));
    let (dead_sink, dead) = dead.map_or((None, None), |(queue, work)| (Some(Sink::Queue(queue)), Some(work)));
    let parts = Parts {
        name: "p".into(),
        source: Source::Queue(queue),
        transforms: Vec::new(),
        sinks,
        dead_letter: dead_sink,
        persistence: Persistence::KeepsGoing,
        durable: None,
    };
    let (line, control) = pipeline::build(parts, &metrics);
    Running { feed, sinks: works, dead, control, line: tokio::spawn(line.run(|| ())), metrics }
}

fn message(text: impl Into<String>) -> Message {
    Message { payload: Payload::text(text), metadata: Metadata::new(Origin::new([("k", "v")]), 1_000) }
}

fn chunk(texts: impl IntoIterator<Item = usize>) -> SourceChunk {
    SourceChunk {
        messages: texts.into_iter().map(|n| message(n.to_string())).collect(),
        ..SourceChunk::default()
    }
}

fn texts(batch: &[Message]) -> Vec<String> {
    batch.iter().map(|message| message.payload.as_text().unwrap_or_default().to_owned()).collect()
}

/// Takes everything until the pipeline closes the sink, and says it was delivered.
async fn collect(mut work: Work) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(batch) = work.next().await {
        all.extend(texts(&batch));
        work.done(Receipt { delivered: batch.len() as u64, failed: Vec::new() });
    }
    all
}

fn counted(metrics: &Metrics, line: &str) -> u64 {
    let text = metrics.encode();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0)
}

#[tokio::test]
async fn messages_keep_their_order_and_are_counted_once() {
    let mut running = run(&["default"], false);
    let sink = tokio::spawn(collect(running.sinks.remove(0)));
    for start in (0..5000).step_by(100) {
        running.feed.push(chunk(start..start + 100)).await.unwrap();
    }
    drop(running.feed);
    let ended = running.line.await.unwrap();
    assert_eq!((ended.ending, ended.given_up), (Ending::Finished, None));
    let expected: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
    assert_eq!(sink.await.unwrap(), expected);
    assert_eq!(counted(&running.metrics, "tidemill_messages_received_total{pipeline=\"p\"}"), 5000);
    let delivered = "tidemill_messages_delivered_total{pipeline=\"p\",sink=\"sink0\"}";
    assert_eq!(counted(&running.metrics, delivered), 5000);
}

#[tokio::test]
async fn each_sink_that_takes_an_output_gets_every_message_of_it() {
    let mut running = run(&["default", "default", "other"], false);
    let sinks: Vec<_> = running.sinks.drain(..).map(|work| tokio::spawn(collect(work))).collect();
    running.feed.push(chunk(0..10)).await.unwrap();
    drop(running.feed);
    running.line.await.unwrap();
    let mut got = Vec::new();
    for sink in sinks {
        got.push(sink.await.unwrap().len());
    }
    assert_eq!(got, [10, 10, 0]);
}

#[tokio::test]
async fn a_message_that_no_sink_takes_is_dropped_and_counted() {
    let mut running = run(&["other"], false);
    let sink = tokio::spawn(collect(running.sinks.remove(0)));
    running.feed.push(chunk(0..7)).await.unwrap();
    drop(running.feed);
    running.line.await.unwrap();
    assert!(sink.await.unwrap().is_empty());
    let dropped = "tidemill_messages_dropped_total{pipeline=\"p\",stage=\"source\",reason=\"no_output\"}";
    assert_eq!(counted(&running.metrics, dropped), 7);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_nothing_stops_the_reading_at_a_bound() {
    let mut running = run(&["default"], false);
    // The worker takes nothing: what fits between is pushed, then the feed's push waits. Time passes only
    // when nothing can go on, so a second that passes says that nothing can.
    let mut pushed: u64 = 0;
    while let Ok(result) =
        tokio::time::timeout(Duration::from_secs(1), running.feed.push(chunk(0..256))).await
    {
        result.unwrap();
        pushed += 256;
    }
    // 8 chunks in the source's queue and one being read, 8 batches in the sink's, one being filled,
    // and one in the outbox.
    let bound = (8 + 1 + 8 + 1 + 1) * 256;
    assert!(pushed <= bound, "{pushed} messages were taken, the bound is {bound}");
    let received = counted(&running.metrics, "tidemill_messages_received_total{pipeline=\"p\"}");
    assert!(received < pushed, "{received} of {pushed}");
    // Once the sink works again, nothing is missing.
    let sink = tokio::spawn(collect(running.sinks.remove(0)));
    drop(running.feed);
    running.line.await.unwrap();
    assert_eq!(sink.await.unwrap().len() as u64, pushed);
}

#[tokio::test]
async fn a_stop_drains_what_was_received_and_refuses_more() {
    let mut running = run(&["default"], false);
    for _ in 0..4 {
        running.feed.push(chunk(0..256)).await.unwrap();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    running.control.send(Control::Stop { deadline }).await.unwrap();
    running.feed.closed().await;
    assert!(running.feed.push(chunk(0..1)).await.is_err());
    let sink = tokio::spawn(collect(running.sinks.remove(0)));
    let ended = running.line.await.unwrap();
    assert_eq!((ended.ending, ended.given_up), (Ending::Stopped, None));
    assert_eq!(sink.await.unwrap().len(), 1024);
}

#[tokio::test(start_paused = true)]
async fn at_a_stop_a_sink_that_takes_nothing_holds_up_no_other() {
    // More than the queue of a sink holds.
    let all = 0..5_000;
    let mut running = run(&["default", "default"], false);
    running.feed.push(chunk(all.clone())).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    running.control.send(Control::Stop { deadline }).await.unwrap();
    // It ends when it has got everything, and is closed.
    let got = collect(running.sinks.remove(1)).await;
    assert_eq!(got.len(), all.len());
    let late = collect(running.sinks.remove(0)).await;
    assert_eq!(late, got);
    let ended = running.line.await.unwrap();
    assert_eq!((ended.ending, ended.given_up), (Ending::Stopped, None));
    assert!(tokio::time::Instant::now() < deadline);
}

#[tokio::test(start_paused = true)]
async fn at_a_stop_dead_letters_that_nobody_takes_hold_up_no_sink() {
    let mut running = run(&["default"], true);
    let failed = |n: usize| Failed {
        message: message(n.to_string()),
        reason: Reason::Decode,
        detail: "not JSON".to_owned(),
    };
    for n in 0..4 {
        let mut chunk = chunk([n]);
        chunk.failed = (0..2_000).map(failed).collect();
        running.feed.push(chunk).await.unwrap();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    running.control.send(Control::Stop { deadline }).await.unwrap();
    assert_eq!(collect(running.sinks.remove(0)).await, ["0", "1", "2", "3"]);
    let letters = collect(running.dead.take().unwrap()).await;
    assert_eq!(letters.len(), 8_000);
    let ended = running.line.await.unwrap();
    assert_eq!((ended.ending, ended.given_up), (Ending::Stopped, None));
    let written = "tidemill_messages_dead_lettered_total{pipeline=\"p\",stage=\"source\",reason=\"decode\"}";
    assert_eq!(counted(&running.metrics, written), 8_000);
}

#[tokio::test(start_paused = true)]
async fn what_the_grace_period_cuts_off_is_counted() {
    let running = run(&["default"], false);
    running.feed.push(chunk(0..100)).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    running.control.send(Control::Stop { deadline }).await.unwrap();
    let ended = running.line.await.unwrap();
    assert_eq!((ended.ending, ended.given_up), (Ending::Stopped, Some(100)));
    let dropped = "tidemill_messages_dropped_total{pipeline=\"p\",stage=\"sink0\",reason=\"shutdown\"}";
    assert_eq!(counted(&running.metrics, dropped), 100);
}

#[tokio::test]
async fn a_source_that_fails_fails_the_pipeline_after_what_it_gave_is_through() {
    let mut running = run(&["default"], false);
    let sink = tokio::spawn(collect(running.sinks.remove(0)));
    running.feed.push(chunk(0..3)).await.unwrap();
    running.feed.fail("gone".to_owned()).await;
    let ended = running.line.await.unwrap();
    assert_eq!(ended.ending, Ending::Failed("gone".to_owned()));
    assert_eq!(sink.await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_a_sink_refuses_becomes_a_dead_letter_counted_when_it_is_written() {
    let mut running = run(&["default"], true);
    running.feed.push(chunk(0..2)).await.unwrap();
    let mut work = running.sinks.remove(0);
    let batch = work.next().await.unwrap();
    let failed =
        |message| Failed { message, reason: Reason::SinkUnavailable, detail: "disk full".to_owned() };
    work.done(Receipt { delivered: 0, failed: batch.into_iter().map(failed).collect() });
    let mut dead = running.dead.take().unwrap();
    let letters = dead.next().await.unwrap();
    let written =
        "tidemill_messages_dead_lettered_total{pipeline=\"p\",stage=\"sink0\",reason=\"sink_unavailable\"}";
    assert_eq!(counted(&running.metrics, written), 0);
    dead.done(Receipt { delivered: letters.len() as u64, failed: Vec::new() });
    let rest = (tokio::spawn(collect(work)), tokio::spawn(collect(dead)));
    drop(running.feed);
    running.line.await.unwrap();
    rest.0.await.unwrap();
    rest.1.await.unwrap();
    assert_eq!(counted(&running.metrics, written), 2);
    let letter: serde_json::Value = serde_json::from_str(&texts(&letters)[0]).unwrap();
    assert_eq!(letter["stage"], "sink0");
    assert_eq!(letter["reason"], "sink_unavailable");
    assert_eq!(letter["detail"], "disk full");
    assert_eq!(letter["payload"], "0");
    assert_eq!(letter["metadata"]["k"], "v");
    assert_eq!(letter["metadata"]["__meta_ingest_time"], "1");
}

#[tokio::test]
async fn decode_failures_count_as_received_and_are_lost_under_their_reason() {
    let mut running = run(&["default"], false);
    let sink = tokio::spawn(collect(running.sinks.remove(0)));
    let failed = Failed { message: message("x"), reason: Reason::Decode, detail: "not JSON".to_owned() };
    running
        .feed
        .push(SourceChunk { messages: vec![message("y")], failed: vec![failed], ..SourceChunk::default() })
        .await
        .unwrap();
    drop(running.feed);
    running.line.await.unwrap();
    assert_eq!(sink.await.unwrap(), ["y"]);
    assert_eq!(counted(&running.metrics, "tidemill_messages_received_total{pipeline=\"p\"}"), 2);
    let dropped = "tidemill_messages_dropped_total{pipeline=\"p\",stage=\"source\",reason=\"decode\"}";
    assert_eq!(counted(&running.metrics, dropped), 1);
}

#[tokio::test]
async fn a_large_message_goes_alone_but_goes() {
    let mut running = run(&["default"], false);
    let sink = tokio::spawn(collect(running.sinks.remove(0)));
    let large = "x".repeat(3 << 20);
    let messages = vec![message("a"), message(large.clone()), message("b")];
    running.feed.push(SourceChunk { messages, ..SourceChunk::default() }).await.unwrap();
    drop(running.feed);
    running.line.await.unwrap();
    assert_eq!(sink.await.unwrap(), ["a".to_owned(), large, "b".to_owned()]);
}
