//! How many messages may go on in a stretch of time. Nothing here knows messages or keys.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// At most `max` messages in any stretch of `per`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) max: usize,
    /// In microseconds.
    pub(crate) per_us: i64,
}

/// When messages went on, in microseconds since the Unix epoch, ascending: all of the last two stretches.
///
/// A message may come late, with a time before that of others. Whether it may go on depends on one stretch before
/// its time and one behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    times: VecDeque<i64>,
    /// The latest time of a message itself, which may have waited.
    newest_us: Option<i64>,
}

impl Sent {
    /// Notes that a message of this time goes on.
    pub(crate) fn note_message(&mut self, time_us: i64) {
        self.newest_us = self.newest_us.max(Some(time_us));
    }

    /// Whether a message of this time is as new as all that went on.
    pub(crate) fn is_newest(&self, time_us: i64) -> bool {
        self.newest_us.is_none_or(|newest_us| time_us >= newest_us)
    }
}

impl Rate {
    /// Whether one more message may go on at a time. One that is later by a whole stretch may not: how many there
    /// were at its time is not known any more.
    pub(crate) fn admits(self, Sent { times, .. }: &Sent, time_us: i64) -> bool {
        if times.back().is_some_and(|&newest| self.is_over(time_us, newest)) {
            return false;
        }
        let at = times.partition_point(|&other| other <= time_us);
        let with_it = |nth: usize| match nth {
            before if before < at => times[before],
            nth if nth == at => time_us,
            behind => times[behind - 1],
        };
        // In each row of one too many that has it, the last must come a stretch after the first.
        let Some(last_first) = times.len().checked_sub(self.max) else { return true };
        (at.saturating_sub(self.max)..=at.min(last_first))
            .all(|first| self.is_over(with_it(first), with_it(first + self.max)))
    }

    /// Notes that one goes on.
    pub(crate) fn note(self, Sent { times, .. }: &mut Sent, time_us: i64) {
        let at = times.partition_point(|&other| other <= time_us);
        times.insert(at, time_us);
        let newest = times[times.len() - 1];
        let kept = newest.saturating_sub(self.per_us.saturating_mul(2));
        while times.front().is_some_and(|&oldest| oldest <= kept) {
            times.pop_front();
        }
    }

    /// Whether at least a stretch lies between two times.
    fn is_over(self, earlier_us: i64, later_us: i64) -> bool {
        later_us.saturating_sub(earlier_us) >= self.per_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Offers times one after the other. Gives those that went on, in their order.
    fn offer(rate: Rate, times_us: &[i64]) -> Vec<i64> {
        let mut sent = Sent::default();
        let admitted = times_us.iter().copied().filter(|&time_us| {
            let admits = rate.admits(&sent, time_us);
            if admits {
                rate.note(&mut sent, time_us);
                assert!(sent.times.len() <= 2 * rate.max, "{sent:?}");
            }
            admits
        });
        admitted.collect()
    }

    /// Whether there are more than `max` in some stretch.
    fn is_over_the_rate(rate: Rate, times_us: &[i64]) -> bool {
        let mut times_us = times_us.to_vec();
        times_us.sort_unstable();
        times_us.windows(rate.max + 1).any(|row| row[rate.max] - row[0] < rate.per_us)
    }

    #[test]
    fn a_stretch_begins_anywhere() {
        let rate = Rate { max: 2, per_us: 10 };
        assert_eq!(offer(rate, &[0, 9, 9, 10, 18, 19, 19]), [0, 9, 10, 19]);
        assert_eq!(offer(Rate { max: 1, per_us: 10 }, &[5, 5, 14, 15, 100]), [5, 15, 100]);
    }

    #[test]
    fn a_late_message_counts_at_its_own_time() {
        let rate = Rate { max: 2, per_us: 10 };
        assert_eq!(offer(rate, &[1, 15, 10, 9]), [1, 15, 10]);
        assert_eq!(offer(rate, &[1, 30, 20, 21]), [1, 30, 21], "20 is a stretch late");
    }

    #[test]
    fn the_ends_of_time_are_no_fault() {
        let rate = Rate { max: 1, per_us: i64::MAX };
        assert_eq!(offer(rate, &[i64::MIN, i64::MAX, 0]), [i64::MIN, i64::MAX]);
    }

    proptest! {
        #[test]
        fn in_no_stretch_are_more_than_may_be(
            times_us in prop::collection::vec(0..60i64, 0..80),
            max in 1..5usize,
            per_us in 1..20i64,
        ) {
            let rate = Rate { max, per_us };
            prop_assert!(!is_over_the_rate(rate, &offer(rate, &times_us)));
        }

        #[test]
        fn what_comes_in_order_goes_on_whenever_it_may(
            mut times_us in prop::collection::vec(0..60i64, 0..80),
            max in 1..5usize,
            per_us in 1..20i64,
        ) {
            times_us.sort_unstable();
            let rate = Rate { max, per_us };
            let mut expected = Vec::new();
            for &time_us in &times_us {
                expected.push(time_us);
                if is_over_the_rate(rate, &expected) {
                    expected.pop();
                }
            }
            prop_assert_eq!(offer(rate, &times_us), expected);
        }

        #[test]
        fn a_late_message_that_may_go_on_does(
            times_us in prop::collection::vec(0..60i64, 0..80),
            max in 1..5usize,
            per_us in 1..20i64,
        ) {
            let rate = Rate { max, per_us };
            let mut expected: Vec<i64> = Vec::new();
            for &time_us in &times_us {
                let newest = expected.iter().copied().max();
                if newest.is_some_and(|newest| newest - time_us >= per_us) {
                    continue;
                }
                expected.push(time_us);
                if is_over_the_rate(rate, &expected) {
                    expected.pop();
                }
            }
            prop_assert_eq!(offer(rate, &times_us), expected);
        }
    }
}
