//! Keeping an idle connection alive, and noticing a dead one.
//!
//! Pings go out at their interval; anything received within their timeout is life, and so is a peer that
//! still reads what was sent before the ping. Time in which backpressure held reading back counts for
//! nobody: what was not read cannot be missed. Events only ever move deadlines back, so the one timer is
//! looked at again when it fires, not per message.

use super::connection::{Connection, TcpProgress};
use crate::config::{Endpoint, Ping};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// When a peer that seems dead, and has sent something that is not read yet, is looked at again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How often, in the time of `idle_timeout`, a connection is looked at that would be idle if its messages did not
/// wait for a pipeline.
const LOOKS_WHILE_HELD: u32 = 4;

/// The timer of one connection.
pub(super) struct Keepalive {
    schedule: Schedule,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepaliveAction {
    /// Send a ping.
    Ping,
    /// The peer is dead.
    Silent,
    /// No message came for too long.
    Idle,
}

impl Keepalive {
    /// For a connection that begins now.
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let schedule = Schedule::new(endpoint.ping, endpoint.idle_timeout, Instant::now());
        let timer = schedule.next().map(|at| Box::pin(tokio::time::sleep_until(at)));
        Self { schedule, timer }
    }

    /// A message went through; called once for many. Says whether that counts.
    #[inline]
    pub(super) fn message(&mut self) -> bool {
        let counts = self.schedule.idle.is_some();
        if counts {
            self.schedule.last_message = Instant::now();
        }
        counts
    }

    /// Reading is held back until [`Self::release`].
    pub(super) fn hold(&mut self) {
        if self.schedule.held_since.is_none() {
            self.schedule.held_since = Some(Instant::now());
        }
    }

    /// Reading goes on. Says whether it was held back.
    #[inline]
    pub(super) fn release(&mut self) -> bool {
        let was_held = self.schedule.held_since.is_some();
        if was_held {
            self.schedule.release(Instant::now());
            if let (Some(timer), Some(next)) = (&mut self.timer, self.schedule.next())
                && next < timer.deadline()
            {
                // It was set for what could be due while held.
                timer.as_mut().reset(next);
            }
        }
        was_held
    }

    /// What is due on this connection. `held` says for how long since the last message, or since it was asked
    /// last, a pipeline did not take what had been read already.
    #[inline]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        mut held: impl FnMut() -> Duration,
    ) -> Poll<KeepaliveAction> {
        while let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
            let (life, progress) = (connection.traffic().life, || connection.stream().progress());
            let due = self.schedule.due(Instant::now(), life, progress);
            if matches!(due, Some(KeepaliveAction::Silent | KeepaliveAction::Idle))
                && connection.has_unread(cx)
            {
                // It has said something, and is not dead before that was looked at.
                timer.as_mut().reset(Instant::now() + LOOK_AGAIN);
                continue;
            }
            if due == Some(KeepaliveAction::Idle)
                && let Some(next) = self.schedule.excuse(held())
            {
                timer.as_mut().reset(next);
                continue;
            }
            match self.schedule.next() {
                Some(next) => timer.as_mut().reset(next),
                None => self.timer = None,
            }
            if let Some(due) = due {
                return Poll::Ready(due);
            }
        }
        Poll::Pending
    }
}

#[derive(Debug)]
struct Schedule {
    ping: Option<Ping>,
    idle: Option<Duration>,
    next_ping: Instant,
    unanswered: Option<Unanswered>,
    last_message: Instant,
    held_since: Option<Instant>,
}

/// The first of the pings without an answer, and how the connection stood then.
#[derive(Debug)]
struct Unanswered {
    sent: Instant,
    life: u64,
    progress: Option<TcpProgress>,
}

impl Schedule {
    fn new(ping: Option<Ping>, idle: Option<Duration>, now: Instant) -> Self {
        let next_ping = ping.map_or(now, |ping| now + ping.interval);
        Self { ping, idle, next_ping, unanswered: None, last_message: now, held_since: None }
    }

