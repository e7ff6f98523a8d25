//! The way back to one connection: replies wait here until the task that owns the connection writes
//! them.
//!
//! A lane hangs on the origin of the connection's messages, so a reply finds it without a search, and
//! never another connection. It is bounded for each sink by that sink's own limits, and as in a broadcast a
//! peer is slow only once its connection takes nothing more and it has not caught up for a while. What became
//! of a reply is told to its sink: delivered once a flush that holds it is done, or failed with the
//! connection. Once a pipeline stops, a peer that takes nothing is given up: its replies are, and nobody
//! else's.

use super::connection::{Connection, Ending};
use super::drain::{self, Parting};
use super::wait_budget::Patience;
use crate::config::{Peers, SlowPeer};
use crate::message::{Failed, Message, Payload};
use crate::metadata::Origin;
use crate::reason::Reason;
use futures_util::task::AtomicWaker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Replies that are written at once.
const TAKEN_AT_ONCE: usize = 64;
/// Their bytes, at most; one larger reply goes alone. It bounds what a peer that stops reading keeps alive
/// beside what waits for it.
const TAKEN_AT_ONCE_BYTES: usize = 16 << 10;

/// The way back to one connection, shared by all reply sinks.
#[derive(Debug, Default)]
pub struct Lane {
    state: Mutex<State>,
    /// How many replies wait, to be looked at without the lock.
    waiting: AtomicUsize,
    is_too_slow: AtomicBool,
    writer: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Reply, Arc<Account>)>,
    /// How many of them, and of how many bytes, are whose.
    shares: Vec<Share>,
    /// Sinks that wait for room.
    blocked: Vec<Arc<Account>>,
    /// Since when the queue has not been empty.
    behind_since: Option<Instant>,
    /// Whether the connection takes nothing more now.
    is_write_blocked: bool,
    closed: Option<(Reason, String)>,
}

#[derive(Debug)]
struct Share {
    of: Arc<Account>,
    messages: usize,
    bytes: usize,
    /// The pipeline stops, and the peer takes nothing: it gets no more of these.
    is_given_up: bool,
}

/// A message on its way back.
#[derive(Debug)]
pub struct Reply {
    /// What is written.
    pub frame: Payload,
    /// The message it was made of, for the dead letters.
    pub message: Message,
}

/// What the lanes tell one reply sink, and what they grant it.
#[derive(Debug)]
pub struct Account {
    limits: Peers,
    /// With connections that take nothing more.
    patience: Mutex<Patience>,
    /// Once the pipeline stops: how long it waits for a peer that takes nothing.
    patience_at_stop: OnceLock<Duration>,
    settled: Mutex<Settled>,
    has_news: AtomicBool,
    sink: AtomicWaker,
}

/// What became of replies.
#[derive(Debug, Default)]
pub struct Settled {
    /// So many were flushed.
    pub delivered: u64,
    /// So many are given up: the pipeline stops, and their peers take nothing.
    pub given_up: u64,
    /// Their connection is gone.
    pub failed: Vec<Failed>,
}

/// What became of a reply that was to go on a lane.
#[derive(Debug)]
pub enum Pushed {
    /// The lane has it; so many of the sink's replies were dropped for it, itself included.
    Taken {
        /// They were too many for a slow peer.
        dropped: u64,
    },
    /// There is no room, and the sink waits.
    Full {
        /// What is to be pushed again.
        reply: Reply,
        /// When, at the latest; the sink is woken as for news if there is room before.
        until: Option<Instant>,
    },
    /// The pipeline stops, and the peer takes nothing: the reply is given up.
    GivenUp,
    /// The connection is gone.
    Refused(Failed),
}

/// The end of a lane that the owner of the connection has. Dropping it closes the lane.
#[derive(Debug)]
pub struct LaneWriter {
    lane: Arc<Lane>,
    /// Written, and waiting for a flush.
    sent: VecDeque<(Reply, Arc<Account>)>,
    /// With a connection that takes nothing while a pipeline stops that has replies for it.
    parting: Option<Box<Parting>>,
    has_given_up: bool,
}

impl Lane {
    /// The lane of the connection that messages of this origin came on, if it has one.
    pub fn of(origin: &Origin) -> Option<&Self> {
        origin.way_back::<Self>()
    }

