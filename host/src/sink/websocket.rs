//! Messages to WebSocket connections: the one that we dial, or the peers of a path.
//!
//! The dialled one is written by the pipeline's own task. Messages are kept until a flush that holds
//! them is done, so that a broken connection costs at most a repetition. Peers have tasks of their
//! own, which take from a broadcast.

use super::framing::Framing;
use super::gathering::Gathering;
use crate::config::{self, Buffer, WebSocketSink, WhenFull, WhenNoPeers};
use crate::connections::OpenEndpoint;
use crate::message::{Failed, Message};
use crate::reason::Reason;
use crate::telemetry::SinkMetrics;
use crate::websocket::{
    Attachment, Broadcast, Chance, Change, Ending, Frame, Link, ListenError, Listeners, Received,
    WhenExhausted,
};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// Messages fed without a flush that was done, at most: no loss repeats more, but for the rest of a frame of
/// several.
const UNFLUSHED_MESSAGES: usize = 1024;
/// Bytes fed without a flush, at most: less than the connection collects before it writes by itself,
/// so that a flush is one big write and no small one follows.
const UNFLUSHED_BYTES: usize = 112 << 10;
/// The longest header of a frame.
const FRAME_HEADER_BYTES: usize = 14;
/// Messages that are given to peers at once.
const BATCH_MESSAGES: usize = 256;

/// The connection we dial.
#[derive(Debug)]
pub struct Client {
    link: Link,
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
    is_flushing: bool,
    is_draining: bool,
}

/// The peers of a path.
#[derive(Debug)]
pub struct Server {
    attachment: Attachment,
    broadcast: Arc<Broadcast>,
    peers: config::Peers,
    framing: Framing,
    gathering: Option<Gathering>,
    metrics: SinkMetrics,
    /// Waiting to become a frame, all together.
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    /// Frames to be published, how many messages they hold, and their bytes.
    frames: VecDeque<Frame>,
    frame_messages: usize,
    frame_bytes: usize,
    /// When peers that had no chance yet to take more have had it.
    chance: Option<Pin<Box<Sleep>>>,
    is_draining: bool,
}

impl Client {
    /// Dials at the first poll.
    pub fn new(
        config: &WebSocketSink,
        client: &config::Client,
        metrics: SinkMetrics,
        endpoint: OpenEndpoint,
    ) -> Self {
        Self {
            link: Link::new(&config.endpoint, client, config.packing, WhenExhausted::Persist, endpoint),
            is_checked: config.endpoint.check_connection.is_some(),
            buffer: config.buffer,
            framing: framing(config),
            gathering: config.batch.map(Gathering::new),
            metrics,
            queue: VecDeque::new(),
            fed: 0,
            fed_bytes: 0,
            waiting_bytes: 0,
            dropped: 0,
            is_flushing: false,
            is_draining: false,
        }
    }

    /// The same, adding metadata of a source that takes these names from handshakes.
    #[must_use]
    pub fn reserving(mut self, names: Vec<String>) -> Self {
        self.framing.reserve(names);
        self
    }

