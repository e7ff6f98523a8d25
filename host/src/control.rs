//! What a running host can be told about its pipelines and plugins, and what it answers.
//!
//! Commands go through one bounded channel to the one task that decides about pipelines; each carries
//! the way back for its answer. Whoever asks waits, and a host that has ended says so. What there is,
//! and how it does, is read from a table that is always current: that asks nobody.

mod reload;

pub use reload::{ReloadClass, ReloadReport, ReloadedPipeline};

use crate::config::{self, ConfigErrors};
use crate::dead_letters::RetryOrder;
use crate::foreign_text;
use crate::generation::Generation;
use crate::plugin_folder::{Candidate, is_plugin_name};
use crate::plugin_history::HistoryError;
use crate::telemetry::{Described, Status};
use crate::verdict::{SwapLog, SwapOptions, Verdict};
use bytes::Bytes;
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
    swaps: SwapLog,
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
    /// The pipeline runs, or is about to: what is kept of it is in use.
    #[error("pipeline \"{0}\" is not stopped")]
    Running(String),
    /// The pipeline does not run, and takes nothing.
    #[error("pipeline \"{0}\" does not run")]
    NotRunning(String),
    /// Nothing is kept of this pipeline, or of its transform.
    #[error("nothing is kept of {0}")]
    NothingKept(String),
    /// What is kept cannot be read or removed.
    #[error("{0}")]
    State(String),
    /// A plugin cannot serve it as it is configured.
    #[error("{0}")]
    Refused(String),
    /// A source or sink of the pipeline cannot be opened.
    #[error("{0}")]
    Open(String),
    /// Starting it took too long, or met a fault of the host.
    #[error("{0}")]
    Hung(String),
    /// The configuration is not one that can be run; nothing was changed.
    #[error("{}", lines(.0))]
    Wrong(ConfigErrors),
    /// The host has no configuration file that could be read again.
    #[error("the host was not started with a configuration file")]
    NoFile,
    /// So many reloads wait for the one that goes on that no more can.
    #[error("other reloads wait already")]
    Reloading,
    /// There is no plugin of this name.
    #[error("there is no plugin \"{0}\"")]
    NoPlugin(String),
    /// No plugin can have this name.
    #[error("a plugin cannot be called \"{}\"", foreign_text::shown(.0))]
    BadName(String),
    /// It is no component that can run here.
    #[error("{0}")]
    Unfit(String),
    /// Nothing like this version is kept of a plugin.
    #[error("{0}")]
    NoVersion(String),
    /// The version cannot be had back.
    #[error("{0}")]
    Version(String),
    /// The host has ended, or is about to.
    #[error("the host is shutting down")]
    Ended,
}

/// The way back of an answer.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, ControlError>>;

/// One thing the host is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// What concerns a pipeline.
    Pipeline(PipelineOrder),
    /// A component that is to run in the place of the version that its plugin has.
    Swap(Candidate, SwapOptions, Answer<Verdict>),
    /// A plugin whose version before is to run again, or the one whose digest begins so.
    RollBack(String, Option<String>, Answer<Verdict>),
    Reload(ReloadCommand),
}

/// What the host is told about a pipeline.
#[derive(Debug)]
pub(crate) enum PipelineOrder {
    Add(Box<config::Pipeline>, Answer<Described>),
    Remove(String, Answer<()>),
    Start(String, Answer<Described>),
    Stop(String, Answer<Described>),
    /// Dead letters that a pipeline is to take in again.
    Retry(String, Box<RetryOrder>, Answer<()>),
    /// Of one pipeline or all of them, what is kept in memory alone.
    ShowState(Option<String>, Answer<Vec<(String, Generation)>>),
    /// Of a pipeline, and of one of its transforms or all of them.
    ClearState(String, Option<String>, Answer<()>),
}

/// The configuration is to be compared with what runs, and to take over.
#[derive(Debug)]
pub(crate) struct ReloadCommand {
    pub(crate) input: ReloadInput,
    /// Whether it is only asked what would be done.
    pub(crate) dry_run: bool,
    /// `None` where nobody waits for what becomes of it.
    pub(crate) answer: Option<Answer<ReloadReport>>,
}

