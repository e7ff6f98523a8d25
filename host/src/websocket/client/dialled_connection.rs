//! One connection of a session, from its dial to its end: its first messages, its pace, its heartbeat, its
//! timers, its counters.
//!
//! Its owner reads and writes here, and knows nothing of pace and heartbeat: the first messages go out before
//! those of the owner, no two closer together than `send_interval`, and the answers to heartbeats are not among
//! what is received.

use super::heartbeat::{ExpectedReply, HeartbeatAction, HeartbeatTimer};
use super::pace::SendPace;
use crate::config::Endpoint;
use crate::connections::{ConnectionTotals, OpenConnection, OpenEndpoint};
use crate::message::Payload;
use crate::websocket::connection::{Connection, ConnectionEnd, Received, Traffic, WriteError};
use crate::websocket::keepalive::{Keepalive, KeepaliveAction};
use crate::websocket::reply_queue::ReplyConnection;
use crate::websocket::secret::Secrets;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// What a dial came to.
pub(super) struct Dialled {
    /// Where it was dialled, as it may be shown.
    pub(super) url: String,
    pub(super) connection: Connection,
    pub(super) pace: Option<Box<SendPace>>,
    pub(super) expected: Option<Box<ExpectedReply>>,
    pub(super) heartbeat: Option<HeartbeatTimer>,
    pub(super) secrets: Secrets,
}

/// A connection that we dialled, and what goes with it.
pub struct DialledConnection {
    connection: Connection,
    /// `None` where no first message waits and each message may be sent at once.
    pace: Option<Box<SendPace>>,
    /// The answer to our heartbeats, where one is configured.
    expected: Option<Box<ExpectedReply>>,
    keepalive: Keepalive,
    heartbeat: Option<HeartbeatTimer>,
    /// What the peer was given and may quote.
    secrets: Secrets,
    /// Its row in the table of connections.
    shown: Arc<OpenConnection>,
    since: Instant,
    /// Where it was dialled, as it may be shown.
    pub(super) url: String,
    counted: Traffic,
    needs_flush: bool,
    /// What was told of its end, once that was seen.
    pub(super) told: Option<String>,
}

impl DialledConnection {
    /// What a dial came to, with its row in the table of connections.
    pub(super) fn new(dialled: Dialled, endpoint: &Endpoint, shown: Arc<OpenConnection>) -> Self {
        Self {
            connection: dialled.connection,
            pace: dialled.pace,
            expected: dialled.expected,
            keepalive: Keepalive::new(endpoint),
            heartbeat: dialled.heartbeat,
            secrets: dialled.secrets,
            shown,
            since: Instant::now(),
            url: dialled.url,
            counted: Traffic::default(),
            needs_flush: false,
            told: None,
        }
    }

