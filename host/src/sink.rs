//! Where messages go.
//!
//! A sink is an end that the task of its pipeline polls: it takes messages one by one, keeps them
//! until it knows what became of them, and counts each as delivered or dropped, or hands it back
//! as failed. What needs a task or a thread of its own (files, peers) is behind a [`Queue`].

mod framing;
mod gathering;
mod gzip;
pub mod lines;
mod metadata_fields;
mod queue;
mod reply;
mod target;
pub mod websocket;

pub use queue::{Done, Queue, Work, queue};
pub use reply::Reply;

use crate::message::{Failed, Message};
use std::task::{Context, Poll};
use std::time::Duration;

/// An end that messages go to.
#[derive(Debug)]
pub enum Sink {
    /// Worked off by a task or a thread.
    Queue(Queue),
    /// A connection that we dial.
    Client(Box<websocket::Client>),
    /// The peers of a path.
    Server(websocket::Server),
    /// The connection that a message came on.
    Reply(Reply),
}

impl Sink {
    /// Drives the end: reads what comes back, reconnects, writes what is due. Called at every turn.
    pub fn poll_drive(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) {
        match self {
            Self::Queue(queue) => queue.poll_drive(cx, failed),
            Self::Client(client) => client.poll_drive(cx, failed),
            Self::Server(server) => server.poll_drive(cx),
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
            Self::Client(client) => client.poll_connected(),
            Self::Server(server) => server.poll_connected(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ready if there is room for one more message. Pending is backpressure.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Queue(queue) => queue.poll_ready(cx),
            Self::Client(client) => client.poll_ready(cx),
            Self::Server(server) => server.poll_ready(cx),
            Self::Reply(reply) => reply.poll_ready(),
        }
    }

    /// Takes a message, after [`Sink::poll_ready`] was ready.
    pub fn push(&mut self, message: Message, failed: &mut Vec<Failed>) {
        match self {
            Self::Queue(queue) => queue.push(message),
            Self::Client(client) => client.push(message, failed),
            Self::Server(server) => server.push(message, failed),
            Self::Reply(reply) => reply.push(message, failed),
        }
    }

    /// Sends what was taken on its way; ready once all of it has reached its end.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) -> Poll<()> {
        match self {
            Self::Queue(queue) => queue.poll_flush(cx, failed),
            Self::Client(client) => client.poll_flush(cx, failed),
            Self::Server(server) => server.poll_flush(cx),
            Self::Reply(reply) => reply.poll_flush(cx, failed),
        }
    }

    /// The pipeline stops, and is given up after `grace` if that is known: from here on a peer that takes
    /// nothing for a while costs only itself, and not the whole of that.
    pub fn stop(&mut self, grace: Option<Duration>) {
        match self {
            Self::Queue(_) | Self::Client(_) => {}
            Self::Server(server) => server.stop(grace),
            Self::Reply(reply) => reply.stop(grace),
        }
    }

    /// No more will come: what waits for others to share a frame with goes at the next flush.
    pub fn drain(&mut self) {
        match self {
            Self::Queue(_) | Self::Reply(_) => {}
            Self::Client(client) => client.drain(),
            Self::Server(server) => server.drain(),
        }
    }

    /// Closes, after a flush: a connection with the close code. Ready once it is closed.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, code: u16, failed: &mut Vec<Failed>) -> Poll<()> {
        match self {
            Self::Queue(queue) => queue.poll_close(cx, failed),
            Self::Client(client) => client.poll_close(cx, code, failed),
            Self::Server(server) => server.poll_close(cx, code),
            Self::Reply(reply) => reply.poll_close(cx, code, failed),
        }
    }

    /// Why nothing will be delivered any more, whatever is tried: nobody reads what is written.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Queue(queue) => queue.failure(),
            Self::Client(_) | Self::Server(_) | Self::Reply(_) => None,
        }
    }

    /// Messages taken whose end is not known yet.
    pub fn in_flight(&self) -> usize {
        match self {
            Self::Queue(queue) => queue.in_flight(),
            Self::Client(client) => client.in_flight(),
            Self::Server(server) => server.in_flight(),
            Self::Reply(reply) => reply.in_flight(),
        }
    }
}
