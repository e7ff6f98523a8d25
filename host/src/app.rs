//! The host: everything put together, kept in step with the plugin folder, and told what to do.
//!
//! One task makes the pipelines, starts them as their plugins appear, exchanges plugins as the
//! folder changes, does what a [`Handle`] tells it, and stops everything. The pipelines run in tasks
//! of their own; what is told to them goes through their control channels.

mod check;
mod compile;
mod ends;
mod lines;
mod shelf;
mod swap;
mod task;

pub use check::{Checked, Found, check, check_connections};
pub use ends::OpenError;
pub use shelf::Refusal;
pub use swap::{Outcome, UseVerdict, Verdict};

use crate::config::{Config, Reader};
use crate::control::{self, Handle};
use crate::plugin::EngineError;
use crate::reload::FolderError;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;
use task::Task;
use tokio::task::{JoinError, JoinHandle};

/// What is in flight may take so long to reach its end, if nothing else is said.
const GRACE: Duration = Duration::from_secs(10);

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

/// What a host is given beside its configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it counts, it counts here.
    pub metrics: Arc<Metrics>,
    /// How long a stop waits for what is in flight.
    pub grace: Duration,
    /// How the HTTP API reads what it is given: as the configuration file was read.
    pub reader: Reader,
}

impl Default for Settings {
    fn default() -> Self {
        Self { metrics: Arc::default(), grace: GRACE, reader: Reader::default() }
    }
}

/// Runs a configuration until every pipeline has ended (and there is no HTTP API), or a shutdown.
///
/// # Errors
/// If it cannot start, if a pipeline fails, or if the grace period of the shutdown runs out.
pub async fn run(config: Config, settings: Settings, shutdown: Shutdown) -> Result<(), AppError> {
    let (handle, commands) = control::channel();
    let task = Task::start(config, settings, &handle, commands).await?;
    drop(handle);
    Box::pin(task.run(shutdown)).await
}

/// A host that runs beside the code that started it.
///
/// Dropping it asks it to stop, and waits for nothing.
#[derive(Debug)]
pub struct Host {
    /// None: [`Host::ended`] has given it away.
    handle: Option<Handle>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    task: Option<JoinHandle<Result<(), AppError>>>,
}

impl Host {
    /// Starts a host with the usual settings.
    ///
    /// # Errors
    /// All that can fail early: the plugin folder, a plugin that refuses its configuration, an end that
    /// cannot be opened.
    pub async fn start(config: Config) -> Result<Self, AppError> {
        Self::start_with(config, Settings::default()).await
    }

    /// Starts a host.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn start_with(config: Config, settings: Settings) -> Result<Self, AppError> {
        let metrics = settings.metrics.clone();
        let (handle, commands) = control::channel();
        let task = Task::start(config, settings, &handle, commands).await?;
        let shutdown = Shutdown::default();
        let task = tokio::spawn(Box::pin(task.run(shutdown.clone())));
        Ok(Self { handle: Some(handle), metrics, shutdown, task: Some(task) })
    }

    /// What it can be told while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone().expect("it is given away with the host")
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
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
        let Some(task) = &mut self.task else { return Ok(()) };
        task.await.unwrap_or_else(|error: JoinError| Err(AppError::Failed(error.to_string())))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}
