//! A path of a listener: the endpoints that share it, and the peers that are connected to it.
//!
//! Every peer sends to every source here and receives from every sink. Endpoints may come and go
//! while peers stay: a peer looks again when the path has changed. A seat is one of the connections that a
//! path may have; where there is none left, peers that are held back are asked whether they are still there.
//! A peer whose connection has ended gives its seat up though its messages still wait for a pipeline, but only
//! so many do: a pipeline that is held back costs no more memory however often its producers come back.

use super::accept::{Admission, Refusal, Verdict};
use super::auth::{Denied, Guard};
use super::broadcast::Broadcast;
use super::expected::ExpectedHere;
use super::listener::{Connections, Place};
use super::request::Handshake;
use crate::config::{Endpoint, EndpointText, FromHandshake, PathPattern, Redacted};
use crate::connections::{EndpointState, OpenEndpoint};
use crate::message::{Failed, Message};
use crate::metadata::{Metadata, Origin};
use crate::telemetry::RateLimit;
use futures_util::task::AtomicWaker;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::warn;

/// Between two lines about peers that cannot be greeted.
const SAID_INTERVAL: Duration = Duration::from_secs(1);
/// Between two calls of the roll: each costs every peer of the path a look.
const ROLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a handshake waits for a seat where there is none left.
const VACANCY_PATIENCE: Duration = Duration::from_millis(250);

/// Peers of a path that may be without a seat, their connections having ended, while their messages wait for a
/// pipeline: each keeps some 256 KiB, and maybe a chunk. There are never more than connections may be.
const MOST_SEATLESS: usize = 64;

/// Messages of one peer, in order.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// What it sent.
    pub messages: Vec<Message>,
    /// What was too large to be read.
    pub failed: Vec<Failed>,
}

/// An endpoint on a path.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) end: End,
    pub(super) metrics: OpenEndpoint,
    pub(super) on_connect: Arc<[EndpointText]>,
    /// What a source's messages are given beside what the host knows.
    pub(super) metadata: Arc<[(String, FromHandshake)]>,
    max_connections: usize,
}

/// What an endpoint does with peers.
#[derive(Clone, Debug)]
pub(super) enum End {
    Source {
        inlet: mpsc::Sender<Arrivals>,
        /// How many messages peers have read for it that it has not taken.
        waiting: Arc<AtomicU64>,
        /// Whether its messages are answered on their connection.
        is_answered: bool,
    },
    Sink(Arc<Broadcast>),
    /// Answers what the source of its pipeline receives: it keeps the peers until it is done.
    Reply,
}

#[derive(Debug)]
pub(super) struct Path {
    /// The first endpoint's; those that share a path agree where it matters.
    pub(super) endpoint: Endpoint,
    pub(super) pattern: PathPattern,
    /// What is shown of the path where some of it is not; else it is shown as it was asked for.
    shown: Option<String>,
    guard: Guard,
    /// `ws://host:port`
    pub(super) base: String,
    expected: ExpectedHere,
    generation: AtomicU64,
    /// How many peers are held back, and so do not see their end.
    held: AtomicUsize,
    roll: AtomicU64,
    /// Of saying that a peer cannot be greeted: anybody can be one.
    said: Mutex<RateLimit>,
    /// Told when a seat is free.
    vacated: Notify,
    state: Mutex<State>,
}

/// One of the connections that a listener and the endpoints of a path may have, until it is given up or
/// dropped.
#[derive(Debug)]
pub(super) struct Seat {
    path: Arc<Path>,
    /// `None` once it was given up, and its peer is one of those without a seat.
    place: Option<Place>,
}

impl Seat {
    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Lets another have the seat though the messages of its peer still wait for a pipeline, unless there are
    /// too many such peers already.
    pub(super) fn give_up(&mut self) {
        if self.place.is_none() {
            return;
        }
        {
            let mut state = self.path.lock();
            if state.seatless >= state.max_connections().min(MOST_SEATLESS) {
                return;
            }
            state.seatless += 1;
            state.seats -= 1;
        }
        self.place = None;
        self.path.vacated.notify_waiters();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        {
            let mut state = self.path.lock();
            if self.place.is_some() {
                state.seats -= 1;
            } else {
                state.seatless -= 1;
            }
        }
        self.place = None;
        self.path.vacated.notify_waiters();
    }
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    next_id: u64,
    peers: BTreeMap<u64, Arc<AtomicWaker>>,
    /// Peers, and those whose handshake is being answered.
    seats: usize,
    /// Peers that have given their seat up, and whose messages still wait for a pipeline.
    seatless: usize,
    /// When peers were last asked whether they are still there.
    called: Option<Instant>,
    closing: Option<Closing>,
    waiting: Vec<Waker>,
    /// Who waits for a first peer.
    expecting: Vec<Waker>,
}

impl State {
    /// How many seats there may be, as far as endpoints say so.
    fn max_connections(&self) -> usize {
        self.members.iter().map(|member| member.max_connections).min().unwrap_or(usize::MAX)
    }
}

