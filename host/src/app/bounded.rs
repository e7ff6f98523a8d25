//! The bounds of a job: it has a deadline and can be given up, and a panic in it is its own failure.

use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

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
