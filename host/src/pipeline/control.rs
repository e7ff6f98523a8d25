//! What a running pipeline is told, and how it answers.

use super::update::Update;
use crate::dead_letters::RetryOrder;
use crate::generation::Position;
use crate::plugin::{Fault, Instance, Setup};
use crate::verdict::{CarriedState, ShadowDifference};
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a pipeline is told while it runs. It looks at its control channel at any moment, also while a
/// plugin works.
#[derive(Debug)]
pub enum Control {
    /// Change something about the version that a stage runs, before the next call of its plugin.
    Change(VersionChange),
    /// Take dead letters in again, as the pipeline has room for them.
    Retry(Box<RetryOrder>),
    /// Take over another configuration, before the next call of a plugin.
    Update(Box<Update>),
    /// Stop reading, finish what is in flight until the deadline, close.
    Stop {
        /// When what is still in flight is given up.
        deadline: tokio::time::Instant,
    },
}

/// What is done between two calls of a plugin.
#[derive(Debug)]
pub enum VersionChange {
    /// Exchange the version.
    Swap(Box<Swap>),
    /// Let another version see what the running one gets.
    Shadow(Box<ShadowOffer>),
    /// Put the version before back, if it is still kept.
    RollBack {
        /// The number of the stage.
        stage: usize,
        /// The version that is to go.
        version: Arc<str>,
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
    /// How the version before is kept, if it is. Where the same version runs already, with other code, what is kept
    /// stays as it is.
    pub probation: Option<ProbationTerms>,
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

/// How the version before a swap is kept.
#[derive(Debug)]
pub struct ProbationTerms {
    /// For so long it can be put back.
    pub keeps: Duration,
    /// For so long, at most as long as it is kept, faults of the new version count.
    pub counts: Duration,
    /// So many are no reason yet.
    pub max_faults: u64,
    /// Where it is told that the version before was put back. It is dropped once that cannot be any more.
    pub verdict: oneshot::Sender<RolledBack>,
}

/// The version before a swap was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The faults of the version that is gone; `None` where it had not faulted too often here.
    pub reason: Option<String>,
}

/// A version of a plugin that is to see what the running one gets.
#[derive(Debug)]
pub struct ShadowOffer {
    /// The number of the stage.
    pub stage: usize,
    /// The new version, initialised with the stage's configuration: an instance for each that runs.
    pub candidates: Vec<Instance>,
    /// What they were made with: [`Setup::beside`] of the stage's.
    pub setup: Setup,
    /// It is to see so many messages.
    pub messages: u64,
    /// Whether it starts without the state of the old one.
    pub fresh: bool,
    /// For so long no message may come.
    pub patience: Duration,
    /// Told once it begins.
    pub begun: oneshot::Sender<()>,
    /// Where the verdict goes. It is dropped unanswered where the pipeline ends before that.
    pub verdict: oneshot::Sender<Shadowed>,
}

/// How a version fared in shadow.
#[derive(Debug)]
pub struct Shadowed {
    /// Whether it may take over.
    pub outcome: ShadowOutcome,
    /// What was compared.
    pub counts: ShadowCounts,
    /// The first message that the versions made different things of.
    pub first: Option<ShadowDifference>,
    /// The instances that are not needed any more; dropping them takes time.
    pub retired: Vec<Instance>,
}

/// How a shadow ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShadowOutcome {
    /// It has seen all that it was to see, or there was nothing to compare it with.
    Passed,
    /// It has failed.
    Faulted(Fault),
    /// For so long no message came.
    Silent(Duration),
}

/// Messages that a version saw in shadow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Both versions made the same of them.
    pub same: u64,
    /// They made different things of them; a call of the timer that differs counts as one.
    pub different: u64,
    /// Calls in which the version in shadow failed.
    pub faulted: u64,
}

impl ShadowCounts {
    /// Each count, by the label `outcome` of metrics.
    pub fn by_outcome(&self) -> [(&'static str, u64); 3] {
        [("same", self.same), ("different", self.different), ("faulted", self.faulted)]
    }
}

impl AddAssign for ShadowCounts {
    fn add_assign(&mut self, more: Self) {
        self.same += more.same;
        self.different += more.different;
        self.faulted += more.faulted;
    }
}

impl VersionChange {
    /// Whether whoever asked for it has waited too long, and takes it that nothing has changed.
    pub(super) fn is_forgotten(&self) -> bool {
        match self {
            Self::Swap(swap) => swap.verdict.is_closed(),
            Self::Shadow(offer) => offer.verdict.is_closed(),
            Self::RollBack { .. } => false,
        }
    }
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
