//! The end of a connection: flush, close frame, hang up our half, read on until the peer has answered.
//!
//! A socket that is dropped with unread bytes sends a reset, which can overtake the close frame and
//! lose it. So the last bytes of the peer are read, and thrown away, within bounds. Once both close frames are
//! through, nobody is waited for who does not hang up (RFC 6455, section 7.1.1): not at all by a server whose
//! close frame was answered, and else for a moment.

use super::ending::ConnectionEnd;
use super::io::Io;
use std::io::{ErrorKind, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, WebSocket};

/// Longest time an end may take.
pub(in super::super) const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer may take to hang up once both close frames are through.
const LINGER: Duration = Duration::from_secs(1);
/// Most bytes of the peer that are read in vain.
const MAX_DISCARDED_BYTES: u64 = 1 << 20;
/// Read at once.
const CHUNK_BYTES: usize = 8 << 10;

/// What is still to be done until the socket may be closed.
pub(super) struct ClosingHandshake {
    deadline: Pin<Box<Sleep>>,
    step: ClosingStep,
    role: Role,
    peer_close: PeerClose,
    /// How much had been received when the end began.
    received_bytes: u64,
}

/// What a closing handshake asks of the connection.
#[derive(PartialEq, Eq)]
pub(super) enum ClosingProgress {
    /// Nothing: the socket may be closed.
    Done,
    /// The next frame of the peer is to be read, to find its close frame.
    AwaitsFrame,
}

enum ClosingStep {
    Flush,
    HangUp,
    Discard,
}

/// The close frame of the peer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PeerClose {
    Awaited,
    /// It came first, and ours answers it.
    First,
    /// It has answered ours.
    Answer,
    /// The peer's frames make no sense any more, so it would not be found.
    Unknown,
}

impl ClosingHandshake {
    /// The closing handshake of a connection that ends so, of which so much was received.
    pub(super) fn new(role: Role, ending: &ConnectionEnd, received_bytes: u64) -> Self {
        let peer_close = match ending {
            ConnectionEnd::Closed { .. } => PeerClose::First,
            ConnectionEnd::TooLarge { .. } | ConnectionEnd::Violation { .. } | ConnectionEnd::Lost(_) => {
                PeerClose::Unknown
            }
            _ => PeerClose::Awaited,
        };
        let since = match ending {
            ConnectionEnd::Steered { since, .. } => *since,
            _ => Instant::now(),
        };
        let deadline = Box::pin(tokio::time::sleep_until(since + TIMEOUT));
        Self { deadline, step: ClosingStep::Flush, role, peer_close, received_bytes }
    }

    /// The io's waker must have been set.
    pub(super) fn poll(&mut self, socket: &mut WebSocket<Io>, cx: &mut Context<'_>) -> Poll<ClosingProgress> {
        match self.poll_steps(socket) {
            Poll::Ready(progress) => Poll::Ready(progress),
            Poll::Pending => self.poll_deadline(cx).map(|()| ClosingProgress::Done),
        }
    }

    /// Ready when the end has taken all the time it may.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.as_mut().poll(cx)
    }

    /// The close frame that answers ours was read.
    pub(super) fn answered(&mut self) {
        self.peer_close = PeerClose::Answer;
        self.linger();
    }

    /// No more frames can be read: the stream's end, which is found again, or frames against the protocol.
    pub(super) fn lost_track(&mut self) {
        self.peer_close = PeerClose::Unknown;
    }

    fn poll_steps(&mut self, socket: &mut WebSocket<Io>) -> Poll<ClosingProgress> {
        loop {
            match self.step {
                ClosingStep::Flush => match socket.flush() {
                    Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                        self.step = ClosingStep::HangUp;
                    }
                    Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                    Err(_) => return Poll::Ready(ClosingProgress::Done),
                },
                ClosingStep::HangUp => match ready!(socket.get_mut().poll_shutdown()) {
                    Ok(()) => {
                        self.step = ClosingStep::Discard;
                        if self.peer_close == PeerClose::First {
                            self.linger();
                        }
                    }
                    Err(_) => return Poll::Ready(ClosingProgress::Done),
                },
                ClosingStep::Discard => {
                    let discarded = socket.get_ref().traffic().received_bytes - self.received_bytes;
                    let left = MAX_DISCARDED_BYTES.saturating_sub(discarded);
                    if left == 0 {
                        return Poll::Ready(ClosingProgress::Done);
                    }
                    socket.get_mut().allow(usize::try_from(left).unwrap_or(usize::MAX));
                    if self.peer_close == PeerClose::Awaited {
                        return Poll::Ready(ClosingProgress::AwaitsFrame);
                    }
                    if ready!(self.poll_discard(socket)) {
                        return Poll::Ready(ClosingProgress::Done);
                    }
                }
            }
        }
    }

    /// Reads bytes in vain, without looking for frames; ready with whether nothing more has to be read.
    fn poll_discard(&mut self, socket: &mut WebSocket<Io>) -> Poll<bool> {
        match socket.get_mut().read(&mut [0; CHUNK_BYTES]) {
            Ok(length) => Poll::Ready(length == 0),
            // All that is there is read: closing the socket resets nothing.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let is_over = self.peer_close == PeerClose::Answer && self.role == Role::Server;
                if is_over { Poll::Ready(true) } else { Poll::Pending }
            }
            Err(_) => Poll::Ready(true),
        }
    }

    /// Both close frames are through.
    fn linger(&mut self) {
        let soon = Instant::now() + LINGER;
        if soon < self.deadline.deadline() {
            self.deadline.as_mut().reset(soon);
        }
    }
}
