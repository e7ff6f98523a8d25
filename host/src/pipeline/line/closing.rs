//! How a line comes to its end: by its source, a stop, or a failure, and what is still done then.

use crate::pipeline::control::Ending;

/// How a pipeline comes to its end.
pub(super) struct Close {
    pub(super) ending: Ending,
    /// Whether what the source received before is still put through.
    pub(super) reads_rest: bool,
    /// Whether the plugins are told.
    pub(super) finishes: bool,
}

impl Close {
    pub(super) fn finished() -> Self {
        Self { ending: Ending::Finished, reads_rest: false, finishes: true }
    }

    pub(super) fn stopped() -> Self {
        Self { ending: Ending::Stopped, reads_rest: true, finishes: true }
    }

    pub(super) fn failed(error: impl Into<String>) -> Self {
        Self { ending: Ending::Failed(error.into()), ..Self::finished() }
    }

    pub(super) fn unconnected(error: String) -> Self {
        Self { finishes: false, ..Self::failed(error) }
    }

    pub(super) fn told_to_stop_by_a_failure() -> Self {
        Self::failed(STOPPED_BY_A_FAILURE)
    }
}

/// What a pipeline has failed with then.
pub(super) const STOPPED_BY_A_FAILURE: &str = "a message failed where on_error is \"stop\"";
