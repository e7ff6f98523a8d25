//! Where the messages of a pipeline go that failed.
//!
//! Each becomes a letter, which is kept by the host, and one JSON line for the dead-letter sink, and is counted when
//! that is written. Without that sink, or when it fails, the message is dropped under its own reason. A full queue is
//! backpressure like any other: the pipeline reads nothing until there is room.

use super::recovery::Persistence;
use crate::config::DEAD_LETTER;
use crate::dead_letters::{KeptLetters, Letter};
use crate::foreign_text;
use crate::message::metadata::{Metadata, now_us};
use crate::message::{Failed, Message, Payload};
use crate::reason::Reason;
use crate::sink::Sink;
use crate::telemetry::{Account, RateLimit, SinkMetrics};
use crate::wait_budget::WaitingBytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A pipeline logs one lost message in so much time, and how many there were between.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Where a message failed.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The label of the source, the transform or the sink.
    pub(super) stage: Arc<str>,
    /// Where its messages are.
    pub(super) account: Account,
    /// The plugin and its version, of a transform.
    pub(super) plugin: Option<(Arc<str>, Arc<str>)>,
}

/// The sink for dead letters, and what it counts.
#[derive(Debug)]
pub(super) struct DeadLetterSink {
    pub(super) sink: Sink,
    pub(super) metrics: SinkMetrics,
}

/// The dead letters of one pipeline.
#[derive(Debug)]
pub(super) struct DeadLetters {
    pipeline: Arc<str>,
    sink: Option<DeadLetterSink>,
    kept: Option<KeptLetters>,
    /// Letters that the sink has no room for yet.
    waiting: VecDeque<(Message, LetterCounts)>,
    backlog: WaitingBytes,
    /// Letters that the sink has, in order; which of them are written is told by its counters.
    taken: VecDeque<LetterCounts>,
    delivered_before: u64,
    persistence: Persistence,
    log: RateLimit,
}

/// What to count once it is known what became of a letter.
#[derive(Debug)]
struct LetterCounts {
    account: Account,
    reason: Reason,
}

impl DeadLetters {
    pub(super) fn new(
        pipeline: Arc<str>,
        sink: Option<DeadLetterSink>,
        kept: Option<KeptLetters>,
        persistence: Persistence,
    ) -> Self {
        Self {
            pipeline,
            kept,
            delivered_before: sink.as_ref().map_or(0, |sink| sink.metrics.account.counts().delivered),
            sink,
            waiting: VecDeque::new(),
            backlog: WaitingBytes::default(),
            taken: VecDeque::new(),
            persistence,
            log: RateLimit::new(LOG_INTERVAL),
        }
    }

    /// Takes messages that failed at a place.
    pub(super) fn take(&mut self, place: &Place, failed: impl IntoIterator<Item = Failed>) {
        let mut failed = failed.into_iter().peekable();
        if failed.peek().is_none() {
            return;
        }
        let (now_us, mut letters) = (now_us(), Vec::new());
        for failed in failed {
            if self.persistence == Persistence::GivesUp && failed.reason == Reason::SinkUnavailable {
                place.account.dropped(failed.reason, 1);
                continue;
            }
            let Place { stage, plugin, .. } = place;
            let letter = Letter::new(self.pipeline.clone(), stage.clone(), plugin.clone(), failed, now_us);
            self.hand_over(place, &letter, now_us);
            if self.kept.is_some() {
                letters.push(letter);
            }
        }
        if let Some(kept) = &self.kept {
            kept.keep(letters);
        }
    }

    /// Gives a letter to the sink; without one its message is dropped.
    fn hand_over(&mut self, place: &Place, letter: &Letter, now_us: u64) {
        if let Some(sink) = &self.sink {
            sink.metrics.account.entered(1);
            let line = Message {
                payload: Payload::text(letter.to_line()),
                metadata: Metadata::without_origin(now_us),
            };
            let counts = LetterCounts { account: place.account.clone(), reason: letter.reason };
            self.backlog.add(line.payload.len());
            self.waiting.push_back((line, counts));
            return;
        }
        place.account.dropped(letter.reason, 1);
        if let Some(held_back) = self.log.allow() {
            tracing::warn!(
                pipeline = %self.pipeline, stage = %place.stage, reason = %letter.reason,
                detail = %letter.detail, held_back, "message dropped"
            );
        }
    }

