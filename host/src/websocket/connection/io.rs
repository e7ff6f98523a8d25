//! A stream as tungstenite sees it, and the frames that are still to be written to it.
//!
//! tungstenite reads and writes as if the socket were blocking, and takes `WouldBlock` for "not
//! now". A connection belongs to one task, so one waker serves both directions. A write that fails ends
//! the writing half alone: what the peer sent before it left is still to be read, so tungstenite is not
//! told, and what is written from then on goes nowhere.

use super::frame::{self, Masks};
use super::read_ahead::ReadAhead;
use super::stream::Stream;
use crate::message::Payload;
use bytes::{Buf as _, Bytes};
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::AsyncWrite;

/// The stream as tungstenite sees it, with the waker of the task that polls the connection.
pub(super) struct Io {
    stream: Stream,
    waker: Waker,
    is_write_blocked: bool,
    /// Why nothing can be written any more.
    write_error: Option<WriteError>,
    read_ahead: ReadAhead,
    /// How many bytes may still be read from the stream; the rest waits there.
    allowance: usize,
    outgoing: WriteBuffer,
    /// tungstenite has written a part of what it has: the rest comes before anything else.
    is_interrupted: bool,
    /// The last read found nothing: there is no use in another before the socket says so.
    is_drained: bool,
    traffic: Traffic,
}

/// Frames with messages that are still to be written, beside what tungstenite writes.
#[derive(Default)]
struct WriteBuffer {
    /// Shared with other connections; these come first.
    shared: Bytes,
    /// This connection's own, of which so much is written.
    own: Vec<u8>,
    written: usize,
    /// How large the buffer of its own may stay.
    kept_bytes: usize,
    /// A client masks what it sends.
    masks: Option<Box<Masks>>,
}

impl WriteBuffer {
    #[inline]
    fn push(&mut self, payload: &Payload) {
        match &mut self.masks {
            Some(masks) => frame::encode_masked(payload, masks, &mut self.own),
            None => frame::encode(payload, &mut self.own),
        }
    }

    /// What comes next; empty if nothing does.
    #[inline]
    fn next(&self) -> &[u8] {
        if self.shared.is_empty() { &self.own[self.written..] } else { &self.shared }
    }

    fn len(&self) -> usize {
        self.shared.len() + self.own.len() - self.written
    }

    /// So much of [`Self::next`] is written.
    fn advance(&mut self, length: usize) {
        if !self.shared.is_empty() {
            return self.shared.advance(length);
        }
        self.written += length;
        if self.written == self.own.len() {
            self.written = 0;
            self.own.clear();
            self.own.shrink_to(self.kept_bytes);
        }
    }
}

/// The writing half of a connection has ended. What the peer sent before can still be read, and the end
/// of the connection is found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteError {
    detail: String,
}

impl WriteError {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}

impl std::fmt::Display for WriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for WriteError {}

/// What has gone through a connection since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read from the stream.
    pub received_bytes: u64,
    /// Bytes written to it.
    pub sent_bytes: u64,
    /// Grows with every sign of life: bytes that came, and a write that had been blocked and went on.
    pub life: u64,
}

impl Io {
    /// `read_bytes` were read from the stream before; what is sent is masked if this is a client. The
    /// buffer for it stays as large as `kept_bytes` while nothing is sent.
    pub(super) fn new(stream: Stream, read_bytes: usize, is_client: bool, kept_bytes: usize) -> Self {
        let masks = is_client.then(|| Box::new(Masks::new()));
        let outgoing = WriteBuffer { shared: Bytes::new(), own: Vec::new(), written: 0, kept_bytes, masks };
        Self {
            stream,
            waker: Waker::noop().clone(),
            is_write_blocked: false,
            write_error: None,
            read_ahead: ReadAhead::default(),
            allowance: usize::MAX,
            outgoing,
            is_interrupted: false,
            is_drained: false,
            traffic: Traffic { received_bytes: read_bytes as u64, ..Traffic::default() },
        }
    }

    /// Who is woken when the stream can go on.
    #[inline]
    pub(super) fn wake(&mut self, waker: &Waker) {
        if !self.waker.will_wake(waker) {
            self.waker = waker.clone();
        }
    }

