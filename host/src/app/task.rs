//! The host's one task: it waits for everything that can happen, and does one thing at a time.
//!
//! What takes long (compiling, swapping, stopping) it waits for beside everything else. The
//! pipelines, and what it is told about them, are in `lines.rs`.

use super::ends::Ends;
use super::lines::{Line, Phase, StartError};
use super::shelf::Shelf;
use super::swap::{self, Outcome, Verdict};
use super::{AppError, Settings, compile};
use crate::admin::{self, Admin};
use crate::config::{self, Config};
use crate::control::{Command, Handle};
use crate::pipeline::Ended;
use crate::plugin::{Engine, LoadError, Plugin};
use crate::reload::{Candidate, Change, Folder};
use crate::shutdown::Shutdown;
use crate::telemetry::{Metrics, PipelineState, Status, SwapOutcome};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub(super) struct Task {
    pub(super) engine: Engine,
    pub(super) shelf: Shelf,
    pub(super) metrics: Arc<Metrics>,
    pub(super) status: Arc<Status>,
    pub(super) ends: Ends,
    pub(super) grace: Duration,
    /// Every pipeline, running or not.
    pub(super) lines: Vec<Line>,
    /// The tasks of those that run; each answers with its pipeline's name.
    pub(super) running: JoinSet<(Arc<str>, Ended)>,
    /// Messages that grace periods cut off.
    pub(super) given_up: u64,
    /// Whether a pipeline outlasted the grace period of the shutdown.
    pub(super) is_late: bool,
    pub(super) is_stopping: bool,
    folder: Folder,
    /// What was in the folder at the start and no pipeline needs.
    later: VecDeque<Change>,
    commands: mpsc::Receiver<Command>,
    /// Nobody is left who could tell it anything.
    is_alone: bool,
    job: Option<Job>,
    /// The job exchanges a plugin: what starts now would start the old version, unnoticed.
    is_swapping: bool,
    admin: Option<Served>,
}

/// A job that is waited for beside everything else.
type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What a job came to.
enum Done {
    Compiled { name: String, version: String, result: Result<Plugin, LoadError> },
    Swapped { plugin: Plugin, verdict: Verdict },
}

