//! The pipelines of a host, running or not: starting them, stopping them, and what becomes of them.
//!
//! Stopping takes until the pipeline has drained. Nobody waits for it here: who asked is answered
//! when its task has ended.

use super::ends::OpenError;
use super::shelf::Refusal;
use super::swap::Use;
use super::task::Task;
use crate::config;
use crate::control::{Answer, Command, ControlError, Described};
use crate::pipeline::{self, Control, Ended, Ending, Parts};
use crate::plugin::Setup;
use crate::telemetry::PipelineState;
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::Instant;

/// A pipeline, and what runs it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) config: Arc<config::Pipeline>,
    pub(super) phase: Phase,
    /// Who waits for its end.
    waiting: Vec<Then>,
}

/// What a pipeline does, as far as telling it something goes.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing.
    Down,
    /// It starts once its plugins are there.
    Waiting,
    /// It runs.
    Up {
        control: mpsc::Sender<Control>,
        /// The setup of each stage, to make the instances of a swap.
        setups: Vec<Setup>,
    },
    /// It was told to stop, and has not ended.
    Stopping,
}

/// What is done when a pipeline has ended.
#[derive(Debug)]
enum Then {
    Tell(Answer<Described>),
    Remove(Answer<()>),
}

/// Why a pipeline does not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Open(OpenError),
}

impl Then {
    /// Tells who asked, unless they have gone.
    fn answer(self, result: Result<Described, ControlError>) {
        let _ = match self {
            Self::Tell(answer) => answer.send(result).is_ok(),
            Self::Remove(answer) => answer.send(result.map(drop)).is_ok(),
        };
    }
}

impl From<StartError> for ControlError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Refused(refusal) => Self::Refused(refusal.to_string()),
            StartError::Open(error) => Self::Open(error.to_string()),
        }
    }
}

impl Line {
    pub(super) fn new(config: config::Pipeline) -> Self {
        Self { config: Arc::new(config), phase: Phase::Down, waiting: Vec::new() }
    }

    /// Tells it to stop, if it runs.
    pub(super) fn stop(&mut self, deadline: Instant) {
        match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Up { control, .. } => {
                // Where the channel is full, that it closes stops the pipeline.
                let _ = control.try_send(Control::Stop { deadline });
                self.phase = Phase::Stopping;
            }
            Phase::Stopping => self.phase = Phase::Stopping,
            Phase::Down | Phase::Waiting => {}
        }
    }
}

impl Task {
    /// Does what a handle says. Whoever asked may have gone since: it is done all the same.
    pub(super) async fn obey(&mut self, command: Command) {
        match command {
            Command::List(answer) => {
                let _ = answer.send(Ok(self.lines.iter().map(|line| self.describe(line)).collect()));
            }
            Command::Add(config, answer) => {
                let _ = answer.send(self.add(*config).await);
            }
            Command::Start(name, answer) => {
                let _ = answer.send(self.start_again(&name).await);
            }
            Command::Stop(name, answer) => self.take_down(&name, Then::Tell(answer)),
            Command::Remove(name, answer) => self.take_down(&name, Then::Remove(answer)),
        }
    }

    /// Starts a pipeline if its plugins are there.
    pub(super) async fn start_line(&mut self, index: usize) -> Result<(), StartError> {
        let config = self.lines[index].config.clone();
        let missing = self.shelf.missing(&config);
        if !missing.is_empty() {
            tracing::warn!(pipeline = %config.name, ?missing, "pipeline waits for its plugins");
            self.status.set(&config.name, PipelineState::Waiting { plugins: missing });
            self.lines[index].phase = Phase::Waiting;
            return Ok(());
        }
        self.lines[index].phase = Phase::Down;
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
        self.lines[index].phase = Phase::Up { control, setups };
        let waits = config.endpoints().any(|(_, endpoint)| endpoint.check_connection.is_some());
        let status = self.status.clone();
        let started = {
            let name = name.clone();
            move || {
                status.set(&name, PipelineState::Running);
                tracing::info!(pipeline = %name, "pipeline running");
            }
        };
        if !waits {
            started();
        }
        self.running.spawn(async move {
            let connected = || {
                if waits {
                    started();
                }
            };
            // A fault of ours in one pipeline is no reason to lose the others.
            let ended = AssertUnwindSafe(line.run(connected)).catch_unwind().await;
            let panicked = Ended { ending: Ending::Failed("it panicked".to_owned()), given_up: None };
            (name, ended.unwrap_or(panicked))
        });
        Ok(())
    }

