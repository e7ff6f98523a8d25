//! One accepted connection: its task reads for the sources of its path and writes for the sinks.
//!
//! It reads until nothing is there or a chunk is full, and hands chunks on through bounded channels;
//! while one of them is full it does not read, and that is the backpressure: but for a bounded piece, so
//! that pings are answered and the end is seen. It takes from each sink's broadcast what the peer has room
//! for, and flushes once.
//!
//! Where no source is there and one is to come, nothing is read either, and what a peer sent before it left
//! is for that one. A peer joins an endpoint once its greeting is made (`peer/joining.rs`). A write that fails
//! takes it from the sinks alone: what it had sent is read to its end. When its endpoints stop, it is closed as soon as it has what it is owed,
//! and one that takes nothing is given up. Once its connection has ended its socket is closed and its seat is
//! free, even if what it had sent still waits for a pipeline; only so many peers of a path may be without a
//! seat, though.

mod joining;

use super::membership::{self, Arriving, CHUNK_BYTES, CHUNK_MESSAGES, Membership};
use super::request::Handshake;
use super::route::{Arrivals, Closing, Path, Seat};
use crate::connections::{Connected, Gone};
use crate::message::{Message, Payload};
use crate::metadata::{self, Metadata, Origin};
use crate::reason::Reason;
use crate::websocket::connection::{Connection, Ending, Received};
use crate::websocket::drain::{CUT_PATIENCE, Parting};
use crate::websocket::keepalive::{Due, Keepalive};
use crate::websocket::reply_queue::LaneWriter;
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tracing::{Instrument, debug, debug_span};

/// Chunks read in one turn, so that a peer that never stops sending is sent to as well.
const CHUNKS_A_TURN: usize = 4;

pub(super) struct Peer {
    path: Arc<Path>,
    /// Given up once the connection has ended, and dropped once nothing of it waits for a pipeline.
    seat: Option<Seat>,
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
    /// Endpoints whose greetings are being made.
    arriving: Vec<Arriving>,
    /// What is answered on this connection, if any of its sources is.
    lane: Option<LaneWriter>,
    /// The member that was asked for frames last.
    turn: usize,
    /// First messages, not yet sent.
    greetings: Vec<Payload>,
    /// Read, and not yet handed to all sources.
    chunk: Arrivals,
    chunk_bytes: usize,
    counted: Gone,
    /// Whether what it sends is for a source that is not there yet.
    is_early: bool,
    /// Whether a pipeline holds reading back, as the path is told.
    is_held: bool,
    /// The last call of the path's roll that was answered.
    roll: u64,
    /// Nothing can be written any more.
    is_unwritable: bool,
    /// All that was received is in the chunk, or was.
    is_read_out: bool,
    /// The connection took nothing more when it was last written to.
    is_blocked: bool,
    /// It took nothing for too long while endpoints stopped, and takes nothing still.
    is_given_up: bool,
    /// How to go, once all endpoints have left.
    closing: Option<Closing>,
    parting: Option<Box<Parting>>,
    /// How long its end may still take, where nobody waits for it.
    patience: Option<Pin<Box<Sleep>>>,
    ending: Option<Ending>,
}

