//! What is read of a connection while its messages are held back.
//!
//! Backpressure is that messages are not read. A peer's pings stand between its messages, though, and so
//! does its close frame: a peer that is not answered leaves, and one that left is not noticed. So when a
//! hold lasts, a bounded piece is read on and kept. Once it is full, what comes after waits in the kernels
//! of both sides, pings with it.

use crate::message::Payload;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A shorter hold is a pause between two batches, and costs nothing.
const PATIENCE: Duration = Duration::from_millis(100);
/// Most bytes that are read on, whole messages and a part of one.
const MAX_BYTES: usize = 256 << 10;
/// What a message takes up beside its payload.
const MESSAGE_BYTES: usize = 64;
/// The longest header of a frame.
const HEADER_BYTES: usize = 14;

/// What was read ahead of one connection, and since when it is held.
#[derive(Default)]
pub(super) struct Hold {
    messages: VecDeque<Payload>,
    /// What the messages take up.
    bytes: usize,
    /// Read, and not of a message that is whole.
    partial_bytes: usize,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Hold {
    /// Begins the hold, if it has not begun; ready once it has lasted long enough to be read on.
    pub(super) fn poll_long(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = *self.since.get_or_insert_with(Instant::now) + PATIENCE;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // A timer of an earlier hold fires too early, and is set then: many holds set none.
        ready!(timer.as_mut().poll(cx));
        if timer.deadline() < due && due > Instant::now() {
            timer.as_mut().reset(due);
            return timer.as_mut().poll(cx);
        }
        Poll::Ready(())
    }

    /// How many bytes more may be read.
    pub(super) fn room(&self) -> usize {
        MAX_BYTES.saturating_sub(self.bytes + self.partial_bytes)
    }

    /// So many bytes were read.
    pub(super) fn read(&mut self, bytes: u64) {
        self.partial_bytes += usize::try_from(bytes).unwrap_or(MAX_BYTES);
    }

    /// Some of them were this message.
    pub(super) fn push(&mut self, payload: Payload) {
        self.partial_bytes = self.partial_bytes.saturating_sub(payload.len() + HEADER_BYTES);
        self.bytes += payload.len() + MESSAGE_BYTES;
        self.messages.push_back(payload);
    }

    /// Ends the hold; the first message that was read in it.
    #[inline]
    pub(super) fn release(&mut self) -> Option<Payload> {
        self.since = None;
        let Some(payload) = self.messages.pop_front() else {
            self.partial_bytes = 0;
            return None;
        };
        self.bytes -= payload.len() + MESSAGE_BYTES;
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
        Some(payload)
    }

    /// Forgets the messages: somebody has them.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }

    /// The messages that were read in it, in order.
    pub(super) fn messages(&self) -> &VecDeque<Payload> {
        &self.messages
    }
}
