//! Replies that wait for one connection, until the task that owns the connection writes them.
//!
//! A queue hangs on the origin of the connection's messages, so a reply finds it without a search, and
//! never another connection. It is bounded for each sink by that sink's own limits, and as in a broadcast a
//! peer is slow only once its connection takes nothing more and it has not caught up for a while. What became
//! of a reply is told to its sink: delivered once a flush that holds it is done, or failed with the
//! connection. Once a pipeline stops, more may wait for a connection, so that nobody waits behind another's
//! replies, and a peer that takes nothing is given up: its replies are, and nobody else's.
//! A reply that is to close the connection always has room, and no other comes behind it. It waits for what is
//! before it, but not for longer than a closing handshake may take: a peer that reads nothing is closed all the same.

use super::connection::{CLOSING_TIMEOUT, Connection, ConnectionEnd, WriteError};
use super::drain::StallTimer;
use crate::config::SlowPeer;
use crate::message::Payload;
use crate::message::metadata::Origin;
use crate::message::reply::{Closing, Enqueued, OutgoingReply, ReplyTo, ReplyTracker};
use crate::reason::Reason;
use crate::wait_budget::StallLimit;
use futures_util::task::AtomicWaker;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::time::Sleep;

/// Replies that are written at once.
const TAKEN_AT_ONCE: usize = 64;
/// Their bytes, at most; one larger reply goes alone. It bounds what a peer that stops reading keeps alive
/// beside what waits for it.
const TAKEN_AT_ONCE_BYTES: usize = 16 << 10;

/// Why a reply fails that comes behind one which closes the connection.
const CLOSING: &str = "the connection it came on is being closed by its pipeline";

/// A connection that replies are written to.
pub trait ReplyConnection {
    /// Waits until replies may be sent.
    ///
    /// # Errors
    /// Nothing can be written any more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>>;

    /// Whether each message waits for its time.
    fn is_paced(&self) -> bool;

    /// Hands one message over, after [`ReplyConnection::poll_room`] was ready.
    ///
    /// # Errors
    /// Nothing can be written any more.
    fn send(&mut self, payload: &Payload) -> Result<(), WriteError>;

    /// What is below, whatever its pace.
    fn connection(&mut self) -> &mut Connection;
}

impl ReplyConnection for Connection {
    #[inline]
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.poll_clear(cx)
    }

    #[inline]
    fn is_paced(&self) -> bool {
        false
    }

    #[inline]
    fn send(&mut self, payload: &Payload) -> Result<(), WriteError> {
        Self::send(self, payload)
    }

    #[inline]
    fn connection(&mut self) -> &mut Connection {
        self
    }
}

/// The replies that wait for one connection, of all reply sinks.
#[derive(Debug, Default)]
struct ReplyQueue {
    state: Mutex<ReplyQueueState>,
    /// How many replies wait, to be looked at without the lock.
    waiting: AtomicUsize,
    is_too_slow: AtomicBool,
    /// The last reply in it is one that closes the connection.
    is_closing: AtomicBool,
    writer: AtomicWaker,
}

#[derive(Debug, Default)]
struct ReplyQueueState {
    queue: VecDeque<(OutgoingReply, Arc<ReplyTracker>)>,
    /// How many of them, and of how many bytes, are whose.
    shares: Vec<SinkShare>,
    /// Sinks that wait for room.
    blocked: Vec<Arc<ReplyTracker>>,
    /// When the connection last took something, or else since when the queue has not been empty.
    stalled_since: Option<Instant>,
    /// Whether the connection takes nothing more now.
    is_write_blocked: bool,
    /// What it had taken when it was last looked at.
    sent_bytes: u64,
    closed: Option<(Reason, String)>,
}

#[derive(Debug)]
struct SinkShare {
    of: Arc<ReplyTracker>,
    messages: usize,
    bytes: usize,
    /// The pipeline stops, and the peer takes nothing: it gets no more of these.
    is_given_up: bool,
}

/// The end of a reply queue that the owner of the connection has. Dropping it closes the queue.
#[derive(Debug)]
pub struct ReplyWriter {
    queue: Arc<ReplyQueue>,
    /// Written, and waiting for a flush.
    sent: VecDeque<(OutgoingReply, Arc<ReplyTracker>)>,
    /// With a connection that takes nothing while a pipeline stops that has replies for it.
    stall: Option<Box<StallTimer>>,
    has_given_up: bool,
    /// Until when the reply that closes the connection waits for those before it, once there is one.
    patience: Option<Pin<Box<Sleep>>>,
    /// How the connection is to be closed, once all that was sent is flushed.
    closing: Option<Closing>,
}

