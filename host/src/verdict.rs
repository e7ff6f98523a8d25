//! What became of attempts to have a plugin run in another version: plain data, and the newest of it.
//!
//! Whoever decides records a [`Verdict`] in the [`SwapLog`]; the API, the log and whoever asked tell it from there.
//! Nothing here decides, and nothing here does anything to a plugin.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Verdicts that are kept; the oldest make room.
const MOST_VERDICTS: usize = 100;

/// What became of one attempt to have a plugin run in a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The name of the plugin.
    pub plugin: String,
    /// Whether the version runs.
    pub outcome: SwapOutcome,
    /// The version that was tried: `sha256:` and the digest of its content. `None` where no content could be had.
    pub version: Option<String>,
    /// The version that ran before, if there was one.
    pub previous: Option<String>,
    /// Milliseconds until there was code that could run, if it came to that.
    pub compile_ms: Option<u64>,
    /// Why the version does not run, or not everywhere.
    pub error: Option<String>,
    /// Why the content was not written into the plugin folder, if it was to be and the version runs all the same.
    pub folder_error: Option<String>,
    /// Who asked for it.
    pub asked_by: AskedBy,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub decided_ms: u64,
    /// Each place that runs the plugin, and each that does not run now and refuses the version.
    pub uses: Vec<UseVerdict>,
}

/// What became of it at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UseVerdict {
    /// The name of the pipeline.
    pub pipeline: String,
    /// The place in the pipeline.
    pub place: UsePlace,
    /// Whether the version runs there.
    pub outcome: SwapOutcome,
    /// What became of the state of the version before, where the version runs.
    pub state: Option<CarriedState>,
    /// Microseconds for which the pipeline stood still.
    pub swap_us: Option<u64>,
    /// Why the version does not run there.
    pub error: Option<String>,
    /// What came of running beside the version before, if it did.
    pub shadow: Option<ShadowVerdict>,
}

/// A place in a pipeline that uses a plugin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsePlace {
    /// The stage with this label runs it.
    Transform(String),
    /// The endpoint of this name asks it before it dials.
    Endpoint(String),
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapOutcome {
    /// The new version runs.
    Swapped,
    /// The new version does not, and the one before goes on.
    Rejected,
    /// The new version ran, failed in its probation, and the one before runs again.
    RolledBack,
    /// Newer content came before it was decided.
    Superseded,
}

/// How the state of the old version reached the new one; of several instances, how the one did that fared worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CarriedState {
    /// The plugin has no state.
    None,
    /// As the old version was at the swap.
    Carried,
    /// As the last good snapshot of the old version has it: what came since is lost.
    Older,
    /// There was state, but it could not be had, or was not wanted.
    Fresh,
}

/// What came of running a version beside the one before, on the same messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowVerdict {
    /// Messages that both answered alike.
    pub same: u64,
    /// Messages that they answered differently.
    pub different: u64,
    /// Messages on which the new version failed.
    pub faulted: u64,
    /// The first message that they answered differently.
    pub first: Option<ShadowDifference>,
}

/// What two versions made of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowDifference {
    /// What the version that runs made of it, as text for people.
    pub old: String,
    /// What the new version made of it, likewise.
    pub new: String,
}

/// Who asked for a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// The start of the host, or of a pipeline that was starting while the version took over.
    Start,
    /// A file of the plugin folder changed.
    Folder,
    /// Somebody sent the component.
    Api,
    /// Somebody wanted an earlier version back.
    Rollback,
    /// A version has failed in its probation somewhere: a place that runs it, and took no part in its swap, gets the one
    /// before as well.
    Probation,
    /// The configuration was read again.
    Reload,
}

/// How a version is to take over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwapOptions {
    /// Whether it starts without the state of the version before.
    pub state_fresh: bool,
    /// Whether it starts without that state where it does not take it.
    pub fresh_if_refused: bool,
    /// The messages that it sees beside the version before it takes over; if `None`, what the transforms say.
    pub shadow: Option<u64>,
    /// The time in which the version before can be put back; if `None`, what the transforms say.
    pub probation: Option<Duration>,
}

/// Finds a verdict again that is to be amended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictId(u64);

/// The newest verdicts of a host. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct SwapLog {
    kept: Arc<Mutex<KeptVerdicts>>,
}

#[derive(Debug, Default)]
struct KeptVerdicts {
    recorded: u64,
    /// The oldest first.
    newest: VecDeque<(VerdictId, Verdict)>,
}

