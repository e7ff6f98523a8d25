//! The time after a swap in which the version before is kept, and put back if the new one faults too often.
//!
//! What is kept of it is its code, a snapshot of each instance, and what the host kept of the stage at the moment of the
//! swap, as far as that was changed since. A fault too many leaves its message where it was: the version before gets it.

use super::Stage;
use crate::config::Redacted;
use crate::pipeline::control::{ProbationTerms, RolledBack};
use crate::plugin::{Fault, HostState, Instance, Plugin};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is kept of the version before a swap.
#[derive(Debug)]
pub(super) struct Probation {
    previous: RunningVersion,
    /// Of each instance, at the swap.
    snapshots: Vec<Option<Bytes>>,
    /// It has a mark of the swap.
    state: HostState,
    faults: Arc<FaultCount>,
    until: Instant,
    verdict: Option<oneshot::Sender<RolledBack>>,
}

/// A version that a stage runs, and what it described of itself.
#[derive(Clone, Debug)]
pub(super) struct RunningVersion {
    pub(super) plugin: Plugin,
    pub(super) outputs: Vec<Arc<str>>,
    pub(super) tick: Option<Duration>,
    /// What its instances are configured with: files may have other texts by the next version.
    pub(super) config: Redacted,
}

/// The faults of a version in its probation, of all its instances.
#[derive(Debug)]
pub(super) struct FaultCount {
    max: u64,
    /// Faults count until then.
    until: Instant,
    found: AtomicU64,
    last: Mutex<String>,
}

impl RunningVersion {
    /// The version of an instance that runs.
    pub(super) fn of(instance: &Instance) -> Self {
        let description = instance.description();
        let (outputs, tick) = (description.outputs.clone(), description.tick);
        let (plugin, config) = (instance.plugin().clone(), instance.config().clone());
        Self { plugin, outputs, tick, config }
    }
}

impl FaultCount {
    fn new(max: u64, until: Instant) -> Self {
        Self { max, until, found: AtomicU64::new(0), last: Mutex::default() }
    }

    /// Counts a fault. Says whether there were too many.
    pub(super) fn count(&self, fault: &Fault) -> bool {
        if Instant::now() >= self.until {
            return self.is_exceeded();
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = format!("{}: {fault}", fault.kind);
        self.found.fetch_add(1, Relaxed);
        self.is_exceeded()
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.found.load(Relaxed) > self.max
    }

    fn told(&self) -> String {
        let Self { max, found, last, .. } = self;
        let (found, last) = (found.load(Relaxed), last.lock().unwrap_or_else(PoisonError::into_inner));
        let faults = if found == 1 { "fault" } else { "faults" };
        format!("{found} {faults} in its probation, and `max_faults` is {max}: {last}")
    }
}

impl Drop for Probation {
    fn drop(&mut self) {
        self.state.forget_mark();
    }
}

impl Stage {
    /// A swap has just been made, from `previous` with these snapshots: what was there at this moment is kept.
    pub(super) fn begin_probation(
        &mut self,
        terms: ProbationTerms,
        previous: RunningVersion,
        snapshots: Vec<Option<Bytes>>,
    ) {
        let ProbationTerms { keeps, counts, max_faults, verdict } = terms;
        let now = Instant::now();
        let faults = Arc::new(FaultCount::new(max_faults, now + counts));
        let state = self.setup.state.clone();
        state.mark();
        self.workers.iter_mut().for_each(|worker| worker.probation = Some(faults.clone()));
        let (until, verdict) = (now + keeps, Some(verdict));
        self.probation = Some(Box::new(Probation { previous, snapshots, state, faults, until, verdict }));
    }

    /// What was kept of the version before is dropped; whoever waits to hear that it was put back does not any more.
    pub(super) fn end_probation(&mut self) {
        if self.probation.take().is_some() {
            self.workers.iter_mut().for_each(|worker| worker.probation = None);
        }
    }

    /// Whether the version before is kept.
    pub(in crate::pipeline) fn is_on_probation(&self) -> bool {
        self.probation.is_some()
    }

    /// When it ends, if there is one.
    pub(super) fn probation_due(&self) -> Option<Instant> {
        self.probation.as_ref().map(|probation| probation.until)
    }

    /// Whether the version that runs has faulted too often in its probation.
    #[inline]
    pub(in crate::pipeline) fn is_to_go_back(&self) -> bool {
        self.probation.as_ref().is_some_and(|probation| probation.faults.is_exceeded())
    }

    /// Whether this version runs.
    pub(in crate::pipeline) fn runs(&self, version: &str) -> bool {
        **self.version.plugin.version() == *version
    }

    /// Puts the version before back, if it is still kept, with the state of the moment of the swap. Its instances start
    /// with their next call. Says whether it was.
    pub(in crate::pipeline) fn roll_back(&mut self) -> bool {
        let Some(mut probation) = self.probation.take() else { return false };
        let Probation { previous, snapshots, faults, verdict, .. } = &mut *probation;
        let reason = faults.is_exceeded().then(|| faults.told());
        self.setup.state.return_to_mark();
        for (worker, snapshot) in self.workers.iter_mut().zip(std::mem::take(snapshots)) {
            worker.probation = None;
            worker.return_to(previous, snapshot);
        }
        let gone = std::mem::replace(&mut self.version, previous.clone());
        self.installed(previous.clone());
        self.sharing.rename(&mut self.workers, &gone.outputs, &self.version.outputs);
        if let Some(verdict) = verdict.take() {
            // Whoever offered the version may not follow it any more.
            let _ = verdict.send(RolledBack { reason });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::FaultKind;

    #[tokio::test(start_paused = true)]
    async fn faults_count_up_to_their_number_and_until_their_time() {
        let second = Duration::from_secs(1);
        let count = FaultCount::new(2, Instant::now() + second);
        let fault = |what: &str| Fault::new(FaultKind::Trap, what);
        assert!(!count.count(&fault("first")) && !count.count(&fault("second")));
        assert!(!count.is_exceeded());
        let late = FaultCount::new(0, Instant::now() + second);
        assert!(count.count(&fault("third")));
        assert_eq!(count.told(), "3 faults in its probation, and `max_faults` is 2: trap: third");
        tokio::time::advance(second).await;
        assert!(!late.count(&fault("too late")));
        assert!(count.count(&fault("too late")), "it was decided before");
    }
}
