//! One framed connection, client or server, polled by the task that owns it.
//!
//! tungstenite reads frames and writes control frames; what it leaves to its user is done here: close
//! codes on errors, an end that loses no close frame, bounded write buffers, and knowing when bytes are
//! still to be flushed. Messages are written as whole frames of our own.
//! A connection has two halves. Writing may fail while the peer's last messages and its close frame are
//! still to be read, so a failed write ends writing alone: every end of a connection is found by reading,
//! after all that was received before it.
//! Nothing here has timers but the end of a connection and a hold: pace, heartbeat and keepalive are above.

mod closing;
mod ending;
mod frame;
mod hold;
mod io;
mod read_ahead;
mod stream;
mod tcp_progress;

pub(super) use closing::TIMEOUT as CLOSING_TIMEOUT;
pub use ending::ConnectionEnd;
pub use io::{Traffic, WriteError};
pub use stream::TlsFacts;

pub(super) use frame::{EncodedFrames, encode, encoded_bytes};
pub(crate) use stream::Stream;
pub(super) use stream::prepare;
pub(super) use tcp_progress::TcpProgress;

use super::close_code;
use crate::connections::{ConnectionTotals, Dismissal};
use crate::message::Payload;
use bytes::Bytes;
use closing::{ClosingHandshake, ClosingProgress};
use hold::Hold;
use io::Io;
use std::io::ErrorKind;
use std::task::{Context, Poll, ready};
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
    role: Role,
    phase: Lifecycle,
    is_dirty: bool,
    is_blocked: bool,
    owes_pong: bool,
    received_messages: u64,
    sent_messages: u64,
    subprotocol: Option<String>,
    /// What was read while messages were held back.
    hold: Option<Box<Hold>>,
}

enum Lifecycle {
    Open,
    Over(Box<EndedConnection>),
}

/// A connection that has ended, and is seen through.
struct EndedConnection {
    ending: ConnectionEnd,
    /// `None` once that is done.
    closing: Option<ClosingHandshake>,
}

