//! Runs what the instances of a stage do at the same time on tasks of their own, so that each may have a processor.
//!
//! The tasks belong to whoever waits for them: when the wait is given up, they end with it.

use std::panic::resume_unwind;
use tokio::task::JoinSet;

/// Runs jobs to their ends and gives what they came to, in their order. One alone needs no task.
///
/// # Panics
/// If one of them does.
///
/// # Cancel safety
/// The jobs are dropped with the future, where they next give their thread back.
pub(super) async fn in_parallel<T, F>(jobs: Vec<F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    if jobs.len() < 2 {
        return one_by_one(jobs).await;
    }
    let count = jobs.len();
    let mut tasks = JoinSet::new();
    for (number, job) in jobs.into_iter().enumerate() {
        tasks.spawn(async move { (number, job.await) });
    }
    let mut done = Vec::with_capacity(count);
    while let Some(joined) = tasks.join_next().await {
        match joined.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(result) => done.push(result),
            Err(Ok(panic)) => resume_unwind(panic),
            // Only the runtime ends tasks that are waited for, when it ends itself: this one too then.
            Err(Err(_)) => std::future::pending().await,
        }
    }
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The same without tasks: one job after the other.
pub(super) async fn one_by_one<T, F: Future<Output = T>>(jobs: Vec<F>) -> Vec<T> {
    let mut done = Vec::with_capacity(jobs.len());
    for job in jobs {
        // Not within the future of the pipeline, which is as large as the largest that it waits for.
        done.push(Box::pin(job).await);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::{Context, Waker};
    use tokio::sync::Barrier;

    #[tokio::test]
    async fn jobs_run_at_the_same_time_and_are_given_back_in_their_order() {
        let barrier = Arc::new(Barrier::new(3));
        let job = |number: usize| {
            let barrier = barrier.clone();
            async move {
                barrier.wait().await;
                for _ in number..3 {
                    tokio::task::yield_now().await;
                }
                number
            }
        };
        assert_eq!(in_parallel((0..3).map(job).collect()).await, [0, 1, 2]);
    }

    #[tokio::test]
    #[should_panic(expected = "as it was told")]
    async fn a_panic_of_one_is_one_of_whoever_waits() {
        let job = |number: usize| async move { assert!(number != 1, "as it was told") };
        in_parallel((0..3).map(job).collect()).await;
    }

    #[tokio::test]
    async fn jobs_that_nobody_waits_for_any_more_are_dropped() {
        let held = Arc::new(());
        let job = |_| {
            let held = held.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        };
        let mut waiting = Box::pin(in_parallel((0..2).map(job).collect()));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(waiting);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
