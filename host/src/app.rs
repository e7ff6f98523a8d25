//! The host: everything put together, kept in step with the plugin folder, and told what to do.
//!
//! One task decides: which pipelines start as their plugins appear, which plugins are exchanged as
//! the folder changes, what becomes of what a [`Handle`] tells it, and when everything stops. What
//! takes time is a job beside it; the pipelines run in tasks of their own, and what is told to them
//! goes through their control channels. How the pipelines do is read from a table, and asks nobody.

mod attempt;
mod bounded;
mod check;
mod compile;
mod connectors;
mod decision;
mod end_opener;
mod instances;
mod intake;
mod job;
mod keeping;
mod kept;
mod pipelines;
mod plugin_registry;
mod plugins;
mod reload;
mod start;
mod swap;
mod takeover;
mod task;
mod trial;
mod uses;

pub(crate) use check::{CheckFinding, check, check_connections};
pub use end_opener::OpenError;
pub use plugin_registry::PluginRefusal;
pub use start::StartError;

use crate::config::{BodyReader, Config, ReloadFile};
use crate::connections::Connections;
use crate::control::Handle;
use crate::plugin::EngineError;
pub use crate::plugin_folder::FolderError;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;
use task::Task;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinError, JoinHandle};

/// What is in flight may take so long to reach its end, if nothing else is said.
const GRACE: Duration = Duration::from_secs(10);

/// The reason why a host did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Not one of the pipelines can start, and why.
    #[error("{}", lines(.0))]
    NoneStarts(Vec<NotStarted>),
    /// The plugin engine did not start, or its cache cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The plugin folder cannot be used.
    #[error("failed to {0}")]
    Folder(#[from] FolderError),
    /// The HTTP API cannot be served.
    #[error("failed to listen on [admin] {address}: {error}")]
    Admin {
        /// The address that `[admin]` names.
        address: std::net::SocketAddr,
        /// The error of the system.
        error: std::io::Error,
    },
    /// Pipelines have failed while the host ran; the text names each of them.
    #[error("failed: {0}")]
    Failed(String),
    /// These pipelines had to end before everything in them had reached its end: the grace period ran out, or
    /// a plugin failed again and again. With the messages that they gave up.
    #[error("the host has stopped before all messages reached their end: {}", given_up(.0))]
    GaveUp(Vec<(String, u64)>),
    /// The disk did not take the last state of these pipelines, which were durable.
    #[error("the last state of pipeline {} is not on the disk: the next start goes on from an older one", .0.join(", "))]
    Unwritten(Vec<String>),
}

impl AppError {
    /// Whether the configuration has to be changed, or a plugin, before it is worth another try.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::NoneStarts(failed) => failed.iter().all(|each| each.error.is_configuration()),
            Self::Folder(FolderError::Create { source, .. } | FolderError::Read { source, .. }) => {
                end_opener::is_asked_wrongly(source)
            }
            Self::Engine(error) => matches!(error, EngineError::Cache { .. }),
            Self::Admin { error, .. } => end_opener::is_asked_wrongly(error),
            Self::Folder(FolderError::Thread { .. })
            | Self::Failed(_)
            | Self::GaveUp(_)
            | Self::Unwritten(_) => false,
        }
    }
}

/// A pipeline that does not start, and why.
#[derive(Debug)]
pub struct NotStarted {
    /// The name of the pipeline.
    pub pipeline: String,
    /// The reason why the pipeline does not start.
    pub error: StartError,
}

fn lines(failed: &[NotStarted]) -> String {
    let said = failed.iter().map(|NotStarted { pipeline, error }| match error {
        // It names its pipeline.
        StartError::Refused(refusal) => refusal.to_string(),
        error => format!("pipeline {pipeline}: {error}"),
    });
    said.collect::<Vec<_>>().join("\n")
}

fn given_up(pipelines: &[(String, u64)]) -> String {
    let said = pipelines.iter().map(|(pipeline, messages)| match messages {
        1 => format!("pipeline {pipeline} gave up 1 message"),
        messages => format!("pipeline {pipeline} gave up {messages} messages"),
    });
    said.collect::<Vec<_>>().join(", ")
}