    /// The connection: its state, its last error.
    pub fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) {
        loop {
            self.follow(cx, failed);
            let Some(connection) = self.link.connection() else { break };
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
            if matches!(ending, Ending::TooLarge { .. }) {
                self.metrics.received_too_large();
            }
            self.link.lose(&ending);
        }
        self.metrics.account.dropped(Reason::BufferFull, std::mem::take(&mut self.dropped));
    }

    pub(super) fn poll_connected(&self) -> Poll<Result<(), String>> {
        if self.is_checked { self.link.first_dial() } else { Poll::Ready(Ok(())) }
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
            && let Some(connection) = self.link.connection()
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
        if self.link.is_unavailable() {
            return failed.push(unavailable(message, self.link.last_error().unwrap_or_default()));
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
        let is_kept = !goes_on || self.link.connection().is_none();
        self.queue.push_back(if is_kept { message.detached() } else { message });
        self.feed(None);
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) -> Poll<()> {
        self.is_flushing = true;
        self.poll_drive(cx, failed);
        if !self.queue.is_empty() {
            return Poll::Pending;
        }
        self.is_flushing = false;
        Poll::Ready(())
    }

    pub(super) fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        code: u16,
        failed: &mut Vec<Failed>,
    ) -> Poll<()> {
        self.is_draining = true;
        if !self.queue.is_empty() {
            ready!(self.poll_flush(cx, failed));
        }
        self.link.poll_close(cx, code)
    }

    pub(super) fn drain(&mut self) {
        self.is_draining = true;
    }

    pub(super) fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Follows what becomes of the connection.
    fn follow(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) {
        while let Poll::Ready(change) = self.link.poll_change(cx) {
            match change {
                Change::Connected(_) => {}
                Change::Lost => self.take_back(),
                Change::Unavailable(why) => {
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
            let Some(connection) = self.link.connection().filter(|_| has_room) else { return };
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
            && (self.has_fed_much() || self.is_flushing && cx.is_some())
            && let Some(connection) = self.link.connection()
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
            || self.is_draining
            || !has_room
            || cx.is_some_and(|cx| gathering.is_over(cx, self.is_flushing))
    }

    /// A flush is done: what was fed is delivered.
    fn settle(&mut self) {
        self.metrics.account.delivered(self.fed as u64);
        self.queue.drain(..self.fed);
        (self.fed, self.fed_bytes) = (0, 0);
        self.link.message();
    }

    fn has_room(&self) -> bool {
        let waiting = self.queue.len() - self.fed;
        waiting == 0 || (waiting < self.buffer.capacity && self.waiting_bytes < self.buffer.max_bytes)
    }
}

impl Server {
    /// Opens the path, and the listener if it is the first there.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open(
        config: &WebSocketSink,
        listen: &config::Listen,
        listeners: &Listeners,
        metrics: SinkMetrics,
        endpoint: OpenEndpoint,
    ) -> Result<Self, ListenError> {
        let broadcast = Arc::new(Broadcast::new(config.peers, metrics.clone()));
        let attachment = listeners.open_sink(&config.endpoint, listen, broadcast.clone(), endpoint).await?;
        Ok(Self {
            attachment,
            broadcast,
            peers: config.peers,
            framing: framing(config),
            gathering: config.batch.map(Gathering::new),
            metrics,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            frames: VecDeque::with_capacity(BATCH_MESSAGES),
            frame_messages: 0,
            frame_bytes: 0,
            chance: None,
            is_draining: false,
        })
    }

    /// The same, adding metadata of a source that takes these names from handshakes.
    #[must_use]
    pub fn reserving(mut self, names: Vec<String>) -> Self {
        self.framing.reserve(names);
        self
    }

    /// Where it listens, for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.attachment.local_address()
    }

    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) {
        self.gather(cx, false);
        let _ = self.poll_publish(cx);
    }

    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.attachment.poll_connected(cx)
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let most = BATCH_MESSAGES.min(self.peers.buffer.max(1));
        if self.frame_messages >= most || self.frame_bytes >= self.peers.buffer_bytes {
            ready!(self.poll_publish(cx));
        }
        if self.poll_room(cx).is_ready() {
            return Poll::Ready(());
        }
        // What waits here may be what peers are waiting for.
        while self.make_array() {}
        ready!(self.poll_publish(cx));
        self.poll_room(cx)
    }

    pub(super) fn push(&mut self, message: Message, failed: &mut Vec<Failed>) {
        let Some(gathering) = &mut self.gathering else {
            match self.framing.typed(message) {
                Ok(message) => {
                    let payload = self.framing.frame(&message).into_owned();
                    self.add(Frame { payload, messages: 1 });
                }
                Err(unsendable) => failed.push(unsendable),
            }
            return;
        };
        if self.waiting.is_empty() {
            gathering.begin();
        }
        self.waiting_bytes += message.payload.len();
        self.waiting.push_back(if gathering.lingers() { message.detached() } else { message });
        if gathering.is_full(self.waiting.len(), self.waiting_bytes) {
            self.make_array();
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.gather(cx, true);
        ready!(self.poll_publish(cx));
        if self.waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn stop(&mut self, grace: Option<Duration>) {
        self.broadcast.stop(grace);
        self.attachment.wake_peers();
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        self.is_draining = true;
        ready!(self.poll_flush(cx));
        // Each peer goes when it has what is left for it.
        self.broadcast.finish();
        self.attachment.poll_close(cx, code)
    }

    pub(super) fn drain(&mut self) {
        self.is_draining = true;
    }

    pub(super) fn in_flight(&self) -> usize {
        self.waiting.len() + self.frame_messages
    }

    /// Makes frames of what has gathered, if it is time.
    fn gather(&mut self, cx: &mut Context<'_>, is_flushing: bool) {
        let Some(gathering) = &mut self.gathering else { return };
        if !self.waiting.is_empty() && (self.is_draining || gathering.is_over(cx, is_flushing)) {
            while self.make_array() {}
        }
    }

    /// Makes a frame of what has gathered; false if nothing has.
    fn make_array(&mut self) -> bool {
        let Some(gathering) = self.gathering.as_ref().filter(|_| !self.waiting.is_empty()) else {
            return false;
        };
        let (payload, count) =
            self.framing.array(self.waiting.iter().take(gathering.max_messages()), gathering.max_bytes());
        let taken = self.waiting.drain(..count);
        self.waiting_bytes -= taken.map(|message| message.payload.len()).sum::<usize>();
        self.add(Frame { payload, messages: count as u64 });
        true
    }

    #[inline]
    fn add(&mut self, frame: Frame) {
        self.frame_messages += messages_of(&frame);
        self.frame_bytes += frame.encoded_bytes();
        self.frames.push_back(frame);
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let bytes = self.waiting_bytes + self.frame_bytes;
        self.broadcast.poll_room(cx, self.in_flight() as u64, bytes as u64)
    }

    /// Gives the frames to the peers; pending while it has to wait for one to come.
    fn poll_publish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.frames.is_empty() {
            return Poll::Ready(());
        }
        if self.peers.when_none == WhenNoPeers::Wait {
            ready!(self.broadcast.poll_peers(cx));
        }
        while !self.frames.is_empty() {
            let (count, messages, bytes) = self.piece();
            ready!(self.poll_chance(cx, messages, bytes));
            self.frame_messages -= messages;
            self.frame_bytes -= bytes;
            let published = self.broadcast.publish(self.frames.drain(..count));
            self.metrics.account.delivered(published.delivered);
            self.metrics.account.dropped(Reason::NoPeers, published.no_peers);
            self.metrics.account.dropped(Reason::SlowPeer, published.slow_peers);
        }
        Poll::Ready(())
    }

    /// The first frames that go together into what may wait for a peer, and at least one: how many they are,
    /// of how many messages and bytes.
    fn piece(&self) -> (usize, usize, usize) {
        let fits = |messages, bytes| messages <= self.peers.buffer && bytes <= self.peers.buffer_bytes;
        if fits(self.frame_messages, self.frame_bytes) {
            return (self.frames.len(), self.frame_messages, self.frame_bytes);
        }
        let (mut count, mut messages, mut bytes) = (0, 0, 0);
        for frame in &self.frames {
            let (more_messages, more_bytes) = (messages + messages_of(frame), bytes + frame.encoded_bytes());
            if count > 0 && !fits(more_messages, more_bytes) {
                break;
            }
            (count, messages, bytes) = (count + 1, more_messages, more_bytes);
        }
        (count, messages, bytes)
    }

    /// Waits until every peer has room for so much, or had its chance.
    fn poll_chance(&mut self, cx: &mut Context<'_>, messages: usize, bytes: usize) -> Poll<()> {
        loop {
            let due = match self.broadcast.chance(cx, messages as u64, bytes as u64) {
                Chance::Given => break,
                Chance::Due(None) => return Poll::Pending,
                Chance::Due(Some(due)) => due.into(),
            };
            let chance = self.chance.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if chance.deadline() != due {
                chance.as_mut().reset(due);
            }
            ready!(chance.as_mut().poll(cx));
        }
        self.chance = None;
        Poll::Ready(())
    }
}

impl Drop for Server {
    /// Peers do not wait for more.
    fn drop(&mut self) {
        self.broadcast.finish();
    }
}

fn messages_of(frame: &Frame) -> usize {
    usize::try_from(frame.messages).unwrap_or(usize::MAX)
}

fn unavailable(message: Message, why: &str) -> Failed {
    Failed { message, reason: Reason::SinkUnavailable, detail: why.to_owned() }
}

fn framing(config: &WebSocketSink) -> Framing {
    Framing::new(config.message_type, config.include_metadata, config.packing)
}