/// The endpoints of a path.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) members: Vec<Member>,
    /// How to close, if nobody is here.
    pub(super) closing: Option<Closing>,
    /// Whether nobody reads what peers send, and a source that would is to be opened.
    pub(super) expects_source: bool,
}

/// How the peers of a path without endpoints are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    /// The code of the close frame.
    pub(super) code: u16,
    /// Whether nobody waits for them any more.
    pub(super) is_abandoned: bool,
}

impl Arrivals {
    /// How many messages they are, the failed ones included.
    pub fn len(&self) -> usize {
        self.messages.len() + self.failed.len()
    }

    /// Whether they are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy with another origin.
    pub(super) fn from(&self, origin: &Arc<Origin>) -> Self {
        let again = |message: &Message| Message {
            payload: message.payload.clone(),
            metadata: Metadata::new(origin.clone(), message.metadata.received_us()),
        };
        let failed = self.failed.iter().map(|each| Failed { message: again(&each.message), ..each.clone() });
        Self { messages: self.messages.iter().map(again).collect(), failed: failed.collect() }
    }
}

impl Member {
    pub(super) fn new(endpoint: &Endpoint, end: End, metrics: OpenEndpoint) -> Self {
        let metadata = endpoint.listen().map_or(&[][..], |listen| &listen.metadata);
        let max_connections = endpoint.listen().map_or(usize::MAX, |listen| listen.max_connections);
        let on_connect = endpoint.on_connect.as_slice().into();
        Self { id: 0, end, metrics, on_connect, metadata: metadata.into(), max_connections }
    }

    /// What the messages of a peer have in common here: what the host tells of it, and its handshake.
    pub(super) fn origin<const N: usize>(
        &self,
        of_the_host: [(&str, String); N],
        handshake: &Handshake,
        path: &PathPattern,
    ) -> Arc<Origin> {
        let from_handshake = self
            .metadata
            .iter()
            .filter_map(|(key, from)| Some((key.as_str(), handshake.value(from, path)?.into_owned())));
        Origin::new(of_the_host.into_iter().chain(from_handshake))
    }

    /// What answers beside a source of the same endpoint, which has greeted the peers.
    pub(super) fn reply(endpoint: &Endpoint, metrics: OpenEndpoint) -> Self {
        Self { on_connect: Arc::default(), ..Self::new(endpoint, End::Reply, metrics) }
    }
}

impl Path {
    pub(super) fn new(
        endpoint: &Endpoint,
        path: &Redacted,
        pattern: PathPattern,
        base: String,
        expected: ExpectedHere,
    ) -> Arc<Self> {
        let shown = (!path.is_open()).then(|| path.shown().to_owned());
        Arc::new(Self {
            endpoint: endpoint.clone(),
            pattern,
            shown,
            guard: Guard::new(endpoint),
            base,
            expected,
            generation: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            roll: AtomicU64::new(0),
            said: Mutex::new(RateLimit::new(SAID_INTERVAL)),
            vacated: Notify::new(),
            state: Mutex::default(),
        })
    }

    /// The url of a connection that asked for this, as it may be shown.
    pub(super) fn url(&self, asked: &str) -> String {
        format!("{}{}", self.base, self.shown.as_deref().unwrap_or(asked))
    }

    /// Lets a peer in, if there is room and nothing is against it.
    pub(super) async fn admit(
        self: &Arc<Self>,
        handshake: Handshake,
        connections: &Connections,
    ) -> Verdict<(Seat, Handshake)> {
        let visitor = self.guard.check(&handshake).await.map_err(|denied| match denied {
            Denied::Host => Refusal::Host,
            Denied::Origin => Refusal::Origin,
            Denied::Credentials { bearer, basic } => Refusal::Unauthorized { bearer, basic },
        })?;
        let seat = match self.seat(connections) {
            Some(seat) => seat,
            None => self.vacant_seat(connections).await.ok_or(Refusal::Full)?,
        };
        let admission = Admission {
            subprotocols: self.endpoint.subprotocols.iter().map(|name| name.expose().to_owned()).collect(),
            offers_bearer: visitor.offers_bearer,
            max_message_size_bytes: self.endpoint.max_message_size_bytes,
        };
        Ok((admission, (seat, handshake.with_user(visitor.user))))
    }

    fn seat(self: &Arc<Self>, connections: &Connections) -> Option<Seat> {
        let place = connections.take()?;
        let mut state = self.lock();
        if state.seats >= state.max_connections() {
            return None;
        }
        state.seats += 1;
        Some(Seat { path: self.clone(), place: Some(place) })
    }

    /// The seat of a peer whose connection has ended and that has not seen it yet, if it does soon. One that is
    /// held back does not see it by itself.
    async fn vacant_seat(self: &Arc<Self>, connections: &Connections) -> Option<Seat> {
        let patience = Instant::now() + VACANCY_PATIENCE;
        loop {
            let vacated = self.vacated.notified();
            if let Some(seat) = self.seat(connections) {
                return Some(seat);
            }
            let is_held = self.held.load(Ordering::Acquire) > 0;
            let again = if is_held { self.call_roll() } else { Instant::now() + ROLL_INTERVAL };
            if tokio::time::timeout_at(again.min(patience), vacated).await.is_err() && again >= patience {
                return None;
            }
        }
    }

