//! When the state of a stage is saved, and when a plugin that fails gets its next chance.
//!
//! The whole policy, without the calls themselves. A snapshot is taken right after the first call that
//! was accepted, and then at most a second after the first change since the last one, also when nothing
//! follows. A snapshot that fails is asked for again ever more rarely. After five faults in a row the
//! messages of the stage wait, longer each time, and then one is tried alone; an instance that does not
//! start again is waited for likewise.

use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// A change is saved so long after it at the latest.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);
/// So many faults in a row, without a call that succeeds, open the circuit.
const FAULTS_TO_OPEN: u32 = 5;
/// How long messages wait when the circuit opens; doubles each time that the trial fails too.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, and the longest time between two tries of a snapshot that fails.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// How a pipeline takes it that something fails again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Its messages wait for a plugin that may work again, or be exchanged. What a sink has lost is a dead
    /// letter.
    KeepsGoing,
    /// Nothing that is waited for would come: each message is tried, and fails. What a sink has lost is
    /// dropped, for its error is the end.
    GivesUp,
}

/// The state that a new instance starts with after a fault, and when it is taken anew.
#[derive(Debug)]
pub(super) struct LastGood {
    snapshot: Option<Bytes>,
    taken: Instant,
    /// The first call since that was accepted.
    changed: Option<Instant>,
    /// Whether a snapshot was taken after an accepted call. Before, nobody knows whether the plugin has
    /// a state at all.
    is_telling: bool,
    /// Snapshots in a row that failed.
    failures: u32,
    not_before: Option<Instant>,
}

impl LastGood {
    /// Of an instance that starts with this state; `None` is the state that `init` makes.
    pub(super) fn new(snapshot: Option<Bytes>, now: Instant) -> Self {
        Self {
            is_telling: snapshot.is_some(),
            snapshot,
            taken: now,
            changed: None,
            failures: 0,
            not_before: None,
        }
    }

    pub(super) fn snapshot(&self) -> Option<&Bytes> {
        self.snapshot.as_ref()
    }

    /// How old the snapshot is.
    pub(super) fn age(&self) -> Duration {
        self.taken.elapsed()
    }

    /// A call was accepted.
    #[inline]
    pub(super) fn change(&mut self) {
        if self.changed.is_none() {
            self.changed = Some(Instant::now());
        }
    }

    /// When a snapshot is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let changed = self.changed?;
        let due = if self.is_telling { changed + SNAPSHOT_INTERVAL } else { changed };
        Some(self.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// Whether work that was accepted is worth saving before the next piece, which may fault: not where
    /// the plugin has no state, or its snapshots fail.
    pub(super) fn is_worth_saving(&self) -> bool {
        self.changed.is_some() && self.failures == 0 && (self.snapshot.is_some() || !self.is_telling)
    }

    /// Whether a call was accepted since the snapshot.
    pub(super) fn has_changed(&self) -> bool {
        self.changed.is_some()
    }

    /// Whether there may be something to save at the end: a plugin that fails to give its state is not asked once
    /// more, for that may cost what it is still to say.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.changed.is_some() && self.failures == 0
    }

    /// The plugin gave its state, or said that it has none.
    pub(super) fn saved(&mut self, snapshot: Option<Bytes>, now: Instant) {
        self.is_telling |= self.changed.is_some() || snapshot.is_some();
        self.snapshot = snapshot;
        self.taken = now;
        self.changed = None;
        self.failures = 0;
        self.not_before = None;
    }

    /// The plugin gave no state, and the last good one remains. Says when it is asked again.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let wait = doubled(SNAPSHOT_INTERVAL, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + wait);
        wait
    }

    /// The instance is gone, and what it had changed with it. Says whether that was any state.
    pub(super) fn lost(&mut self) -> bool {
        self.changed.take().is_some() && (self.snapshot.is_some() || !self.is_telling)
    }

    /// The plugin does not take the snapshot back. Says whether there was any.
    pub(super) fn forget(&mut self) -> bool {
        self.snapshot.take().is_some()
    }
}

/// Holds the messages of a stage back whose plugin fails again and again, if that is the policy.
#[derive(Debug)]
pub(super) struct Circuit {
    persistence: Persistence,
    faults_in_a_row: u32,
    /// Pauses in a row.
    pauses: u32,
    open_until: Option<Instant>,
}

impl Circuit {
    pub(super) fn new(persistence: Persistence) -> Self {
        Self { persistence, faults_in_a_row: 0, pauses: 0, open_until: None }
    }

    /// Forgets every fault.
    pub(super) fn close(&mut self) {
        *self = Self::new(self.persistence);
    }