    /// Hands letters to the sink and counts those that are written. Ready if what waits for room does not hold
    /// the pipeline: before a stop, no letter may.
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(dead) = &mut self.sink else { return Poll::Ready(()) };
        let mut failed = Vec::new();
        dead.sink.poll_drive(cx, &mut failed);
        while !self.waiting.is_empty() && dead.sink.poll_ready(cx).is_ready() {
            if let Some((letter, counts)) = self.waiting.pop_front() {
                self.backlog.remove(letter.payload.len());
                dead.sink.push(letter, &mut failed);
                self.taken.push_back(counts);
            }
        }
        if !self.taken.is_empty() {
            let _ = dead.sink.poll_flush(cx, &mut failed);
            self.settle(&failed);
        }
        if self.backlog.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ready once the sink is connected, where the pipeline is not to start before.
    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let Some(DeadLetterSink { sink, .. }) = &mut self.sink else { return Poll::Ready(Ok(())) };
        sink.poll_connected(cx).map_err(|error| format!("dead letters: {error}"))
    }

    /// Whether every letter is written or lost.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.taken.is_empty()
    }

    /// Whether no letter is with the sink: what waits for room may still go to another.
    pub(super) fn is_sink_idle(&self) -> bool {
        self.taken.is_empty()
    }

    /// Has another sink take the letters that wait and all that follow, or none: then those that wait are lost, and
    /// so are those of which the sink before does not know yet whether they are written. Gives that back.
    pub(super) fn exchange(&mut self, next: Option<DeadLetterSink>) -> Option<(Sink, Place)> {
        let delivered_before = next.as_ref().map_or(0, |next| next.metrics.account.counts().delivered);
        let old = std::mem::replace(&mut self.sink, next);
        self.delivered_before = delivered_before;
        let lost = self.taken.drain(..);
        let waiting = if self.sink.is_none() { self.waiting.drain(..) } else { self.waiting.drain(..0) };
        let lost = lost.chain(waiting.map(|(letter, counts)| {
            self.backlog.remove(letter.payload.len());
            counts
        }));
        let DeadLetterSink { sink, metrics } = old?;
        for LetterCounts { account, reason } in lost {
            account.dropped(reason, 1);
            metrics.account.dropped(Reason::SinkUnavailable, 1);
        }
        Some((sink, Place { stage: DEAD_LETTER.into(), account: metrics.account, plugin: None }))
    }

    /// Ready once every letter is written or lost.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(dead) = &mut self.sink {
            dead.sink.drain();
        }
        ready!(self.poll_drive(cx));
        if self.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The pipeline stops, and is given up after `grace` if that is known.
    pub(super) fn stop(&mut self, grace: Option<Duration>) {
        self.backlog.stop();
        if let Some(dead) = &mut self.sink {
            dead.sink.stop(grace);
        }
    }

    /// Closes the sink. Ready once it is closed.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        let Some(dead) = &mut self.sink else { return Poll::Ready(()) };
        let mut failed = Vec::new();
        let closed = dead.sink.poll_close(cx, code, &mut failed);
        self.settle(&failed);
        closed
    }

    /// Of the letters the sink has finished with, those it says it delivered are written; the rest
    /// is lost.
    fn settle(&mut self, failed: &[Failed]) {
        let Some(dead) = &self.sink else { return };
        let delivered = dead.metrics.account.counts().delivered;
        let mut written = delivered - self.delivered_before;
        self.delivered_before = delivered;
        let finished = self.taken.len().saturating_sub(dead.sink.in_flight());
        for counts in self.taken.drain(..finished) {
            if written > 0 {
                written -= 1;
                counts.account.dead_lettered(counts.reason, 1);
            } else {
                counts.account.dropped(counts.reason, 1);
            }
        }
        dead.metrics.account.dropped(Reason::SinkUnavailable, failed.len() as u64);
        if let Some(first) = failed.first()
            && let Some(held_back) = self.log.allow()
        {
            let detail = foreign_text::shown(&first.detail);
            let lost = failed.len();
            tracing::error!(pipeline = %self.pipeline, lost, %detail, held_back, "dead letter lost");
        }
    }
}
