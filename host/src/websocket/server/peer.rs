//! One accepted connection: its task reads for the sources of its route and writes for the sinks.
//!
//! It reads until nothing is there or a chunk is full, and hands chunks on through bounded channels;
//! while one of them is full it does not read, and that is the backpressure: but for a bounded piece, so
//! that pings are answered and the end is seen. It takes from each sink's broadcast what the peer has room
//! for, and flushes once.
//!
//! Where no source is there and one is to come, nothing is read either, and what a peer sent before it left
//! is for that one. A source that stops gets what was read for it until then, without waiting for others. A peer joins an endpoint once its greeting is made (`peer/joining.rs`). A write that fails
//! takes it from the sinks alone: what it had sent is read to its end. When its endpoints stop, it is closed as
//! soon as it has what it is owed, and one that takes nothing is given up. Once its connection has ended its
//! socket is closed and its permit is free, even if what it had sent still waits for a pipeline; only so many
//! peers of a route may be without a permit, though.

mod joining;

use super::arrival::{ArrivedPeer, RouteEntry};
use super::chunk_reader::ChunkReader;
use super::membership::{self, JoiningMember, Membership};
use super::request::Handshake;
use super::route::{ConnectionPermit, Route, RouteClosing};
use crate::connections::{ConnectionTotals, OpenConnection};
use crate::message::Payload;
use crate::reason::Reason;
use crate::websocket::connection::{Connection, ConnectionEnd};
use crate::websocket::drain::{CUT_TIMEOUT, StallTimer};
use crate::websocket::keepalive::{Keepalive, KeepaliveAction};
use crate::websocket::reply_queue::ReplyWriter;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tracing::{Instrument, debug, debug_span};

/// Chunks read in one turn, so that a peer that never stops sending is sent to as well.
const CHUNKS_A_TURN: usize = 4;

pub(super) struct Peer {
    route: Arc<Route>,
    /// Given up once the connection has ended, and dropped once nothing of it waits for a pipeline.
    permit: Option<ConnectionPermit>,
    entry: RouteEntry,
    address: SocketAddr,
    connection: Connection,
    handshake: Handshake,
    keepalive: Keepalive,
    /// For `__meta_connection`.
    name: String,
    shown: Arc<OpenConnection>,
    generation: u64,
    members: Vec<Membership>,
    /// Endpoints whose greetings are being made.
    arriving: Vec<JoiningMember>,
    /// What is answered on this connection, if any of its sources is.
    replies: Option<ReplyWriter>,
    /// The member that was asked for frames last.
    turn: usize,
    /// First messages, not yet sent.
    greetings: Vec<Payload>,
    /// What was read, and not yet handed to all sources.
    chunk: ChunkReader,
    counted: ConnectionTotals,
    /// Whether what it sends is for a source that is not there yet.
    is_early: bool,
    /// Whether a pipeline holds reading back, as the route is told.
    is_held: bool,
    /// The last call of the route's roll that was answered.
    roll: u64,
    /// Nothing can be written any more.
    is_unwritable: bool,
    /// The connection took nothing more when it was last written to.
    is_blocked: bool,
    /// It took nothing for too long while endpoints stopped, and takes nothing still.
    is_given_up: bool,
    /// How to go, once all endpoints have left.
    closing: Option<RouteClosing>,
    stall: Option<Box<StallTimer>>,
    /// How long its end may still take, where nobody waits for it.
    patience: Option<Pin<Box<Sleep>>>,
    ending: Option<ConnectionEnd>,
}

impl Peer {
    pub(super) fn new(
        ArrivedPeer { permit, handshake, entry }: ArrivedPeer,
        connection: Connection,
        address: SocketAddr,
    ) -> Self {
        let route = permit.route().clone();
        let name = crate::websocket::upgrade::connection_id();
        Self {
            keepalive: Keepalive::new(&route.endpoint),
            route,
            permit: Some(permit),
            address,
            connection,
            handshake,
            shown: OpenConnection::new(&name, entry.waker.clone()),
            name,
            entry,
            generation: u64::MAX,
            members: Vec::new(),
            arriving: Vec::new(),
            replies: None,
            turn: 0,
            greetings: Vec::new(),
            chunk: ChunkReader::default(),
            counted: ConnectionTotals::default(),
            is_early: false,
            is_held: false,
            roll: 0,
            is_unwritable: false,
            is_blocked: false,
            is_given_up: false,
            closing: None,
            stall: None,
            patience: None,
            ending: None,
        }
    }

