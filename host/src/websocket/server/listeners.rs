//! The listeners that server endpoints share: one for each address, open from its first endpoint to
//! its last.

use super::broadcast::Broadcast;
use super::listen_error::{Cause, ListenError, shown};
use super::listener::{Listener, ListenerLimits};
use super::listener_registry::{
    AddressClaim, AddressKey, AddressState, ListenerRegistry, OpenListener, PendingAgreements,
    PendingReconfiguration,
};
use super::registration::Registration;
use super::route::Route;
use super::route_member::{MemberRole, ReceivedChunk, RouteMember};
use super::uptake::Uptake;
use crate::config::{
    Disagreement, Endpoint, FromHandshake, Listen, PathPattern, Pipeline, Reconfigured, Server,
};
use crate::connections::OpenEndpoint;
use crate::telemetry::HandshakeMetrics;
use crate::websocket::tls::ServerCertificates;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::warn;

/// Chunks of messages that may wait for a pipeline.
const CHUNKS: usize = 8;

/// All listeners of a host, and the limits of each. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    registry: Arc<ListenerRegistry>,
    limits: ListenerLimits,
    handshakes: HandshakeMetrics,
    /// Addresses of this process that are no WebSocket listener's, and whose they are.
    others: Vec<(SocketAddr, &'static str)>,
}

/// The server endpoints of a pipeline are expected, until this is dropped.
#[derive(Debug)]
pub struct Expecting {
    listeners: Listeners,
    pipeline: Option<String>,
}

impl Expecting {
    /// They are expected until somebody says that they are there, or will not come.
    pub fn keep(mut self) {
        self.pipeline = None;
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        if let Some(pipeline) = &self.pipeline {
            self.listeners.expect_no_more(pipeline);
        }
    }
}

impl Listeners {
    /// Listeners with these limits each; none is open yet.
    pub fn new(server: &Server) -> Self {
        Self { limits: ListenerLimits::of(server), ..Self::default() }
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
    pub fn configure(&self, pipeline: &Pipeline) -> Result<PendingAgreements, (String, ListenError)> {
        match self.registry.table().agreements.configure(pipeline) {
            Ok(before) => Ok(PendingAgreements {
                registry: self.registry.clone(),
                pipeline: pipeline.name.clone(),
                before: Some(before),
            }),
            Err(disagreement) => Err(differs(pipeline, disagreement)),
        }
    }

    /// The same for several pipelines at once, while others are configured no more.
    ///
    /// # Errors
    /// An endpoint says otherwise than one of another pipeline that is configured: its pipeline, its name, and the
    /// error.
    pub fn reconfigure(
        &self,
        gone: &[&str],
        pipelines: &[&Pipeline],
    ) -> Result<PendingReconfiguration, Box<(String, String, ListenError)>> {
        match self.registry.table().agreements.reconfigure(gone, pipelines) {
            Ok(Reconfigured { before, clashing }) => {
                Ok(PendingReconfiguration { registry: self.registry.clone(), before: Some(before), clashing })
            }
            Err((name, disagreement)) => {
                let pipeline = pipelines.iter().find(|pipeline| pipeline.name == name);
                let (end, error) = differs(pipeline.expect("it is one of them"), disagreement);
                Err(Box::new((name, end, error)))
            }
        }
    }

    /// Keeps the peers of a path until what is given back is dropped, though no endpoint that they came for is there
    /// meanwhile. `None` where the path is not open, or is open otherwise than this endpoint says.
    pub fn hold(&self, endpoint: &Endpoint, listen: &Listen, metrics: &OpenEndpoint) -> Option<Registration> {
        let pattern = PathPattern::parse(&listen.path).ok()?;
        let table = self.registry.table();
        let listener = table.slots.get(&address(listen))?.open()?.clone();
        let (pipeline, end) = metrics.place();
        let endpoint = table.agreements.agreed(pipeline, end).unwrap_or(endpoint);
        let is_its = |route: &Arc<Route>| route.pattern == pattern && endpoint.lets_in_as(&route.endpoint);
        let is_open = listener.listening.routes().iter().any(is_its);
        let member = RouteMember::reply(endpoint, metrics.clone());
        let opening = Opening { endpoint, listen, pattern, member };
        is_open.then(|| opening.enter(&self.registry, listener).ok()).flatten()
    }

    /// What is odd about the server endpoints of a pipeline as they are agreed on: addresses where anybody may
    /// connect. Each with what to do about it.
    pub fn open_doors(&self, pipeline: &Pipeline) -> Vec<(String, &'static str)> {
        self.registry.table().agreements.open_doors(&pipeline.name)
    }

    /// A pipeline is configured no more.
    pub fn forget(&self, pipeline: &str) {
        self.registry.table().agreements.forget(pipeline);
    }

    /// The server endpoints of a pipeline are to be opened: until [`Self::expect_no_more`], what peers send to
    /// its source waits for it, unless another source reads it.
    pub fn expect(&self, pipeline: &Pipeline) {
        self.registry.expected.add(pipeline);
        self.look_again();
    }

    /// The same for as long as what is given back is there, or from then on once it is told to be kept.
    pub fn expecting(&self, pipeline: &Pipeline) -> Expecting {
        self.expect(pipeline);
        Expecting { listeners: self.clone(), pipeline: Some(pipeline.name.clone()) }
    }

    /// The server endpoints of these pipelines are opened together, and those of no others: what peers send to a
    /// path is read once the sources of all of them are there.
    pub fn open_together(&self, pipelines: &[&str]) {
        self.registry.expected.open_together(pipelines);
        self.look_again();
    }

    /// The server endpoints of a pipeline are open, or will not be.
    pub fn expect_no_more(&self, pipeline: &str) {
        self.registry.expected.remove(pipeline);
        self.look_again();
    }

    /// Has the peers of all routes look at what has changed for them.
    fn look_again(&self) {
        let table = self.registry.table();
        let open = table.slots.values().filter_map(AddressState::open);
        open.for_each(|listener| listener.listening.routes().iter().for_each(|route| route.look_again()));
    }

    /// Opens a server endpoint that messages come from; with `is_answered` each connection takes
    /// replies. Beside what arrives it answers with what the source is to tell of how it takes that.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open_source(
        &self,
        endpoint: &Endpoint,
        listen: &Listen,
        is_answered: bool,
        metrics: OpenEndpoint,
    ) -> Result<(Registration, mpsc::Receiver<ReceivedChunk>, Arc<Uptake>), ListenError> {
        let (inlet, arrivals) = mpsc::channel(CHUNKS);
        let uptake = Arc::<Uptake>::default();
        let end = MemberRole::Source { inlet, uptake: uptake.clone(), is_answered };
        let member = RouteMember::new(endpoint, end, metrics);
        Ok((self.open(endpoint, listen, member).await?, arrivals, uptake))
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
    ) -> Result<Registration, ListenError> {
        self.open(endpoint, listen, RouteMember::reply(endpoint, metrics)).await
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
    ) -> Result<Registration, ListenError> {
        self.open(endpoint, listen, RouteMember::new(endpoint, MemberRole::Sink(broadcast), metrics)).await
    }

