//! How long a pipeline waits for peers whose connections take nothing more: while it runs, and when it stops.
//!
//! A peer that reads at once needs a moment to catch up with a burst, and waiting for it loses nothing: so one
//! that has taken something just now is waited for. But peers that do not read must cost the others little,
//! however many there are and however often they come: so the waiting of a sink is a small share of the time,
//! saved up to enough for a burst on a busy machine.
//!
//! While a pipeline runs, what finds no room holds it: that is the backpressure. Once it stops nothing more is
//! read, and holding it would only make the others wait. So more than usual may wait then for whoever takes
//! nothing, within a bound, and those who take something get theirs without delay.

use std::time::{Duration, Instant};

/// How long a peer is waited for that takes nothing.
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(500);
/// How much waiting is saved up at most, for peers that take something all the time.
const MAX_SAVED: Duration = Duration::from_secs(5);
/// One part in so many of the time may be spent on waiting.
const SHARE: u32 = 20;
/// At a stop: a peer that has taken nothing for so long does not read, and what it is owed is given up. Long
/// enough for one that reads steadily and slowly: its system takes more only when a good part of what it holds
/// was read, which at 20 kB a second and with common buffers is seconds.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// What is left of the time of a stop when the last peers are given up, at most: others are to get theirs.
const MAX_RESERVE: Duration = Duration::from_secs(1);

/// At a stop: what may wait at one place beyond the usual, so that nobody else waits behind it. It is as much as
/// one call of a plugin may return by default, and more than the channel of a server endpoint holds.
pub(crate) const STOP_ROOM_BYTES: usize = 16 << 20;
/// What a message that waits takes up beside its payload.
pub(crate) const MESSAGE_BYTES: usize = 128;

/// What waits at one place of a pipeline, and whether that holds the pipeline.
#[derive(Debug, Default)]
pub(crate) struct WaitingBytes {
    bytes: usize,
    is_stopping: bool,
}

impl WaitingBytes {
    /// A message with a payload of so many bytes waits.
    pub(crate) fn add(&mut self, payload_bytes: usize) {
        self.bytes += payload_bytes + MESSAGE_BYTES;
    }

    /// It waits no longer.
    pub(crate) fn remove(&mut self, payload_bytes: usize) {
        self.bytes -= payload_bytes + MESSAGE_BYTES;
    }

    /// The pipeline stops: from here on messages may wait without holding it.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether the pipeline may go on.
    pub(crate) fn has_room(&self) -> bool {
        self.is_empty() || self.is_stopping && self.bytes < STOP_ROOM_BYTES
    }
}

/// What one sink may still wait.
#[derive(Debug)]
pub(crate) struct WaitBudget {
    left: Duration,
    /// When it was that, and whether it has been waiting since.
    at: Instant,
    is_waiting: bool,
}

impl WaitBudget {
    pub(crate) fn new() -> Self {
        Self { left: MAX_SAVED, at: Instant::now(), is_waiting: false }
    }

    /// Waits, or goes on waiting, for a peer that is behind and has taken nothing since then; answers until
    /// when. `None`: the peer, or the sink, has used up its time.
    pub(crate) fn wait(&mut self, stalled_since: Option<Instant>, now: Instant) -> Option<Instant> {
        self.pass(now);
        let until = (now + self.left).min(stalled_since? + MAX_WAIT);
        let waits = now < until;
        self.is_waiting |= waits;
        waits.then_some(until)
    }

    /// Nobody is waited for.
    pub(crate) fn go_on(&mut self, now: Instant) {
        if self.is_waiting {
            self.pass(now);
            self.is_waiting = false;
        }
    }

    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.left = if self.is_waiting {
            self.left.saturating_sub(passed)
        } else {
            (self.left + passed / SHARE).min(MAX_SAVED)
        };
        self.at = now;
    }
}

/// How long a peer may take nothing of what it is owed while a pipeline stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallLimit {
    /// From when it took something last.
    pub(crate) timeout: Duration,
    /// But no longer than until then, if that is known.
    until: Option<tokio::time::Instant>,
}

