//! Messages to all peers that connect to a route. Peers have tasks of their own, which take frames from a
//! broadcast.

use super::framing::Framing;
use super::gathering::Gathering;
use crate::config::{Listen, Peers, WebSocketSink, WhenNoPeers};
use crate::connections::OpenEndpoint;
use crate::message::{Failed, Message};
use crate::reason::Reason;
use crate::telemetry::SinkMetrics;
use crate::websocket::{Broadcast, ListenError, Listeners, OutgoingFrame, Readiness, Registration};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// Messages that are given to peers at once.
const BATCH_MESSAGES: usize = 256;

/// The peers of a path.
#[derive(Debug)]
pub struct AcceptedSink {
    registration: Registration,
    broadcast: Arc<Broadcast>,
    peers: Peers,
    framing: Framing,
    gathering: Option<Gathering>,
    metrics: SinkMetrics,
    /// Waiting to become a frame, all together.
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    /// Frames to be published, how many messages they hold, and their bytes.
    frames: VecDeque<OutgoingFrame>,
    frame_messages: usize,
    frame_bytes: usize,
    /// When peers that had no readiness yet to take more have had it.
    readiness: Option<Pin<Box<Sleep>>>,
    is_draining: bool,
    /// Once no more messages come: how the peers are closed that have all.
    finishing: Option<u16>,
}

impl AcceptedSink {
    /// Opens the path, and the listener if it is the first there.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open(
        config: &WebSocketSink,
        listen: &Listen,
        listeners: &Listeners,
        metrics: SinkMetrics,
        endpoint: OpenEndpoint,
    ) -> Result<Self, ListenError> {
        let broadcast = Arc::new(Broadcast::new(config.peers, metrics.clone()));
        let registration = listeners.open_sink(&config.endpoint, listen, broadcast.clone(), endpoint).await?;
        Ok(Self {
            registration,
            broadcast,
            peers: config.peers,
            framing: Framing::of(config),
            gathering: config.batch.map(Gathering::new),
            metrics,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            frames: VecDeque::with_capacity(BATCH_MESSAGES),
            frame_messages: 0,
            frame_bytes: 0,
            readiness: None,
            is_draining: false,
            finishing: None,
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
        self.registration.local_address()
    }

    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) {
        self.gather(cx, false);
        let _ = self.poll_publish(cx);
    }

    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.registration.poll_connected(cx)
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
                    self.add(OutgoingFrame { payload, messages: 1 });
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
        if !self.waiting.is_empty() {
            return Poll::Pending;
        }
        if let Some(code) = self.finishing {
            // Each peer goes when it has what is left for it.
            self.broadcast.finish();
            let _ = self.registration.poll_close(cx, code);
        }
        Poll::Ready(())
    }

    pub(super) fn finish(&mut self, code: u16) {
        self.finishing = Some(code);
    }

    pub(super) fn stop(&mut self, grace: Option<Duration>) {
        self.broadcast.stop(grace);
        self.registration.wake_peers();
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        self.is_draining = true;
        self.finishing = Some(code);
        ready!(self.poll_flush(cx));
        self.registration.poll_close(cx, code)
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
        self.add(OutgoingFrame { payload, messages: count as u64 });
        true
    }

    #[inline]
    fn add(&mut self, frame: OutgoingFrame) {
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
            ready!(self.poll_readiness(cx, messages, bytes));
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

    /// Waits until every peer has room for so much, or had its readiness.
    fn poll_readiness(&mut self, cx: &mut Context<'_>, messages: usize, bytes: usize) -> Poll<()> {
        loop {
            let due = match self.broadcast.readiness(cx, messages as u64, bytes as u64) {
                Readiness::Given => break,
                Readiness::Due(None) => return Poll::Pending,
                Readiness::Due(Some(due)) => due.into(),
            };
            let readiness = self.readiness.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if readiness.deadline() != due {
                readiness.as_mut().reset(due);
            }
            ready!(readiness.as_mut().poll(cx));
        }
        self.readiness = None;
        Poll::Ready(())
    }
}

impl Drop for AcceptedSink {
    /// Peers do not wait for more.
    fn drop(&mut self) {
        self.broadcast.finish();
    }
}

fn messages_of(frame: &OutgoingFrame) -> usize {
    usize::try_from(frame.messages).unwrap_or(usize::MAX)
}
