//! The pipelines of a host, running or not: what each does, and what becomes of what it is told.
//!
//! Everything here decides and returns at once. What takes time is a job (`start.rs`) or the
//! pipeline's own task; its result comes back to the functions below. Whoever asked is answered then.

mod boot;
mod commands;
mod kept_state;
mod managed;
mod reconfiguring;
mod stages;
mod starting;
mod waiting;

pub(super) use reconfiguring::Reconfiguration;

use super::end_opener::EndOpener;
use super::instances::Ready;
use super::job::PipelineJob;
use super::plugins::ManagedPlugins;
use crate::config;
use crate::control::ControlError;
use crate::dead_letters::KeptLetters;
use crate::pipeline::{Ended, Ending, LAST_GOODBYE};
use crate::plugin::Plugin;
use crate::store::Store;
use crate::telemetry::{Metrics, PipelineState, Status};
use boot::Boot;
use managed::{AnswerTo, ManagedPipeline, PipelinePhase, Revival, answer_all};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

/// So long after the grace period a pipeline that has not ended is given up with its task: longer than its
/// last goodbye takes, so that it must be stuck.
pub(super) const STUCK: Duration = LAST_GOODBYE.saturating_add(Duration::from_millis(250));

/// Every pipeline of a host, and the tasks and jobs of them.
pub(super) struct Pipelines {
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    ends: Arc<EndOpener>,
    /// Where durable state is kept, and how often it is written.
    store: (Store, Duration),
    dead_letters: KeptLetters,
    grace: Duration,
    all: Vec<ManagedPipeline>,
    /// The tasks of those that run; each answers with its pipeline's name.
    running: JoinSet<(Arc<str>, Ended)>,
    jobs: JoinSet<PipelineJob>,
    /// The first start of all pipelines, while it is not over.
    boot: Option<Boot>,
    is_stopping: bool,
    /// Pipelines that the stop of the host cut off, and the messages that they gave up.
    cut_off: Vec<(String, u64)>,
}

/// Something that happened to a pipeline beside the task that decides.
pub(super) enum PipelineEvent {
    /// A pipeline's task has ended.
    Ended(Result<(Arc<str>, Ended), JoinError>),
    /// A job is done.
    Done(PipelineJob),
}

impl Pipelines {
    /// The pipelines of a configuration, which do nothing yet.
    pub(super) fn new(
        metrics: Arc<Metrics>,
        status: Arc<Status>,
        ends: Arc<EndOpener>,
        store: (Store, Duration),
        dead_letters: KeptLetters,
        grace: Duration,
        configured: Vec<config::Pipeline>,
    ) -> Self {
        let mut all = Vec::with_capacity(configured.len());
        for pipeline in configured {
            let mut managed = ManagedPipeline::new(Arc::new(pipeline));
            managed.is_booting = true;
            status.add(managed.config.clone(), PipelineState::Starting);
            all.push(managed);
        }
        Self {
            boot: Some(Boot::new(all.len())),
            metrics,
            status,
            ends,
            store,
            dead_letters,
            grace,
            all,
            running: JoinSet::new(),
            jobs: JoinSet::new(),
            is_stopping: false,
            cut_off: Vec::new(),
        }
    }

    /// Starts every pipeline, as far as its plugins are there.
    pub(super) fn start_all(&mut self, plugins: &mut ManagedPlugins) {
        for index in 0..self.all.len() {
            self.start(plugins, index);
        }
    }

    /// Whether the first start of all pipelines is over.
    pub(super) fn has_booted(&self) -> bool {
        self.boot.is_none()
    }

    /// Whether a host whose pipelines end by themselves has to wait for one.
    pub(super) fn are_awaited(&self) -> bool {
        self.all.iter().any(ManagedPipeline::is_awaited)
    }

    /// The plugins that pipelines name.
    pub(super) fn plugins(&self) -> BTreeSet<String> {
        let plugins = self.all.iter().flat_map(|managed| managed.config.plugins());
        plugins.map(|plugin| plugin.expose().to_owned()).collect()
    }

    /// Whether a pipeline names this plugin.
    pub(super) fn need(&self, plugin: &str) -> bool {
        self.all.iter().any(|managed| managed.uses(plugin))
    }

