//! The host: everything put together, and kept in step with the plugin folder.
//!
//! One task makes the pipelines, starts them as their plugins appear, exchanges plugins as the
//! folder changes, and stops everything. The pipelines run in tasks of their own; what is told to
//! them goes through their control channels.

mod check;
mod compile;
mod ends;
mod shelf;
mod swap;

pub use check::{Checked, check};
pub use shelf::Refusal;
pub use swap::{Outcome, UseVerdict, Verdict};

use crate::admin::Admin;
use crate::config::{self, Config};
use crate::pipeline::{self, Control, Ended, Ending, Parts};
use crate::plugin::{Engine, EngineError, LoadError, Plugin, Setup};
use crate::reload::{Candidate, Change, Folder, FolderError};
use crate::shutdown::Shutdown;
use crate::telemetry::{Metrics, PipelineState, Status, SwapOutcome};
use ends::Ends;
use futures_util::FutureExt as _;
use shelf::Shelf;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use swap::Use;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub use ends::OpenError;

/// Why the host did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A plugin that is there cannot serve its pipeline as it is configured.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
    /// The plugin engine did not start.
    #[error("failed to start the plugin engine: {0}")]
    Engine(#[from] EngineError),
    /// The plugin folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// An endpoint cannot be opened.
    #[error("pipeline {pipeline}: {error}")]
    Open {
        /// The pipeline.
        pipeline: String,
        /// Why.
        error: OpenError,
    },
    /// The HTTP API cannot be served.
    #[error("failed to listen on [admin] {address}: {error}")]
    Admin {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// Pipelines failed.
    #[error("failed: {0}")]
    Failed(String),
    /// Messages were given up.
    #[error("the grace period ran out with {0} messages in flight")]
    GraceRanOut(u64),
}

/// Runs a configuration until every pipeline has ended (and there is no HTTP API), or a shutdown.
/// What it counts, it counts in `metrics`.
///
/// # Errors
/// If it cannot start, if a pipeline fails, or if the grace period of the shutdown runs out.
pub async fn run(
    config: Config,
    metrics: Arc<Metrics>,
    grace: Duration,
    shutdown: Shutdown,
) -> Result<(), AppError> {
    let mut host = Host::start(config, metrics).await?;
    host.run(&shutdown).await;
    host.stop(grace).await
}

/// A job that the host's task waits for beside everything else.
type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What a job came to.
enum Done {
    Compiled { name: String, version: String, result: Result<Plugin, LoadError> },
    Swapped { plugin: Plugin, verdict: Verdict },
}

/// A pipeline of the configuration, and the line that runs it.
struct Slot {
    config: config::Pipeline,
    control: Option<mpsc::Sender<Control>>,
    /// The setup of each stage, to make the instances of a swap.
    setups: Vec<Setup>,
}

/// The HTTP API, running.
struct Served {
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

struct Host {
    engine: Engine,
    folder: Folder,
    /// What was in the folder at the start and no pipeline needs.
    later: VecDeque<Change>,
    shelf: Shelf,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    ends: Ends,
    slots: Vec<Slot>,
    lines: JoinSet<(usize, Ended)>,
    job: Option<Job>,
    admin: Option<Served>,
    failures: Vec<String>,
    given_up: u64,
    /// Whether a pipeline outlasted the grace period.
    is_late: bool,
}

impl Host {
    /// Starts what can start; all that can fail early fails here.
    async fn start(config: Config, metrics: Arc<Metrics>) -> Result<Self, AppError> {
        let status = Arc::new(Status::default());
        let engine = Engine::try_new(Some(&config.plugins.cache))?;
        let (folder, found) = Folder::open(&config.plugins)?;
        let slots = config.pipelines.into_iter();
        let mut host = Self {
            engine,
            folder,
            later: VecDeque::new(),
            shelf: Shelf::default(),
            ends: Ends::new(metrics.clone()),
            slots: slots.map(|config| Slot { config, control: None, setups: Vec::new() }).collect(),
            lines: JoinSet::new(),
            job: None,
            admin: None,
            failures: Vec::new(),
            given_up: 0,
            is_late: false,
            metrics,
            status,
        };
        // What no pipeline needs is loaded once all that can run do.
        let (needed, later): (VecDeque<_>, VecDeque<_>) =
            found.into_iter().partition(|change| host.is_needed(change));
        host.later = later;
        for change in needed {
            host.load_at_start(change).await;
        }
        let admin = match &config.admin {
            Some(admin) => Some(serve(admin, host.metrics.clone(), host.status.clone()).await?),
            None => None,
        };
        let mut refused = Vec::new();
        for number in 0..host.slots.len() {
            match host.start_pipeline(number).await {
                Ok(()) => {}
                Err(StartError::Refused(refusal)) => refused.push(refusal),
                Err(StartError::Open(error)) => {
                    let pipeline = host.slots[number].config.name.clone();
                    return Err(AppError::Open { pipeline, error });
                }
            }
        }
        if !refused.is_empty() {
            return Err(AppError::Refused(refused));
        }
        host.admin = admin;
        Ok(host)
    }

    /// Everything that happens until the end.
    async fn run(&mut self, shutdown: &Shutdown) {
        loop {
            if self.lines.is_empty() && self.admin.is_none() && !self.is_any_waiting() {
                return;
            }
            if self.job.is_none()
                && let Some(change) = self.later.pop_front()
            {
                self.changed(change);
            }
            tokio::select! {
                biased;
                () = shutdown.requested() => return,
                Some(joined) = self.lines.join_next() => self.ended(joined),
                done = poll_job(&mut self.job) => {
                    self.job = None;
                    self.finish_job(done).await;
                }
                change = self.folder.next(), if self.job.is_none() => self.changed(change),
            }
        }
    }

    /// Stops every pipeline and the API.
    async fn stop(mut self, grace: Duration) -> Result<(), AppError> {
        let deadline = tokio::time::Instant::now() + grace;
        for slot in &mut self.slots {
            if let Some(control) = slot.control.take() {
                // Where the channel is full, that it closes stops the pipeline.
                let _ = control.try_send(Control::Stop { deadline });
            }
        }
        while let Some(joined) = self.lines.join_next().await {
            self.ended(joined);
        }
        if let Some(Served { stop, task }) = self.admin.take() {
            stop.cancel();
            if let Ok(Err(error)) = task.await {
                tracing::error!(%error, "http api failed");
            }
        }
        match (self.is_late, self.failures.is_empty()) {
            (false, true) => Ok(()),
            (false, false) => Err(AppError::Failed(self.failures.join("; "))),
            (true, _) => Err(AppError::GraceRanOut(self.given_up)),
        }
    }

    fn is_needed(&self, change: &Change) -> bool {
        let (Change::Found(Candidate { name, .. }) | Change::Refused { name, .. } | Change::Gone { name }) =
            change;
        let mut transforms = self.slots.iter().flat_map(|slot| &slot.config.transforms);
        transforms.any(|transform| transform.plugin == *name)
    }

    async fn load_at_start(&mut self, change: Change) {
        match change {
            Change::Found(Candidate { name, wasm, version, .. }) => {
                let result = compile::compile(self.engine.clone(), name.clone(), wasm).await;
                match result {
                    Ok(plugin) => self.loaded(plugin),
                    Err(error) => self.rejected(&name, &version, &error.to_string()),
                }
            }
            Change::Refused { name, error, .. } => self.rejected(&name, "", &error),
            Change::Gone { .. } => {}
        }
    }

    fn changed(&mut self, change: Change) {
        match change {
            Change::Found(Candidate { name, wasm, version, .. }) => {
                let engine = self.engine.clone();
                self.job = Some(Box::pin(async move {
                    let result = compile::compile(engine, name.clone(), wasm).await;
                    Done::Compiled { name, version, result }
                }));
            }
            Change::Refused { name, error, .. } => self.rejected(&name, "", &error),
            Change::Gone { name } => {
                tracing::warn!(plugin = %name, "plugin file is gone; the version that runs goes on");
            }
        }
    }

    async fn finish_job(&mut self, done: Done) {
        match done {
            Done::Compiled { name, version, result: Err(error) } => {
                self.rejected(&name, &version, &error.to_string());
            }
            Done::Compiled { name, result: Ok(plugin), .. } => {
                let Some(previous) = self.shelf.get(&name).map(|old| old.version().to_string()) else {
                    self.loaded(plugin);
                    self.start_waiting(&name).await;
                    return;
                };
                if previous == **plugin.version() {
                    return;
                }
                let uses = self.uses(&name);
                self.job = Some(Box::pin(async move {
                    let verdict = swap::swap(plugin.clone(), Some(previous), uses, false).await;
                    Done::Swapped { plugin, verdict }
                }));
            }
            Done::Swapped { plugin, verdict } => self.swapped(plugin, &verdict),
        }
    }

    fn loaded(&mut self, plugin: Plugin) {
        tracing::info!(
            plugin = %plugin.name(), version = %plugin.version(),
            compile_ms = plugin.load_time().as_millis() as u64, cached = plugin.is_from_cache(),
            "plugin loaded"
        );
        self.shelf.put(plugin);
    }

    fn rejected(&self, name: &str, version: &str, error: &str) {
        self.metrics.swapped(name, SwapOutcome::Rejected);
        let running = self.shelf.get(name).map(|plugin| plugin.version().to_string());
        tracing::error!(plugin = name, version, error, running, "plugin rejected");
    }

    fn swapped(&mut self, plugin: Plugin, verdict: &Verdict) {
        if verdict.outcome == Outcome::Rejected {
            let error = verdict.error.as_deref().unwrap_or_default();
            self.rejected(&verdict.plugin, &verdict.version, error);
            return;
        }
        self.metrics.swapped(&verdict.plugin, SwapOutcome::Swapped);
        for each in &verdict.uses {
            tracing::info!(
                plugin = verdict.plugin, version = verdict.version, pipeline = each.pipeline,
                transform = each.transform, state = each.state, swap_us = each.swap_us, error = each.error,
                outcome = ?each.outcome, "plugin swapped"
            );
        }
        self.shelf.put(plugin);
    }

    /// The stages that run a plugin now.
    fn uses(&self, plugin: &str) -> Vec<Use> {
        let mut uses = Vec::new();
        for slot in &self.slots {
            let Some(control) = slot.control.as_ref().filter(|control| !control.is_closed()) else {
                continue;
            };
            for (stage, setup) in slot.setups.iter().enumerate() {
                if slot.config.transforms[stage].plugin == plugin {
                    uses.push(Use {
                        pipeline: slot.config.clone(),
                        stage,
                        setup: setup.clone(),
                        control: control.clone(),
                    });
                }
            }
        }
        uses
    }

    fn is_any_waiting(&self) -> bool {
        self.status.all().values().any(|state| matches!(state, PipelineState::Waiting { .. }))
    }

    /// Starts the pipelines that waited for a plugin and now have all they need.
    async fn start_waiting(&mut self, plugin: &str) {
        for number in 0..self.slots.len() {
            let slot = &self.slots[number];
            let needs = slot.config.transforms.iter().any(|transform| transform.plugin == plugin);
            if !needs || slot.control.is_some() {
                continue;
            }
            let name = slot.config.name.clone();
            if let Err(error) = self.start_pipeline(number).await {
                let error = error.to_string();
                tracing::error!(pipeline = %name, error, "pipeline does not start");
                self.status.set(&name, PipelineState::Failed { error });
            }
        }
    }

    /// Starts a pipeline if its plugins are there.
    async fn start_pipeline(&mut self, number: usize) -> Result<(), StartError> {
        let config = self.slots[number].config.clone();
        let missing = self.shelf.missing(&config);
        if !missing.is_empty() {
            tracing::warn!(pipeline = %config.name, ?missing, "pipeline waits for its plugins");
            self.status.set(&config.name, PipelineState::Waiting { plugins: missing });
            return Ok(());
        }
        self.status.set(&config.name, PipelineState::Starting);
        let stages = self.shelf.stages(&config, &self.metrics).await.map_err(StartError::Refused)?;
        let setups = stages.iter().map(|(_, setup, _)| setup.clone()).collect();
        let name: Arc<str> = config.name.as_str().into();
        let opened = self.ends.open(&config).await.map_err(StartError::Open)?;
        let parts = Parts {
            name: name.clone(),
            source: opened.source,
            transforms: stages,
            sinks: opened.sinks,
            dead_letter: opened.dead_letter,
        };
        let (line, control) = pipeline::build(parts, &self.metrics);
        let slot = &mut self.slots[number];
        slot.control = Some(control);
        slot.setups = setups;
        self.status.set(&name, PipelineState::Running);
        tracing::info!(pipeline = %name, "pipeline running");
        self.lines.spawn(async move {
            // A fault of ours in one pipeline is no reason to lose the others.
            let ended = AssertUnwindSafe(line.run()).catch_unwind().await;
            let panicked = Ended { ending: Ending::Failed("it panicked".to_owned()), given_up: None };
            (number, ended.unwrap_or(panicked))
        });
        Ok(())
    }

    fn ended(&mut self, joined: Result<(usize, Ended), JoinError>) {
        let (number, Ended { ending, given_up }) =
            joined.expect("a pipeline catches its panics and is not aborted");
        let slot = &mut self.slots[number];
        slot.control = None;
        slot.setups.clear();
        let name = &slot.config.name;
        self.given_up += given_up.unwrap_or(0);
        self.is_late |= given_up.is_some();
        let state = match ending {
            Ending::Finished => PipelineState::Finished,
            Ending::Stopped => PipelineState::Stopped,
            Ending::Failed(error) => {
                tracing::error!(pipeline = %name, error, "pipeline failed");
                self.failures.push(format!("pipeline {name}: {error}"));
                self.status.set(name, PipelineState::Failed { error });
                return;
            }
        };
        tracing::info!(pipeline = %name, ?state, "pipeline ended");
        self.status.set(name, state);
    }
}

/// Serves the HTTP API.
async fn serve(
    admin: &config::Admin,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
) -> Result<Served, AppError> {
    let failed = |error| AppError::Admin { address: admin.listen, error };
    let listener = TcpListener::bind(admin.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "http api listening");
    let stop = CancellationToken::new();
    let api = Admin::new(address, admin.token.clone(), metrics, status);
    let task = tokio::spawn(api.serve(listener, stop.clone().cancelled_owned()));
    Ok(Served { stop, task })
}

/// Why a pipeline does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Open(OpenError),
}

/// Resolves when the job is done; never while there is none.
async fn poll_job(job: &mut Option<Job>) -> Done {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}
