//! The WASI that guests of Python and other languages expect: there, and empty.
//!
//! No files, no arguments, no environment, no network. What they write to stdout and stderr goes to
//! the log, line by line. In a replay its clocks and random numbers are those of the replay.

use super::log::GuestLog;
use super::replay::InstanceReplay;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, async_trait};

/// Bytes a guest may write at once.
const WRITE_BYTES: usize = 64 << 10;
/// Longest line, in bytes; the rest of it is left out. Much longer than what is shown of a line, so that a
/// secret at the end of that is still whole.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Most random bytes in one call, which cannot be interrupted: more than any seed or key, and no work.
const MAX_RANDOM_BYTES: u64 = 64 << 10;
/// Most handles (of streams, of things to wait for) that an instance may have at a time. What can be waited
/// for takes two.
const MAX_HANDLES: usize = 4096;

/// What WASI has of an instance.
pub(super) struct Wasi {
    pub(super) context: WasiCtx,
    pub(super) resources: ResourceTable,
    stdout: LineLogger,
    stderr: LineLogger,
}

impl Wasi {
    /// A context that gives nothing and takes lines.
    pub(super) fn new(log: &GuestLog, replay: Option<&InstanceReplay>) -> Self {
        let (stdout, stderr) = (LineLogger::new(log, Level::INFO), LineLogger::new(log, Level::WARN));
        let mut context = WasiCtxBuilder::new();
        context
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .max_random_size(MAX_RANDOM_BYTES)
            .allow_tcp(false)
            .allow_udp(false);
        if let Some(replay) = replay {
            replay.prepare(&mut context);
        }
        let context = context.build();
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(MAX_HANDLES);
        Self { context, resources, stdout, stderr }
    }

    /// Writes what has no end of line yet.
    pub(super) fn end_lines(&self) {
        self.stdout.end();
        self.stderr.end();
    }
}

/// An output stream that cuts what is written into lines.
#[derive(Clone, Debug)]
struct LineLogger {
    log: GuestLog,
    level: Level,
    partial: Arc<Mutex<Vec<u8>>>,
}

impl LineLogger {
    fn new(log: &GuestLog, level: Level) -> Self {
        Self { log: log.clone(), level, partial: Arc::default() }
    }

    fn take(&self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            {
                let mut partial = self.partial.lock().expect("nothing panics while it is held");
                let room = MAX_LINE_BYTES - partial.len();
                partial.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            if piece.ends_with(b"\n") {
                self.end();
            }
        }
    }

    fn end(&self) {
        let line = std::mem::take(&mut *self.partial.lock().expect("nothing panics while it is held"));
        if !line.is_empty() {
            let line = String::from_utf8_lossy(&line);
            if self.level == Level::WARN {
                self.log.note(|words| words.printed(&line));
            }
            self.log.write(self.level, &line);
        }
    }
}

impl IsTerminal for LineLogger {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineLogger {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for LineLogger {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Pollable for LineLogger {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for LineLogger {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}
