//! What a reload asks of pipelines: how they compare with another configuration, and that they be what it says.

use super::Pipelines;
use super::managed::{AnswerTo, ManagedPipeline, PipelinePhase, Revival, RunningStage};
use crate::app::connectors;
use crate::app::kept::Kept;
use crate::app::plugin_registry::PluginRegistry;
use crate::app::plugins::ManagedPlugins;
use crate::app::reload::{PipelinePreparation, Plan, PlannedPipeline, PreparedStart, ReadAgain, Way};
use crate::config;
use crate::connector::Connector;
use crate::control::{ControlError, ReloadClass};
use crate::pipeline::{Control, StageParts, StageUpdate};
use crate::store::Store;
use crate::telemetry::PipelineState;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is noted of a pipeline once it has changed in place.
pub(in crate::app) struct Reconfiguration {
    kept: Kept,
    connectors: Arc<[Connector]>,
    /// Each stage: one that has new instances, or the name of one that has not.
    stages: Vec<Result<RunningStage, Arc<str>>>,
    control: mpsc::Sender<Control>,
}

impl Pipelines {
    /// What another configuration makes of the pipelines that did not come through the API.
    ///
    /// # Errors
    /// A pipeline of the API has the name of one of these, or none has the name of the one that is to change.
    pub(in crate::app) fn plan(&self, read: ReadAgain) -> Result<Plan, ControlError> {
        let ReadAgain { pipelines: nexts, are_all, places, restart_required, in_folder } = read;
        let mut pipelines = Vec::new();
        let mut names = BTreeSet::new();
        for next in nexts {
            names.insert(next.name.clone());
            let managed = self.find(&next.name).map(|index| &self.all[index]);
            match managed {
                Some(managed) if are_all && managed.is_from_api => {
                    return Err(ControlError::Taken(next.name));
                }
                None if !are_all => return Err(ControlError::NotFound(next.name)),
                _ => {}
            }
            let before = managed.map(ManagedPipeline::in_force);
            pipelines.extend(PlannedPipeline::compare(before, Some(Arc::new(next))));
        }
        let others = self.all.iter().filter(|managed| !names.contains(&managed.config.name));
        for other in others.filter(|other| !other.is_from_api) {
            let before = other.config.clone();
            // Where one is to change, all others stay.
            let next = (!are_all).then(|| before.clone());
            pipelines.extend(PlannedPipeline::compare(Some(before), next));
        }
        Ok(Plan { pipelines, restart_required, places, in_folder })
    }

    /// What it takes to prepare a pipeline.
    pub(in crate::app) fn preparation(
        &self,
        plugins: &ManagedPlugins,
        next: Arc<config::Pipeline>,
        planned: &PlannedPipeline,
        way: Way,
        clashes: bool,
    ) -> PipelinePreparation {
        let managed = self.find(&next.name).map(|index| &self.all[index]);
        let mut kept = managed.map_or_else(|| Kept::new(&next), |managed| managed.kept.clone());
        if let Some(managed) = managed {
            kept.configure(&managed.config, &next);
        }
        let known = managed.and_then(|managed| Some((&*managed.config, managed.connectors.as_deref()?)));
        let connectors = connectors::renewed(&next, known, &plugins.registry, &self.metrics);
        let plugins = plugins.registry.all_of(&next).ok();
        PipelinePreparation { before: planned.before.clone(), way, clashes, plugins, kept, connectors, next }
    }

    /// The pipelines that a plan says nothing of: those of the API, as a rule.
    pub(in crate::app) fn left_alone(&self, plan: &Plan) -> Vec<Arc<config::Pipeline>> {
        let is_planned = |name: &str| plan.pipelines.iter().any(|planned| planned.name == name);
        let others = self.all.iter().filter(|managed| !is_planned(&managed.config.name));
        others.map(|managed| managed.config.clone()).collect()
    }

    /// The pipelines that stay as they are.
    pub(in crate::app) fn unchanged(&self, plan: &Plan) -> Vec<Arc<config::Pipeline>> {
        let unchanged = plan.pipelines.iter().filter(|planned| planned.class == ReloadClass::Unchanged);
        unchanged.filter_map(|planned| planned.before.clone()).collect()
    }

