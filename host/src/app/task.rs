//! The host's one task: it waits for everything that can happen, and decides.
//!
//! It never does what takes time: compiling, instances, files, sockets, swaps and stops are jobs and
//! tasks beside it, whose results come back here. What the pipelines do is in `pipelines.rs`, which versions of
//! plugins there are in `plugins.rs`, and how one takes over in `takeover.rs`.

use super::attempt::SwapAttempt;
use super::end_opener::EndOpener;
use super::job::PluginJob;
use super::pipelines::{Pipelines, STUCK};
use super::plugin_registry::PluginRegistry;
use super::plugins::{ManagedPlugins, PluginEvent};
use super::reload::Reloads;
use super::{AppError, Settings};
use crate::admin::{self, Api};
use crate::config::{self, Config};
use crate::connections::Connections;
use crate::control::{self, Command, Handle};
use crate::dead_letters::KeptLetters;
use crate::plugin::Engine;
use crate::plugin_folder::{Change, Folder};
use crate::plugin_history::PluginHistory;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreFolder, StoreThread};
use crate::telemetry::{Metrics, PipelineState, Status};
use crate::verdict::{AskedBy, SwapLog};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long peers that were cut off may take to read their close frame.
const FAREWELL: Duration = Duration::from_millis(400);

/// All of a host that runs.
pub(super) struct Task {
    pub(super) metrics: Arc<Metrics>,
    pub(super) pipelines: Pipelines,
    pub(super) plugins: ManagedPlugins,
    pub(super) swaps: SwapLog,
    status: Arc<Status>,
    pub(super) ends: Arc<EndOpener>,
    pub(super) reloads: Reloads,
    grace: Duration,
    commands: mpsc::Receiver<Command>,
    /// Nobody is left who could tell it anything.
    is_alone: bool,
    admin: Option<ServedApi>,
    store_thread: StoreThread,
}

