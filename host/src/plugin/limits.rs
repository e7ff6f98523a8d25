//! What an instance may use of time in one call.
//!
//! Time is the guest's own: it is counted while a call is being polled, and stands still while the call
//! has given its thread away. A guest that waits for a clock spends it too: a call has one budget for
//! running and waiting together, which nothing fills again.

use rustix::time::{ClockId, clock_gettime};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use wasmtime::UpdateDeadline;

/// The time between two epochs: a call that runs longer gives its thread away, and its deadline is
/// looked at. Short enough that sockets on the same thread do not notice, long enough that the
/// thread which counts epochs costs well under 1 % of a core, and only while plugins are called.
pub(super) const EPOCH: Duration = Duration::from_millis(2);

/// How long a call took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTime {
    /// The guest's own running time.
    pub running: Duration,
    /// From its begin to its end; longer where it gave its thread away.
    pub elapsed: Duration,
    /// The moment at which the call ended.
    pub ended: Instant,
}

/// The running time of the current call.
///
/// Shared between the store's epoch callback, which runs inside the call, and whoever polls the
/// call; both on one thread at a time.
#[derive(Debug)]
pub(super) struct Meter {
    base: Instant,
    deadline_ns: AtomicU64,
    used_ns: AtomicU64,
    /// What of the deadline was spent waiting for the host.
    waited_ns: AtomicU64,
    /// When the call began and ended, since `base`.
    began_ns: AtomicU64,
    ended_ns: AtomicU64,
    /// When the current poll began: wall time since `base` in the first poll of a call, the
    /// thread's processor time in later ones.
    poll_began_ns: AtomicU64,
    resumed: AtomicBool,
    yielded: AtomicBool,
    /// Whether the call waits for something that has bounds of its own.
    paused: AtomicBool,
}

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            base: Instant::now(),
            deadline_ns: AtomicU64::new(0),
            used_ns: AtomicU64::new(0),
            waited_ns: AtomicU64::new(0),
            began_ns: AtomicU64::new(0),
            ended_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            resumed: AtomicBool::new(false),
            yielded: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        })
    }

    /// A call begins, and may run for `deadline`.
    pub(super) fn begin(&self, deadline: Duration) {
        self.deadline_ns.store(nanos(deadline), Relaxed);
        self.used_ns.store(0, Relaxed);
        self.waited_ns.store(0, Relaxed);
        self.resumed.store(false, Relaxed);
        self.yielded.store(false, Relaxed);
        self.paused.store(false, Relaxed);
    }

    /// The guest waits for something that has bounds of its own: until [`Self::resume`] no time is the call's,
    /// neither what passes nor what the host works for it.
    pub(super) fn pause(&self) {
        // The first poll is counted as at an epoch.
        let poll = if self.resumed.load(Relaxed) { self.poll() } else { self.poll().min(nanos(EPOCH)) };
        self.used_ns.fetch_add(poll, Relaxed);
        self.paused.store(true, Relaxed);
    }

    /// The guest runs again.
    pub(super) fn resume(&self) {
        self.paused.store(false, Relaxed);
        self.poll_began_ns.store(self.now(), Relaxed);
    }

    /// How long the guest ran in the last call, how long the call took, and when it ended.
    pub(super) fn last_call(&self) -> CallTime {
        let ended = Duration::from_nanos(self.ended_ns.load(Relaxed));
        CallTime {
            running: Duration::from_nanos(self.used_ns.load(Relaxed)),
            elapsed: ended.saturating_sub(Duration::from_nanos(self.began_ns.load(Relaxed))),
            ended: self.base + ended,
        }
    }

    /// What the store does when an epoch passed during a call.
    pub(super) fn at_epoch(&self) -> UpdateDeadline {
        // A clock that tells processor time costs a system call, too much for every short call.
        // The first poll is therefore counted by the wall, and by no more than the epoch it lasts:
        // the machine may have given the processor to someone else in between.
        let poll = if self.resumed.load(Relaxed) { self.poll() } else { self.poll().min(nanos(EPOCH)) };
        if poll >= self.left_ns() {
            return UpdateDeadline::Interrupt;
        }
        self.yielded.store(true, Relaxed);
        // tokio's own yield lets sockets be looked at before the call goes on.
        UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
    }

    /// What is left to the call of its deadline, the poll in progress apart.
    fn left_ns(&self) -> u64 {
        let spent = self.used_ns.load(Relaxed) + self.waited_ns.load(Relaxed);
        self.deadline_ns.load(Relaxed).saturating_sub(spent)
    }

    fn wall(&self) -> u64 {
        nanos(self.base.elapsed())
    }

    fn now(&self) -> u64 {
        if self.resumed.load(Relaxed) {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            return u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
                + u64::try_from(time.tv_nsec).unwrap_or(0);
        }
        self.wall()
    }

    fn poll(&self) -> u64 {
        self.now().saturating_sub(self.poll_began_ns.load(Relaxed))
    }

    fn poll_begins(&self) {
        let now = self.now();
        self.poll_began_ns.store(now, Relaxed);
        if !self.resumed.load(Relaxed) {
            self.began_ns.store(now, Relaxed);
        }
    }

    /// Says whether the guest gave its thread away by itself. A short call, which is one poll, has looked
    /// at the clock twice then.
    fn poll_ends(&self) -> bool {
        let yielded = self.yielded.swap(false, Relaxed);
        let resumed = self.resumed.load(Relaxed);
        let now = self.now();
        let poll = now.saturating_sub(self.poll_began_ns.load(Relaxed));
        let poll = if yielded && !resumed { poll.min(nanos(EPOCH)) } else { poll };
        let poll = if self.paused.load(Relaxed) { 0 } else { poll };
        self.used_ns.store(self.used_ns.load(Relaxed) + poll, Relaxed);
        self.ended_ns.store(if resumed { self.wall() } else { now }, Relaxed);
        yielded
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A call waited for something in the host until its deadline was used up.
#[derive(Debug)]
pub(super) struct Stuck;

/// Runs a call that was begun to its end, counting its time.
///
/// A call that is pending without having been interrupted waits for the host, which only the
/// stand-ins for WASI's clocks and streams make it do: what it waits counts like what it runs. While it is
/// paused, nothing counts.
///
/// Callers pass the call pinned: its future is large, and would be copied into this one.
///
/// # Cancel safety
/// None: the store cannot be used any more when this is dropped before its end.
pub(super) async fn metered<F: Future>(meter: &Meter, call: F) -> Result<F::Output, Stuck> {
    let mut call = pin!(call);
    let mut wait: Option<WaitingSince> = None;
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        if let Some(wait) = wait.take() {
            let waited = nanos(wait.since.elapsed()).min(meter.left_ns());
            meter.waited_ns.fetch_add(waited, Relaxed);
        }
        meter.poll_begins();
        let polled = call.as_mut().poll(cx);
        let yielded = meter.poll_ends();
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Ok(output));
        }
        meter.resumed.store(true, Relaxed);
        if yielded || meter.paused.load(Relaxed) {
            return Poll::Pending;
        }
        let since = tokio::time::Instant::now();
        let until = since + Duration::from_nanos(meter.left_ns());
        let mut end = Box::pin(tokio::time::sleep_until(until));
        if end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Stuck));
        }
        wait = Some(WaitingSince { since, _end: end });
        Poll::Pending
    })
    .await
}