/// The settings of a host that are not in its configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The metrics that the host counts in.
    pub metrics: Arc<Metrics>,
    /// The longest time that a stop waits for messages in flight.
    pub grace: Duration,
    /// The reader for bodies of the HTTP API: variables and paths mean what they mean in the configuration
    /// file.
    pub reader: BodyReader,
    /// The file that the configuration was read from, which a reload reads again.
    pub file: Option<ReloadFile>,
    /// Rings for a reload where nobody waits for what becomes of it, which the log tells.
    pub reload: Arc<Notify>,
    /// Whether the plugins are those of one who is writing them. Traps are told with their lines in the source then
    /// ([`Engine::with_lines`](crate::plugin::Engine::with_lines)), and plugins run with the code that is soon there:
    /// optimising one would hold up the next.
    pub is_authoring: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let (metrics, reader, reload) = (Arc::default(), BodyReader::default(), Arc::default());
        Self { metrics, grace: GRACE, reader, file: None, reload, is_authoring: false }
    }
}

/// Runs a configuration until every pipeline has ended (and there is no HTTP API), or a shutdown, which
/// is obeyed at any moment.
///
/// # Errors
/// If no pipeline can start, if one has failed at the end, or if the grace period of the shutdown runs out.
pub(crate) async fn run(config: Config, settings: Settings, shutdown: Shutdown) -> Result<(), AppError> {
    let opened = tokio::select! {
        biased;
        () = shutdown.requested() => return Ok(()),
        opened = Task::open(config, settings, Connections::default()) => opened,
    };
    let (task, handle) = opened?;
    drop(handle);
    Box::pin(task.run(shutdown, None)).await
}

/// A host that runs beside the code that started it.
///
/// Dropping it asks it to stop, and waits for nothing.
#[derive(Debug)]
pub struct Host {
    /// None: [`Host::ended`] has given it away.
    handle: Option<Handle>,
    metrics: Arc<Metrics>,
    connections: Connections,
    shutdown: Shutdown,
    task: Option<JoinHandle<Result<(), AppError>>>,
}

impl Host {
    /// Starts a host with the usual settings.
    ///
    /// # Errors
    /// If the plugin folder or the address of the HTTP API cannot be used, or if not one of the pipelines
    /// can start. One that fails among others is shown as failed.
    pub async fn start(config: Config) -> Result<Self, AppError> {
        Self::start_with(config, Settings::default()).await
    }

    /// Starts a host with these settings.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn start_with(config: Config, settings: Settings) -> Result<Self, AppError> {
        let metrics = settings.metrics.clone();
        let connections = Connections::default();
        let (task, handle) = Task::open(config, settings, connections.clone()).await?;
        let shutdown = Shutdown::default();
        let (sender, started) = oneshot::channel();
        let task = tokio::spawn(Box::pin(task.run(shutdown.clone(), Some(sender))));
        // If this future is dropped, so is the host.
        let mut host = Self { handle: Some(handle), metrics, connections, shutdown, task: Some(task) };
        if started.await.is_err() {
            host.join().await?;
        }
        Ok(host)
    }

    /// A handle that adds, starts, stops and removes pipelines of the host.
    pub fn handle(&self) -> Handle {
        self.handle.clone().expect("it is given away with the host")
    }

    /// The metrics of the host, which go on while it runs.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The table of open endpoints and their connections, which is always current.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Waits until every pipeline has ended by itself and no handle is left.
    ///
    /// # Errors
    /// If a pipeline has failed.
    pub async fn ended(mut self) -> Result<(), AppError> {
        self.handle = None;
        self.join().await
    }

    /// Stops every pipeline, within the grace period.
    ///
    /// # Errors
    /// If a pipeline has failed, or the grace period ran out.
    pub async fn stop(mut self) -> Result<(), AppError> {
        self.shutdown.request();
        self.join().await
    }

    async fn join(&mut self) -> Result<(), AppError> {
        let Some(task) = self.task.take() else { return Ok(()) };
        task.await.unwrap_or_else(|error: JoinError| Err(AppError::Failed(error.to_string())))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}
