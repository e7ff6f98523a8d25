//! What a running host can be told about its pipelines, and what it answers.
//!
//! Commands go through one bounded channel to the one task that owns the pipelines; each carries the
//! way back for its answer. Whoever asks waits, and a host that has ended says so.

use crate::config;
use crate::telemetry::PipelineState;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for the host.
const COMMANDS: usize = 16;

/// What a running host is told. Cheap to clone.
///
/// A host with no pipeline to run ends once all its handles are gone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// A pipeline of a running host.
#[derive(Clone, Debug)]
pub struct Described {
    /// As it is configured.
    pub config: Arc<config::Pipeline>,
    /// What it does.
    pub state: PipelineState,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No pipeline has this name.
    #[error("there is no pipeline \"{0}\"")]
    NotFound(String),
    /// Another pipeline has this name.
    #[error("there is a pipeline \"{0}\" already")]
    Taken(String),
    /// It is still stopping, or is being removed.
    #[error("pipeline \"{0}\" is stopping")]
    Stopping(String),
    /// A plugin cannot serve it as it is configured.
    #[error("{0}")]
    Refused(String),
    /// One of its ends cannot be opened.
    #[error("{0}")]
    Open(String),
    /// The host has ended, or is about to.
    #[error("the host is shutting down")]
    Ended,
}

/// The way back of an answer.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, ControlError>>;

/// One thing the host is told.
#[derive(Debug)]
pub(crate) enum Command {
    List(Answer<Vec<Described>>),
    Add(Box<config::Pipeline>, Answer<Described>),
    Remove(String, Answer<()>),
    Start(String, Answer<Described>),
    Stop(String, Answer<Described>),
}

/// A handle, and what the host reads.
pub(crate) fn channel() -> (Handle, mpsc::Receiver<Command>) {
    let (commands, receiver) = mpsc::channel(COMMANDS);
    (Handle { commands }, receiver)
}

impl Handle {
    /// Every pipeline, in the order in which they were added.
    ///
    /// # Errors
    /// If the host has ended.
    pub async fn pipelines(&self) -> Result<Vec<Described>, ControlError> {
        self.ask(Command::List).await
    }

    /// One pipeline.
    ///
    /// # Errors
    /// If there is none of this name, or the host has ended.
    pub async fn pipeline(&self, name: &str) -> Result<Described, ControlError> {
        let all = self.pipelines().await?;
        let found = all.into_iter().find(|pipeline| pipeline.config.name == name);
        found.ok_or_else(|| ControlError::NotFound(name.to_owned()))
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

    /// Starts a pipeline that was stopped, has finished, or has failed. One that runs goes on.
    ///
    /// # Errors
    /// If there is none of this name, it is still stopping, a plugin refuses its configuration, or an
    /// end cannot be opened.
    pub async fn start(&self, name: &str) -> Result<Described, ControlError> {
        self.ask(|answer| Command::Start(name.to_owned(), answer)).await
    }

    /// Stops a pipeline: it reads no more, what is in flight reaches its end within the grace period,
    /// its ends are closed. Answers when that is done.
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
