//! The stages that use a plugin: those that run a version of it, and those that would run one.

use super::Pipelines;
use super::managed::{ManagedPipeline, PipelinePhase, Revival, RunningStage};
use crate::app::instances;
use crate::app::uses::{ConnectorUse, IdleStage, StageUse};
use crate::plugin::Plugin;
use crate::verdict::{SwapOutcome, UsePlace, UseVerdict};
use std::sync::Arc;

impl Pipelines {
    /// The stages that run a plugin now.
    pub(in crate::app) fn uses(&self, plugin: &str) -> Vec<StageUse> {
        self.stages_with(plugin, |_| true)
    }

    /// The stages of pipelines that do not run, have not failed, and would run a plugin.
    pub(in crate::app) fn idle(&self, plugin: &str) -> Vec<IdleStage> {
        // To one that has failed any version is another chance, and its plugin may take its time to refuse it.
        let is_idle = |managed: &&ManagedPipeline| {
            !matches!(managed.phase, PipelinePhase::Up { .. }) && managed.revival == Revival::None
        };
        let down = self.all.iter().filter(is_idle);
        let stages = down.flat_map(|managed| {
            let stages = managed.config.transforms.iter().zip(&managed.kept.states).enumerate();
            stages.map(move |(stage, (transform, state))| (managed, stage, transform, state))
        });
        let would_run = stages.filter(|(_, _, transform, _)| transform.plugin.expose() == plugin);
        let idle = would_run.map(|(managed, stage, transform, state)| IdleStage {
            pipeline: managed.config.clone(),
            stage,
            setup: instances::setup(&managed.config, transform, state.clone(), &self.metrics),
        });
        idle.collect()
    }

    /// The endpoints of pipelines that have not failed and ask a plugin before they dial.
    pub(in crate::app) fn connectors(&self, plugin: &str) -> Vec<ConnectorUse> {
        let mut uses = Vec::new();
        for managed in self.all.iter().filter(|managed| managed.revival == Revival::None) {
            let connectors = managed.connectors.iter().flat_map(|connectors| connectors.iter());
            uses.extend(connectors.filter(|each| each.plugin().expose() == plugin).map(|connector| {
                ConnectorUse { pipeline: managed.config.clone(), connector: connector.clone() }
            }));
        }
        uses
    }

    /// The stages that run another version of a plugin than the given one, and have not refused that.
    pub(in crate::app) fn behind(&self, plugin: &str, version: &Arc<str>) -> Vec<StageUse> {
        self.stages_with(plugin, |stage| stage.version != *version && stage.refused.as_ref() != Some(version))
    }

    /// The stages that run this version of a plugin without optimised code, and have not refused to change it.
    pub(in crate::app) fn unoptimised(&self, plugin: &str, version: &Arc<str>) -> Vec<StageUse> {
        self.stages_with(plugin, |stage| {
            !stage.is_optimised && stage.version == *version && stage.refused.as_ref() != Some(version)
        })
    }

    /// Adds the stages that run this version of a plugin already, and are not among these uses: nothing became of it
    /// there.
    pub(in crate::app) fn add_running(
        &self,
        plugin: &str,
        version: &Arc<str>,
        verdicts: &mut Vec<UseVerdict>,
    ) {
        for each in self.stages_with(plugin, |stage| stage.version == *version) {
            let place = UsePlace::Transform(each.setup.transform.to_string());
            let is_this = |told: &UseVerdict| told.pipeline == each.pipeline.name && told.place == place;
            if !verdicts.iter().any(is_this) {
                let running = UseVerdict::rejected(&each.pipeline.name, place, None);
                verdicts.push(UseVerdict { outcome: SwapOutcome::Swapped, ..running });
            }
        }
    }

    fn stages_with(&self, plugin: &str, is_meant: impl Fn(&RunningStage) -> bool) -> Vec<StageUse> {
        let mut uses = Vec::new();
        for managed in &self.all {
            let PipelinePhase::Up { control, stages } = &managed.phase else { continue };
            for (stage, running) in stages.iter().enumerate() {
                if running.plugin == plugin && is_meant(running) {
                    uses.push(StageUse {
                        pipeline: managed.config.clone(),
                        stage,
                        setup: running.setup.clone(),
                        version: running.version.clone(),
                        control: control.clone(),
                    });
                }
            }
        }
        uses
    }

    /// Notes what a stage made of a version that it was offered, if it still runs.
    pub(in crate::app) fn note_offer(&mut self, each: &StageUse, plugin: &Plugin, is_taken: bool) {
        for index in 0..self.all.len() {
            if let PipelinePhase::Up { control, stages } = &mut self.all[index].phase
                && control.same_channel(&each.control)
                && let Some(running) =
                    stages.iter_mut().find(|running| running.setup.transform == each.setup.transform)
            {
                running.refused = (!is_taken).then(|| plugin.version().clone());
                if is_taken {
                    running.setup.config = each.setup.config.clone();
                    running.version = plugin.version().clone();
                    running.is_optimised = plugin.is_optimised();
                    self.show_versions(index);
                }
            }
        }
    }

    /// Shows which versions the stages of a pipeline run.
    pub(super) fn show_versions(&self, index: usize) {
        let managed = &self.all[index];
        if let PipelinePhase::Up { stages, .. } = &managed.phase {
            let versions = stages.iter().map(|stage| stage.version.clone()).collect();
            self.status.runs(&managed.config.name, versions);
        }
    }

    /// Lets stages that have refused a plugin's version be offered it again.
    pub(in crate::app) fn forgive(&mut self, plugin: &str) {
        for managed in &mut self.all {
            let PipelinePhase::Up { stages, .. } = &mut managed.phase else { continue };
            stages.iter_mut().filter(|stage| stage.plugin == plugin).for_each(|stage| stage.refused = None);
        }
    }
}
