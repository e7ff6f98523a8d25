//! Where messages come from.
//!
//! A source is an end that the task of its pipeline polls: it appends what is there to a batch. Not
//! being polled is the backpressure; nothing is read ahead beyond one bounded queue. What needs a
//! task or a thread of its own (files, accepted connections) feeds a [`SourceQueue`].

mod accepted;
mod chunks;
mod dialled;
pub mod lines;
mod payload_decoder;
mod progress;
mod queue;

pub use accepted::AcceptedSource;
pub use dialled::DialledSource;
pub use queue::{Closed, SourceChunk, SourceFeed, SourcePermit, SourceQueue, queue};

use crate::generation::Position;
use crate::message::{Failed, Message};
use std::task::{Context, Poll};

/// How much a source may append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Most messages.
    pub messages: usize,
    /// Most payload bytes; one larger message goes alone.
    pub bytes: usize,
}

/// What appending came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fill {
    /// It stopped at the limit; more may be there.
    More,
    /// All that was there was taken; the task is woken when there is more.
    Drained,
    /// No message will follow.
    Ended,
    /// No message will follow, because of an error.
    Failed(String),
}

/// An end that messages come from.
#[derive(Debug)]
pub enum Source {
    /// Fed by a task or a thread.
    Queue(SourceQueue),
    /// A connection that we dial.
    Dialled(Box<DialledSource>),
    /// The peers of a route.
    Accepted(Box<AcceptedSource>),
}

impl Source {
    /// Appends what is there to `batch`, as far as there is room, and what could not be decoded to
    /// `failed`. Pending if nothing was appended to either.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Message>,
        room: Room,
        failed: &mut Vec<Failed>,
    ) -> Poll<Fill> {
        match self {
            Self::Queue(queue) => queue.poll_fill(cx, batch, room, failed),
            Self::Dialled(dialled) => dialled.poll_fill(cx, batch, room, failed),
            Self::Accepted(accepted) => accepted.poll_fill(cx, batch, room, failed),
        }
    }

    /// Ready once it is connected, where the pipeline is not to start before. Reads nothing.
    ///
    /// # Errors
    /// It cannot be connected.
    pub fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        match self {
            Self::Queue(_) => Poll::Ready(Ok(())),
            Self::Dialled(dialled) => dialled.poll_connected(cx),
            Self::Accepted(accepted) => accepted.poll_connected(cx),
        }
    }

    /// The pipeline starts. Before, peers that connect are let in, and nothing is read of them for this source.
    pub fn start(&self) {
        match self {
            Self::Queue(_) | Self::Dialled(_) => {}
            Self::Accepted(accepted) => accepted.start(),
        }
    }

    /// Keeps timers honest while the pipeline does not read. Reads nothing.
    pub fn poll_hold(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Queue(_) => {}
            Self::Dialled(dialled) => dialled.poll_hold(cx),
            Self::Accepted(accepted) => accepted.hold(),
        }
    }

    /// Reads no more: what was received before is still there. Closes what nobody needs for replies.
    pub fn poll_stop(&mut self, cx: &mut Context<'_>, code: u16) {
        match self {
            Self::Dialled(dialled) => dialled.stop(code),
            Self::Accepted(accepted) => accepted.poll_stop(cx, code),
            Self::Queue(queue) => queue.close(),
        }
    }

    /// Whether messages come with a time of their own, which is not that of their receipt: those of a
    /// recording.
    pub fn carries_time(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.carries_time(),
            Self::Dialled(_) | Self::Accepted(_) => false,
        }
    }

    /// Whether it can go on where it was read to, after a restart.
    pub fn has_positions(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.has_positions(),
            Self::Dialled(_) | Self::Accepted(_) => false,
        }
    }

    /// How far it is read with what was taken: what it can go on from after a restart. `None` if it cannot, or not
    /// from here.
    pub fn position(&self) -> Option<&Position> {
        match self {
            Self::Queue(queue) => queue.position(),
            Self::Dialled(_) | Self::Accepted(_) => None,
        }
    }

    /// What is read next ends at a position as soon as it comes to one, though a batch had room for more.
    pub fn seek_position(&mut self) {
        match self {
            Self::Queue(queue) => queue.seek_position(),
            Self::Dialled(_) | Self::Accepted(_) => {}
        }
    }

    /// Messages that were received and that no pipeline took. Nothing more is received afterwards.
    pub fn remaining(&mut self) -> u64 {
        match self {
            Self::Queue(queue) => queue.remaining(),
            Self::Dialled(dialled) => dialled.remaining(),
            Self::Accepted(accepted) => accepted.remaining(),
        }
    }

    /// Stops: closes a connection with the close code, and resolves once it is closed.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        match self {
            Self::Queue(queue) => queue.poll_close(cx),
            Self::Dialled(dialled) => dialled.poll_close(cx, code),
            Self::Accepted(accepted) => accepted.poll_close(cx, code),
        }
    }
}
