//! Messages to WebSocket connections: the one that we dial, or the peers of a path.
//!
//! The dialled one is written by the pipeline's own task. Messages are kept until a flush that holds
//! them is done, so that a broken connection costs at most a repetition. Peers have tasks of their
//! own, which take from a broadcast.

use crate::config::{self, Buffer, MessageType, WebSocketSink, WhenFull, WhenNoPeers};
use crate::message::{Failed, Message, Payload};
use crate::reason::Reason;
use crate::telemetry::{EndpointMetrics, SinkMetrics};
use crate::websocket::{
    Attachment, Broadcast, Change, Ending, Link, ListenError, Listeners, Received, WhenExhausted,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Messages fed without a flush, at most; bounds what a loss repeats.
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
    buffer: Buffer,
    message_type: MessageType,
    metrics: SinkMetrics,
    /// The first `fed` were handed to the connection, and wait for a flush.
    queue: VecDeque<Message>,
    fed: usize,
    fed_bytes: usize,
    waiting_bytes: usize,
    dropped: u64,
    is_flushing: bool,
}

/// The peers of a path.
#[derive(Debug)]
pub struct Server {
    attachment: Attachment,
    broadcast: Arc<Broadcast>,
    peers: config::Peers,
    message_type: MessageType,
    metrics: SinkMetrics,
    batch: Vec<Payload>,
    batch_bytes: usize,
}

