//! WebSocket endpoints out of checked tables, and what endpoints of one path must agree on.

use super::build::port;
use super::report::Report;
use super::section::{Section, Span};
use super::{
    Buffer, Client, Codec, Config, Endpoint, Listen, MessageType, Mode, Peers, Ping, Pipeline, Reconnect,
    Redacted, Server, SinkKind, SlowPeer, Source, WebSocketSink, WebSocketSource, WhenFull, WhenNoPeers,
};
use std::net::IpAddr;

/// The keys that the endpoints of one path have in common: one that leaves a key out takes it from
/// another.
const SHARED: [&str; 4] = ["subprotocols", "ping", "idle_timeout", "max_message_size"];

/// Headers that the handshake itself sets.
const RESERVED: [&str; 7] = [
    "host",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
];

/// A server endpoint of the file.
pub(super) struct Served {
    endpoint: Endpoint,
    header: Span,
    /// Where its address is written, as far as it is.
    address: Span,
    /// Where each of [`SHARED`] is written, if it is.
    written: [Option<Span>; SHARED.len()],
}

pub(super) fn source(
    report: &mut Report<'_>,
    section: &Section,
    server: &Server,
    served: &mut Vec<Served>,
) -> Option<WebSocketSource> {
    let codec = match section.word("codec") {
        "json" => Codec::Json,
        "text" => Codec::Text,
        "bytes" => Codec::Bytes,
        _ => Codec::Auto,
    };
    Some(WebSocketSource { endpoint: endpoint(report, section, server, served)?, codec })
}

pub(super) fn sink(
    report: &mut Report<'_>,
    section: &Section,
    server: &Server,
    served: &mut Vec<Served>,
) -> Option<WebSocketSink> {
    let message_type = match section.word("message_type") {
        "text" => MessageType::Text,
        "binary" => MessageType::Binary,
        _ => MessageType::Auto,
    };
    let buffer = section.section("buffer").map(buffer).unwrap_or_default();
    let peers = if section.word("mode") == "server" { peers(section) } else { Peers::default() };
    Some(WebSocketSink { endpoint: endpoint(report, section, server, served)?, message_type, buffer, peers })
}

fn buffer(section: &Section) -> Buffer {
    Buffer {
        capacity: section.count("capacity"),
        max_bytes: section.memory("max_bytes"),
        when_full: match section.word("when_full") {
            "drop_oldest" => WhenFull::DropOldest,
            "drop_newest" => WhenFull::DropNewest,
            _ => WhenFull::Block,
        },
    }
}

fn peers(section: &Section) -> Peers {
    Peers {
        buffer: section.count("peer_buffer"),
        buffer_bytes: section.memory("peer_buffer_bytes"),
        slow: match section.word("slow_peer") {
            "drop_newest" => SlowPeer::DropNewest,
            "disconnect" => SlowPeer::Disconnect,
            "block" => SlowPeer::Block,
            _ => SlowPeer::DropOldest,
        },
        when_none: match section.word("when_no_peers") {
            "wait" => WhenNoPeers::Wait,
            _ => WhenNoPeers::Drop,
        },
        replay: section.count("replay"),
    }
}

/// What source and sink endpoints have in common. `None` where the mode is wrong or there is no url.
fn endpoint(
    report: &mut Report<'_>,
    section: &Section,
    server: &Server,
    served: &mut Vec<Served>,
) -> Option<Endpoint> {
    let mode = match section.word("mode") {
        "client" => Mode::Client(client(report, section)?),
        "server" => Mode::Server(listen(report, section, server)),
        _ => return None,
    };
    for (name, at) in section.texts("subprotocols") {
        if !is_token(name.expose()) {
            report.error(at, format!("\"{name}\" is not the name of a subprotocol"));
        }
    }
    let subprotocols = section.texts("subprotocols").iter().map(|(name, _)| name.expose().to_owned());
    let on_connect = section.texts("on_connect").iter().map(|(message, _)| message.clone());
    let endpoint = Endpoint {
        mode,
        subprotocols: subprotocols.collect(),
        on_connect: on_connect.collect(),
        ping: section.section("ping").and_then(ping),
        idle_timeout: section.duration("idle_timeout"),
        max_message_size_bytes: section.memory("max_message_size"),
    };
    if let Mode::Server(_) = endpoint.mode {
        let address = ["port", "host"].into_iter().find(|key| section.is_written(key)).unwrap_or("path");
        served.push(Served {
            endpoint: endpoint.clone(),
            header: section.header.clone(),
            address: section.span(address),
            written: SHARED.map(|key| section.is_written(key).then(|| section.span(key))),
        });
    }
    Some(endpoint)
}