    /// Whether an endpoint could be opened at this address: it is free, or ours already.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn check(&self, listen: &Listen) -> Result<(), ListenError> {
        if self.registry.table().slots.contains_key(&address(listen)) {
            return Ok(());
        }
        let bound = TcpListener::bind(listen.address()).await;
        bound.map(drop).map_err(|error| ListenError::new(listen, Cause::Address(error)))
    }

    /// Resolves once no listener is open, and the peers of all are gone.
    pub async fn closed(&self) {
        loop {
            let settled = self.registry.settled.notified();
            if self.registry.table().running == 0 {
                return;
            }
            settled.await;
        }
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        listen: &Listen,
        member: RouteMember,
    ) -> Result<Registration, ListenError> {
        let pattern = PathPattern::parse(&listen.path)
            .map_err(|error| ListenError::new(listen, Cause::Path(error.message)))?;
        let agreed = self.registry.agreed(&member);
        let endpoint = agreed.as_ref().unwrap_or(endpoint);
        let entrance = Opening { endpoint, listen: endpoint.listen().unwrap_or(listen), pattern, member };
        let address = address(entrance.listen);
        let busy = loop {
            let settled = self.registry.settled.notified();
            {
                let mut table = self.registry.table();
                match table.slots.get(&address) {
                    Some(AddressState::Open(listener)) => {
                        let listener = listener.clone();
                        return entrance.enter(&self.registry, listener);
                    }
                    Some(AddressState::Busy) => {}
                    None => {
                        table.slots.insert(address.clone(), AddressState::Busy);
                        break AddressClaim { registry: self.registry.clone(), address };
                    }
                }
            }
            settled.await;
        };
        let (listener, tcp) = self.bind(entrance.listen).await?;
        let registration = entrance.enter(&self.registry, listener.clone())?;
        busy.open(&listener, tcp);
        Ok(registration)
    }

    /// Takes the address. Who dials it waits until the first route is open and the listener starts.
    async fn bind(&self, listen: &Listen) -> Result<(Arc<OpenListener>, TcpListener), ListenError> {
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
        let expected = self.registry.expected.at(&self::address(listen));
        let listening = Listener::new(address, expected, self.limits, certificates, self.handshakes.clone());
        let (stop, freed) = Default::default();
        Ok((Arc::new(OpenListener { host, local, listening, stop, freed }), tcp))
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
            let table = self.registry.table();
            let mut open = table.slots.values().filter_map(AddressState::open);
            let listener = open.find(|listener| clashes(listener.local))?;
            let owner = listener.listening.routes().iter().find_map(|route| route.owner())?;
            Some((owner, shown(&listener.host, listener.local.port())))
        })
    }
}

