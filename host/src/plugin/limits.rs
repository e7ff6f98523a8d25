//! What an instance may use: memory, and running time in one call.
//!
//! Memory is bounded by a limiter that wasmtime asks before anything grows; it remembers what it
//! refused, so that the trap which follows is known for what it is. Time is the guest's own: it is
//! counted while a call is being polled, and stands still while the call has given its thread away.

use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use wasmtime::{ResourceLimiter, UpdateDeadline};

/// The time between two epochs: a call that runs longer gives its thread away, and its deadline is
/// looked at. Short enough that sockets on the same thread do not notice, long enough that the
/// thread which counts epochs costs well under 1 % of a core, and only while plugins are called.
pub(super) const EPOCH: Duration = Duration::from_millis(2);

/// A slot of a table is a pointer.
const TABLE_SLOT_BYTES: usize = size_of::<usize>();
/// Most core instances, tables, and memories of one plugin: Python's components have about 20.
const MAX_PARTS: usize = 256;

/// A growth that the limiter refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    wanted_bytes: usize,
    limit_bytes: usize,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wanted {} bytes of memory, limits.memory is {}", self.wanted_bytes, self.limit_bytes)
    }
}

/// Bounds all memories and tables of one instance together.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    limit_bytes: usize,
    used_bytes: usize,
    last_growth_bytes: usize,
    refused: Option<Refusal>,
}

impl MemoryLimiter {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, used_bytes: 0, last_growth_bytes: 0, refused: None }
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// What was refused since the last call of this.
    pub(super) fn take_refusal(&mut self) -> Option<Refusal> {
        self.refused.take()
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let wanted_bytes = self.used_bytes.saturating_add(bytes);
        if wanted_bytes > self.limit_bytes {
            self.refused = Some(Refusal { wanted_bytes, limit_bytes: self.limit_bytes });
            return false;
        }
        self.used_bytes = wanted_bytes;
        self.last_growth_bytes = bytes;
        true
    }

    fn take_back(&mut self) {
        self.used_bytes -= std::mem::take(&mut self.last_growth_bytes);
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = desired.saturating_sub(current).saturating_mul(TABLE_SLOT_BYTES);
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(bytes))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

/// How long a call took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTime {
    /// The guest's own running time.
    pub running: Duration,
    /// From its begin to its end; longer where it gave its thread away.
    pub elapsed: Duration,
    /// Its end.
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
    /// When the call began and ended, since `base`.
    began_ns: AtomicU64,
    ended_ns: AtomicU64,
    /// When the current poll began: wall time since `base` in the first poll of a call, the
    /// thread's processor time in later ones.
    poll_began_ns: AtomicU64,
    resumed: AtomicBool,
    yielded: AtomicBool,
}

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            base: Instant::now(),
            deadline_ns: AtomicU64::new(0),
            used_ns: AtomicU64::new(0),
            began_ns: AtomicU64::new(0),
            ended_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            resumed: AtomicBool::new(false),
            yielded: AtomicBool::new(false),
        })
    }

    /// A call begins, and may run for `deadline`.
    pub(super) fn begin(&self, deadline: Duration) {
        self.deadline_ns.store(nanos(deadline), Relaxed);
        self.used_ns.store(0, Relaxed);
        self.resumed.store(false, Relaxed);
        self.yielded.store(false, Relaxed);
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
        if self.used_ns.load(Relaxed) + poll >= self.deadline_ns.load(Relaxed) {
            return UpdateDeadline::Interrupt;
        }
        self.yielded.store(true, Relaxed);
        // tokio's own yield lets sockets be looked at before the call goes on.
        UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
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
        self.used_ns.store(self.used_ns.load(Relaxed) + poll, Relaxed);
        self.ended_ns.store(if resumed { self.wall() } else { now }, Relaxed);
        yielded
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A call waited for something in the host for longer than it may run.
#[derive(Debug)]
pub(super) struct Stuck;

/// Runs a call to its end, counting its time.
///
/// A call that is pending without having been interrupted waits for the host, which only the
/// stand-ins for WASI's clocks and streams make it do: it may wait as long as it may run.
///
/// Callers pass the call pinned: its future is large, and would be copied into this one.
///
/// # Cancel safety
/// None: the store cannot be used any more when this is dropped before its end.
pub(super) async fn metered<F: Future>(
    meter: &Meter,
    deadline: Duration,
    call: F,
) -> Result<F::Output, Stuck> {
    let mut call = pin!(call);
    let mut patience: Option<Pin<Box<tokio::time::Sleep>>> = None;
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        meter.poll_begins();
        let polled = call.as_mut().poll(cx);
        let yielded = meter.poll_ends();
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Ok(output));
        }
        meter.resumed.store(true, Relaxed);
        if yielded {
            patience = None;
            return Poll::Pending;
        }
        let patience = patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(deadline)));
        patience.as_mut().poll(cx).map(|()| Err(Stuck))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn memories_and_tables_share_one_limit_and_a_refusal_is_remembered() {
        let mut limiter = MemoryLimiter::new(1 << 20);
        assert!(limiter.memory_growing(0, 1 << 19, None).unwrap());
        assert!(limiter.memory_growing(0, 1 << 18, None).unwrap());
        assert!(!limiter.memory_growing(1 << 18, 1 << 20, Some(1 << 19)).unwrap());
        assert_eq!(limiter.take_refusal(), None, "the memory's own maximum is no refusal of ours");
        assert!(!limiter.table_growing(0, 1 << 16, None).unwrap());
        let refusal = limiter.take_refusal().unwrap();
        assert_eq!(refusal.to_string(), "wanted 1310720 bytes of memory, limits.memory is 1048576");
        assert!(limiter.table_growing(0, 1 << 15, None).unwrap());
        assert_eq!(limiter.used_bytes(), 1 << 20);
        limiter.table_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert_eq!(limiter.used_bytes(), 3 << 18);
    }

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
        let mut metered = pin!(metered(&meter, deadline, call(&meter, EPOCH, &polls)));
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
        assert!(metered(&meter, deadline, std::future::pending::<()>()).await.is_err());
        assert_eq!(start.elapsed().as_millis(), 250);
    }
}
