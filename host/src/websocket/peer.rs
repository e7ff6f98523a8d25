//! One accepted connection: its task reads for the sources of its path and writes for the sinks.
//!
//! It reads until nothing is there or a chunk is full, and hands chunks on through bounded channels;
//! while one of them is full it does not read, and that is the backpressure: but for a bounded piece, so
//! that pings are answered and the end is seen. It takes from each sink's broadcast what the peer has room
//! for, and flushes once. A write that fails takes the peer from the sinks alone: what it had sent is read
//! to its end.

use super::broadcast::Next;
use super::close_code;
use super::connection::{Connection, Received};
use super::ending::Ending;
use super::handshake::Handshake;
use super::keepalive::{Due, Keepalive};
use super::lane::LaneWriter;
use super::path::{Arrivals, End, Member, Path, Seat};
use super::ring::Frames;
use super::stream::Traffic;
use crate::message::{Message, Payload};
use crate::metadata::{self, Metadata, Origin};
use crate::reason::Reason;
use crate::telemetry::Connected;
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio_util::sync::PollSender;
use tracing::{Instrument, debug, debug_span, warn};

/// Most messages in a chunk.
const CHUNK_MESSAGES: usize = 256;
/// Most payload bytes in a chunk; one larger message goes alone.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read in one turn, so that a peer that never stops sending is sent to as well.
const CHUNKS_A_TURN: usize = 4;

pub(super) struct Peer {
    path: Arc<Path>,
    _seat: Seat,
    id: u64,
    address: SocketAddr,
    connection: Connection,
    handshake: Handshake,
    keepalive: Keepalive,
    /// For `__meta_connection`.
    name: String,
    /// The origin of what is read: that of the first source here.
    origin: Arc<Origin>,
    waker: Arc<AtomicWaker>,
    shown: Arc<Connected>,
    generation: u64,
    members: Vec<Membership>,
    /// What is answered on this connection, if any of its sources is.
    lane: Option<LaneWriter>,
    /// The member that was asked for frames last.
    turn: usize,
    /// First messages, not yet sent.
    greetings: Vec<Payload>,
    /// Read, and not yet handed to all sources.
    chunk: Arrivals,
    chunk_bytes: usize,
    counted: Traffic,
    /// Nothing can be written any more.
    is_unwritable: bool,
    /// All that was received is in the chunk, or was.
    is_read_out: bool,
    ending: Option<Ending>,
}

struct Membership {
    member: Member,
    inlet: Option<Inlet>,
    is_served: bool,
    is_finished: bool,
}

/// The way to a source, and the origin that this peer's messages have there.
struct Inlet {
    sender: PollSender<Arrivals>,
    origin: Arc<Origin>,
}

impl Peer {
    pub(super) fn new(seat: Seat, connection: Connection, handshake: Handshake, address: SocketAddr) -> Self {
        static PEERS: AtomicU64 = AtomicU64::new(0);
        let path = seat.path.clone();
        let id = PEERS.fetch_add(1, Ordering::Relaxed);
        let waker = Arc::new(AtomicWaker::new());
        path.enter(id, waker.clone());
        let name = super::connection_id();
        Self {
            keepalive: Keepalive::new(&path.endpoint),
            path,
            _seat: seat,
            id,
            address,
            connection,
            handshake,
            shown: Connected::new(&name, waker.clone()),
            name,
            origin: Arc::default(),
            waker,
            generation: u64::MAX,
            members: Vec::new(),
            lane: None,
            turn: 0,
            greetings: Vec::new(),
            chunk: Arrivals::default(),
            chunk_bytes: 0,
            counted: Traffic::default(),
            is_unwritable: false,
            is_read_out: false,
            ending: None,
        }
    }

    /// Serves the peer until it is gone.
    pub(super) async fn run(mut self: Box<Self>) {
        let span = debug_span!("connection", peer = %self.address, path = self.path.base);
        async {
            debug!("peer connected");
            let ending = poll_fn(|cx| self.poll(cx)).await;
            debug!(%ending, "peer disconnected");
        }
        .instrument(span)
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        self.waker.register(cx.waker());
        let ending = match self.ending.clone() {
            Some(ending) => ending,
            None => {
                let ending = ready!(self.poll_open(cx));
                self.leave(&ending);
                ending
            }
        };
        // What it had sent before it went still goes to the sources.
        let delivered = self.poll_rest(cx);
        ready!(self.connection.poll_closed(cx));
        ready!(delivered);
        self.count();
        Poll::Ready(ending)
    }

    /// Ends the connection, and takes the peer from the endpoints.
    fn leave(&mut self, ending: &Ending) {
        self.ending = Some(ending.clone());
        self.connection.end(ending.clone());
        if let Some(lane) = self.lane.take() {
            lane.close(ending);
        }
        let reason = if matches!(ending, Ending::TooSlow) { Reason::SlowPeer } else { Reason::PeerClosed };
        let is_fault = !matches!(
            ending,
            Ending::Closed { .. } | Ending::Stopped { .. } | Ending::Dismissed(_) | Ending::Idle
        );
        for membership in self.members.iter_mut().filter(|membership| membership.is_served) {
            membership.member.farewell(self.id, &self.shown, reason);
            membership.is_served = false;
            if is_fault {
                membership.member.metrics.show_error(&format!("peer {}: {ending}", self.address));
            }
        }
    }