impl std::fmt::Display for UsePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transform(label) => write!(f, "transform {label}"),
            Self::Endpoint(name) => f.write_str(name),
        }
    }
}

impl UseVerdict {
    /// A place that runs the version before, which goes on there.
    pub(crate) fn rejected(pipeline: &str, place: UsePlace, error: Option<String>) -> Self {
        let (pipeline, outcome) = (pipeline.to_owned(), SwapOutcome::Rejected);
        Self { pipeline, place, outcome, state: None, swap_us: None, error, shadow: None }
    }
}

impl SwapOutcome {
    /// The outcome as verdicts and the label `outcome` of metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Swapped => "swapped",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
        }
    }
}

impl CarriedState {
    /// The word for it in verdicts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Carried => "carried",
            Self::Older => "older",
            Self::Fresh => "fresh",
        }
    }
}

impl AskedBy {
    /// The word for it in verdicts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Folder => "folder",
            Self::Api => "api",
            Self::Rollback => "rollback",
            Self::Probation => "probation",
            Self::Reload => "reload",
        }
    }
}

impl SwapOptions {
    /// Without a shadow and without a probation, whatever the transforms say.
    pub(crate) fn at_once() -> Self {
        Self { shadow: Some(0), probation: Some(Duration::ZERO), ..Self::default() }
    }

    /// Back to a version that ran before: at once, and whatever becomes of the state.
    pub(crate) fn back() -> Self {
        Self { fresh_if_refused: true, ..Self::at_once() }
    }
}

impl SwapLog {
    /// Keeps a verdict. What it gives back finds the verdict again, for as long as it is kept.
    pub fn record(&self, verdict: Verdict) -> VerdictId {
        let mut kept = self.lock();
        kept.recorded += 1;
        let id = VerdictId(kept.recorded);
        if kept.newest.len() == MOST_VERDICTS {
            kept.newest.pop_front();
        }
        kept.newest.push_back((id, verdict));
        id
    }

    /// Changes a verdict, since more has become of it, and gives it back as it is then; `None` if it is not kept any
    /// more.
    pub fn amend(&self, id: VerdictId, change: impl FnOnce(&mut Verdict)) -> Option<Verdict> {
        let mut kept = self.lock();
        let (_, verdict) = kept.newest.iter_mut().find(|(known, _)| *known == id)?;
        change(verdict);
        Some(verdict.clone())
    }

    /// All that are kept, the newest first.
    pub fn newest_first(&self) -> Vec<Verdict> {
        self.lock().newest.iter().rev().map(|(_, verdict)| verdict.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, KeptVerdicts> {
        // Each change leaves it sound, wherever a panic comes from.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time now as verdicts have it.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(version: usize) -> Verdict {
        Verdict {
            plugin: "p".to_owned(),
            outcome: SwapOutcome::Swapped,
            version: Some(version.to_string()),
            previous: None,
            compile_ms: None,
            error: None,
            folder_error: None,
            asked_by: AskedBy::Folder,
            started_ms: 0,
            decided_ms: 0,
            uses: Vec::new(),
        }
    }

    #[test]
    fn the_newest_hundred_are_kept_and_told_newest_first() {
        let log = SwapLog::default();
        for version in 0..MOST_VERDICTS + 7 {
            log.record(verdict(version));
        }
        let versions = log.newest_first().into_iter().filter_map(|verdict| verdict.version);
        let expected: Vec<_> = (7..MOST_VERDICTS + 7).rev().map(|version| version.to_string()).collect();
        assert_eq!(versions.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_verdict_is_amended_for_as_long_as_it_is_kept() {
        let log = SwapLog::default();
        let id = log.record(verdict(0));
        log.record(verdict(1));
        let back = |verdict: &mut Verdict| verdict.outcome = SwapOutcome::RolledBack;
        assert_eq!(log.amend(id, back).map(|verdict| verdict.outcome), Some(SwapOutcome::RolledBack));
        let outcomes = log.newest_first().into_iter().map(|verdict| verdict.outcome);
        assert_eq!(outcomes.collect::<Vec<_>>(), [SwapOutcome::Swapped, SwapOutcome::RolledBack]);
        (0..MOST_VERDICTS).for_each(|version| _ = log.record(verdict(version)));
        assert_eq!(log.amend(id, back), None);
    }
}
