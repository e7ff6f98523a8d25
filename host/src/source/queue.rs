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
use tokio::sync::mpsc;

/// Chunks that may wait; of a file, each what was read at once.
const CHUNKS: usize = 8;

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
    /// Messages that were pushed, and that `chunks` has not taken.
    pushed: Arc<AtomicUsize>,
    interrupt: Option<Interrupt>,
    carries_time: bool,
}

/// The end of the feeder. Dropping all of them ends the source.
#[derive(Clone, Debug)]
pub struct Feed {
    sender: mpsc::Sender<Result<Chunk, String>>,
    pushed: Arc<AtomicUsize>,
}

/// A place in the queue for one chunk.
#[derive(Debug)]
pub struct Place<'a> {
    permit: mpsc::Permit<'a, Result<Chunk, String>>,
    pushed: &'a AtomicUsize,
}

/// The pipeline takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline takes no more")]
pub struct Closed;

/// A queue and its feed.
pub fn queue() -> (Feed, Queue) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let pushed = Arc::<AtomicUsize>::default();
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
        self.pushed.fetch_add(chunk.len(), Ordering::Relaxed);
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
                    pushed.fetch_sub(chunk.len(), Ordering::Relaxed);
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
        self.chunks.remaining() + self.pushed.load(Ordering::Relaxed) as u64
    }
}