    /// Starts the pipelines that waited for a plugin and now have all they need.
    pub(super) async fn start_waiting(&mut self, plugin: &str) {
        for index in 0..self.lines.len() {
            let line = &self.lines[index];
            let needs = line.config.transforms.iter().any(|transform| transform.plugin.expose() == plugin);
            if needs && matches!(line.phase, Phase::Waiting) {
                let started = self.start_line(index).await;
                self.note_failure(index, started.as_ref().err());
            }
        }
    }

    /// The stages that run a plugin now.
    pub(super) fn uses(&self, plugin: &str) -> Vec<Use> {
        let mut uses = Vec::new();
        for line in &self.lines {
            let Phase::Up { control, setups } = &line.phase else { continue };
            for (stage, setup) in setups.iter().enumerate() {
                if line.config.transforms[stage].plugin.expose() == plugin {
                    uses.push(Use {
                        pipeline: line.config.clone(),
                        stage,
                        setup: setup.clone(),
                        control: control.clone(),
                    });
                }
            }
        }
        uses
    }

    /// A pipeline's task has ended.
    pub(super) fn ended(&mut self, joined: Result<(Arc<str>, Ended), JoinError>) {
        let (name, Ended { ending, given_up }) =
            joined.expect("a pipeline catches its panics and is not aborted");
        self.given_up += given_up.unwrap_or(0);
        self.is_late |= self.is_stopping && given_up.is_some();
        let state = match ending {
            Ending::Finished => PipelineState::Finished,
            Ending::Stopped => PipelineState::Stopped,
            Ending::Failed(error) => {
                tracing::error!(pipeline = %name, error, "pipeline failed");
                PipelineState::Failed { error }
            }
        };
        tracing::info!(pipeline = %name, ?state, "pipeline ended");
        self.status.set(&name, state);
        if let Ok(index) = self.find(&name) {
            self.lines[index].phase = Phase::Down;
            self.settle(index);
        }
    }

    async fn add(&mut self, config: config::Pipeline) -> Result<Described, ControlError> {
        let name = config.name.clone();
        if self.find(&name).is_ok() {
            return Err(ControlError::Taken(name));
        }
        let index = self.lines.len();
        self.lines.push(Line::new(config));
        match self.start_line(index).await {
            Ok(()) => Ok(self.describe(&self.lines[index])),
            Err(error) => {
                self.lines.pop();
                self.status.remove(&name);
                Err(error.into())
            }
        }
    }

    async fn start_again(&mut self, name: &str) -> Result<Described, ControlError> {
        let index = self.find(name)?;
        match self.lines[index].phase {
            Phase::Up { .. } | Phase::Waiting => {}
            Phase::Stopping => return Err(ControlError::Stopping(name.to_owned())),
            Phase::Down => {
                let started = self.start_line(index).await;
                self.note_failure(index, started.as_ref().err());
                started?;
            }
        }
        Ok(self.describe(&self.lines[index]))
    }

    fn note_failure(&self, index: usize, error: Option<&StartError>) {
        if let Some(error) = error {
            let name = &self.lines[index].config.name;
            let error = error.to_string();
            tracing::error!(pipeline = %name, error, "pipeline does not start");
            self.status.set(name, PipelineState::Failed { error });
        }
    }

    /// Stops a pipeline, if it runs; `then` is done once it does not.
    fn take_down(&mut self, name: &str, then: Then) {
        let index = match self.find(name) {
            Ok(index) => index,
            Err(error) => return then.answer(Err(error)),
        };
        let line = &mut self.lines[index];
        line.waiting.push(then);
        line.stop(Instant::now() + self.grace);
        let is_down = matches!(line.phase, Phase::Down);
        let name = &line.config.name;
        if !is_down {
            self.status.set(name, PipelineState::Stopping);
        } else {
            if self.status.get(name) != Some(PipelineState::Finished) {
                self.status.set(name, PipelineState::Stopped);
            }
            self.settle(index);
        }
    }

    /// Answers those who waited for a pipeline's end.
    fn settle(&mut self, index: usize) {
        let waiting = std::mem::take(&mut self.lines[index].waiting);
        let described = self.describe(&self.lines[index]);
        if waiting.iter().any(|then| matches!(then, Then::Remove(_))) {
            let line = self.lines.remove(index);
            self.status.remove(&line.config.name);
            tracing::info!(pipeline = %line.config.name, "pipeline removed");
        }
        for then in waiting {
            then.answer(Ok(described.clone()));
        }
    }

    fn find(&self, name: &str) -> Result<usize, ControlError> {
        let found = self.lines.iter().position(|line| line.config.name == name);
        found.ok_or_else(|| ControlError::NotFound(name.to_owned()))
    }

    fn describe(&self, line: &Line) -> Described {
        let state = self.status.get(&line.config.name).unwrap_or(PipelineState::Stopped);
        Described { config: line.config.clone(), state }
    }
}
