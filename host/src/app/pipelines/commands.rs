//! What pipelines are told: to be added, started, stopped or removed, and to forget what they know. Whoever asked is
//! answered once it is done.

use super::Pipelines;
use super::managed::{AnswerTo, ManagedPipeline, PipelinePhase, Revival, answer_all};
use crate::app::job::PipelineJob;
use crate::app::plugins::ManagedPlugins;
use crate::app::start::{self, StartError};
use crate::config;
use crate::control::{Answer, ControlError, PipelineOrder};
use crate::dead_letters::RetryOrder;
use crate::pipeline::Control;
use crate::telemetry::{Described, PipelineState};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

impl Pipelines {
    /// Does what a handle says. Whoever asked may have gone since: it is done all the same.
    pub(in crate::app) fn obey(&mut self, plugins: &mut ManagedPlugins, order: PipelineOrder) {
        match order {
            PipelineOrder::Add(config, answer) => self.add(Arc::new(*config), answer),
            PipelineOrder::Start(name, answer) => self.start_again(plugins, &name, answer),
            PipelineOrder::Stop(name, answer) => self.take_down(&name, AnswerTo::Stopped(answer)),
            PipelineOrder::Retry(name, order, answer) => self.retry(name, order, answer),
            PipelineOrder::Remove(name, answer) => self.take_down(&name, AnswerTo::Removed(answer)),
            PipelineOrder::ShowState(name, answer) => self.show_state(name.as_deref(), answer),
            PipelineOrder::ClearState(name, transform, answer) => self.clear_state(name, transform, answer),
        }
    }

    fn add(&mut self, config: Arc<config::Pipeline>, answer: Answer<Described>) {
        let name = config.name.clone();
        if self.find(&name).is_some() {
            return answer_all(vec![AnswerTo::Started(answer)], &Err(ControlError::Taken(name)));
        }
        match self.ends.note(&config) {
            Ok(noted) => noted.keep(),
            Err(error) => {
                return answer_all(
                    vec![AnswerTo::Started(answer)],
                    &Err(ControlError::Open(error.to_string())),
                );
            }
        }
        for (warning, hint) in self.ends.listeners().open_doors(&config) {
            tracing::warn!(pipeline = %name, warning, hint, "odd configuration");
        }
        self.status.add(config.clone(), PipelineState::Starting);
        let cancel = CancellationToken::new();
        let mut managed = ManagedPipeline::new(config.clone());
        (managed.is_new, managed.is_from_api) = (true, true);
        managed.phase = PipelinePhase::Checking { cancel: cancel.clone() };
        managed.waiting.push(AnswerTo::Started(answer));
        // One that is added meanwhile is compared with this one.
        let others = self.all.iter().map(|managed| managed.config.clone()).collect();
        self.all.push(managed);
        self.jobs.spawn(async move {
            let result = start::check_files(config, others, &cancel).await;
            PipelineJob::Checked { pipeline: name.into(), result }
        });
    }

    /// The files of a pipeline that is added were looked at.
    pub(super) fn checked(
        &mut self,
        plugins: &mut ManagedPlugins,
        name: &str,
        result: Result<(), StartError>,
    ) {
        let Some(index) = self.find(name) else { return };
        if !matches!(self.all[index].phase, PipelinePhase::Checking { .. }) {
            return self.is_down(index, PipelineState::Stopped);
        }
        match result {
            Ok(()) => self.start(plugins, index),
            Err(error) => self.not_started(plugins, index, error),
        }
    }

    fn start_again(&mut self, plugins: &mut ManagedPlugins, name: &str, answer: Answer<Described>) {
        let then = AnswerTo::Started(answer);
        let Some(index) = self.find(name) else {
            return answer_all(vec![then], &Err(ControlError::NotFound(name.to_owned())));
        };
        match self.all[index].phase {
            PipelinePhase::Stopping => answer_all(vec![then], &Err(ControlError::Stopping(name.to_owned()))),
            PipelinePhase::Up { .. } => answer_all(vec![then], &self.describe(name)),
            PipelinePhase::Checking { .. }
            | PipelinePhase::Preparing { .. }
            | PipelinePhase::Prepared(_)
            | PipelinePhase::Opening { .. } => self.all[index].waiting.push(then),
            PipelinePhase::Down | PipelinePhase::Waiting => {
                self.all[index].waiting.push(then);
                self.start(plugins, index);
            }
        }
    }

