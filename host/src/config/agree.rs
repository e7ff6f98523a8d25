//! What the server endpoints of a file have to do with each other: those of one address share a
//! listener, and those of one path its peers.

use super::path::PathPattern;
use super::report::Report;
use super::section::{Section, Span};
use super::{
    Config, Endpoint, Environment, Listen, Mode, Pipeline, Proxies, Server, SinkKind, Source, is_loopback,
};
use std::collections::{BTreeMap, BTreeSet};

/// The keys that the endpoints of one path have in common: one that leaves a key out takes it from
/// another.
const SHARED: [&str; 6] =
    ["subprotocols", "ping", "idle_timeout", "max_message_size", "auth", "allowed_origins"];

/// A server endpoint of the file.
pub(super) struct Served {
    endpoint: Endpoint,
    /// What its path says; `None` if that is wrong, or it is one that dials.
    pattern: Option<PathPattern>,
    /// Where its path is written, or its table.
    path: Span,
    /// Where its address is written, as far as it is.
    address: Span,
    /// Where its TLS is written, if it is.
    tls: Option<Span>,
    /// Where each of [`SHARED`] is written, if it is.
    written: [Option<Span>; SHARED.len()],
}

impl Served {
    /// `None` if it is one that dials.
    pub(super) fn new(section: &Section, endpoint: &Endpoint) -> Option<Self> {
        let listen = endpoint.listen()?;
        let address = ["port", "host"].into_iter().find(|key| section.is_written(key)).unwrap_or("path");
        Some(Self {
            endpoint: endpoint.clone(),
            pattern: PathPattern::parse(&listen.path).ok(),
            path: section.span("path"),
            address: section.span(address),
            tls: section.is_written("tls").then(|| section.span("tls")),
            written: SHARED.map(|key| section.is_written(key).then(|| section.span(key))),
        })
    }

    fn listen(&self) -> Option<&Listen> {
        self.endpoint.listen()
    }
}

/// An address, as endpoints are grouped by it.
type Address = (String, u16);

fn address(served: &Served) -> Option<Address> {
    served.listen().map(|listen| (listen.host.expose().to_owned(), listen.port))
}

/// Where endpoints share an address or a path, reports what they disagree on, and gives each what it
/// left out and another has.
pub(super) fn agree(report: &mut Report<'_>, server: &Server, served: &mut [Served]) {
    agree_on_tls(report, server, served);
    warn_of_two_names(report, served);
    let mut groups: BTreeMap<(Address, PathPattern), Vec<usize>> = BTreeMap::new();
    for (index, here) in served.iter().enumerate() {
        if let Some(path) = address(here).zip(here.pattern.clone()) {
            groups.entry(path).or_default().push(index);
        }
    }
    for group in groups.into_values().filter(|group| group.len() > 1) {
        for (key, name) in SHARED.into_iter().enumerate() {
            let mut writers = group.iter().filter(|index| served[**index].written[key].is_some());
            let Some(first) = writers.next() else { continue };
            let there = served[*first].endpoint.clone();
            for here in writers.map(|index| &served[*index]) {
                let (Some(at), Some(first)) = (&here.written[key], &served[*first].written[key]) else {
                    continue;
                };
                if !is_same(name, &there, &here.endpoint) {
                    let first = report.name(first);
                    let message = format!("`{name}` differs from {first}, which has the same path");
                    report.error_with_hint(at, message, "leave it out of one of the two");
                }
            }
            for index in &group {
                if served[*index].written[key].is_none() {
                    take(name, &there, &mut served[*index].endpoint);
                }
            }
        }
    }
}

/// Reports paths of one address that differ in the names of their segments alone.
fn warn_of_two_names(report: &mut Report<'_>, served: &[Served]) {
    // The first endpoint of an address and form, and the first that names a segment otherwise.
    let mut firsts: BTreeMap<(Address, PathPattern), (usize, Option<usize>)> = BTreeMap::new();
    for (index, here) in served.iter().enumerate() {
        let Some((address, pattern)) = address(here).zip(here.pattern.as_ref()) else { continue };
        let (first, other) = firsts.entry((address, pattern.without_names())).or_insert((index, None));
        let is_otherwise = served[*first].pattern.as_ref() != Some(pattern);
        let there = if is_otherwise { Some(*first) } else { *other };
        if is_otherwise && other.is_none() {
            *other = Some(index);
        }
        if let Some(there) = there {
            let other = report.name(&served[there].path);
            let message = format!("the same paths lead to {other}, which gives a segment another name");
            report.error_with_hint(&here.path, message, "write both paths alike");
        }
    }
}

impl Endpoint {
    /// A key on which two endpoints of one path do not agree. What has its default counts as left out,
    /// and what is left out is taken from whoever is there.
    pub fn differs_from(&self, there: &Self) -> Option<&'static str> {
        let listen = self.listen()?;
        let server = Server { host: listen.host.clone(), port: listen.port, ..Server::default() };
        let defaults = Self::server("/", &server);
        SHARED.into_iter().find(|key| !is_same(key, self, there) && !is_same(key, self, &defaults))
    }
}

fn is_same(key: &str, a: &Endpoint, b: &Endpoint) -> bool {
    let (here, there) = (a.listen(), b.listen());
    match key {
        "subprotocols" => a.subprotocols == b.subprotocols,
        "ping" => a.ping == b.ping,
        "idle_timeout" => a.idle_timeout == b.idle_timeout,
        "max_message_size" => a.max_message_size_bytes == b.max_message_size_bytes,
        "auth" => here.map(|listen| &listen.auth) == there.map(|listen| &listen.auth),
        _ => here.map(|listen| &listen.allowed_origins) == there.map(|listen| &listen.allowed_origins),
    }
}