    /// Serves the peer until it is gone.
    pub(super) async fn run(mut self: Box<Self>) {
        let span = debug_span!("connection", peer = %self.address, path = self.route.base);
        async {
            debug!("peer connected");
            let ending = poll_fn(|cx| self.poll(cx)).await;
            debug!(%ending, "peer disconnected");
        }
        .instrument(span)
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        self.entry.waker.register(cx.waker());
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
            self.permit = None;
            self.members.iter_mut().for_each(|membership| membership.inlet = None);
        } else {
            self.release_permit();
        }
        ready!(self.poll_closed(cx));
        self.route.hung_up(self.entry.peer);
        ready!(delivered);
        self.count();
        Poll::Ready(ending)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        if let Some(dismissal) = self.shown.dismissal() {
            return Poll::Ready(ConnectionEnd::Dismissed(dismissal.clone()));
        }
        if let Err(ending) = self.poll_arrivals(cx) {
            return Poll::Ready(ending);
        }
        if !self.is_unwritable {
            let written = self.poll_write(cx);
            self.is_blocked = written.is_pending();
            self.is_given_up &= self.is_blocked;
            if let Poll::Ready(Err(ending)) = written {
                if matches!(ending, ConnectionEnd::TooSlow | ConnectionEnd::Steered { .. }) {
                    return Poll::Ready(ending);
                }
                self.stop_writing(&ending);
            }
        }
        self.retire(cx);
        if let Poll::Ready(ending) = self.poll_leave(cx) {
            return Poll::Ready(ending);
        }
        if let Poll::Ready(ending) = self.poll_read(cx) {
            return Poll::Ready(ending);
        }
        self.count();
        loop {
            let held = || membership::held_time(&mut self.members);
            let Poll::Ready(due) = self.keepalive.poll(cx, &self.connection, held) else { break };
            match due {
                KeepaliveAction::Silent => return Poll::Ready(ConnectionEnd::Silent),
                KeepaliveAction::Idle => return Poll::Ready(ConnectionEnd::Idle),
                KeepaliveAction::Ping => {
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
    fn leave(&mut self, ending: &ConnectionEnd) {
        self.ending = Some(ending.clone());
        self.connection.end(ending.clone());
        self.arriving.clear();
        if let Some(replies) = self.replies.take() {
            replies.close(ending);
        }
        let reason = match ending {
            ConnectionEnd::TooSlow => Reason::SlowPeer,
            ConnectionEnd::Stopped { .. } => Reason::Shutdown,
            _ => Reason::PeerClosed,
        };
        let is_fault = !matches!(
            ending,
            ConnectionEnd::Closed { .. }
                | ConnectionEnd::Stopped { .. }
                | ConnectionEnd::Dismissed(_)
                | ConnectionEnd::Steered { .. }
                | ConnectionEnd::Idle
        );
        for membership in &mut self.members {
            membership.part(self.entry.peer, &self.shown, reason);
            if is_fault {
                membership.metrics.show_error(&format!("peer {}: {ending}", self.address));
            }
        }
    }

    /// Gives the permit up while messages still wait for a pipeline, if that may be. Else the next call of the
    /// route's roll asks again.
    fn release_permit(&mut self) {
        if let Some(permit) = &mut self.permit {
            permit.give_up();
        }
    }

    /// Takes the peer from all that writes to it.
    fn stop_writing(&mut self, ending: &ConnectionEnd) {
        self.is_unwritable = true;
        self.greetings.clear();
        if let Some(replies) = self.replies.take() {
            replies.close(ending);
        }
        for membership in self.members.iter_mut().filter(|membership| membership.broadcast.is_some()) {
            membership.part(self.entry.peer, &self.shown, Reason::PeerClosed);
        }
    }

    /// Sees the end of the connection through.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closed = self.connection.poll_closed(cx);
        let is_cut = self.patience.is_some() || self.closing.is_some_and(|closing| closing.is_abandoned);
        if closed.is_pending() && is_cut {
            let cut = || Box::pin(tokio::time::sleep(CUT_TIMEOUT));
            return self.patience.get_or_insert_with(cut).as_mut().poll(cx);
        }
        closed
    }

    /// Ready when the peer is to go because its endpoints have: it has what it is owed, or does not take it.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        let is_blocked = self.is_blocked;
        let is_owed = |membership: &Membership| membership.is_owed(is_blocked);
        if self.members.iter().any(is_owed) || self.closing.is_some() && !self.greetings.is_empty() {
            let limit = membership::stall_limit(&self.members, is_blocked);
            let stall = self.stall.get_or_insert_with(|| Box::new(StallTimer::new(&self.connection, limit)));
            let is_given_up = stall.poll(cx, &self.connection).is_ready();
            self.is_given_up |= is_given_up;
            match self.closing {
                Some(closing) if is_given_up || closing.is_abandoned => {}
                None if is_given_up => {
                    self.stall = None;
                    for membership in self.members.iter_mut().filter(|membership| is_owed(membership)) {
                        membership.part(self.entry.peer, &self.shown, Reason::Shutdown);
                    }
                    self.retire(cx);
                    return Poll::Pending;
                }
                _ => return Poll::Pending,
            }
        } else {
            self.stall = None;
        }
        let is_abandoned = self.closing.is_some_and(|closing| closing.is_abandoned);
        if !is_abandoned && self.replies.as_ref().is_some_and(|replies| !replies.is_idle()) {
            return Poll::Pending;
        }
        let has_lost_replies = self.replies.as_ref().is_some_and(ReplyWriter::has_given_up);
        if self.closing.is_some() && (self.is_given_up || has_lost_replies) {
            // Nor will it read a close frame.
            self.patience = Some(Box::pin(tokio::time::sleep(Duration::ZERO)));
        }
        self.closing
            .map_or(Poll::Pending, |closing| Poll::Ready(ConnectionEnd::Stopped { code: closing.code }))
    }

    /// Sends what is for this peer alone, and what the broadcasts hold for it, as far as it reads.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionEnd>> {
        loop {
            let replies = self.replies.as_mut().map(|replies| replies.poll_write(cx, &mut self.connection));
            match replies.unwrap_or(Poll::Ready(Ok(()))) {
                Poll::Ready(result) => result?,
                Poll::Pending => return self.poll_blocked(cx),
            }
            match self.connection.poll_clear(cx) {
                Poll::Ready(result) => result.map_err(ConnectionEnd::from)?,
                Poll::Pending => return self.poll_blocked(cx),
            }
            let greetings = std::mem::take(&mut self.greetings);
            if !greetings.is_empty() {
                let sent = greetings.iter().try_for_each(|greeting| self.connection.send(greeting));
                sent.map_err(ConnectionEnd::from)?;
            } else if let Some(frames) =
                membership::next_frames(cx, &mut self.members, &mut self.turn, self.entry.peer)?
            {
                self.connection.send_frames(frames).map_err(ConnectionEnd::from)?;
            } else {
                break;
            }
            self.note_message();
        }
        Poll::Ready(Ok(()))
    }

