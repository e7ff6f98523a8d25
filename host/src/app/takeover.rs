//! How a version of a plugin takes over: from what the folder brings to the stages that run it.
//!
//! The newest content wins at once. A version that is compiled is offered to all stages of its plugin; what they
//! made of it is noted, and a pipeline that had failed with another version gets another chance. What became of an
//! attempt is told in `decision.rs`.

use super::attempt::SwapAttempt;
use super::decision::Decision;
use super::intake::{Arrival, EndedSwap, SupersededBy, Wanted};
use super::keeping::FolderWritten;
use super::swap::{FinishedSwap, SwapTargets};
use super::task::Task;
use super::trial::RolledBackSwap;
use crate::control::{Answer, ControlError};
use crate::plugin::Plugin;
use crate::plugin_folder::{Candidate, Change};
use crate::plugin_history::HistoryError;
use crate::verdict::{
    AskedBy, CarriedState, SwapOptions, SwapOutcome, UsePlace, UseVerdict, Verdict, VerdictId,
};

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
                self.refused(&name, None, SwapAttempt::new(asked_by), error);
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

    /// Somebody has sent a component that is to run.
    pub(super) fn sent(&mut self, component: Candidate, options: SwapOptions, answer: Answer<Verdict>) {
        self.found(component, SwapAttempt::asked(AskedBy::Api, options, answer));
    }

    /// Somebody wants a version back that ran before.
    pub(super) fn roll_back(&mut self, name: String, to: Option<&str>, answer: Answer<Verdict>) {
        let current = self.plugins.registry.get(&name).map(|plugin| plugin.version().clone());
        if current.is_none() && self.plugins.history.versions(&name).is_empty() {
            return refuse(answer, ControlError::NoPlugin(name));
        }
        match self.plugins.history.earlier(&name, current.as_deref(), to) {
            Ok(kept) => self.plugins.recall(name, kept, answer),
            Err(error) => refuse(answer, error.into()),
        }
    }

    /// A version that somebody wants back was read.
    pub(super) fn recalled(&mut self, content: Result<Candidate, HistoryError>, answer: Answer<Verdict>) {
        match content {
            Ok(content) => {
                self.found(content, SwapAttempt::asked(AskedBy::Rollback, SwapOptions::back(), answer));
            }
            Err(error) => refuse(answer, error.into()),
        }
    }

    /// There is content of a plugin that is to run.
    fn found(&mut self, candidate: Candidate, mut attempt: SwapAttempt) {
        let name = candidate.name.clone();
        attempt.content = Some(candidate.clone());
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
                self.refused(name, Some(version), attempt, error);
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
            if attempt.is_asked() {
                return self.plugins.swap(plugin, attempt, None, SwapTargets::default());
            }
            // The first version of a plugin takes nobody's place: that is no swap.
            tracing::info!(
                plugin = %name, version = %plugin.version(), cached = plugin.is_from_cache(),
                compile_ms = attempt.compile_ms, optimised = plugin.is_optimised(),
                asked_by = attempt.asked_by.as_str(), "plugin loaded"
            );
            return self.loaded(plugin, attempt.content);
        };
        if previous.version() == plugin.version() {
            // It runs, and somebody asked for it all the same: whoever did not take it may look again.
            self.pipelines.forgive(&name);
            let is_fresh = attempt.options.state_fresh;
            let uses = if is_fresh {
                self.pipelines.uses(&name)
            } else {
                self.pipelines.behind(&name, plugin.version())
            };
            let targets = SwapTargets { uses, ..SwapTargets::default() };
            return self.plugins.swap(previous.clone(), attempt, Some(previous), targets);
        }
        let targets = SwapTargets {
            uses: self.pipelines.uses(&name),
            idle: self.pipelines.idle(&name),
            connectors: self.pipelines.connectors(&name),
        };
        self.plugins.swap(plugin, attempt, Some(previous), targets);
    }

    /// A version is current that no pipeline runs yet.
    fn loaded(&mut self, plugin: Plugin, content: Option<Candidate>) {
        let name = plugin.name().clone();
        if let Some(content) = content
            && self.pipelines.need(&name)
        {
            self.plugins.hold_content(content);
        }
        self.plugins.put(plugin);
        self.pipelines.start_waiting(&mut self.plugins, &name);
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
            let targets = SwapTargets { uses: behind, ..SwapTargets::default() };
            return self.plugins.swap(plugin, attempt, None, targets);
        }
        let unoptimised = self.pipelines.unoptimised(name, plugin.version());
        if plugin.is_optimised() && !unoptimised.is_empty() {
            self.plugins.exchange_code(plugin, unoptimised);
        }
    }

    /// It is decided who runs a version.
    pub(super) fn swapped(&mut self, finished: FinishedSwap, written: FolderWritten) {
        let FinishedSwap { plugin, outcome, error, uses, taken, kept, probation } = finished;
        let name = plugin.name().clone();
        let EndedSwap { attempt, superseded_by, next } = self.plugins.intake.end_swap(&name);
        let superseded_by = superseded_by.filter(|_| outcome == SwapOutcome::Superseded);
        let error = superseded_by.map(|by| by.as_str().to_owned()).or(error);
        let version = plugin.version().clone();
        let current = self.plugins.registry.get(&name).map(|known| known.version().clone());
        let is_current = current.as_ref() == Some(&version);
        let is_swapped = outcome == SwapOutcome::Swapped;
        let folder_error = self.noted(&name, &version, written);
        if is_swapped && attempt.is_some() && !is_current {
            if current.is_none() || uses.is_empty() {
                let content = attempt.as_ref().and_then(|attempt| attempt.content.clone());
                self.loaded(plugin.clone(), content);
            } else {
                self.plugins.put(plugin.clone());
            }
        }
        if is_swapped || is_current {
            taken.iter().for_each(|each| self.pipelines.note_offer(each, &plugin, true));
            kept.iter().for_each(|each| self.pipelines.note_offer(each, &plugin, false));
        }
        let is_new = is_swapped && attempt.is_some();
        // What the folder has is tried again once the configuration has changed.
        let again = attempt.as_ref().filter(|attempt| {
            superseded_by == Some(SupersededBy::Reload) && !attempt.is_asked() && next.is_none()
        });
        let again = again.and_then(|attempt| Some((attempt.content.clone()?, attempt.asked_by)));
        match attempt {
            // One version is one swap, whatever code it runs.
            None => code_exchanged(&plugin, &uses, error.as_deref()),
            Some(attempt) => {
                // A version that catches up takes the place of what those stages ran.
                let ran = taken.iter().chain(&kept).map(|each| &each.version).find(|ran| **ran != version);
                let previous = if is_current { ran.or(current.as_ref()) } else { current.as_ref() };
                let previous = previous.map(|previous| previous.to_string());
                if outcome == SwapOutcome::Rejected {
                    self.plugins.intake.refused(&name, error.as_deref().unwrap_or_default());
                }
                let mut uses = uses;
                if is_current && is_swapped {
                    self.pipelines.add_running(&name, &version, &mut uses);
                }
                let decision = Decision { outcome, previous, error, folder_error, uses };
                let verdict = self.decided(&name, Some(&version), attempt, decision);
                if let Some(probation) = probation {
                    self.plugins.put_on_probation(plugin, verdict, probation);
                }
            }
        }
        match next {
            Some((next, attempt)) => self.offer(next, attempt),
            None if is_new => {
                self.catch_up(&name, SwapAttempt::new(AskedBy::Start));
                self.pipelines.revive(&mut self.plugins, &name);
            }
            None => {}
        }
        if let Some((content, asked_by)) = again
            && !self.plugins.intake.is_coming(&name)
        {
            self.found(content, SwapAttempt::new(asked_by));
        }
    }

    /// Takes note of what became of the plugin folder's file. Gives why it was not written, if so.
    fn noted(&mut self, name: &str, version: &str, written: FolderWritten) -> Option<String> {
        match written? {
            Ok(()) => {
                self.plugins.intake.bar_built_in(name);
                self.plugins.folder.wrote(name, version);
                None
            }
            Err(error) => Some(error),
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
            self.plugins.put_away(plugin, &previous);
            self.plugins.put(previous);
            // Its file is not looked at again until it changes.
            self.plugins.intake.refused(&name, &reason);
        }
        let uses = uses.into_iter().map(|(each, why)| {
            let place = UsePlace::Transform(each.setup.transform.to_string());
            ((each.pipeline.name.clone(), place), why)
        });
        self.went_back(&name, verdict, &reason, &uses.collect());
        let attempt = SwapAttempt { options: SwapOptions::at_once(), ..SwapAttempt::new(AskedBy::Probation) };
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
        let error = Some(why.to_owned());
        let decision = Decision { outcome, previous, error, folder_error: None, uses: Vec::new() };
        self.decided(name, Some(&version), attempt, decision);
    }

    /// Content does not run, or a file is not even one. Whoever sent it is told so, and no verdict.
    fn refused(&mut self, name: &str, version: Option<&str>, mut attempt: SwapAttempt, error: String) {
        self.plugins.intake.refused(name, &error);
        for answer in std::mem::take(&mut attempt.answers) {
            refuse(answer, ControlError::Unfit(error.clone()));
        }
        let previous = self.plugins.registry.get(name).map(|plugin| plugin.version().to_string());
        let outcome = SwapOutcome::Rejected;
        let error = Some(error);
        let decision = Decision { outcome, previous, error, folder_error: None, uses: Vec::new() };
        self.decided(name, version, attempt, decision);
    }
}

/// Tells somebody that nothing is tried.
fn refuse(answer: Answer<Verdict>, error: ControlError) {
    if answer.send(Err(error)).is_err() {
        tracing::debug!("who asked for a version did not wait for the answer");
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
