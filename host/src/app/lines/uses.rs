//! The stages that use a plugin: those that run a version of it, and those that would run one.

use super::{Phase, Running};
use crate::app::shelf;
use crate::app::swap::{Idle, Use};
use crate::app::task::Task;
use std::sync::Arc;

impl Task {
    /// The stages that run a plugin now.
    pub(in crate::app) fn uses(&self, plugin: &str) -> Vec<Use> {
        self.stages_with(plugin, |_| true)
    }

    /// The stages of pipelines that do not run, and would run a plugin.
    pub(in crate::app) fn idle(&self, plugin: &str) -> Vec<Idle> {
        let down = self.lines.iter().filter(|line| !matches!(line.phase, Phase::Up { .. }));
        let stages =
            down.flat_map(|line| line.config.transforms.iter().enumerate().map(move |each| (line, each)));
        let would_run = stages.filter(|(_, (_, transform))| transform.plugin.expose() == plugin);
        let idle = would_run.map(|(line, (stage, transform))| Idle {
            pipeline: line.config.clone(),
            stage,
            setup: shelf::setup(&line.config, transform, &self.metrics),
        });
        idle.collect()
    }

    /// The stages that run another version of a plugin than the given one, and have not refused that.
    pub(in crate::app) fn behind(&self, plugin: &str, version: &Arc<str>) -> Vec<Use> {
        self.stages_with(plugin, |stage| stage.version != *version && stage.refused.as_ref() != Some(version))
    }

    fn stages_with(&self, plugin: &str, is_meant: impl Fn(&Running) -> bool) -> Vec<Use> {
        let mut uses = Vec::new();
        for line in &self.lines {
            let Phase::Up { control, stages } = &line.phase else { continue };
            for (stage, running) in stages.iter().enumerate() {
                if line.config.transforms[stage].plugin.expose() == plugin && is_meant(running) {
                    uses.push(Use {
                        pipeline: line.config.clone(),
                        stage,
                        setup: running.setup.clone(),
                        control: control.clone(),
                    });
                }
            }
        }
        uses
    }

    /// Notes what a stage made of a version that it was offered, if it still runs.
    pub(in crate::app) fn note_offer(&mut self, each: &Use, version: &Arc<str>, is_taken: bool) {
        for line in &mut self.lines {
            if let Phase::Up { control, stages } = &mut line.phase
                && control.same_channel(&each.control)
                && let Some(running) = stages.get_mut(each.stage)
            {
                running.refused = (!is_taken).then(|| version.clone());
                if is_taken {
                    running.version = version.clone();
                }
            }
        }
    }

    /// Lets stages that have refused a plugin's version be offered it again.
    pub(in crate::app) fn forgive(&mut self, plugin: &str) {
        for line in &mut self.lines {
            let Phase::Up { stages, .. } = &mut line.phase else { continue };
            for (running, transform) in stages.iter_mut().zip(&line.config.transforms) {
                if transform.plugin.expose() == plugin {
                    running.refused = None;
                }
            }
        }
    }
}
