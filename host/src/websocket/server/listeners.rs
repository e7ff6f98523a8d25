//! The listeners that server endpoints share: one for each address, open from its first endpoint to
//! its last.
//!
//! An address is free, open, or busy: being opened or closed. Whoever comes while it is busy waits. What is
//! decided about an address is decided under one lock, which is never held while anything is waited for, so
//! that an endpoint that is merely dropped leaves as surely as one that is closed.

use super::broadcast::Broadcast;
use super::expected::Expected;
use super::listen_error::{Cause, ListenError, shown};
use super::listener::{Limits, Listening};
use super::route::{Arrivals, End, Member, Path};
use crate::config::{
    Agreements, Before, Endpoint, FromHandshake, Listen, PathPattern, Pipeline, Redacted, Server,
};
use crate::connections::OpenEndpoint;
use crate::telemetry::HandshakeMetrics;
use crate::websocket::close_code::GOING_AWAY;
use crate::websocket::tls::ServerCertificates;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Chunks of messages that may wait for a pipeline.
const CHUNKS: usize = 8;

/// All listeners of a host, and the limits of each. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    addresses: Arc<Addresses>,
    limits: Limits,
    handshakes: HandshakeMetrics,
    /// Addresses of this process that are no WebSocket listener's, and whose they are.
    others: Vec<(SocketAddr, &'static str)>,
}

type Address = (String, u16);

#[derive(Debug, Default)]
struct Addresses {
    table: Mutex<Table>,
    /// The endpoints that are to be opened.
    expected: Expected,
    /// Told when an address is busy no longer, and when a listener is done.
    settled: Notify,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<Address, Slot>,
    /// The task of each listener, open or seeing its peers through.
    tasks: JoinSet<()>,
    running: usize,
    agreements: Agreements,
}

/// An address that is not free.
#[derive(Debug)]
enum Slot {
    /// It is being opened or closed.
    Busy,
    Open(Arc<Listener>),
}

impl Slot {
    fn open(&self) -> Option<&Arc<Listener>> {
        match self {
            Self::Open(listener) => Some(listener),
            Self::Busy => None,
        }
    }
}

#[derive(Debug)]
struct Listener {
    host: Redacted,
    local: SocketAddr,
    listening: Arc<Listening>,
    stop: CancellationToken,
    /// It does not listen, and its peers are gone.
    closed: CancellationToken,
}

