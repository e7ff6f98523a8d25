//! What a running pipeline is told, and how it answers.

use crate::dead_letters::RetryOrder;
use crate::generation::Position;
use crate::plugin::{Fault, Instance};
use crate::verdict::CarriedState;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a pipeline is told while it runs. It looks at its control channel at any moment, also while a
/// plugin works.
#[derive(Debug)]
pub enum Control {
    /// Exchange the version of a plugin that a stage runs, before the next call of that plugin.
    Swap(Box<Swap>),
    /// Take dead letters in again, as the pipeline has room for them.
    Retry(Box<RetryOrder>),
    /// Stop reading, finish what is in flight until the deadline, close.
    Stop {
        /// When what is still in flight is given up.
        deadline: tokio::time::Instant,
    },
}

/// A version of a plugin that is ready to take over.
#[derive(Debug)]
pub struct Swap {
    /// The number of the stage.
    pub stage: usize,
    /// The new version, initialised with the stage's configuration: an instance for each that runs.
    pub next: Vec<Instance>,
    /// Whether it starts without the state of the old one.
    pub fresh: bool,
    /// Where the verdict goes. It is dropped unanswered where the pipeline ends before the swap.
    pub verdict: oneshot::Sender<Swapped>,
}

/// How a swap went at one stage.
#[derive(Debug)]
pub struct Swapped {
    /// What became of the state, or why the old version runs on.
    pub outcome: Result<CarriedState, Fault>,
    /// How long the pipeline stood still.
    pub pause: Duration,
    /// The instances that are not needed any more; dropping them takes time.
    pub retired: Vec<Instance>,
}

/// How a pipeline ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The source of the pipeline has ended.
    Finished,
    /// It was told to.
    Stopped,
    /// It could not go on.
    Failed(String),
}

/// A running pipeline's account of its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How the pipeline has ended.
    pub ending: Ending,
    /// Messages that were still in flight when the grace period ran out, or that waited for a plugin which
    /// fails again and again when the stop came; `None` if everything reached its end.
    pub given_up: Option<u64>,
    /// Where the pipeline goes on when it is started again.
    pub resume: Resume,
}

/// Where a pipeline that has ended goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// With what the host keeps for its stages, and with its source where it was read to.
    Here(Option<Position>),
    /// With the newest generation on the disk: what the host keeps is of no one moment.
    Newest,
}
