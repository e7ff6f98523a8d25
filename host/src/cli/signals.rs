//! Ctrl-C, SIGTERM and SIGHUP: the first asks for a shutdown and stops the compilers that run for this process, the second
//! ends the process.
//!
//! SIGHUP comes when a terminal closes, and is a wish to stop then, unless whoever started the process had it ignored,
//! as `nohup` does. A host that has a configuration to read again takes it for the wish to do so, while the terminal is
//! there that it was started on, or where it was started on none, or by `nohup`. Signals are waited for on a thread of
//! their own: one is obeyed whatever the runtime's threads are stuck in, and if the shutdown does not end in time, the
//! process does.

use super::{Exit, scratch};
use crate::shutdown::Shutdown;
use crate::telemetry::flush_log;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long after its grace period a shutdown that does not end is ended. The process is to
/// be over within a second of it, its last words included.
const OVERTIME: Duration = Duration::from_millis(700);
/// For the line that says so.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Waits for signals until it is dropped.
#[derive(Debug)]
pub(super) struct SignalWatch {
    over: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl SignalWatch {
    /// Has the first signal request a shutdown; one with a grace period may take that long and no longer. SIGHUP
    /// rings `reload` instead, where there is one.
    pub(super) fn start(
        shutdown: Shutdown,
        grace: Option<Duration>,
        reload: Option<Arc<Notify>>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _runtime = runtime.enter();
            Signals::listen(reload)?
        };
        let over = CancellationToken::new();
        let thread = std::thread::Builder::new().name("signals".into()).spawn({
            let over = over.clone();
            move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = over.cancelled() => {}
                        () = obey(signals, shutdown, grace) => {}
                    }
                });
            }
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.over.cancel();
        if let Some(thread) = self.thread.take() {
            // Its panic, if it had one, was reported on its own thread.
            let _ = thread.join();
        }
    }
}

/// The signals that ask for a stop.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None where it is ignored.
    hangup: Option<Signal>,
    /// What SIGHUP rings for while the terminal is there.
    reload: Option<Arc<Notify>>,
    had_terminal: bool,
    /// Whoever started it wants it to outlive its terminal.
    is_to_stay: bool,
}

impl Signals {
    /// Within a runtime.
    fn listen(reload: Option<Arc<Notify>>) -> io::Result<Self> {
        let is_to_stay = ignores_hangup();
        let listens = reload.is_some() || !is_to_stay;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: listens.then(|| signal(SignalKind::hangup())).transpose()?,
            reload,
            had_terminal: has_terminal(),
            is_to_stay,
        })
    }

    /// Waits for the next wish to stop.
    async fn next(&mut self) {
        let Self { interrupt, terminate, hangup, reload, had_terminal, is_to_stay } = self;
        let hung_up = async {
            let Some(hangup) = hangup else { return std::future::pending().await };
            loop {
                hangup.recv().await;
                match reload {
                    Some(reload) if *is_to_stay || !*had_terminal || has_terminal() => {
                        tracing::info!("told to read the configuration again");
                        reload.notify_one();
                    }
                    _ => return,
                }
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = hung_up => {}
        }
    }
}

/// Whether this process has a terminal that could send signals.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether this process was started with SIGHUP ignored. Where the system does not tell, it was not.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit is signal 1.
    ignored.is_some_and(|mask| mask >> (SignalKind::hangup().as_raw_value() - 1) & 1 == 1)
}

#[expect(
    clippy::exit,
    reason = "a second signal is the user's wish to wait for nothing, and so is the grace period"
)]
async fn obey(mut signals: Signals, shutdown: Shutdown, grace: Option<Duration>) {
    signals.next().await;
    shutdown.request();
    tracing::info!("shutting down");
    tidemill_authoring::stop_programs();
    let overdue = async {
        match grace {
            Some(grace) => sleep(grace + OVERTIME).await,
            None => std::future::pending().await,
        }
    };
    let exit = tokio::select! {
        () = signals.next() => Exit::Interrupted,
        () = overdue => {
            tracing::error!("something in the host hangs and does not end with it");
            flush_log(LAST_WORDS);
            Exit::Failure
        }
    };
    scratch::remove_all();
    std::process::exit(exit.code().into());
}
