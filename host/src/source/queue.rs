//! A source fed by a task or a thread, through a bounded channel of chunks of messages.
//!
//! One hop a chunk, not a message. A feeder asks for a place before it reads, and waits while there is
//! none: that is how backpressure reaches it. A place that it has is its own, also when the pipeline
//! closes the queue meanwhile, so what was read is never refused: the pipeline waits for it.

use super::chunks::{Chunks, Filling, NextChunk};
use super::{Fill, Room};
use crate::generation::Position;
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
pub struct SourceChunk {
    /// Messages, in order.
    pub messages: Vec<Message>,
    /// What could not be decoded between them.
    pub failed: Vec<Failed>,
    /// How far the source is read once all of it was taken; `None` where it cannot go on from there.
    pub position: Option<Position>,
}

/// The end of the pipeline.
#[derive(Debug)]
pub struct SourceQueue {
    receiver: mpsc::Receiver<Result<SourceChunk, String>>,
    chunks: Chunks,
    /// Behind the chunk that was taken last.
    position: Option<Box<Position>>,
    has_positions: bool,
    backlog: Arc<Backlog>,
    interrupt: Option<Interrupt>,
    carries_time: bool,
}

/// The end of the feeder. Dropping all of them ends the source.
#[derive(Clone, Debug)]
pub struct SourceFeed {
    sender: mpsc::Sender<Result<SourceChunk, String>>,
    backlog: Arc<Backlog>,
}

/// What was backlog and not taken.
#[derive(Debug, Default)]
struct Backlog {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Told when some of it is taken.
    taken: Notify,
}

/// A place in the queue for one chunk.
#[derive(Debug)]
pub struct SourcePermit<'a> {
    permit: mpsc::Permit<'a, Result<SourceChunk, String>>,
    backlog: &'a Backlog,
}

/// The pipeline takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline takes no more")]
pub struct Closed;

/// A queue and its feed.
pub fn queue() -> (SourceFeed, SourceQueue) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let backlog = Arc::<Backlog>::default();
    let queue = SourceQueue {
        receiver,
        chunks: Chunks::default(),
        position: None,
        has_positions: false,
        backlog: backlog.clone(),
        interrupt: None,
        carries_time: false,
    };
    (SourceFeed { sender, backlog }, queue)
}

impl SourceChunk {
    pub(super) fn len(&self) -> usize {
        self.messages.len() + self.failed.len()
    }

    fn bytes(&self) -> usize {
        let failed = self.failed.iter().map(|failed| &failed.message);
        self.messages.iter().chain(failed).map(|message| message.payload.len()).sum()
    }
}

impl Backlog {
    fn add(&self, chunk: &SourceChunk) {
        self.messages.fetch_add(chunk.len(), Ordering::Relaxed);
        self.bytes.fetch_add(chunk.bytes(), Ordering::Relaxed);
    }