    /// Stops a pipeline, if it does anything; `then` is done once it does not.
    pub(super) fn take_down(&mut self, name: &str, then: AnswerTo) {
        let Some(index) = self.find(name) else {
            return answer_all(vec![then], &Err(ControlError::NotFound(name.to_owned())));
        };
        self.all[index].waiting.push(then);
        self.stop(index, Instant::now() + self.grace);
        if matches!(self.all[index].phase, PipelinePhase::Down) {
            let state = self.status.get(name).map(|described| described.state);
            let has_finished = state == Some(PipelineState::Finished);
            self.is_down(index, if has_finished { PipelineState::Finished } else { PipelineState::Stopped });
        }
    }

    /// Tells a pipeline to stop, whatever it does.
    pub(super) fn stop(&mut self, index: usize, deadline: Instant) {
        self.ends.listeners().expect_no_more(&self.all[index].config.name);
        self.stop_expecting(index, deadline);
    }

    /// The same of one whose endpoints are still expected, or those of the one that takes its place.
    pub(super) fn stop_expecting(&mut self, index: usize, deadline: Instant) {
        let managed = &mut self.all[index];
        managed.revival = Revival::None;
        managed.is_booting = false;
        managed.is_new = false;
        match std::mem::replace(&mut managed.phase, PipelinePhase::Stopping) {
            PipelinePhase::Up { control, .. } => {
                self.tell(&control, Control::Stop { deadline });
            }
            PipelinePhase::Checking { cancel }
            | PipelinePhase::Preparing { cancel, .. }
            | PipelinePhase::Opening { cancel } => cancel.cancel(),
            PipelinePhase::Prepared(stages) => {
                managed.phase = PipelinePhase::Down;
                self.retire(stages);
            }
            PipelinePhase::Down | PipelinePhase::Waiting => managed.phase = PipelinePhase::Down,
            PipelinePhase::Stopping => {}
        }
        let managed = &mut self.all[index];
        if matches!(managed.phase, PipelinePhase::Stopping) {
            self.status.set(&managed.config.name, PipelineState::Stopping);
        }
        let (started, others) = std::mem::take(&mut managed.waiting)
            .into_iter()
            .partition(|then| matches!(then, AnswerTo::Started(_)));
        managed.waiting = others;
        let stopping = ControlError::Stopping(managed.config.name.clone());
        answer_all(started, &Err(stopping));
    }

    /// Has dead letters enter a pipeline again, if it runs.
    fn retry(&mut self, name: String, order: Box<RetryOrder>, answer: Answer<()>) {
        let answered = match self.find(&name).map(|index| &self.all[index].phase) {
            None => Err(ControlError::NotFound(name)),
            Some(PipelinePhase::Up { control, .. }) => {
                let control = control.clone();
                self.tell(&control, Control::Retry(order));
                Ok(())
            }
            Some(_) => Err(ControlError::NotRunning(name)),
        };
        if answer.send(answered).is_err() {
            tracing::debug!("who had dead letters retried did not wait for that");
        }
    }

    /// Tells a pipeline something. One that has ended needs no telling.
    fn tell(&mut self, control: &mpsc::Sender<Control>, what: Control) {
        if let Err(mpsc::error::TrySendError::Full(what)) = control.try_send(what) {
            // Others wait before it. The job waits for them, and nobody for the job.
            let control = control.clone();
            self.jobs.spawn(async move {
                let is_told = control.send(what).await.is_ok();
                tracing::debug!(is_told, "a pipeline was told something after what it was told before");
                PipelineJob::Other
            });
        }
    }

    pub(super) fn describe(&self, name: &str) -> Result<Described, ControlError> {
        self.status.get(name).ok_or_else(|| ControlError::NotFound(name.to_owned()))
    }
}