fn ping(section: &Section) -> Option<Ping> {
    let interval = section.duration("interval").filter(|interval| !interval.is_zero())?;
    let timeout = section.duration("timeout").unwrap_or(Ping::default().timeout);
    Some(Ping { interval, timeout })
}

fn client(report: &mut Report<'_>, section: &Section) -> Option<Client> {
    let urls = section.texts("url");
    urls.iter().for_each(|(text, at)| url(report, text, at));
    let mut headers = Vec::new();
    for (name, value, at) in section.map("headers") {
        header(report, name, value, at);
        headers.push((name.clone(), value.clone()));
    }
    let Endpoint { mode: Mode::Client(defaults), .. } = Endpoint::client("") else { return None };
    let tls = section.section("tls");
    let client = Client {
        urls: urls.iter().map(|(url, _)| url.clone()).collect(),
        headers,
        connect_timeout: section.duration("connect_timeout").unwrap_or(defaults.connect_timeout),
        ca: tls.and_then(|tls| tls.path("ca")).map(|path| path.to_path_buf()),
        insecure_skip_verify: tls.is_some_and(|tls| tls.bool("insecure_skip_verify")),
        reconnect: section
            .section("reconnect")
            .map_or(defaults.reconnect, |section| reconnect(report, section)),
    };
    (!client.urls.is_empty()).then_some(client)
}

fn reconnect(report: &mut Report<'_>, section: &Section) -> Reconnect {
    let defaults = Reconnect::default();
    let reconnect = Reconnect {
        enabled: section.bool("enabled"),
        delay: section.duration("delay").unwrap_or(defaults.delay),
        max_delay: section.duration("max_delay").unwrap_or(defaults.max_delay),
        max_attempts: section.integer("max_attempts").and_then(|attempts| u32::try_from(attempts).ok()),
        jitter: section.number("jitter"),
        reset_after: section.duration("reset_after").unwrap_or(defaults.reset_after),
    };
    if reconnect.delay > reconnect.max_delay {
        let at = section.span(if section.is_written("delay") { "delay" } else { "max_delay" });
        let hint = "every attempt waits `max_delay`";
        report.warning(&at, "`delay` is longer than `max_delay`", hint);
    }
    reconnect
}

fn url(report: &mut Report<'_>, url: &Redacted, at: &Span) {
    let text = url.expose();
    let scheme = ["ws://", "wss://"]
        .into_iter()
        .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else {
        report.error(at, format!("websocket url must start with ws:// or wss://, got: {url}"));
        return;
    };
    let rest = &text[scheme.len()..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (address, None),
    };
    if host.is_empty() {
        report.error(at, format!("websocket url names no host: {url}"));
    } else if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        report.error(at, format!("websocket url has a port that is none: {url}"));
    } else if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        report.error(at, format!("websocket url must have no spaces: {url}"));
    } else if text.contains('#') {
        report.error_with_hint(
            at,
            format!("websocket url must have no fragment: {url}"),
            "write `#` as `%23`",
        );
    }
}

fn header(report: &mut Report<'_>, name: &str, value: &Redacted, at: &Span) {
    if !is_token(name) {
        report.error(at, format!("\"{name}\" is not the name of a header"));
    } else if RESERVED.contains(&&*name.to_ascii_lowercase()) {
        let message = format!("the header `{name}` is set by the handshake itself");
        if name.eq_ignore_ascii_case("sec-websocket-protocol") {
            report.error_with_hint(at, message, "use the key `subprotocols`");
        } else {
            report.error(at, message);
        }
    } else if value.expose().contains(|c: char| c.is_control() && c != '\t') {
        report.error(at, format!("the value of the header `{name}` must have no control characters"));
    }
}

/// Whether this is a `token` of RFC 9110.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn listen(report: &mut Report<'_>, section: &Section, server: &Server) -> Listen {
    let path = section.text("path").map_or("/", Redacted::expose);
    let at = section.span("path");
    if !path.starts_with('/') {
        report.error_with_hint(&at, "`path` must start with `/`", format!("write \"/{path}\""));
    } else if path.contains(['{', '}']) {
        report.error(&at, "a `{name}` segment in `path` is not supported yet");
    } else if path.contains(['?', '#']) || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        report.error(&at, "`path` must have no query, no fragment and no spaces");
    }
    let host = section.text("host");
    if let Some(host) = host {
        check_host(report, host, &section.span("host"));
    }
    Listen {
        host: host.map_or_else(|| server.host.clone(), |host| host.expose().to_owned()),
        port: port(section).unwrap_or(server.port),
        path: path.to_owned(),
        max_connections: server.max_connections,
        handshake_timeout: server.handshake_timeout,
    }
}