    /// The next thing the peer sent, the answers to heartbeats aside: see [`Connection::poll_receive`].
    #[inline]
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        match ready!(self.connection.poll_receive(cx)) {
            Received::Message(payload) if is_expected(&mut self.expected, &payload) => {
                Poll::Ready(Received::Control)
            }
            received => Poll::Ready(received),
        }
    }

    /// The next message of those that were read while they were held back, without reading more.
    #[inline]
    pub(crate) fn take_held(&mut self) -> Option<Payload> {
        self.connection.take_held()
    }

    /// How many messages were read while they were held back, and not yet received.
    pub(crate) fn held_messages(&self) -> usize {
        self.connection.held_messages()
    }

    /// Whether the connection has ended; what was received before may still wait.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.connection.is_over()
    }

    /// How the connection has ended.
    pub(super) fn ending(&self) -> Option<&ConnectionEnd> {
        self.connection.ending()
    }

    /// Starts the end, if it has none yet: see [`Connection::end`].
    pub(crate) fn end(&mut self, ending: ConnectionEnd) {
        self.connection.end(ending);
    }

    /// The connection alone, which is to be seen through to its end.
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    /// Reads on while messages are held back: see [`Connection::poll_hold`].
    pub(super) fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { connection, expected, .. } = self;
        connection.poll_hold(cx, |payload| is_expected(expected, payload))
    }

    /// Whether one more message may be sent without waiting for the peer or for `send_interval`.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.connection.is_ready() && self.pace.as_ref().is_none_or(|pace| pace.is_open())
    }

    /// Waits until the peer has read enough of what was sent that more may be, and it is time for it.
    ///
    /// # Errors
    /// Nothing can be written any more.
    #[inline]
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        if self.pace.is_some() {
            ready!(self.poll_first(cx))?;
        }
        self.connection.poll_ready(cx)
    }

    /// Sends the first messages, each at its time, and waits for the time of the next.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        loop {
            if self.connection.is_blocked() {
                ready!(self.connection.poll_flush(cx))?;
            }
            let Some(pace) = &mut self.pace else { break };
            ready!(pace.poll_due(cx));
            let Some(payload) = pace.take_first() else { break };
            self.send(&payload)?;
        }
        self.pace.take_if(|pace| !pace.is_timed());
        Poll::Ready(Ok(()))
    }

    /// Hands one message over: see [`Connection::send`]. Call only when [`Self::poll_ready`] or
    /// [`Self::is_ready`] says so.
    ///
    /// # Errors
    /// Nothing can be written any more.
    #[inline]
    pub fn send(&mut self, payload: &Payload) -> Result<(), WriteError> {
        self.connection.send(payload)?;
        let Some(pace) = &mut self.pace else { return Ok(()) };
        pace.sent();
        if pace.is_timed()
            && let Poll::Ready(flushed) = self.connection.try_flush()
        {
            return flushed;
        }
        Ok(())
    }

    /// Writes all that was sent.
    ///
    /// # Errors
    /// Nothing can be written any more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.connection.poll_flush(cx)
    }

    /// Writes what the socket takes now; the waker is that of the last poll.
    ///
    /// # Errors
    /// Nothing can be written any more.
    pub fn try_flush(&mut self) -> Poll<Result<(), WriteError>> {
        self.connection.try_flush()
    }

    /// An end of it as it may be told: the peer's words quote no secret.
    pub(super) fn told_of(&self, ending: &ConnectionEnd) -> ConnectionEnd {
        match ending {
            ConnectionEnd::Closed { code, reason } => {
                ConnectionEnd::Closed { code: *code, reason: self.secrets.conceal(reason) }
            }
            other => other.clone(),
        }
    }

    /// How long it has lived.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// It is no connection any more, as far as the table of connections goes.
    pub(super) fn detach(&mut self, metrics: &OpenEndpoint) {
        self.count(metrics);
        metrics.detach(&self.shown);
    }

    /// Messages went through; called once for many.
    #[inline]
    pub(super) fn message(&mut self, metrics: &OpenEndpoint) {
        self.keepalive.message();
        self.count(metrics);
    }

    /// Reading is held back until [`Self::release`].
    pub(super) fn hold(&mut self) {
        self.keepalive.hold();
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.hold();
        }
    }

    /// Reading goes on.
    #[inline]
    pub(super) fn release(&mut self) {
        self.keepalive.release();
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.release();
        }
    }

    /// Sends what is due, and ends the connection if it is time for that: its owner finds the end as it
    /// reads. A write that fails ends nothing but writing.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, metrics: &OpenEndpoint) {
        if self.connection.is_over() {
            return;
        }
        if self.pace.as_ref().is_some_and(|pace| pace.has_first()) {
            let _ = self.poll_ready(cx);
            self.needs_flush = true;
        }
        self.poll_heartbeat(cx);
        self.count(metrics);
        self.shown.register(cx.waker());
        if let Some(dismissal) = self.shown.dismissal() {
            self.connection.end(ConnectionEnd::Dismissed(dismissal.clone()));
        }
        while let Poll::Ready(due) = self.keepalive.poll(cx, &self.connection, || Duration::ZERO) {
            match due {
                KeepaliveAction::Silent => return self.connection.end(ConnectionEnd::Silent),
                KeepaliveAction::Idle => return self.connection.end(ConnectionEnd::Idle),
                KeepaliveAction::Ping => {
                    self.connection.ping();
                    self.needs_flush = true;
                }
            }
        }
        if self.needs_flush && self.connection.poll_flush(cx).is_ready() {
            self.needs_flush = false;
        }
    }

    #[inline]
    fn count(&mut self, metrics: &OpenEndpoint) {
        let traffic = self.connection.traffic();
        if traffic != self.counted {
            let received = traffic.received_bytes - self.counted.received_bytes;
            metrics.count_bytes(received, traffic.sent_bytes - self.counted.sent_bytes);
            self.counted = traffic;
            self.shown.count(self.totals());
        }
    }

    /// What has gone through, as the table of connections shows it.
    fn totals(&self) -> ConnectionTotals {
        let totals = self.connection.totals();
        ConnectionTotals { received_messages: totals.received_messages - self.replies(), ..totals }
    }

    /// How many answers to heartbeats have come.
    #[inline]
    fn replies(&self) -> u64 {
        self.expected.as_ref().map_or(0, |expected| expected.received())
    }

    #[inline]
    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) {
        let replies = self.replies();
        while let Some(heartbeat) = &mut self.heartbeat
            && let Poll::Ready(action) = heartbeat.poll(cx, replies)
        {
            match action {
                HeartbeatAction::NoReply if self.connection.has_unread(cx) => heartbeat.look_soon(),
                HeartbeatAction::NoReply => return self.connection.end(ConnectionEnd::NoReply),
                HeartbeatAction::Due => {
                    let message = heartbeat.message().clone();
                    if !matches!(self.poll_ready(cx), Poll::Ready(Ok(()))) {
                        return;
                    }
                    let _ = self.send(&message);
                    self.heartbeat.as_mut().map(HeartbeatTimer::sent);
                    self.needs_flush = true;
                }
            }
        }
    }
}

impl ReplyConnection for DialledConnection {
    #[inline]
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        if self.is_paced() { self.poll_ready(cx) } else { self.connection.poll_clear(cx) }
    }

    #[inline]
    fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    #[inline]
    fn send(&mut self, payload: &Payload) -> Result<(), WriteError> {
        Self::send(self, payload)
    }

    #[inline]
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// Whether a message is the answer to a heartbeat; it is counted then.
#[inline]
fn is_expected(expected: &mut Option<Box<ExpectedReply>>, payload: &Payload) -> bool {
    expected.as_mut().is_some_and(|expected| expected.take(payload.as_bytes()))
}
