//! The task of one listener: it accepts, makes the handshakes within bounds of their own, and runs a task for
//! each peer that was let in.
//!
//! At a stop handshakes that nobody was let in by are dropped; peers are seen through.

use super::accept::{Accepted, AdmissionResult, HandshakeFailure, HandshakeRefusal, accept_over};
use super::arrival::ArrivedPeer;
use super::expected::ExpectedHere;
use super::listener_permit::ListenerConnections;
use super::peer::Peer;
use super::request::Handshake;
use super::route::Route;
use crate::config::Server;
use crate::telemetry::{HandshakeMetrics, RateLimit};
use crate::websocket::tls::ServerCertificates;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Handshakes of which at least so many may be in progress, however few connections are allowed.
const LEAST_HANDSHAKES: usize = 64;
/// For so many connections one handshake may be in progress: many at once are a host that starts, or an attack.
const CONNECTIONS_A_HANDSHAKE: usize = 4;
/// Between two lines about refused handshakes of one status.
const SAID_INTERVAL: Duration = Duration::from_secs(1);
/// After an error of accepting, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What holds for the connections of one listener together.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenerLimits {
    pub(super) max_connections: usize,
    pub(super) handshake_timeout: Duration,
}

/// What a listener is made of, shared by its task and its endpoints.
#[derive(Debug)]
pub(super) struct Listener {
    /// In the order of precedence.
    routes: Mutex<Vec<Arc<Route>>>,
    pub(super) certificates: Option<ServerCertificates>,
    limits: ListenerLimits,
    connections: ListenerConnections,
    handshakes: Arc<Semaphore>,
    /// Its address, as it may be shown.
    pub(super) address: String,
    /// The endpoints that are to be opened here.
    pub(super) expected: ExpectedHere,
    metrics: HandshakeMetrics,
    /// Of saying that a handshake was refused, by status: anybody can have one refused.
    said: Mutex<BTreeMap<Cow<'static, str>, RateLimit>>,
}

impl ListenerLimits {
    pub(super) fn of(server: &Server) -> Self {
        Self { max_connections: server.max_connections, handshake_timeout: server.handshake_timeout }
    }

    fn handshakes(self) -> usize {
        (self.max_connections / CONNECTIONS_A_HANDSHAKE).clamp(LEAST_HANDSHAKES, Semaphore::MAX_PERMITS)
    }
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self::of(&Server::default())
    }
}

impl Listener {
    pub(super) fn new(
        address: String,
        expected: ExpectedHere,
        limits: ListenerLimits,
        certificates: Option<ServerCertificates>,
        metrics: HandshakeMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            routes: Mutex::default(),
            certificates,
            connections: ListenerConnections::new(limits.max_connections),
            handshakes: Arc::new(Semaphore::new(limits.handshakes())),
            limits,
            address,
            expected,
            metrics,
            said: Mutex::default(),
        })
    }

    pub(super) fn routes(&self) -> MutexGuard<'_, Vec<Arc<Route>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The route of a path that was asked for.
    fn route(&self, asked: &str) -> Option<Arc<Route>> {
        self.routes().iter().find(|route| route.pattern.matches(asked)).cloned()
    }

    pub(super) fn forget(&self, route: &Arc<Route>) {
        self.routes().retain(|other| !Arc::ptr_eq(other, route));
    }

    /// Accepts until the stop, and resolves once all peers are gone. `address` is dropped when it is free.
    pub(super) async fn run(self: Arc<Self>, tcp: TcpListener, stop: CancellationToken, address: impl Send) {
        let mut peers = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = peers.join_next(), if !peers.is_empty() => {}
                accepted = self.accept(&tcp) => match accepted {
                    Ok((permit, stream, address)) => {
                        peers.spawn(self.clone().serve(permit, stream, address, stop.clone()));
                    }
                    Err(error) => {
                        warn!(%error, "accepting a connection failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop((tcp, address));
        while peers.join_next().await.is_some() {}
    }

    /// The next connection, once a handshake more may be made: until then it waits in the kernel.
    ///
    /// # Cancel safety
    /// What was not accepted is accepted by the next call.
    async fn accept(&self, tcp: &TcpListener) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
        let permit = self.handshakes.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let (stream, address) = tcp.accept().await?;
        Ok((permit, stream, address))
    }

    async fn serve(
        self: Arc<Self>,
        permit: OwnedSemaphorePermit,
        stream: TcpStream,
        address: SocketAddr,
        stop: CancellationToken,
    ) {
        // What a handshake needs is much, and is given back when it is done: the task stays small.
        let accepted = Box::pin(self.handshake(stream, address, &stop)).await;
        drop(permit);
        if let Some(Accepted { connection, token: arrival }) = accepted {
            Box::new(Peer::new(arrival, connection, address)).run().await;
        }
    }

    /// Makes the handshake. At a stop it is dropped, unless the peer was let in already.
    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        stop: &CancellationToken,
    ) -> Option<Accepted<ArrivedPeer>> {
        let is_admitted = AtomicBool::new(false);
        let admit = async |handshake| {
            let verdict = self.admit(handshake).await;
            is_admitted.store(verdict.is_ok(), Ordering::Relaxed);
            verdict
        };
        let patience = self.limits.handshake_timeout;
        let refused = |refused| self.refused(refused, address);
        let mut made = pin!(accept_over(stream, self.certificates.as_ref(), patience, admit, refused));
        let mut stopped = pin!(stop.cancelled());
        poll_fn(|cx| match made.as_mut().poll(cx) {
            Poll::Ready(accepted) => Poll::Ready(accepted),
            Poll::Pending if is_admitted.load(Ordering::Relaxed) => Poll::Pending,
            Poll::Pending => stopped.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    async fn admit(&self, handshake: Handshake) -> AdmissionResult<ArrivedPeer> {
        let asked = handshake.path();
        let route = self.route(asked);
        if self.expected.is_before(route.as_ref().map(|route| &route.pattern), asked) {
            return Err(HandshakeRefusal::NotOpen);
        }
        let route = route.ok_or(HandshakeRefusal::NotFound)?;
        let (admission, (permit, handshake)) = route.admit(handshake, &self.connections).await?;
        Ok((admission, ArrivedPeer::new(permit, handshake)))
    }

    fn refused(&self, refused: HandshakeFailure, peer: SocketAddr) {
        let status: Cow<'static, str> = match refused {
            HandshakeFailure::Answered(status) => status.to_string().into(),
            HandshakeFailure::Late => "timeout".into(),
            HandshakeFailure::Tls => "tls".into(),
        };
        self.metrics.refused(&self.address, &status);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = said.entry(status.clone()).or_insert_with(|| RateLimit::new(SAID_INTERVAL));
        if let Some(held_back) = limit.allow() {
            warn!(listener = self.address, status = &*status, %peer, held_back, "handshake refused");
        }
    }
}
