//! What the server endpoints of a file have to do with each other: those of one address share a
//! listener, and those of one path its peers.

use super::agreements;
use super::endpoint::{EndpointAt, mode};
use super::listen::ListenAt;
use super::path::PathPattern;
use super::pipeline::{DeadLetterKindAt, PipelineAt, SinkKindAt, dead_letter_kind, sink_kind, source};
use super::report::{Report, Span};
use super::shared_keys::{AgreedKey, SHARED};
use super::{Endpoint, Listen, Mode, Pipeline, Server, SinkKind, SourceConfig, is_loopback};
use std::collections::{BTreeMap, BTreeSet};

/// A server endpoint, with where its keys are written.
pub(super) struct Served<'c> {
    endpoint: &'c mut Endpoint,
    /// What its path says; `None` if that is wrong.
    pattern: Option<PathPattern>,
    at: &'c EndpointAt,
    listen_at: &'c ListenAt,
}

impl<'c> Served<'c> {
    /// `None` if it is one that dials.
    fn new(endpoint: &'c mut Endpoint, at: &'c EndpointAt) -> Option<Self> {
        let Some(mode::At::Server(listen_at)) = &at.mode.case else { return None };
        let pattern = PathPattern::parse(&endpoint.listen()?.path).ok();
        Some(Self { endpoint, pattern, at, listen_at })
    }

    fn listen(&self) -> Option<&Listen> {
        self.endpoint.listen()
    }

    fn written(&self, key: &AgreedKey) -> Option<Span> {
        (key.at)(self.at, self.listen_at)
    }

    /// Where its path is written, or its table.
    fn path_at(&self) -> &Span {
        self.listen_at.path.as_ref().unwrap_or(&self.at.header)
    }

    /// Where its address is written, as far as it is.
    fn address_at(&self) -> &Span {
        self.listen_at.port.as_ref().or(self.listen_at.host.as_ref()).unwrap_or(self.path_at())
    }

    /// Where its TLS is written, if it is.
    fn tls_at(&self) -> Option<&Span> {
        self.listen_at.tls.as_ref().map(|at| &at.header)
    }

    fn address(&self) -> Option<HostAndPort> {
        self.listen().map(|listen| (listen.host.expose().to_owned(), listen.port))
    }
}

/// An address, as endpoints are grouped by it.
type HostAndPort = (String, u16);

/// The server endpoints of a pipeline.
pub(super) fn served<'c>(pipeline: &'c mut Pipeline, at: &'c PipelineAt) -> Vec<Served<'c>> {
    let mut served = Vec::new();
    if let (SourceConfig::WebSocket(websocket), Some(source::At::WebSocket(at))) =
        (&mut pipeline.source, at.source.as_ref().and_then(|at| at.case.as_ref()))
    {
        served.extend(Served::new(&mut websocket.endpoint, &at.endpoint));
    }
    let of_sink = |kind: &'c SinkKindAt| match &kind.case {
        Some(sink_kind::At::WebSocket(at)) => Some(&at.endpoint),
        _ => None,
    };
    let of_dead_letter = |kind: &'c DeadLetterKindAt| match &kind.case {
        Some(dead_letter_kind::At::WebSocket(at)) => Some(&at.endpoint),
        _ => None,
    };
    let sinks = at.sinks.iter().flat_map(|at| &at.each).map(|at| of_sink(&at.kind));
    let sinks = pipeline.sinks.iter_mut().zip(sinks);
    let dead_letter = at.dead_letter.iter().map(|at| of_dead_letter(&at.kind));
    for (sink, at) in sinks.chain(pipeline.dead_letter.iter_mut().zip(dead_letter)) {
        if let (SinkKind::WebSocket(websocket), Some(at)) = (&mut sink.kind, at) {
            served.extend(Served::new(&mut websocket.endpoint, at));
        }
    }
    served
}

/// Where endpoints share an address or a path, reports what they disagree on, and gives each what it
/// left out and another has.
pub(super) fn agree(report: &mut Report<'_>, server: &Server, served: &mut [Served<'_>]) {
    agree_on_tls(report, server, served);
    report_two_names(report, served);
    let mut groups: BTreeMap<(HostAndPort, PathPattern), Vec<usize>> = BTreeMap::new();
    for (index, here) in served.iter().enumerate() {
        if let Some(path) = here.address().zip(here.pattern.clone()) {
            groups.entry(path).or_default().push(index);
        }
    }
    for group in groups.into_values().filter(|group| group.len() > 1) {
        for key in &SHARED {
            let mut writers = group.iter().filter_map(|index| Some((*index, served[*index].written(key)?)));
            let Some((first, first_at)) = writers.next() else { continue };
            let there = served[first].endpoint.clone();
            for (here, at) in writers {
                if !(key.is_same)(&there, &*served[here].endpoint) {
                    let (name, first) = (key.name, report.name(&first_at));
                    let message = format!("`{name}` differs from {first}, which has the same path");
                    report.error_with_hint(&at, message, "leave it out of one of the two");
                }
            }
            for index in &group {
                if served[*index].written(key).is_none() {
                    (key.take)(&there, &mut *served[*index].endpoint);
                }
            }
        }
    }
}

