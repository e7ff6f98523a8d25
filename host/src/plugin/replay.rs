//! What a guest is told of time and chance in a replay: whatever it asks, the same each time.
//!
//! Its time is that of the messages. The monotonic clock of WASI goes on with it, and a little at each look, so that
//! who waits for a moment comes to it; a guest that sleeps wakes at once, and finds that the time has passed.

use super::setup::Setup;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// What the monotonic clock goes on by at each look.
const LOOK_NS: u64 = 1_000;

/// Time and chance of one instance in a replay.
#[derive(Debug)]
pub(super) struct InstanceReplay {
    time: Arc<ReplayTime>,
    seed: [u8; 32],
}

/// The clocks of WASI in a replay.
#[derive(Debug, Default)]
struct ReplayTime {
    /// Since the Unix epoch, in microseconds; 0 before the first message.
    wall_us: AtomicU64,
    monotonic_ns: AtomicU64,
}

impl InstanceReplay {
    /// Of an instance made with this setup; `None` where the messages are no recording.
    pub(super) fn of(setup: &Setup) -> Option<Self> {
        if !setup.is_replay {
            return None;
        }
        let mut name =
            Sha256::new().chain_update(&*setup.pipeline).chain_update([0]).chain_update(&*setup.transform);
        if let number @ 1.. = setup.part.number {
            name = name.chain_update([0]).chain_update(number.to_le_bytes());
        }
        Some(Self { time: Arc::default(), seed: name.finalize().into() })
    }

    /// The random numbers of the import `random`.
    pub(super) fn numbers(&self) -> StdRng {
        self.stream(b"random")
    }

    /// Gives WASI these clocks, and random numbers that repeat.
    pub(super) fn prepare(&self, wasi: &mut WasiCtxBuilder) {
        let seed = self.seed.last_chunk().expect("a digest is longer");
        wasi.wall_clock(ReplayClock(self.time.clone()))
            .monotonic_clock(ReplayClock(self.time.clone()))
            .secure_random(self.stream(b"secure"))
            .insecure_random(self.stream(b"insecure"))
            .insecure_random_seed(u128::from_le_bytes(*seed));
    }

    fn stream(&self, name: &[u8]) -> StdRng {
        let seed = Sha256::new().chain_update(self.seed).chain_update(name).finalize();
        StdRng::from_seed(seed.into())
    }

    /// The time of the messages is this now, in microseconds since the Unix epoch.
    pub(super) fn set_time(&self, now_us: u64) {
        let before_us = self.time.wall_us.swap(now_us, Relaxed);
        if before_us > 0 {
            self.sleep(now_us.saturating_sub(before_us).saturating_mul(1000));
        }
    }

    /// The guest waits so many nanoseconds.
    pub(super) fn sleep(&self, ns: u64) {
        let later = |now: u64| Some(now.saturating_add(ns));
        let _ = self.time.monotonic_ns.fetch_update(Relaxed, Relaxed, later);
    }

    /// The guest waits until the monotonic clock says this.
    pub(super) fn sleep_until(&self, ns: u64) {
        self.time.monotonic_ns.fetch_max(ns, Relaxed);
    }
}

/// Shows WASI the time of a replay.
struct ReplayClock(Arc<ReplayTime>);

impl HostWallClock for ReplayClock {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.wall_us.load(Relaxed))
    }
}

impl HostMonotonicClock for ReplayClock {
    fn resolution(&self) -> u64 {
        LOOK_NS
    }

    fn now(&self) -> u64 {
        // Never 0, at which a runtime may end the program, as Go's does.
        self.0.monotonic_ns.fetch_add(LOOK_NS, Relaxed).saturating_add(LOOK_NS)
    }
}
