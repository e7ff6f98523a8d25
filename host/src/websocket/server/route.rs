//! A route of a listener: the endpoints that share it, and the peers that are connected to it.
//!
//! Every peer sends to every source here and receives from every sink. Endpoints may come and go
//! while peers stay: a peer looks again when the route has changed. A permit is one of the connections that a
//! route may have; where there is none left, peers that are held back are asked whether they are still there.
//! A peer whose connection has ended gives its permit up though its messages still wait for a pipeline, but only
//! so many do: a pipeline that is held back costs no more memory however often its producers come back.

use super::accept::{Admission, AdmissionResult, HandshakeRefusal};
use super::auth::{AccessDenied, AccessPolicy};
use super::broadcast::Broadcast;
use super::expected::ExpectedHere;
use super::listener_permit::{ListenerConnections, ListenerPermit};
use super::request::Handshake;
use super::route_member::{MemberRole, RouteMember};
use crate::config::{Endpoint, PathPattern, Redacted};
use crate::connections::EndpointState;
use crate::reason::Reason;
use crate::telemetry::RateLimit;
use futures_util::task::AtomicWaker;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

/// Between two lines about peers that cannot be greeted.
const SAID_INTERVAL: Duration = Duration::from_secs(1);
/// Between two calls of the roll: each costs every peer of the route a look.
const ROLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a handshake waits for a permit where there is none left.
const PERMIT_TIMEOUT: Duration = Duration::from_millis(250);

/// Peers of a route that may be without a permit, their connections having ended, while their messages wait for a
/// pipeline: each keeps some 256 KiB, and maybe a chunk. There are never more than connections may be.
const MAX_WITHOUT_PERMIT: usize = 64;

#[derive(Debug)]
pub(super) struct Route {
    /// The first endpoint's; those that share a route agree where it matters.
    pub(super) endpoint: Endpoint,
    pub(super) pattern: PathPattern,
    /// What is shown of the path where some of it is not; else it is shown as it was asked for.
    shown: Option<String>,
    access: AccessPolicy,
    /// `ws://host:port`
    pub(super) base: String,
    expected: ExpectedHere,
    generation: AtomicU64,
    /// How many peers are held back, and so do not see their end.
    held: AtomicUsize,
    roll: AtomicU64,
    /// Of saying that a peer cannot be greeted: anybody can be one.
    said: Mutex<RateLimit>,
    /// Told when a permit is free.
    released: Notify,
    state: Mutex<RouteState>,
}

/// One of the connections that a listener and the endpoints of a route may have, until it is given up or
/// dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    route: Arc<Route>,
    /// `None` once it was given up, and its peer is one of those without a permit.
    listener_permit: Option<ListenerPermit>,
}

impl ConnectionPermit {
    pub(super) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Lets another have the permit though the messages of its peer still wait for a pipeline, unless there are
    /// too many such peers already.
    pub(super) fn give_up(&mut self) {
        if self.listener_permit.is_none() {
            return;
        }
        {
            let mut state = self.route.lock();
            if state.without_permit >= state.max_connections().min(MAX_WITHOUT_PERMIT) {
                return;
            }
            state.without_permit += 1;
            state.permits -= 1;
        }
        self.listener_permit = None;
        self.route.released.notify_waiters();
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        {
            let mut state = self.route.lock();
            if self.listener_permit.is_some() {
                state.permits -= 1;
            } else {
                state.without_permit -= 1;
            }
        }
        self.listener_permit = None;
        self.route.released.notify_waiters();
    }
}

#[derive(Debug, Default)]
struct RouteState {
    members: Vec<RouteMember>,
    next_id: u64,
    peers: BTreeMap<u64, RoutePeer>,
    /// Peers, and those whose handshake is being answered.
    permits: usize,
    /// Peers that have given their permit up, and whose messages still wait for a pipeline.
    without_permit: usize,
    /// When peers were last asked whether they are still there.
    called: Option<Instant>,
    closing: Option<RouteClosing>,
    waiting: Vec<Waker>,
    /// Who waits for a first peer.
    expecting: Vec<Waker>,
}

/// A peer, as its route knows it.
#[derive(Debug)]
struct RoutePeer {
    waker: Arc<AtomicWaker>,
    /// Its connection is closed, while messages of it still wait for a pipeline.
    has_hung_up: bool,
    /// What was joined for it before its task had a turn: what is published until then is for it.
    early: Vec<Arc<Broadcast>>,
}

