//! The listeners that server endpoints share: one for each address, open from its first endpoint to
//! its last.
//!
//! A listener accepts, makes the handshakes within bounds, and runs one task for each peer. It owns
//! these tasks, and whoever closes the last endpoint waits for all of them.

use super::accept::{Accepted, Refusal, Verdict, accept_over};
use super::broadcast::Broadcast;
use super::close_code::GOING_AWAY;
use super::handshake::Handshake;
use super::path::{Arrivals, End, Member, Path, Seat};
use super::peer::Peer;
use super::server_tls::ServerCertificates;
use crate::config::{Endpoint, FromHandshake, Listen, PathPattern, Redacted, Server};
use crate::telemetry::EndpointMetrics;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Chunks of messages that may wait for a pipeline.
const CHUNKS: usize = 8;
/// Peers above the limit that are given their 503 at once; more are hung up on.
const REFUSED_AT_ONCE: usize = 64;
/// After an error of accepting, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All listeners of a host, and the limits of each. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    open: Arc<tokio::sync::Mutex<HashMap<Address, Arc<Listener>>>>,
    limits: Limits,
    /// Addresses of this process that are no WebSocket listener's, and whose they are.
    others: Vec<(SocketAddr, &'static str)>,
}

/// What holds for the connections of one listener together.
#[derive(Clone, Copy, Debug)]
struct Limits {
    max_connections: usize,
    handshake_timeout: Duration,
}

type Address = (String, u16);

/// An endpoint's part in a listener: leave it with [`Attachment::poll_close`].
pub struct Attachment {
    listeners: Listeners,
    address: Address,
    listener: Arc<Listener>,
    path: Arc<Path>,
    member: u64,
    /// How long a first peer is waited for, if it is.
    check: Option<Duration>,
    patience: Option<Pin<Box<Sleep>>>,
    leaving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// A server endpoint that cannot be opened.
#[derive(Debug)]
pub struct ListenError {
    address: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    /// The path is none.
    Path(String),
    /// An endpoint that shares the path, or the address, says otherwise.
    Differs { key: &'static str, owner: String, share: &'static str },
    /// The certificate cannot be used.
    Certificate(String),
    /// Another part of this process has the address.
    Ours { owner: String, at: String },
    /// The address cannot be listened on.
    Address(io::Error),
}

#[derive(Debug)]
struct Listener {
    host: Redacted,
    local: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    /// In the order of precedence.
    paths: Mutex<Vec<Arc<Path>>>,
    connections: AtomicUsize,
    limits: Limits,
    certificates: Option<ServerCertificates>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(&Server::default())
    }
}

impl Limits {
    fn of(server: &Server) -> Self {
        Self { max_connections: server.max_connections, handshake_timeout: server.handshake_timeout }
    }
}

impl Listeners {
    /// Listeners with these limits each; none is open yet.
    pub fn new(server: &Server) -> Self {
        Self { open: Arc::default(), limits: Limits::of(server), others: Vec::new() }
    }

    /// The same, knowing that somebody else of this process listens at an address.
    pub fn beside(mut self, address: SocketAddr, owner: &'static str) -> Self {
        self.others.push((address, owner));
        self
    }