/// A call that waits for the host, and what wakes it when it has waited for too long.
struct WaitingSince {
    since: tokio::time::Instant,
    _end: Pin<Box<tokio::time::Sleep>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A call that is at an epoch whenever it is polled, having run for that long.
    async fn call(meter: &Meter, run: Duration, polls: &Cell<u32>) -> bool {
        std::future::poll_fn(|_| {
            polls.set(polls.get() + 1);
            let start = clock_gettime(ClockId::ThreadCPUTime);
            let ran = || clock_gettime(ClockId::ThreadCPUTime) - start;
            while u128::try_from(ran().tv_nsec).unwrap() < run.as_nanos() {}
            match meter.at_epoch() {
                UpdateDeadline::Interrupt => Poll::Ready(true),
                _ => Poll::Pending,
            }
        })
        .await
    }

    #[test]
    fn a_call_ends_when_its_own_running_time_is_used_up() {
        let meter = Meter::new();
        let deadline = Duration::from_millis(20);
        let polls = Cell::new(0);
        meter.begin(deadline);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut metered = pin!(metered(&meter, call(&meter, EPOCH, &polls)));
        let interrupted = loop {
            if let Poll::Ready(ended) = metered.as_mut().poll(&mut cx) {
                break ended.unwrap();
            }
            // Time between two polls is not the call's.
            std::thread::park_timeout(EPOCH);
        };
        assert!(interrupted && meter.last_call().running >= deadline, "{meter:?}");
        assert!((8..=10).contains(&polls.get()), "{polls:?} epochs of 2 ms in 20 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_the_host_for_too_long_is_stuck() {
        let meter = Meter::new();
        let deadline = Duration::from_millis(250);
        meter.begin(deadline);
        let start = tokio::time::Instant::now();
        assert!(metered(&meter, std::future::pending::<()>()).await.is_err());
        assert_eq!(start.elapsed().as_millis(), 250);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_call_is_paused_for_is_none_of_its_time() {
        let meter = Meter::new();
        meter.begin(Duration::from_millis(250));
        let start = tokio::time::Instant::now();
        let asking = async {
            meter.pause();
            tokio::time::sleep(Duration::from_secs(3600)).await;
            meter.resume();
            std::future::pending::<()>().await;
        };
        assert!(metered(&meter, pin!(asking)).await.is_err(), "then it has its deadline");
        assert_eq!(start.elapsed().as_millis(), 3_600_250);
        assert!(meter.last_call().running < Duration::from_millis(250), "{meter:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_and_yields_in_turn_has_one_budget_for_all_of_it() {
        let meter = Meter::new();
        meter.begin(Duration::from_millis(250));
        let start = tokio::time::Instant::now();
        let in_turn = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let mut is_first = true;
                std::future::poll_fn(|cx| match std::mem::take(&mut is_first) {
                    true => match meter.at_epoch() {
                        UpdateDeadline::Interrupt => Poll::Ready(()),
                        _ => {
                            cx.waker().wake_by_ref();
                            Poll::Pending
                        }
                    },
                    false => Poll::Ready(()),
                })
                .await;
            }
        };
        let ended: Result<(), Stuck> = metered(&meter, pin!(in_turn)).await;
        assert!(ended.is_err());
        assert_eq!(start.elapsed().as_millis(), 250);
    }
}
