//! Jobs: what takes time, beside the task that decides.
//!
//! A job has a deadline and can be given up; a panic in it is its own failure. What it came to is a
//! [`Done`] that the task takes when it has nothing more urgent to do.

use super::ends::Opened;
use super::shelf::Ready;
use super::start::StartError;
use super::swap::Exchanged;
use crate::plugin::Plugin;
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a job came to.
pub(super) enum Done {
    /// A plugin's content was looked at.
    Compiled {
        /// The plugin.
        name: String,
        /// Its content.
        version: String,
        /// The plugin, or why it is none.
        result: Result<Plugin, String>,
    },
    /// The stages of a pipeline are made.
    Prepared {
        /// The pipeline.
        pipeline: Arc<str>,
        /// The stages.
        result: Result<Vec<Ready>, StartError>,
    },
    /// The ends of a pipeline are opened.
    Opened {
        /// The pipeline.
        pipeline: Arc<str>,
        /// Its stages, made before.
        stages: Vec<Ready>,
        /// Its ends.
        result: Result<Box<Opened>, StartError>,
    },
    /// A version was offered to all that use its plugin.
    Swapped(Box<Exchanged>),
    /// What has no result, such as dropping instances.
    Other,
}

/// Why a job gave no result of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was given up.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// It panicked; what and where is in the log.
    Panicked,
}

/// Runs a job until it is done, its deadline, or it is given up; it is dropped then.
pub(super) async fn bounded<T>(
    deadline: Duration,
    cancel: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Failure::Cancelled),
        () = tokio::time::sleep(deadline) => Err(Failure::TimedOut),
        result = AssertUnwindSafe(work).catch_unwind() => result.map_err(|_| Failure::Panicked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_that_hangs_panics_or_is_given_up_fails_alone() {
        let second = Duration::from_secs(1);
        let cancel = CancellationToken::new();
        let hangs = std::future::pending::<()>();
        assert_eq!(bounded(second, &cancel, hangs).await, Err(Failure::TimedOut));
        assert_eq!(
            bounded(second, &cancel, async { panic!("on purpose") }).await,
            Err::<(), _>(Failure::Panicked)
        );
        assert_eq!(bounded(second, &cancel, async { 1 }).await, Ok(1));
        cancel.cancel();
        assert_eq!(bounded(second, &cancel, async { 1 }).await, Err(Failure::Cancelled));
    }
}
