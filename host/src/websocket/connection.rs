//! One framed connection, client or server, polled by the task that owns it.
//!
//! tungstenite reads frames and writes control frames; what it leaves to its user is done here: close
//! codes on errors, an end that loses no close frame, bounded write buffers, and knowing when bytes are
//! still to be flushed. Messages are written as whole frames of our own.
//! Nothing here has timers but the end of a connection and `send_interval`: `keepalive` and `link` are
//! above.

use super::close_code;
use super::closing::Closing;
use super::pace::Pace;
use super::ring::Frames;
use super::stream::{Io, Stream, Traffic};
use crate::foreign_text;
use crate::message::{Failed, Message, Payload};
use crate::metadata::{self, Metadata, Origin};
use crate::reason::Reason;
use crate::telemetry::{Dismissal, Gone};
use bytes::Bytes;
use std::io::ErrorKind;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error, WebSocket};

/// What tungstenite asks for at once. Payloads are slices of such pieces: small ones are cheap to
/// clear, and pin little.
const DIALLED_READ_BUFFER_BYTES: usize = 16 << 10;
/// Connections that we accept are many, and most of them quiet.
const ACCEPTED_READ_BUFFER_BYTES: usize = 2 << 10;
/// Messages collect up to here before they are written without being asked to.
const WRITE_BUFFER_BYTES: usize = 128 << 10;
/// What a dialled connection keeps of its buffer while nothing is sent; an accepted one keeps nothing.
const KEPT_WRITE_BUFFER_BYTES: usize = 2 * WRITE_BUFFER_BYTES;
/// What control frames may take up for a peer that sends pings and does not read.
const CONTROL_BUFFER_BYTES: usize = 64 << 10;
/// And a close frame more.
const CLOSE_FRAME_BYTES: usize = 256;
/// The longest reason of a close frame.
const MAX_REASON_BYTES: usize = 123;

/// A WebSocket connection after its handshake.
pub struct Connection {
    socket: WebSocket<Io>,
    phase: Phase,
    is_dirty: bool,
    is_blocked: bool,
    owes_pong: bool,
    received_messages: u64,
    sent_messages: u64,
    subprotocol: Option<String>,
    pace: Option<Box<Pace>>,
    heartbeat: Option<Answers>,
}

/// The answers to our heartbeats.
struct Answers {
    expected: Bytes,
    received: u64,
}

enum Phase {
    Open,
    Ending(Box<Closing>),
    Ended,
}

/// What was read.
#[derive(Debug)]
pub enum Received {
    /// A whole message.
    Message(Payload),
    /// A ping or a pong; it is answered already where it must be.
    Control,
    /// Nothing more will come. [`Connection::poll_closed`] is to be polled until it is done.
    Ended(Ending),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The peer sent a close frame.
    Closed {
        /// Its code, if it had one.
        code: Option<u16>,
        /// Its reason; often "".
        reason: String,
    },
    /// The stream broke, or ended without a close frame.
    Lost(String),
    /// The peer sent a frame or message above the limit; it is closed with 1009.
    TooLarge {
        /// What it would have been.
        bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// The peer broke the protocol; it is closed with this code.
    Violation {
        /// 1002 or 1007.
        code: u16,
        /// What it did.
        detail: String,
    },
    /// The peer did not answer a ping; it is closed with 1011.
    Silent,
    /// The peer did not answer a heartbeat; it is closed with 1011.
    NoReply,
    /// No message for `idle_timeout`; the peer is closed with 1000.
    Idle,
    /// The peer read too slowly; it is closed with 1013.
    TooSlow,
    /// Somebody wanted it closed, with this close frame.
    Dismissed(Dismissal),
    /// Our endpoint stops; the peer is closed with this code.
    Stopped {
        /// Usually 1001.
        code: u16,
    },
}

impl Connection {
    /// A connection whose handshake is done; `rest` is what was read beyond it.
    pub(super) fn new(
        stream: Stream,
        rest: &[u8],
        role: Role,
        max_message_bytes: usize,
        subprotocol: Option<String>,
    ) -> Self {
        let (read_buffer, kept_write_buffer) = match role {
            Role::Client => (DIALLED_READ_BUFFER_BYTES, KEPT_WRITE_BUFFER_BYTES),
            Role::Server => (ACCEPTED_READ_BUFFER_BYTES, 0),
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(read_buffer)
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BUFFER_BYTES)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        let io = Io::new(stream, rest.len(), role == Role::Client, kept_write_buffer);
        Self {
            socket: WebSocket::from_partially_read(io, rest.to_vec(), role, Some(config)),
            phase: Phase::Open,
            is_dirty: false,
            is_blocked: false,
            owes_pong: false,
            received_messages: 0,
            sent_messages: 0,
            subprotocol,
            pace: None,
            heartbeat: None,
        }
    }

