//! How a version of a plugin takes over: from what the folder brings to the stages that run it.
//!
//! The newest content wins at once. A version that is compiled is offered to all stages of its plugin; what they
//! made of it is noted, and a pipeline that had failed with another version gets another chance.

use super::swap::{FinishedSwap, SwapDecision};
use super::task::Task;
use crate::plugin::Plugin;
use crate::plugin_folder::{Candidate, Change};
use crate::telemetry::SwapOutcome;

impl Task {
    /// A file of the plugin folder has changed.
    pub(super) fn changed(&mut self, change: Change) {
        match change {
            Change::Found(candidate) => {
                self.plugins.intake.bar_built_in(&candidate.name);
                self.found(candidate);
            }
            Change::Refused { name, error, .. } => {
                self.plugins.intake.bar_built_in(&name);
                self.plugins.intake.forget(&name);
                self.rejected(&name, None, &error);
                self.pipelines.start_waiting(&mut self.plugins, &name);
            }
            Change::Gone { name } => {
                self.plugins.intake.gone(&name);
                match (self.plugins.intake.built_in(&name), self.plugins.registry.get(&name)) {
                    (Some(built_in), _) if self.pipelines.need(&name) => {
                        tracing::warn!(plugin = %name, "plugin file is gone; the built-in version takes over");
                        self.found(built_in);
                    }
                    (_, Some(_)) => {
                        tracing::warn!(plugin = %name, "plugin file is gone; the version that runs goes on");
                    }
                    _ => tracing::warn!(plugin = %name, "plugin file is gone"),
                }
                self.pipelines.start_waiting(&mut self.plugins, &name);
            }
        }
    }

    /// There is content of a plugin.
    fn found(&mut self, candidate: Candidate) {
        let name = candidate.name.clone();
        let running = self.plugins.registry.get(&name).map(|plugin| plugin.version().clone());
        if !self.plugins.intake.found(candidate, running.as_deref()) {
            // What runs already was written again: whoever did not take it may look again.
            self.pipelines.forgive(&name);
            self.catch_up(&name);
            self.pipelines.revive(&mut self.plugins, &name);
        }
    }

    /// A plugin was compiled, or was found to be none.
    pub(super) fn compiled(&mut self, name: &str, version: &str, result: Result<Plugin, String>) {
        if !self.plugins.intake.compiled(name, version) {
            tracing::info!(plugin = name, version, "plugin skipped: newer content came first");
            return;
        }
        match result {
            Err(error) => {
                self.plugins.intake.bar_built_in(name);
                self.rejected(name, Some(version), &error);
                self.pipelines.start_waiting(&mut self.plugins, name);
            }
            Ok(plugin) => self.offer(plugin),
        }
    }

    /// Has a compiled plugin take over, once the swap before is decided.
    fn offer(&mut self, plugin: Plugin) {
        let Some(plugin) = self.plugins.intake.hold(plugin) else { return };
        let name = plugin.name().clone();
        let Some(previous) = self.plugins.registry.get(&name) else {
            tracing::info!(
                plugin = %name, version = %plugin.version(), cached = plugin.is_from_cache(),
                compile_ms = plugin.load_time().as_millis() as u64, optimised = plugin.is_optimised(),
                "plugin loaded"
            );
            self.plugins.put(plugin);
            return self.pipelines.start_waiting(&mut self.plugins, &name);
        };
        if previous.version() != plugin.version() {
            let uses = self.pipelines.uses(&name);
            let idle = self.pipelines.idle(&name);
            let connectors = self.pipelines.connectors(&name);
            self.plugins.swap(plugin, previous, uses, idle, connectors);
        }
    }

    /// There is optimised code for a plugin that runs without, or there will be none.
    pub(super) fn optimised(&mut self, name: &str, result: Result<Plugin, String>) {
        match result {
            Ok(plugin) => {
                let is_current = |known: Plugin| known.version() == plugin.version();
                if self.plugins.registry.get(name).is_some_and(is_current) {
                    let compile_ms = plugin.load_time().as_millis() as u64;
                    tracing::info!(plugin = name, version = %plugin.version(), compile_ms, "plugin optimised");
                    self.plugins.put(plugin);
                    self.catch_up(name);
                }
            }
            Err(error) => tracing::warn!(plugin = name, error, "plugin runs on without optimised code"),
        }
    }

