//! A sink worked off by a task or a thread, through a bounded channel of batches of messages.
//!
//! One hop a batch. The worker answers every batch with what became of it, on a channel that is
//! large enough never to be full.

use crate::message::{Failed, Message};
use crate::telemetry::SinkMetrics;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Batches that may wait for the worker.
const BATCHES: usize = 8;
/// Messages that are sent to the worker at once.
const BATCH_MESSAGES: usize = 256;

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Done {
    /// So many messages were delivered.
    pub delivered: u64,
    /// These failed.
    pub failed: Vec<Failed>,
}

/// The end of the pipeline.
#[derive(Debug)]
pub struct Queue {
    sender: PollSender<Vec<Message>>,
    done: mpsc::Receiver<Done>,
    batch: Vec<Message>,
    in_flight: usize,
    metrics: SinkMetrics,
}

/// The end of the worker.
#[derive(Debug)]
pub struct Work {
    batches: mpsc::Receiver<Vec<Message>>,
    done: mpsc::Sender<Done>,
}

/// A queue and the work that it holds.
pub fn queue(metrics: SinkMetrics) -> (Queue, Work) {
    let (sender, batches) = mpsc::channel(BATCHES);
    // One answer a batch: those that wait, and the one being worked on.
    let (done, answers) = mpsc::channel(BATCHES + 1);
    let queue = Queue {
        sender: PollSender::new(sender),
        done: answers,
        batch: Vec::with_capacity(BATCH_MESSAGES),
        in_flight: 0,
        metrics,
    };
    (queue, Work { batches, done })
}

impl Work {
    /// The next batch; `None` when the pipeline has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Vec<Message>> {
        self.batches.recv().await
    }

    /// Like [`Work::next`], for a thread.
    pub fn blocking_next(&mut self) -> Option<Vec<Message>> {
        self.batches.blocking_recv()
    }

    /// Whether a batch is there already.
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty()
    }

    /// Answers: once for every batch taken, or once for several together.
    pub fn done(&self, done: Done) {
        // The pipeline may be gone; then nobody counts any more.
        let _ = self.done.try_send(done);
    }
}

impl Queue {
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) {
        while let Poll::Ready(Some(done)) = self.done.poll_recv(cx) {
            self.in_flight = self.in_flight.saturating_sub(done.delivered as usize + done.failed.len());
            self.metrics.delivered.inc_by(done.delivered);
            failed.extend(done.failed);
        }
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.batch.len() >= BATCH_MESSAGES {
            return self.poll_send(cx);
        }
        Poll::Ready(())
    }

    pub(super) fn push(&mut self, message: Message) {
        self.batch.push(message);
        self.in_flight += 1;
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) -> Poll<()> {
        if !self.batch.is_empty() {
            ready!(self.poll_send(cx));
        }
        self.poll_drive(cx, failed);
        if self.in_flight == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) -> Poll<()> {
        ready!(self.poll_flush(cx, failed));
        self.sender.close();
        // The worker drops its end once it has put everything away.
        while let Some(done) = ready!(self.done.poll_recv(cx)) {
            failed.extend(done.failed);
        }
        Poll::Ready(())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reserved = ready!(self.sender.poll_reserve(cx));
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_MESSAGES));
        reserved
            .and_then(|()| self.sender.send_item(batch))
            .expect("a worker keeps its end until the pipeline has closed the queue");
        Poll::Ready(())
    }
}
