//! Replies on their way back: from a sink to the connection that the messages they answer came on.
//!
//! The origin of a connection's messages knows what takes replies for it ([`ReplyTo`]), so nothing is looked up,
//! and a connection that is gone cannot be mistaken for the next one. A sink of replies has one
//! [`ReplyTracker`] for all connections: it has the limits, and is told what became of each reply.

use super::{Failed, Message, Payload};
use crate::config::Peers;
use crate::reason::Reason;
use crate::wait_budget::{MESSAGE_BYTES, STOP_ROOM_BYTES, StallLimit, WaitBudget};
use futures_util::task::AtomicWaker;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Context;
use std::time::Instant;

/// Takes replies for one connection.
pub trait ReplyTo: fmt::Debug + Send + Sync {
    /// Puts a reply in line, as the limits of its sink allow.
    fn try_send(&self, reply: OutgoingReply, tracker: &Arc<ReplyTracker>) -> Enqueued;
}

/// A message on its way back.
#[derive(Debug)]
pub struct OutgoingReply {
    /// The payload of the frame that is written.
    pub frame: Payload,
    /// The message it was made of, for the dead letters.
    pub message: Message,
    /// The connection is to be closed behind it; an empty frame is not sent then.
    pub closing: Option<Closing>,
}

/// The close frame that a plugin wants a connection to be closed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Its code, one that may be sent.
    pub code: u16,
    /// Its reason; often "".
    pub reason: String,
}

/// What became of a reply that was to be put in line.
#[derive(Debug)]
pub enum Enqueued {
    /// It is in line; so many of the sink's replies were dropped for it, itself included.
    Taken {
        /// They were too many for a slow peer.
        dropped: u64,
    },
    /// There is no room, and the sink waits.
    Full {
        /// What is to be sent again.
        reply: OutgoingReply,
        /// When, at the latest; the sink is woken as for news if there is room before.
        until: Option<Instant>,
    },
    /// The pipeline stops, and the peer takes nothing: the reply is given up.
    GivenUp,
    /// The connection is gone.
    Refused(Failed),
}

/// What became of replies that were put in line.
#[derive(Debug, Default)]
pub struct ReplyOutcomes {
    /// So many were flushed.
    pub delivered: u64,
    /// So many are given up: the pipeline stops, and their peers take nothing.
    pub given_up: u64,
    /// Their connection is gone.
    pub failed: Vec<Failed>,
}

/// The replies of one sink, on whatever connections: their limits, and what became of them.
#[derive(Debug)]
pub struct ReplyTracker {
    limits: Peers,
    /// For connections that take nothing more.
    wait_budget: Mutex<WaitBudget>,
    /// Once the pipeline stops: how long it waits for a peer that takes nothing.
    stall_limit: OnceLock<StallLimit>,
    /// What may be put in line then beyond the limits, on all connections together.
    stop_room_bytes: AtomicUsize,
    outcomes: Mutex<ReplyOutcomes>,
    has_news: AtomicBool,
    sink: AtomicWaker,
}

impl OutgoingReply {
    /// Whether there is nothing to send but a close frame.
    pub(crate) fn is_bare_closing(&self) -> bool {
        self.closing.is_some() && self.frame.is_empty()
    }

    /// The message as one that has failed.
    pub(crate) fn failed(self, reason: Reason, detail: &str) -> Failed {
        Failed { message: self.message, reason, detail: detail.to_owned() }
    }
}

impl ReplyTracker {
    /// Of a sink with these limits for each connection.
    pub fn new(limits: Peers) -> Arc<Self> {
        Arc::new(Self {
            limits,
            wait_budget: Mutex::default(),
            stall_limit: OnceLock::new(),
            stop_room_bytes: AtomicUsize::new(STOP_ROOM_BYTES),
            outcomes: Mutex::default(),
            has_news: AtomicBool::new(false),
            sink: AtomicWaker::new(),
        })
    }

    /// What one connection may have in line, and what happens where that is too little.
    #[inline]
    pub(crate) fn limits(&self) -> Peers {
        self.limits
    }

    /// What became of replies since the last time; the task is woken when there is more.
    pub fn news(&self, cx: &mut Context<'_>) -> Option<ReplyOutcomes> {
        self.sink.register(cx.waker());
        self.has_news.swap(false, Ordering::AcqRel).then(|| std::mem::take(&mut *self.lock()))
    }

    /// Something became of replies.
    pub(crate) fn settle(&self, settle: impl FnOnce(&mut ReplyOutcomes)) {
        settle(&mut self.lock());
        self.has_news.store(true, Ordering::Release);
        self.sink.wake();
    }

    /// There may be room now for a reply that waits.
    pub(crate) fn wake(&self) {
        self.sink.wake();
    }

    /// Until when a connection is waited for that is behind and has taken nothing since then, if it is.
    pub(crate) fn wait(&self, stalled_since: Option<Instant>) -> Option<Instant> {
        let (now, mut budget) = (Instant::now(), self.budget());
        let until = budget.wait(stalled_since, now);
        if until.is_none() {
            budget.go_on(now);
        }
        until
    }

    /// A reply that waited waits no longer.
    pub fn go_on(&self) {
        self.budget().go_on(Instant::now());
    }

    /// The pipeline stops. The replies of a peer that takes nothing for so long are given up; whoever writes
    /// them is to be woken for it.
    pub fn stop(&self, limit: StallLimit) {
        let _ = self.stall_limit.set(limit);
    }

    /// How long a peer is waited for that takes nothing: for ever before the pipeline stops.
    pub(crate) fn stall_limit(&self) -> Option<StallLimit> {
        self.stall_limit.get().copied()
    }

    /// Whether a reply of so many bytes goes in line though there is no room for it: the pipeline stops, and
    /// replies to other connections come behind this one.
    pub(crate) fn exceeds(&self, bytes: usize) -> bool {
        let less = |room: usize| room.checked_sub(bytes + MESSAGE_BYTES);
        self.stall_limit().is_some()
            && self.stop_room_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn budget(&self) -> MutexGuard<'_, WaitBudget> {
        self.wait_budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, ReplyOutcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
