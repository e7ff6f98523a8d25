//! A sink worked off by a task or a thread, through a bounded channel of batches of messages.
//!
//! One hop a batch. What became of the batches is added up at one place, from which the pipeline takes
//! it whenever it looks, so no answer waits for room and none can be lost. What the queue holds is
//! bounded in messages and in bytes.

use crate::interrupt::Interrupt;
use crate::message::{Failed, Message};
use crate::reason::Reason;
use crate::telemetry::SinkMetrics;
use futures_util::task::AtomicWaker;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::PollSender;

/// Batches that may wait for the worker.
const BATCHES: usize = 8;
/// Messages that are sent to the worker at once.
const BATCH_MESSAGES: usize = 256;
/// Bytes that are sent to the worker at once; one larger message goes alone.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of messages whose end is not known, from which on no more are taken: a full channel of messages
/// of 2 KiB.
const QUEUE_BYTES: usize = 4 << 20;

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Receipt {
    /// So many messages were delivered.
    pub delivered: u64,
    /// These failed.
    pub failed: Vec<Failed>,
}

/// The end of the pipeline.
#[derive(Debug)]
pub struct SinkQueue {
    sender: PollSender<QueuedBatch>,
    answers: Arc<Answers>,
    batch: QueuedBatch,
    /// Messages that were taken, and whose end the pipeline does not know.
    in_flight: usize,
    /// Bytes that were taken, and that the worker has not dealt with.
    bytes: usize,
    /// What failed, until the pipeline takes it.
    failed: Vec<Failed>,
    failure: Option<String>,
    has_ended: bool,
    interrupt: Option<Interrupt>,
    /// Tells the worker that its pipeline runs, once it does.
    begin: Option<oneshot::Sender<()>>,
    metrics: SinkMetrics,
}

/// The end of the worker.
#[derive(Debug)]
pub struct Work {
    batches: mpsc::Receiver<QueuedBatch>,
    answers: Arc<Answers>,
    /// Bytes of the batches that were taken since the last answer.
    bytes: usize,
}

/// Messages on their way to the worker.
#[derive(Debug, Default)]
struct QueuedBatch {
    messages: Vec<Message>,
    bytes: usize,
}

/// What the worker has to say.
#[derive(Debug, Default)]
struct Answers {
    given: Mutex<Receipts>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Receipts {
    done: Receipt,
    /// Bytes of the batches that were dealt with.
    bytes: usize,
    failure: Option<String>,
    /// The worker will say no more.
    has_ended: bool,
    /// The pipeline has counted what it gave as lost, and asks for nothing any more.
    is_abandoned: bool,
}

/// A queue and the work that it holds.
pub fn queue(metrics: SinkMetrics) -> (SinkQueue, Work) {
    let (sender, batches) = mpsc::channel(BATCHES);
    let answers = Arc::<Answers>::default();
    let queue = SinkQueue {
        sender: PollSender::new(sender),
        answers: answers.clone(),
        batch: QueuedBatch::default(),
        in_flight: 0,
        bytes: 0,
        failed: Vec::new(),
        failure: None,
        has_ended: false,
        interrupt: None,
        begin: None,
        metrics,
    };
    (queue, Work { batches, answers, bytes: 0 })
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Receipts> {
        self.given.lock().expect("nothing panics while it is held")
    }
}

impl Work {
    /// The next batch; `None` when the pipeline has ended, or has given up what it holds.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Vec<Message>> {
        let batch = self.batches.recv().await;
        self.take(batch)
    }

    /// Like [`Work::next`], for a thread.
    pub fn blocking_next(&mut self) -> Option<Vec<Message>> {
        let batch = self.batches.blocking_recv();
        self.take(batch)
    }

    fn take(&mut self, batch: Option<QueuedBatch>) -> Option<Vec<Message>> {
        let QueuedBatch { messages, bytes } = batch?;
        if self.answers.lock().is_abandoned {
            return None;
        }
        self.bytes += bytes;
        Some(messages)
    }

