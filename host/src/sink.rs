//! Where messages go.
//!
//! A sink is an end that the task of its pipeline polls: it takes messages one by one, keeps them
//! until it knows what became of them, and counts each as delivered or dropped, or hands it back
//! as failed. What needs a task or a thread of its own (files, peers) is behind a [`SinkQueue`].

mod accepted;
mod dialled;
mod framing;
mod gathering;
mod gzip;
pub mod lines;
mod metadata_fields;
mod queue;
mod reply;
mod target;

pub use accepted::AcceptedSink;
pub use dialled::DialledSink;
pub use queue::{Receipt, SinkQueue, Work, queue};
pub use reply::Replies;

use crate::message::{Failed, Message};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// An end that messages go to.
///
/// Its task calls it in this order. **Before the pipeline starts**: [`Sink::poll_drive`] and
/// [`Sink::poll_connected`], until the latter is ready. **While it runs**, at every turn: `poll_drive`, which
/// reads what comes back and hands out what has failed; then, for each message, [`Sink::poll_ready`] until it
/// is ready and [`Sink::push`] once; then [`Sink::poll_flush`] where enough has gathered or nothing more comes.
/// A flush that is pending may be left for the next turn, and more may be pushed meanwhile. **At a stop**:
/// [`Sink::stop`] as soon as the pipeline knows that it stops, while messages still come; [`Sink::drain`] once
/// no more will; [`Sink::finish`] once all are here; `poll_flush` until it is ready; [`Sink::poll_close`] until it is
/// ready, and nothing after it. Between these calls it is driven and flushed on, whatever was called before.
/// A sink that is dropped before that gives up what it has, and [`Sink::in_flight`] says how much that is.
#[derive(Debug)]
pub enum Sink {
    /// Worked off by a task or a thread.
    Queue(SinkQueue),
    /// A connection that we dial.
    Dialled(Box<DialledSink>),
    /// The peers of a route.
    Accepted(AcceptedSink),
    /// The connection that a message came on.
    Reply(Replies),
}

impl Sink {
    /// Drives the end: reads what comes back, reconnects, writes what is due. Called at every turn.
    pub fn poll_drive(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) {
        match self {
            Self::Queue(queue) => queue.poll_drive(cx, failed),
            Self::Dialled(dialled) => dialled.poll_drive(cx, failed),
            Self::Accepted(accepted) => accepted.poll_drive(cx),
            Self::Reply(reply) => reply.poll_drive(cx, failed),
        }
    }

    /// Ready once it is connected, where the pipeline is not to start before. Call after
    /// [`Sink::poll_drive`].
    ///
    /// # Errors
    /// It cannot be connected.
    pub fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        match self {
            Self::Dialled(dialled) => dialled.poll_connected(),
            Self::Accepted(accepted) => accepted.poll_connected(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ready if there is room for one more message. Pending is backpressure.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Queue(queue) => queue.poll_ready(cx),
            Self::Dialled(dialled) => dialled.poll_ready(cx),
            Self::Accepted(accepted) => accepted.poll_ready(cx),
            Self::Reply(reply) => reply.poll_ready(),
        }
    }

    /// Takes a message, after [`Sink::poll_ready`] was ready.
    pub fn push(&mut self, message: Message, failed: &mut Vec<Failed>) {
        match self {
            Self::Queue(queue) => queue.push(message),
            Self::Dialled(dialled) => dialled.push(message, failed),
            Self::Accepted(accepted) => accepted.push(message, failed),
            Self::Reply(reply) => reply.push(message, failed),
        }
    }

