//! How a pipeline starts: its stages are made, then its ends are opened, then it runs.

use super::Pipelines;
use super::managed::{AnswerTo, PipelinePhase, Revival, RunningStage, answer_all};
use super::waiting;
use crate::app::connectors;
use crate::app::end_opener::OpenedEnds;
use crate::app::instances::{MadeStages, Ready};
use crate::app::job::PipelineJob;
use crate::app::kept::Kept;
use crate::app::plugins::ManagedPlugins;
use crate::app::start::{self, StartError};
use crate::config;
use crate::control::ControlError;
use crate::pipeline::{self, Ended, Ending, Parts, Persistence, Resume};
use crate::telemetry::PipelineState;
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

impl From<&StartError> for ControlError {
    fn from(error: &StartError) -> Self {
        match error {
            StartError::Refused(refusal) => Self::Refused(refusal.to_string()),
            StartError::Open(error) => Self::Open(error.to_string()),
            other => Self::Hung(other.to_string()),
        }
    }
}

impl Pipelines {
    /// Starts a pipeline that is down or waits, if its plugins are there. If one of them is on its way, that
    /// is waited for; if not, the pipeline waits, and that is an answer.
    pub(super) fn start(&mut self, plugins: &mut ManagedPlugins, index: usize) {
        let managed = &mut self.all[index];
        (managed.revival, managed.is_returning) = (Revival::None, false);
        // Who comes before its ends are open waits for them.
        let config = managed.config.clone();
        self.ends.listeners().expect(&config);
        let name: Arc<str> = config.name.as_str().into();
        let missing = match plugins.registry.all_of(&config) {
            Ok(current) => {
                let connectors = managed
                    .connectors
                    .get_or_insert_with(|| connectors::of(&config, &plugins.registry, &self.metrics))
                    .clone();
                let cancel = CancellationToken::new();
                let versions = current.iter().map(|plugin| plugin.version().clone()).collect();
                managed.phase = PipelinePhase::Preparing { cancel: cancel.clone(), versions };
                self.status.set(&name, PipelineState::Starting);
                let (config, kept) = (config.clone(), managed.kept.clone());
                let (store, metrics) = (self.store.0.clone(), self.metrics.clone());
                self.jobs.spawn(async move {
                    let result =
                        start::prepare(&config, &current, &connectors, kept, &store, &metrics, &cancel).await;
                    PipelineJob::Prepared { pipeline: name, result }
                });
                return;
            }
            Err(missing) => missing,
        };
        managed.phase = PipelinePhase::Waiting;
        // All of them are asked for, whether one is absent or not.
        let (coming, absent): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|plugin| plugins.fall_back(plugin.expose()));
        if absent.is_empty() {
            self.status.set(&name, PipelineState::Starting);
            return;
        }
        let waits = waiting::state(plugins, &absent);
        // Each look at the plugins comes to this again.
        if self.status.get(&name).is_none_or(|described| described.state != waits) {
            self.status.set(&name, waits.clone());
            waiting::tell(plugins, &name, &waits, &coming);
        }
        self.decided(index, None);
    }

    /// The stages of a pipeline are made, or not.
    pub(super) fn prepared(
        &mut self,
        plugins: &mut ManagedPlugins,
        name: &str,
        result: Result<(MadeStages, Kept), StartError>,
    ) {
        let Some(index) = self.find(name) else { return };
        let managed = &mut self.all[index];
        let PipelinePhase::Preparing { versions, .. } = &managed.phase else {
            self.retire(result.map_or_else(|_| Vec::new(), |(made, _)| made.stages));
            return self.is_down(index, PipelineState::Stopped);
        };
        let newest = plugins.registry.all_of(&managed.config).unwrap_or_default();
        if !newest.iter().map(|plugin| plugin.version()).eq(versions) {
            // What was made is the past, and what was refused may be mended.
            self.retire(result.map_or_else(|_| Vec::new(), |(made, _)| made.stages));
            return self.start(plugins, index);
        }
        match result {
            Ok((MadeStages { stages, warnings }, kept)) => {
                self.status.warn(name, warnings);
                managed.kept = kept;
                managed.phase = PipelinePhase::Prepared(stages);
                if !self.is_gate_closed() {
                    self.open(index);
                }
            }
            Err(error) => self.not_started(plugins, index, error),
        }
    }

    /// Opens the ends of a pipeline whose stages are made.
    pub(super) fn open(&mut self, index: usize) {
        let managed = &mut self.all[index];
        let cancel = CancellationToken::new();
        match std::mem::replace(&mut managed.phase, PipelinePhase::Opening { cancel: cancel.clone() }) {
            PipelinePhase::Prepared(stages) => {
                let (config, ends) = (managed.config.clone(), self.ends.clone());
                let from = managed.kept.position.clone();
                let connectors = managed.connectors.clone().unwrap_or_default();
                self.jobs.spawn(async move {
                    let result = start::open(&config, from, &connectors, &ends, &cancel).await;
                    PipelineJob::Opened { pipeline: config.name.as_str().into(), stages, result }
                });
            }
            other => managed.phase = other,
        }
    }

    /// The ends of a pipeline are open, or not.
    pub(super) fn opened(
        &mut self,
        plugins: &mut ManagedPlugins,
        name: &str,
        stages: Vec<Ready>,
        result: Result<Box<OpenedEnds>, StartError>,
    ) -> Option<Arc<config::Pipeline>> {
        let index = self.find(name)?;
        let managed = &mut self.all[index];
        if !matches!(managed.phase, PipelinePhase::Opening { .. }) {
            self.retire(stages);
            self.is_down(index, PipelineState::Stopped);
            return None;
        }
        let OpenedEnds { source, sinks, dead_letter } = match result {
            Ok(opened) => *opened,
            Err(error) => {
                self.retire(stages);
                self.not_started(plugins, index, error);
                return None;
            }
        };
        let config = managed.config.clone();
        let name: Arc<str> = config.name.as_str().into();
        let running = stages.iter().map(|(transform, setup, made)| RunningStage::new(transform, setup, made));
        let running = running.collect();
        let persistence = Persistence::KeepsGoing;
        managed.kept.begin();
        let (store, interval) = &self.store;
        let durable = config.is_durable().then(|| (store.writer(&name), *interval));
        let transforms = stages;
        let parts = Parts {
            name: name.clone(),
            source,
            transforms,
            sinks,
            dead_letter,
            kept: Some(self.dead_letters.clone()),
            persistence,
            durable,
        };
        let (runner, control) = pipeline::build(parts, &self.metrics);
        managed.phase = PipelinePhase::Up { control, stages: running };
        self.show_versions(index);
        let waits = config.endpoints().any(|(_, endpoint)| endpoint.check_connection.is_some());
        let started = {
            let (status, name) = (self.status.clone(), name.clone());
            move || {
                status.set(&name, PipelineState::Running);
                tracing::info!(pipeline = %name, "pipeline running");
            }
        };
        if !waits {
            started();
        }
        let listeners = self.ends.listeners().clone();
        let expected = name.clone();
        self.running.spawn(async move {
            let connected = || {
                listeners.expect_no_more(&expected);
                if waits {
                    started();
                }
            };
            // A fault of ours in one pipeline is no reason to lose the others.
            let ended = AssertUnwindSafe(runner.run(connected)).catch_unwind().await;
            let ending = Ending::Failed("it panicked".to_owned());
            let panicked = Ended { ending, given_up: None, resume: Resume::Newest };
            (name, ended.unwrap_or(panicked))
        });
        self.decided(index, None);
        Some(config)
    }

    /// A pipeline does not start.
    pub(super) fn not_started(&mut self, plugins: &mut ManagedPlugins, index: usize, error: StartError) {
        let managed = &mut self.all[index];
        let name = &managed.config.name;
        self.ends.listeners().expect_no_more(name);
        let text = error.to_string();
        tracing::error!(pipeline = %name, error = text, "pipeline does not start");
        self.status.set(name, PipelineState::Failed { error: text });
        managed.phase = PipelinePhase::Down;
        if error.is_the_plugins() {
            let may_come = !managed.is_booting && plugins.folder.is_watched();
            managed.revival = if may_come { Revival::Awaited } else { Revival::Restart };
        }
        self.decided(index, Some(error));
    }

    /// It is decided whether a pipeline starts: tells who waits for that.
    fn decided(&mut self, index: usize, error: Option<StartError>) {
        let managed = &mut self.all[index];
        let name = managed.config.name.clone();
        let state = self.status.get(&name);
        let answer = match (&error, state) {
            (Some(error), _) => Err(ControlError::from(error)),
            (None, Some(described)) => Ok(described),
            (None, None) => Err(ControlError::NotFound(name.clone())),
        };
        let (started, others) = std::mem::take(&mut managed.waiting)
            .into_iter()
            .partition(|then| matches!(then, AnswerTo::Started(_)));
        managed.waiting = others;
        let was_booting = std::mem::replace(&mut managed.is_booting, false);
        let was_new = std::mem::replace(&mut managed.is_new, false);
        if let Some(error) = error {
            if was_booting {
                self.not_booted(name.clone(), error);
            }
            if was_new {
                self.all.remove(index);
                self.forget(&name);
            }
        }
        answer_all(started, &answer);
    }
}
