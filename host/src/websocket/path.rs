//! A path of a listener: the endpoints that share it, and the peers that are connected to it.
//!
//! Every peer sends to every source here and receives from every sink. Endpoints may come and go
//! while peers stay: a peer looks again when the path has changed.

use super::accept::{Admission, Refusal, Verdict};
use super::broadcast::Broadcast;
use super::guard::{Denied, Guard};
use super::handshake::Handshake;
use crate::config::{Endpoint, EndpointText, FromHandshake, PathPattern, Redacted};
use crate::message::{Failed, Message};
use crate::metadata::{Metadata, Origin};
use crate::reason::Reason;
use crate::telemetry::{ConnectOutcome, Connected, EndpointMetrics, EndpointState};
use futures_util::task::AtomicWaker;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::mpsc;

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
    pub(super) metrics: EndpointMetrics,
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
    generation: AtomicU64,
    state: Mutex<State>,
}

/// One of the connections that the endpoints of a path may have.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) path: Arc<Path>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.path.lock().seats -= 1;
    }
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    next_id: u64,
    peers: BTreeMap<u64, Arc<AtomicWaker>>,
    /// Peers, and those whose handshake is being answered.
    seats: usize,
    closing: Option<u16>,
    waiting: Vec<Waker>,
    /// Who waits for a first peer.
    expecting: Vec<Waker>,
}

impl Arrivals {
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
    pub(super) fn new(endpoint: &Endpoint, end: End, metrics: EndpointMetrics) -> Self {
        let metadata = endpoint.listen().map_or(&[][..], |listen| &listen.metadata);
        let max_connections = endpoint.listen().map_or(usize::MAX, |listen| listen.max_connections);
        let on_connect = endpoint.on_connect.as_slice().into();
        Self { id: 0, end, metrics, on_connect, metadata: metadata.into(), max_connections }
    }

    /// What answers beside a source of the same endpoint, which has greeted the peers.
    pub(super) fn reply(endpoint: &Endpoint, metrics: EndpointMetrics) -> Self {
        Self { on_connect: Arc::default(), ..Self::new(endpoint, End::Reply, metrics) }
    }

    /// A peer has come.
    pub(super) fn welcome(&self, peer: u64, shown: &Arc<Connected>, origin: &Arc<Origin>) {
        if let End::Sink(broadcast) = &self.end {
            broadcast.join(peer);
        }
        self.metrics.connect(ConnectOutcome::Connected);
        self.metrics.welcome(shown, origin);
    }

    /// A peer has gone; what it was still to get is counted under `reason`.
    pub(super) fn farewell(&self, peer: u64, shown: &Connected, reason: Reason) {
        if let End::Sink(broadcast) = &self.end {
            broadcast.leave(peer, reason);
        }
        self.metrics.farewell(shown);
    }
}

impl Path {
    pub(super) fn new(endpoint: &Endpoint, path: &Redacted, pattern: PathPattern, base: String) -> Arc<Self> {
        let shown = (!path.is_open()).then(|| path.shown().to_owned());
        let (generation, state) = (AtomicU64::new(0), Mutex::default());
        let guard = Guard::new(endpoint);
        Arc::new(Self { endpoint: endpoint.clone(), pattern, shown, guard, base, generation, state })
    }

    /// The url of a connection that asked for this, as it may be shown.
    pub(super) fn url(&self, asked: &str) -> String {
        format!("{}{}", self.base, self.shown.as_deref().unwrap_or(asked))
    }

    /// Lets a peer in, if there is room and nothing is against it.
    pub(super) async fn admit(self: &Arc<Self>, handshake: Handshake) -> Verdict<(Seat, Handshake)> {
        let visitor = self.guard.check(&handshake).await.map_err(|denied| match denied {
            Denied::Origin => Refusal::Origin,
            Denied::Credentials { bearer, basic } => Refusal::Unauthorized { bearer, basic },
        })?;
        let mut state = self.lock();
        let most = state.members.iter().map(|member| member.max_connections).min();
        if state.seats >= most.unwrap_or(usize::MAX) {
            return Err(Refusal::Full);
        }
        state.seats += 1;
        let admission = Admission {
            subprotocols: self.endpoint.subprotocols.iter().map(|name| name.expose().to_owned()).collect(),
            offers_bearer: visitor.offers_bearer,
            max_message_size_bytes: self.endpoint.max_message_size_bytes,
        };
        Ok((admission, (Seat { path: self.clone() }, handshake.with_user(visitor.user))))
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
        self.changed(state);
        id
    }

    /// Removes an endpoint. Peers are closed with `code` if it was the last; says whether it was.
    pub(super) fn leave(&self, member: u64, code: u16) -> bool {
        let mut state = self.lock();
        if let Some(index) = state.members.iter().position(|other| other.id == member) {
            let metrics = state.members.remove(index).metrics;
            metrics.show(EndpointState::Closed);
        }
        let is_last = state.members.is_empty();
        if is_last {
            state.closing = Some(code);
        }
        self.changed(state);
        is_last
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

    /// Who is here now, and the code to close with if nobody is.
    pub(super) fn members(&self) -> (Vec<Member>, Option<u16>) {
        let state = self.lock();
        (state.members.clone(), state.closing)
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

    fn changed(&self, state: MutexGuard<'_, State>) {
        self.generation.fetch_add(1, Ordering::Release);
        let peers: Vec<_> = state.peers.values().cloned().collect();
        drop(state);
        peers.iter().for_each(|waker| waker.wake());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