    /// Opens a server endpoint that messages come from; with `is_answered` each connection has a
    /// [`super::Lane`] for replies.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open_source(
        &self,
        endpoint: &Endpoint,
        listen: &Listen,
        is_answered: bool,
        metrics: EndpointMetrics,
    ) -> Result<(Attachment, mpsc::Receiver<Arrivals>), ListenError> {
        let (inlet, arrivals) = mpsc::channel(CHUNKS);
        let member = Member::new(endpoint, End::Source { inlet, is_answered }, metrics);
        Ok((self.open(endpoint, listen, member).await?, arrivals))
    }

    /// Opens what answers on the connections of a source that is there already.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open_reply(
        &self,
        endpoint: &Endpoint,
        listen: &Listen,
        metrics: EndpointMetrics,
    ) -> Result<Attachment, ListenError> {
        self.open(endpoint, listen, Member::reply(endpoint, metrics)).await
    }

    /// Opens a server endpoint that messages go to.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open_sink(
        &self,
        endpoint: &Endpoint,
        listen: &Listen,
        broadcast: Arc<Broadcast>,
        metrics: EndpointMetrics,
    ) -> Result<Attachment, ListenError> {
        self.open(endpoint, listen, Member::new(endpoint, End::Sink(broadcast), metrics)).await
    }

    /// Whether an endpoint could be opened at this address: it is free, or ours already.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn check(&self, listen: &Listen) -> Result<(), ListenError> {
        let open = self.open.lock().await;
        if open.contains_key(&address(listen)) {
            return Ok(());
        }
        let bound = TcpListener::bind(listen.address()).await;
        bound.map(drop).map_err(|error| ListenError::new(listen, Cause::Address(error)))
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        listen: &Listen,
        member: Member,
    ) -> Result<Attachment, ListenError> {
        let address = address(listen);
        let pattern = PathPattern::parse(&listen.path)
            .map_err(|error| ListenError::new(listen, Cause::Path(error.message)))?;
        let mut open = self.open.lock().await;
        let (listener, bound) = match open.get(&address) {
            Some(listener) => (listener.clone(), None),
            None => {
                let certificates = match &listen.tls {
                    Some(tls) => {
                        let loaded = Box::pin(ServerCertificates::load(tls)).await;
                        Some(loaded.map_err(|error| ListenError::new(listen, Cause::Certificate(error)))?)
                    }
                    None => None,
                };
                let bound = Listener::bind(listen, self.limits, certificates).await;
                let (listener, bound) = bound.map_err(|error| {
                    let cause = match self.owner(&open, listen) {
                        Some((owner, at)) if error.kind() == io::ErrorKind::AddrInUse => {
                            Cause::Ours { owner, at }
                        }
                        _ => Cause::Address(error),
                    };
                    ListenError::new(listen, cause)
                })?;
                (Arc::new(listener), Some(bound))
            }
        };
        let path = {
            let mut paths = listener.shared.paths();
            let certificates = listener.shared.certificates.as_ref();
            if listen.tls.is_some() && listen.tls.as_ref() != certificates.map(ServerCertificates::tls) {
                let owner = paths.first().and_then(|path| path.owner()).unwrap_or_default();
                return Err(ListenError::new(listen, Cause::Differs { key: "tls", owner, share: "address" }));
            }
            if let Some((key, owner)) = disagreement(&paths, endpoint, &pattern) {
                return Err(ListenError::new(listen, Cause::Differs { key, owner, share: "path" }));
            }
            match paths.binary_search_by(|path| path.pattern.cmp(&pattern)) {
                Ok(found) => paths[found].clone(),
                Err(place) => {
                    let scheme = if certificates.is_some() { "wss" } else { "ws" };
                    let base = format!("{scheme}://{}", shown(&listen.host, listener.local.port()));
                    let path = Path::new(endpoint, &listen.path, pattern, base);
                    paths.insert(place, path.clone());
                    path
                }
            }
        };
        warn_of_absent_metadata(&member, &path, listener.shared.certificates.as_ref());
        let member = path.join(member);
        if let Some(bound) = bound {
            open.insert(address.clone(), listener.clone());
            listener.start(bound);
        }
        Ok(Attachment {
            listeners: self.clone(),
            address,
            listener,
            path,
            member,
            check: endpoint.check_connection,
            patience: None,
            leaving: None,
        })
    }

    /// Whoever of this process listens where an endpoint would, and how it says where that is.
    fn owner(&self, open: &HashMap<Address, Arc<Listener>>, listen: &Listen) -> Option<(String, String)> {
        let clashes = |other: SocketAddr| {
            let host: Option<IpAddr> = listen.host.expose().parse().ok();
            let overlaps = host.is_none_or(|host| {
                host == other.ip() || host.is_unspecified() || other.ip().is_unspecified()
            });
            other.port() == listen.port && overlaps
        };
        let other = self.others.iter().find(|(other, _)| clashes(*other));
        let other = other.map(|(other, owner)| ((*owner).to_owned(), other.to_string()));
        other.or_else(|| {
            let listener = open.values().find(|listener| clashes(listener.local))?;
            let owner = listener.shared.paths().iter().find_map(|path| path.owner())?;
            Some((owner, shown(&listener.host, listener.local.port())))
        })
    }

    async fn leave(self, address: Address, listener: Arc<Listener>, path: Arc<Path>, member: u64, code: u16) {
        let mut open = self.open.lock().await;
        let is_last_of_path = path.leave(member, code);
        if is_last_of_path {
            listener.forget(&path);
        }
        let is_last = listener.shared.paths().is_empty();
        let task = is_last.then(|| {
            open.remove(&address);
            listener.stop.cancel();
            listener.task.lock().unwrap_or_else(PoisonError::into_inner).take()
        });
        drop(open);
        if is_last_of_path {
            path.deserted().await;
        }
        if let Some(task) = task.flatten()
            && let Err(error) = task.await
        {
            warn!(%error, "a listener ended badly");
        }
    }
}