/// What is compared with what runs.
#[derive(Clone, Debug)]
pub(crate) enum ReloadInput {
    /// The file that the host was started with, read again.
    File,
    /// This in its place.
    Given(Box<config::Config>),
    /// One pipeline, that is there already: all others stay as they are.
    Pipeline(Box<config::Pipeline>),
}

fn lines(errors: &ConfigErrors) -> String {
    let lines: Vec<_> = errors.iter().map(config::ConfigError::in_a_line).collect();
    lines.join("\n")
}

/// A handle that reads these tables, and what the host reads.
pub(crate) fn channel(status: Arc<Status>, swaps: SwapLog) -> (Handle, mpsc::Receiver<Command>) {
    let (commands, receiver) = mpsc::channel(COMMANDS);
    (Handle { commands, status, swaps }, receiver)
}

impl From<HistoryError> for ControlError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Unknown { .. } => Self::NoVersion(error.to_string()),
            HistoryError::Ambiguous { .. }
            | HistoryError::NothingBefore(_)
            | HistoryError::Current { .. }
            | HistoryError::Damaged { .. } => Self::Version(error.to_string()),
        }
    }
}

impl ControlError {
    /// Nothing is kept of a pipeline, or of one of its transforms.
    pub(crate) fn nothing_kept(pipeline: &str, transform: Option<&str>) -> Self {
        Self::NothingKept(match transform {
            None => format!("pipeline \"{pipeline}\""),
            Some(transform) => format!("transform \"{transform}\" of pipeline \"{pipeline}\""),
        })
    }

    /// What is wrong with what is kept.
    pub(crate) fn of_state(error: impl std::fmt::Display) -> Self {
        Self::State(error.to_string())
    }
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

    /// What became of attempts to have plugins run in other versions: the newest hundred, the newest first. A verdict
    /// may change later, where the version before is put back.
    pub fn swaps(&self) -> Vec<Verdict> {
        self.swaps.newest_first()
    }

    /// Adds a pipeline and starts it, or has it wait for its plugins. It lives as long as the host: no
    /// file is written.
    ///
    /// # Errors
    /// If the name is taken, a plugin refuses its configuration, or an end cannot be opened. Nothing is
    /// added then.
    pub async fn add(&self, pipeline: config::Pipeline) -> Result<Described, ControlError> {
        self.order(|answer| PipelineOrder::Add(Box::new(pipeline), answer)).await
    }

    /// Removes a pipeline, after it was stopped as [`Handle::stop`] does.
    ///
    /// # Errors
    /// If there is none of this name, or the host has ended.
    pub async fn remove(&self, name: &str) -> Result<(), ControlError> {
        self.order(|answer| PipelineOrder::Remove(name.to_owned(), answer)).await
    }

    /// Starts a pipeline that was stopped, has finished, or has failed. One that runs goes on. Answers once it
    /// is decided whether it runs, waits for a plugin, or does not start.
    ///
    /// # Errors
    /// If there is none of this name, it is still stopping, a plugin refuses its configuration, or an
    /// end cannot be opened.
    pub async fn start(&self, name: &str) -> Result<Described, ControlError> {
        self.order(|answer| PipelineOrder::Start(name.to_owned(), answer)).await
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
        self.order(|answer| PipelineOrder::Stop(name.to_owned(), answer)).await
    }

    /// Tells a pipeline to take dead letters in again. What becomes of them, the report of the order says.
    ///
    /// # Errors
    /// If there is no such pipeline, or it does not run. None of the letters has entered then.
    pub(crate) async fn retry(&self, pipeline: &str, order: RetryOrder) -> Result<(), ControlError> {
        self.order(|answer| PipelineOrder::Retry(pipeline.to_owned(), Box::new(order), answer)).await
    }

    /// Reads the configuration file of the host again, and has what has changed in it take over: pipelines are
    /// added, removed and changed, in place where that can be. Those that were added through a handle are left
    /// alone. With `dry_run` nothing is changed. Reloads that come while one goes on wait for it.
    ///
    /// # Errors
    /// If the file is wrong, a plugin refuses its configuration, or something cannot be opened: nothing is
    /// changed then. What can only fail while a pipeline takes over is told in the report.
    ///
    /// # Cancel safety
    /// It goes on if the future is dropped.
    pub async fn reload(&self, dry_run: bool) -> Result<ReloadReport, ControlError> {
        self.ask_to_reload(ReloadInput::File, dry_run).await
    }