impl ReplyTo for ReplyQueue {
    fn try_send(&self, reply: OutgoingReply, tracker: &Arc<ReplyTracker>) -> Enqueued {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some((reason, detail)) = &state.closed {
            return Enqueued::Refused(reply.failed(*reason, detail));
        }
        if self.is_closing.load(Ordering::Acquire) {
            return Enqueued::Refused(reply.failed(Reason::SinkUnavailable, CLOSING));
        }
        if state.share(tracker).is_given_up {
            return Enqueued::GivenUp;
        }
        let limits = tracker.limits();
        let is_last = reply.closing.is_some();
        let mut dropped = 0;
        while !is_last && !state.has_room(tracker, reply.frame.len()) && !tracker.exceeds(reply.frame.len()) {
            let waits = if limits.slow == SlowPeer::Block { Some(None) } else { state.wait(tracker) };
            if let Some(until) = waits {
                if !state.blocked.iter().any(|waits| Arc::ptr_eq(waits, tracker)) {
                    state.blocked.push(tracker.clone());
                }
                return Enqueued::Full { reply, until };
            }
            match limits.slow {
                SlowPeer::DropNewest => return Enqueued::Taken { dropped: dropped + 1 },
                SlowPeer::Disconnect => {
                    let slow = (Reason::SlowPeer, "the peer reads too slowly".to_owned());
                    let (reason, detail) = state.closed.insert(slow);
                    let failed = reply.failed(*reason, detail);
                    drop(guard);
                    self.is_too_slow.store(true, Ordering::Release);
                    self.writer.wake();
                    return Enqueued::Refused(failed);
                }
                SlowPeer::DropOldest | SlowPeer::Block => {
                    let Some(oldest) = state.queue.iter().position(|(_, of)| Arc::ptr_eq(of, tracker)) else {
                        break;
                    };
                    if let Some((oldest, _)) = state.queue.remove(oldest) {
                        state.share(tracker).give_back(&oldest);
                        dropped += 1;
                    }
                }
            }
        }
        if state.queue.is_empty() {
            state.stalled_since = Some(Instant::now());
        }
        let share = state.share(tracker);
        share.messages += 1;
        share.bytes += reply.frame.len();
        state.queue.push_back((reply, tracker.clone()));
        self.is_closing.store(is_last, Ordering::Release);
        self.waiting.store(state.queue.len(), Ordering::Release);
        drop(guard);
        self.writer.wake();
        Enqueued::Taken { dropped }
    }
}

impl ReplyQueue {
    /// Moves some of what waits to `sent`; says from where on.
    fn take(&self, most: usize, sent: &mut VecDeque<(OutgoingReply, Arc<ReplyTracker>)>) -> usize {
        let (before, mut bytes) = (sent.len(), 0);
        let mut state = self.lock();
        while sent.len() - before < most
            && let Some((reply, tracker)) = state.queue.pop_front_if(|(reply, _)| {
                bytes += reply.frame.len();
                bytes <= TAKEN_AT_ONCE_BYTES || bytes == reply.frame.len()
            })
        {
            state.share(&tracker).give_back(&reply);
            sent.push_back((reply, tracker));
        }
        self.waiting.store(state.queue.len(), Ordering::Release);
        if std::mem::take(&mut state.is_write_blocked) {
            state.stalled_since = Some(Instant::now());
        }
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        blocked.iter().for_each(|tracker| tracker.wake());
        before
    }

    /// Whether all that waits is to close the connection.
    fn has_only_closing(&self) -> bool {
        let state = self.lock();
        state.queue.len() == 1 && state.queue.front().is_some_and(|(reply, _)| reply.is_bare_closing())
    }

    /// How the connection is to be closed by what still waits.
    fn closing(&self) -> Option<Closing> {
        self.lock().queue.back().and_then(|(reply, _)| reply.closing.clone())
    }

    /// The connection takes nothing more now, of which so much was sent.
    fn write_blocked(&self, sent_bytes: u64) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.sent_bytes, sent_bytes) != sent_bytes {
            state.stalled_since = Some(Instant::now());
        }
        if !std::mem::replace(&mut state.is_write_blocked, true) {
            let blocked = std::mem::take(&mut state.blocked);
            drop(state);
            blocked.iter().for_each(|tracker| tracker.wake());
        }
    }

    fn lock(&self) -> MutexGuard<'_, ReplyQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplyQueueState {
    fn share(&mut self, tracker: &Arc<ReplyTracker>) -> &mut SinkShare {
        let index = self.shares.iter().position(|share| Arc::ptr_eq(&share.of, tracker));
        let index = index.unwrap_or_else(|| {
            self.shares.push(SinkShare { of: tracker.clone(), messages: 0, bytes: 0, is_given_up: false });
            self.shares.len() - 1
        });
        &mut self.shares[index]
    }

    /// Until when the peer is not slow, if it is not: for ever before its connection had a turn.
    fn wait(&self, tracker: &ReplyTracker) -> Option<Option<Instant>> {
        if self.is_write_blocked { tracker.wait(self.stalled_since).map(Some) } else { Some(None) }
    }

    /// One larger reply goes alone.
    fn has_room(&mut self, tracker: &Arc<ReplyTracker>, bytes: usize) -> bool {
        let limits = tracker.limits();
        let share = self.share(tracker);
        share.messages == 0 || share.messages < limits.buffer && share.bytes + bytes <= limits.buffer_bytes
    }
}