    /// Sends these messages before all others, as [`Self::poll_ready`] is polled, and no two of all messages
    /// closer together than `interval`.
    pub(super) fn begin_with(&mut self, first: Vec<Payload>, interval: Duration) {
        self.pace = Pace::new(first, interval);
    }

    /// Swallows messages that are equal to `reply`, and counts them.
    pub(super) fn expect_replies(&mut self, reply: Bytes) {
        self.heartbeat = Some(Answers { expected: reply, received: 0 });
    }

    /// How many messages were swallowed.
    #[inline]
    pub(super) fn replies(&self) -> u64 {
        self.heartbeat.as_ref().map_or(0, |answers| answers.received)
    }

    /// Whether some of the first messages still wait to be sent.
    #[inline]
    pub(super) fn has_first(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.has_first())
    }

    /// The stream below.
    pub(super) fn stream(&self) -> &Stream {
        self.socket.get_ref().stream()
    }

    /// The subprotocol that was agreed on, as it may be shown.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// What has gone through, and its signs of life.
    #[inline]
    pub fn traffic(&self) -> Traffic {
        self.socket.get_ref().traffic()
    }

    /// What has gone through, as the table of connections shows it.
    pub(super) fn gone(&self) -> Gone {
        let Traffic { received_bytes, sent_bytes, .. } = self.traffic();
        let (received_messages, sent_messages) = (self.received_messages, self.sent_messages);
        Gone { received_bytes, sent_bytes, received_messages, sent_messages }
    }

