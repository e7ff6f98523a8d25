//! The plugins of a host: the version that is current of each, and what is on its way to be that.
//!
//! What takes time, compiling and swapping, is a job; what it came to is told by `next`. What a version means
//! for the pipelines is decided in `takeover.rs`.

use super::attempt::SwapAttempt;
use super::compile::{self, Compiler, Compiling};
use super::intake::Intake;
use super::job::PluginJob;
use super::plugin_registry::PluginRegistry;
use super::swap::{self, Offer, SwapTargets};
use super::trial::SwapProbation;
use super::uses::StageUse;
use crate::plugin::{Engine, Plugin};
use crate::plugin_folder::{Candidate, Change, Folder};
use crate::telemetry::Metrics;
use crate::verdict::{AskedBy, SwapOptions, VerdictId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The plugins of a host.
pub(super) struct ManagedPlugins {
    pub(super) registry: PluginRegistry,
    /// What the folder has brought and does not run yet.
    pub(super) intake: Intake,
    pub(super) folder: Folder,
    metrics: Arc<Metrics>,
    compiler: Compiler,
    /// Plugins that run and whose code is not optimised yet.
    unoptimised: Vec<Plugin>,
    jobs: JoinSet<PluginJob>,
    /// The cache of compiled code knows that all that is wanted for now has been loaded.
    is_cache_tidy: bool,
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
        registry: PluginRegistry,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            registry,
            intake: Intake::default(),
            folder,
            metrics,
            compiler: Compiler::new(engine),
            unoptimised: Vec::new(),
            jobs: JoinSet::new(),
            is_cache_tidy: false,
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
            && let Some(slot) = self.compiler.slot()
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
            self.jobs.spawn_blocking(move || {
                engine.loaded_all();
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
        if !plugin.is_optimised() {
            self.unoptimised.push(plugin.clone());
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
        let arrival = self.intake.found(built_in, SwapAttempt::new(AskedBy::Start), running.as_deref());
        arrival.needless.is_none()
    }

    /// Begins to swap a version in everywhere.
    pub(super) fn swap(
        &mut self,
        plugin: Plugin,
        attempt: SwapAttempt,
        previous: Plugin,
        targets: SwapTargets,
    ) {
        let options = attempt.options.clone();
        let superseded = self.intake.begin_swap(plugin.name(), plugin.version(), Some(attempt));
        let SwapTargets { uses, idle, connectors } = targets;
        let previous = Some(previous);
        self.offer(Offer { plugin, previous, options, uses, idle, connectors, superseded });
    }

    /// Begins to swap the current version in where it does not run.
    pub(super) fn catch_up(&mut self, plugin: Plugin, attempt: SwapAttempt, uses: Vec<StageUse>) {
        let options = attempt.options.clone();
        let superseded = self.intake.begin_swap(plugin.name(), plugin.version(), Some(attempt));
        let (idle, connectors) = (Vec::new(), Vec::new());
        self.offer(Offer { plugin, previous: None, options, uses, idle, connectors, superseded });
    }

    /// Begins to exchange the code of stages that run the current version without optimised code.
    pub(super) fn exchange_code(&mut self, plugin: Plugin, uses: Vec<StageUse>) {
        let superseded = self.intake.begin_swap(plugin.name(), plugin.version(), None);
        let (idle, connectors) = (Vec::new(), Vec::new());
        let options = SwapOptions::at_once();
        self.offer(Offer { plugin, previous: None, options, uses, idle, connectors, superseded });
    }

    fn offer(&mut self, offer: Offer) {
        let metrics = self.metrics.clone();
        self.jobs.spawn(async move { PluginJob::Swapped(Box::new(swap::swap(offer, &metrics).await)) });
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
