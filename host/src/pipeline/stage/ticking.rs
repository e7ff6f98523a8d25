//! When a plugin's timer is called.
//!
//! As a rule that goes by the clock on the wall. In a replay it goes by the times of the messages: the timer is called
//! between those messages between which it would have been called at first, and once in a stretch without messages, at
//! the last moment at which it was due in it. So it is called at the same moments in each replay, however fast that is.

use std::time::Duration;
use tokio::time::Instant;

/// The timer of the plugin of one stage.
#[derive(Debug)]
pub(super) struct Ticking {
    /// How often it is called, if the configuration says so.
    configured: Option<Duration>,
    /// How often the version that runs asked for it.
    asked: Option<Duration>,
    next: NextTick,
}

#[derive(Debug)]
enum NextTick {
    /// When it is due.
    Wall(Option<Instant>),
    /// When it was called last, or the first message was received, in microseconds since the Unix epoch.
    Replayed(Option<u64>),
    /// No message will follow.
    Never,
}

impl Ticking {
    pub(super) fn new(configured: Option<Duration>, is_replay: bool) -> Self {
        let next = if is_replay { NextTick::Replayed(None) } else { NextTick::Wall(None) };
        Self { configured, asked: None, next }
    }

    /// A version runs that asks for a timer.
    pub(super) fn ask(&mut self, asked: Option<Duration>) {
        self.asked = asked;
        let due = self.interval().map(|interval| Instant::now() + interval);
        if let NextTick::Wall(next) = &mut self.next {
            *next = (*next).min(due).or(due);
        }
    }

    /// The configuration says anew how often it is called.
    pub(super) fn configure(&mut self, configured: Option<Duration>) {
        if self.configured == configured {
            return;
        }
        self.configured = configured;
        let due = self.interval().map(|interval| Instant::now() + interval);
        if let NextTick::Wall(next) = &mut self.next {
            *next = due;
        }
    }

    /// When it is due by the clock on the wall.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.next {
            NextTick::Wall(due) => due,
            NextTick::Replayed(_) | NextTick::Never => None,
        }
    }

    /// A message of a replay was received then: the first one starts the timer.
    pub(super) fn see(&mut self, received_us: u64) {
        if let NextTick::Replayed(last) = &mut self.next {
            last.get_or_insert(received_us);
        }
    }

    /// In a replay, when it is due next: what was received then or later comes after it. The end of time, where
    /// nothing has to.
    pub(super) fn due_us(&self) -> u64 {
        match (&self.next, self.interval_us()) {
            (NextTick::Replayed(Some(last)), Some(interval_us)) => last.saturating_add(interval_us),
            _ => u64::MAX,
        }
    }

    /// In a replay, the moment at which it is to be called before what was received at `received_us`.
    pub(super) fn missed(&self, received_us: u64) -> Option<u64> {
        let due_us = Some(self.due_us()).filter(|due_us| *due_us < u64::MAX)?;
        let past_us = received_us.checked_sub(due_us)?;
        Some(received_us - past_us % self.interval_us()?)
    }

    /// It was called: in a replay, at this moment.
    pub(super) fn ticked(&mut self, at_us: Option<u64>) {
        let interval = self.interval();
        match &mut self.next {
            NextTick::Wall(due) => *due = interval.map(|interval| Instant::now() + interval),
            NextTick::Replayed(last) => *last = at_us.or(*last),
            NextTick::Never => {}
        }
    }

    /// It is not called any more.
    pub(super) fn stop(&mut self) {
        self.next = NextTick::Never;
    }

    fn interval(&self) -> Option<Duration> {
        self.configured.or(self.asked).filter(|interval| !interval.is_zero())
    }

    fn interval_us(&self) -> Option<u64> {
        Some(u64::try_from(self.interval()?.as_micros()).unwrap_or(u64::MAX).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn on_the_wall_an_interval_counts_from_the_end_of_the_last_call() {
        let mut ticking = Ticking::new(None, false);
        ticking.ask(None);
        assert_eq!(ticking.due(), None);
        ticking.ask(Some(MS));
        let first = Instant::now() + MS;
        assert_eq!(
            (ticking.due(), ticking.due_us(), ticking.missed(u64::MAX - 1)),
            (Some(first), u64::MAX, None)
        );
        tokio::time::advance(5 * MS).await;
        ticking.ask(Some(9 * MS));
        assert_eq!(ticking.due(), Some(first), "another version is not later than the one before");
        ticking.ticked(None);
        assert_eq!(ticking.due(), Some(Instant::now() + 9 * MS));
        ticking.configure(Some(MS));
        assert_eq!(ticking.due(), Some(Instant::now() + MS));
        ticking.stop();
        ticking.ticked(None);
        assert_eq!(ticking.due(), None);
    }

    #[test]
    fn in_a_replay_it_goes_by_the_times_of_messages_and_a_gap_has_one_call_at_its_end() {
        let mut ticking = Ticking::new(Some(MS), true);
        ticking.ask(Some(9 * MS));
        assert_eq!((ticking.due(), ticking.due_us(), ticking.missed(u64::MAX)), (None, u64::MAX, None));
        ticking.see(10_500);
        ticking.see(10_900);
        assert_eq!((ticking.due_us(), ticking.missed(11_499)), (11_500, None));
        assert_eq!(ticking.missed(11_500), Some(11_500));
        assert_eq!(ticking.missed(20_000), Some(19_500));
        ticking.ticked(Some(19_500));
        assert_eq!((ticking.due_us(), ticking.missed(20_000)), (20_500, None));
        ticking.stop();
        assert_eq!(ticking.missed(u64::MAX), None);
    }
}
