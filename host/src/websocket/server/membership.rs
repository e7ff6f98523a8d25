//! A peer's part in the endpoints of its route: what it is shown as there, the way to a source, what a sink's
//! broadcast still has for it, and how it comes to be.

use super::broadcast::{Broadcast, NextFrames};
use super::route_member::{MemberRole, ReceivedChunk, RouteMember};
use super::uptake::Uptake;
use crate::config::EndpointText;
use crate::connections::{OpenConnection, OpenEndpoint};
use crate::message::Payload;
use crate::message::metadata::Origin;
use crate::reason::Reason;
use crate::telemetry::ConnectOutcome;
use crate::wait_budget::StallLimit;
use crate::websocket::connection::{Connection, ConnectionEnd, EncodedFrames};
use crate::websocket::secret::resolved;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_util::sync::PollSender;

/// How long the files of a greeting may take to be read.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// A peer's part in one endpoint.
pub(super) struct Membership {
    /// The endpoint's number.
    pub(super) id: u64,
    pub(super) metrics: OpenEndpoint,
    /// Of a sink.
    pub(super) broadcast: Option<Arc<Broadcast>>,
    /// To a source, until all that is for it was given.
    pub(super) inlet: Option<SourceSender>,
    /// Whether the endpoint counts the peer among its own.
    is_served: bool,
    /// Whether the peer has had all that the broadcast will have.
    pub(super) is_finished: bool,
    /// Whether the endpoint has left the route.
    pub(super) is_leaving: bool,
}

/// The way to a source, and the origin that this peer's messages have there.
pub(super) struct SourceSender {
    sender: PollSender<ReceivedChunk>,
    pub(super) origin: Arc<Origin>,
    uptake: Arc<Uptake>,
    /// The messages of this peer that the source is told it has not taken.
    accounted: u64,
    /// For how long the source was held when [`Self::held_time`] was asked last.
    held_before: Duration,
    /// Whether it has the messages that were read last.
    pub(super) has_chunk: bool,
    /// Once the source stops: what it is still to get, and gets without waiting for other sources.
    rest: Option<ReceivedChunk>,
}

/// An endpoint that the peer is to be greeted for before it joins.
pub(super) struct JoiningMember {
    pub(super) member: RouteMember,
    greetings: Pin<Box<dyn Future<Output = Result<Vec<Payload>, String>> + Send>>,
}

impl Membership {
    /// The peer joins an endpoint, and is a peer of its broadcast from here on.
    pub(super) fn join(
        member: RouteMember,
        peer: u64,
        shown: &Arc<OpenConnection>,
        origin: &Arc<Origin>,
        origin_there: Arc<Origin>,
    ) -> Self {
        let (broadcast, inlet) = match member.end {
            MemberRole::Source { inlet, uptake, .. } => {
                (None, Some(SourceSender::new(PollSender::new(inlet), uptake, origin_there)))
            }
            MemberRole::Sink(broadcast) => (Some(broadcast), None),
            MemberRole::Reply => (None, None),
        };
        if let Some(broadcast) = &broadcast {
            broadcast.join(peer);
        }
        member.metrics.connect(ConnectOutcome::Connected);
        member.metrics.welcome(shown, origin);
        Self {
            id: member.id,
            metrics: member.metrics,
            broadcast,
            inlet,
            is_served: true,
            is_finished: false,
            is_leaving: false,
        }
    }

    /// The peer leaves; what the broadcast still has for it is counted under `reason`.
    pub(super) fn part(&mut self, peer: u64, shown: &OpenConnection, reason: Reason) {
        if std::mem::take(&mut self.is_served) {
            if let Some(broadcast) = &self.broadcast {
                broadcast.leave(peer, reason);
            }
            self.metrics.farewell(shown);
        }
        self.is_finished = true;
    }

    /// Gives a source that has stopped what is left for it, and closes the way to it; ready once that is done.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(inlet) = self.inlet.as_mut().filter(|inlet| inlet.is_stopped()) {
            ready!(inlet.poll_rest(cx));
            self.inlet = None;
        }
        Poll::Ready(())
    }

    /// Whether the peer is to get something of a broadcast before it goes: of a sink that has left, or of one
    /// that stops and may wait for a blocked peer before it leaves.
    pub(super) fn is_owed(&self, is_blocked: bool) -> bool {
        !self.is_finished
            && self
                .broadcast
                .as_ref()
                .is_some_and(|broadcast| self.is_leaving || is_blocked && broadcast.stall_limit().is_some())
    }
}

impl SourceSender {
    fn new(sender: PollSender<ReceivedChunk>, uptake: Arc<Uptake>, origin: Arc<Origin>) -> Self {
        let held_before = uptake.held_time();
        Self { sender, origin, uptake, accounted: 0, held_before, has_chunk: false, rest: None }
    }

