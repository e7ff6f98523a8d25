//! What a running host can be told about its pipelines, and what it answers.
//!
//! Commands go through one bounded channel to the one task that decides about pipelines; each carries
//! the way back for its answer. Whoever asks waits, and a host that has ended says so. What there is,
//! and how it does, is read from a table that is always current: that asks nobody.

use crate::config;
use crate::telemetry::{Described, Status};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for the host.
const COMMANDS: usize = 16;

/// What a running host is told, and what it tells. Cheap to clone.
///
/// A host with no pipeline to run ends once all its handles are gone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    status: Arc<Status>,
}

/// The reason why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no pipeline of this name.
    #[error("there is no pipeline \"{0}\"")]
    NotFound(String),
    /// Another pipeline has this name.
    #[error("there is a pipeline \"{0}\" already")]
    Taken(String),
    /// The pipeline is still stopping, or is being removed, or was told to before it had started.
    #[error("pipeline \"{0}\" is stopping")]
    Stopping(String),
    /// A plugin cannot serve it as it is configured.
    #[error("{0}")]
    Refused(String),
    /// A source or sink of the pipeline cannot be opened.
    #[error("{0}")]
    Open(String),
    /// Starting it took too long, or met a fault of the host.
    #[error("{0}")]
    Hung(String),
    /// The host has ended, or is about to.
    #[error("the host is shutting down")]
    Ended,
}

/// The way back of an answer.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, ControlError>>;

/// One thing the host is told.
#[derive(Debug)]
pub(crate) enum Command {
    Add(Box<config::Pipeline>, Answer<Described>),
    Remove(String, Answer<()>),
    Start(String, Answer<Described>),
    Stop(String, Answer<Described>),
}

/// A handle that reads this table, and what the host reads.
pub(crate) fn channel(status: Arc<Status>) -> (Handle, mpsc::Receiver<Command>) {
    let (commands, receiver) = mpsc::channel(COMMANDS);
    (Handle { commands, status }, receiver)
}

impl Handle {
    /// Every pipeline, in the order in which they were added; after the end of the host, as it left them.
    pub fn pipelines(&self) -> Vec<Described> {
        self.status.all()
    }

    /// The pipeline of this name, if there is one.
    pub fn pipeline(&self, name: &str) -> Option<Described> {
        self.status.get(name)
    }

    /// Adds a pipeline and starts it, or has it wait for its plugins. It lives as long as the host: no
    /// file is written.
    ///
    /// # Errors
    /// If the name is taken, a plugin refuses its configuration, or an end cannot be opened. Nothing is
    /// added then.
    pub async fn add(&self, pipeline: config::Pipeline) -> Result<Described, ControlError> {
        self.ask(|answer| Command::Add(Box::new(pipeline), answer)).await
    }

    /// Removes a pipeline, after it was stopped as [`Handle::stop`] does.
    ///
    /// # Errors
    /// If there is none of this name, or the host has ended.
    pub async fn remove(&self, name: &str) -> Result<(), ControlError> {
        self.ask(|answer| Command::Remove(name.to_owned(), answer)).await
    }

    /// Starts a pipeline that was stopped, has finished, or has failed. One that runs goes on. Answers once it
    /// is decided whether it runs, waits for a plugin, or does not start.
    ///
    /// # Errors
    /// If there is none of this name, it is still stopping, a plugin refuses its configuration, or an
    /// end cannot be opened.
    pub async fn start(&self, name: &str) -> Result<Described, ControlError> {
        self.ask(|answer| Command::Start(name.to_owned(), answer)).await
    }

    /// Stops a pipeline: it reads no more, what is in flight reaches its end within the grace period,
    /// its ends are closed. One that is starting is given up. Answers when that is done.
    ///
    /// # Errors
    /// If there is none of this name, or the host has ended.
    ///
    /// # Cancel safety
    /// The pipeline stops all the same if the future is dropped.
    pub async fn stop(&self, name: &str) -> Result<Described, ControlError> {
        self.ask(|answer| Command::Stop(name.to_owned(), answer)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, ControlError> {
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.map_err(|_| ControlError::Ended)?;
        answer.await.unwrap_or(Err(ControlError::Ended))
    }
}
