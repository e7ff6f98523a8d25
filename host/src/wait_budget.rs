//! How long a pipeline waits for peers whose connections take nothing more.
//!
//! A peer that reads at once needs a moment to catch up with a burst, and waiting for it loses nothing. But
//! peers that do not read must cost the others little, however many there are and however often they come:
//! so the waiting of a sink is a small share of the time, saved up to once enough for a burst.

use std::time::{Duration, Instant};

/// Longest wait at once, and longest that a peer may take to catch up with a burst.
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(500);
/// One part in so many of the time may be spent on waiting.
const SHARE: u32 = 20;

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
        Self { left: MAX_WAIT, at: Instant::now(), is_waiting: false }
    }

    /// Waits, or goes on waiting, for a peer that has not had all since then; answers until when. `None`: the
    /// peer, or the sink, has used up its patience.
    pub(crate) fn wait(&mut self, behind_since: Option<Instant>, now: Instant) -> Option<Instant> {
        self.pass(now);
        let until = (now + self.left).min(behind_since? + MAX_WAIT);
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
            (self.left + passed / SHARE).min(MAX_WAIT)
        };
        self.at = now;
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
        let mut patience = WaitBudget::new();
        let start = patience.at;
        assert_eq!(patience.wait(Some(start), start), Some(start + MAX_WAIT));
        assert_eq!(patience.wait(Some(start), start + MAX_WAIT / 2), Some(start + MAX_WAIT));
        assert_eq!(patience.wait(Some(start), start + MAX_WAIT), None);
        // Others come at once, and again and again.
        let mut waited = Duration::ZERO;
        let mut now = start + MAX_WAIT;
        let end = now + Duration::from_secs(10);
        while now < end {
            match patience.wait(Some(now), now) {
                Some(until) => {
                    waited += until - now;
                    now = until;
                }
                None => now += Duration::from_millis(1),
            }
            patience.go_on(now);
        }
        assert!(waited <= Duration::from_secs(10) / SHARE, "{waited:?}");
        patience.go_on(now);
        let later = now + MAX_WAIT * SHARE;
        assert_eq!(patience.wait(Some(later), later), Some(later + MAX_WAIT), "it has saved up");
    }
}
