//! The thread that counts epochs, so that a call which runs long gives its thread away.
//!
//! It sleeps for good while nothing is called: an idle host uses no processor time.

use super::limits::EPOCH;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::thread::{Builder, Thread, park, park_timeout};
use wasmtime::EngineWeak;

/// Epochs without a call after which the thread goes to sleep. Waking it costs the caller a system
/// call, which a stream of short calls should pay once.
const LINGER_EPOCHS: u32 = 50;

#[derive(Debug, Default)]
struct TickerState {
    running: AtomicUsize,
    called: AtomicBool,
    parked: AtomicBool,
    stopped: AtomicBool,
}

/// A handle of the thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<TickerState>,
    thread: Thread,
}

/// A call in progress.
#[derive(Debug)]
pub(super) struct RunningGuard<'a>(&'a TickerState);

impl Ticker {
    pub(super) fn try_new(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(TickerState::default());
        let handle = Builder::new().name("tidemill-epochs".into()).spawn({
            let shared = shared.clone();
            move || tick(&shared, &engine)
        })?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Keeps epochs going until the guard is dropped.
    #[inline]
    pub(super) fn enter(&self) -> RunningGuard<'_> {
        // The order matters: either the thread sees this call before it parks, or this sees that
        // the thread is about to.
        self.shared.running.fetch_add(1, SeqCst);
        self.shared.called.store(true, Relaxed);
        if self.shared.parked.load(SeqCst) {
            self.thread.unpark();
        }
        RunningGuard(&self.shared)
    }
}

impl Drop for RunningGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        self.thread.unpark();
    }
}

fn tick(shared: &TickerState, engine: &EngineWeak) {
    let mut quiet_epochs = 0;
    while !shared.stopped.load(SeqCst) {
        if quiet_epochs >= LINGER_EPOCHS {
            shared.parked.store(true, SeqCst);
            if shared.running.load(SeqCst) == 0 && !shared.stopped.load(SeqCst) {
                park();
            }
            shared.parked.store(false, SeqCst);
            quiet_epochs = 0;
            continue;
        }
        park_timeout(EPOCH);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        let called = shared.called.swap(false, Relaxed) || shared.running.load(SeqCst) > 0;
        quiet_epochs = if called { 0 } else { quiet_epochs + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::Engine;

    #[test]
    fn the_thread_sleeps_while_nothing_is_called_and_ends_with_its_handle() {
        let engine = Engine::default();
        let ticker = Ticker::try_new(engine.weak()).unwrap();
        let shared = ticker.shared.clone();
        let wait_until = |parked| {
            while shared.parked.load(SeqCst) != parked {
                std::thread::yield_now();
            }
        };
        wait_until(true);
        let running = ticker.enter();
        wait_until(false);
        drop(running);
        wait_until(true);
        drop(ticker);
        while Arc::strong_count(&shared) > 1 {
            std::thread::yield_now();
        }
    }
}