    /// The same with this configuration in the place of a file: all pipelines that did not come through
    /// [`Handle::add`] are to be those of it. The tables beside the pipelines count from the next start on.
    ///
    /// # Errors
    /// As [`Handle::reload`].
    pub async fn reload_with(
        &self,
        config: config::Config,
        dry_run: bool,
    ) -> Result<ReloadReport, ControlError> {
        self.ask_to_reload(ReloadInput::Given(Box::new(config)), dry_run).await
    }

    /// Has a pipeline, from wherever it came, be this one from now on: in place where that can be, as a reload does.
    /// All others stay as they are.
    ///
    /// # Errors
    /// There is no pipeline of this name, or else as [`Handle::reload`].
    pub async fn replace(
        &self,
        pipeline: config::Pipeline,
        dry_run: bool,
    ) -> Result<ReloadedPipeline, ControlError> {
        let name = pipeline.name.clone();
        let report = self.ask_to_reload(ReloadInput::Pipeline(Box::new(pipeline)), dry_run).await?;
        let told = report.pipelines.into_iter().find(|told| told.pipeline == name);
        told.ok_or(ControlError::NotFound(name))
    }

    async fn ask_to_reload(&self, input: ReloadInput, dry_run: bool) -> Result<ReloadReport, ControlError> {
        self.ask(|answer| Command::Reload(ReloadCommand { input, dry_run, answer: Some(answer) })).await
    }

    /// What is kept in memory alone of one pipeline, or of each: by transform, where that is anything.
    pub(crate) async fn state_in_memory(
        &self,
        pipeline: Option<String>,
    ) -> Result<Vec<(String, Generation)>, ControlError> {
        self.order(|answer| PipelineOrder::ShowState(pipeline, answer)).await
    }

    /// Forgets what the plugins of a pipeline knew, or that of one transform: in memory, and on the disk, where
    /// that of a pipeline that was removed is too.
    ///
    /// # Errors
    /// If the pipeline is not stopped, nothing is kept, or the disk does not do it.
    pub async fn clear_state(&self, pipeline: &str, transform: Option<&str>) -> Result<(), ControlError> {
        let transform = transform.map(str::to_owned);
        self.order(|answer| PipelineOrder::ClearState(pipeline.to_owned(), transform, answer)).await
    }

    /// Has a plugin run in this component, as if its file had changed, and waits until that is decided. What runs is
    /// written into the plugin folder.
    ///
    /// # Errors
    /// The component cannot run here, or no plugin can have this name. One that a pipeline refuses has a verdict that
    /// says so.
    ///
    /// # Cancel safety
    /// The component is tried all the same if the future is dropped.
    pub async fn swap(
        &self,
        plugin: &str,
        component: Bytes,
        options: SwapOptions,
    ) -> Result<Verdict, ControlError> {
        if !is_plugin_name(plugin) {
            return Err(ControlError::BadName(plugin.to_owned()));
        }
        let plugin = plugin.to_owned();
        // Its digest takes a moment.
        let candidate = tokio::task::spawn_blocking(move || Candidate::sent(&plugin, component)).await;
        let candidate = candidate.map_err(|error| ControlError::Hung(error.to_string()))?;
        self.ask(|answer| Command::Swap(candidate, options, answer)).await
    }

    /// Has the version of a plugin run again that ran before, or the one whose digest begins with `to`. State is carried
    /// where that version takes it. What runs is written into the plugin folder.
    ///
    /// # Errors
    /// There is no such plugin or version, or it cannot be had back.
    pub async fn roll_back(&self, plugin: &str, to: Option<&str>) -> Result<Verdict, ControlError> {
        let to = to.map(str::to_owned);
        self.ask(|answer| Command::RollBack(plugin.to_owned(), to, answer)).await
    }

    async fn order<T>(&self, order: impl FnOnce(Answer<T>) -> PipelineOrder) -> Result<T, ControlError> {
        self.ask(|answer| Command::Pipeline(order(answer))).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, ControlError> {
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.map_err(|_| ControlError::Ended)?;
        answer.await.unwrap_or(Err(ControlError::Ended))
    }
}
