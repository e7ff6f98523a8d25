//! A version of a plugin in shadow: it gets what the version that runs has got, and what it makes of it is compared
//! and goes nowhere.
//!
//! Each worker has an instance of it beside its own, which gets each call's messages right after the call. What one
//! worker has compared is added up here between two calls; a fault, or the last message, ends the shadow.

use super::Stage;
use super::beside::Beside;
use super::parallel::in_parallel;
use crate::pipeline::control::{ShadowCounts, ShadowOffer, ShadowOutcome, Shadowed};
use crate::verdict::ShadowDifference;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is known of a version in shadow.
#[derive(Debug)]
pub(super) struct StageShadow {
    /// The messages that it is still to see.
    left: Arc<AtomicU64>,
    counts: ShadowCounts,
    first: Option<ShadowDifference>,
    /// For so long no message may come.
    patience: Duration,
    silent_since: Instant,
    verdict: oneshot::Sender<Shadowed>,
}

impl StageShadow {
    /// When it ends if nothing comes.
    pub(super) fn due(&self) -> Instant {
        self.silent_since + self.patience
    }
}

impl Stage {
    /// Begins to let a version see what the running one gets, with a copy of its state. Another that was in shadow
    /// here is not any more, and its verdict is dropped.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(in crate::pipeline) async fn begin_shadow(&mut self, offer: ShadowOffer) {
        self.end_shadow();
        let ShadowOffer { candidates, setup, messages, fresh, patience, begun, verdict, stage: _ } = offer;
        debug_assert_eq!(candidates.len(), self.workers.len(), "there is an instance beside each");
        if begun.send(()).is_err() {
            // Whoever offered it has waited too long.
            return;
        }
        if !fresh {
            let (from, to) = (self.setup.state.clone(), setup.state.clone());
            let copied = tokio::task::spawn_blocking(move || to.copy_from(&from)).await;
            copied.expect("copying state does not panic");
        }
        let jobs = std::mem::take(&mut self.workers).into_iter().zip(candidates);
        let jobs = jobs.map(|(mut worker, mut next)| async move {
            let carried = worker.carry_into(&mut next, fresh).await;
            (worker, (next, carried))
        });
        let carried = in_parallel(jobs.collect()).await;
        let (workers, carried): (Vec<_>, Vec<_>) = carried.into_iter().unzip();
        self.workers = workers;
        let (candidates, carried): (Vec<_>, Vec<_>) = carried.into_iter().unzip();
        if let Err(fault) = carried.into_iter().collect::<Result<Vec<_>, _>>() {
            let (counts, first) = (ShadowCounts::default(), None);
            let outcome = ShadowOutcome::Faulted(fault);
            answer(verdict, Shadowed { outcome, counts, first, retired: candidates });
            return;
        }
        let left = Arc::new(AtomicU64::new(messages));
        for ((worker, candidate), setup) in self.workers.iter_mut().zip(candidates).zip(setup.of_each()) {
            worker.beside = Some(Box::new(Beside::new(candidate, setup, left.clone())));
        }
        let (counts, first) = (ShadowCounts::default(), None);
        let shadow = StageShadow { left, counts, first, patience, silent_since: Instant::now(), verdict };
        self.shadow = Some(Box::new(shadow));
        self.look_at_shadow();
    }

    /// Sees how the version in shadow has fared since the last look.
    pub(super) fn look_at_shadow(&mut self) {
        let Some(shadow) = &mut self.shadow else { return };
        let mut counts = ShadowCounts::default();
        let mut fault = None;
        for beside in self.workers.iter_mut().filter_map(|worker| worker.beside.as_mut()) {
            counts += beside.take_counts();
            let first = beside.take_first();
            shadow.first = shadow.first.take().or(first);
            fault = fault.or(beside.take_fault());
        }
        if counts != ShadowCounts::default() {
            shadow.counts += counts;
            shadow.silent_since = Instant::now();
            for (outcome, count) in counts.by_outcome() {
                self.metrics.shadowed(outcome, count);
            }
        }
        let has_seen_all = shadow.left.load(std::sync::atomic::Ordering::Relaxed) == 0;
        let outcome = if let Some(fault) = fault {
            ShadowOutcome::Faulted(fault)
        } else if has_seen_all || self.workers.iter().any(|worker| !worker.is_working()) {
            // While the running version fails again and again there is nothing to compare with, and any other may
            // be the one that works.
            ShadowOutcome::Passed
        } else if shadow.silent_since.elapsed() >= shadow.patience {
            ShadowOutcome::Silent(shadow.patience)
        } else if shadow.verdict.is_closed() {
            return self.end_shadow();
        } else {
            return;
        };
        let Some(shadow) = self.shadow.take() else { return };
        let retired = self.workers.iter_mut().filter_map(|worker| worker.beside.take()?.into_instance());
        let retired = retired.collect();
        let StageShadow { counts, first, verdict, .. } = *shadow;
        answer(verdict, Shadowed { outcome, counts, first, retired });
    }

    /// No version is in shadow any more; whoever waits for a verdict gets none.
    pub(in crate::pipeline) fn end_shadow(&mut self) {
        if self.shadow.take().is_some() {
            self.workers.iter_mut().for_each(|worker| worker.beside = None);
        }
    }
}

fn answer(verdict: oneshot::Sender<Shadowed>, shadowed: Shadowed) {
    // Whoever asked may have given up just now.
    let _ = verdict.send(shadowed);
}
