//! WebSocket endpoints out of checked tables; what only those that dial have is `client.rs`'s, what only
//! those that accept have `listen.rs`'s.

use super::agree::Served;
use super::client::client;
use super::listen::listen;
use super::report::Report;
use super::section::Section;
use super::{
    Buffer, Codec, Endpoint, MessageType, Mode, Peers, Ping, Server, SlowPeer, WebSocketSink,
    WebSocketSource, WhenFull, WhenNoPeers,
};

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
        if !is_token(name.known().expose()) {
            report.error(at, format!("\"{name}\" is not the name of a subprotocol"));
        }
    }
    let subprotocols = section.texts("subprotocols").iter().map(|(name, _)| name.known().clone());
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

/// Whether this is a `token` of RFC 9110.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