/// The HTTP API, running.
struct Served {
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Task {
    /// Starts what can start; all that can fail early fails here.
    pub(super) async fn start(
        config: Config,
        settings: Settings,
        handle: &Handle,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Self, AppError> {
        let Settings { metrics, grace, reader } = settings;
        let status = Arc::new(Status::default());
        let engine = Engine::try_new(Some(&config.plugins.cache))?;
        let (folder, found) = Folder::open(&config.plugins)?;
        let mut task = Self {
            engine,
            folder,
            later: VecDeque::new(),
            shelf: Shelf::default(),
            ends: Ends::new(metrics.clone(), &config),
            grace,
            lines: config.pipelines.into_iter().map(Line::new).collect(),
            running: JoinSet::new(),
            commands,
            is_alone: false,
            job: None,
            is_swapping: false,
            admin: None,
            given_up: 0,
            is_late: false,
            is_stopping: false,
            metrics,
            status,
        };
        // What no pipeline needs is loaded once all that can run do.
        let (needed, later): (VecDeque<_>, VecDeque<_>) =
            found.into_iter().partition(|change| task.is_needed(change));
        task.later = later;
        for change in needed {
            task.load_at_start(change).await;
        }
        let admin = match &config.admin {
            Some(admin) => {
                let host = admin::Host {
                    metrics: task.metrics.clone(),
                    status: task.status.clone(),
                    handle: handle.clone(),
                    reader,
                    server: config.server,
                    listeners: task.ends.listeners().clone(),
                };
                Some(serve(admin, host).await?)
            }
            None => None,
        };
        let mut refused = Vec::new();
        for index in 0..task.lines.len() {
            match task.start_line(index).await {
                Ok(()) => {}
                Err(StartError::Refused(refusal)) => refused.push(refusal),
                Err(StartError::Open(error)) => {
                    let pipeline = task.lines[index].config.name.clone();
                    return Err(AppError::Open { pipeline, error });
                }
            }
        }
        if !refused.is_empty() {
            return Err(AppError::Refused(refused));
        }
        task.admin = admin;
        Ok(task)
    }

    /// Everything that happens until the end.
    pub(super) async fn run(mut self, shutdown: Shutdown) -> Result<(), AppError> {
        loop {
            if self.is_alone && self.running.is_empty() && !self.is_any_waiting() {
                break;
            }
            if self.job.is_none() {
                match self.later.pop_front() {
                    Some(change) => self.changed(change),
                    None => self.engine.loaded_all(),
                }
            }
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                Some(joined) = self.running.join_next() => self.ended(joined),
                command = self.commands.recv(), if !self.is_alone && !self.is_swapping => match command {
                    Some(command) => self.obey(command).await,
                    None => self.is_alone = true,
                },
                done = poll_job(&mut self.job) => {
                    self.job = None;
                    self.finish_job(done).await;
                }
                change = self.folder.next(), if self.job.is_none() => self.changed(change),
            }
        }
        self.stop().await
    }

    /// Stops every pipeline and the API.
    async fn stop(mut self) -> Result<(), AppError> {
        self.is_stopping = true;
        // Whoever still waits for an answer is told that there is none.
        self.commands.close();
        while self.commands.recv().await.is_some() {}
        let deadline = tokio::time::Instant::now() + self.grace;
        self.lines.iter_mut().for_each(|line| line.stop(deadline));
        while let Some(joined) = self.running.join_next().await {
            self.ended(joined);
        }
        if let Some(Served { stop, task }) = self.admin.take() {
            stop.cancel();
            if let Ok(Err(error)) = task.await {
                tracing::error!(%error, "http api failed");
            }
        }
        let failures: Vec<_> = self.status.all().into_iter().filter_map(failure).collect();
        match (self.is_late, failures.is_empty()) {
            (false, true) => Ok(()),
            (false, false) => Err(AppError::Failed(failures.join("; "))),
            (true, _) => Err(AppError::GraceRanOut(self.given_up)),
        }
    }

    fn is_needed(&self, change: &Change) -> bool {
        let (Change::Found(Candidate { name, .. }) | Change::Refused { name, .. } | Change::Gone { name }) =
            change;
        let mut transforms = self.lines.iter().flat_map(|line| &line.config.transforms);
        transforms.any(|transform| transform.plugin.expose() == name)
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
                self.is_swapping = true;
                self.job = Some(Box::pin(async move {
                    let verdict = swap::swap(plugin.clone(), Some(previous), uses, false).await;
                    Done::Swapped { plugin, verdict }
                }));
            }
            Done::Swapped { plugin, verdict } => {
                self.is_swapping = false;
                self.swapped(plugin, &verdict);
            }
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

    fn is_any_waiting(&self) -> bool {
        self.lines.iter().any(|line| matches!(line.phase, Phase::Waiting))
    }
}

/// A pipeline that has failed, in words.
fn failure((pipeline, state): (String, PipelineState)) -> Option<String> {
    match state {
        PipelineState::Failed { error } => Some(format!("pipeline {pipeline}: {error}")),
        _ => None,
    }
}

/// Serves the HTTP API.
async fn serve(admin: &config::Admin, host: admin::Host) -> Result<Served, AppError> {
    let failed = |error| AppError::Admin { address: admin.listen, error };
    let listener = TcpListener::bind(admin.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "http api listening");
    let stop = CancellationToken::new();
    let api = Admin::new(address, admin.token.clone(), host);
    let task = tokio::spawn(api.serve(listener, stop.clone().cancelled_owned()));
    Ok(Served { stop, task })
}

/// Resolves when the job is done; never while there is none.
async fn poll_job(job: &mut Option<Job>) -> Done {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}
