//! A source fed by a task or a thread, through a bounded channel of chunks of messages.
//!
//! One hop a chunk, not a message. The feeder waits while the channel is full: that is how
//! backpressure reaches it. When the pipeline closes the queue, the feeder's next push fails.

use super::chunks::{Chunks, Filling, Next};
use super::{Fill, Room};
use crate::message::{Failed, Message};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Chunks that may wait; with chunks of up to 256 messages, some thousand messages.
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
}

/// The end of the feeder. Dropping all of them ends the source.
#[derive(Clone, Debug)]
pub struct Feed {
    sender: mpsc::Sender<Result<Chunk, String>>,
}

/// A queue and its feed.
pub fn queue() -> (Feed, Queue) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    (Feed { sender }, Queue { receiver, chunks: Chunks::default() })
}

impl Feed {
    /// Pushes a chunk; waits while the queue is full.
    ///
    /// # Errors
    /// If the pipeline takes no more: the chunk comes back.
    ///
    /// # Cancel safety
    /// If the future is dropped, the chunk is lost.
    pub async fn push(&self, chunk: Chunk) -> Result<(), Chunk> {
        self.sender.send(Ok(chunk)).await.map_err(|refused| refused.0.unwrap_or_default())
    }

    /// Like [`Feed::push`], for a thread.
    ///
    /// # Errors
    /// If the pipeline takes no more: the chunk comes back.
    pub fn blocking_push(&self, chunk: Chunk) -> Result<(), Chunk> {
        self.sender.blocking_send(Ok(chunk)).map_err(|refused| refused.0.unwrap_or_default())
    }

    /// Ends the source with an error. Does nothing if it ended before.
    pub async fn fail(self, error: String) {
        let _ = self.sender.send(Err(error)).await;
    }

    /// Like [`Feed::fail`], for a thread.
    pub fn blocking_fail(self, error: String) {
        let _ = self.sender.blocking_send(Err(error));
    }

    /// Resolves when the pipeline takes no more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

impl Queue {
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Message>,
        room: Room,
        failed: &mut Vec<Failed>,
    ) -> Poll<Fill> {
        let receiver = &mut self.receiver;
        self.chunks.poll_fill(Filling { batch, room, failed }, Ok, || {
            receiver.poll_recv(cx).map(|chunk| match chunk {
                Some(Ok(chunk)) => Next::Chunk(chunk.messages, chunk.failed),
                Some(Err(error)) => Next::End(Fill::Failed(error)),
                None => Next::End(Fill::Ended),
            })
        })
    }

    /// Refuses what the feeder pushes from now on. What it pushed before is still there.
    pub(super) fn close(&mut self) {
        self.receiver.close();
    }
}
