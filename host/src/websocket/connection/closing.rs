//! The end of a connection: flush, close frame, hang up our half, read on until the peer's end.
//!
//! A socket that is dropped with unread bytes sends a reset, which can overtake the close frame and
//! lose it. So the last bytes of the peer are read, and thrown away, within bounds.

use super::io::Io;
use std::io::{ErrorKind, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::{Error, WebSocket};

/// Longest time an end may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of the peer that are read in vain.
const MAX_DISCARDED_BYTES: usize = 1 << 20;
/// Read at once.
const CHUNK_BYTES: usize = 8 << 10;

pub(super) struct ClosingHandshake {
    deadline: Pin<Box<Sleep>>,
    step: ClosingStep,
    discarded_bytes: usize,
}

enum ClosingStep {
    Flush,
    HangUp,
    Discard,
}

impl ClosingHandshake {
    pub(super) fn new() -> Self {
        let deadline = Box::pin(tokio::time::sleep(PATIENCE));
        Self { deadline, step: ClosingStep::Flush, discarded_bytes: 0 }
    }

    /// The io's waker must have been set.
    pub(super) fn poll(&mut self, socket: &mut WebSocket<Io>, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll_steps(socket) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.deadline.as_mut().poll(cx),
        }
    }

    fn poll_steps(&mut self, socket: &mut WebSocket<Io>) -> Poll<()> {
        loop {
            match self.step {
                ClosingStep::Flush => match socket.flush() {
                    Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                        self.step = ClosingStep::HangUp;
                    }
                    Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                    Err(_) => return Poll::Ready(()),
                },
                ClosingStep::HangUp => match ready!(socket.get_mut().poll_shutdown()) {
                    Ok(()) => self.step = ClosingStep::Discard,
                    Err(_) => return Poll::Ready(()),
                },
                ClosingStep::Discard => {
                    let mut chunk = [0; CHUNK_BYTES];
                    match socket.get_mut().read(&mut chunk) {
                        Ok(0) => return Poll::Ready(()),
                        Ok(length) => self.discarded_bytes += length,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                        Err(_) => return Poll::Ready(()),
                    }
                    if self.discarded_bytes > MAX_DISCARDED_BYTES {
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}