/// An endpoint's part in a listener: leave it with [`Attachment::poll_close`].
pub struct Attachment {
    addresses: Arc<Addresses>,
    address: Address,
    listener: Arc<Listener>,
    path: Arc<Path>,
    member: u64,
    /// Whether it has left, and was the last of its path.
    is_last_of_path: bool,
    /// How long a first peer is waited for, if it is.
    check: Option<Duration>,
    patience: Option<Pin<Box<Sleep>>>,
    leaving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Listeners {
    /// Listeners with these limits each; none is open yet.
    pub fn new(server: &Server) -> Self {
        Self { limits: Limits::of(server), ..Self::default() }
    }

    /// The same, counting the handshakes that are refused.
    pub fn counted_by(mut self, handshakes: HandshakeMetrics) -> Self {
        self.handshakes = handshakes;
        self
    }

    /// The same, knowing that somebody else of this process listens at an address.
    pub fn beside(mut self, address: SocketAddr, owner: &'static str) -> Self {
        self.others.push((address, owner));
        self
    }

    /// Notes what the server endpoints of a pipeline agree on with those of others, in the place of what was
    /// noted of it: whatever is opened of it later is opened as agreed, whoever is open then.
    ///
    /// # Errors
    /// One of them says otherwise than an endpoint of another pipeline that is configured; its name, and the
    /// error.
    pub fn configure(&self, pipeline: &Pipeline) -> Result<Noted, (String, ListenError)> {
        match self.addresses.table().agreements.configure(pipeline) {
            Ok(before) => Ok(Noted {
                addresses: self.addresses.clone(),
                pipeline: pipeline.name.clone(),
                before: Some(before),
            }),
            Err(disagreement) => {
                let end = disagreement.end.clone();
                let mut endpoints = pipeline.endpoints();
                let listen = endpoints.find_map(|(name, endpoint)| endpoint.listen().filter(|_| name == end));
                let listen = listen.expect("it is one of its own");
                Err((end, ListenError::differs(listen, disagreement)))
            }
        }
    }

    /// What is odd about the server endpoints of a pipeline as they are agreed on: addresses where anybody may
    /// connect. Each with what to do about it.
    pub fn open_doors(&self, pipeline: &Pipeline) -> Vec<(String, &'static str)> {
        self.addresses.table().agreements.open_doors(&pipeline.name)
    }

    /// A pipeline is configured no more.
    pub fn forget(&self, pipeline: &str) {
        self.addresses.table().agreements.forget(pipeline);
    }

    /// The server endpoints of a pipeline are to be opened: until [`Self::expect_no_more`], what peers send to
    /// its source waits for it, unless another source reads it.
    pub fn expect(&self, pipeline: &Pipeline) {
        self.addresses.expected.add(pipeline);
        self.look_again();
    }

    /// The server endpoints of a pipeline are open, or will not be.
    pub fn expect_no_more(&self, pipeline: &str) {
        self.addresses.expected.remove(pipeline);
        self.look_again();
    }

    /// Has the peers of all paths look at what has changed for them.
    fn look_again(&self) {
        let table = self.addresses.table();
        let open = table.slots.values().filter_map(Slot::open);
        open.for_each(|listener| listener.listening.paths().iter().for_each(|path| path.look_again()));
    }

    /// Opens a server endpoint that messages come from; with `is_answered` each connection has a
    /// [`super::Lane`] for replies. Beside what arrives it answers with the count of what peers have read
    /// that was not taken from there.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open_source(
        &self,
        endpoint: &Endpoint,
        listen: &Listen,
        is_answered: bool,
        metrics: OpenEndpoint,
    ) -> Result<(Attachment, mpsc::Receiver<Arrivals>, Arc<AtomicU64>), ListenError> {
        let (inlet, arrivals) = mpsc::channel(CHUNKS);
        let waiting = Arc::<AtomicU64>::default();
        let end = End::Source { inlet, waiting: waiting.clone(), is_answered };
        let member = Member::new(endpoint, end, metrics);
        Ok((self.open(endpoint, listen, member).await?, arrivals, waiting))
    }

