//! The pipelines of a host, running or not: what each does, and what becomes of what it is told.
//!
//! Everything here decides and returns at once. What takes time is a job (`start.rs`) or the
//! pipeline's own task; its result comes back to the functions below. Whoever asked is answered then.

mod uses;
mod waiting;

use super::ends::Opened;
use super::job::Done;
use super::shelf::Ready;
use super::start::{self, StartError};
use super::task::Task;
use crate::config;
use crate::control::{Answer, Command, ControlError};
use crate::pipeline::{self, Control, Ended, Ending, Parts};
use crate::plugin::{Plugin, Setup};
use crate::telemetry::{Described, PipelineState};
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A pipeline, and what runs it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) config: Arc<config::Pipeline>,
    pub(super) phase: Phase,
    /// It came through a handle, and it is not decided whether it starts: if not, it never was.
    is_new: bool,
    /// It came with the configuration, and it is not decided whether it starts.
    pub(super) is_booting: bool,
    /// What a new version of a plugin means for it while it is down.
    pub(super) chance: Chance,
    /// Who waits for what it does now.
    waiting: Vec<Then>,
}

/// What a pipeline does, as far as telling it something goes.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing.
    Down,
    /// It starts once its plugins are there.
    Waiting,
    /// Its stages are being made.
    Preparing {
        cancel: CancellationToken,
        /// The version of the plugin of each.
        versions: Vec<Arc<str>>,
    },
    /// Its stages are made, and nothing is to be opened yet.
    Prepared(Vec<Ready>),
    /// Its ends are being opened.
    Opening { cancel: CancellationToken },
    /// It runs.
    Up { control: mpsc::Sender<Control>, stages: Vec<Running> },
    /// It was told to stop, and its job or its task has not ended.
    Stopping,
}

/// A stage of a pipeline that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// What instances are made with.
    setup: Setup,
    /// The version that it runs.
    version: Arc<str>,
    /// The newer version that it did not take.
    refused: Option<Arc<str>>,
}

/// What a new version of a plugin means for a pipeline that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chance {
    /// Nothing.
    None,
    /// It is started anew.
    Restart,
    /// It is started anew, and the host does not end before: its plugin came to a host that ran.
    Awaited,
}

/// Who is answered, and when.
#[derive(Debug)]
enum Then {
    /// Once it is decided whether it starts.
    Started(Answer<Described>),
    /// Once it is down.
    Stopped(Answer<Described>),
    /// Once it is down, and then it is removed.
    Removed(Answer<()>),
}

impl From<&StartError> for ControlError {
    fn from(error: &StartError) -> Self {
        match error {
            StartError::Refused(refusal) => Self::Refused(refusal.to_string()),
            StartError::Open(error) => Self::Open(error.to_string()),
            other => Self::Hung(other.to_string()),
        }
    }
}

impl Line {
    pub(super) fn new(config: Arc<config::Pipeline>) -> Self {
        let (phase, chance, waiting) = (Phase::Down, Chance::None, Vec::new());
        Self { config, phase, is_new: false, is_booting: false, chance, waiting }
    }

    /// Whether one of its transforms runs this plugin.
    pub(super) fn uses(&self, plugin: &str) -> bool {
        self.config.transforms.iter().any(|transform| transform.plugin.expose() == plugin)
    }

    /// Whether it was told to stop and has not ended.
    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping)
    }

    /// Whether a host whose pipelines end has to wait for it.
    pub(super) fn is_awaited(&self) -> bool {
        !matches!(self.phase, Phase::Down) || self.chance == Chance::Awaited
    }
}