impl SinkShare {
    fn give_back(&mut self, reply: &OutgoingReply) {
        self.messages -= 1;
        self.bytes -= reply.frame.len();
    }
}

impl ReplyWriter {
    /// A new queue, and its end.
    pub fn new() -> Self {
        Self {
            queue: Arc::default(),
            sent: VecDeque::new(),
            stall: None,
            has_given_up: false,
            patience: None,
            closing: None,
        }
    }

    /// The origin of the connection's messages, with the queue as where replies to them go.
    pub fn origin(&self, origin: &Origin) -> Arc<Origin> {
        origin.with_replies_to(self.queue.clone())
    }

    /// Writes what waits, and flushes it. Ready when nothing is left; the task is woken for more.
    ///
    /// # Errors
    /// Nothing can be written any more, the peer is too slow for a sink that disconnects such, or a plugin wants
    /// the connection closed. The queue is of no use then, and is to be closed; the connection is, too, for the
    /// two last.
    #[inline]
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut impl ReplyConnection,
    ) -> Poll<Result<(), ConnectionEnd>> {
        self.queue.writer.register(cx.waker());
        if self.queue.is_too_slow.load(Ordering::Acquire) {
            return Poll::Ready(Err(ConnectionEnd::TooSlow));
        }
        let written = match self.poll_all(cx, connection) {
            Poll::Pending => self.poll_overdue(cx),
            written => written,
        };
        // One that waits for its `send_interval` is not blocked.
        let connection = connection.connection();
        if written.is_pending() && connection.is_blocked() {
            self.poll_stalled(cx, connection);
        } else {
            self.stall = None;
            self.has_given_up &= connection.is_blocked();
        }
        written
    }

    /// Whether all that was put in line is out.
    pub fn is_idle(&self) -> bool {
        self.sent.is_empty() && self.queue.waiting.load(Ordering::Acquire) == 0
    }

    /// Whether its peer takes nothing, and replies were given up for that.
    pub fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// The connection takes nothing more now: gives up the replies of pipelines that stop, once that has
    /// lasted for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>, connection: &Connection) {
        let limit = {
            let state = self.queue.lock();
            let owed = state.shares.iter().filter(|share| !share.is_given_up);
            owed.filter_map(|share| share.of.stall_limit()).reduce(StallLimit::stricter)
        };
        let Some(limit) = limit else { return };
        let stall = self.stall.get_or_insert_with(|| Box::new(StallTimer::new(connection, limit)));
        if stall.poll(cx, connection).is_ready() {
            self.stall = None;
            self.give_up();
        }
    }

    /// Gives up the replies of pipelines that stop.
    fn give_up(&mut self) {
        self.has_given_up = true;
        let is_kept = |(_, tracker): &(OutgoingReply, Arc<ReplyTracker>)| tracker.stall_limit().is_none();
        let mut given_up: Vec<(Arc<ReplyTracker>, u64)> = Vec::new();
        let mut state = self.queue.lock();
        for share in state.shares.iter_mut().filter(|share| share.of.stall_limit().is_some()) {
            let sent = self.sent.iter().filter(|(_, of)| Arc::ptr_eq(of, &share.of)).count();
            given_up.push((share.of.clone(), (sent + share.messages) as u64));
            (share.messages, share.bytes, share.is_given_up) = (0, 0, true);
        }
        self.sent.retain(is_kept);
        state.queue.retain(is_kept);
        self.queue.waiting.store(state.queue.len(), Ordering::Release);
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        tracing::debug!("the peer takes nothing: its replies are given up");
        for (tracker, messages) in given_up {
            tracker.settle(|outcomes| outcomes.given_up += messages);
        }
        blocked.iter().for_each(|tracker| tracker.wake());
    }

    #[inline]
    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut impl ReplyConnection,
    ) -> Poll<Result<(), ConnectionEnd>> {
        while self.queue.waiting.load(Ordering::Acquire) > 0 {
            // What has nothing to send waits for no room and for no `send_interval`.
            let closes_now = self.queue.is_closing.load(Ordering::Acquire) && self.queue.has_only_closing();
            let ready = if closes_now { Poll::Ready(Ok(())) } else { connection.poll_room(cx) };
            if !connection.connection().is_dirty() {
                self.settle();
            }
            if ready.is_pending() {
                self.queue.write_blocked(connection.connection().traffic().sent_bytes);
            }
            ready!(ready).map_err(ConnectionEnd::from)?;
            let most = if connection.is_paced() { 1 } else { TAKEN_AT_ONCE };
            let from = self.queue.take(most, &mut self.sent);
            let frames = self.sent.range(from..).filter(|(reply, _)| !reply.is_bare_closing());
            let sent = frames.map(|(reply, _)| &reply.frame).try_for_each(|frame| connection.send(frame));
            sent.map_err(ConnectionEnd::from)?;
            self.closing = self.sent.back().and_then(|(reply, _)| reply.closing.clone());
        }
        if !self.sent.is_empty() {
            ready!(connection.connection().poll_flush(cx)).map_err(ConnectionEnd::from)?;
            self.settle();
        }
        // All that came before it is out, and nothing comes behind it.
        match self.closing.take() {
            Some(closing) => Poll::Ready(Err(self.steered(closing))),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Not all could be written now: ready once the reply that closes the connection has waited for long enough.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionEnd>> {
        if !self.queue.is_closing.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSING_TIMEOUT)));
        ready!(patience.as_mut().poll(cx));
        let closing = self.closing.take().or_else(|| self.queue.closing());
        closing.map_or(Poll::Pending, |closing| Poll::Ready(Err(self.steered(closing))))
    }

    /// The end of a connection that is closed so.
    fn steered(&self, closing: Closing) -> ConnectionEnd {
        let since = self.patience.as_ref().map(|patience| patience.deadline() - CLOSING_TIMEOUT);
        ConnectionEnd::Steered { closing, since: since.unwrap_or_else(tokio::time::Instant::now) }
    }

    /// Closes the queue: what is in it, and what comes, has failed.
    pub fn close(mut self, ending: &ConnectionEnd) {
        let reason = match ending {
            ConnectionEnd::TooSlow => Reason::SlowPeer,
            _ => Reason::SinkUnavailable,
        };
        self.fail(reason, &format!("the connection it came on is gone: {ending}"));
    }

    fn settle(&mut self) {
        let mut run = 0;
        while let Some((_, tracker)) = self.sent.pop_front() {
            run += 1;
            if self.sent.front().is_none_or(|(_, next)| !Arc::ptr_eq(next, &tracker)) {
                let delivered = std::mem::take(&mut run);
                tracker.settle(|outcomes| outcomes.delivered += delivered);
            }
        }
    }

    fn fail(&mut self, reason: Reason, detail: &str) {
        let mut state = self.queue.lock();
        let queue = std::mem::take(&mut state.queue);
        state.shares.clear();
        state.closed.get_or_insert_with(|| (reason, detail.to_owned()));
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        self.queue.waiting.store(0, Ordering::Release);
        for (reply, tracker) in self.sent.drain(..).chain(queue) {
            tracker.settle(|outcomes| outcomes.failed.push(reply.failed(reason, detail)));
        }
        blocked.iter().for_each(|tracker| tracker.wake());
    }
}