impl StallLimit {
    /// Of a pipeline that begins to stop now, and is given up after `grace` if that is known: there is to be
    /// time left for what goes to others, also where a peer takes nothing only late.
    pub fn new(grace: Option<Duration>) -> Self {
        let Some(grace) = grace else { return Self::default() };
        let until = tokio::time::Instant::now() + (grace - MAX_RESERVE.min(grace / 4));
        Self { timeout: STALL_TIMEOUT.min(grace * 2 / 3), until: Some(until) }
    }

    /// What both allow.
    pub(crate) fn stricter(self, other: Self) -> Self {
        let until = self.until.into_iter().chain(other.until).min();
        Self { timeout: self.timeout.min(other.timeout), until }
    }

    /// When a peer is given up that has taken nothing since then.
    pub(crate) fn end(&self, since: tokio::time::Instant) -> tokio::time::Instant {
        let end = since + self.timeout;
        self.until.map_or(end, |until| end.min(until))
    }
}

impl Default for StallLimit {
    fn default() -> Self {
        Self { timeout: STALL_TIMEOUT, until: None }
    }
}

impl Default for WaitBudget {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_waited_for_and_many_slow_peers_take_a_small_share_of_the_time() {
        let mut budget = WaitBudget::new();
        let start = budget.at;
        assert_eq!(budget.wait(Some(start), start), Some(start + MAX_WAIT));
        assert_eq!(budget.wait(Some(start), start + MAX_WAIT / 2), Some(start + MAX_WAIT));
        assert_eq!(budget.wait(Some(start), start + MAX_WAIT), None);
        // Others come at once, and again and again.
        let mut waited = Duration::ZERO;
        let mut now = start + MAX_WAIT;
        let end = now + Duration::from_secs(10);
        while now < end {
            match budget.wait(Some(now), now) {
                Some(until) => {
                    waited += until - now;
                    now = until;
                }
                None => now += Duration::from_millis(1),
            }
            budget.go_on(now);
        }
        assert!(waited <= MAX_SAVED - MAX_WAIT + Duration::from_secs(10) / SHARE, "{waited:?}");
        budget.go_on(now);
        let later = now + MAX_WAIT * SHARE;
        assert_eq!(budget.wait(Some(later), later), Some(later + MAX_WAIT), "it has saved up");
    }

    #[test]
    fn a_peer_that_takes_something_all_the_time_is_waited_for_through_a_burst() {
        let mut budget = WaitBudget::new();
        let mut now = budget.at;
        let start = now;
        while now < start + MAX_SAVED {
            assert_eq!(budget.wait(Some(now), now), Some((now + MAX_WAIT).min(start + MAX_SAVED)));
            now += MAX_WAIT / 2;
        }
        assert_eq!(budget.wait(Some(now), now), None, "it cannot hold the others for ever");
    }

    #[test]
    fn what_waits_at_a_stop_is_bounded() {
        let mut backlog = WaitingBytes::default();
        assert!(backlog.has_room());
        backlog.add(0);
        assert!(!backlog.has_room(), "before a stop nothing may wait");
        backlog.stop();
        let most = STOP_ROOM_BYTES / MESSAGE_BYTES;
        for waiting in 1..most {
            assert!(backlog.has_room(), "{waiting} wait");
            backlog.add(0);
        }
        assert!(!backlog.has_room(), "{most} wait, which have no payload");
        backlog.remove(0);
        assert!(backlog.has_room());
    }

    #[tokio::test(start_paused = true)]
    async fn at_a_stop_nobody_is_waited_for_until_the_pipeline_is_given_up() {
        let (start, second) = (tokio::time::Instant::now(), Duration::from_secs(1));
        let limit = StallLimit::new(Some(9 * second));
        assert_eq!(limit.end(start), start + 6 * second);
        assert_eq!(limit.end(start + 7 * second), start + 8 * second, "one that takes nothing only late");
        let short = StallLimit::new(Some(second));
        assert_eq!(short.end(start + second / 2), start + second * 3 / 4);
        assert_eq!(limit.stricter(short), short);
        assert_eq!(StallLimit::new(None).end(start + 8 * second), start + 23 * second);
    }
}
