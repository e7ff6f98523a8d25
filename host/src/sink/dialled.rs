//! Messages to a WebSocket connection that we dial, written by the pipeline's own task. They are kept until a
//! flush that holds them is done, so that a broken connection costs at most a repetition.

use super::framing::Framing;
use super::gathering::Gathering;
use crate::config::{Buffer, Client, WebSocketSink, WhenFull};
use crate::connections::OpenEndpoint;
use crate::message::{Failed, Message};
use crate::reason::Reason;
use crate::telemetry::SinkMetrics;
use crate::websocket::{BeforeConnect, ConnectionEnd, Received, Session, SessionEvent, WhenExhausted};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Messages fed without a flush that was done, at most: no loss repeats more, but for the rest of a frame of
/// several.
const UNFLUSHED_MESSAGES: usize = 1024;
/// Bytes fed without a flush, at most: less than the connection collects before it writes by itself,
/// so that a flush is one big write and no small one follows.
const UNFLUSHED_BYTES: usize = 112 << 10;
/// The longest header of a frame.
const FRAME_HEADER_BYTES: usize = 14;
/// The connection we dial.
#[derive(Debug)]
pub struct DialledSink {
    session: Session,
    is_checked: bool,
    buffer: Buffer,
    framing: Framing,
    gathering: Option<Gathering>,
    metrics: SinkMetrics,
    /// The first `fed` were handed to the connection, and wait for a flush.
    queue: VecDeque<Message>,
    fed: usize,
    fed_bytes: usize,
    waiting_bytes: usize,
    dropped: u64,
    urgency: Urgency,
}

/// How soon what waits is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// Once enough has come together.
    Gather,
    /// A flush was asked for and is not done: what was fed is written out.
    Flush,
    /// No more will come: what gathers goes as it is.
    Drain,
}

impl DialledSink {
    /// Dials at the first poll; `connector` is asked before each dial.
    pub fn new(
        config: &WebSocketSink,
        client: &Client,
        connector: Option<Arc<dyn BeforeConnect>>,
        metrics: SinkMetrics,
        endpoint: OpenEndpoint,
    ) -> Self {
        let packing = config.packing;
        let persist = WhenExhausted::Persist;
        Self {
            session: Session::new(&config.endpoint, client, packing, connector, persist, endpoint),
            is_checked: config.endpoint.check_connection.is_some(),
            buffer: config.buffer,
            framing: Framing::of(config),
            gathering: config.batch.map(Gathering::new),
            metrics,
            queue: VecDeque::new(),
            fed: 0,
            fed_bytes: 0,
            waiting_bytes: 0,
            dropped: 0,
            urgency: Urgency::Gather,
        }
    }

    /// The same, adding metadata of a source that takes these names from handshakes.
    #[must_use]
    pub fn reserving(mut self, names: Vec<String>) -> Self {
        self.framing.reserve(names);
        self
    }

