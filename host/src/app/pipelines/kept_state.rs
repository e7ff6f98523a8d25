//! What is kept of pipelines, shown and cleared.

use super::Pipelines;
use crate::app::job::PipelineJob;
use crate::control::{Answer, ControlError};
use crate::generation::Generation;

impl Pipelines {
    /// Tells what is kept in memory alone, of one pipeline or of each.
    pub(super) fn show_state(&mut self, name: Option<&str>, answer: Answer<Vec<(String, Generation)>>) {
        let meant = self.all.iter().filter(|managed| name.is_none_or(|name| managed.config.name == name));
        let states =
            meant.map(|managed| (managed.config.name.clone(), managed.kept.in_memory(&managed.config)));
        let states: Vec<_> = states.collect();
        // There may be many keys.
        self.jobs.spawn_blocking(move || {
            let shown = states.into_iter().filter_map(|(pipeline, states)| {
                let shown = states.into_iter().map(|(transform, state)| state.shown(&transform));
                let transforms: Vec<_> = shown.filter(|state| !state.is_empty()).collect();
                (!transforms.is_empty()).then_some((pipeline, Generation { position: None, transforms }))
            });
            if answer.send(Ok(shown.collect())).is_err() {
                tracing::debug!("who asked for state did not wait for it");
            }
            PipelineJob::Other
        });
    }

    /// Forgets what is kept of a pipeline that does nothing, or of one of its transforms.
    pub(super) fn clear_state(&mut self, name: String, transform: Option<String>, answer: Answer<()>) {
        let answered = |answered: Result<(), ControlError>| {
            if answer.send(answered).is_err() {
                tracing::debug!("who had state cleared did not wait for that");
            }
        };
        let found = self.find(&name);
        if let Some(index) = found
            && !self.all[index].does_nothing()
        {
            return answered(Err(ControlError::Running(name)));
        }
        // The store is asked here and now, so that a start that follows finds it done.
        let on_disk = match self.store.0.clear(&name, transform.as_deref()) {
            Ok(on_disk) => on_disk,
            Err(error) => return answered(Err(ControlError::of_state(error))),
        };
        if transform.is_none() && self.metrics.lacks_state(&name) {
            // What it lacked is not wanted any more.
            self.metrics.state(&name).unwritten.set(0);
        }
        let was_in_memory = found.is_some_and(|index| {
            let managed = &mut self.all[index];
            managed.kept.clear(&managed.config, transform.as_deref())
        });
        self.jobs.spawn(async move {
            answered(match on_disk.await {
                Ok(was_there) if was_there || was_in_memory => {
                    tracing::info!(pipeline = %name, transform, "state cleared");
                    Ok(())
                }
                Ok(_) => Err(ControlError::nothing_kept(&name, transform.as_deref())),
                Err(error) => Err(ControlError::of_state(error)),
            });
            PipelineJob::Other
        });
    }
}