impl Client {
    /// Dials at the first poll.
    pub fn new(
        config: &WebSocketSink,
        client: &config::Client,
        metrics: SinkMetrics,
        endpoint: EndpointMetrics,
    ) -> Self {
        Self {
            link: Link::new(&config.endpoint, client, WhenExhausted::Persist, endpoint),
            buffer: config.buffer,
            message_type: config.message_type,
            metrics,
            queue: VecDeque::new(),
            fed: 0,
            fed_bytes: 0,
            waiting_bytes: 0,
            dropped: 0,
            is_flushing: false,
        }
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
            let result = match ending {
                Some(ending) => Err(ending),
                None => self.feed(cx),
            };
            match result {
                Ok(()) => break,
                Err(ending) => self.link.lose(&ending),
            }
        }
        self.metrics.losses.dropped(Reason::BufferFull, std::mem::take(&mut self.dropped));
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.buffer.when_full != WhenFull::Block || self.has_room() {
            return Poll::Ready(());
        }
        if let Err(ending) = self.feed(cx) {
            self.link.lose(&ending);
            // The next turn follows it up.
            cx.waker().wake_by_ref();
        }
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn push(&mut self, message: Message, failed: &mut Vec<Failed>) {
        let message = match typed(self.message_type, message) {
            Ok(message) => message,
            Err(unsendable) => return failed.push(unsendable),
        };
        if self.link.is_unavailable() {
            return failed.push(unavailable(message, self.link.last_error().unwrap_or_default()));
        }
        let is_next = self.fed == self.queue.len();
        if let Some(connection) = self.link.connection().filter(|connection| is_next && connection.is_ready())
        {
            let length = message.payload.len();
            let mut result = connection.send(message.payload.clone());
            self.queue.push_back(message);
            self.fed += 1;
            self.fed_bytes += length + FRAME_HEADER_BYTES;
            let is_due = self.fed >= UNFLUSHED_MESSAGES || self.fed_bytes >= UNFLUSHED_BYTES;
            if is_due && result.is_ok() {
                match connection.try_flush() {
                    Poll::Ready(Ok(())) => self.settle(),
                    Poll::Ready(Err(ending)) => result = Err(ending),
                    Poll::Pending => {}
                }
            }
            if let Err(ending) = result {
                self.link.lose(&ending);
            }
            return;
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
        self.waiting_bytes += message.payload.len();
        let is_connected = self.link.connection().is_some();
        self.queue.push_back(if is_connected { message } else { message.detached() });
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
        if !self.queue.is_empty() {
            ready!(self.poll_flush(cx, failed));
        }
        self.link.poll_close(cx, code)
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

    /// Hands on what waits, as far as the peer reads, and flushes if that is due.
    fn feed(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        let Some(connection) = self.link.connection() else { return Ok(()) };
        while let Some(message) = self.queue.get(self.fed) {
            match connection.poll_ready(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
            let length = message.payload.len();
            connection.send(message.payload.clone())?;
            self.fed += 1;
            self.fed_bytes += length + FRAME_HEADER_BYTES;
            self.waiting_bytes -= length;
        }
        let is_due = self.fed >= UNFLUSHED_MESSAGES || self.fed_bytes >= UNFLUSHED_BYTES;
        if self.fed > 0 && (self.is_flushing || is_due) {
            match connection.poll_flush(cx) {
                Poll::Ready(result) => {
                    result?;
                    self.settle();
                }
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// A flush is done: what was fed is delivered.
    fn settle(&mut self) {
        self.metrics.delivered.inc_by(self.fed as u64);
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
        endpoint: EndpointMetrics,
    ) -> Result<Self, ListenError> {
        let broadcast = Arc::new(Broadcast::new(config.peers, metrics.clone()));
        let attachment = listeners.open_sink(&config.endpoint, listen, broadcast.clone(), endpoint).await?;
        Ok(Self {
            attachment,
            broadcast,
            peers: config.peers,
            message_type: config.message_type,
            metrics,
            batch: Vec::with_capacity(BATCH_MESSAGES),
            batch_bytes: 0,
        })
    }

    /// Where it listens, for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.attachment.local_address()
    }

    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) {
        if !self.batch.is_empty() {
            let _ = self.poll_publish(cx);
        }
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_full = self.batch.len() >= BATCH_MESSAGES.min(self.peers.buffer.max(1))
            || self.batch_bytes >= self.peers.buffer_bytes;
        if is_full {
            ready!(self.poll_publish(cx));
        }
        if self.broadcast.poll_room(cx, self.batch.len(), self.batch_bytes).is_ready() {
            return Poll::Ready(());
        }
        // What waits here may be what peers are waiting for.
        ready!(self.poll_publish(cx));
        self.broadcast.poll_room(cx, 0, 0)
    }

    pub(super) fn push(&mut self, message: Message, failed: &mut Vec<Failed>) {
        match typed(self.message_type, message) {
            Ok(message) => {
                self.batch_bytes += message.payload.len();
                self.batch.push(message.payload);
            }
            Err(unsendable) => failed.push(unsendable),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_publish(cx)
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        ready!(self.poll_publish(cx));
        self.broadcast.finish();
        ready!(self.broadcast.poll_taken(cx));
        self.attachment.poll_close(cx, code)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.batch.len()
    }

    /// Gives the batch to the peers; pending while it has to wait for one to come.
    fn poll_publish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.batch.is_empty() {
            return Poll::Ready(());
        }
        if self.peers.when_none == WhenNoPeers::Wait {
            ready!(self.broadcast.poll_peers(cx));
        }
        self.batch_bytes = 0;
        let published = self.broadcast.publish(&mut self.batch);
        self.metrics.delivered.inc_by(published.delivered);
        self.metrics.losses.dropped(Reason::NoPeers, published.no_peers);
        self.metrics.losses.dropped(Reason::SlowPeer, published.slow_peers);
        Poll::Ready(())
    }
}

fn unavailable(message: Message, why: &str) -> Failed {
    Failed { message, reason: Reason::SinkUnavailable, detail: why.to_owned() }
}

/// The message as the frame type the sink sends.
#[inline]
fn typed(message_type: MessageType, message: Message) -> Result<Message, Failed> {
    let is_text = message.payload.is_text();
    match message_type {
        MessageType::Auto => Ok(message),
        MessageType::Text if is_text => Ok(message),
        MessageType::Binary if !is_text => Ok(message),
        MessageType::Binary => {
            Ok(Message { payload: Payload::binary(message.payload.into_bytes()), ..message })
        }
        MessageType::Text => {
            let metadata = message.metadata;
            match Payload::try_text(message.payload.into_bytes()) {
                Ok(payload) => Ok(Message { payload, metadata }),
                Err(bytes) => Err(Failed {
                    message: Message { payload: Payload::binary(bytes), metadata },
                    reason: Reason::Decode,
                    detail: "not UTF-8, and the sink sends text".to_owned(),
                }),
            }
        }
    }
}
