//! The host's one task: it waits for everything that can happen, and decides.
//!
//! It never does what takes time: compiling, instances, files, sockets, swaps and stops are jobs and
//! tasks beside it, whose results come back here. The pipelines, and what it is told about them, are
//! in `lines.rs`; the start of all of them together in `boot.rs`.

use super::boot::Boot;
use super::compile::{self, Compiler};
use super::ends::Ends;
use super::intake::Intake;
use super::job::Done;
use super::lines::Line;
use super::shelf::Shelf;
use super::swap::{self, Exchanged, Offer, Outcome, Use};
use super::{AppError, Settings};
use crate::admin::{self, Api};
use crate::config::{self, Config};
use crate::connections::Connections;
use crate::control::{self, Command, Handle};
use crate::pipeline::{Ended, LAST_GOODBYE};
use crate::plugin::{Engine, Plugin};
use crate::plugin_folder::{Candidate, Change, Folder};
use crate::shutdown::Shutdown;
use crate::telemetry::{Metrics, PipelineState, Status, SwapOutcome};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// So long after the grace period a pipeline that has not ended is given up with its task: longer than its
/// last goodbye takes, so that it must be stuck.
const STUCK: Duration = LAST_GOODBYE.saturating_add(Duration::from_millis(250));
/// How long peers that were cut off may take to read their close frame.
const FAREWELL: Duration = Duration::from_millis(400);

pub(super) struct Task {
    pub(super) shelf: Shelf,
    pub(super) metrics: Arc<Metrics>,
    pub(super) status: Arc<Status>,
    pub(super) ends: Arc<Ends>,
    pub(super) grace: Duration,
    /// Every pipeline, running or not.
    pub(super) lines: Vec<Line>,
    /// The tasks of those that run; each answers with its pipeline's name.
    pub(super) running: JoinSet<(Arc<str>, Ended)>,
    /// What takes time and is no pipeline.
    pub(super) jobs: JoinSet<Done>,
    /// What the folder has brought and does not run yet.
    pub(super) intake: Intake,
    /// The first start of all pipelines, while it is not over.
    pub(super) boot: Option<Boot>,
    compiler: Compiler,
    /// The cache of compiled code knows that all that is wanted for now has been loaded.
    is_cache_tidy: bool,
    pub(super) folder: Folder,
    commands: mpsc::Receiver<Command>,
    /// Nobody is left who could tell it anything.
    is_alone: bool,
    /// Pipelines that the shutdown cut off, and the messages that they gave up.
    cut_off: Vec<(String, u64)>,
    is_stopping: bool,
    admin: Option<Served>,
}