/// An endpoint on its way into a listener.
struct Opening<'e> {
    endpoint: &'e Endpoint,
    listen: &'e Listen,
    pattern: PathPattern,
    member: RouteMember,
}

impl Opening<'_> {
    /// Adds the endpoint to its route. Whoever calls it sees to it that the listener is not closed meanwhile.
    fn enter(
        self,
        registry: &Arc<ListenerRegistry>,
        listener: Arc<OpenListener>,
    ) -> Result<Registration, ListenError> {
        let Self { endpoint, listen, pattern, member } = self;
        let route = {
            let mut routes = listener.listening.routes();
            let certificates = listener.listening.certificates.as_ref();
            if listen.tls.is_some() && listen.tls.as_ref() != certificates.map(ServerCertificates::tls) {
                let owner = routes.first().and_then(|route| route.owner()).unwrap_or_default();
                return Err(ListenError::new(listen, Cause::Differs { key: "tls", owner, share: "address" }));
            }
            if let Some((key, owner)) = disagreement(&routes, endpoint, &pattern) {
                return Err(ListenError::new(listen, Cause::Differs { key, owner, share: "path" }));
            }
            match routes.binary_search_by(|route| route.pattern.cmp(&pattern)) {
                Ok(found) => routes[found].clone(),
                Err(place) => {
                    let scheme = if certificates.is_some() { "wss" } else { "ws" };
                    let base = format!("{scheme}://{}", shown(&listen.host, listener.local.port()));
                    let expected = listener.listening.expected.clone();
                    let route = Route::new(endpoint, &listen.path, pattern, base, expected);
                    routes.insert(place, route.clone());
                    route
                }
            }
        };
        warn_of_absent_metadata(&member, &route, listener.listening.certificates.as_ref());
        let member = route.join(member);
        Ok(Registration {
            registry: registry.clone(),
            address: address(listen),
            listener,
            route,
            member,
            is_last_of_route: false,
            check: endpoint.check_connection,
            patience: None,
            leaving: None,
        })
    }
}

/// Warns of metadata that no handshake here can have.
fn warn_of_absent_metadata(member: &RouteMember, route: &Route, certificates: Option<&ServerCertificates>) {
    // It has the metadata of its source, which was warned of.
    if matches!(member.end, MemberRole::Reply) {
        return;
    }
    let auth = route.endpoint.listen().and_then(|listen| listen.auth.as_ref());
    let has_users = auth.is_some_and(|auth| !auth.basic.is_empty());
    let has_certificates = certificates.is_some_and(|certificates| certificates.tls().clients.is_some());
    for (key, from) in &*member.metadata {
        let (endpoint, pipeline) = (member.metrics.owner(), member.metrics.place().0);
        match from {
            FromHandshake::User if !has_users => {
                warn!(
                    pipeline,
                    endpoint, key, "metadata from `auth:user` will be absent: `auth` has no `basic`"
                );
            }
            FromHandshake::CommonName | FromHandshake::AlternativeNames | FromHandshake::Fingerprint
                if !has_certificates =>
            {
                warn!(
                    pipeline,
                    endpoint, key, "metadata from `tls:` will be absent: `tls` has no `client_ca`"
                );
            }
            _ => {}
        }
    }
}

/// An endpoint of a pipeline that says otherwise than another.
fn differs(pipeline: &Pipeline, disagreement: Disagreement) -> (String, ListenError) {
    let end = disagreement.end.clone();
    let mut endpoints = pipeline.endpoints();
    let listen = endpoints.find_map(|(name, endpoint)| endpoint.listen().filter(|_| name == end));
    let listen = listen.expect("it is one of its own");
    (end, ListenError::differs(listen, disagreement))
}

/// A key on which an endpoint does not agree with those of its route, and one of them.
fn disagreement(
    routes: &[Arc<Route>],
    endpoint: &Endpoint,
    pattern: &PathPattern,
) -> Option<(&'static str, String)> {
    let route = routes.iter().find(|route| route.pattern.is_same_but_for_names(pattern))?;
    let key = if route.pattern == *pattern { endpoint.differs_from(&route.endpoint)? } else { "path" };
    Some((key, route.owner()?))
}

/// What listeners are told apart by.
fn address(listen: &Listen) -> AddressKey {
    let (host, port) = listen.address();
    (host.to_owned(), port)
}