    /// Offers the current version to the stages that run an older one, since their pipelines were starting while it
    /// took over; then its optimised code to those that run it without.
    pub(super) fn catch_up(&mut self, name: &str) {
        if self.plugins.intake.is_swapping(name) {
            return;
        }
        let Some(plugin) = self.plugins.registry.get(name) else { return };
        let behind = self.pipelines.behind(name, plugin.version());
        if !behind.is_empty() {
            return self.plugins.catch_up(plugin, behind);
        }
        let unoptimised = self.pipelines.unoptimised(name, plugin.version());
        if plugin.is_optimised() && !unoptimised.is_empty() {
            self.plugins.exchange_code(plugin, unoptimised);
        }
    }

    /// It is decided who runs a version.
    pub(super) fn swapped(&mut self, finished: FinishedSwap) {
        let FinishedSwap { plugin, is_same_version, report, taken, kept } = finished;
        let name = plugin.name().clone();
        let next = self.plugins.intake.end_swap(&name);
        let version = plugin.version().clone();
        let is_shelved = self.plugins.registry.get(&name).is_some_and(|known| *known.version() == version);
        match report.outcome {
            // One version is one swap, whatever code it runs.
            SwapDecision::Swapped | SwapDecision::Rejected if is_same_version => {
                for each in &report.uses {
                    tracing::info!(
                        plugin = %name, %version, pipeline = each.pipeline, transform = each.transform,
                        state = each.state, swap_us = each.swap_us, error = each.error, "code exchanged"
                    );
                }
                if let Some(error) = &report.error {
                    tracing::warn!(plugin = %name, error, "plugin runs on without optimised code");
                }
            }
            SwapDecision::Superseded => {
                tracing::info!(plugin = %name, %version, "plugin skipped: newer content came first");
            }
            SwapDecision::Rejected => {
                self.rejected(&name, Some(&version), report.error.as_deref().unwrap_or_default());
            }
            SwapDecision::Swapped => {
                if self.pipelines.need(&name) {
                    self.metrics.swapped(&name, SwapOutcome::Swapped);
                }
                for each in &report.uses {
                    if each.outcome == SwapDecision::Swapped {
                        tracing::info!(
                            plugin = %name, %version, pipeline = each.pipeline, transform = each.transform,
                            state = each.state, swap_us = each.swap_us, "plugin swapped"
                        );
                    } else {
                        tracing::error!(
                            plugin = %name, %version, pipeline = each.pipeline, transform = each.transform,
                            error = each.error, "plugin not swapped here: the version before runs on"
                        );
                    }
                }
                for (pipeline, endpoint) in &report.connectors {
                    tracing::info!(
                        plugin = %name, %version, pipeline, endpoint, "plugin swapped: it is asked from the next dial on"
                    );
                }
                self.plugins.put(plugin.clone());
            }
        }
        if report.outcome == SwapDecision::Swapped || is_shelved {
            taken.iter().for_each(|each| self.pipelines.note_offer(each, &plugin, true));
            kept.iter().for_each(|each| self.pipelines.note_offer(each, &plugin, false));
        }
        match next {
            Some(next) => self.offer(next),
            None if report.outcome == SwapDecision::Swapped && !is_same_version => {
                self.catch_up(&name);
                self.pipelines.revive(&mut self.plugins, &name);
            }
            None => {}
        }
    }

    /// A version does not run, or a file is not even one. What no pipeline uses is no swap that was rejected.
    fn rejected(&mut self, name: &str, version: Option<&str>, error: &str) {
        if self.pipelines.need(name) {
            self.metrics.swapped(name, SwapOutcome::Rejected);
        }
        let running = self.plugins.registry.get(name).map(|plugin| plugin.version().to_string());
        tracing::error!(plugin = name, version, error, running, "plugin rejected");
        self.plugins.intake.refused(name, error);
    }
}