    fn remove(&self, chunk: &SourceChunk) {
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

impl SourceFeed {
    /// Waits for a place. What is read once there is one reaches the pipeline, whatever it does.
    ///
    /// # Errors
    /// If the pipeline takes no more.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn reserve(&self) -> Result<SourcePermit<'_>, Closed> {
        tokio::select! {
            biased;
            () = self.sender.closed() => return Err(Closed),
            () = self.backlog.room() => {}
        }
        let permit = self.sender.reserve().await.map_err(|_| Closed)?;
        Ok(SourcePermit { permit, backlog: &self.backlog })
    }

    /// Pushes a chunk; waits while the queue is full.
    ///
    /// # Errors
    /// If the pipeline takes no more: the chunk comes back.
    ///
    /// # Cancel safety
    /// If the future is dropped, the chunk is lost.
    pub async fn push(&self, chunk: SourceChunk) -> Result<(), SourceChunk> {
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

impl SourcePermit<'_> {
    /// Puts a chunk there.
    pub fn push(self, chunk: SourceChunk) {
        self.backlog.add(&chunk);
        self.permit.send(Ok(chunk));
    }
}

impl SourceQueue {
    /// The same, with what ends the waits of the feeder once the queue is closed.
    pub(super) fn interrupting(self, interrupt: Interrupt) -> Self {
        Self { interrupt: Some(interrupt), ..self }
    }

    /// The same, of messages that come with a time of their own. Plugins are told the time of a batch, so that its
    /// messages are always the same.
    pub fn carrying_time(mut self) -> Self {
        self.chunks.keep_apart();
        Self { carries_time: true, ..self }
    }

    /// The same, of a source whose chunks say how far it is read, and that was read so far before.
    pub fn going_on(self, position: Option<Position>) -> Self {
        Self { position: position.map(Box::new), has_positions: true, ..self }
    }

    pub(super) fn has_positions(&self) -> bool {
        self.has_positions
    }

    /// How far the source is read with what was taken; `None` between the places from which it can go on.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_deref().filter(|_| self.chunks.remaining() == 0)
    }

    /// What is taken next ends at a place from which it can go on, if it comes to one.
    pub(super) fn seek_position(&mut self) {
        self.chunks.keep_next_apart();
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
        let Self { receiver, chunks, position, backlog, .. } = self;
        chunks.poll_fill(Filling { batch, room, failed }, Ok, || {
            receiver.poll_recv(cx).map(|chunk| match chunk {
                Some(Ok(chunk)) => {
                    backlog.remove(&chunk);
                    *position = chunk.position.map(Box::new);
                    NextChunk::Chunk(chunk.messages, chunk.failed)
                }
                Some(Err(error)) => NextChunk::End(Fill::Failed(error)),
                None => NextChunk::End(Fill::Ended),
            })
        })
    }

    /// Refuses what the feeder has no place for, and ends its waits. What it backlog before, and what it
    /// has a place for, still comes.
    pub(super) fn close(&mut self) {
        self.receiver.close();
        self.interrupt = None;
    }

    /// Closes, and is ready once the feeder has ended: from then on [`SourceQueue::remaining`] is all there is.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.close();
        // Nobody takes what comes now; it stays counted as backlog.
        while ready!(self.receiver.poll_recv(cx)).is_some() {}
        Poll::Ready(())
    }

    /// Messages that were backlog and not taken. The feeder can push no more.
    pub(super) fn remaining(&mut self) -> u64 {
        self.close();
        self.chunks.remaining() + self.backlog.messages.load(Ordering::Relaxed) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::message::metadata::Metadata;
    use futures_util::FutureExt as _;
    use std::future::poll_fn;

    fn chunk(bytes: usize) -> SourceChunk {
        let payload = Payload::binary(vec![0; bytes]);
        SourceChunk {
            messages: vec![Message { payload, metadata: Metadata::without_origin(0) }],
            ..SourceChunk::default()
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
    async fn a_position_is_come_to_however_fast_messages_come_and_whatever_batches_hold() {
        let (feed, queue) = queue();
        let mut queue = queue.going_on(None);
        let most = Room { messages: 4, bytes: 1 << 20 };
        for offset in 1..=2 {
            let messages = (0..5).flat_map(|_| chunk(1).messages).collect();
            let position = Position { offset, head_bytes: 0, head: [0; 32] };
            let chunk = SourceChunk { messages, position: Some(position), ..SourceChunk::default() };
            feed.push(chunk).await.expect("there is room");
        }
        let mut offsets = Vec::new();
        for _ in 0..2 {
            let (mut batch, mut failed) = (Vec::new(), Vec::new());
            queue.seek_position();
            poll_fn(|cx| queue.poll_fill(cx, &mut batch, most, &mut failed)).await;
            offsets.push((batch.len(), queue.position().map(|position| position.offset)));
        }
        assert_eq!(offsets, [(4, None), (1, Some(1))]);
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
