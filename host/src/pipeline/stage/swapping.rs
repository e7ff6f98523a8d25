//! Exchanging the version of a plugin in a stage: the state of each instance goes into the one that takes its place.
//!
//! It is one swap, however many instances there are: all of them take over, or none.

use super::Stage;
use super::parallel::in_parallel;
use super::probation::RunningVersion;
use super::worker::Worker;
use crate::pipeline::control::ProbationTerms;
use crate::pipeline::recovery::LastGood;
use crate::plugin::{Fault, Instance, StatePart};
use crate::verdict::CarriedState;
use tokio::time::Instant;

impl Stage {
    /// Exchanges the running version for `next`, an initialised instance for each that runs. State is carried over
    /// unless `fresh` is asked for: then what the host keeps goes too, which `next` have not seen. The version before is
    /// kept for its `probation`. Gives back the instances that run no more, to be dropped elsewhere, and
    /// how the state fared; on an error, these are `next`, and the old version runs on.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(in crate::pipeline) async fn swap(
        &mut self,
        next: Vec<Instance>,
        fresh: bool,
        probation: Option<ProbationTerms>,
    ) -> Result<(Vec<Instance>, CarriedState), (Vec<Instance>, Fault)> {
        let started = Instant::now();
        self.end_shadow();
        let is_same_version = next.first().is_some_and(|next| self.runs(next.plugin().version()));
        let (next, state) = match self.carry_each(next, fresh, probation.is_some()).await {
            (next, Ok(state)) => (next, state),
            (next, Err(fault)) => return Err((next, fault)),
        };
        let previous = self.version.clone();
        let snapshots = self.workers.iter().map(|worker| worker.last_good.snapshot().cloned()).collect();
        let exchanges = self.workers.iter_mut().zip(next);
        let old = exchanges.filter_map(|(worker, next)| {
            let snapshot = if fresh { None } else { worker.last_good.snapshot().cloned() };
            if fresh || !worker.has_the_same(&next) {
                worker.forgive();
            }
            worker.exchange(next, LastGood::new(snapshot, Instant::now()))
        });
        let old = old.collect();
        let next = self.workers[0].instance.as_ref().map_or_else(|| previous.clone(), RunningVersion::of);
        self.installed(next);
        self.sharing.rename(&mut self.workers, &previous.outputs, &self.version.outputs);
        if !is_same_version {
            self.end_probation();
            if let Some(terms) = probation {
                self.begin_probation(terms, previous, snapshots);
            }
        }
        if fresh {
            let state = &self.setup.state;
            state.clear();
            let begun = self.workers.iter_mut().filter_map(|worker| worker.instance.as_mut());
            begun.for_each(|instance| instance.adopt_state(state.clone()));
        }
        self.metrics.swap_duration.observe(started.elapsed().as_secs_f64());
        Ok((old, state))
    }

    /// Brings what each instance knows into the one of `next` that is to take its place. Gives these back, and how
    /// the state fared, or why one does not give or take it. Where the version before `is_kept` it is saved in any case.
    pub(super) async fn carry_each(
        &mut self,
        next: Vec<Instance>,
        fresh: bool,
        is_kept: bool,
    ) -> (Vec<Instance>, Result<CarriedState, Fault>) {
        debug_assert_eq!(next.len(), self.workers.len(), "there is a new instance for each");
        let jobs = std::mem::take(&mut self.workers).into_iter().zip(next);
        let jobs = jobs.map(|(mut worker, mut next)| async move {
            let carried = worker.carry_into(&mut next, fresh).await;
            if fresh && is_kept {
                worker.save().await;
            }
            (worker, (next, carried))
        });
        let carried = in_parallel(jobs.collect()).await;
        let (workers, carried): (Vec<_>, Vec<_>) = carried.into_iter().unzip();
        self.workers = workers;
        let (next, carried): (Vec<_>, Vec<_>) = carried.into_iter().unzip();
        let states = carried.into_iter().collect::<Result<Vec<_>, _>>();
        (next, states.map(|states| states.into_iter().max().unwrap_or(CarriedState::None)))
    }
}

impl Worker {
    /// Brings the state of the version that runs into an instance of the one that is to take over.
    ///
    /// # Errors
    /// The old version refuses to give its state, or the new one to take it.
    pub(super) async fn carry_into(
        &mut self,
        next: &mut Instance,
        fresh: bool,
    ) -> Result<CarriedState, Fault> {
        if fresh {
            return Ok(CarriedState::Fresh);
        }
        let state = self.tell().await?;
        if let Some(snapshot) = self.last_good.snapshot() {
            next.restore(std::slice::from_ref(snapshot), StatePart::WHOLE).await?;
        }
        Ok(state)
    }

    /// How a new version fares that gets the last good snapshot.
    pub(super) fn older(&self) -> CarriedState {
        if self.last_good.snapshot().is_some() { CarriedState::Older } else { CarriedState::None }
    }
}