impl Attachment {
    /// Where the listener really listens, for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.listener.local
    }

    /// Waits for a first peer, if the endpoint is to be connected before its pipeline starts.
    ///
    /// # Errors
    /// None came in time.
    pub fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let Some(check) = self.check else { return Poll::Ready(Ok(())) };
        if self.path.poll_peer(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(check)));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Err(format!("no peer connected to {} within {check:?}", self.path.address())))
    }

    /// Leaves. Peers that nobody else wants are closed with `code`, and waited for; so is the listener,
    /// if this was its last endpoint.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        let leaving = self.leaving.get_or_insert_with(|| {
            let listeners = self.listeners.clone();
            let (address, path) = (self.address.clone(), self.path.clone());
            Box::pin(listeners.leave(address, self.listener.clone(), path, self.member, code))
        });
        ready!(leaving.as_mut().poll(cx));
        self.leaving = Some(Box::pin(std::future::ready(())));
        Poll::Ready(())
    }
}

impl Drop for Attachment {
    /// One that was not closed in time still leaves, only nobody waits.
    fn drop(&mut self) {
        if self.leaving.is_none() && self.path.leave(self.member, GOING_AWAY) {
            self.listener.forget(&self.path);
            let Ok(mut open) = self.listeners.open.try_lock() else { return };
            if self.listener.shared.paths().is_empty() {
                open.remove(&self.address);
                self.listener.stop.cancel();
            }
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("address", &self.address).field("member", &self.member).finish()
    }
}

impl Listener {
    /// Takes the address. Who dials it waits until the first path is open and the listener starts.
    async fn bind(
        listen: &Listen,
        limits: Limits,
        certificates: Option<ServerCertificates>,
    ) -> io::Result<(Self, TcpListener)> {
        let tcp = TcpListener::bind(listen.address()).await?;
        let (host, local) = (listen.host.clone(), tcp.local_addr()?);
        let (paths, connections) = Default::default();
        let shared = Arc::new(Shared { paths, connections, limits, certificates });
        let (stop, task) = Default::default();
        Ok((Self { host, local, shared, stop, task }, tcp))
    }