    /// For how long the source was held since this was asked last.
    fn held_time(&mut self) -> Duration {
        let now = self.uptake.held_time();
        now.saturating_sub(std::mem::replace(&mut self.held_before, now))
    }

    /// Tells the source how many messages this peer has read that are not on their way to it.
    pub(super) fn account(&mut self, read: u64) {
        self.uptake.account(std::mem::replace(&mut self.accounted, read), read);
    }

    /// Ready if a chunk can be given.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A pipeline that has closed takes nothing, and holds nobody.
        self.sender.poll_reserve(cx).map(drop)
    }

    /// Gives the chunk, after [`Self::poll_room`] was ready.
    pub(super) fn give(&mut self, chunk: ReceivedChunk) {
        // What is on its way stays untaken until the source takes it, and for ever if its pipeline has closed.
        self.accounted -= chunk.len() as u64;
        let _ = self.sender.send_item(chunk);
        self.has_chunk = true;
    }

    /// The source stops, and this is all that it still gets.
    pub(super) fn stop(&mut self, rest: ReceivedChunk) {
        self.account(rest.len() as u64);
        self.rest = Some(rest);
    }

    /// Whether the source has stopped, and what is read is not for it any more.
    pub(super) fn is_stopped(&self) -> bool {
        self.rest.is_some()
    }

    /// Gives a source that has stopped what is left for it; ready once it has that.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rest.as_ref().is_some_and(|rest| !rest.is_empty()) {
            ready!(self.poll_room(cx));
            let rest = self.rest.replace(ReceivedChunk::default()).unwrap_or_default();
            self.give(rest);
        }
        Poll::Ready(())
    }
}

/// How long a peer is waited for that takes nothing of what it is owed.
pub(super) fn stall_limit(members: &[Membership], is_blocked: bool) -> StallLimit {
    let owed = members.iter().filter(|membership| membership.is_owed(is_blocked));
    let limits = owed.filter_map(|membership| membership.broadcast.as_ref()?.stall_limit());
    limits.reduce(StallLimit::stricter).unwrap_or_default()
}

/// For how long a source of the peer was held since this was asked last: of several, the one that was held
/// longest.
pub(super) fn held_time(members: &mut [Membership]) -> Duration {
    let inlets = members.iter_mut().filter_map(|membership| membership.inlet.as_mut());
    inlets.map(SourceSender::held_time).max().unwrap_or_default()
}

/// What a broadcast holds for the peer. The members take turns.
pub(super) fn next_frames(
    cx: &mut Context<'_>,
    members: &mut [Membership],
    turn: &mut usize,
    peer: u64,
) -> Result<Option<EncodedFrames>, ConnectionEnd> {
    for _ in 0..members.len() {
        *turn = (*turn + 1) % members.len();
        let membership = &mut members[*turn];
        let Some(broadcast) = membership.broadcast.as_ref().filter(|_| !membership.is_finished) else {
            continue;
        };
        match broadcast.poll_next(cx, peer) {
            Poll::Ready(NextFrames::Frames(frames)) => return Ok(Some(frames)),
            Poll::Ready(NextFrames::TooSlow) => return Err(ConnectionEnd::TooSlow),
            Poll::Ready(NextFrames::Finished) => membership.is_finished = true,
            Poll::Pending => {}
        }
    }
    Ok(None)
}

/// Tells the broadcasts that the connection takes nothing more now.
pub(super) fn poll_blocked(
    cx: &mut Context<'_>,
    members: &[Membership],
    peer: u64,
    connection: &Connection,
) -> Poll<Result<(), ConnectionEnd>> {
    let sent_bytes = connection.traffic().sent_bytes;
    for broadcast in members.iter().filter_map(|membership| membership.broadcast.as_ref()) {
        if broadcast.poll_blocked(cx, peer, sent_bytes).is_ready() {
            return Poll::Ready(Err(ConnectionEnd::TooSlow));
        }
    }
    Poll::Pending
}

impl JoiningMember {
    pub(super) fn new(member: RouteMember) -> Self {
        let texts = member.on_connect.clone();
        let greetings = async move {
            let read = tokio::time::timeout(GREETING_PATIENCE, greetings(&texts)).await;
            read.unwrap_or_else(|_| Err(format!("its files were not read within {GREETING_PATIENCE:?}")))
        };
        Self { member, greetings: Box::pin(greetings) }
    }

    /// The greetings, once they are made.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Payload>, String>> {
        self.greetings.as_mut().poll(cx)
    }
}

async fn greetings(texts: &[EndpointText]) -> Result<Vec<Payload>, String> {
    let mut greetings = Vec::with_capacity(texts.len());
    for text in texts {
        greetings.push(Payload::text(resolved(text).await?.expose()));
    }
    Ok(greetings)
}