/// The HTTP API, running.
struct ServedApi {
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
        let Settings { metrics, grace, reader, file, reload, is_authoring } = settings;
        let reloads = Reloads::new(file, config.without_pipelines(), reload);
        let plugins = config.plugins.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let engine = if is_authoring { Engine::with_lines } else { Engine::try_new };
            let engine = engine(Some(&plugins.cache))?;
            let (folder, mut found) = Folder::open(&plugins)?;
            let history = PluginHistory::open(&plugins.cache, &plugins.dir);
            for change in &mut found {
                if let Change::Found(content) = change
                    && let Some(before) = history.stand_in(content)
                {
                    *content = before;
                }
            }
            Ok::<_, AppError>((engine, (folder, found), history))
        });
        let (engine, (folder, found), history) =
            opened.await.map_err(|error| AppError::Failed(error.to_string()))??;
        let config::StateFolder { dir, interval, max_size_bytes } = &config.state;
        let (store, store_thread) = Store::start(StoreFolder::new(dir, *max_size_bytes))
            .map_err(|error| AppError::Failed(format!("no thread for state: {error}")))?;
        let api_store = store.clone();
        let store = (store, *interval);
        let status = Arc::new(Status::new(&metrics));
        let swaps = SwapLog::default();
        let (handle, commands) = control::channel(status.clone(), swaps.clone());
        let ends = Arc::new(EndOpener::new(metrics.clone(), connections.clone(), &config));
        let registry = PluginRegistry::default();
        let dead_letters = KeptLetters::default();
        let admin = match &config.admin {
            Some(admin) => {
                let host = admin::HostView {
                    metrics: metrics.clone(),
                    connections: connections.clone(),
                    status: status.clone(),
                    handle: handle.clone(),
                    store: api_store,
                    dead_letters: dead_letters.clone(),
                    reader,
                    is_trusting: admin.token.is_some(),
                    server: config.server.clone(),
                    settings: config.settings_shown(),
                    listeners: ends.listeners().clone(),
                    plugins: registry.current(),
                    history: history.clone(),
                    max_component_bytes: usize::try_from(config.plugins.max_size_bytes).unwrap_or(usize::MAX),
                };
                // Before the API answers, it has to know that these pipelines are to run.
                let listener = listen(admin).await?;
                Some((admin, listener, host))
            }
            None => None,
        };
        let pipelines = Pipelines::new(
            metrics.clone(),
            status.clone(),
            ends.clone(),
            store,
            dead_letters,
            grace,
            config.pipelines,
        );
        let admin = admin.map(|(admin, listener, host)| serve(admin, listener, host)).transpose()?;
        let plugins = ManagedPlugins::new(engine, folder, history, registry, metrics.clone(), !is_authoring);
        let mut task = Self {
            plugins,
            metrics,
            pipelines,
            swaps,
            status,
            ends,
            reloads,
            grace,
            commands,
            is_alone: false,
            admin,
            store_thread,
        };
        found.into_iter().for_each(|change| task.changed(change, AskedBy::Start));
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
        self.pipelines.start_all(&mut self.plugins);
        loop {
            let gate = self.pipelines.advance_boot()?;
            let gate = [gate, self.advance_reload()].into_iter().flatten().min();
            // What no pipeline needs has its turn once the first start is over.
            let has_booted = self.pipelines.has_booted();
            self.plugins.compile_next(|| self.pipelines.plugins(), has_booted);
            if has_booted
                && let Some(started) = started.take()
                && started.send(()).is_err()
            {
                tracing::debug!("who started the host did not wait for that");
            }
            if self.is_alone && !self.pipelines.are_awaited() && !self.reloads.goes_on() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                event = self.pipelines.next() => {
                    let begun = self.pipelines.happened(&mut self.plugins, event);
                    // A version that came while the ends of the pipeline were opened.
                    for plugin in begun.iter().flat_map(|pipeline| pipeline.plugins()) {
                        self.plugins.has_begun(plugin.expose());
                    }
                    for transform in begun.iter().flat_map(|pipeline| &pipeline.transforms) {
                        self.catch_up(transform.plugin.expose(), SwapAttempt::new(AskedBy::Start));
                    }
                }
                event = self.plugins.next() => match event {
                    PluginEvent::Changed(change) => self.changed(change, AskedBy::Folder),
                    PluginEvent::Done(PluginJob::Compiled { name, version, result }) => {
                        self.compiled(&name, &version, result);
                    }
                    PluginEvent::Done(PluginJob::Optimised { name, result }) => self.optimised(&name, result),
                    PluginEvent::Done(PluginJob::RolledBack { plugin, verdict, rolled_back }) => {
                        self.rolled_back(&plugin, verdict, *rolled_back);
                    }
                    PluginEvent::Done(PluginJob::Swapped(finished, written)) => self.swapped(*finished, written),
                    PluginEvent::Done(PluginJob::Recalled { content, answer }) => {
                        self.recalled(content, answer);
                    }
                    PluginEvent::Done(PluginJob::Other) => {}
                },
                command = self.commands.recv(), if !self.is_alone => match command {
                    Some(Command::Reload(order)) => self.order_reload(order),
                    Some(Command::Swap(component, options, answer)) => self.sent(component, options, answer),
                    Some(Command::RollBack(name, to, answer)) => self.roll_back(name, to.as_deref(), answer),
                    Some(Command::Pipeline(order)) => self.pipelines.obey(&mut self.plugins, order),
                    None => self.is_alone = true,
                },
                event = self.reloads.next() => self.reload_happened(event),
                () = sleep_until(gate.unwrap_or_else(Instant::now)), if gate.is_some() => {}
            }
        }
    }

    /// Stops every pipeline and the API, within the grace period.
    async fn stop(mut self) -> Result<(), AppError> {
        self.status.stop();
        // Whoever still waits for an answer is told that there is none.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        let deadline = Instant::now() + self.grace;
        self.pipelines.stop_all(&mut self.plugins, deadline).await;
        self.plugins.abort();
        self.reloads.abort();
        if timeout(FAREWELL, self.ends.listeners().closed()).await.is_err() {
            tracing::debug!("peers are left that did not take their close frame");
        }
        if let Some(ServedApi { stop, mut task }) = self.admin.take() {
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
        let all = self.status.all().into_iter().map(|described| described.config.name.clone());
        let unwritten: Vec<_> = all.filter(|pipeline| self.metrics.lacks_state(pipeline)).collect();
        let cut_off = self.pipelines.into_cut_off();
        // With the last handle of the store its thread ends, once the disk has what was on its way.
        let joined = tokio::task::spawn_blocking(|| self.store_thread.join());
        if timeout_at(deadline + STUCK, joined).await.is_err() {
            tracing::error!("the disk takes too long to write state");
        }
        match (cut_off.is_empty(), failures.is_empty()) {
            (true, true) if unwritten.is_empty() => Ok(()),
            (true, true) => Err(AppError::Unwritten(unwritten)),
            (true, false) => Err(AppError::Failed(failures.join("; "))),
            (false, _) => Err(AppError::GaveUp(cut_off)),
        }
    }
}

async fn listen(admin: &config::Admin) -> Result<TcpListener, AppError> {
    let failed = |error| AppError::Admin { address: admin.listen, error };
    TcpListener::bind(admin.listen).await.map_err(failed)
}

/// Serves the HTTP API.
fn serve(admin: &config::Admin, listener: TcpListener, host: admin::HostView) -> Result<ServedApi, AppError> {
    let address = listener.local_addr().map_err(|error| AppError::Admin { address: admin.listen, error })?;
    tracing::info!(%address, "http api listening");
    let stop = CancellationToken::new();
    let api = Api::new(address, admin.token.clone(), host);
    let task = tokio::spawn(api.serve(listener, stop.clone()));
    Ok(ServedApi { stop, task })
}
