//! One pipeline of a host, running or not: what it does, and who waits for that.

use crate::app::instances::Ready;
use crate::app::kept::Kept;
use crate::config;
use crate::connector::Connector;
use crate::control::{Answer, ControlError};
use crate::pipeline::Control;
use crate::plugin::{Instance, Setup};
use crate::telemetry::Described;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A pipeline, and what runs it.
#[derive(Debug)]
pub(super) struct ManagedPipeline {
    pub(super) config: Arc<config::Pipeline>,
    pub(super) phase: PipelinePhase,
    /// What it goes on with, whether it runs or not.
    pub(super) kept: Kept,
    /// Who is asked before its endpoints dial, from its first start on.
    pub(super) connectors: Option<Arc<[Connector]>>,
    /// It came through a handle, and it is not decided whether it starts: if not, it never was.
    pub(super) is_new: bool,
    /// It came through a handle: no configuration file says what becomes of it.
    pub(super) is_from_api: bool,
    /// It stops, and starts again as another then.
    pub(super) is_returning: bool,
    /// It came with the configuration, and it is not decided whether it starts.
    pub(super) is_booting: bool,
    /// What a new version of a plugin means for it while it is down.
    pub(super) revival: Revival,
    /// Who waits for what it does now.
    pub(super) waiting: Vec<AnswerTo>,
}

/// What a pipeline does, as far as telling it something goes.
#[derive(Debug)]
pub(super) enum PipelinePhase {
    /// The pipeline does nothing.
    Down,
    /// It is new, and it is being looked at whether its files are those of another pipeline.
    Checking { cancel: CancellationToken },
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
    /// The pipeline runs.
    Up { control: mpsc::Sender<Control>, stages: Vec<RunningStage> },
    /// It was told to stop, and its job or its task has not ended.
    Stopping,
}

/// A stage of a pipeline that runs.
#[derive(Debug)]
pub(super) struct RunningStage {
    /// The name of the plugin that it runs.
    pub(super) plugin: String,
    /// What instances are made with.
    pub(super) setup: Setup,
    /// The version that it runs.
    pub(super) version: Arc<str>,
    /// Whether it runs the optimised code of it.
    pub(super) is_optimised: bool,
    /// The newer version that it did not take.
    pub(super) refused: Option<Arc<str>>,
}

/// What a new version of a plugin means for a pipeline that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revival {
    /// A new version changes nothing for the pipeline.
    None,
    /// The pipeline is started anew.
    Restart,
    /// It is started anew, and the host does not end before: its plugin came to a host that ran.
    Awaited,
}

/// Who is answered, and when.
#[derive(Debug)]
pub(super) enum AnswerTo {
    /// Once it is decided whether it starts.
    Started(Answer<Described>),
    /// Once it is down.
    Stopped(Answer<Described>),
    /// Once it is down, and then it is removed.
    Removed(Answer<()>),
}

impl RunningStage {
    /// A stage that starts with these instances.
    pub(super) fn new(transform: &config::Transform, setup: &Setup, instances: &[Instance]) -> Self {
        let plugin = instances[0].plugin();
        Self {
            plugin: transform.plugin.expose().to_owned(),
            setup: setup.clone(),
            version: plugin.version().clone(),
            is_optimised: plugin.is_optimised(),
            refused: None,
        }
    }
}

impl ManagedPipeline {
    /// Its configuration, with the texts of files that its stages were given where they run.
    pub(super) fn in_force(&self) -> Arc<config::Pipeline> {
        let PipelinePhase::Up { stages, .. } = &self.phase else { return self.config.clone() };
        if !self.config.transforms.iter().any(|transform| transform.config.has_files()) {
            return self.config.clone();
        }
        let mut in_force = (*self.config).clone();
        for transform in &mut in_force.transforms {
            if let Some(running) = stages.iter().find(|stage| *stage.setup.transform == *transform.name) {
                transform.config = transform.config.as_given(&running.setup.config);
            }
        }
        Arc::new(in_force)
    }

    pub(super) fn new(config: Arc<config::Pipeline>) -> Self {
        let kept = Kept::new(&config);
        let (phase, revival, waiting) = (PipelinePhase::Down, Revival::None, Vec::new());
        let connectors = None;
        Self {
            config,
            phase,
            kept,
            connectors,
            is_new: false,
            is_from_api: false,
            is_returning: false,
            is_booting: false,
            revival,
            waiting,
        }
    }

    /// Whether one of its transforms runs this plugin, or one of its endpoints asks it.
    pub(super) fn uses(&self, plugin: &str) -> bool {
        self.config.plugins().any(|used| used.expose() == plugin)
    }

    /// Whether it neither runs, starts nor stops.
    pub(super) fn does_nothing(&self) -> bool {
        matches!(self.phase, PipelinePhase::Down | PipelinePhase::Waiting)
    }

    /// Whether it was told to stop and has not ended.
    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, PipelinePhase::Stopping)
    }

    /// Whether a host whose pipelines end has to wait for it.
    pub(super) fn is_awaited(&self) -> bool {
        !matches!(self.phase, PipelinePhase::Down) || self.revival == Revival::Awaited
    }
}

/// Tells those who asked, unless they have gone.
pub(super) fn answer_all(waiting: Vec<AnswerTo>, result: &Result<Described, ControlError>) {
    for waiter in waiting {
        let is_told = match waiter {
            AnswerTo::Started(answer) | AnswerTo::Stopped(answer) => answer.send(result.clone()).is_ok(),
            AnswerTo::Removed(answer) => answer.send(result.clone().map(drop)).is_ok(),
        };
        if !is_told {
            tracing::debug!("who gave a command did not wait for its answer");
        }
    }
}