    /// When to look again.
    fn next(&self) -> Option<Instant> {
        let next_ping = self.ping.map(|_| self.next_ping);
        if self.held_since.is_some() {
            return next_ping.or_else(|| self.idle.map(|idle| Instant::now() + idle));
        }
        let silent = self.ping.zip(self.unanswered.as_ref()).map(|(ping, first)| first.sent + ping.timeout);
        let idle = self.idle.map(|idle| self.last_message + idle);
        [next_ping, silent, idle].into_iter().flatten().min()
    }

    fn due(
        &mut self,
        now: Instant,
        life: u64,
        progress: impl Fn() -> Option<TcpProgress>,
    ) -> Option<KeepaliveAction> {
        self.unanswered.take_if(|first| life > first.life);
        if self.held_since.is_none() {
            if let (Some(ping), Some(first)) = (self.ping, &self.unanswered)
                && now >= first.sent + ping.timeout
            {
                let reads = first.progress.zip(progress()).is_some_and(|(then, now)| now.is_beyond(&then));
                if !reads {
                    return Some(KeepaliveAction::Silent);
                }
                self.unanswered = None;
            }
            if self.idle.is_some_and(|idle| now >= self.last_message + idle) {
                return Some(KeepaliveAction::Idle);
            }
        }
        let ping = self.ping.filter(|_| now >= self.next_ping)?;
        self.next_ping = now + ping.interval;
        self.unanswered.get_or_insert_with(|| Unanswered { sent: now, life, progress: progress() });
        Some(KeepaliveAction::Ping)
    }

    /// Takes what was held off the time without a message. When to look again, if that was any: where the
    /// hold lasts, not at every moment.
    fn excuse(&mut self, held: Duration) -> Option<Instant> {
        let idle = self.idle.filter(|_| !held.is_zero())?;
        let now = Instant::now();
        self.last_message = (self.last_message + held).min(now);
        self.next().map(|next| next.max(now + idle / LOOKS_WHILE_HELD))
    }

    /// Moves what was being waited for by the time it was not looked for.
    fn release(&mut self, now: Instant) {
        let Some(held_since) = self.held_since.take() else { return };
        let moved = |since: Instant| since + (now - since.max(held_since).min(now));
        self.last_message = moved(self.last_message);
        if let Some(first) = &mut self.unanswered {
            first.sent = moved(first.sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Ping = Ping { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_ping_without_an_answer_means_silence_and_any_life_is_one() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Some(PING), None, start);
        assert_eq!(schedule.next(), Some(start + seconds(30)));
        assert_eq!(schedule.due(start + seconds(30), 7, || None), Some(KeepaliveAction::Ping));
        assert_eq!(schedule.next(), Some(start + seconds(40)));
        assert_eq!(schedule.due(start + seconds(40), 8, || None), None, "something was received");
        assert_eq!(schedule.due(start + seconds(60), 8, || None), Some(KeepaliveAction::Ping));
        assert_eq!(schedule.due(start + seconds(70), 8, || None), Some(KeepaliveAction::Silent));
    }

    #[test]
    fn held_time_counts_neither_for_pings_nor_for_idleness() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Some(PING), Some(seconds(60)), start);
        assert_eq!(schedule.due(start + seconds(30), 0, || None), Some(KeepaliveAction::Ping));
        schedule.held_since = Some(start + seconds(35));
        assert_eq!(schedule.due(start + seconds(45), 0, || None), None);
        schedule.release(start + seconds(135));
        assert_eq!(
            schedule.due(start + seconds(139), 0, || None),
            Some(KeepaliveAction::Ping),
            "the ping that was due meanwhile"
        );
        assert_eq!(schedule.due(start + seconds(140), 0, || None), Some(KeepaliveAction::Silent));
        schedule.unanswered = None;
        assert_eq!(schedule.due(start + seconds(159), 0, || None), None);
        assert_eq!(schedule.due(start + seconds(160), 0, || None), Some(KeepaliveAction::Idle));
    }

    #[test]
    fn messages_keep_a_connection_from_being_idle_and_pings_do_not() {
        let start = Instant::now();
        let mut schedule = Schedule::new(None, Some(seconds(60)), start);
        schedule.last_message = start + seconds(50);
        assert_eq!(schedule.due(start + seconds(60), 99, || None), None);
        assert_eq!(schedule.due(start + seconds(110), 99, || None), Some(KeepaliveAction::Idle));
    }
}
