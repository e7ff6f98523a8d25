//! A source fed by a task or a thread, through a bounded channel of chunks of messages.
//!
//! One hop a chunk, not a message. A feeder asks for a place before it reads, and waits while there is
//! none: that is how backpressure reaches it. A place that it has is its own, also when the pipeline
//! closes the queue meanwhile, so what was read is never refused: the pipeline waits for it.

use super::chunks::{Chunks, Filling, Next};
use super::{Fill, Room};
use crate::interrupt::Interrupt;
use crate::message::{Failed, Message};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::sync::{Notify, mpsc};

/// Chunks that may wait; of a file, each what was read at once.
const CHUNKS: usize = 8;
/// Bytes of messages that wait, from which on nothing more is read: chunks of long lines are few.
const QUEUE_BYTES: usize = 4 << 20;

/// What a feeder pushes at once.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Messages, in order.
    pub messages: Vec<Message>,
    /// What could not be decoded between them.
    pub failed: Vec<Failed>,
}

/// The end of the pipeline.
#[derive(Debug)]
pub struct Queue {
    receiver: mpsc::Receiver<Result<Chunk, String>>,
    chunks: Chunks,
    pushed: Arc<Pushed>,
    interrupt: Option<Interrupt>,
    carries_time: bool,
}

/// The end of the feeder. Dropping all of them ends the source.
#[derive(Clone, Debug)]
pub struct Feed {
    sender: mpsc::Sender<Result<Chunk, String>>,
    pushed: Arc<Pushed>,
}

/// What was pushed and not taken.
#[derive(Debug, Default)]
struct Pushed {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Told when some of it is taken.
    taken: Notify,
}

/// A place in the queue for one chunk.
#[derive(Debug)]
pub struct Place<'a> {
    permit: mpsc::Permit<'a, Result<Chunk, String>>,
    pushed: &'a Pushed,
}

/// The pipeline takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline takes no more")]
pub struct Closed;

/// A queue and its feed.
pub fn queue() -> (Feed, Queue) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let pushed = Arc::<Pushed>::default();
    let queue = Queue {
        receiver,
        chunks: Chunks::default(),
        pushed: pushed.clone(),
        interrupt: None,
        carries_time: false,
    };
    (Feed { sender, pushed }, queue)
}

impl Chunk {
    fn len(&self) -> usize {
        self.messages.len() + self.failed.len()
    }

    fn bytes(&self) -> usize {
        let failed = self.failed.iter().map(|failed| &failed.message);
        self.messages.iter().chain(failed).map(|message| message.payload.len()).sum()
    }
}

impl Pushed {
    fn add(&self, chunk: &Chunk) {
        self.messages.fetch_add(chunk.len(), Ordering::Relaxed);
        self.bytes.fetch_add(chunk.bytes(), Ordering::Relaxed);
    }

    fn remove(&self, chunk: &Chunk) {
        self.messages.fetch_sub(chunk.len(), Ordering::Relaxed);
        self.bytes.fetch_sub(chunk.bytes(), Ordering::Relaxed);
        self.taken.notify_waiters();
    }

    /// Resolves once there is room for more.
    async fn room(&self) {
        loop {
            let taken = self.taken.notified();
            if self.bytes.load(Ordering::Relaxed) < QUEUE_BYTES {
                return;
            }
            taken.await;
        }
    }
}