    /// The connection: its state, its last error.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) {
        loop {
            self.follow(cx, failed);
            let Some(connection) = self.session.connection() else { break };
            let ending = loop {
                match connection.poll_receive(cx) {
                    Poll::Ready(Received::Message(_) | Received::Control) => {}
                    Poll::Ready(Received::Ended(ending)) => break Some(ending),
                    Poll::Pending => break None,
                }
            };
            let Some(ending) = ending else {
                self.feed(Some(cx));
                break;
            };
            if matches!(ending, ConnectionEnd::TooLarge { .. }) {
                self.metrics.peer_dropped(Reason::TooLarge, 1);
            }
            self.session.lose(&ending);
        }
        self.metrics.account.dropped(Reason::BufferFull, std::mem::take(&mut self.dropped));
    }

    pub(super) fn poll_connected(&mut self) -> Poll<Result<(), String>> {
        if self.is_checked { self.session.check_first_dial() } else { Poll::Ready(Ok(())) }
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.buffer.when_full != WhenFull::Block || self.has_room() {
            return Poll::Ready(());
        }
        self.feed(Some(cx));
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    #[inline]
    pub(super) fn push(&mut self, message: Message, failed: &mut Vec<Failed>) {
        let message = match self.gathering {
            None => match self.framing.typed(message) {
                Ok(message) => message,
                Err(unsendable) => return failed.push(unsendable),
            },
            Some(_) => message,
        };
        let nothing_waits = self.gathering.is_none() && self.fed == self.queue.len();
        if nothing_waits
            && let Some(connection) = self.session.connection()
            && connection.is_ready()
        {
            let frame = self.framing.frame(&message);
            self.fed_bytes += frame.len() + FRAME_HEADER_BYTES;
            // Where it cannot be sent, it waits with the rest for what reading finds: the connection's end.
            let _ = connection.send(&frame);
            self.queue.push_back(message);
            self.fed += 1;
            self.flush(None);
            return;
        }
        self.keep(message, failed);
    }

    /// What cannot be sent at once waits, or is lost as the buffer says.
    fn keep(&mut self, message: Message, failed: &mut Vec<Failed>) {
        if self.session.is_unavailable() {
            return failed.push(unavailable(message, self.session.last_error().unwrap_or_default()));
        }
        if !self.has_room() {
            match self.buffer.when_full {
                // Only after `poll_ready` was ready: there is room.
                WhenFull::Block => {}
                WhenFull::DropNewest => {
                    self.dropped += 1;
                    return;
                }
                WhenFull::DropOldest => {
                    while !self.has_room()
                        && let Some(oldest) = self.queue.remove(self.fed)
                    {
                        self.waiting_bytes -= oldest.payload.len();
                        self.dropped += 1;
                    }
                }
            }
        }
        let is_first = self.fed == self.queue.len();
        let goes_on = self.gathering.as_mut().is_some_and(|gathering| {
            if is_first {
                gathering.begin();
            }
            !gathering.lingers()
        });
        self.waiting_bytes += message.payload.len();
        let is_kept = !goes_on || self.session.connection().is_none();
        self.queue.push_back(if is_kept { message.detached() } else { message });
        self.feed(None);
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) -> Poll<()> {
        self.urgency = self.urgency.max(Urgency::Flush);
        self.poll_drive(cx, failed);
        if !self.queue.is_empty() {
            return Poll::Pending;
        }
        if self.urgency == Urgency::Flush {
            self.urgency = Urgency::Gather;
        }
        Poll::Ready(())
    }

    pub(super) fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        code: u16,
        failed: &mut Vec<Failed>,
    ) -> Poll<()> {
        self.urgency = Urgency::Drain;
        if !self.queue.is_empty() {
            ready!(self.poll_flush(cx, failed));
        }
        self.session.poll_close(cx, code)
    }

    /// Nothing stands before the close frame any more but what the connection has taken.
    pub(super) fn give_up(&mut self) {
        self.queue.truncate(self.fed);
        self.waiting_bytes = 0;
    }

    pub(super) fn drain(&mut self) {
        self.urgency = Urgency::Drain;
    }

    pub(super) fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Follows what becomes of the connection.
    fn follow(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) {
        while let Poll::Ready(change) = self.session.poll_event(cx) {
            match change {
                SessionEvent::Connected(_) => {}
                SessionEvent::Lost => self.take_back(),
                SessionEvent::Unavailable(why) => {
                    self.take_back();
                    self.waiting_bytes = 0;
                    failed.extend(self.queue.drain(..).map(|message| unavailable(message, &why)));
                }
            }
        }
    }

    /// What was not flushed is sent again. What waits keeps no read buffer alive.
    fn take_back(&mut self) {
        (self.fed, self.fed_bytes) = (0, 0);
        self.waiting_bytes = self.queue.iter().map(|message| message.payload.len()).sum();
        self.queue.iter_mut().for_each(|message| *message = message.detached());
    }

    /// Hands on what waits, as far as the peer reads, and flushes if that is due. Without a context it
    /// goes no further than can be told at once.
    fn feed(&mut self, mut cx: Option<&mut Context<'_>>) {
        while self.fed < self.queue.len() && self.is_due(cx.as_deref_mut()) {
            if self.has_fed_much() {
                // It is settled first: a loss must not repeat a whole backlog.
                self.flush(cx.as_deref_mut());
            }
            let has_room = self.fed < UNFLUSHED_MESSAGES;
            let Some(connection) = self.session.connection().filter(|_| has_room) else { return };
            let is_ready = match cx.as_deref_mut() {
                Some(cx) => matches!(connection.poll_ready(cx), Poll::Ready(Ok(()))),
                None => connection.is_ready(),
            };
            if !is_ready {
                break;
            }
            let (frame, count) = match &self.gathering {
                None => (self.framing.frame(&self.queue[self.fed]), 1),
                Some(gathering) => {
                    let waiting = self.queue.range(self.fed..).take(gathering.max_messages());
                    let (frame, count) = self.framing.array(waiting, gathering.max_bytes());
                    (Cow::Owned(frame), count)
                }
            };
            let fed = self.queue.range(self.fed..self.fed + count);
            self.waiting_bytes -= fed.map(|message| message.payload.len()).sum::<usize>();
            self.fed += count;
            self.fed_bytes += frame.len() + FRAME_HEADER_BYTES;
            if connection.send(&frame).is_err() {
                return;
            }
        }
        self.flush(cx);
    }

    #[inline]
    fn has_fed_much(&self) -> bool {
        self.fed >= UNFLUSHED_MESSAGES || self.fed_bytes >= UNFLUSHED_BYTES
    }

    /// Flushes what was fed, if that is due.
    #[inline]
    fn flush(&mut self, cx: Option<&mut Context<'_>>) {
        if self.fed > 0
            && (self.has_fed_much() || self.urgency >= Urgency::Flush && cx.is_some())
            && let Some(connection) = self.session.connection()
        {
            let flushed = match cx {
                Some(cx) => connection.poll_flush(cx),
                None => connection.try_flush(),
            };
            if matches!(flushed, Poll::Ready(Ok(()))) {
                self.settle();
            }
        }
    }

    /// Whether what waits is to be sent now: it does not gather, or has gathered enough.
    #[inline]
    fn is_due(&mut self, cx: Option<&mut Context<'_>>) -> bool {
        let has_room = self.has_room();
        let Some(gathering) = &mut self.gathering else { return true };
        gathering.is_full(self.queue.len() - self.fed, self.waiting_bytes)
            || self.urgency == Urgency::Drain
            || !has_room
            || cx.is_some_and(|cx| gathering.is_over(cx, self.urgency >= Urgency::Flush))
    }

    /// A flush is done: what was fed is delivered.
    fn settle(&mut self) {
        self.metrics.account.delivered(self.fed as u64);
        self.queue.drain(..self.fed);
        (self.fed, self.fed_bytes) = (0, 0);
        self.session.message();
    }

    fn has_room(&self) -> bool {
        let waiting = self.queue.len() - self.fed;
        waiting == 0 || (waiting < self.buffer.capacity && self.waiting_bytes < self.buffer.max_bytes)
    }
}

fn unavailable(message: Message, why: &str) -> Failed {
    Failed { message, reason: Reason::SinkUnavailable, detail: why.to_owned() }
}
