//! Another configuration for a pipeline that runs: everything that it brings, ready to take over.

use crate::config;
use crate::plugin::{Fault, Instance, Setup};
use crate::sink::Sink;
use crate::telemetry::Metrics;
use crate::verdict::CarriedState;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a pipeline is to be from now on. Its source is what it was.
#[derive(Debug)]
pub struct Update {
    /// The stages, in order. Those that are not named go.
    pub stages: Vec<StageUpdate>,
    /// The sinks, in order. Those that are not named go.
    pub sinks: Vec<SinkUpdate>,
    /// The sink of dead letters.
    pub dead_letter: DeadLetterUpdate,
    /// How long what goes may take to be through with what it has.
    pub patience: Duration,
    /// Where what comes counts.
    pub metrics: Arc<Metrics>,
    /// Where it is told what became of it. It is dropped unanswered where the pipeline ends before.
    pub verdict: oneshot::Sender<Updated>,
}

/// A transform with all that its stage is made of.
pub type StageParts = (config::Transform, Setup, Vec<Instance>);

/// A stage of an update.
#[derive(Debug)]
pub enum StageUpdate {
    /// The stage of this name, as it is.
    Kept(Arc<str>),
    /// The stage of this name, with other keys that the host alone acts on.
    Adjusted(config::Transform),
    /// A stage with new instances, which go on with what those of the stage of its name know. They have been
    /// initialised.
    Renewed {
        /// All that it is made of.
        parts: StageParts,
        /// Whether what the old ones know is shared out anew, rather than given from one to one.
        shares_out: bool,
    },
    /// A stage that was not there.
    Added(StageParts),
}

/// A sink of an update.
#[derive(Debug)]
pub struct SinkUpdate {
    /// Its name.
    pub name: Arc<str>,
    /// The outputs that it takes.
    pub takes: config::Outputs,
    /// Its end; `None` is that of the sink of this name, which stays.
    pub end: Option<Sink>,
}

/// What an update makes of the sink of dead letters.
#[derive(Debug)]
pub enum DeadLetterUpdate {
    /// It stays as it is.
    Kept,
    /// This one takes its place, or none does.
    Exchanged(Option<Box<Sink>>),
}

/// How an update went.
#[derive(Debug)]
pub struct Updated {
    /// Each stage with new instances, or why the pipeline goes on as it was.
    pub outcome: Result<Vec<RenewedStage>, NotRenewed>,
    /// The labels of the stages whose version is not on probation any more.
    pub ended_probations: Vec<Arc<str>>,
    /// How long the pipeline stood still.
    pub pause: Duration,
    /// The instances that are not needed any more; dropping them takes time.
    pub retired: Vec<Instance>,
    /// Resolves once the sinks that go have gone.
    pub departure: oneshot::Receiver<Departure>,
}

/// How the state of a stage fared that has new instances.
#[derive(Debug)]
pub struct RenewedStage {
    /// The label of the stage.
    pub transform: Arc<str>,
    /// What became of the state.
    pub state: CarriedState,
    /// Why the plugin begins without the state that it was to share out.
    pub refusal: Option<Fault>,
}

/// Why a stage cannot have new instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRenewed {
    /// The label of the stage.
    pub transform: Arc<str>,
    /// The reason, as a text that stands alone.
    pub why: String,
}

/// The sinks and stages that have gone with an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// The name of each that had to give up messages, and how many.
    pub given_up: Vec<(Arc<str>, u64)>,
}