    /// Takes messages from `next` one after another: pending as soon as there is no room for one more, ready
    /// once `next` has none. For many messages faster than [`Sink::poll_ready`] and [`Sink::push`] for each.
    pub fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        failed: &mut Vec<Failed>,
        next: impl FnMut() -> Option<Message>,
    ) -> Poll<()> {
        match self {
            Self::Queue(queue) => take(queue, next, |queue| queue.poll_ready(cx), SinkQueue::push),
            Self::Dialled(dialled) => take(
                &mut **dialled,
                next,
                |dialled| dialled.poll_ready(cx),
                |dialled, message| dialled.push(message, failed),
            ),
            Self::Accepted(accepted) => take(
                accepted,
                next,
                |accepted| accepted.poll_ready(cx),
                |accepted, message| accepted.push(message, failed),
            ),
            Self::Reply(reply) => {
                take(reply, next, Replies::poll_ready, |reply, message| reply.push(message, failed))
            }
        }
    }

    /// Sends what was taken on its way; ready once all of it has reached its end.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) -> Poll<()> {
        match self {
            Self::Queue(queue) => queue.poll_flush(cx, failed),
            Self::Dialled(dialled) => dialled.poll_flush(cx, failed),
            Self::Accepted(accepted) => accepted.poll_flush(cx),
            Self::Reply(reply) => reply.poll_flush(cx, failed),
        }
    }

    /// The pipeline stops, and is given up after `grace` if that is known: from here on a peer that takes
    /// nothing for a while costs only itself, and not the whole of that.
    pub fn stop(&mut self, grace: Option<Duration>) {
        match self {
            Self::Queue(_) | Self::Dialled(_) => {}
            Self::Accepted(accepted) => accepted.stop(grace),
            Self::Reply(reply) => reply.stop(grace),
        }
    }

    /// No more will come: what waits for others to share a frame with goes at the next flush.
    pub fn drain(&mut self) {
        match self {
            Self::Queue(_) | Self::Reply(_) => {}
            Self::Dialled(dialled) => dialled.drain(),
            Self::Accepted(accepted) => accepted.drain(),
        }
    }

    /// Every message is with its sink, and no more will come: peers of a route go with the close code as soon as
    /// each has what is for it, while others are still waited for. Call before the flush.
    pub fn finish(&mut self, code: u16) {
        match self {
            Self::Queue(_) | Self::Dialled(_) => {}
            Self::Accepted(accepted) => accepted.finish(code),
            Self::Reply(reply) => reply.finish(code),
        }
    }

    /// The time of a stop is over: what was not sent yet is given up, so that a peer that reads still gets its
    /// close frame. The account of the sink has it in flight until the pipeline closes its ledger.
    pub fn give_up(&mut self) {
        match self {
            Self::Dialled(dialled) => dialled.give_up(),
            // Their peers are given up one by one, before that.
            Self::Queue(_) | Self::Accepted(_) | Self::Reply(_) => {}
        }
    }

    /// Closes, after a flush: a connection with the close code. Ready once it is closed.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, code: u16, failed: &mut Vec<Failed>) -> Poll<()> {
        match self {
            Self::Queue(queue) => queue.poll_close(cx, failed),
            Self::Dialled(dialled) => dialled.poll_close(cx, code, failed),
            Self::Accepted(accepted) => accepted.poll_close(cx, code),
            Self::Reply(reply) => reply.poll_close(cx, code, failed),
        }
    }

    /// Why nothing will be delivered any more, whatever is tried: nobody reads what is written.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Queue(queue) => queue.failure(),
            Self::Dialled(_) | Self::Accepted(_) | Self::Reply(_) => None,
        }
    }

    /// Messages taken whose end is not known yet.
    pub fn in_flight(&self) -> usize {
        match self {
            Self::Queue(queue) => queue.in_flight(),
            Self::Dialled(dialled) => dialled.in_flight(),
            Self::Accepted(accepted) => accepted.in_flight(),
            Self::Reply(reply) => reply.in_flight(),
        }
    }
}

#[inline]
fn take<S>(
    sink: &mut S,
    mut next: impl FnMut() -> Option<Message>,
    mut poll_ready: impl FnMut(&mut S) -> Poll<()>,
    mut push: impl FnMut(&mut S, Message),
) -> Poll<()> {
    loop {
        ready!(poll_ready(sink));
        let Some(message) = next() else { return Poll::Ready(()) };
        push(sink, message);
    }
}
