//! How a version of a plugin takes over: from what the folder brings to the stages that run it.
//!
//! The newest content wins at once. A version that is compiled is offered to all stages of its plugin; what they
//! made of it is noted, and a pipeline that had failed with another version gets another chance. What became of an
//! attempt is told in `decision.rs`.

use super::attempt::SwapAttempt;
use super::decision::Decision;
use super::intake::{Arrival, EndedSwap, Wanted};
use super::swap::{FinishedSwap, SwapTargets};
use super::task::Task;
use super::trial::RolledBackSwap;
use crate::plugin::Plugin;
use crate::plugin_folder::{Candidate, Change};
use crate::verdict::{AskedBy, CarriedState, SwapOptions, SwapOutcome, UsePlace, UseVerdict, VerdictId};

impl Task {
    /// A file of the plugin folder has changed, or was found by the start of the host.
    pub(super) fn changed(&mut self, change: Change, asked_by: AskedBy) {
        match change {
            Change::Found(candidate) => {
                self.plugins.intake.bar_built_in(&candidate.name);
                self.found(candidate, SwapAttempt::new(asked_by));
            }
            Change::Refused { name, error, .. } => {
                self.plugins.intake.bar_built_in(&name);
                if let Some(skipped) = self.plugins.intake.forget(&name) {
                    self.superseded(&name, skipped, "newer content came first");
                }
                self.refused(&name, None, &SwapAttempt::new(asked_by), error);
                self.pipelines.start_waiting(&mut self.plugins, &name);
            }
            Change::Gone { name } => {
                if let Some(skipped) = self.plugins.intake.gone(&name) {
                    self.superseded(&name, skipped, "its file was removed before it ran");
                }
                match (self.plugins.intake.built_in(&name), self.plugins.registry.get(&name)) {
                    (Some(built_in), _) if self.pipelines.need(&name) => {
                        tracing::warn!(plugin = %name, "plugin file is gone; the built-in version takes over");
                        self.found(built_in, SwapAttempt::new(asked_by));
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

    /// There is content of a plugin that is to run.
    fn found(&mut self, candidate: Candidate, attempt: SwapAttempt) {
        let name = candidate.name.clone();
        let running = self.plugins.registry.get(&name).map(|plugin| plugin.version().clone());
        let (version, asked_by) = (candidate.version.clone(), attempt.asked_by.as_str());
        let Arrival { needless, skipped } = self.plugins.intake.found(candidate, attempt, running.as_deref());
        if let Some(skipped) = skipped {
            self.superseded(&name, skipped, "newer content came first");
        }
        if needless.is_none() && running.is_some() {
            tracing::info!(plugin = %name, version, asked_by, "plugin version found");
        }
        if let Some(attempt) = needless {
            // What runs already was written again: whoever did not take it may look again.
            self.pipelines.forgive(&name);
            self.catch_up(&name, attempt);
            self.pipelines.revive(&mut self.plugins, &name);
        }
    }

    /// A plugin was compiled, or was found to be none. One that nobody wants any more was skipped before.
    pub(super) fn compiled(&mut self, name: &str, version: &str, result: Result<Plugin, String>) {
        let Some(mut attempt) = self.plugins.intake.compiled(name, version) else { return };
        match result {
            Err(error) => {
                self.plugins.intake.bar_built_in(name);
                self.refused(name, Some(version), &attempt, error);
                self.pipelines.start_waiting(&mut self.plugins, name);
            }
            Ok(plugin) => {
                attempt.compile_ms = u64::try_from(plugin.load_time().as_millis()).ok();
                self.offer(plugin, attempt);
            }
        }
    }

    /// Has a compiled plugin take over, once the swap before is decided.
    fn offer(&mut self, plugin: Plugin, attempt: SwapAttempt) {
        let Some((plugin, attempt)) = self.plugins.intake.hold(plugin, attempt) else { return };
        let name = plugin.name().clone();
        let Some(previous) = self.plugins.registry.get(&name) else {
            // The first version of a plugin takes nobody's place: that is no swap.
            tracing::info!(
                plugin = %name, version = %plugin.version(), cached = plugin.is_from_cache(),
                compile_ms = attempt.compile_ms, optimised = plugin.is_optimised(),
                asked_by = attempt.asked_by.as_str(), "plugin loaded"
            );
            self.plugins.put(plugin);
            return self.pipelines.start_waiting(&mut self.plugins, &name);
        };
        if previous.version() != plugin.version() {
            let targets = SwapTargets {
                uses: self.pipelines.uses(&name),
                idle: self.pipelines.idle(&name),
                connectors: self.pipelines.connectors(&name),
            };
            self.plugins.swap(plugin, attempt, previous, targets);
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
                    self.catch_up(name, SwapAttempt::new(AskedBy::Start));
                }
            }
            Err(error) => tracing::warn!(plugin = name, error, "plugin runs on without optimised code"),
        }
    }

    /// Offers the current version to the stages that run an older one, since their pipelines were starting while it
    /// took over; then its optimised code to those that run it without.
    pub(super) fn catch_up(&mut self, name: &str, attempt: SwapAttempt) {
        if self.plugins.intake.is_swapping(name) {
            return;
        }
        let Some(plugin) = self.plugins.registry.get(name) else { return };
        let behind = self.pipelines.behind(name, plugin.version());
        if !behind.is_empty() {
            return self.plugins.catch_up(plugin, attempt, behind);
        }
        let unoptimised = self.pipelines.unoptimised(name, plugin.version());
        if plugin.is_optimised() && !unoptimised.is_empty() {
            self.plugins.exchange_code(plugin, unoptimised);
        }
    }

    /// It is decided who runs a version.
    pub(super) fn swapped(&mut self, finished: FinishedSwap) {
        let FinishedSwap { plugin, outcome, error, uses, taken, kept, probation } = finished;
        let name = plugin.name().clone();
        let EndedSwap { attempt, next } = self.plugins.intake.end_swap(&name);
        let version = plugin.version().clone();
        let current = self.plugins.registry.get(&name).map(|known| known.version().clone());
        let is_current = current.as_ref() == Some(&version);
        let is_swapped = outcome == SwapOutcome::Swapped;
        if is_swapped && attempt.is_some() {
            self.plugins.put(plugin.clone());
        }
        if is_swapped || is_current {
            taken.iter().for_each(|each| self.pipelines.note_offer(each, &plugin, true));
            kept.iter().for_each(|each| self.pipelines.note_offer(each, &plugin, false));
        }
        let asked_by = attempt.as_ref().map(|attempt| attempt.asked_by);
        match attempt {
            // One version is one swap, whatever code it runs.
            None => code_exchanged(&plugin, &uses, error.as_deref()),
            Some(attempt) => {
                // A version that catches up takes the place of what those stages ran.
                let ran = taken.iter().chain(&kept).map(|each| &each.version).find(|ran| **ran != version);
                let previous = if is_current { ran } else { current.as_ref() };
                let previous = previous.map(|previous| previous.to_string());
                if outcome == SwapOutcome::Rejected {
                    self.plugins.intake.refused(&name, error.as_deref().unwrap_or_default());
                }
                let decision = Decision { outcome, previous, error, uses };
                let verdict = self.decided(&name, Some(&version), &attempt, decision);
                if let Some(probation) = probation {
                    self.plugins.put_on_probation(plugin, verdict, probation);
                }
            }
        }
        match (next, asked_by) {
            (Some((next, attempt)), _) => self.offer(next, attempt),
            (None, Some(asked_by)) if is_swapped => {
                self.catch_up(&name, SwapAttempt::new(asked_by));
                self.pipelines.revive(&mut self.plugins, &name);
            }
            (None, _) => {}
        }
    }

    /// A version has faulted too often in its probation, and the one before runs again.
    pub(super) fn rolled_back(&mut self, plugin: &Plugin, verdict: VerdictId, rolled_back: RolledBackSwap) {
        let name = plugin.name().clone();
        let RolledBackSwap { previous, reason, uses } = rolled_back;
        for (each, _) in &uses {
            self.pipelines.note_offer(each, &previous, true);
        }
        let is_current = |known: Plugin| known.version() == plugin.version();
        if self.plugins.registry.get(&name).is_some_and(is_current) {
            self.plugins.put(previous);
            // Its file is not looked at again until it changes.
            self.plugins.intake.refused(&name, &reason);
        }
        let uses = uses.into_iter().map(|(each, why)| {
            let place = UsePlace::Transform(each.setup.transform.to_string());
            ((each.pipeline.name.clone(), place), why)
        });
        self.went_back(&name, verdict, &reason, &uses.collect());
        let attempt = SwapAttempt { options: SwapOptions::at_once(), ..SwapAttempt::new(AskedBy::Rollback) };
        self.catch_up(&name, attempt);
        self.pipelines.revive(&mut self.plugins, &name);
    }

    /// Other versions of a plugin may be swapped in again: one that has come meanwhile is.
    pub(super) fn end_hold(&mut self, name: &str) {
        match self.plugins.intake.end_swap(name).next {
            Some((next, attempt)) => self.offer(next, attempt),
            None => self.catch_up(name, SwapAttempt::new(AskedBy::Reload)),
        }
    }

    /// Content that was on its way does not run, since something else came.
    fn superseded(&mut self, name: &str, Wanted { version, attempt }: Wanted, why: &str) {
        let previous = self.plugins.registry.get(name).map(|plugin| plugin.version().to_string());
        let outcome = SwapOutcome::Superseded;
        let decision = Decision { outcome, previous, error: Some(why.to_owned()), uses: Vec::new() };
        self.decided(name, Some(&version), &attempt, decision);
    }

    /// Content does not run, or a file is not even one.
    fn refused(&mut self, name: &str, version: Option<&str>, attempt: &SwapAttempt, error: String) {
        self.plugins.intake.refused(name, &error);
        let previous = self.plugins.registry.get(name).map(|plugin| plugin.version().to_string());
        let outcome = SwapOutcome::Rejected;
        let decision = Decision { outcome, previous, error: Some(error), uses: Vec::new() };
        self.decided(name, version, attempt, decision);
    }
}

/// Tells the log which stages run other code of the version that they ran before.
fn code_exchanged(plugin: &Plugin, uses: &[UseVerdict], error: Option<&str>) {
    let (name, version) = (plugin.name(), plugin.version());
    for each in uses {
        tracing::info!(
            plugin = %name, %version, pipeline = each.pipeline, place = %each.place,
            state = each.state.map(CarriedState::as_str), swap_us = each.swap_us, error = each.error,
            "code exchanged"
        );
    }
    if let Some(error) = error {
        tracing::warn!(plugin = %name, error, "plugin runs on without optimised code");
    }
}