impl RouteState {
    /// Whether no connection is left.
    fn is_deserted(&self) -> bool {
        self.peers.values().all(|peer| peer.has_hung_up)
    }

    fn wake_if_deserted(&mut self) {
        if self.is_deserted() {
            self.waiting.drain(..).for_each(Waker::wake);
        }
    }

    /// How many permits there may be, as far as endpoints say so.
    fn max_connections(&self) -> usize {
        self.members.iter().map(|member| member.max_connections).min().unwrap_or(usize::MAX)
    }
}

/// The endpoints of a route.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) members: Vec<RouteMember>,
    /// How to close, if nobody is here.
    pub(super) closing: Option<RouteClosing>,
    /// Whether what peers send is not read before a source is open that is to be.
    pub(super) expects_source: bool,
    /// What was joined for the peer since it looked last.
    pub(super) early: Vec<Arc<Broadcast>>,
}

/// How the peers of a route without endpoints are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteClosing {
    /// The code of the close frame.
    pub(super) code: u16,
    /// Whether nobody waits for them any more.
    pub(super) is_abandoned: bool,
}

impl Route {
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
            access: AccessPolicy::new(endpoint),
            base,
            expected,
            generation: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            roll: AtomicU64::new(0),
            said: Mutex::new(RateLimit::new(SAID_INTERVAL)),
            released: Notify::new(),
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
        connections: &ListenerConnections,
    ) -> AdmissionResult<(ConnectionPermit, Handshake)> {
        let visitor = self.access.check(&handshake).await.map_err(|denied| match denied {
            AccessDenied::Host => HandshakeRefusal::Host,
            AccessDenied::Origin => HandshakeRefusal::Origin,
            AccessDenied::Credentials { bearer, basic } => HandshakeRefusal::Unauthorized { bearer, basic },
        })?;
        if !self.lock().members.iter().all(|member| member.can_read(&handshake)) {
            return Err(HandshakeRefusal::Unreadable);
        }
        let permit = match self.permit(connections) {
            Some(permit) => permit,
            None => self.permit_soon(connections).await.ok_or(HandshakeRefusal::Full)?,
        };
        let admission = Admission {
            subprotocols: self.endpoint.subprotocols.iter().map(|name| name.expose().to_owned()).collect(),
            offers_bearer: visitor.offers_bearer,
            max_message_size_bytes: self.endpoint.max_message_size_bytes,
        };
        Ok((admission, (permit, handshake.with_user(visitor.user))))
    }

    fn permit(self: &Arc<Self>, connections: &ListenerConnections) -> Option<ConnectionPermit> {
        let listener_permit = connections.take()?;
        let mut state = self.lock();
        if state.permits >= state.max_connections() {
            return None;
        }
        state.permits += 1;
        Some(ConnectionPermit { route: self.clone(), listener_permit: Some(listener_permit) })
    }

    /// The permit of a peer whose connection has ended and that has not seen it yet, if it does soon. One that is
    /// held back does not see it by itself.
    async fn permit_soon(self: &Arc<Self>, connections: &ListenerConnections) -> Option<ConnectionPermit> {
        let patience = Instant::now() + PERMIT_TIMEOUT;
        loop {
            let released = self.released.notified();
            if let Some(permit) = self.permit(connections) {
                return Some(permit);
            }
            let is_held = self.held.load(Ordering::Acquire) > 0;
            let again = if is_held { self.call_roll() } else { Instant::now() + ROLL_INTERVAL };
            if tokio::time::timeout_at(again.min(patience), released).await.is_err() && again >= patience {
                return None;
            }
        }
    }

    /// A peer cannot be greeted for an endpoint.
    pub(super) fn cannot_greet(&self, member: &RouteMember, error: &str) {
        member.metrics.show_error(&format!("a peer cannot be greeted: {error}"));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).allow();
        if let Some(held_back) = said {
            let (pipeline, endpoint) = (member.metrics.place().0, member.metrics.owner());
            warn!(pipeline, endpoint, error, held_back, "a peer cannot be greeted");
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
    pub(super) fn join(&self, mut member: RouteMember) -> u64 {
        member.metrics.show_address(&self.address());
        member.metrics.show(EndpointState::Listening);
        let mut state = self.lock();
        state.next_id += 1;
        let id = state.next_id;
        member.id = id;
        if let Some(broadcast) = member.ungreeted_sink() {
            for (peer, known) in state.peers.iter_mut().filter(|(_, known)| !known.has_hung_up) {
                broadcast.join(*peer);
                known.early.push(broadcast.clone());
            }
        }
        state.members.push(member);
        state.closing = None;
        self.changed(&state);
        id
    }

    /// Removes an endpoint. Peers are closed with `code` if it was the last; says whether it was.
    pub(super) fn leave(&self, member: u64, code: u16) -> bool {
        let mut state = self.lock();
        if let Some(index) = state.members.iter().position(|other| other.id == member) {
            let member = state.members.remove(index);
            if !member.has_failed {
                member.metrics.show(EndpointState::Closed);
            }
        }
        let is_last = state.members.is_empty() && state.closing.is_none();
        if is_last {
            state.closing = Some(RouteClosing { code, is_abandoned: false });
        }
        self.changed(&state);
        is_last
    }

    /// Peers may join a source: its pipeline starts.
    pub(super) fn start(&self, member: u64) {
        let mut state = self.lock();
        if let Some(member) = state.members.iter_mut().find(|other| other.id == member) {
            member.is_started = true;
        }
        self.changed(&state);
    }

    /// An endpoint has failed, and is to leave: it is shown as that from now on.
    pub(super) fn fail(&self, member: u64, why: &str) {
        let mut state = self.lock();
        if let Some(member) = state.members.iter_mut().find(|other| other.id == member) {
            member.has_failed = true;
            member.metrics.show_error(why);
            member.metrics.show(EndpointState::Failed);
        }
    }

    /// Has all peers look at who is here.
    pub(super) fn look_again(&self) {
        self.changed(&self.lock());
    }

    /// Has all peers look at what has changed for them.
    pub(super) fn wake(&self) {
        self.wake_peers(&self.lock());
    }

    /// Nobody waits any more for the peers of a route that all endpoints have left.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        if let Some(closing) = &mut state.closing {
            closing.is_abandoned = true;
            self.changed(&state);
        }
    }

    /// Resolves once the connections of all peers are closed.
    pub(super) async fn deserted(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.is_deserted() {
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

    /// Who is here now for peers, and what that means for one.
    pub(super) fn roster(&self, peer: u64) -> Roster {
        let mut state = self.lock();
        let early =
            state.peers.get_mut(&peer).map(|peer| std::mem::take(&mut peer.early)).unwrap_or_default();
        let started = state.members.iter().filter(|member| member.is_started);
        let members: Vec<_> = started.cloned().collect();
        let is_source = |member: &RouteMember| matches!(member.end, MemberRole::Source { .. });
        let has_source = members.iter().any(is_source);
        Roster {
            members,
            closing: state.closing,
            early,
            expects_source: state.closing.is_none() && self.expected.has_source(&self.pattern, has_source),
        }
    }

    /// Adds a peer, whose task is woken when the route changes.
    pub(super) fn enter(&self, peer: u64, waker: Arc<AtomicWaker>) {
        let mut state = self.lock();
        let early: Vec<_> = state.members.iter().filter_map(RouteMember::ungreeted_sink).cloned().collect();
        early.iter().for_each(|broadcast| broadcast.join(peer));
        state.peers.insert(peer, RoutePeer { waker, has_hung_up: false, early });
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
        if let Some(RoutePeer { early, .. }) = state.peers.remove(&peer) {
            early.iter().for_each(|broadcast| broadcast.leave(peer, Reason::PeerClosed));
        }
        state.wake_if_deserted();
    }

    /// The connection of a peer is closed, and maybe not all of its messages are taken.
    pub(super) fn hung_up(&self, peer: u64) {
        let mut state = self.lock();
        if let Some(peer) = state.peers.get_mut(&peer) {
            peer.has_hung_up = true;
        }
        state.wake_if_deserted();
    }

    fn changed(&self, state: &RouteState) {
        self.generation.fetch_add(1, Ordering::Release);
        self.wake_peers(state);
    }

    fn wake_peers(&self, state: &RouteState) {
        state.peers.values().for_each(|peer| peer.waker.wake());
    }

    fn lock(&self) -> MutexGuard<'_, RouteState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