    /// Takes the peer from all that writes to it.
    fn stop_writing(&mut self, ending: &Ending) {
        self.is_unwritable = true;
        if let Some(lane) = self.lane.take() {
            lane.close(ending);
        }
        for membership in &mut self.members {
            if matches!(membership.member.end, End::Sink(_)) && membership.is_served {
                membership.member.farewell(self.id, &self.shown, Reason::PeerClosed);
                membership.is_served = false;
            }
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let closing = self.look_again();
        if let Some(dismissal) = self.shown.dismissal() {
            return Poll::Ready(Ending::Dismissed(dismissal.clone()));
        }
        if !self.is_unwritable
            && let Poll::Ready(Err(ending)) = self.poll_write(cx)
        {
            if ending == Ending::TooSlow {
                return Poll::Ready(ending);
            }
            self.stop_writing(&ending);
        }
        if let Some(code) = closing {
            return Poll::Ready(Ending::Stopped { code });
        }
        if let Poll::Ready(ending) = self.poll_read(cx) {
            return Poll::Ready(ending);
        }
        self.count();
        while let Poll::Ready(due) = self.keepalive.poll(cx, &self.connection) {
            match due {
                Due::Silent => return Poll::Ready(Ending::Silent),
                Due::Idle => return Poll::Ready(Ending::Idle),
                Due::Ping => {
                    self.connection.ping();
                    if let Poll::Ready(Err(error)) = self.connection.poll_flush(cx) {
                        self.stop_writing(&error.into());
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Follows the path's endpoints; the code to close with once there are none.
    fn look_again(&mut self) -> Option<u16> {
        let generation = self.path.generation();
        if generation == self.generation {
            return None;
        }
        let (members, closing) = self.path.members();
        if closing.is_none() {
            self.generation = generation;
        }
        self.members.retain(|old| {
            let stays = members.iter().any(|member| member.id == old.member.id);
            if !stays && old.is_served {
                old.member.farewell(self.id, &self.shown, Reason::PeerClosed);
            }
            stays
        });
        self.members.reserve_exact(members.len().saturating_sub(self.members.len()));
        for member in members {
            if self.members.iter().any(|old| old.member.id == member.id) {
                continue;
            }
            if self.is_unwritable && matches!(member.end, End::Sink(_)) {
                self.members.push(Membership { member, inlet: None, is_served: false, is_finished: true });
                continue;
            }
            let origin = self.origin(&member);
            member.welcome(self.id, &self.shown, &origin);
            for text in &*member.on_connect {
                match text.resolve() {
                    Ok(text) => self.greetings.push(Payload::text(text.expose())),
                    Err(error) => {
                        warn!(%error, "a peer cannot be greeted");
                        return Some(close_code::INTERNAL_ERROR);
                    }
                }
            }
            let inlet = match &member.end {
                End::Source { inlet, is_answered } => {
                    let mut origin = origin;
                    if *is_answered {
                        origin = self.lane.get_or_insert_default().origin(&origin);
                    }
                    Some(Inlet { sender: PollSender::new(inlet.clone()), origin })
                }
                End::Sink(_) | End::Reply => None,
            };
            self.members.push(Membership { member, inlet, is_served: true, is_finished: false });
        }
        if let Some(first) = self.members.iter().find_map(|membership| membership.inlet.as_ref())
            && !Arc::ptr_eq(&first.origin, &self.origin)
        {
            self.chunk = self.chunk.from(&first.origin);
            self.origin = first.origin.clone();
        }
        closing
    }

    /// What this peer's messages have in common at a source.
    fn origin(&self, member: &Member) -> Arc<Origin> {
        let of_the_host = [
            (metadata::SOURCE, self.path.url(self.handshake.path())),
            (metadata::CONNECTION, self.name.clone()),
            (metadata::PEER, self.address.to_string()),
        ];
        let from_handshake = member.metadata.iter().filter_map(|(key, from)| {
            let value = self.handshake.value(from, &self.path.pattern)?;
            Some((key.as_str(), value.into_owned()))
        });
        Origin::new(of_the_host.into_iter().chain(from_handshake))
    }

    /// Sends what is for this peer alone, and what the broadcasts hold for it, as far as it reads.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        loop {
            let lane = self.lane.as_mut().map(|lane| lane.poll_write(cx, &mut self.connection));
            match lane.unwrap_or(Poll::Ready(Ok(()))) {
                Poll::Ready(result) => result?,
                Poll::Pending => return self.poll_too_slow(cx),
            }
            match self.connection.poll_clear(cx) {
                Poll::Ready(result) => result.map_err(Ending::from)?,
                Poll::Pending => return self.poll_too_slow(cx),
            }
            let greetings = std::mem::take(&mut self.greetings);
            if !greetings.is_empty() {
                let sent = greetings.iter().try_for_each(|greeting| self.connection.send(greeting));
                sent.map_err(Ending::from)?;
            } else if let Some(frames) = self.next_frames(cx)? {
                self.connection.send_frames(frames).map_err(Ending::from)?;
            } else {
                break;
            }
            self.keepalive.message();
        }
        Poll::Ready(Ok(()))
    }

    /// What a broadcast holds. The members take turns.
    fn next_frames(&mut self, cx: &mut Context<'_>) -> Result<Option<Frames>, Ending> {
        for _ in 0..self.members.len() {
            self.turn = (self.turn + 1) % self.members.len();
            let membership = &mut self.members[self.turn];
            let End::Sink(broadcast) = &membership.member.end else { continue };
            if membership.is_finished {
                continue;
            }
            match broadcast.poll_next(cx, self.id) {
                Poll::Ready(Next::Frames(frames)) => return Ok(Some(frames)),
                Poll::Ready(Next::TooSlow) => return Err(Ending::TooSlow),
                Poll::Ready(Next::Finished) => membership.is_finished = true,
                Poll::Pending => {}
            }
        }
        Ok(None)
    }

    fn poll_too_slow(&self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        for membership in &self.members {
            if let End::Sink(broadcast) = &membership.member.end
                && broadcast.poll_too_slow(cx, self.id).is_ready()
            {
                return Poll::Ready(Err(Ending::TooSlow));
            }
        }
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        for _ in 0..CHUNKS_A_TURN {
            if self.poll_deliver(cx).is_pending() {
                return self.poll_held(cx);
            }
            self.keepalive.release();
            match self.poll_chunk(cx) {
                Poll::Ready(Some(ending)) => return Poll::Ready(ending),
                Poll::Ready(None) => self.keepalive.message(),
                Poll::Pending => {
                    if !self.chunk.messages.is_empty() {
                        self.keepalive.message();
                    }
                    if self.poll_deliver(cx).is_pending() {
                        return self.poll_held(cx);
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Holds messages back, and sees whether the connection ends meanwhile.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        self.keepalive.hold();
        ready!(self.connection.poll_hold(cx));
        self.connection.ending().map_or(Poll::Pending, |ending| Poll::Ready(ending.clone()))
    }

    /// Reads until the chunk is full, or the connection has ended; pending if there is nothing more.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Ending>> {
        let mut received_us = None;
        while self.chunk.messages.len() < CHUNK_MESSAGES && self.chunk_bytes < CHUNK_BYTES {
            match ready!(self.connection.poll_receive(cx)) {
                Received::Message(payload) => {
                    self.chunk_bytes += payload.len();
                    let received_us = *received_us.get_or_insert_with(metadata::now_us);
                    let metadata = Metadata::new(self.origin.clone(), received_us);
                    self.chunk.messages.push(Message { payload, metadata });
                }
                Received::Control => {}
                Received::Ended(ending) => {
                    self.is_read_out = true;
                    self.chunk.failed.extend(ending.failed(&self.origin));
                    return Poll::Ready(Some(ending));
                }
            }
        }
        Poll::Ready(None)
    }

    /// After the end: hands on what was received before it.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.poll_deliver(cx));
            if self.is_read_out {
                return Poll::Ready(());
            }
            ready!(self.poll_chunk(cx));
        }
    }

    /// Hands the chunk to every source; ready once there is none.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.chunk.messages.is_empty() && self.chunk.failed.is_empty() {
            return Poll::Ready(());
        }
        let mut inlets: Vec<_> = self.members.iter_mut().filter_map(|m| m.inlet.as_mut()).collect();
        for inlet in &mut inlets {
            // A pipeline that has closed takes nothing, and holds nobody.
            let _ = ready!(inlet.sender.poll_reserve(cx));
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        if let Some((last, others)) = inlets.split_last_mut() {
            for inlet in others {
                let _ = inlet.sender.send_item(chunk.from(&inlet.origin));
            }
            let chunk =
                if Arc::ptr_eq(&last.origin, &self.origin) { chunk } else { chunk.from(&last.origin) };
            let _ = last.sender.send_item(chunk);
        }
        Poll::Ready(())
    }

    fn count(&mut self) {
        let now = self.connection.traffic();
        for membership in &self.members {
            let metrics = &membership.member.metrics;
            metrics.bytes_received.inc_by(now.received_bytes - self.counted.received_bytes);
            metrics.bytes_sent.inc_by(now.sent_bytes - self.counted.sent_bytes);
        }
        if now != self.counted {
            self.shown.count(self.connection.gone());
        }
        self.counted = now;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let served = self.members.iter().filter(|membership| membership.is_served);
        served.for_each(|membership| membership.member.farewell(self.id, &self.shown, Reason::Shutdown));
        self.path.exit(self.id);
    }
}