    /// Puts a reply on the lane, as the limits of its sink allow.
    pub fn push(&self, reply: Reply, account: &Arc<Account>) -> Pushed {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some((reason, detail)) = &state.closed {
            return Pushed::Refused(reply.failed(*reason, detail));
        }
        if state.share(account).is_given_up {
            return Pushed::GivenUp;
        }
        let limits = account.limits;
        let mut dropped = 0;
        while !state.has_room(account, reply.frame.len()) {
            let patience = if limits.slow == SlowPeer::Block { Some(None) } else { state.patience(account) };
            if let Some(until) = patience {
                if !state.blocked.iter().any(|waits| Arc::ptr_eq(waits, account)) {
                    state.blocked.push(account.clone());
                }
                return Pushed::Full { reply, until };
            }
            match limits.slow {
                SlowPeer::DropNewest => return Pushed::Taken { dropped: dropped + 1 },
                SlowPeer::Disconnect => {
                    let slow = (Reason::SlowPeer, "the peer reads too slowly".to_owned());
                    let (reason, detail) = state.closed.insert(slow);
                    let failed = reply.failed(*reason, detail);
                    drop(guard);
                    self.is_too_slow.store(true, Ordering::Release);
                    self.writer.wake();
                    return Pushed::Refused(failed);
                }
                SlowPeer::DropOldest | SlowPeer::Block => {
                    let Some(oldest) = state.queue.iter().position(|(_, of)| Arc::ptr_eq(of, account)) else {
                        break;
                    };
                    if let Some((oldest, _)) = state.queue.remove(oldest) {
                        state.share(account).give_back(&oldest);
                        dropped += 1;
                    }
                }
            }
        }
        if state.queue.is_empty() {
            state.behind_since = Some(Instant::now());
        }
        let share = state.share(account);
        share.messages += 1;
        share.bytes += reply.frame.len();
        state.queue.push_back((reply, account.clone()));
        self.waiting.store(state.queue.len(), Ordering::Release);
        drop(guard);
        self.writer.wake();
        Pushed::Taken { dropped }
    }

    /// Moves some of what waits to `sent`; says from where on.
    fn take(&self, most: usize, sent: &mut VecDeque<(Reply, Arc<Account>)>) -> usize {
        let (before, mut bytes) = (sent.len(), 0);
        let mut state = self.lock();
        while sent.len() - before < most
            && let Some((reply, account)) = state.queue.pop_front_if(|(reply, _)| {
                bytes += reply.frame.len();
                bytes <= TAKEN_AT_ONCE_BYTES || bytes == reply.frame.len()
            })
        {
            state.share(&account).give_back(&reply);
            sent.push_back((reply, account));
        }
        self.waiting.store(state.queue.len(), Ordering::Release);
        state.is_write_blocked = false;
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        blocked.iter().for_each(|account| account.sink.wake());
        before
    }

    /// The connection takes nothing more now.
    fn write_blocked(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.is_write_blocked, true) {
            let blocked = std::mem::take(&mut state.blocked);
            drop(state);
            blocked.iter().for_each(|account| account.sink.wake());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn share(&mut self, account: &Arc<Account>) -> &mut Share {
        let index = self.shares.iter().position(|share| Arc::ptr_eq(&share.of, account));
        let index = index.unwrap_or_else(|| {
            self.shares.push(Share { of: account.clone(), messages: 0, bytes: 0, is_given_up: false });
            self.shares.len() - 1
        });
        &mut self.shares[index]
    }

    /// Until when the peer is not slow, if it is not: for ever before its connection had a turn.
    fn patience(&self, account: &Account) -> Option<Option<Instant>> {
        if !self.is_write_blocked {
            return Some(None);
        }
        let (now, mut patience) = (Instant::now(), account.patience());
        let until = patience.wait(self.behind_since, now);
        if until.is_none() {
            patience.go_on(now);
        }
        until.map(Some)
    }

    /// One larger reply goes alone.
    fn has_room(&mut self, account: &Arc<Account>, bytes: usize) -> bool {
        let limits = account.limits;
        let share = self.share(account);
        share.messages == 0 || share.messages < limits.buffer && share.bytes + bytes <= limits.buffer_bytes
    }
}

impl Share {
    fn give_back(&mut self, reply: &Reply) {
        self.messages -= 1;
        self.bytes -= reply.frame.len();
    }
}

impl Reply {
    fn failed(self, reason: Reason, detail: &str) -> Failed {
        Failed { message: self.message, reason, detail: detail.to_owned() }
    }
}

impl Account {
    /// Of a sink with these limits for each connection.
    pub fn new(limits: Peers) -> Arc<Self> {
        Arc::new(Self {
            limits,
            patience: Mutex::default(),
            patience_at_stop: OnceLock::new(),
            settled: Mutex::default(),
            has_news: AtomicBool::new(false),
            sink: AtomicWaker::new(),
        })
    }