impl Default for ReplyWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ReplyWriter {
    fn drop(&mut self) {
        self.fail(Reason::SinkUnavailable, "the connection it came on is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Peers;
    use crate::message::Message;
    use crate::message::metadata::Metadata;

    #[test]
    fn what_is_written_at_once_is_bounded_in_messages_and_in_bytes() {
        let (queue, tracker) = (ReplyQueue::default(), ReplyTracker::new(Peers::default()));
        let (small, large, huge) = (1, TAKEN_AT_ONCE_BYTES / 2, TAKEN_AT_ONCE_BYTES * 2);
        for bytes in [vec![small; 100], vec![large; 3], vec![huge; 2], vec![small]].concat() {
            let frame = Payload::binary(vec![0; bytes]);
            let message = Message { payload: frame.clone(), metadata: Metadata::without_origin(0) };
            assert!(matches!(
                queue.try_send(OutgoingReply { frame, message, closing: None }, &tracker),
                Enqueued::Taken { dropped: 0 }
            ));
        }
        let mut sent = VecDeque::new();
        let mut take = || {
            let from = queue.take(TAKEN_AT_ONCE, &mut sent);
            sent.range(from..).map(|(reply, _)| reply.frame.len()).collect::<Vec<_>>()
        };
        assert_eq!((take().len(), take()), (64, [vec![small; 36], vec![large]].concat()));
        assert_eq!((take(), take(), take()), (vec![large; 2], vec![huge], vec![huge]));
        assert_eq!((take(), take()), (vec![small], vec![]));
    }
}