    /// Opens what answers on the connections of a source that is there already.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open_reply(
        &self,
        endpoint: &Endpoint,
        listen: &Listen,
        metrics: OpenEndpoint,
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
        metrics: OpenEndpoint,
    ) -> Result<Attachment, ListenError> {
        self.open(endpoint, listen, Member::new(endpoint, End::Sink(broadcast), metrics)).await
    }

    /// Whether an endpoint could be opened at this address: it is free, or ours already.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn check(&self, listen: &Listen) -> Result<(), ListenError> {
        if self.addresses.table().slots.contains_key(&address(listen)) {
            return Ok(());
        }
        let bound = TcpListener::bind(listen.address()).await;
        bound.map(drop).map_err(|error| ListenError::new(listen, Cause::Address(error)))
    }

    /// Resolves once no listener is open, and the peers of all are gone.
    pub async fn closed(&self) {
        loop {
            let settled = self.addresses.settled.notified();
            if self.addresses.table().running == 0 {
                return;
            }
            settled.await;
        }
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        listen: &Listen,
        member: Member,
    ) -> Result<Attachment, ListenError> {
        let pattern = PathPattern::parse(&listen.path)
            .map_err(|error| ListenError::new(listen, Cause::Path(error.message)))?;
        let agreed = self.addresses.agreed(&member);
        let endpoint = agreed.as_ref().unwrap_or(endpoint);
        let entrance = Entrance { endpoint, listen: endpoint.listen().unwrap_or(listen), pattern, member };
        let address = address(entrance.listen);
        let busy = loop {
            let settled = self.addresses.settled.notified();
            {
                let mut table = self.addresses.table();
                match table.slots.get(&address) {
                    Some(Slot::Open(listener)) => {
                        let listener = listener.clone();
                        return entrance.enter(&self.addresses, listener);
                    }
                    Some(Slot::Busy) => {}
                    None => {
                        table.slots.insert(address.clone(), Slot::Busy);
                        break Busy { addresses: self.addresses.clone(), address };
                    }
                }
            }
            settled.await;
        };
        let (listener, tcp) = self.bind(entrance.listen).await?;
        let attachment = entrance.enter(&self.addresses, listener.clone())?;
        busy.open(&listener, tcp);
        Ok(attachment)
    }

    /// Takes the address. Who dials it waits until the first path is open and the listener starts.
    async fn bind(&self, listen: &Listen) -> Result<(Arc<Listener>, TcpListener), ListenError> {
        let certificates = match &listen.tls {
            Some(tls) => {
                let loaded = Box::pin(ServerCertificates::load(tls)).await;
                Some(loaded.map_err(|error| ListenError::new(listen, Cause::Certificate(error)))?)
            }
            None => None,
        };
        let bound = TcpListener::bind(listen.address()).await;
        let bound = bound.and_then(|tcp| Ok((tcp.local_addr()?, tcp)));
        let (local, tcp) = bound.map_err(|error| {
            let cause = match self.owner(listen) {
                Some((owner, at)) if error.kind() == io::ErrorKind::AddrInUse => Cause::Ours { owner, at },
                _ => Cause::Address(error),
            };
            ListenError::new(listen, cause)
        })?;
        let host = listen.host.clone();
        let address = if host.is_open() { local.to_string() } else { shown(&host, local.port()) };
        let expected = self.addresses.expected.at(&self::address(listen));
        let listening = Listening::new(address, expected, self.limits, certificates, self.handshakes.clone());
        let (stop, closed) = Default::default();
        Ok((Arc::new(Listener { host, local, listening, stop, closed }), tcp))
    }

    /// Whoever of this process listens where an endpoint would, and how it says where that is.
    fn owner(&self, listen: &Listen) -> Option<(String, String)> {
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
            let table = self.addresses.table();
            let mut open = table.slots.values().filter_map(Slot::open);
            let listener = open.find(|listener| clashes(listener.local))?;
            let owner = listener.listening.paths().iter().find_map(|path| path.owner())?;
            Some((owner, shown(&listener.host, listener.local.port())))
        })
    }
}

/// What was noted of a pipeline that is about to be opened. It is taken back where that does not come to be:
/// when this is dropped without [`Noted::keep`].
#[derive(Debug)]
pub struct Noted {
    addresses: Arc<Addresses>,
    pipeline: String,
    /// What was noted before.
    before: Option<Before>,
}

impl Noted {
    /// The pipeline is open.
    pub fn keep(mut self) {
        self.before = None;
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.addresses.table().agreements.restore(&self.pipeline, before);
        }
    }
}

/// An endpoint on its way into a listener.
struct Entrance<'e> {
    endpoint: &'e Endpoint,
    listen: &'e Listen,
    pattern: PathPattern,
    member: Member,
}

impl Entrance<'_> {
    /// Adds the endpoint to its path. Whoever calls it sees to it that the listener is not closed meanwhile.
    fn enter(self, addresses: &Arc<Addresses>, listener: Arc<Listener>) -> Result<Attachment, ListenError> {
        let Self { endpoint, listen, pattern, member } = self;
        let path = {
            let mut paths = listener.listening.paths();
            let certificates = listener.listening.certificates.as_ref();
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
                    let expected = listener.listening.expected.clone();
                    let path = Path::new(endpoint, &listen.path, pattern, base, expected);
                    paths.insert(place, path.clone());
                    path
                }
            }
        };
        warn_of_absent_metadata(&member, &path, listener.listening.certificates.as_ref());
        let member = path.join(member);
        Ok(Attachment {
            addresses: addresses.clone(),
            address: address(listen),
            listener,
            path,
            member,
            is_last_of_path: false,
            check: endpoint.check_connection,
            patience: None,
            leaving: None,
        })
    }
}