    /// A call succeeded. Says whether the circuit closes thereby.
    #[inline]
    pub(super) fn succeeded(&mut self) -> bool {
        self.faults_in_a_row = 0;
        let closes = self.pauses > 0;
        if closes {
            self.close();
        }
        closes
    }

    /// A call failed for which there is nothing smaller to try. Says how long messages wait, if they do.
    pub(super) fn faulted(&mut self, now: Instant) -> Option<Duration> {
        self.faults_in_a_row = self.faults_in_a_row.saturating_add(1);
        if self.faults_in_a_row >= FAULTS_TO_OPEN { self.open(now) } else { None }
    }

    /// No instance starts. Says how long messages wait, if they do.
    pub(super) fn does_not_start(&mut self, now: Instant) -> Option<Duration> {
        self.open(now)
    }

    /// Until when messages wait.
    pub(super) fn open_until(&self) -> Option<Instant> {
        self.open_until
    }

    /// Whether messages wait now.
    pub(super) fn is_open(&self) -> bool {
        self.open_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether the next call is a trial, with one message alone.
    pub(super) fn is_trial(&self) -> bool {
        self.pauses > 0
    }

    /// Whether messages have waited once already since a call succeeded.
    pub(super) fn has_reopened(&self) -> bool {
        self.pauses > 1
    }

    fn open(&mut self, now: Instant) -> Option<Duration> {
        if self.persistence == Persistence::GivesUp {
            return None;
        }
        let pause = doubled(FIRST_PAUSE, self.pauses);
        self.pauses = self.pauses.saturating_add(1);
        self.open_until = Some(now + pause);
        Some(pause)
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(duration: Duration) -> u64 {
        duration.as_secs()
    }

    #[test]
    fn five_faults_in_a_row_open_the_circuit_and_each_failed_trial_doubles_the_pause_up_to_a_minute() {
        let now = Instant::now();
        let mut circuit = Circuit::new(Persistence::KeepsGoing);
        (0..4).for_each(|_| assert_eq!(circuit.faulted(now), None));
        assert!(!circuit.succeeded(), "it was not open");
        (0..4).for_each(|_| assert_eq!(circuit.faulted(now), None));
        let pauses: Vec<_> = (0..8).filter_map(|_| circuit.faulted(now).map(seconds)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(circuit.is_trial() && circuit.has_reopened());
        assert!(circuit.succeeded());
        assert_eq!((circuit.is_trial(), circuit.open_until()), (false, None));
        assert_eq!(circuit.does_not_start(now), Some(FIRST_PAUSE));
        assert!(!circuit.has_reopened());
    }

    #[test]
    fn where_nothing_is_waited_for_the_circuit_never_opens() {
        let now = Instant::now();
        let mut circuit = Circuit::new(Persistence::GivesUp);
        (0..100).for_each(|_| assert_eq!(circuit.faulted(now), None));
        assert_eq!((circuit.does_not_start(now), circuit.is_trial()), (None, false));
    }

    #[test]
    fn a_change_is_saved_at_once_the_first_time_and_then_a_second_after_it() {
        let now = Instant::now();
        let mut last_good = LastGood::new(None, now);
        assert_eq!(last_good.due(), None);
        last_good.change();
        assert!(last_good.due().is_some_and(|due| due <= Instant::now()));
        last_good.saved(Some(Bytes::from_static(&[1])), now);
        assert_eq!(last_good.due(), None);
        last_good.change();
        let changed = last_good.changed.expect("it has changed");
        last_good.change();
        assert_eq!(last_good.due(), Some(changed + SNAPSHOT_INTERVAL));
    }

    #[test]
    fn a_snapshot_that_fails_is_asked_for_ever_more_rarely_and_at_most_once_a_minute() {
        let now = Instant::now();
        let mut last_good = LastGood::new(Some(Bytes::from_static(&[1])), now);
        last_good.change();
        let waits: Vec<_> = (0..8).map(|_| seconds(last_good.failed(now))).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(last_good.due() >= Some(now + MAX_PAUSE));
        assert!(!last_good.is_worth_saving());
    }

    #[test]
    fn only_a_plugin_that_has_a_state_loses_it() {
        let now = Instant::now();
        let mut stateless = LastGood::new(None, now);
        stateless.change();
        stateless.saved(None, now);
        stateless.change();
        assert!(!stateless.lost(), "it said that it has none");
        let mut stateful = LastGood::new(None, now);
        stateful.change();
        assert!(stateful.lost(), "nobody had asked it yet");
        stateful.saved(Some(Bytes::from_static(&[1])), now);
        assert!(!stateful.lost(), "nothing has changed since");
        stateful.change();
        assert!(stateful.lost());
    }
}
