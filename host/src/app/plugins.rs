//! The plugins of a host: the version that is current of each, and what is on its way to be that.
//!
//! What takes time, compiling and swapping, is a job; what it came to is told by `next`. What a version means
//! for the pipelines is decided in `takeover.rs`.

use super::attempt::SwapAttempt;
use super::compile::{self, Compiler, Compiling};
use super::intake::Intake;
use super::job::PluginJob;
use super::keeping::{self, Keeping};
use super::plugin_registry::PluginRegistry;
use super::swap::{self, Offer, SwapTargets};
use super::trial::{self, SwapProbation};
use super::uses::StageUse;
use crate::control::Answer;
use crate::plugin::{Engine, Plugin};
use crate::plugin_folder::{Candidate, Change, Folder};
use crate::plugin_history::{KeptVersion, PluginHistory};
use crate::telemetry::Metrics;
use crate::verdict::{AskedBy, SwapOptions, SwapOutcome, Verdict, VerdictId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::JoinSet;

/// The plugins of a host.
pub(super) struct ManagedPlugins {
    pub(super) registry: PluginRegistry,
    /// What the folder has brought and does not run yet.
    pub(super) intake: Intake,
    pub(super) folder: Folder,
    metrics: Arc<Metrics>,
    pub(super) history: PluginHistory,
    /// Contents that are current, and that a pipeline needs and does not run yet.
    unkept: BTreeMap<String, Candidate>,
    compiler: Compiler,
    /// Whether optimised code is made for plugins that begin without.
    is_optimising: bool,
    /// Plugins that run and whose code is not optimised yet.
    unoptimised: Vec<Plugin>,
    jobs: JoinSet<PluginJob>,
    /// The cache of compiled code knows that all that is wanted for now has been loaded.
    is_cache_tidy: bool,
    /// What is kept of earlier versions was looked at.
    is_history_verified: bool,
}

/// Something that happened to a plugin beside the task that decides.
pub(super) enum PluginEvent {
    /// Its file has changed.
    Changed(Change),
    /// A job is done.
    Done(PluginJob),
}

impl ManagedPlugins {
    pub(super) fn new(
        engine: Engine,
        folder: Folder,
        history: PluginHistory,
        registry: PluginRegistry,
        metrics: Arc<Metrics>,
        is_optimising: bool,
    ) -> Self {
        Self {
            registry,
            intake: Intake::default(),
            folder,
            metrics,
            history,
            unkept: BTreeMap::new(),
            compiler: Compiler::new(engine),
            is_optimising,
            unoptimised: Vec::new(),
            jobs: JoinSet::new(),
            is_cache_tidy: false,
            is_history_verified: false,
        }
    }

    /// The next thing that happens.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> PluginEvent {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => return PluginEvent::Done(done),
                    // Jobs catch what can panic in them.
                    Err(error) => tracing::error!(%error, "a job of the host is lost"),
                },
                change = self.folder.next() => return PluginEvent::Changed(change),
            }
        }
    }

    /// Compiles what is next, while there is room: what no pipeline needs if `takes_rest`.
    pub(super) fn compile_next(&mut self, needed: impl Fn() -> BTreeSet<String>, takes_rest: bool) {
        let mut names = None;
        while self.intake.has_queue()
            && let Some(slot) = self.compiler.slot()
        {
            let names = names.get_or_insert_with(&needed);
            let next = self.intake.next(|name| names.contains(name), takes_rest);
            let Some(Candidate { name, wasm, version, .. }) = next else { break };
            self.is_cache_tidy = false;
            let compiling = slot.compile(name.clone(), wasm);
            self.follow(compiling, |result| PluginJob::Compiled { name, version, result });
        }
        while !self.unoptimised.is_empty()
            && let Some(slot) = self.compiler.optimising_slot()
        {
            let plugin = self.unoptimised.remove(0);
            let is_current = |known: Plugin| known.version() == plugin.version();
            if !self.registry.get(plugin.name()).is_some_and(is_current) {
                continue;
            }
            let name = plugin.name().clone();
            let compiling = slot.optimise(plugin);
            self.follow(compiling, |result| PluginJob::Optimised { name, result });
        }
        if takes_rest && !self.is_cache_tidy && self.intake.is_idle() {
            self.is_cache_tidy = true;
            let engine = self.compiler.engine().clone();
            let history =
                (!std::mem::replace(&mut self.is_history_verified, true)).then(|| self.history.clone());
            self.jobs.spawn_blocking(move || {
                engine.loaded_all();
                if let Some(history) = history {
                    history.verify();
                }
                PluginJob::Other
            });
        }
    }

    /// Tells what a compilation comes to, and that the compiler is free again: then there is another look at what
    /// is next.
    fn follow(
        &mut self,
        (loaded, left): Compiling,
        told: impl FnOnce(Result<Plugin, String>) -> PluginJob + Send + 'static,
    ) {
        self.jobs.spawn(async move { told(compile::compiled(loaded).await) });
        self.jobs.spawn(async move {
            let _ = left.await;
            PluginJob::Other
        });
    }

    /// A version is current from here on.
    pub(super) fn put(&mut self, plugin: Plugin) {
        if self.is_optimising && !plugin.is_optimised() {
            self.unoptimised.push(plugin.clone());
        }
        if self.unkept.get(&**plugin.name()).is_some_and(|content| content.version != **plugin.version()) {
            self.unkept.remove(&**plugin.name());
        }
        self.registry.put(plugin);
    }

    /// Takes the built-in plugin of this name for a pipeline that misses it, if there is one and no file of
    /// the folder stands before it. Says whether the plugin is on its way now.
    pub(super) fn fall_back(&mut self, name: &str) -> bool {
        if self.intake.is_coming(name) {
            return true;
        }
        let Some(built_in) = self.intake.built_in(name) else { return false };
        tracing::info!(plugin = name, version = built_in.version, "built-in plugin taken");
        let running = self.registry.get(name).map(|plugin| plugin.version().clone());
        let content = Some(built_in.clone());
        let attempt = SwapAttempt { content, ..SwapAttempt::new(AskedBy::Start) };
        let arrival = self.intake.found(built_in, attempt, running.as_deref());
        arrival.needless.is_none()
    }

    /// Begins to swap a version in where it is to run.
    pub(super) fn swap(
        &mut self,
        plugin: Plugin,
        attempt: SwapAttempt,
        previous: Option<Plugin>,
        targets: SwapTargets,
    ) {
        let (options, keeping) =
            (attempt.options.clone(), Keeping::of(&attempt, &self.folder, &self.history));
        let SwapTargets { uses, idle, connectors } = targets;
        let has_shadow = trial::has_shadow(&uses, &options);
        let superseded = self.intake.begin_swap(plugin.name(), plugin.version(), Some(attempt), has_shadow);
        self.offer(Offer { plugin, previous, options, uses, idle, connectors, superseded }, keeping);
    }

    /// Begins to exchange the code of stages that run the current version without optimised code.
    pub(super) fn exchange_code(&mut self, plugin: Plugin, uses: Vec<StageUse>) {
        let superseded = self.intake.begin_swap(plugin.name(), plugin.version(), None, false);
        let (idle, connectors) = (Vec::new(), Vec::new());
        let options = SwapOptions::at_once();
        self.offer(Offer { plugin, previous: None, options, uses, idle, connectors, superseded }, None);
    }

    fn offer(&mut self, offer: Offer, keeping: Option<Keeping>) {
        let metrics = self.metrics.clone();
        self.jobs.spawn(async move {
            let finished = swap::swap(offer, &metrics).await;
            let written = match keeping {
                Some(keeping) if finished.outcome == SwapOutcome::Swapped => {
                    keeping.keep(!finished.uses.is_empty()).await
                }
                _ => None,
            };
            PluginJob::Swapped(Box::new(finished), written)
        });
    }

    /// A content is current that no pipeline runs yet: it is at hand if one does.
    pub(super) fn hold_content(&mut self, content: Candidate) {
        self.unkept.insert(content.name.clone(), content);
    }

    /// A pipeline runs a plugin from here on: its content is kept among those that ran.
    pub(super) fn has_begun(&mut self, name: &str) {
        let Some(plugin) = self.registry.get(name) else { return };
        let version = plugin.version().to_string();
        let content = self.unkept.remove(name).filter(|content| content.version == version);
        if self.history.is_newest(name, &version) {
            return;
        }
        let (history, folder, name) = (self.history.clone(), self.folder.path().clone(), name.to_owned());
        self.jobs.spawn_blocking(move || {
            let built_in = || Candidate::built_in(&name).filter(|content| content.version == version);
            let in_folder = || Candidate::read(&folder, &name, &version).ok().flatten();
            match content.or_else(in_folder).or_else(built_in) {
                Some(content) => keeping::keep(&history, &content),
                None => tracing::warn!(plugin = name, version, "a version that runs is not there to be kept"),
            }
            PluginJob::Other
        });
    }

    /// A version is gone again that has failed in its probation, and the one before runs.
    pub(super) fn put_away(&mut self, plugin: &Plugin, previous: &Plugin) {
        let (name, history) = (plugin.name().clone(), self.history.clone());
        let (version, previous) = (plugin.version().clone(), previous.version().clone());
        self.jobs.spawn_blocking(move || {
            if let Err(error) = history.put_away(&name, &version, &previous) {
                tracing::warn!(plugin = %name, %version, %error, "it cannot be noted which version was put away");
            }
            PluginJob::Other
        });
    }

    /// Reads a content that ran, for whoever wants it back.
    pub(super) fn recall(&mut self, name: String, kept: KeptVersion, answer: Answer<Verdict>) {
        let history = self.history.clone();
        self.jobs.spawn_blocking(move || {
            let content = history.read(&name, &kept);
            PluginJob::Recalled { content, answer }
        });
    }

    /// Follows a version that has taken over, as long as the one before can be put back.
    pub(super) fn put_on_probation(&mut self, plugin: Plugin, verdict: VerdictId, probation: SwapProbation) {
        self.jobs.spawn(async move {
            match probation.follow(plugin.version()).await {
                Some(rolled_back) => {
                    PluginJob::RolledBack { plugin, verdict, rolled_back: Box::new(rolled_back) }
                }
                None => PluginJob::Other,
            }
        });
    }

    /// Gives up what is under way.
    pub(super) fn abort(&mut self) {
        self.jobs.abort_all();
    }
}