    /// The next thing the peer sent. Answers pings by itself.
    #[inline]
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        if !matches!(self.phase, Phase::Open) {
            return Poll::Ready(Received::Ended(Ending::already()));
        }
        self.socket.get_mut().wake(cx.waker());
        if self.owes_pong {
            match self.try_flush() {
                Poll::Ready(Ok(())) => self.owes_pong = false,
                Poll::Ready(Err(ending)) => return Poll::Ready(Received::Ended(ending)),
                Poll::Pending => {}
            }
        }
        ready!(self.socket.get_mut().poll_readable(cx));
        match self.socket.read() {
            Ok(tungstenite::Message::Text(text)) => {
                Poll::Ready(self.received(Payload::checked_text(Bytes::from(text))))
            }
            Ok(tungstenite::Message::Binary(bytes)) => Poll::Ready(self.received(Payload::binary(bytes))),
            Ok(tungstenite::Message::Ping(_)) => {
                self.owes_pong = true;
                Poll::Ready(Received::Control)
            }
            Ok(tungstenite::Message::Pong(_) | tungstenite::Message::Frame(_)) => {
                Poll::Ready(Received::Control)
            }
            Ok(tungstenite::Message::Close(frame)) => {
                self.phase = Phase::Ending(Closing::new());
                let (code, reason) = frame.map_or((None, String::new()), |frame| {
                    (Some(frame.code.into()), frame.reason.as_str().to_owned())
                });
                Poll::Ready(Received::Ended(Ending::Closed { code, reason }))
            }
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Received::Ended(self.fail(error))),
        }
    }

    #[inline]
    fn received(&mut self, payload: Payload) -> Received {
        match &mut self.heartbeat {
            Some(answers) if answers.expected == payload.as_bytes() => {
                answers.received += 1;
                Received::Control
            }
            _ => {
                self.received_messages += 1;
                Received::Message(payload)
            }
        }
    }

    /// Whether one more message may be sent without waiting for the peer or for `send_interval`.
    #[inline]
    pub fn is_ready(&self) -> bool {
        !self.is_blocked
            && matches!(self.phase, Phase::Open)
            && self.pace.as_ref().is_none_or(|pace| pace.is_open())
    }

    /// Waits until the peer has read enough of what was sent that more may be, and it is time for it.
    ///
    /// # Errors
    /// The connection broke.
    #[inline]
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        if self.pace.is_some() {
            ready!(self.poll_first(cx))?;
        }
        if self.is_blocked || !matches!(self.phase, Phase::Open) {
            return self.poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the first messages, each at its time, and waits for the time of the next.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        loop {
            if self.is_blocked {
                ready!(self.poll_flush(cx))?;
            }
            let Some(pace) = &mut self.pace else { break };
            ready!(pace.poll_due(cx));
            let Some(payload) = pace.take_first() else { break };
            self.send(&payload)?;
        }
        self.pace.take_if(|pace| !pace.is_timed());
        Poll::Ready(Ok(()))
    }

    /// Hands one message over, to be written when enough have come together or at the next flush.
    /// Call only when [`Self::poll_ready`] or [`Self::is_ready`] says so.
    ///
    /// # Errors
    /// The connection broke.
    #[inline]
    pub fn send(&mut self, payload: &Payload) -> Result<(), Ending> {
        if !matches!(self.phase, Phase::Open) {
            return Err(Ending::already());
        }
        self.is_dirty = true;
        self.sent_messages += 1;
        let io = self.socket.get_mut();
        io.push(payload);
        let mut is_due = io.unwritten_bytes() > WRITE_BUFFER_BYTES;
        if let Some(pace) = &mut self.pace {
            pace.sent();
            is_due |= pace.is_timed();
        }
        if is_due && let Poll::Ready(Err(ending)) = self.try_flush() {
            return Err(ending);
        }
        Ok(())
    }

    /// Whether each message waits for its time.
    #[inline]
    pub(super) fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    /// Waits until frames may be written with [`Self::send_frames`].
    ///
    /// # Errors
    /// The connection broke.
    #[inline]
    pub(super) fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        self.socket.get_mut().wake(cx.waker());
        if self.is_ready() && !self.is_dirty { Poll::Ready(Ok(())) } else { self.try_flush() }
    }

    /// Writes frames that are whole and as this side sends them, without a copy. Call only when
    /// [`Self::poll_clear`] says so.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn send_frames(&mut self, frames: Frames) -> Result<(), Ending> {
        self.is_dirty = true;
        self.sent_messages += frames.count;
        self.socket.get_mut().push_shared(frames.bytes);
        match self.try_flush() {
            Poll::Ready(Err(ending)) => Err(ending),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Sends a ping. It is written at once, or when the peer reads again.
    ///
    /// # Errors
    /// The connection broke.
    pub fn ping(&mut self) -> Result<(), Ending> {
        self.write(tungstenite::Message::Ping(Bytes::new()))
    }

    /// Whether something was sent since the last flush was done.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Writes all that was sent.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        self.socket.get_mut().wake(cx.waker());
        self.try_flush()
    }

    /// Writes what the socket takes now; the waker is that of the last poll.
    ///
    /// # Errors
    /// The connection broke.
    pub fn try_flush(&mut self) -> Poll<Result<(), Ending>> {
        if !matches!(self.phase, Phase::Open) {
            return Poll::Ready(Err(Ending::already()));
        }
        match self.socket.flush() {
            Ok(()) => {
                self.is_dirty = false;
                self.is_blocked = false;
                Poll::Ready(Ok(()))
            }
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                self.is_blocked = true;
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(self.fail(error))),
        }
    }

    /// Starts the end: what was sent is still written, then a close frame, then nothing more.
    pub fn close(&mut self, code: u16, reason: &str) {
        if matches!(self.phase, Phase::Open) {
            self.socket.set_config(|config| config.max_write_buffer_size += CLOSE_FRAME_BYTES);
            let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
            // An error shows again when the flush is polled.
            let _ = self.socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
            self.phase = Phase::Ending(Closing::new());
        }
    }

    /// Sees the end through: ready once the peer has hung up, or after 5 s or 1 MiB more.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.get_mut().wake(cx.waker());
        if let Phase::Ending(closing) = &mut self.phase {
            ready!(closing.poll(&mut self.socket, cx));
            self.phase = Phase::Ended;
        }
        match self.phase {
            Phase::Open => Poll::Pending,
            Phase::Ending(_) | Phase::Ended => Poll::Ready(()),
        }
    }

    #[inline]
    fn write(&mut self, message: tungstenite::Message) -> Result<(), Ending> {
        self.is_dirty = true;
        match self.socket.write(message) {
            Ok(()) => Ok(()),
            // It has taken the frame, and could not write it yet.
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                self.is_blocked = true;
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// What an error means, and the close frame it calls for.
    #[cold]
    fn fail(&mut self, error: Error) -> Ending {
        let ending = match error {
            Error::Io(error) => Ending::Lost(error.to_string()),
            Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                Ending::TooLarge { bytes: size, limit_bytes: max_size }
            }
            Error::Utf8(_) => {
                Ending::Violation { code: close_code::NOT_UTF8, detail: "text that is not UTF-8".to_owned() }
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | Error::ConnectionClosed
            | Error::AlreadyClosed => Ending::Lost("the stream ended without a close frame".to_owned()),
            Error::Protocol(error) => {
                Ending::Violation { code: close_code::PROTOCOL, detail: error.to_string() }
            }
            other => Ending::Lost(other.to_string()),
        };
        match ending.close_frame() {
            Some((code, reason)) => self.close(code, &reason),
            None => self.phase = Phase::Ended,
        }
        ending
    }
}

impl Ending {
    /// Of a connection that is used after its end.
    fn already() -> Self {
        Self::Lost("already closed".to_owned())
    }

    /// What a message that was too large to be read is counted and reported as.
    pub fn failed(&self, origin: &Arc<Origin>) -> Option<Failed> {
        matches!(self, Self::TooLarge { .. }).then(|| Failed {
            message: Message {
                payload: Payload::binary(Bytes::new()),
                metadata: Metadata::new(origin.clone(), metadata::now_us()),
            },
            reason: Reason::TooLarge,
            detail: self.to_string(),
        })
    }

    /// The close frame that we send, if the peer is to get one.
    pub fn close_frame(&self) -> Option<(u16, String)> {
        match self {
            Self::Closed { .. } | Self::Lost(_) => None,
            Self::TooLarge { limit_bytes, .. } => {
                Some((close_code::TOO_LARGE, format!("larger than {limit_bytes} bytes")))
            }
            Self::Violation { code, detail } => Some((*code, detail.clone())),
            Self::Silent => Some((close_code::INTERNAL_ERROR, "no answer to a ping".to_owned())),
            Self::NoReply => Some((close_code::INTERNAL_ERROR, "no answer to a heartbeat".to_owned())),
            Self::Idle => Some((close_code::NORMAL, "idle".to_owned())),
            Self::TooSlow => Some((close_code::TRY_AGAIN_LATER, "reads too slowly".to_owned())),
            Self::Dismissed(Dismissal { code, reason }) => Some((*code, reason.clone())),
            Self::Stopped { code } => Some((*code, String::new())),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed { code: None, .. } => f.write_str("closed by the peer"),
            Self::Closed { code: Some(code), reason } if reason.is_empty() => {
                write!(f, "closed by the peer: {code}")
            }
            Self::Closed { code: Some(code), reason } => {
                write!(f, "closed by the peer: {code} {}", foreign_text::shown(reason))
            }
            Self::Lost(detail) => write!(f, "lost: {detail}"),
            Self::TooLarge { bytes, limit_bytes } => {
                write!(f, "a message of {bytes} bytes is larger than max_message_size ({limit_bytes} bytes)")
            }
            Self::Violation { detail, .. } => write!(f, "the peer broke the protocol: {detail}"),
            Self::Silent => f.write_str("no answer to a ping"),
            Self::NoReply => f.write_str("no answer to a heartbeat"),
            Self::Idle => f.write_str("idle"),
            Self::TooSlow => f.write_str("the peer reads too slowly"),
            Self::Dismissed(Dismissal { reason, .. }) => f.write_str(reason),
            Self::Stopped { .. } => f.write_str("stopped"),
        }
    }
}