    /// Whether a read may find something. tungstenite clears its whole buffer before it looks, so it is
    /// worth knowing.
    #[inline]
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_drained {
            if let Some(tcp) = self.stream.tcp() {
                // An error is found by the read.
                let _ = ready!(tcp.poll_read_ready(cx));
            }
            self.is_drained = false;
        }
        Poll::Ready(())
    }

    /// Whether bytes wait to be read, as far as is known.
    pub(super) fn has_unread(&self, cx: &mut Context<'_>) -> bool {
        !self.is_drained || self.stream.tcp().is_none_or(|tcp| tcp.poll_read_ready(cx).is_ready())
    }

    /// From now on no more than so many bytes are read from the stream.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.allowance = bytes;
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Why nothing can be written any more.
    #[inline]
    pub(super) fn write_error(&self) -> Option<&WriteError> {
        self.write_error.as_ref()
    }

    /// Appends the frame of a message to what is to be written; a flush writes it.
    #[inline]
    pub(super) fn push(&mut self, payload: &Payload) {
        self.outgoing.push(payload);
    }

    /// Appends whole frames without a copy. Call only when nothing is left to be written.
    pub(super) fn push_shared(&mut self, frames: Bytes) {
        debug_assert!(self.outgoing.len() == 0, "what was there before is written");
        self.outgoing.shared = frames;
    }

    /// How many bytes of messages are still to be written.
    #[inline]
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.outgoing.len()
    }

    #[inline]
    fn write_messages(&mut self) -> io::Result<()> {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let mut result = Ok(());
        while result.is_ok() && outgoing.len() > 0 {
            result = self.write_some(outgoing.next()).map(|length| outgoing.advance(length));
        }
        self.outgoing = outgoing;
        result
    }

    /// Writes what the stream takes; the only error is `WouldBlock`.
    #[inline]
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.write_error.is_some() {
            return Ok(bytes.len());
        }
        match Pin::new(&mut self.stream).poll_write(&mut Context::from_waker(&self.waker), bytes) {
            Poll::Ready(Ok(length)) if length > 0 => {
                self.traffic.sent_bytes += length as u64;
                self.traffic.life += u64::from(std::mem::take(&mut self.is_write_blocked));
                Ok(length)
            }
            Poll::Ready(Ok(_)) => Ok(self.end_writing(&ErrorKind::WriteZero.into(), bytes.len())),
            Poll::Ready(Err(error)) => Ok(self.end_writing(&error, bytes.len())),
            Poll::Pending => {
                self.is_write_blocked = true;
                Err(ErrorKind::WouldBlock.into())
            }
        }
    }

    /// So many bytes, and all that follow, go nowhere.
    #[cold]
    fn end_writing(&mut self, error: &io::Error, length: usize) -> usize {
        self.write_error.get_or_insert_with(|| WriteError::new(error.to_string()));
        length
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.traffic
    }

    pub(super) fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(&mut Context::from_waker(&self.waker))
    }

    /// Closes the socket, whatever was not read of it.
    pub(super) fn close(&mut self) {
        self.stream = Stream::Closed;
    }
}

impl Read for Io {
    #[inline]
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if let Some(length) = self.read_ahead.take(bytes) {
            return Ok(length);
        }
        if self.allowance == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut cx = Context::from_waker(&self.waker);
        let Poll::Ready(result) = self.read_ahead.poll_fill(&mut self.stream, &mut cx, self.allowance) else {
            self.is_drained = true;
            return Err(ErrorKind::WouldBlock.into());
        };
        let length = result?;
        if self.allowance != usize::MAX {
            self.allowance -= length;
        }
        self.traffic.received_bytes += length as u64;
        self.traffic.life += 1;
        Ok(self.read_ahead.take(bytes).unwrap_or(0))
    }
}

impl Write for Io {
    /// A control frame: it comes after the messages before it, and is not torn.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_interrupted {
            self.write_messages()?;
        }
        let written = self.write_some(bytes)?;
        self.is_interrupted = written < bytes.len();
        Ok(written)
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        self.write_messages()?;
        if self.write_error.is_some() {
            return Ok(());
        }
        match Pin::new(&mut self.stream).poll_flush(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) => {
                self.end_writing(&error, 0);
                Ok(())
            }
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}
