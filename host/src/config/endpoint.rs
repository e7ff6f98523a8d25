//! WebSocket endpoints out of checked tables; those that accept, as far as they are told apart from
//! those that dial, are `listen.rs`'s.

use super::agree::Served;
use super::listen::listen;
use super::report::Report;
use super::section::{Section, Span};
use super::{
    Buffer, Client, Codec, Endpoint, MessageType, Mode, Peers, Ping, Reconnect, Redacted, Server, SlowPeer,
    WebSocketSink, WebSocketSource, WhenFull, WhenNoPeers,
};

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
    served.extend(Served::new(section, &endpoint));
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
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