/// Reports paths of one address that differ in the names of their segments alone.
fn report_two_names(report: &mut Report<'_>, served: &[Served<'_>]) {
    // The first endpoint of an address and form, and the first that names a segment otherwise.
    let mut firsts: BTreeMap<(HostAndPort, PathPattern), (usize, Option<usize>)> = BTreeMap::new();
    for (index, here) in served.iter().enumerate() {
        let Some((address, pattern)) = here.address().zip(here.pattern.as_ref()) else { continue };
        let (first, other) = firsts.entry((address, pattern.without_names())).or_insert((index, None));
        let is_otherwise = served[*first].pattern.as_ref() != Some(pattern);
        let there = if is_otherwise { Some(*first) } else { *other };
        if is_otherwise && other.is_none() {
            *other = Some(index);
        }
        if let Some(there) = there {
            let other = report.name(served[there].path_at());
            let message = format!("the same paths lead to {other}, which gives a segment another name");
            report.error_with_hint(here.path_at(), message, "write both paths alike");
        }
    }
}

fn agree_on_tls(report: &mut Report<'_>, server: &Server, served: &mut [Served<'_>]) {
    let mut firsts: BTreeMap<HostAndPort, usize> = BTreeMap::new();
    for (index, here) in served.iter().enumerate() {
        if let (Some(address), Some(_)) = (here.address(), here.tls_at()) {
            firsts.entry(address).or_insert(index);
        }
    }
    for index in 0..served.len() {
        let here = &served[index];
        let Some(address) = here.address() else { continue };
        let there = firsts.get(&address).map(|first| &served[*first]);
        let tls = match (here.tls_at(), there) {
            (Some(at), Some(there)) => {
                if there.listen().map(|listen| &listen.tls) != here.listen().map(|listen| &listen.tls) {
                    let first = report.name(there.tls_at().unwrap_or(there.path_at()));
                    let message = format!("`tls` differs from {first}, which has the same address");
                    report.error_with_hint(at, message, "leave it out of one of the two");
                }
                continue;
            }
            (_, Some(there)) => there.listen().and_then(|listen| listen.tls.clone()),
            _ => {
                let is_its = (address.0.as_str(), address.1) == (server.host.expose(), server.port);
                server.tls.clone().filter(|_| is_its)
            }
        };
        if let Mode::Server(listen) = &mut served[index].endpoint.mode {
            listen.tls = tls;
        }
    }
}

/// Warns of listeners that any machine may reach.
pub(super) fn warn_of_open_doors(report: &mut Report<'_>, served: &[Served<'_>]) {
    let mut seen = BTreeSet::new();
    for served in served {
        let Some(listen) = served.listen() else { continue };
        if listen.is_open_door() && seen.insert(listen.address()) {
            let (warning, hint) = listen.open_door();
            report.warning(served.address_at(), warning, hint);
        }
    }
}

impl Endpoint {
    /// A key on which two endpoints of one path do not agree. What has its default counts as left out,
    /// and what is left out is taken from whoever is there.
    pub fn differs_from(&self, there: &Self) -> Option<&'static str> {
        self.listen()?;
        let defaults = agreements::defaults(self);
        let differs = |key: &&AgreedKey| !(key.is_same)(self, there) && !(key.is_same)(self, &defaults);
        SHARED.iter().find(differs).map(|key| key.name)
    }
}

impl Endpoint {
    /// Whether peers that were let in as one of two endpoints of a path says may stay as the other says.
    pub fn lets_in_as(&self, there: &Self) -> bool {
        SHARED.iter().all(|key| (key.is_same)(self, there))
    }
}

impl Listen {
    /// The host and the port, as they are.
    pub fn address(&self) -> (&str, u16) {
        (self.host.expose(), self.port)
    }

    /// Whether another machine may reach it, and nobody is asked for anything.
    pub(super) fn is_open_door(&self) -> bool {
        let clients = self.tls.as_ref().and_then(|tls| tls.clients.as_ref());
        let asks_for_certificates = clients.is_some_and(|clients| clients.are_required);
        !is_loopback(self.host.expose()) && self.auth.is_none() && !asks_for_certificates
    }

    /// What is said of an open door, and what to do about it.
    pub(super) fn open_door(&self) -> (String, &'static str) {
        let warning = format!("anyone who reaches {} port {} may connect", self.host, self.port);
        let hint =
            "`auth` asks for a token or a password, and host = \"127.0.0.1\" lets only this machine in";
        (warning, hint)
    }
}