    /// The next thing that happens; never, while no pipeline does anything.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> PipelineEvent {
        loop {
            tokio::select! {
                biased;
                Some(joined) = self.running.join_next() => return PipelineEvent::Ended(joined),
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => return PipelineEvent::Done(done),
                    // Jobs catch what can panic in them.
                    Err(error) => tracing::error!(%error, "a job of the host is lost"),
                },
                else => std::future::pending().await,
            }
        }
    }

    /// Takes note of what happened. Gives the pipeline that has just begun to run, if one has: versions of its
    /// plugins may have come while it was starting.
    pub(super) fn happened(
        &mut self,
        plugins: &mut ManagedPlugins,
        event: PipelineEvent,
    ) -> Option<Arc<config::Pipeline>> {
        match event {
            PipelineEvent::Ended(joined) => self.ended(plugins, joined),
            PipelineEvent::Done(PipelineJob::Checked { pipeline, result }) => {
                self.checked(plugins, &pipeline, result);
            }
            PipelineEvent::Done(PipelineJob::Prepared { pipeline, result }) => {
                self.prepared(plugins, &pipeline, result);
            }
            PipelineEvent::Done(PipelineJob::Opened { pipeline, stages, result }) => {
                return self.opened(plugins, &pipeline, stages, result);
            }
            PipelineEvent::Done(PipelineJob::Other) => {}
        }
        None
    }

    /// Stops every pipeline by the deadline. Those that are stuck are given up with their tasks.
    pub(super) async fn stop_all(&mut self, plugins: &mut ManagedPlugins, deadline: Instant) {
        self.is_stopping = true;
        for index in 0..self.all.len() {
            self.stop(index, deadline);
        }
        while self.all.iter().any(ManagedPipeline::is_stopping) {
            tokio::select! {
                biased;
                event = self.next() => drop(self.happened(plugins, event)),
                () = sleep_until(deadline + STUCK) => break,
            }
        }
        for managed in self.all.iter().filter(|managed| managed.is_stopping()) {
            tracing::error!(pipeline = %managed.config.name, "pipeline is stuck and is given up");
            self.cut_off.push((managed.config.name.clone(), 0));
        }
        // What is left of jobs is of no use any more.
        self.running.abort_all();
        self.jobs.abort_all();
    }

    /// The pipelines that the stop cut off, and the messages that they gave up.
    pub(super) fn into_cut_off(self) -> Vec<(String, u64)> {
        self.cut_off
    }

    /// A pipeline's task has ended.
    fn ended(&mut self, plugins: &mut ManagedPlugins, joined: Result<(Arc<str>, Ended), JoinError>) {
        let (name, Ended { ending, given_up, resume }) = match joined {
            Ok(ended) => ended,
            // It catches its panics; it is aborted at the very end alone.
            Err(error) => return tracing::error!(%error, "the task of a pipeline is lost"),
        };
        if let Some(given_up) = given_up {
            // At the stop of the host, that is its failure.
            if self.is_stopping {
                self.cut_off.push((name.to_string(), given_up));
            }
        }
        let state = match ending {
            Ending::Finished => PipelineState::Finished,
            Ending::Stopped => PipelineState::Stopped,
            Ending::Failed(error) => {
                tracing::error!(pipeline = %name, error, "pipeline failed");
                PipelineState::Failed { error }
            }
        };
        tracing::info!(pipeline = %name, state = state.as_str(), "pipeline ended");
        let Some(index) = self.find(&name) else { return };
        let managed = &mut self.all[index];
        managed.kept.end(resume);
        let was_told = matches!(managed.phase, PipelinePhase::Stopping);
        let has_failed = matches!(state, PipelineState::Failed { .. }) && !was_told;
        if has_failed && managed.config.plugins().next().is_some() {
            managed.revival = Revival::Restart;
        }
        let ran = match &managed.phase {
            PipelinePhase::Up { stages, .. } => stages.iter().map(|stage| stage.version.clone()).collect(),
            _ => Vec::new(),
        };
        let newest = managed.config.transforms.iter().map(|each| plugins.registry.get(each.plugin.expose()));
        let is_newer =
            |(plugin, ran): (Option<Plugin>, &Arc<str>)| plugin.is_some_and(|plugin| plugin.version() != ran);
        let has_newer = has_failed && newest.zip(&ran).any(is_newer);
        self.is_down(index, state);
        // A version that came while it drained.
        if has_newer && let Some(index) = self.find(&name) {
            tracing::info!(pipeline = %name, "a failed pipeline gets another chance");
            self.start(plugins, index);
        }
    }

    /// Starts the pipelines that wait for this plugin, as far as they can.
    pub(super) fn start_waiting(&mut self, plugins: &mut ManagedPlugins, plugin: &str) {
        for index in 0..self.all.len() {
            if matches!(self.all[index].phase, PipelinePhase::Waiting) && self.all[index].uses(plugin) {
                self.start(plugins, index);
            }
        }
    }

    /// Starts the pipelines anew that failed with another version of this plugin.
    pub(super) fn revive(&mut self, plugins: &mut ManagedPlugins, plugin: &str) {
        for index in 0..self.all.len() {
            let managed = &self.all[index];
            if matches!(managed.phase, PipelinePhase::Down)
                && managed.revival != Revival::None
                && managed.uses(plugin)
            {
                tracing::info!(pipeline = %managed.config.name, plugin, "a failed pipeline gets another chance");
                self.start(plugins, index);
            }
        }
    }

    /// A pipeline does nothing any more: tells who waited for that.
    fn is_down(&mut self, index: usize, state: PipelineState) {
        let managed = &mut self.all[index];
        managed.phase = PipelinePhase::Down;
        let name = managed.config.name.clone();
        self.status.runs(&name, Vec::new());
        if !managed.is_returning {
            self.ends.listeners().expect_no_more(&name);
        }
        let waiting = std::mem::take(&mut managed.waiting);
        if !matches!(state, PipelineState::Failed { .. }) {
            self.ends.ended_well(&name);
        }
        self.metrics.stopped(&name);
        self.status.set(&name, state);
        let described = self.describe(&name);
        let (removed, others): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|then| matches!(then, AnswerTo::Removed(_)));
        if removed.is_empty() {
            return answer_all(others, &described);
        }
        self.all.remove(index);
        self.forget(&name);
        tracing::info!(pipeline = %name, "pipeline removed");
        answer_all(removed, &described);
        // With it went what could be told of it.
        answer_all(others, &Err(ControlError::NotFound(name)));
    }

    /// A pipeline is there no more.
    fn forget(&self, name: &str) {
        self.status.remove(name);
        self.ends.forget(name);
        self.metrics.forget(name);
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|managed| managed.config.name == name)
    }

    /// Drops instances where the time that unmapping their memory takes holds nothing up.
    fn retire(&mut self, stages: Vec<Ready>) {
        if !stages.is_empty() {
            self.jobs.spawn_blocking(move || {
                drop(stages);
                PipelineJob::Other
            });
        }
    }
}
