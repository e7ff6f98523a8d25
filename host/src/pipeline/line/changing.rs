//! How a line changes the versions that its stages run, between two calls.

use super::{GraceOver, Line};
use crate::pipeline::control::{Swap, Swapped, VersionChange};
use crate::pipeline::generations::Generations;
use tokio::time::Instant;

impl Line {
    /// Makes all changes of versions that were asked for.
    pub(super) async fn change_all(&mut self) -> Result<(), GraceOver> {
        while let Some(change) = self.ends.changes.pop_front() {
            if change.is_forgotten() {
                continue;
            }
            match change {
                VersionChange::Swap(swap) => self.swap(*swap).await?,
                VersionChange::Shadow(offer) => {
                    let stage = &mut self.stages[offer.stage];
                    self.ends.during(stage.begin_shadow(*offer)).await?;
                }
                VersionChange::RollBack { stage, version } => {
                    // Another configuration may have taken over meanwhile.
                    if self.stages.get(stage).is_some_and(|stage| stage.runs(&version)) {
                        self.roll_back(stage);
                    }
                }
            }
        }
        Ok(())
    }

    async fn swap(&mut self, swap: Swap) -> Result<(), GraceOver> {
        let Swap { stage: number, next, fresh, probation, verdict } = swap;
        let started = Instant::now();
        let result = self.ends.during(self.stages[number].swap(next, fresh, probation)).await?;
        let pause = started.elapsed();
        let swapped = match result {
            Ok((retired, state)) => {
                self.runs_another_version(number);
                Swapped { outcome: Ok(state), pause, retired }
            }
            Err((refused, fault)) => Swapped { outcome: Err(fault), pause, retired: refused },
        };
        // Whoever asked may have given up just now; the swap stands all the same.
        let _ = verdict.send(swapped);
        Ok(())
    }

    /// Puts the version before back at a stage, if it is kept.
    pub(super) fn roll_back(&mut self, number: usize) {
        if self.stages[number].roll_back() {
            self.runs_another_version(number);
        }
    }

    /// A stage runs another version than before.
    fn runs_another_version(&mut self, number: usize) {
        self.generations.iter_mut().for_each(Generations::want);
        if number + 1 == self.stages.len() {
            self.ends.outlets.set_outputs(self.stages[number].outputs());
        }
    }
}