    /// Whether no batch is there yet.
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty()
    }

    /// Answers: once for every batch taken, or once for several together.
    pub fn done(&mut self, done: Receipt) {
        self.answer(done, None);
    }

    /// The same for the last batches: nothing more can be delivered, ever, for this reason. Who hears of the
    /// batches hears of that, too: it may be the end of the pipeline that nothing is in flight any more.
    pub fn fail(&mut self, done: Receipt, error: String) {
        self.answer(done, Some(error));
    }

    fn answer(&mut self, done: Receipt, failure: Option<String>) {
        let mut given = self.answers.lock();
        given.done.delivered += done.delivered;
        given.done.failed.extend(done.failed);
        given.bytes += std::mem::take(&mut self.bytes);
        given.failure = given.failure.take().or(failure);
        drop(given);
        self.answers.waker.wake();
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.batches.close();
        let mut given = self.answers.lock();
        while let Ok(batch) = self.batches.try_recv() {
            given.done.failed.extend(unworked(batch));
        }
        given.has_ended = true;
        drop(given);
        self.answers.waker.wake();
    }
}

/// The messages of a batch that no worker takes.
fn unworked(batch: QueuedBatch) -> impl Iterator<Item = Failed> {
    batch.messages.into_iter().map(|message| Failed {
        message,
        reason: Reason::SinkUnavailable,
        detail: "nobody writes to the sink any more".to_owned(),
    })
}

impl SinkQueue {
    /// The same, with what ends the waits of the worker once the queue is dropped.
    pub(super) fn interrupting(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = Some(interrupt);
        self
    }

