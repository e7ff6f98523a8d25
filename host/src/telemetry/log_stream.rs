//! Standard error, for a host that must not wait for whoever reads it.
//!
//! A pipe that nobody takes from stops every thread that writes to it, and with them pipelines and the
//! answer to signals. So lines are handed to one thread that does nothing but write; what it has no room
//! for is lost, and counted in the log once there is room again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that may wait: a megabyte or two of the usual ones.
const WAITING_LINES: usize = 8192;
/// Between two attempts to find room for what must not be lost.
const ROOM_INTERVAL: Duration = Duration::from_millis(5);

/// What the writing thread is given.
enum StreamPiece {
    Text(Vec<u8>),
    /// Tells when everything before is written.
    Mark(SyncSender<()>),
}

static PIECES: OnceLock<SyncSender<StreamPiece>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes to standard error without waiting for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogStream;

impl LogStream {
    /// Starts the writing thread, once.
    ///
    /// # Errors
    /// If there can be no more threads or files.
    pub(super) fn start() -> io::Result<Self> {
        // Not the library's own: a panic elsewhere would wait for its lock.
        let output = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (sender, pieces) = sync_channel(WAITING_LINES);
        if PIECES.set(sender).is_ok() {
            thread::Builder::new().name("tidemill-log".into()).spawn(move || write_all(output, &pieces))?;
        }
        Ok(Self)
    }
}

impl Write for LogStream {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match PIECES.get() {
            Some(pieces) => {
                if let Err(TrySendError::Full(_)) = pieces.try_send(StreamPiece::Text(text.to_vec())) {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
                Ok(text.len())
            }
            None => io::stderr().write(text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a text to standard error behind the log, for as long as the patience lasts.
pub fn say(text: &str, patience: Duration) {
    let Some(pieces) = PIECES.get() else {
        // Where nobody listens, there is nobody to tell.
        let _ = io::stderr().write_all(text.as_bytes());
        return;
    };
    let deadline = Instant::now() + patience;
    let (done, is_done) = sync_channel(1);
    for mut piece in [StreamPiece::Text(text.as_bytes().to_vec()), StreamPiece::Mark(done)] {
        while let Err(TrySendError::Full(refused)) = pieces.try_send(piece) {
            if Instant::now() >= deadline {
                return;
            }
            piece = refused;
            thread::sleep(ROOM_INTERVAL);
        }
    }
    // Written or not, the caller goes on.
    let _ = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
}

/// Waits until what was logged is written, for as long as the patience lasts.
pub fn flush(patience: Duration) {
    if PIECES.get().is_some() {
        say("", patience);
    }
}

fn write_all(mut output: File, pieces: &Receiver<StreamPiece>) {
    while let Ok(piece) = pieces.recv() {
        // Where the reader has gone, or nobody waits any more, nobody can be told.
        match piece {
            StreamPiece::Text(text) => drop(output.write_all(&text)),
            StreamPiece::Mark(done) => drop(done.send(())),
        }
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "log lines lost, since standard error took no more");
        }
    }
}