    /// What became of replies since the last time; the task is woken when there is more.
    pub fn news(&self, cx: &mut Context<'_>) -> Option<Settled> {
        self.sink.register(cx.waker());
        self.has_news.swap(false, Ordering::AcqRel).then(|| std::mem::take(&mut *self.lock()))
    }

    /// The pipeline stops, and is given up after `grace` if that is known. The replies of a peer that takes
    /// nothing for a part of that are given up; who writes them is to be woken for it.
    pub fn stop(&self, grace: Option<Duration>) {
        let _ = self.patience_at_stop.set(drain::patience(grace));
    }

    /// A reply that was held is held no longer.
    pub fn go_on(&self) {
        self.patience().go_on(Instant::now());
    }

    fn patience(&self) -> MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, settle: impl FnOnce(&mut Settled)) {
        settle(&mut self.lock());
        self.has_news.store(true, Ordering::Release);
        self.sink.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LaneWriter {
    /// A new lane.
    pub fn new() -> Self {
        Self { lane: Arc::default(), sent: VecDeque::new(), parting: None, has_given_up: false }
    }

    /// The origin of the connection's messages, with the lane as their way back.
    pub fn origin(&self, origin: &Origin) -> Arc<Origin> {
        origin.with_way_back(self.lane.clone())
    }

    /// Writes what waits, and flushes it. Ready when nothing is left; the task is woken for more.
    ///
    /// # Errors
    /// Nothing can be written any more, or the peer is too slow for a sink that disconnects such. The lane is
    /// of no use then, and is to be closed.
    #[inline]
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
    ) -> Poll<Result<(), Ending>> {
        self.lane.writer.register(cx.waker());
        if self.lane.is_too_slow.load(Ordering::Acquire) {
            return Poll::Ready(Err(Ending::TooSlow));
        }
        let written = self.poll_all(cx, connection);
        // One that waits for its `send_interval` is not blocked.
        if written.is_pending() && connection.is_blocked() {
            self.poll_parting(cx, connection);
        } else {
            self.parting = None;
            self.has_given_up &= connection.is_blocked();
        }
        written
    }

    /// Whether its peer takes nothing, and replies were given up for that.
    pub fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// The connection takes nothing more now: gives up the replies of pipelines that stop, once that has
    /// lasted for too long.
    fn poll_parting(&mut self, cx: &mut Context<'_>, connection: &Connection) {
        let patience = {
            let state = self.lane.lock();
            let owed = state.shares.iter().filter(|share| !share.is_given_up);
            owed.filter_map(|share| share.of.patience_at_stop.get().copied()).min()
        };
        let Some(patience) = patience else { return };
        let parting = self.parting.get_or_insert_with(|| Box::new(Parting::new(connection, patience)));
        if parting.poll(cx, connection).is_ready() {
            self.parting = None;
            self.give_up();
        }
    }

    /// Gives up the replies of pipelines that stop.
    fn give_up(&mut self) {
        self.has_given_up = true;
        let is_kept = |(_, account): &(Reply, Arc<Account>)| account.patience_at_stop.get().is_none();
        let mut given_up: Vec<(Arc<Account>, u64)> = Vec::new();
        let mut state = self.lane.lock();
        for share in state.shares.iter_mut().filter(|share| share.of.patience_at_stop.get().is_some()) {
            let sent = self.sent.iter().filter(|(_, of)| Arc::ptr_eq(of, &share.of)).count();
            given_up.push((share.of.clone(), (sent + share.messages) as u64));
            (share.messages, share.bytes, share.is_given_up) = (0, 0, true);
        }
        self.sent.retain(is_kept);
        state.queue.retain(is_kept);
        self.lane.waiting.store(state.queue.len(), Ordering::Release);
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        tracing::debug!("the peer takes nothing: its replies are given up");
        for (account, messages) in given_up {
            account.settle(|settled| settled.given_up += messages);
        }
        blocked.iter().for_each(|account| account.sink.wake());
    }

    #[inline]
    fn poll_all(&mut self, cx: &mut Context<'_>, connection: &mut Connection) -> Poll<Result<(), Ending>> {
        while self.lane.waiting.load(Ordering::Acquire) > 0 {
            let ready =
                if connection.is_paced() { connection.poll_ready(cx) } else { connection.poll_clear(cx) };
            if !connection.is_dirty() {
                self.settle();
            }
            if ready.is_pending() {
                self.lane.write_blocked();
            }
            ready!(ready).map_err(Ending::from)?;
            let most = if connection.is_paced() { 1 } else { TAKEN_AT_ONCE };
            let from = self.lane.take(most, &mut self.sent);
            let sent = self.sent.range(from..).try_for_each(|(reply, _)| connection.send(&reply.frame));
            sent.map_err(Ending::from)?;
        }
        if !self.sent.is_empty() {
            ready!(connection.poll_flush(cx)).map_err(Ending::from)?;
            self.settle();
        }
        Poll::Ready(Ok(()))
    }

    /// Closes the lane: what is on it, and what comes, has failed.
    pub fn close(mut self, ending: &Ending) {
        let reason = match ending {
            Ending::TooSlow => Reason::SlowPeer,
            _ => Reason::SinkUnavailable,
        };
        self.fail(reason, &format!("the connection it came on is gone: {ending}"));
    }

    fn settle(&mut self) {
        let mut run = 0;
        while let Some((_, account)) = self.sent.pop_front() {
            run += 1;
            if self.sent.front().is_none_or(|(_, next)| !Arc::ptr_eq(next, &account)) {
                let delivered = std::mem::take(&mut run);
                account.settle(|settled| settled.delivered += delivered);
            }
        }
    }

    fn fail(&mut self, reason: Reason, detail: &str) {
        let mut state = self.lane.lock();
        let queue = std::mem::take(&mut state.queue);
        state.shares.clear();
        state.closed.get_or_insert_with(|| (reason, detail.to_owned()));
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        self.lane.waiting.store(0, Ordering::Release);
        for (reply, account) in self.sent.drain(..).chain(queue) {
            account.settle(|settled| settled.failed.push(reply.failed(reason, detail)));
        }
        blocked.iter().for_each(|account| account.sink.wake());
    }
}

impl Default for LaneWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        self.fail(Reason::SinkUnavailable, "the connection it came on is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Metadata;

    #[test]
    fn what_is_written_at_once_is_bounded_in_messages_and_in_bytes() {
        let (lane, account) = (Lane::default(), Account::new(Peers::default()));
        let (small, large, huge) = (1, TAKEN_AT_ONCE_BYTES / 2, TAKEN_AT_ONCE_BYTES * 2);
        for bytes in [vec![small; 100], vec![large; 3], vec![huge; 2], vec![small]].concat() {
            let frame = Payload::binary(vec![0; bytes]);
            let message = Message { payload: frame.clone(), metadata: Metadata::without_origin(0) };
            assert!(matches!(lane.push(Reply { frame, message }, &account), Pushed::Taken { dropped: 0 }));
        }
        let mut sent = VecDeque::new();
        let mut take = || {
            let from = lane.take(TAKEN_AT_ONCE, &mut sent);
            sent.range(from..).map(|(reply, _)| reply.frame.len()).collect::<Vec<_>>()
        };
        assert_eq!((take().len(), take()), (64, [vec![small; 36], vec![large]].concat()));
        assert_eq!((take(), take(), take()), (vec![large; 2], vec![huge], vec![huge]));
        assert_eq!((take(), take()), (vec![small], vec![]));
    }
}