    fn start(&self, tcp: TcpListener) {
        let local = self.local;
        let address = if self.host.is_open() { local.to_string() } else { shown(&self.host, local.port()) };
        info!(%address, "websocket listening");
        let task = tokio::spawn(run(tcp, self.shared.clone(), self.stop.clone()));
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    fn forget(&self, path: &Arc<Path>) {
        self.shared.paths().retain(|other| !Arc::ptr_eq(other, path));
    }
}

async fn run(tcp: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut peers = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = peers.join_next(), if !peers.is_empty() => {}
            accepted = tcp.accept() => match accepted {
                Ok((stream, address)) => {
                    if let Some(place) = shared.clone().place() {
                        peers.spawn(place.serve(stream, address));
                    }
                }
                Err(error) => {
                    warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(tcp);
    while peers.join_next().await.is_some() {}
}

/// One of the connections of a listener, handshakes included.
struct Place {
    shared: Arc<Shared>,
    is_over: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn paths(&self) -> MutexGuard<'_, Vec<Arc<Path>>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a path that was asked for leads.
    fn path(&self, asked: &str) -> Option<Arc<Path>> {
        self.paths().iter().find(|path| path.pattern.matches(asked)).cloned()
    }

    fn place(self: Arc<Self>) -> Option<Place> {
        let taken = self.connections.fetch_add(1, Ordering::Relaxed);
        let place = Place { is_over: taken >= self.limits.max_connections, shared: self };
        (taken < place.shared.limits.max_connections.saturating_add(REFUSED_AT_ONCE)).then_some(place)
    }
}

impl Place {
    async fn serve(self, stream: TcpStream, address: SocketAddr) {
        let patience = self.shared.limits.handshake_timeout;
        // What a handshake needs is much, and is given back when it is done: the task stays small.
        let certificates = self.shared.certificates.as_ref();
        let accepted =
            Box::pin(accept_over(stream, certificates, patience, |handshake| self.admit(handshake))).await;
        let Some(Accepted { connection, token: (seat, handshake) }) = accepted else {
            debug!(peer = %address, "no websocket handshake");
            return;
        };
        Box::new(Peer::new(seat, connection, handshake, address)).run().await;
    }

    async fn admit(&self, handshake: Handshake) -> Verdict<(Seat, Handshake)> {
        let path = self.shared.path(handshake.path()).ok_or(Refusal::NotFound)?;
        if self.is_over {
            return Err(Refusal::Full);
        }
        path.admit(handshake).await
    }
}

/// Warns of metadata that no handshake here can have.
fn warn_of_absent_metadata(member: &Member, path: &Path, certificates: Option<&ServerCertificates>) {
    // It has the metadata of its source, which was warned of.
    if matches!(member.end, End::Reply) {
        return;
    }
    let auth = path.endpoint.listen().and_then(|listen| listen.auth.as_ref());
    let has_users = auth.is_some_and(|auth| !auth.basic.is_empty());
    let has_certificates = certificates.is_some_and(|certificates| certificates.tls().clients.is_some());
    for (key, from) in &*member.metadata {
        let endpoint = member.metrics.owner();
        match from {
            FromHandshake::User if !has_users => {
                warn!(endpoint, key, "metadata from `auth:user` will be absent: `auth` has no `basic`");
            }
            FromHandshake::CommonName | FromHandshake::AlternativeNames | FromHandshake::Fingerprint
                if !has_certificates =>
            {
                warn!(endpoint, key, "metadata from `tls:` will be absent: `tls` has no `client_ca`");
            }
            _ => {}
        }
    }
}

/// A key on which an endpoint does not agree with those of its path, and one of them.
fn disagreement(
    paths: &[Arc<Path>],
    endpoint: &Endpoint,
    pattern: &PathPattern,
) -> Option<(&'static str, String)> {
    let path = paths.iter().find(|path| path.pattern.is_same_but_for_names(pattern))?;
    let key = if path.pattern == *pattern { endpoint.differs_from(&path.endpoint)? } else { "path" };
    Some((key, path.owner()?))
}

/// What listeners are told apart by.
fn address(listen: &Listen) -> Address {
    let (host, port) = listen.address();
    (host.to_owned(), port)
}

/// An address as it may be shown.
fn shown(host: &Redacted, port: u16) -> String {
    let host = host.shown();
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl ListenError {
    fn new(listen: &Listen, cause: Cause) -> Self {
        Self { address: shown(&listen.host, listen.port), cause }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to listen on {}: ", self.address)?;
        match &self.cause {
            Cause::Path(message) | Cause::Certificate(message) => f.write_str(message),
            Cause::Differs { key, owner, share } => {
                write!(f, "`{key}` differs from {owner}, which has the same {share}")
            }
            Cause::Ours { owner, at } => write!(f, "address in use by {owner}, at {at}"),
            Cause::Address(error) if error.kind() == io::ErrorKind::AddrInUse => {
                f.write_str("address in use")
            }
            Cause::Address(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Path(_) | Cause::Certificate(_) | Cause::Differs { .. } | Cause::Ours { .. } => None,
            Cause::Address(error) => Some(error),
        }
    }
}