/// What was read.
#[derive(Debug)]
pub enum Received {
    /// A whole message.
    Message(Payload),
    /// A ping or a pong; it is answered already where it must be.
    Control,
    /// Nothing more will come. [`Connection::poll_closed`] is to be polled until it is done.
    Ended(ConnectionEnd),
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
            role,
            phase: Lifecycle::Open,
            is_dirty: false,
            is_blocked: false,
            owes_pong: false,
            received_messages: 0,
            sent_messages: 0,
            subprotocol,
            hold: None,
        }
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
    pub(super) fn totals(&self) -> ConnectionTotals {
        let Traffic { received_bytes, sent_bytes, .. } = self.traffic();
        let (received_messages, sent_messages) = (self.received_messages, self.sent_messages);
        ConnectionTotals { received_bytes, sent_bytes, received_messages, sent_messages }
    }

    /// The next thing the peer sent, from what was read while it was held back or from the stream. Answers
    /// pings by itself.
    #[inline]
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        match self.take_held() {
            Some(payload) => Poll::Ready(Received::Message(payload)),
            None => self.poll_read(cx),
        }
    }

    /// The next message of those that were read while they were held back, without reading more.
    #[inline]
    pub(crate) fn take_held(&mut self) -> Option<Payload> {
        self.hold.as_mut()?.release()
    }

    /// How many messages were read while they were held back, and not yet received.
    pub(crate) fn held_messages(&self) -> usize {
        self.hold.as_ref().map_or(0, |hold| hold.messages().len())
    }

    /// The messages that were read while they were held back, and not yet received.
    pub(super) fn held(&self) -> impl Iterator<Item = &Payload> {
        self.hold.iter().flat_map(|hold| hold.messages())
    }

    /// Forgets those messages: somebody has them.
    pub(super) fn clear_held(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.clear();
        }
    }

    /// Reads on while messages are held back, once that lasts and as far as a hold may go, so that pings are
    /// answered and the end is seen. Ready once the connection has ended: what was read of it before, and
    /// then how it ended, is there for [`Self::poll_receive`].
    pub(super) fn poll_hold(
        &mut self,
        cx: &mut Context<'_>,
        swallow: impl FnMut(&Payload) -> bool,
    ) -> Poll<()> {
        let mut hold = self.hold.take().unwrap_or_default();
        if hold.poll_long(cx).is_ready() {
            self.socket.get_mut().wake(cx.waker());
            self.read_held(cx, &mut hold, swallow);
            self.socket.get_mut().allow(usize::MAX);
        }
        self.hold = Some(hold);
        if self.is_over() {
            let _ = self.poll_closed(cx);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn read_held(
        &mut self,
        cx: &mut Context<'_>,
        hold: &mut Hold,
        mut swallow: impl FnMut(&Payload) -> bool,
    ) {
        while !self.is_over() && hold.room() > 0 {
            self.socket.get_mut().allow(hold.room());
            let before = self.traffic().received_bytes;
            let read = self.poll_read(cx);
            hold.read(self.traffic().received_bytes - before);
            match read {
                Poll::Ready(Received::Message(payload)) if !swallow(&payload) => hold.push(payload),
                Poll::Ready(Received::Message(_) | Received::Control | Received::Ended(_)) => {}
                Poll::Pending => break,
            }
        }
        self.answer_ping();
    }

    /// Whether something was received that nobody has looked at yet, as far as is known.
    pub(super) fn has_unread(&self, cx: &mut Context<'_>) -> bool {
        self.held_messages() > 0 || self.socket.get_ref().has_unread(cx)
    }

    /// Whether the connection has ended; what was received before may still wait.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Lifecycle::Over(_))
    }

    /// How the connection has ended.
    pub(super) fn ending(&self) -> Option<&ConnectionEnd> {
        match &self.phase {
            Lifecycle::Open => None,
            Lifecycle::Over(over) => Some(&over.ending),
        }
    }

    fn answer_ping(&mut self) {
        if self.owes_pong && self.try_flush().is_ready() {
            self.owes_pong = false;
        }
    }

    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        if let Lifecycle::Over(over) = &self.phase {
            return Poll::Ready(Received::Ended(over.ending.clone()));
        }
        self.socket.get_mut().wake(cx.waker());
        self.answer_ping();
        ready!(self.socket.get_mut().poll_readable(cx));
        self.read_next()
    }

    /// Reads one frame, or message of several, from what the io gives without waiting. The one place that
    /// calls tungstenite's `read`, so that the compiler builds it into this function.
    fn read_next(&mut self) -> Poll<Received> {
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
                let (code, reason) = frame.map_or((None, String::new()), |frame| {
                    (Some(frame.code.into()), frame.reason.as_str().to_owned())
                });
                Poll::Ready(self.ended(ConnectionEnd::Closed { code, reason }))
            }
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => {
                let ending = self.ending_of(error);
                Poll::Ready(self.ended(ending))
            }
        }
    }

    fn ended(&mut self, ending: ConnectionEnd) -> Received {
        self.end(ending.clone());
        Received::Ended(ending)
    }

    #[inline]
    fn received(&mut self, payload: Payload) -> Received {
        self.received_messages += 1;
        Received::Message(payload)
    }

    /// Whether one more message may be sent without waiting for the peer.
    #[inline]
    pub fn is_ready(&self) -> bool {
        !self.is_blocked && !self.is_over()
    }

    /// Waits until the peer has read enough of what was sent that more may be.
    ///
    /// # Errors
    /// Nothing can be written any more.
    #[inline]
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        if self.is_blocked || self.is_over() {
            return self.poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Hands one message over, to be written when enough have come together or at the next flush.
    /// Call only when [`Self::poll_ready`] or [`Self::is_ready`] says so.
    ///
    /// # Errors
    /// Nothing can be written any more.
    #[inline]
    pub fn send(&mut self, payload: &Payload) -> Result<(), WriteError> {
        self.writable()?;
        self.is_dirty = true;
        self.sent_messages += 1;
        let io = self.socket.get_mut();
        io.push(payload);
        let is_due = io.unwritten_bytes() > WRITE_BUFFER_BYTES;
        match is_due.then(|| self.try_flush()) {
            Some(Poll::Ready(flushed)) => flushed,
            Some(Poll::Pending) | None => Ok(()),
        }
    }

    /// Whether the peer took nothing more when it was last written to.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Waits until frames may be written with [`Self::send_frames`].
    ///
    /// # Errors
    /// Nothing can be written any more.
    #[inline]
    pub(super) fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.socket.get_mut().wake(cx.waker());
        if self.is_ready() && !self.is_dirty { Poll::Ready(Ok(())) } else { self.try_flush() }
    }

    /// Writes frames that are whole and as this side sends them, without a copy. Call only when
    /// [`Self::poll_clear`] says so.
    ///
    /// # Errors
    /// Nothing can be written any more.
    pub(super) fn send_frames(&mut self, frames: EncodedFrames) -> Result<(), WriteError> {
        self.is_dirty = true;
        self.sent_messages += frames.count;
        self.socket.get_mut().push_shared(frames.bytes);
        match self.try_flush() {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Sends a ping, to be written by the next flush.
    pub(super) fn ping(&mut self) {
        self.is_dirty = true;
        // A peer that has not read thousands of pings needs no other, and what else may be wrong is found
        // by the flush.
        let _ = self.socket.write(tungstenite::Message::Ping(Bytes::new()));
    }

    /// Whether something was sent since the last flush was done.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Writes all that was sent.
    ///
    /// # Errors
    /// Nothing can be written any more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.socket.get_mut().wake(cx.waker());
        self.try_flush()
    }

    /// Writes what the socket takes now; the waker is that of the last poll.
    ///
    /// # Errors
    /// Nothing can be written any more.
    pub fn try_flush(&mut self) -> Poll<Result<(), WriteError>> {
        self.writable()?;
        match self.socket.flush() {
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                self.is_blocked = true;
                return Poll::Pending;
            }
            Ok(()) => {}
            Err(error) => {
                self.is_blocked = true;
                return Poll::Ready(Err(WriteError::new(error.to_string())));
            }
        }
        // Whoever waits is told, and nobody takes what was written last for delivered.
        self.is_blocked = self.socket.get_ref().write_error().is_some();
        self.writable()?;
        self.is_dirty = false;
        Poll::Ready(Ok(()))
    }

    /// # Errors
    /// Nothing can be written any more.
    #[inline]
    pub(super) fn writable(&self) -> Result<(), WriteError> {
        match (&self.phase, self.socket.get_ref().write_error()) {
            (Lifecycle::Open, None) => Ok(()),
            (_, Some(error)) => Err(error.clone()),
            (Lifecycle::Over(over), None) => Err(WriteError::new(over.ending.to_string())),
        }
    }

    /// Ends the connection with a close frame of this code and reason.
    pub fn close(&mut self, code: u16, reason: &str) {
        self.end(ConnectionEnd::Dismissed(Dismissal { code, reason: reason.to_owned() }));
    }

    /// Starts the end, if it has none yet: what was sent is still written, then the close frame that this
    /// ending calls for, then nothing more. What was received before is still there.
    pub(crate) fn end(&mut self, ending: ConnectionEnd) {
        if self.is_over() {
            return;
        }
        if let Some((code, reason)) = ending.close_frame() {
            self.socket.set_config(|config| config.max_write_buffer_size += CLOSE_FRAME_BYTES);
            let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
            // An error shows again when the flush is polled.
            let _ = self.socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
        }
        let closing = (!matches!(ending, ConnectionEnd::Lost(_)))
            .then(|| ClosingHandshake::new(self.role, &ending, self.traffic().received_bytes));
        self.phase = Lifecycle::Over(Box::new(EndedConnection { ending, closing }));
    }

    /// Sees the end through: ready once both close frames are through and, where the peer is a server, it has
    /// hung up; or after 5 s or 1 MiB more. The socket is closed then; what was held back is still there.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.get_mut().wake(cx.waker());
        if !self.is_over() {
            return Poll::Pending;
        }
        ready!(self.poll_closing(cx));
        if let Lifecycle::Over(over) = &mut self.phase {
            over.closing = None;
        }
        self.socket.get_mut().close();
        Poll::Ready(())
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Lifecycle::Over(over) = &mut self.phase
            && let Some(closing) = &mut over.closing
            && ready!(closing.poll(&mut self.socket, cx)) == ClosingProgress::AwaitsFrame
        {
            let frame = self.read_next();
            let Some(closing) = self.closing() else { break };
            match frame {
                Poll::Pending => return closing.poll_deadline(cx),
                Poll::Ready(Received::Ended(ConnectionEnd::Closed { .. })) => closing.answered(),
                Poll::Ready(Received::Ended(_)) => closing.lost_track(),
                Poll::Ready(Received::Message(_) | Received::Control) => {}
            }
        }
        Poll::Ready(())
    }

    /// The closing handshake that is under way.
    fn closing(&mut self) -> Option<&mut ClosingHandshake> {
        match &mut self.phase {
            Lifecycle::Open => None,
            Lifecycle::Over(over) => over.closing.as_mut(),
        }
    }

    /// What an error of reading means.
    #[cold]
    fn ending_of(&self, error: Error) -> ConnectionEnd {
        match error {
            Error::Io(error) => ConnectionEnd::Lost(error.to_string()),
            Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                ConnectionEnd::TooLarge { bytes: size, limit_bytes: max_size }
            }
            Error::Utf8(_) => ConnectionEnd::Violation {
                code: close_code::NOT_UTF8,
                detail: "text that is not UTF-8".to_owned(),
            },
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | Error::ConnectionClosed
            | Error::AlreadyClosed => {
                // A reset is told once, to whoever asks first: reading then finds a mere end.
                let why = self.socket.get_ref().write_error().map(ToString::to_string);
                ConnectionEnd::Lost(
                    why.unwrap_or_else(|| "the stream ended without a close frame".to_owned()),
                )
            }
            Error::Protocol(error) => {
                ConnectionEnd::Violation { code: close_code::PROTOCOL, detail: error.to_string() }
            }
            other => ConnectionEnd::Lost(other.to_string()),
        }
    }
}