fn take(key: &str, from: &Endpoint, to: &mut Endpoint) {
    match key {
        "subprotocols" => to.subprotocols.clone_from(&from.subprotocols),
        "ping" => to.ping = from.ping,
        "idle_timeout" => to.idle_timeout = from.idle_timeout,
        "max_message_size" => to.max_message_size_bytes = from.max_message_size_bytes,
        _ => {
            let (Mode::Server(from), Mode::Server(to)) = (&from.mode, &mut to.mode) else { return };
            match key {
                "auth" => to.auth.clone_from(&from.auth),
                _ => to.allowed_origins.clone_from(&from.allowed_origins),
            }
        }
    }
}

fn agree_on_tls(report: &mut Report<'_>, server: &Server, served: &mut [Served]) {
    let mut firsts: BTreeMap<Address, usize> = BTreeMap::new();
    for (index, here) in served.iter().enumerate() {
        if let (Some(address), Some(_)) = (address(here), &here.tls) {
            firsts.entry(address).or_insert(index);
        }
    }
    for index in 0..served.len() {
        let here = &served[index];
        let Some(address) = address(here) else { continue };
        let there = firsts.get(&address).map(|first| &served[*first]);
        let tls = match (&here.tls, there) {
            (Some(at), Some(there)) => {
                if there.listen().map(|listen| &listen.tls) != here.listen().map(|listen| &listen.tls) {
                    let first = report.name(there.tls.as_ref().unwrap_or(&there.path));
                    let message = format!("`tls` differs from {first}, which has the same address");
                    report.error_with_hint(at, message, "leave it out of one of the two");
                }
                continue;
            }
            (_, Some(there)) => there.listen().and_then(|listen| listen.tls.clone()),
            _ => server
                .tls
                .clone()
                .filter(|_| (address.0.as_str(), address.1) == (server.host.expose(), server.port)),
        };
        if let Mode::Server(listen) = &mut served[index].endpoint.mode {
            listen.tls = tls;
        }
    }
}

/// Gives the server endpoints of a configuration what they agreed on; `served` has them in the order
/// of the configuration.
pub(super) fn settle(pipelines: &mut [Pipeline], served: Vec<Served>) {
    let endpoints = pipelines.iter_mut().flat_map(endpoints);
    let ours = endpoints.filter(|endpoint| matches!(endpoint.mode, Mode::Server(_)));
    for (endpoint, served) in ours.zip(served) {
        *endpoint = served.endpoint;
    }
}

impl Config {
    /// The addresses that its server endpoints are reached at, each once.
    pub fn listeners(&self) -> BTreeSet<(&str, u16)> {
        let sources = self.pipelines.iter().filter_map(|pipeline| match &pipeline.source {
            Source::WebSocket(source) => Some(&source.endpoint),
            _ => None,
        });
        let sinks =
            self.pipelines.iter().flat_map(|pipeline| pipeline.sinks.iter().chain(&pipeline.dead_letter));
        let sinks = sinks.filter_map(|sink| match &sink.kind {
            SinkKind::WebSocket(sink) => Some(&sink.endpoint),
            _ => None,
        });
        let listens = sources.chain(sinks).filter_map(Endpoint::listen);
        listens.map(Listen::address).collect()
    }
}

impl Listen {
    /// The host and the port, as they are.
    pub fn address(&self) -> (&str, u16) {
        (self.host.expose(), self.port)
    }
}

/// Gives endpoints that dial the proxies of the environment.
pub(super) fn set_proxies<'e>(
    endpoints: impl IntoIterator<Item = &'e mut Endpoint>,
    environment: &Environment,
) {
    for endpoint in endpoints {
        if let Mode::Client(client) = &mut endpoint.mode {
            client.proxies = Proxies::of(environment);
        }
    }
}

/// The WebSocket endpoints of a pipeline: its source's, its sinks', its dead letters'.
pub(super) fn endpoints(pipeline: &mut Pipeline) -> Vec<&mut Endpoint> {
    let source = match &mut pipeline.source {
        Source::WebSocket(source) => Some(&mut source.endpoint),
        _ => None,
    };
    let sinks = pipeline.sinks.iter_mut().chain(&mut pipeline.dead_letter);
    let sinks = sinks.filter_map(|sink| match &mut sink.kind {
        SinkKind::WebSocket(sink) => Some(&mut sink.endpoint),
        _ => None,
    });
    source.into_iter().chain(sinks).collect()
}

/// Warns of listeners that any machine may reach.
pub(super) fn warn_of_open_doors(report: &mut Report<'_>, served: &[Served]) {
    let mut seen = BTreeSet::new();
    for served in served {
        let Some(listen) = served.listen() else { continue };
        let asks_for_certificates = listen
            .tls
            .as_ref()
            .is_some_and(|tls| tls.clients.as_ref().is_some_and(|clients| clients.are_required));
        if is_loopback(listen.host.expose())
            || listen.auth.is_some()
            || asks_for_certificates
            || !seen.insert(listen.address())
        {
            continue;
        }
        report.warning(
            &served.address,
            format!("anyone who reaches {} port {} may connect", listen.host, listen.port),
            "`auth` asks for a token or a password, and host = \"127.0.0.1\" lets only this machine in",
        );
    }
}