impl Addresses {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint as it was agreed on, if that is known. A reply has what its source has.
    fn agreed(&self, member: &Member) -> Option<Endpoint> {
        if matches!(member.end, End::Reply) {
            return None;
        }
        let (pipeline, end) = member.metrics.place();
        self.table().agreements.agreed(pipeline, end).cloned()
    }

    /// An endpoint leaves: its path if it was the last there, and the address if that was the last path.
    /// Answers whether it was, in this order.
    fn leave(
        &self,
        address: &Address,
        listener: &Listener,
        path: &Arc<Path>,
        member: u64,
        code: u16,
    ) -> (bool, bool) {
        let mut table = self.table();
        let is_last_of_path = path.leave(member, code);
        if is_last_of_path {
            listener.listening.forget(path);
        }
        let is_last = listener.listening.paths().is_empty() && !listener.stop.is_cancelled();
        if is_last {
            table.slots.insert(address.clone(), Slot::Busy);
            listener.stop.cancel();
        }
        (is_last_of_path, is_last)
    }
}

/// An address that nobody else may open; it is free again when this is dropped.
struct Busy {
    addresses: Arc<Addresses>,
    address: Address,
}

impl Busy {
    /// Starts the listener. The address is busy again once it stops, and free once it does not listen.
    fn open(self, listener: &Arc<Listener>, tcp: TcpListener) {
        let address = &listener.listening.address;
        info!(%address, "websocket listening");
        let addresses = self.addresses.clone();
        let running = Running { addresses: addresses.clone(), closed: listener.closed.clone() };
        let (slot, stop) = (self.address.clone(), listener.stop.clone());
        let run = listener.listening.clone().run(tcp, stop, self);
        let mut table = addresses.table();
        table.running += 1;
        // What has ended is not kept.
        while table.tasks.try_join_next().is_some() {}
        table.slots.insert(slot, Slot::Open(listener.clone()));
        table.tasks.spawn(async move {
            let _running = running;
            run.await;
        });
        drop(table);
        addresses.settled.notify_waiters();
    }
}

/// A listener's task: it is done when this is dropped.
struct Running {
    addresses: Arc<Addresses>,
    closed: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.addresses.table().running -= 1;
        self.closed.cancel();
        self.addresses.settled.notify_waiters();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.addresses.table().slots.remove(&self.address);
        self.addresses.settled.notify_waiters();
    }
}

impl Attachment {
    /// Where the listener really listens, for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.listener.local
    }

    /// The largest message that peers may send, as the endpoints of the path have agreed.
    pub fn max_message_size_bytes(&self) -> usize {
        self.path.endpoint.max_message_size_bytes
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

    /// Has all peers look at what has changed for them.
    pub fn wake_peers(&self) {
        self.path.wake();
    }

    /// Leaves. Peers that nobody else wants are closed with `code`, each once it has what it is owed, and
    /// waited for; so is the listener, if this was its last endpoint.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        if self.leaving.is_none() {
            let is_last = self.leave(code);
            let is_last_of_path = self.is_last_of_path;
            let (path, listener) = (self.path.clone(), self.listener.clone());
            self.leaving = Some(Box::pin(async move {
                if is_last_of_path {
                    path.deserted().await;
                }
                if is_last {
                    listener.closed.cancelled().await;
                }
            }));
        }
        let Some(leaving) = &mut self.leaving else { return Poll::Ready(()) };
        ready!(leaving.as_mut().poll(cx));
        self.leaving = Some(Box::pin(std::future::ready(())));
        Poll::Ready(())
    }

    /// Leaves; says whether the listener stops now.
    fn leave(&mut self, code: u16) -> bool {
        let Self { addresses, address, listener, path, member, .. } = self;
        let (is_last_of_path, is_last) = addresses.leave(address, listener, path, *member, code);
        self.is_last_of_path = is_last_of_path;
        is_last
    }
}

impl Drop for Attachment {
    /// One that was not closed in time still leaves, only nobody waits: peers are cut off from what they are
    /// still owed.
    fn drop(&mut self) {
        if self.leaving.is_none() {
            self.leave(GOING_AWAY);
        }
        if self.is_last_of_path {
            self.path.abandon();
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("address", &self.address).field("member", &self.member).finish()
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
