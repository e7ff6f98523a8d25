//! A pipeline between mock ends, without plugins: order, backpressure, fan-out, endings, and that
//! every message is counted once.

use std::sync::Arc;
use std::time::Duration;
use tidemill::config::{DEAD_LETTER, Outputs};
use tidemill::dead_letters::{KeptLetters, Letter, LetterFilter, RetryOrder, RetryReport};
use tidemill::message::metadata::{Metadata, Origin};
use tidemill::message::{Failed, Message, Payload};
use tidemill::pipeline::{self, Control, Ending, Parts, Persistence};
use tidemill::reason::Reason;
use tidemill::sink::{self, Receipt, Sink, Work};
use tidemill::source::{self, Source, SourceChunk, SourceFeed};
use tidemill::telemetry::Metrics;
use tidemill_tests::host::PATIENCE;
use tidemill_tests::sockets::until;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

struct Running {
    feed: SourceFeed,
    sinks: Vec<Work>,
    dead: Option<Work>,
    control: mpsc::Sender<Control>,
    line: JoinHandle<pipeline::Ended>,
    metrics: Arc<Metrics>,
    kept: KeptLetters,
}

impl Running {
    /// Has letters that are kept enter again.
    async fn retry(&self, numbers: Vec<u64>, rate: Option<f64>) -> RetryReport {
        let (order, report) = RetryOrder::of_kept("p", numbers, rate, &self.kept);
        self.control.send(Control::Retry(Box::new(order))).await.expect("the pipeline lives");
        report
    }

    /// The numbers of the letters that are kept, and whether each waits to be retried.
    fn letters(&self) -> Vec<(u64, bool)> {
        let (all, _) = self.kept.newest(&LetterFilter::default(), None, usize::MAX);
        all.iter().rev().map(|shown| (shown.number, shown.is_waiting)).collect()
    }
}

fn run(takes: &[&str], with_dead_letters: bool) -> Running {
    let (metrics, kept) = (Arc::new(Metrics::default()), KeptLetters::default());
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
        kept: Some(kept.clone()),
        persistence: Persistence::KeepsGoing,
        durable: None,
    };
    let (line, control) = pipeline::build(parts, &metrics);
    Running { feed, sinks: works, dead, control, line: tokio::spawn(line.run(|| ())), metrics, kept }
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

/// Takes the next batch of a sink, and says that all of it failed.
async fn fail(work: &mut Work, reason: Reason) {
    let failed = work.next().await.expect("the pipeline lives").into_iter();
    let failed = failed.map(|message| Failed { message, reason, detail: "it is away".to_owned() });
    work.done(Receipt { delivered: 0, failed: failed.collect() });
}

#[tokio::test]
async fn a_dead_letter_of_a_sink_enters_that_sink_again_and_leaves_the_list() {
    let mut running = run(&["default", "default"], false);
    running.feed.push(chunk(7..8)).await.unwrap();
    let (mut second, mut first) = (running.sinks.pop().unwrap(), running.sinks.pop().unwrap());
    fail(&mut first, Reason::SinkUnavailable).await;
    assert_eq!(texts(&second.next().await.unwrap()), ["7"]);
    second.done(Receipt { delivered: 1, failed: Vec::new() });
    until(|| running.letters() == [(1, false)]).await;
    let report = running.retry(vec![1], None).await;
    let again = first.next().await.unwrap();
    assert_eq!((texts(&again), &*again[0].metadata.get("__meta_retried")), (vec!["7".to_owned()], "1"));
    assert_eq!(report.over(PATIENCE).await.entered, 1);
    assert!(running.letters().is_empty());
    // It fails once more: another letter.
    let failed = again.into_iter().map(|message| Failed {
        message,
        reason: Reason::SinkUnavailable,
        detail: String::new(),
    });
    first.done(Receipt { delivered: 0, failed: failed.collect() });
    until(|| running.letters() == [(2, false)]).await;
    running.retry(vec![2], None).await;
    let again = first.next().await.unwrap();
    assert_eq!(again[0].metadata.get("__meta_retried"), "2");
    first.done(Receipt { delivered: 1, failed: Vec::new() });
    let metrics = running.metrics.clone();
    let (first, second) = (tokio::spawn(collect(first)), tokio::spawn(collect(second)));
    drop(running.feed);
    running.line.await.unwrap();
    assert!(first.await.unwrap().is_empty());
    assert!(second.await.unwrap().is_empty(), "it is none of the other sink's");
    let retried = |sink: &str| format!("tidemill_messages_retried_total{{pipeline=\"p\",stage=\"{sink}\"}}");
    assert_eq!(counted(&metrics, &retried("sink0")), 2);
    assert_eq!(counted(&metrics, &retried("sink1")), 0);
    let dropped = r#"tidemill_messages_dropped_total{pipeline="p",stage="sink0",reason="sink_unavailable"}"#;
    assert_eq!(counted(&metrics, dropped), 2);
}