    /// The connection takes nothing more now.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionEnd>> {
        membership::poll_blocked(cx, &self.members, self.entry.peer, &self.connection)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
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
            self.retire(cx);
            match self.chunk.poll_read(cx, &mut self.connection, &self.members) {
                Poll::Ready(Some(ending)) => return Poll::Ready(ending),
                Poll::Ready(None) => self.note_message(),
                Poll::Pending => {
                    if self.chunk.has_messages() {
                        self.note_message();
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
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        self.keepalive.hold();
        self.hold();
        let ended = self.connection.poll_hold(cx, |_| false);
        self.account();
        if ended.is_pending() && self.route.roll() != self.roll {
            self.roll = self.route.roll();
            if self.connection.stream().progress().is_some_and(|progress| progress.is_hung_up) {
                // The end comes behind what is held back.
                self.release_permit();
            }
        }
        ready!(ended);
        self.connection.ending().map_or(Poll::Pending, |ending| Poll::Ready(ending.clone()))
    }

    /// A message went through: what was held before counts no more.
    fn note_message(&mut self) {
        if self.keepalive.message() {
            let _ = membership::held_time(&mut self.members);
        }
    }

    fn hold(&mut self) {
        if !std::mem::replace(&mut self.is_held, true) {
            self.route.hold();
        }
    }

    fn release(&mut self) {
        if self.keepalive.release() {
            // That time is counted.
            let _ = membership::held_time(&mut self.members);
        }
        if std::mem::take(&mut self.is_held) {
            self.route.release();
        }
    }

    /// After the end: hands on what was received before it.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rests = Poll::Ready(());
        for membership in &mut self.members {
            if membership.poll_rest(cx).is_pending() {
                rests = Poll::Pending;
            }
        }
        loop {
            if self.is_early || self.poll_deliver(cx).is_pending() {
                self.hold();
                return Poll::Pending;
            }
            self.release();
            if self.chunk.is_read_out() {
                return rests;
            }
            ready!(self.chunk.poll_read(cx, &mut self.connection, &self.members));
        }
    }

    /// Tells the sources how many messages were read that they cannot have taken.
    fn account(&mut self) {
        self.chunk.account(&mut self.members, self.connection.held_messages());
    }

    /// Hands the chunk to every source, each when it has room; ready once there is none.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.chunk.is_empty() {
            return Poll::Ready(());
        }
        self.account();
        self.chunk.poll_deliver(cx, &mut self.members)
    }

    fn count(&mut self) {
        let now = self.connection.totals();
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
            membership.part(self.entry.peer, &self.shown, Reason::Shutdown);
        }
        self.release();
    }
}
