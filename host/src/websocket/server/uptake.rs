//! How a source takes what the tasks of its peers read: what the two sides tell each other.
//!
//! Peers tell how much they have read that is not on its way yet; the source tells what it has taken, and for how
//! long its pipeline does not read it. A peer whose messages wait for a pipeline is not idle, however quiet it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a source and the tasks of its peers tell each other.
#[derive(Debug, Default)]
pub struct Uptake {
    /// Messages that peers have read, and that the source has not taken.
    untaken: AtomicU64,
    held: Mutex<HeldTime>,
}

/// For how long a source was not read.
#[derive(Debug, Default)]
struct HeldTime {
    /// The time of all holds that are over.
    before: Duration,
    /// When the hold began that is not.
    since: Option<Instant>,
}

impl Uptake {
    /// The pipeline does not read the source, until [`Self::release`].
    pub fn hold(&self) {
        self.held().since.get_or_insert_with(Instant::now);
    }

    /// The pipeline reads the source again.
    pub fn release(&self) {
        let mut held = self.held();
        if let Some(since) = held.since.take() {
            held.before += since.elapsed();
        }
    }

    /// For how long the source was not read since it is there.
    pub(super) fn held_time(&self) -> Duration {
        let held = self.held();
        held.before + held.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The source has taken messages.
    pub fn taken(&self, messages: u64) {
        self.untaken.fetch_sub(messages, Ordering::Relaxed);
    }

    /// How many messages of a peer are not taken is another number than it was.
    pub(super) fn account(&self, before: u64, now: u64) {
        // Where it is less than before, the sum wraps around to what it is less by.
        self.untaken.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Messages that peers have read, by whatever task, and that the source has not taken.
    pub fn untaken(&self) -> u64 {
        self.untaken.load(Ordering::Relaxed)
    }

    fn held(&self) -> MutexGuard<'_, HeldTime> {
        // Each change is complete in itself.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_of_all_holds_is_told_while_one_lasts_too() {
        let (uptake, second) = (Uptake::default(), Duration::from_secs(1));
        uptake.hold();
        tokio::time::advance(second).await;
        uptake.hold();
        tokio::time::advance(second).await;
        assert_eq!(uptake.held_time(), 2 * second);
        uptake.release();
        tokio::time::advance(second).await;
        uptake.release();
        assert_eq!(uptake.held_time(), 2 * second, "what is read counts for nobody");
        uptake.hold();
        tokio::time::advance(second).await;
        assert_eq!(uptake.held_time(), 3 * second);
    }
}