/// The HTTP API, running.
struct Served {
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Task {
    /// A host whose pipelines are known and do nothing yet, and its handle. Its HTTP API answers.
    pub(super) async fn open(
        config: Config,
        settings: Settings,
        connections: Connections,
    ) -> Result<(Self, Handle), AppError> {
        let Settings { metrics, grace, reader } = settings;
        let plugins = config.plugins.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let engine = Engine::try_new(Some(&plugins.cache))?;
            Ok::<_, AppError>((engine, Folder::open(&plugins)?))
        });
        let (engine, (folder, found)) =
            opened.await.map_err(|error| AppError::Failed(error.to_string()))??;
        let status = Arc::new(Status::new(&metrics));
        let (handle, commands) = control::channel(status.clone());
        let ends = Arc::new(Ends::new(metrics.clone(), connections.clone(), &config));
        let admin = match &config.admin {
            Some(admin) => {
                let host = admin::HostView {
                    metrics: metrics.clone(),
                    connections: connections.clone(),
                    status: status.clone(),
                    handle: handle.clone(),
                    reader,
                    is_trusting: admin.token.is_some(),
                    server: config.server,
                    listeners: ends.listeners().clone(),
                };
                // Before the API answers, it has to know that these pipelines are to run.
                let listener = listen(admin).await?;
                Some((admin, listener, host))
            }
            None => None,
        };
        let mut lines = Vec::with_capacity(config.pipelines.len());
        for pipeline in config.pipelines {
            let mut line = Line::new(Arc::new(pipeline));
            line.is_booting = true;
            status.add(line.config.clone(), PipelineState::Starting);
            lines.push(line);
        }
        let admin = admin.map(|(admin, listener, host)| serve(admin, listener, host)).transpose()?;
        let mut task = Self {
            compiler: Compiler::new(engine),
            is_cache_tidy: false,
            folder,
            intake: Intake::default(),
            boot: Some(Boot::new(lines.len())),
            shelf: Shelf::default(),
            ends,
            grace,
            lines,
            running: JoinSet::new(),
            jobs: JoinSet::new(),
            commands,
            is_alone: false,
            admin,
            cut_off: Vec::new(),
            is_stopping: false,
            metrics,
            status,
        };
        found.into_iter().for_each(|change| task.changed(change));
        Ok((task, handle))
    }

    /// Everything that happens until the end. `started` is told when all pipelines that can start at once
    /// have.
    pub(super) async fn run(
        mut self,
        shutdown: Shutdown,
        started: Option<oneshot::Sender<()>>,
    ) -> Result<(), AppError> {
        let failure = self.work(&shutdown, started).await.err();
        let ended = self.stop().await;
        failure.map_or(ended, Err)
    }

    async fn work(
        &mut self,
        shutdown: &Shutdown,
        mut started: Option<oneshot::Sender<()>>,
    ) -> Result<(), AppError> {
        for index in 0..self.lines.len() {
            self.start_line(index);
        }
        loop {
            let gate = self.advance_boot()?;
            // What no pipeline needs has its turn once the first start is over.
            self.compile_next();
            if self.boot.is_none()
                && let Some(started) = started.take()
                && started.send(()).is_err()
            {
                tracing::debug!("who started the host did not wait for that");
            }
            if self.is_alone && !self.lines.iter().any(Line::is_awaited) {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                Some(joined) = self.running.join_next() => self.ended(joined),
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.done(done),
                    // Jobs catch what can panic in them.
                    Err(error) => tracing::error!(%error, "a job of the host is lost"),
                },
                change = self.folder.next() => self.changed(change),
                command = self.commands.recv(), if !self.is_alone => match command {
                    Some(command) => self.obey(command),
                    None => self.is_alone = true,
                },
                () = sleep_until(gate.unwrap_or_else(Instant::now)), if gate.is_some() => {}
            }
        }
    }

    /// A job is done.
    fn done(&mut self, done: Done) {
        match done {
            Done::Compiled { name, version, result } => self.compiled(&name, &version, result),
            Done::Prepared { pipeline, result } => self.prepared(&pipeline, result),
            Done::Opened { pipeline, stages, result } => self.opened(&pipeline, stages, result),
            Done::Swapped(exchanged) => self.swapped(*exchanged),
            Done::Other => {}
        }
    }

    /// Stops every pipeline and the API, within the grace period.
    async fn stop(mut self) -> Result<(), AppError> {
        self.is_stopping = true;
        self.status.stop();
        // Whoever still waits for an answer is told that there is none.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        let deadline = Instant::now() + self.grace;
        for index in 0..self.lines.len() {
            self.stop_line(index, deadline);
        }
        while self.lines.iter().any(Line::is_stopping) {
            tokio::select! {
                biased;
                Some(joined) = self.running.join_next() => self.ended(joined),
                Some(Ok(done)) = self.jobs.join_next() => self.done(done),
                () = sleep_until(deadline + STUCK) => break,
            }
        }
        for line in self.lines.iter().filter(|line| line.is_stopping()) {
            tracing::error!(pipeline = %line.config.name, "pipeline is stuck and is given up");
            self.cut_off.push((line.config.name.clone(), 0));
        }
        // What is left of jobs is of no use any more.
        self.running.abort_all();
        self.jobs.abort_all();
        if timeout(FAREWELL, self.ends.listeners().closed()).await.is_err() {
            tracing::debug!("peers are left that did not take their close frame");
        }
        if let Some(Served { stop, mut task }) = self.admin.take() {
            stop.cancel();
            match timeout_at(deadline + STUCK, &mut task).await {
                Ok(Ok(Err(error))) => tracing::error!(%error, "http api failed"),
                Ok(_) => {}
                Err(_) => task.abort(),
            }
        }
        let failures = self.status.all().into_iter().filter_map(|described| match described.state {
            PipelineState::Failed { error } => Some(format!("pipeline {}: {error}", described.config.name)),
            _ => None,
        });
        let failures: Vec<_> = failures.collect();
        match (self.cut_off.is_empty(), failures.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(AppError::Failed(failures.join("; "))),
            (false, _) => Err(AppError::GaveUp(self.cut_off)),
        }
    }

    /// A pipeline ended before what was in it. At the end of the host, that is its failure.
    pub(super) fn cut_off(&mut self, pipeline: &str, given_up: u64) {
        if self.is_stopping {
            self.cut_off.push((pipeline.to_owned(), given_up));
        }
    }

    fn is_needed(&self, plugin: &str) -> bool {
        self.lines.iter().any(|line| line.uses(plugin))
    }

    fn changed(&mut self, change: Change) {
        match change {
            Change::Found(candidate) => {
                self.intake.bar_built_in(&candidate.name);
                self.found(candidate);
            }
            Change::Refused { name, error, .. } => {
                self.intake.bar_built_in(&name);
                self.intake.forget(&name);
                self.rejected(&name, "", &error);
                self.start_waiting(&name);
            }
            Change::Gone { name } => {
                self.intake.gone(&name);
                match (self.intake.built_in(&name), self.shelf.get(&name)) {
                    (Some(built_in), _) if self.is_needed(&name) => {
                        tracing::warn!(plugin = %name, "plugin file is gone; the built-in version takes over");
                        self.found(built_in);
                    }
                    (_, Some(_)) => {
                        tracing::warn!(plugin = %name, "plugin file is gone; the version that runs goes on");
                    }
                    _ => tracing::warn!(plugin = %name, "plugin file is gone"),
                }
                self.start_waiting(&name);
            }
        }
    }

    /// There is content of a plugin.
    fn found(&mut self, candidate: Candidate) {
        let name = candidate.name.clone();
        let running = self.shelf.get(&name).map(|plugin| plugin.version().clone());
        if !self.intake.found(candidate, running.as_deref()) {
            // What runs already was written again: whoever did not take it may look again.
            self.forgive(&name);
            self.catch_up(&name);
            self.revive(&name);
        }
    }

    /// Takes the built-in plugin of this name for a pipeline that misses it, if there is one and no file of
    /// the folder stands before it. Says whether the plugin is on its way now.
    pub(super) fn fall_back(&mut self, name: &str) -> bool {
        if self.intake.is_coming(name) {
            return true;
        }
        let Some(built_in) = self.intake.built_in(name) else { return false };
        tracing::info!(plugin = name, version = built_in.version, "built-in plugin taken");
        self.found(built_in);
        true
    }

    /// Compiles what is next, while there is a seat: what no pipeline needs once all that can run do.
    fn compile_next(&mut self) {
        let takes_rest = self.boot.is_none();
        let mut needed = None;
        while self.intake.has_queue()
            && let Some(seat) = self.compiler.seat()
        {
            let needed = needed.get_or_insert_with(|| {
                let transforms = self.lines.iter().flat_map(|line| &line.config.transforms);
                transforms.map(|transform| transform.plugin.expose().to_owned()).collect::<BTreeSet<_>>()
            });
            let next = self.intake.next(|name| needed.contains(name), takes_rest);
            let Some(Candidate { name, wasm, version, .. }) = next else { break };
            self.is_cache_tidy = false;
            let (loaded, left) = seat.compile(name.clone(), wasm);
            self.jobs.spawn(async move {
                let result = compile::compiled(loaded).await;
                Done::Compiled { name, version, result }
            });
            // When the seat is free, there is another look at what is next.
            self.jobs.spawn(async move {
                let _ = left.await;
                Done::Other
            });
        }
        if takes_rest && !self.is_cache_tidy && self.intake.is_idle() {
            self.is_cache_tidy = true;
            let engine = self.compiler.engine().clone();
            self.jobs.spawn_blocking(move || {
                engine.loaded_all();
                Done::Other
            });
        }
    }

    fn compiled(&mut self, name: &str, version: &str, result: Result<Plugin, String>) {
        if !self.intake.compiled(name, version) {
            tracing::info!(plugin = name, version, "plugin skipped: newer content came first");
            return;
        }
        match result {
            Err(error) => {
                self.intake.bar_built_in(name);
                self.rejected(name, version, &error);
                self.start_waiting(name);
            }
            Ok(plugin) => self.offer(plugin),
        }
    }

    /// Has a compiled plugin take over, once the swap before is decided.
    fn offer(&mut self, plugin: Plugin) {
        let Some(plugin) = self.intake.hold(plugin) else { return };
        let name = plugin.name().clone();
        let Some(previous) = self.shelf.get(&name).cloned() else {
            tracing::info!(
                plugin = %name, version = %plugin.version(), cached = plugin.is_from_cache(),
                compile_ms = plugin.load_time().as_millis() as u64, "plugin loaded"
            );
            self.shelf.put(plugin);
            return self.start_waiting(&name);
        };
        if previous.version() != plugin.version() {
            let uses = self.uses(&name);
            self.swap(plugin, Some(previous), uses);
        }
    }

    /// Offers the version on the shelf to the stages that run an older one: their pipelines were starting
    /// while it took over.
    pub(super) fn catch_up(&mut self, name: &str) {
        let Some(plugin) = self.shelf.get(name).cloned() else { return };
        let uses = self.behind(name, plugin.version());
        if !uses.is_empty() && !self.intake.is_swapping(name) {
            self.swap(plugin, None, uses);
        }
    }

    fn swap(&mut self, plugin: Plugin, previous: Option<Plugin>, uses: Vec<Use>) {
        let superseded = self.intake.begin_swap(plugin.name(), plugin.version());
        let idle = if previous.is_some() { self.idle(plugin.name()) } else { Vec::new() };
        let offer = Offer { plugin, previous, uses, idle, superseded };
        self.jobs.spawn(async move { Done::Swapped(Box::new(swap::swap(offer).await)) });
    }

    /// It is decided who runs a version.
    fn swapped(&mut self, exchanged: Exchanged) {
        let Exchanged { plugin, verdict, taken, kept } = exchanged;
        let name = plugin.name().clone();
        let next = self.intake.end_swap(&name);
        let version = plugin.version().clone();
        let is_shelved = self.shelf.get(&name).is_some_and(|known| *known.version() == version);
        match verdict.outcome {
            Outcome::Superseded => {
                tracing::info!(plugin = %name, %version, "plugin skipped: newer content came first");
            }
            Outcome::Rejected => {
                self.rejected(&name, &version, verdict.error.as_deref().unwrap_or_default());
            }
            Outcome::Swapped => {
                if self.is_needed(&name) {
                    self.metrics.swapped(&name, SwapOutcome::Swapped);
                }
                for each in &verdict.uses {
                    if each.outcome == Outcome::Swapped {
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
                self.shelf.put(plugin);
            }
        }
        if verdict.outcome == Outcome::Swapped || is_shelved {
            taken.iter().for_each(|each| self.note_offer(each, &version, true));
            kept.iter().for_each(|each| self.note_offer(each, &version, false));
        }
        match next {
            Some(next) => self.offer(next),
            None if verdict.outcome == Outcome::Swapped => {
                self.catch_up(&name);
                self.revive(&name);
            }
            None => {}
        }
    }

    /// A version does not run. What no pipeline uses is no swap that was rejected.
    fn rejected(&mut self, name: &str, version: &str, error: &str) {
        if self.is_needed(name) {
            self.metrics.swapped(name, SwapOutcome::Rejected);
        }
        let running = self.shelf.get(name).map(|plugin| plugin.version().to_string());
        tracing::error!(plugin = name, version, error, running, "plugin rejected");
        self.intake.refused(name, error);
    }
}

async fn listen(admin: &config::Admin) -> Result<TcpListener, AppError> {
    let failed = |error| AppError::Admin { address: admin.listen, error };
    TcpListener::bind(admin.listen).await.map_err(failed)
}

/// Serves the HTTP API.
fn serve(admin: &config::Admin, listener: TcpListener, host: admin::HostView) -> Result<Served, AppError> {
    let address = listener.local_addr().map_err(|error| AppError::Admin { address: admin.listen, error })?;
    tracing::info!(%address, "http api listening");
    let stop = CancellationToken::new();
    let api = Api::new(address, admin.token.clone(), host);
    let task = tokio::spawn(api.serve(listener, stop.clone()));
    Ok(Served { stop, task })
}