impl Feed {
    /// Waits for a place. What is read once there is one reaches the pipeline, whatever it does.
    ///
    /// # Errors
    /// If the pipeline takes no more.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn reserve(&self) -> Result<Place<'_>, Closed> {
        tokio::select! {
            biased;
            () = self.sender.closed() => return Err(Closed),
            () = self.pushed.room() => {}
        }
        let permit = self.sender.reserve().await.map_err(|_| Closed)?;
        Ok(Place { permit, pushed: &self.pushed })
    }

    /// Pushes a chunk; waits while the queue is full.
    ///
    /// # Errors
    /// If the pipeline takes no more: the chunk comes back.
    ///
    /// # Cancel safety
    /// If the future is dropped, the chunk is lost.
    pub async fn push(&self, chunk: Chunk) -> Result<(), Chunk> {
        match self.reserve().await {
            Ok(place) => {
                place.push(chunk);
                Ok(())
            }
            Err(Closed) => Err(chunk),
        }
    }

    /// Ends the source with an error. Does nothing if it ended before, or the pipeline takes no more.
    pub async fn fail(self, error: String) {
        if let Ok(permit) = self.sender.reserve().await {
            permit.send(Err(error));
        }
    }

    /// Resolves when the pipeline takes no more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Whether the pipeline takes no more.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Place<'_> {
    /// Puts a chunk there.
    pub fn push(self, chunk: Chunk) {
        self.pushed.add(&chunk);
        self.permit.send(Ok(chunk));
    }
}

impl Queue {
    /// The same, with what ends the waits of the feeder once the queue is closed.
    pub(super) fn interrupting(self, interrupt: Interrupt) -> Self {
        Self { interrupt: Some(interrupt), ..self }
    }

    /// The same, of messages that come with a time of their own.
    pub fn carrying_time(self) -> Self {
        Self { carries_time: true, ..self }
    }

    pub(super) fn carries_time(&self) -> bool {
        self.carries_time
    }

    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Message>,
        room: Room,
        failed: &mut Vec<Failed>,
    ) -> Poll<Fill> {
        let Self { receiver, chunks, pushed, .. } = self;
        chunks.poll_fill(Filling { batch, room, failed }, Ok, || {
            receiver.poll_recv(cx).map(|chunk| match chunk {
                Some(Ok(chunk)) => {
                    pushed.remove(&chunk);
                    Next::Chunk(chunk.messages, chunk.failed)
                }
                Some(Err(error)) => Next::End(Fill::Failed(error)),
                None => Next::End(Fill::Ended),
            })
        })
    }

    /// Refuses what the feeder has no place for, and ends its waits. What it pushed before, and what it
    /// has a place for, still comes.
    pub(super) fn close(&mut self) {
        self.receiver.close();
        self.interrupt = None;
    }

    /// Closes, and is ready once the feeder has ended: from then on [`Queue::remaining`] is all there is.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.close();
        // Nobody takes what comes now; it stays counted as pushed.
        while ready!(self.receiver.poll_recv(cx)).is_some() {}
        Poll::Ready(())
    }

    /// Messages that were pushed and not taken. The feeder can push no more.
    pub(super) fn remaining(&mut self) -> u64 {
        self.close();
        self.chunks.remaining() + self.pushed.messages.load(Ordering::Relaxed) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::metadata::Metadata;
    use futures_util::FutureExt as _;
    use std::future::poll_fn;

    fn chunk(bytes: usize) -> Chunk {
        let payload = Payload::binary(vec![0; bytes]);
        Chunk {
            messages: vec![Message { payload, metadata: Metadata::without_origin(0) }],
            ..Chunk::default()
        }
    }

    #[tokio::test]
    async fn chunks_that_wait_are_bounded_in_bytes_too() {
        let (feed, mut queue) = queue();
        feed.push(chunk(5 << 20)).await.expect("nothing waits");
        assert!(feed.reserve().now_or_never().is_none());
        let (mut batch, mut failed) = (Vec::new(), Vec::new());
        let room = Room { messages: 1, bytes: 1 << 20 };
        poll_fn(|cx| queue.poll_fill(cx, &mut batch, room, &mut failed)).await;
        feed.push(chunk(1)).await.expect("there is room again");
    }

    #[tokio::test]
    async fn a_place_that_was_given_is_good_after_the_close_and_what_nobody_took_is_told() {
        let (feed, mut queue) = queue();
        let place = feed.reserve().await.expect("it is open");
        queue.close();
        assert_eq!(feed.reserve().await.expect_err("it is closed"), Closed);
        assert!(poll_fn(|cx| Poll::Ready(queue.poll_close(cx))).await.is_pending());
        place.push(chunk(1));
        poll_fn(|cx| queue.poll_close(cx)).await;
        assert_eq!(queue.remaining(), 1);
    }
}
