//! Ctrl-C and SIGTERM: the first asks for a shutdown, the second ends the process.

use super::Exit;
use crate::shutdown::Shutdown;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for signals, for as long as it is polled.
#[expect(clippy::exit, reason = "a second signal is the user's wish to wait for nothing")]
pub(super) async fn watch(shutdown: Shutdown) {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        tracing::warn!("failed to listen for signals");
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if shutdown.is_requested() {
            std::process::exit(Exit::Interrupted.code().into());
        }
        tracing::info!("shutting down");
        shutdown.request();
    }
}
