//! When to dial again: the schedule of reconnection, without clocks and sockets.
//!
//! Attempt n waits `min(delay * 2^(n-1), max_delay)`, spread by the jitter. Attempts count from 1
//! again only after a connection has lived `reset_after`, so that a peer which accepts and hangs up
//! at once is not dialled in a tight loop. `websocket::client::session` asks it after each loss.
//! Why not backon or tokio-retry: neither knows `reset_after` or `Retry-After`, nor takes its chance from outside.

use crate::config::Reconnect;
use std::time::Duration;

/// What the peer said about being dialled again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// The refusal will not go away by itself (401, 403, 404): wait the longest delay.
    pub slow_down: bool,
    /// `Retry-After`: wait at least so long.
    pub at_least: Option<Duration>,
}

/// The attempts made since the last connection that held.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    schedule: Reconnect,
    attempts: u32,
}

impl Backoff {
    /// A schedule at its start.
    pub(crate) fn new(schedule: Reconnect) -> Self {
        Self { schedule, attempts: 0 }
    }

    /// The attempts handed out since the last connection that held.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// A connection ended that had lived so long since its handshake.
    pub(crate) fn connection_lived(&mut self, lifetime: Duration) {
        if lifetime >= self.schedule.reset_after {
            self.attempts = 0;
        }
    }

    /// How long to wait before the next attempt; `None` when there is to be none.
    pub(crate) fn next_delay(&mut self, advice: Advice) -> Option<Duration> {
        self.next_delay_at(advice, fastrand::f64())
    }

    /// How long to wait once attempts are used up but the connection is still wanted.
    pub(crate) fn last_resort(&self, advice: Advice) -> Duration {
        self.spread(self.schedule.max_delay, advice, fastrand::f64())
    }

    /// `position` in `0.0..1.0` says where in the spread of the jitter the delay falls.
    fn next_delay_at(&mut self, advice: Advice, position: f64) -> Option<Duration> {
        let Reconnect { enabled, delay, max_delay, max_attempts, .. } = self.schedule;
        if !enabled || max_attempts.is_some_and(|most| self.attempts >= most) {
            return None;
        }
        let doublings = self.attempts;
        self.attempts = self.attempts.saturating_add(1);
        let grown = 2u32.checked_pow(doublings).and_then(|factor| delay.checked_mul(factor));
        let base = if advice.slow_down { max_delay } else { grown.unwrap_or(max_delay).min(max_delay) };
        Some(self.spread(base, advice, position))
    }

    fn spread(&self, base: Duration, advice: Advice, position: f64) -> Duration {
        let jitter = self.schedule.jitter.clamp(0.0, 1.0);
        let factor = 1.0 - jitter + 2.0 * jitter * position;
        let delay = Duration::try_from_secs_f64(base.as_secs_f64() * factor).unwrap_or(base);
        delay.max(advice.at_least.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIDDLE: f64 = 0.5;

    fn seconds(backoff: &mut Backoff, attempts: usize) -> Vec<Option<f64>> {
        let next = |_| backoff.next_delay_at(Advice::default(), MIDDLE).map(|delay| delay.as_secs_f64());
        (0..attempts).map(next).collect()
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Reconnect::default());
        assert_eq!(seconds(&mut backoff, 7), [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0].map(Some));
    }

    #[test]
    fn attempts_run_out_and_the_first_dial_is_none_of_them() {
        let mut backoff = Backoff::new(Reconnect { max_attempts: Some(2), ..Reconnect::default() });
        assert_eq!(seconds(&mut backoff, 3), [Some(1.0), Some(2.0), None]);
        let mut none = Backoff::new(Reconnect { enabled: false, ..Reconnect::default() });
        assert_eq!(none.next_delay(Advice::default()), None);
    }

    #[test]
    fn only_a_connection_that_held_starts_the_count_again() {
        let mut backoff = Backoff::new(Reconnect::default());
        seconds(&mut backoff, 3);
        backoff.connection_lived(Duration::from_millis(9_999));
        assert_eq!(seconds(&mut backoff, 1), [Some(8.0)]);
        backoff.connection_lived(Duration::from_secs(10));
        assert_eq!(seconds(&mut backoff, 1), [Some(1.0)]);
    }

    #[test]
    fn a_lasting_refusal_waits_longest_and_retry_after_is_a_lower_bound() {
        let mut backoff = Backoff::new(Reconnect::default());
        let refused = Advice { slow_down: true, at_least: None };
        assert_eq!(backoff.next_delay_at(refused, MIDDLE), Some(Duration::from_secs(30)));
        let busy = Advice { slow_down: false, at_least: Some(Duration::from_secs(90)) };
        assert_eq!(backoff.next_delay_at(busy, MIDDLE), Some(Duration::from_secs(90)));
        let short = Advice { slow_down: false, at_least: Some(Duration::from_millis(1)) };
        assert_eq!(backoff.next_delay_at(short, MIDDLE), Some(Duration::from_secs(4)));
    }

    proptest! {
        #[test]
        fn every_delay_is_within_its_spread(
            delay_ms in 0u64..100_000, max_ms in 0u64..10_000_000, jitter in 0.0f64..=1.0,
            attempts in 1usize..80, position in 0.0f64..1.0,
        ) {
            let schedule = Reconnect {
                delay: Duration::from_millis(delay_ms), max_delay: Duration::from_millis(max_ms), jitter,
                ..Reconnect::default()
            };
            let mut backoff = Backoff::new(schedule);
            let mut last = None;
            for _ in 0..attempts {
                last = backoff.next_delay_at(Advice::default(), position);
            }
            let doublings = i32::try_from(attempts - 1).expect("below 80");
            let base = (delay_ms as f64 * 2f64.powi(doublings)).min(max_ms as f64);
            let got_ms = last.expect("unlimited").as_secs_f64() * 1000.0;
            let slack = 1e-6 * base + 1e-3;
            prop_assert!(got_ms >= base * (1.0 - jitter) - slack);
            prop_assert!(got_ms <= base * (1.0 + jitter) + slack);
        }
    }
}