/// Reports a host that is neither an IP address nor a name.
pub(super) fn check_host(report: &mut Report<'_>, host: &Redacted, at: &Span) {
    let text = host.expose();
    let is_name = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_');
    if text.parse::<IpAddr>().is_err() && !is_name {
        let message = format!("`host` must be an IP address or a name, got \"{host}\"");
        report.error_with_hint(at, message, "the port has a key of its own, `port`");
    }
}

/// Where endpoints share a path, reports what they disagree on, and gives each what it left out and
/// another has.
pub(super) fn agree(report: &mut Report<'_>, served: &mut [Served]) {
    for index in 0..served.len() {
        for (key, name) in SHARED.into_iter().enumerate() {
            let (before, from_here) = served.split_at_mut(index);
            let here = &mut from_here[0];
            let there = before.iter_mut().find(|there| there.is_at(here) && there.written[key].is_some());
            let (Some(there), Some(at)) = (there, here.written[key].clone()) else { continue };
            if !is_same(name, &there.endpoint, &here.endpoint) {
                let first = there.written[key].as_ref().unwrap_or(&there.header);
                let message =
                    format!("`{}` differs from {}, which has the same path", name, report.name(first));
                report.error_with_hint(&at, message, "leave it out of one of the two");
            }
        }
    }
    for index in 0..served.len() {
        for (key, name) in SHARED.into_iter().enumerate() {
            let here = &served[index];
            let there = served.iter().find(|there| there.is_at(here) && there.written[key].is_some());
            if let (None, Some(there)) = (&here.written[key], there) {
                let there = there.endpoint.clone();
                take(name, &there, &mut served[index].endpoint);
            }
        }
    }
}

fn is_same(key: &str, a: &Endpoint, b: &Endpoint) -> bool {
    match key {
        "subprotocols" => a.subprotocols == b.subprotocols,
        "ping" => a.ping == b.ping,
        "idle_timeout" => a.idle_timeout == b.idle_timeout,
        _ => a.max_message_size_bytes == b.max_message_size_bytes,
    }
}

fn take(key: &str, from: &Endpoint, to: &mut Endpoint) {
    match key {
        "subprotocols" => to.subprotocols.clone_from(&from.subprotocols),
        "ping" => to.ping = from.ping,
        "idle_timeout" => to.idle_timeout = from.idle_timeout,
        _ => to.max_message_size_bytes = from.max_message_size_bytes,
    }
}

/// Gives the server endpoints of a configuration what they agreed on; `served` has them in the order
/// of the configuration.
pub(super) fn settle(config: &mut Config, served: Vec<Served>) {
    let endpoints = config.pipelines.iter_mut().flat_map(endpoints);
    let ours = endpoints.filter(|endpoint| matches!(endpoint.mode, Mode::Server(_)));
    for (endpoint, served) in ours.zip(served) {
        *endpoint = served.endpoint;
    }
}

/// The WebSocket endpoints of a pipeline: its source's, its sinks', its dead letters'.
fn endpoints(pipeline: &mut Pipeline) -> Vec<&mut Endpoint> {
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
    let mut seen = Vec::new();
    for served in served {
        let Mode::Server(listen) = &served.endpoint.mode else { continue };
        let is_loopback = listen.host == "localhost"
            || listen.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        if is_loopback || seen.contains(&(&listen.host, listen.port)) {
            continue;
        }
        seen.push((&listen.host, listen.port));
        report.warning(
            &served.address,
            format!("anyone who reaches {} port {} may connect", listen.host, listen.port),
            "host = \"127.0.0.1\" lets only this machine in",
        );
    }
}

impl Served {
    /// Whether both are reached at one address and path.
    fn is_at(&self, other: &Self) -> bool {
        match (&self.endpoint.mode, &other.endpoint.mode) {
            (Mode::Server(a), Mode::Server(b)) => (&a.host, a.port, &a.path) == (&b.host, b.port, &b.path),
            _ => false,
        }
    }
}