impl Peer {
    pub(super) fn new(seat: Seat, connection: Connection, handshake: Handshake, address: SocketAddr) -> Self {
        static PEERS: AtomicU64 = AtomicU64::new(0);
        let path = seat.path().clone();
        let id = PEERS.fetch_add(1, Ordering::Relaxed);
        let waker = Arc::new(AtomicWaker::new());
        path.enter(id, waker.clone());
        let name = crate::websocket::upgrade::connection_id();
        Self {
            keepalive: Keepalive::new(&path.endpoint),
            path,
            seat: Some(seat),
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
            arriving: Vec::new(),
            lane: None,
            turn: 0,
            greetings: Vec::new(),
            chunk: Arrivals::default(),
            chunk_bytes: 0,
            counted: Gone::default(),
            is_early: false,
            is_held: false,
            roll: 0,
            is_unwritable: false,
            is_read_out: false,
            is_blocked: false,
            is_given_up: false,
            closing: None,
            parting: None,
            patience: None,
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
        self.look_again();
        let ending = match self.ending.clone() {
            Some(ending) => ending,
            None => {
                let ending = ready!(self.poll_open(cx));
                self.leave(&ending);
                ending
            }
        };
        // What it had sent before it went still goes to the sources, and holds up none that stops.
        let delivered = self.poll_rest(cx);
        if delivered.is_ready() {
            self.seat = None;
            self.members.iter_mut().for_each(|membership| membership.inlet = None);
        } else {
            self.give_seat_up();
        }
        ready!(self.poll_closed(cx));
        ready!(delivered);
        self.count();
        Poll::Ready(ending)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        if let Some(dismissal) = self.shown.dismissal() {
            return Poll::Ready(Ending::Dismissed(dismissal.clone()));
        }
        if let Err(ending) = self.poll_arrivals(cx) {
            return Poll::Ready(ending);
        }
        if !self.is_unwritable {
            let written = self.poll_write(cx);
            self.is_blocked = written.is_pending();
            self.is_given_up &= self.is_blocked;
            if let Poll::Ready(Err(ending)) = written {
                if ending == Ending::TooSlow {
                    return Poll::Ready(ending);
                }
                self.stop_writing(&ending);
            }
        }
        self.retire();
        if let Poll::Ready(ending) = self.poll_parting(cx) {
            return Poll::Ready(ending);
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

    /// Ends the connection, and takes the peer from the endpoints.
    fn leave(&mut self, ending: &Ending) {
        self.ending = Some(ending.clone());
        self.connection.end(ending.clone());
        self.arriving.clear();
        if let Some(lane) = self.lane.take() {
            lane.close(ending);
        }
        let reason = match ending {
            Ending::TooSlow => Reason::SlowPeer,
            Ending::Stopped { .. } => Reason::Shutdown,
            _ => Reason::PeerClosed,
        };
        let is_fault = !matches!(
            ending,
            Ending::Closed { .. } | Ending::Stopped { .. } | Ending::Dismissed(_) | Ending::Idle
        );
        for membership in &mut self.members {
            membership.part(self.id, &self.shown, reason);
            if is_fault {
                membership.metrics.show_error(&format!("peer {}: {ending}", self.address));
            }
        }
    }

    /// Gives the seat up while messages still wait for a pipeline, if that may be. Else the next call of the
    /// path's roll asks again.
    fn give_seat_up(&mut self) {
        if let Some(seat) = &mut self.seat {
            seat.give_up();
        }
    }

    /// Takes the peer from all that writes to it.
    fn stop_writing(&mut self, ending: &Ending) {
        self.is_unwritable = true;
        self.greetings.clear();
        if let Some(lane) = self.lane.take() {
            lane.close(ending);
        }
        for membership in self.members.iter_mut().filter(|membership| membership.broadcast.is_some()) {
            membership.part(self.id, &self.shown, Reason::PeerClosed);
        }
    }

    /// Sees the end of the connection through.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closed = self.connection.poll_closed(cx);
        let is_cut = self.patience.is_some() || self.closing.is_some_and(|closing| closing.is_abandoned);
        if closed.is_pending() && is_cut {
            let cut = || Box::pin(tokio::time::sleep(CUT_PATIENCE));
            return self.patience.get_or_insert_with(cut).as_mut().poll(cx);
        }
        closed
    }

    /// Ready when the peer is to go because its endpoints have: it has what it is owed, or does not take it.
    fn poll_parting(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let is_blocked = self.is_blocked;
        let is_owed = |membership: &Membership| membership.is_owed(is_blocked);
        if self.members.iter().any(is_owed) || self.closing.is_some() && !self.greetings.is_empty() {
            let patience = membership::patience(&self.members, is_blocked);
            let parting =
                self.parting.get_or_insert_with(|| Box::new(Parting::new(&self.connection, patience)));
            let is_given_up = parting.poll(cx, &self.connection).is_ready();
            self.is_given_up |= is_given_up;
            match self.closing {
                Some(closing) if is_given_up || closing.is_abandoned => {}
                None if is_given_up => {
                    self.parting = None;
                    for membership in self.members.iter_mut().filter(|membership| is_owed(membership)) {
                        membership.part(self.id, &self.shown, Reason::Shutdown);
                    }
                    self.retire();
                    return Poll::Pending;
                }
                _ => return Poll::Pending,
            }
        } else {
            self.parting = None;
        }
        let has_lost_replies = self.lane.as_ref().is_some_and(LaneWriter::has_given_up);
        if self.closing.is_some() && (self.is_given_up || has_lost_replies) {
            // Nor will it read a close frame.
            self.patience = Some(Box::pin(tokio::time::sleep(Duration::ZERO)));
        }
        self.closing.map_or(Poll::Pending, |closing| Poll::Ready(Ending::Stopped { code: closing.code }))
    }

    /// Sends what is for this peer alone, and what the broadcasts hold for it, as far as it reads.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        loop {
            let lane = self.lane.as_mut().map(|lane| lane.poll_write(cx, &mut self.connection));
            match lane.unwrap_or(Poll::Ready(Ok(()))) {
                Poll::Ready(result) => result?,
                Poll::Pending => return membership::poll_blocked(cx, &self.members, self.id),
            }
            match self.connection.poll_clear(cx) {
                Poll::Ready(result) => result.map_err(Ending::from)?,
                Poll::Pending => return membership::poll_blocked(cx, &self.members, self.id),
            }
            let greetings = std::mem::take(&mut self.greetings);
            if !greetings.is_empty() {
                let sent = greetings.iter().try_for_each(|greeting| self.connection.send(greeting));
                sent.map_err(Ending::from)?;
            } else if let Some(frames) =
                membership::next_frames(cx, &mut self.members, &mut self.turn, self.id)?
            {
                self.connection.send_frames(frames).map_err(Ending::from)?;
            } else {
                break;
            }
            self.keepalive.message();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        if !self.arriving.is_empty() {
            // What it sends is for all of its sources, even if it has left since.
            let _ = self.poll_held(cx);
            return Poll::Pending;
        }
        if self.is_early {
            return self.poll_held(cx);
        }
        for _ in 0..CHUNKS_A_TURN {
            if self.poll_deliver(cx).is_pending() {
                return self.poll_held(cx);
            }
            self.release();
            self.retire();
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
        self.hold();
        let ended = self.connection.poll_hold(cx);
        self.account();
        if ended.is_pending() && self.path.roll() != self.roll {
            self.roll = self.path.roll();
            if self.connection.stream().progress().is_some_and(|progress| progress.is_hung_up) {
                // The end comes behind what is held back.
                self.give_seat_up();
            }
        }
        ready!(ended);
        self.connection.ending().map_or(Poll::Pending, |ending| Poll::Ready(ending.clone()))
    }

    fn hold(&mut self) {
        if !std::mem::replace(&mut self.is_held, true) {
            self.path.hold();
        }
    }

    fn release(&mut self) {
        self.keepalive.release();
        if std::mem::take(&mut self.is_held) {
            self.path.release();
        }
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
                    self.note_too_large(&ending);
                    return Poll::Ready(Some(ending));
                }
            }
        }
        Poll::Ready(None)
    }

    /// A message that was too large is a failed one of the sources, and else of the sinks that let it come.
    fn note_too_large(&mut self, ending: &Ending) {
        let Some(failed) = ending.failed(&self.origin) else { return };
        if self.members.iter().any(|membership| membership.inlet.is_some()) {
            self.chunk.failed.push(failed);
        } else {
            let broadcasts = self.members.iter().filter_map(|membership| membership.broadcast.as_ref());
            broadcasts.for_each(|broadcast| broadcast.received_too_large());
        }
    }

    /// After the end: hands on what was received before it.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_early || self.poll_deliver(cx).is_pending() {
                self.hold();
                return Poll::Pending;
            }
            self.release();
            if self.is_read_out {
                return Poll::Ready(());
            }
            ready!(self.poll_chunk(cx));
        }
    }

    /// Tells the sources how many messages were read that they cannot have taken.
    fn account(&mut self) {
        membership::account(&mut self.members, &self.chunk, self.connection.held_messages());
    }

    /// Hands the chunk to every source, each when it has room; ready once there is none.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.chunk.is_empty() {
            return Poll::Ready(());
        }
        self.account();
        ready!(membership::poll_deliver(cx, &mut self.members, &mut self.chunk, &self.origin));
        self.chunk_bytes = 0;
        Poll::Ready(())
    }

    fn count(&mut self) {
        let now = self.connection.gone();
        if now == self.counted {
            return;
        }
        for Membership { metrics, .. } in &self.members {
            let received = now.received_bytes - self.counted.received_bytes;
            metrics.count_bytes(received, now.sent_bytes - self.counted.sent_bytes);
        }
        self.shown.count(now);
        self.counted = now;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for membership in &mut self.members {
            membership.part(self.id, &self.shown, Reason::Shutdown);
        }
        self.release();
        self.path.exit(self.id);
    }
}