impl Task {
    /// Does what a handle says. Whoever asked may have gone since: it is done all the same.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Add(config, answer) => self.add(Arc::new(*config), answer),
            Command::Start(name, answer) => self.start_again(&name, answer),
            Command::Stop(name, answer) => self.take_down(&name, Then::Stopped(answer)),
            Command::Remove(name, answer) => self.take_down(&name, Then::Removed(answer)),
        }
    }

    /// Starts a pipeline that is down or waits, if its plugins are there. If one of them is on its way, that
    /// is waited for; if not, the pipeline waits, and that is an answer.
    pub(super) fn start_line(&mut self, index: usize) {
        let line = &mut self.lines[index];
        line.chance = Chance::None;
        // Who comes before its ends are open waits for them.
        let config = line.config.clone();
        self.ends.listeners().expect(&config);
        let name: Arc<str> = config.name.as_str().into();
        let missing = match self.shelf.all_of(&config) {
            Ok(plugins) => {
                let cancel = CancellationToken::new();
                let versions = plugins.iter().map(|plugin| plugin.version().clone()).collect();
                line.phase = Phase::Preparing { cancel: cancel.clone(), versions };
                self.status.set(&name, PipelineState::Starting);
                let (config, metrics) = (config.clone(), self.metrics.clone());
                self.jobs.spawn(async move {
                    let result = start::prepare(&config, &plugins, &metrics, &cancel).await;
                    Done::Prepared { pipeline: name, result }
                });
                return;
            }
            Err(missing) => missing,
        };
        line.phase = Phase::Waiting;
        // All of them are asked for, whether one is missing or not.
        let coming = missing.iter().filter(|plugin| self.fall_back(plugin.expose())).count();
        if coming == missing.len() {
            self.status.set(&name, PipelineState::Starting);
            return;
        }
        let waits = self.waits_for(&missing);
        // Each look at the plugins comes to this again.
        if self.status.get(&name).is_none_or(|described| described.state != waits) {
            self.status.set(&name, waits.clone());
            self.say_waiting(&name, &waits);
        }
        self.decided(index, None);
    }

    /// The stages of a pipeline are made, or not.
    pub(super) fn prepared(&mut self, name: &str, result: Result<Vec<Ready>, StartError>) {
        let Some(index) = self.find(name) else { return };
        let line = &mut self.lines[index];
        let Phase::Preparing { versions, .. } = &line.phase else {
            self.retire(result.unwrap_or_default());
            return self.is_down(index, PipelineState::Stopped);
        };
        let newest = self.shelf.all_of(&line.config).unwrap_or_default();
        if !newest.iter().map(|plugin| plugin.version()).eq(versions) {
            // What was made is the past, and what was refused may be mended.
            self.retire(result.unwrap_or_default());
            return self.start_line(index);
        }
        match result {
            Ok(stages) => {
                line.phase = Phase::Prepared(stages);
                if !self.is_gate_closed() {
                    self.open_line(index);
                }
            }
            Err(error) => self.not_started(index, error),
        }
    }

    /// Opens the ends of a pipeline whose stages are made.
    pub(super) fn open_line(&mut self, index: usize) {
        let line = &mut self.lines[index];
        let cancel = CancellationToken::new();
        match std::mem::replace(&mut line.phase, Phase::Opening { cancel: cancel.clone() }) {
            Phase::Prepared(stages) => {
                let (config, ends) = (line.config.clone(), self.ends.clone());
                self.jobs.spawn(async move {
                    let result = start::open(&config, &ends, &cancel).await;
                    Done::Opened { pipeline: config.name.as_str().into(), stages, result }
                });
            }
            other => line.phase = other,
        }
    }

    /// The ends of a pipeline are open, or not.
    pub(super) fn opened(&mut self, name: &str, stages: Vec<Ready>, result: Result<Box<Opened>, StartError>) {
        let Some(index) = self.find(name) else { return };
        self.ends.listeners().expect_no_more(name);
        let line = &mut self.lines[index];
        if !matches!(line.phase, Phase::Opening { .. }) {
            self.retire(stages);
            return self.is_down(index, PipelineState::Stopped);
        }
        let Opened { source, sinks, dead_letter } = match result {
            Ok(opened) => *opened,
            Err(error) => {
                self.retire(stages);
                return self.not_started(index, error);
            }
        };
        let config = line.config.clone();
        let name: Arc<str> = config.name.as_str().into();
        let running = stages.iter().map(|(_, setup, instance)| Running {
            setup: setup.clone(),
            version: instance.plugin().version().clone(),
            refused: None,
        });
        let running = running.collect();
        let parts = Parts { name: name.clone(), source, transforms: stages, sinks, dead_letter };
        let (runner, control) = pipeline::build(parts, &self.metrics);
        line.phase = Phase::Up { control, stages: running };
        let waits = config.endpoints().any(|(_, endpoint)| endpoint.check_connection.is_some());
        let started = {
            let (status, name) = (self.status.clone(), name.clone());
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
            let ended = AssertUnwindSafe(runner.run(connected)).catch_unwind().await;
            let panicked = Ended { ending: Ending::Failed("it panicked".to_owned()), given_up: None };
            (name, ended.unwrap_or(panicked))
        });
        self.decided(index, None);
        // A version that came while its ends were opened.
        for transform in &config.transforms {
            self.catch_up(transform.plugin.expose());
        }
    }

    /// A pipeline does not start.
    fn not_started(&mut self, index: usize, error: StartError) {
        let line = &mut self.lines[index];
        let name = &line.config.name;
        self.ends.listeners().expect_no_more(name);
        let text = error.to_string();
        tracing::error!(pipeline = %name, error = text, "pipeline does not start");
        self.status.set(name, PipelineState::Failed { error: text });
        line.phase = Phase::Down;
        if error.is_the_plugins() {
            let may_come = !line.is_booting && self.folder.is_watched();
            line.chance = if may_come { Chance::Awaited } else { Chance::Restart };
        }
        self.decided(index, Some(error));
    }

    /// It is decided whether a pipeline starts: tells who waits for that.
    fn decided(&mut self, index: usize, error: Option<StartError>) {
        let line = &mut self.lines[index];
        let name = line.config.name.clone();
        let state = self.status.get(&name);
        let answer = match (&error, state) {
            (Some(error), _) => Err(ControlError::from(error)),
            (None, Some(described)) => Ok(described),
            (None, None) => Err(ControlError::NotFound(name.clone())),
        };
        let (started, others) =
            std::mem::take(&mut line.waiting).into_iter().partition(|then| matches!(then, Then::Started(_)));
        line.waiting = others;
        let was_booting = std::mem::replace(&mut line.is_booting, false);
        let was_new = std::mem::replace(&mut line.is_new, false);
        if let Some(error) = error {
            if was_booting {
                self.not_booted(name.clone(), error);
            }
            if was_new {
                self.lines.remove(index);
                self.status.remove(&name);
                self.ends.forget(&name);
            }
        }
        answer_all(started, &answer);
    }

    /// A pipeline's task has ended.
    pub(super) fn ended(&mut self, joined: Result<(Arc<str>, Ended), JoinError>) {
        let (name, Ended { ending, given_up }) = match joined {
            Ok(ended) => ended,
            // It catches its panics; it is aborted at the very end alone.
            Err(error) => return tracing::error!(%error, "the task of a pipeline is lost"),
        };
        if let Some(given_up) = given_up {
            self.cut_off(&name, given_up);
        }
        let state = match ending {
            Ending::Finished => PipelineState::Finished,
            Ending::Stopped => PipelineState::Stopped,
            Ending::Failed(error) => {
                tracing::error!(pipeline = %name, error, "pipeline failed");
                PipelineState::Failed { error }
            }
        };
        tracing::info!(pipeline = %name, ?state, "pipeline ended");
        let Some(index) = self.find(&name) else { return };
        let line = &mut self.lines[index];
        let was_told = matches!(line.phase, Phase::Stopping);
        let has_failed = matches!(state, PipelineState::Failed { .. }) && !was_told;
        if has_failed && !line.config.transforms.is_empty() {
            line.chance = Chance::Restart;
        }
        let ran = match &line.phase {
            Phase::Up { stages, .. } => stages.iter().map(|stage| stage.version.clone()).collect(),
            _ => Vec::new(),
        };
        let newest = line.config.transforms.iter().map(|each| self.shelf.get(each.plugin.expose()));
        let is_newer = |(plugin, ran): (Option<&Plugin>, &Arc<str>)| {
            plugin.is_some_and(|plugin| plugin.version() != ran)
        };
        let has_newer = has_failed && newest.zip(&ran).any(is_newer);
        self.is_down(index, state);
        // A version that came while it drained.
        if has_newer && let Some(index) = self.find(&name) {
            tracing::info!(pipeline = %name, "a failed pipeline gets another chance");
            self.start_line(index);
        }
    }

    /// Starts the pipelines that wait for this plugin, as far as they can.
    pub(super) fn start_waiting(&mut self, plugin: &str) {
        for index in 0..self.lines.len() {
            if matches!(self.lines[index].phase, Phase::Waiting) && self.lines[index].uses(plugin) {
                self.start_line(index);
            }
        }
    }

    /// Starts the pipelines anew that failed with another version of this plugin.
    pub(super) fn revive(&mut self, plugin: &str) {
        for index in 0..self.lines.len() {
            let line = &self.lines[index];
            if matches!(line.phase, Phase::Down) && line.chance != Chance::None && line.uses(plugin) {
                tracing::info!(pipeline = %line.config.name, plugin, "a failed pipeline gets another chance");
                self.start_line(index);
            }
        }
    }

    fn add(&mut self, config: Arc<config::Pipeline>, answer: Answer<Described>) {
        let name = config.name.clone();
        if self.find(&name).is_some() {
            return answer_all(vec![Then::Started(answer)], &Err(ControlError::Taken(name)));
        }
        match self.ends.note(&config) {
            Ok(noted) => noted.keep(),
            Err(error) => {
                return answer_all(vec![Then::Started(answer)], &Err(ControlError::Open(error.to_string())));
            }
        }
        for (warning, hint) in self.ends.listeners().open_doors(&config) {
            tracing::warn!(pipeline = %name, warning, hint, "odd configuration");
        }
        self.status.add(config.clone(), PipelineState::Starting);
        let mut line = Line::new(config);
        line.is_new = true;
        line.waiting.push(Then::Started(answer));
        self.lines.push(line);
        self.start_line(self.lines.len() - 1);
    }

    fn start_again(&mut self, name: &str, answer: Answer<Described>) {
        let then = Then::Started(answer);
        let Some(index) = self.find(name) else {
            return answer_all(vec![then], &Err(ControlError::NotFound(name.to_owned())));
        };
        match self.lines[index].phase {
            Phase::Stopping => answer_all(vec![then], &Err(ControlError::Stopping(name.to_owned()))),
            Phase::Up { .. } => answer_all(vec![then], &self.describe(name)),
            Phase::Preparing { .. } | Phase::Prepared(_) | Phase::Opening { .. } => {
                self.lines[index].waiting.push(then);
            }
            Phase::Down | Phase::Waiting => {
                self.lines[index].waiting.push(then);
                self.start_line(index);
            }
        }
    }

    /// Stops a pipeline, if it does anything; `then` is done once it does not.
    fn take_down(&mut self, name: &str, then: Then) {
        let Some(index) = self.find(name) else {
            return answer_all(vec![then], &Err(ControlError::NotFound(name.to_owned())));
        };
        self.lines[index].waiting.push(then);
        self.stop_line(index, Instant::now() + self.grace);
        if matches!(self.lines[index].phase, Phase::Down) {
            let state = self.status.get(name).map(|described| described.state);
            let has_finished = state == Some(PipelineState::Finished);
            self.is_down(index, if has_finished { PipelineState::Finished } else { PipelineState::Stopped });
        }
    }

    /// Tells a pipeline to stop, whatever it does.
    pub(super) fn stop_line(&mut self, index: usize, deadline: Instant) {
        let line = &mut self.lines[index];
        line.chance = Chance::None;
        line.is_booting = false;
        line.is_new = false;
        self.ends.listeners().expect_no_more(&line.config.name);
        match std::mem::replace(&mut line.phase, Phase::Stopping) {
            Phase::Up { control, .. } => {
                if let Err(mpsc::error::TrySendError::Full(stop)) =
                    control.try_send(Control::Stop { deadline })
                {
                    // Swaps wait before it. The job waits for them, and nobody for the job.
                    self.jobs.spawn(async move {
                        let told = control.send(stop).await;
                        tracing::debug!(is_told = told.is_ok(), "a pipeline was told to stop after swaps");
                        Done::Other
                    });
                }
            }
            Phase::Preparing { cancel, .. } | Phase::Opening { cancel } => cancel.cancel(),
            Phase::Prepared(stages) => {
                line.phase = Phase::Down;
                self.retire(stages);
            }
            Phase::Down | Phase::Waiting => line.phase = Phase::Down,
            Phase::Stopping => {}
        }
        let line = &mut self.lines[index];
        if matches!(line.phase, Phase::Stopping) {
            self.status.set(&line.config.name, PipelineState::Stopping);
        }
        let (started, others) =
            std::mem::take(&mut line.waiting).into_iter().partition(|then| matches!(then, Then::Started(_)));
        line.waiting = others;
        let stopping = ControlError::Stopping(line.config.name.clone());
        answer_all(started, &Err(stopping));
    }

    /// A pipeline does nothing any more: tells who waited for that.
    fn is_down(&mut self, index: usize, state: PipelineState) {
        let line = &mut self.lines[index];
        line.phase = Phase::Down;
        let name = line.config.name.clone();
        let waiting = std::mem::take(&mut line.waiting);
        if !matches!(state, PipelineState::Failed { .. }) {
            self.ends.ended_well(&name);
        }
        self.status.set(&name, state);
        let described = self.describe(&name);
        if waiting.iter().any(|then| matches!(then, Then::Removed(_))) {
            self.lines.remove(index);
            self.status.remove(&name);
            self.ends.forget(&name);
            tracing::info!(pipeline = %name, "pipeline removed");
        }
        answer_all(waiting, &described);
    }

    fn describe(&self, name: &str) -> Result<Described, ControlError> {
        self.status.get(name).ok_or_else(|| ControlError::NotFound(name.to_owned()))
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.lines.iter().position(|line| line.config.name == name)
    }

    /// Drops instances where the time that unmapping their memory takes holds nothing up.
    fn retire(&mut self, stages: Vec<Ready>) {
        if !stages.is_empty() {
            self.jobs.spawn_blocking(move || {
                drop(stages);
                Done::Other
            });
        }
    }
}

/// Tells those who asked, unless they have gone.
fn answer_all(waiting: Vec<Then>, result: &Result<Described, ControlError>) {
    for then in waiting {
        let is_told = match then {
            Then::Started(answer) | Then::Stopped(answer) => answer.send(result.clone()).is_ok(),
            Then::Removed(answer) => answer.send(result.clone().map(drop)).is_ok(),
        };
        if !is_told {
            tracing::debug!("who gave a command did not wait for its answer");
        }
    }
}
