//! The WASI that guests of Python and other languages expect: there, and empty.
//!
//! No files, no arguments, no environment, no network. What they write to stdout and stderr goes to
//! the log, line by line.

use super::log::GuestLog;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, async_trait};

/// Bytes a guest may write at once.
const WRITE_BYTES: usize = 64 << 10;
/// A line that is longer is written in parts.
const MAX_LINE_BYTES: usize = 8 << 10;

/// A context that gives nothing and takes lines.
pub(super) fn empty_context(log: &GuestLog) -> WasiCtx {
    WasiCtxBuilder::new()
        .stdout(Lines::new(log, Level::INFO))
        .stderr(Lines::new(log, Level::WARN))
        .allow_tcp(false)
        .allow_udp(false)
        .build()
}

/// An output stream that cuts what is written into lines.
#[derive(Clone, Debug)]
struct Lines {
    log: GuestLog,
    level: Level,
    partial: Arc<Mutex<Vec<u8>>>,
}

impl Lines {
    fn new(log: &GuestLog, level: Level) -> Self {
        Self { log: log.clone(), level, partial: Arc::default() }
    }

    fn take(&self, bytes: &[u8]) {
        let mut partial = self.partial.lock().expect("nothing panics while it is held");
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || partial.len() >= MAX_LINE_BYTES {
                self.log.write(self.level, &String::from_utf8_lossy(&partial));
                partial.clear();
            }
        }
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Lines {
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
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Lines {
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