    /// What the pipelines were that change, as far as they do anything.
    pub(in crate::app) fn going(&self, plan: &Plan) -> Vec<Arc<config::Pipeline>> {
        let going = plan.changing().filter(|planned| !self.does_nothing(&planned.name));
        going.filter_map(|planned| planned.before.clone()).collect()
    }

    /// Where durable state is kept.
    pub(in crate::app) fn store(&self) -> Store {
        self.store.0.clone()
    }

    /// Whether there is such a pipeline.
    pub(in crate::app) fn is_there(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether a pipeline does nothing, or is not there.
    pub(in crate::app) fn does_nothing(&self, name: &str) -> bool {
        self.find(name).is_none_or(|index| self.all[index].does_nothing())
    }

    /// Whether a pipeline runs.
    pub(in crate::app) fn is_up(&self, name: &str) -> bool {
        self.find(name).is_some_and(|index| matches!(self.all[index].phase, PipelinePhase::Up { .. }))
    }

    /// Whether a pipeline runs or starts, and was not told to stop.
    pub(in crate::app) fn has_started(&self, name: &str) -> bool {
        self.find(name).is_some_and(|index| {
            let managed = &self.all[index];
            !managed.is_stopping() && !managed.does_nothing()
        })
    }

    /// Whether a pipeline is not to run as it is configured anew: since it was told to stop, or has finished what it
    /// had to do, which it does not do again where its source is the same.
    pub(in crate::app) fn stays_down(&self, name: &str, class: ReloadClass) -> bool {
        match self.status.get(name).map(|described| described.state) {
            Some(PipelineState::Stopped | PipelineState::Stopping) => true,
            Some(PipelineState::Finished) => class != ReloadClass::Replaced,
            _ => false,
        }
    }

    /// Stops a pipeline and removes it.
    pub(in crate::app) fn remove_for_good(&mut self, name: &str) {
        // Whether it is gone is looked at.
        let (answer, _) = oneshot::channel();
        self.take_down(name, AnswerTo::Removed(answer));
    }

    /// Stops a pipeline that starts again as another: who comes to its paths meanwhile waits.
    pub(in crate::app) fn stop_for(&mut self, next: &config::Pipeline) {
        let Some(index) = self.find(&next.name) else { return };
        if self.all[index].does_nothing() {
            return;
        }
        self.all[index].is_returning = true;
        // Before its source leaves: until then that one reads on.
        self.ends.listeners().expect(next);
        self.stop_expecting(index, Instant::now() + self.grace);
    }

    /// Adds a pipeline whose stages are made and whose ends are open. Says whether it could be.
    pub(in crate::app) fn add_opened(
        &mut self,
        plugins: &mut ManagedPlugins,
        config: &Arc<config::Pipeline>,
        start: PreparedStart,
    ) -> bool {
        let PreparedStart { made, kept, ends, connectors, expecting } = start;
        if self.find(&config.name).is_some() {
            self.retire(made.stages);
            return false;
        }
        for (warning, hint) in self.ends.listeners().open_doors(config) {
            tracing::warn!(pipeline = %config.name, warning, hint, "odd configuration");
        }
        self.status.add(config.clone(), PipelineState::Starting);
        self.status.warn(&config.name, made.warnings);
        expecting.keep();
        let mut managed = ManagedPipeline::new(config.clone());
        managed.kept = kept;
        managed.connectors = Some(connectors);
        managed.phase = PipelinePhase::Opening { cancel: CancellationToken::new() };
        self.all.push(managed);
        self.opened(plugins, &config.name, made.stages, Ok(ends)).is_some()
    }

    /// Configures a pipeline that does nothing, or is about to; one that is not there is added, and does nothing yet.
    pub(in crate::app) fn configure(&mut self, registry: &PluginRegistry, next: &Arc<config::Pipeline>) {
        let Some(index) = self.find(&next.name) else {
            self.status.add(next.clone(), PipelineState::Starting);
            return self.all.push(ManagedPipeline::new(next.clone()));
        };
        let managed = &mut self.all[index];
        if let PipelinePhase::Up { stages, .. } = &mut managed.phase {
            // It is at its end: nothing is offered to its stages any more.
            stages.clear();
        }
        managed.is_returning = false;
        managed.revival = Revival::None;
        managed.kept.configure(&managed.config, next);
        managed.connectors = managed.connectors.take().map(|connectors| {
            connectors::renewed(next, Some((&managed.config, &connectors)), registry, &self.metrics)
        });
        managed.config = next.clone();
        self.status.configure(next.clone());
        self.forget_gone(&next.name);
    }

    /// Starts a pipeline that was configured so.
    pub(in crate::app) fn begin(&mut self, plugins: &mut ManagedPlugins, name: &str) {
        if let Some(index) = self.find(name)
            && self.does_nothing(name)
        {
            self.start(plugins, index);
        }
    }

    /// Whether a pipeline that was started runs, or waits for its plugins; `None` while that is not decided.
    pub(in crate::app) fn has_begun(&self, name: &str) -> Option<Result<(), String>> {
        let Some(index) = self.find(name) else { return Some(Err("it was removed meanwhile".to_owned())) };
        match (&self.all[index].phase, self.status.get(name).map(|described| described.state)) {
            (PipelinePhase::Down, Some(PipelineState::Failed { error })) => Some(Err(error)),
            (
                PipelinePhase::Down
                | PipelinePhase::Waiting
                | PipelinePhase::Up { .. }
                | PipelinePhase::Stopping,
                _,
            ) => Some(Ok(())),
            _ => None,
        }
    }

    /// What is to be noted of a pipeline that runs once it has changed in place, and how it is told.
    pub(in crate::app) fn reconfiguration(
        &self,
        name: &str,
        stages: &[StageUpdate],
        kept: Kept,
        connectors: Arc<[Connector]>,
    ) -> Option<(mpsc::Sender<Control>, Reconfiguration)> {
        let PipelinePhase::Up { control, .. } = &self.all[self.find(name)?].phase else { return None };
        let running = |parts: &StageParts| {
            let (transform, setup, instances) = parts;
            RunningStage::new(transform, setup, instances)
        };
        let stages = stages.iter().map(|stage| match stage {
            StageUpdate::Kept(name) => Err(name.clone()),
            StageUpdate::Adjusted(transform) => Err(transform.name.as_str().into()),
            StageUpdate::Renewed { parts, .. } | StageUpdate::Added(parts) => Ok(running(parts)),
        });
        let stages = stages.collect();
        Some((control.clone(), Reconfiguration { kept, connectors, stages, control: control.clone() }))
    }

    /// A pipeline that runs has changed in place.
    pub(in crate::app) fn reconfigured(&mut self, next: &Arc<config::Pipeline>, made: Reconfiguration) {
        let Some(index) = self.find(&next.name) else { return };
        let managed = &mut self.all[index];
        let Reconfiguration { mut kept, connectors, stages: new, control: told } = made;
        kept.begin();
        managed.kept = kept;
        managed.connectors = Some(connectors);
        managed.config = next.clone();
        self.status.configure(next.clone());
        if let PipelinePhase::Up { control, stages } = &mut managed.phase
            && control.same_channel(&told)
        {
            let mut before = std::mem::take(stages);
            let new = new.into_iter().filter_map(|stage| match stage {
                Ok(new) => Some(new),
                Err(name) => {
                    let index = before.iter().position(|stage| stage.setup.transform == name)?;
                    Some(before.swap_remove(index))
                }
            });
            *stages = new.collect();
        }
        self.show_versions(index);
    }

    /// Notes what whoever has configured a pipeline anew should know.
    pub(in crate::app) fn warn(&self, name: &str, warnings: Vec<String>) {
        self.status.warn(name, warnings);
    }

    /// The series of stages and sinks go that a pipeline does not have any more.
    pub(in crate::app) fn forget_gone(&self, name: &str) {
        let Some(index) = self.find(name) else { return };
        let config = &self.all[index].config;
        let transforms = config.transforms.iter().map(|transform| transform.name.as_str());
        let sinks = config.sinks.iter().map(|sink| sink.name.as_str());
        let letters = config.dead_letter.iter().map(|_| config::DEAD_LETTER);
        self.metrics.keep_only(name, &transforms.collect(), &sinks.chain(letters).collect());
    }
}
