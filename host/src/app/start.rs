//! Starting a pipeline, in two jobs: everything that can be refused, then everything that is opened. Of one that is
//! added, a job before them looks at its files.
//!
//! Nothing of a pipeline is opened before its plugins have taken their configuration. Who runs the
//! jobs, and when the second may follow the first, is decided elsewhere.

use super::bounded::{Failure, bounded};
use super::connectors;
use super::end_opener::{EndOpener, OpenError, OpenedEnds, is_asked_wrongly};
use super::instances::{self, MadeStages};
use super::kept::Kept;
use super::plugin_registry::PluginRefusal;
use crate::config;
use crate::connector::Connector;
use crate::generation::Position;
use crate::plugin::Plugin;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use futures_util::future::try_join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest that making the instances of a pipeline may take. A guest's own time in `init` is limited far
/// below; this is for a machine on which a thousand others start at once.
const PREPARE_DEADLINE: Duration = Duration::from_secs(120);
/// Longest that looking at the files of a pipeline may take, and opening its files and listeners: a share that is
/// away hangs for ever.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

/// Why a pipeline does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A plugin cannot serve it as it is configured.
    #[error(transparent)]
    Refused(PluginRefusal),
    /// One of its ends cannot be opened.
    #[error(transparent)]
    Open(OpenError),
    /// What it is to go on with cannot be read.
    #[error("state: {0}")]
    State(#[from] StoreError),
    /// Its plugins did not take their configuration in time.
    #[error("its plugins have not started after {} s", PREPARE_DEADLINE.as_secs())]
    PrepareTimedOut,
    /// Its ends did not open in time.
    #[error("its files and listeners were not open after {} s", OPEN_DEADLINE.as_secs())]
    OpenTimedOut,
    /// It met a fault of the host.
    #[error("starting it met a fault of the host; the log has the panic")]
    Panicked,
    /// It was told to stop before.
    #[error("it was told to stop before it had started")]
    Cancelled,
}

impl StartError {
    /// Whether the configuration has to be changed, or a plugin, before it is worth another try.
    pub(super) fn is_configuration(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Open(error) => error.is_configuration(),
            Self::State(StoreError::Io { error, .. }) => is_asked_wrongly(error),
            // Damaged files are out of the way at the next start, and another host may end.
            Self::State(error) => matches!(
                error,
                StoreError::NotAFolder { .. } | StoreError::TooLarge { .. } | StoreError::Later { .. }
            ),
            Self::PrepareTimedOut | Self::OpenTimedOut | Self::Panicked | Self::Cancelled => false,
        }
    }

    /// Whether another version of a plugin may do better.
    pub(super) fn is_the_plugins(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::PrepareTimedOut)
    }
}

/// Looks whether a new pipeline would destroy a file of another, or read what another writes.
pub(super) async fn check_files(
    pipeline: Arc<config::Pipeline>,
    others: Vec<Arc<config::Pipeline>>,
    cancel: &CancellationToken,
) -> Result<(), StartError> {
    // Where a file lies on a network, looking at it may take its time.
    let look = tokio::task::spawn_blocking(move || {
        let shared = pipeline.shares_file_with(others.iter().map(|other| &**other));
        shared.map(|(end, error)| OpenError::wrong(end, error))
    });
    match bounded(OPEN_DEADLINE, cancel, look).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(error))) => Err(StartError::Open(error)),
        Ok(Err(_)) | Err(Failure::Panicked) => Err(StartError::Panicked),
        Err(Failure::TimedOut) => Err(StartError::OpenTimedOut),
        Err(Failure::Cancelled) => Err(StartError::Cancelled),
    }
}

/// Makes the stages of a pipeline, the instances of one plugin for each transform, that go on with what is kept of it,
/// which comes from the disk where that is newest. Before, tries out the plugins that follow in `plugins`, which its
/// endpoints ask.
pub(super) async fn prepare(
    pipeline: &config::Pipeline,
    plugins: &[Plugin],
    asked: &[Connector],
    mut kept: Kept,
    store: &Store,
    metrics: &Metrics,
    cancel: &CancellationToken,
) -> Result<(MadeStages, Kept), StartError> {
    let stages = async {
        try_connectors(pipeline, plugins, asked).await.map_err(StartError::Refused)?;
        kept.load(pipeline, store).await?;
        let made = instances::stages(pipeline, plugins, &kept.states, metrics).await;
        Ok((made.map_err(StartError::Refused)?, kept))
    };
    match bounded(PREPARE_DEADLINE, cancel, stages).await {
        Ok(made) => made,
        Err(Failure::TimedOut) => Err(StartError::PrepareTimedOut),
        Err(Failure::Cancelled) => Err(StartError::Cancelled),
        Err(Failure::Panicked) => Err(StartError::Panicked),
    }
}

/// Tries out the plugins that endpoints of a pipeline ask before they dial: of `plugins` those that follow the ones of
/// its transforms.
pub(super) async fn try_connectors(
    pipeline: &config::Pipeline,
    plugins: &[Plugin],
    asked: &[Connector],
) -> Result<(), PluginRefusal> {
    let connectors = asked.iter().zip(&plugins[pipeline.transforms.len()..]);
    let tried = connectors.map(|(each, plugin)| connectors::try_out(&pipeline.name, each, plugin));
    try_join_all(tried).await.map(drop)
}

/// Opens the ends of a pipeline.
pub(super) async fn open(
    pipeline: &config::Pipeline,
    from: Option<Position>,
    connectors: &[Connector],
    ends: &EndOpener,
    cancel: &CancellationToken,
) -> Result<Box<OpenedEnds>, StartError> {
    match bounded(OPEN_DEADLINE, cancel, ends.open(pipeline, from, connectors)).await {
        Ok(opened) => opened.map(Box::new).map_err(StartError::Open),
        Err(Failure::TimedOut) => Err(StartError::OpenTimedOut),
        Err(Failure::Cancelled) => Err(StartError::Cancelled),
        Err(Failure::Panicked) => Err(StartError::Panicked),
    }
}