    /// The same, telling `begin` once a pipeline drives the sink; a pipeline that does not start never does.
    pub(super) fn beginning(mut self, begin: oneshot::Sender<()>) -> Self {
        self.begin = Some(begin);
        self
    }

    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) {
        if let Some(begin) = self.begin.take() {
            // A worker that is gone has said so itself.
            let _ = begin.send(());
        }
        self.answers.waker.register(cx.waker());
        self.hear();
        self.in_flight -= self.failed.len();
        failed.append(&mut self.failed);
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.batch.messages.len() >= BATCH_MESSAGES || self.batch.bytes >= BATCH_BYTES {
            ready!(self.poll_send(cx));
        }
        if self.bytes < QUEUE_BYTES {
            return Poll::Ready(());
        }
        // What makes room is that the worker deals with what there is.
        ready!(self.poll_send(cx));
        self.answers.waker.register(cx.waker());
        self.hear();
        if !self.failed.is_empty() {
            // They are handed over at the next turn, which nothing else may ask for.
            cx.waker().wake_by_ref();
        }
        if self.bytes < QUEUE_BYTES { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn push(&mut self, message: Message) {
        let bytes = message.payload.len();
        if self.batch.messages.is_empty() {
            self.batch.messages.reserve(BATCH_MESSAGES);
        }
        self.batch.messages.push(message);
        self.batch.bytes += bytes;
        self.bytes += bytes;
        self.in_flight += 1;
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) -> Poll<()> {
        ready!(self.poll_send(cx));
        self.poll_drive(cx, failed);
        if self.in_flight == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) -> Poll<()> {
        ready!(self.poll_flush(cx, failed));
        self.sender.close();
        // The worker drops its end once it has put everything away.
        self.poll_drive(cx, failed);
        if self.has_ended { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Why nothing can be delivered any more.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Takes what the worker has said since.
    fn hear(&mut self) {
        let mut given = self.answers.lock();
        let Receipt { delivered, failed } = std::mem::take(&mut given.done);
        let bytes = std::mem::take(&mut given.bytes);
        self.failure = self.failure.take().or_else(|| given.failure.take());
        let has_ended = given.has_ended;
        drop(given);
        self.in_flight -= usize::try_from(delivered).unwrap_or(usize::MAX);
        self.bytes -= bytes;
        self.metrics.account.delivered(delivered);
        self.failed.extend(failed);
        if has_ended && !self.has_ended {
            self.has_ended = true;
            self.bytes = self.batch.bytes;
            // A worker that ended as it should has answered for all it took.
            let lost = self.in_flight - self.failed.len() - self.batch.messages.len();
            self.in_flight -= lost;
            self.metrics.account.dropped(Reason::SinkUnavailable, lost as u64);
        }
    }

    /// Sends what has gathered. Ready if nothing has, any more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.batch.messages.is_empty() {
            return Poll::Ready(());
        }
        let reserved = ready!(self.sender.poll_reserve(cx));
        let batch = std::mem::take(&mut self.batch);
        if reserved.is_err() {
            self.bytes -= batch.bytes;
            self.failed.extend(unworked(batch));
            cx.waker().wake_by_ref();
        } else if let Err(refused) = self.sender.send_item(batch)
            && let Some(batch) = refused.into_inner()
        {
            self.bytes -= batch.bytes;
            self.failed.extend(unworked(batch));
        }
        Poll::Ready(())
    }
}

impl Drop for SinkQueue {
    fn drop(&mut self) {
        self.answers.lock().is_abandoned = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::message::metadata::Metadata;
    use crate::telemetry::Metrics;
    use std::future::poll_fn;
    use std::task::Waker;

    fn message(bytes: usize) -> Message {
        Message { payload: Payload::binary(vec![0; bytes]), metadata: Metadata::without_origin(0) }
    }

    /// Pushes as long as there is room, at most so many; how many that were.
    fn push(queue: &mut SinkQueue, bytes: usize, most: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut pushed = 0;
        while pushed < most && queue.poll_ready(&mut cx).is_ready() {
            queue.push(message(bytes));
            pushed += 1;
        }
        pushed
    }

    fn delivered(messages: usize) -> Receipt {
        Receipt { delivered: messages as u64, failed: Vec::new() }
    }

    #[tokio::test]
    async fn every_answer_is_taken_however_many_wait() {
        let (mut queue, mut work) = queue(Metrics::default().sink("p", "s"));
        for n in 0..1_000 {
            assert_eq!(push(&mut queue, 1, 256), 256);
            poll_fn(|cx| queue.poll_ready(cx)).await;
            let batch = work.next().await.expect("a batch was sent");
            let failed = |message| Failed { message, reason: Reason::SinkUnavailable, detail: String::new() };
            if n % 2 == 0 {
                work.done(delivered(batch.len()));
            } else {
                work.done(Receipt { delivered: 0, failed: batch.into_iter().map(failed).collect() });
            }
        }
        let mut failed = Vec::new();
        poll_fn(|cx| queue.poll_flush(cx, &mut failed)).await;
        assert_eq!((queue.in_flight(), failed.len()), (0, 128_000));
        assert_eq!(queue.metrics.account.counts().delivered, 128_000);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_and_a_larger_message_still_goes() {
        let (mut queue, mut work) = queue(Metrics::default().sink("p", "s"));
        assert_eq!(push(&mut queue, 16 << 20, 100), 1);
        let batch = work.next().await.expect("it was sent, to make room");
        assert_eq!(push(&mut queue, 1, 1), 0);
        work.done(delivered(batch.len()));
        assert_eq!(push(&mut queue, 1 << 20, 100), 4);
    }

    #[tokio::test]
    async fn what_a_worker_leaves_behind_has_failed_and_what_it_took_is_counted() {
        let metrics = Metrics::default();
        let (mut queue, mut work) = queue(metrics.sink("p", "s"));
        push(&mut queue, 1, 600);
        let mut failed = Vec::new();
        work.next().await.expect("a batch was sent");
        drop(work);
        poll_fn(|cx| queue.poll_flush(cx, &mut failed)).await;
        assert_eq!((queue.in_flight(), failed.len()), (0, 600 - 256));
        assert!(metrics.encode().contains(
            "tidemill_messages_dropped_total{pipeline=\"p\",stage=\"s\",reason=\"sink_unavailable\"} 256"
        ));
        push(&mut queue, 1, 3);
        failed.clear();
        poll_fn(|cx| queue.poll_close(cx, &mut failed)).await;
        assert_eq!(failed.len(), 3);
    }

    #[tokio::test]
    async fn who_hears_that_the_last_batch_is_done_hears_why_it_was_the_last() {
        let (mut queue, mut work) = queue(Metrics::default().sink("p", "s"));
        push(&mut queue, 1, 3);
        let mut failed = Vec::new();
        assert!(poll_fn(|cx| Poll::Ready(queue.poll_flush(cx, &mut failed))).await.is_pending());
        let batch = work.next().await.expect("a batch was sent");
        work.fail(delivered(batch.len()), "it is full".to_owned());
        poll_fn(|cx| queue.poll_flush(cx, &mut failed)).await;
        assert_eq!(queue.failure(), Some("it is full"));
    }

    #[tokio::test]
    async fn nothing_is_worked_on_that_the_pipeline_has_given_up() {
        let (mut queue, mut work) = queue(Metrics::default().sink("p", "s"));
        push(&mut queue, 1, 600);
        drop(queue);
        assert!(work.next().await.is_none());
    }
}