#[tokio::test]
async fn what_waits_to_be_retried_at_a_stop_is_in_the_list_again() {
    let mut running = run(&["default"], false);
    running.feed.push(chunk(0..4)).await.unwrap();
    let mut sink = running.sinks.pop().unwrap();
    fail(&mut sink, Reason::SinkUnavailable).await;
    until(|| running.letters().len() == 4).await;
    let report = running.retry(vec![1, 2, 3], Some(0.001)).await;
    assert_eq!(texts(&sink.next().await.unwrap()), ["0"]);
    sink.done(Receipt { delivered: 1, failed: Vec::new() });
    assert_eq!(running.letters(), [(2, true), (3, true), (4, false)]);
    // Another order waits in the channel when the stop comes.
    let (unseen, second) = RetryOrder::of_kept("p", vec![4], Some(1.0), &running.kept);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    running.control.send(Control::Stop { deadline }).await.unwrap();
    running.control.send(Control::Retry(Box::new(unseen))).await.unwrap();
    let work = tokio::spawn(collect(sink));
    let metrics = running.metrics.clone();
    let letters = running.kept.clone();
    running.line.await.unwrap();
    assert!(work.await.unwrap().is_empty());
    let (all, _) = letters.newest(&LetterFilter::default(), None, 9);
    assert_eq!(
        all.iter().map(|shown| (shown.number, shown.is_waiting)).collect::<Vec<_>>(),
        [(4, false), (3, false), (2, false)]
    );
    let became = report.over(PATIENCE).await;
    assert_eq!((became.entered, became.waiting, became.refused.len()), (1, 0, 2));
    assert_eq!(second.over(PATIENCE).await.refused.len(), 1);
    assert_eq!(counted(&metrics, r#"tidemill_messages_retried_total{pipeline="p",stage="sink0"}"#), 1);
}

#[tokio::test]
async fn retries_and_the_source_take_turns() {
    const LETTERS: usize = 900;
    let Running { feed, mut sinks, control, line, kept, .. } = run(&["default"], false);
    let mut sink = sinks.pop().unwrap();
    let letter = |n: usize| {
        let failed = Failed { message: message(n.to_string()), reason: Reason::Trap, detail: String::new() };
        Letter::new("p".into(), "sink0".into(), None, failed, 0)
    };
    kept.keep((0..LETTERS).map(letter).collect());
    // More of the source waits than a turn takes, whenever retries have theirs.
    let feeding = tokio::spawn(async move {
        for start in (0..100_000).step_by(100) {
            if feed.push(chunk(start..start + 100)).await.is_err() {
                return;
            }
        }
    });
    let (order, report) = RetryOrder::of_kept("p", (1..=LETTERS as u64).collect(), None, &kept);
    control.send(Control::Retry(Box::new(order))).await.unwrap();
    let mut came = Vec::new();
    while came.iter().filter(|is_retried| **is_retried).count() < LETTERS {
        let batch = sink.next().await.unwrap();
        came.extend(batch.iter().map(|message| message.metadata.get("__meta_retried") == "1"));
        sink.done(Receipt { delivered: batch.len() as u64, failed: Vec::new() });
    }
    assert_eq!(report.over(PATIENCE).await.entered, LETTERS);
    let first = came.iter().position(|is_retried| *is_retried).unwrap();
    let from_source = came[first..].iter().filter(|is_retried| !**is_retried).count();
    assert!(from_source >= LETTERS / 3, "{from_source} of the source came through meanwhile");
    feeding.abort();
    line.abort();
}