    /// A peer cannot be greeted for an endpoint.
    pub(super) fn cannot_greet(&self, member: &Member, error: &str) {
        member.metrics.show_error(&format!("a peer cannot be greeted: {error}"));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).allow();
        if let Some(held_back) = said {
            warn!(endpoint = member.metrics.owner(), error, held_back, "a peer cannot be greeted");
        }
    }

    /// Asks the peers whether they are still there, unless that was done just now; answers when it may be
    /// done again.
    fn call_roll(&self) -> Instant {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(called) = state.called.filter(|called| now < *called + ROLL_INTERVAL) {
            return called + ROLL_INTERVAL;
        }
        state.called = Some(now);
        self.roll.fetch_add(1, Ordering::Release);
        self.wake_peers(&state);
        now + ROLL_INTERVAL
    }

    /// Grows whenever peers that are held back are asked whether they are still there.
    pub(super) fn roll(&self) -> u64 {
        self.roll.load(Ordering::Acquire)
    }

    /// A peer is held back, and may be asked.
    pub(super) fn hold(&self) {
        self.held.fetch_add(1, Ordering::AcqRel);
    }

    /// A peer is held back no longer.
    pub(super) fn release(&self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
    }

    /// An endpoint that is here, in words.
    pub(super) fn owner(&self) -> Option<String> {
        self.lock().members.first().map(|member| member.metrics.owner())
    }

    /// Where peers connect, as it may be shown.
    pub(super) fn address(&self) -> String {
        let path = self.endpoint.listen().map_or("", |listen| listen.path.shown());
        format!("{}{path}", self.base)
    }

    /// Adds an endpoint; answers its number.
    pub(super) fn join(&self, mut member: Member) -> u64 {
        member.metrics.show_address(&self.address());
        member.metrics.show(EndpointState::Listening);
        let mut state = self.lock();
        state.next_id += 1;
        let id = state.next_id;
        member.id = id;
        state.members.push(member);
        state.closing = None;
        self.changed(&state);
        id
    }

    /// Removes an endpoint. Peers are closed with `code` if it was the last; says whether it was.
    pub(super) fn leave(&self, member: u64, code: u16) -> bool {
        let mut state = self.lock();
        if let Some(index) = state.members.iter().position(|other| other.id == member) {
            let metrics = state.members.remove(index).metrics;
            metrics.show(EndpointState::Closed);
        }
        let is_last = state.members.is_empty() && state.closing.is_none();
        if is_last {
            state.closing = Some(Closing { code, is_abandoned: false });
        }
        self.changed(&state);
        is_last
    }

    /// Has all peers look at who is here.
    pub(super) fn look_again(&self) {
        self.changed(&self.lock());
    }

    /// Has all peers look at what has changed for them.
    pub(super) fn wake(&self) {
        self.wake_peers(&self.lock());
    }

    /// Nobody waits any more for the peers of a path that all endpoints have left.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        if let Some(closing) = &mut state.closing {
            closing.is_abandoned = true;
            self.changed(&state);
        }
    }

    /// Resolves once all peers are gone.
    pub(super) async fn deserted(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.peers.is_empty() {
                return Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Grows whenever endpoints have come or gone.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Who is here now, and what that means for a peer.
    pub(super) fn roster(&self) -> Roster {
        let state = self.lock();
        let is_source = |member: &Member| matches!(member.end, End::Source { .. });
        let has_source = state.closing.is_some() || state.members.iter().any(is_source);
        Roster {
            members: state.members.clone(),
            closing: state.closing,
            expects_source: !has_source && self.expected.has_source(&self.pattern),
        }
    }

    /// Adds a peer, whose task is woken when the path changes.
    pub(super) fn enter(&self, peer: u64, waker: Arc<AtomicWaker>) {
        let mut state = self.lock();
        state.peers.insert(peer, waker);
        let expecting = std::mem::take(&mut state.expecting);
        drop(state);
        expecting.into_iter().for_each(Waker::wake);
    }

    /// Ready while there is a peer.
    pub(super) fn poll_peer(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.peers.is_empty() {
            return Poll::Ready(());
        }
        if !state.expecting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.expecting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Removes a peer.
    pub(super) fn exit(&self, peer: u64) {
        let mut state = self.lock();
        state.peers.remove(&peer);
        if state.peers.is_empty() {
            state.waiting.drain(..).for_each(Waker::wake);
        }
    }

    fn changed(&self, state: &State) {
        self.generation.fetch_add(1, Ordering::Release);
        self.wake_peers(state);
    }

    fn wake_peers(&self, state: &State) {
        state.peers.values().for_each(|waker| waker.wake());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
