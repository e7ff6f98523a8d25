//! WebSocket endpoints out of checked tables; what only those that dial have is `client.rs`'s, what only
//! those that accept have `listen.rs`'s.

use super::agree::Served;
use super::client::client;
use super::listen::listen;
use super::report::Report;
use super::section::Section;
use super::{
    Batch, Buffer, Codec, Endpoint, MessageType, Mode, Packing, Peers, Ping, ReplySink, Server, SlowPeer,
    WebSocketSink, WebSocketSource, WhenFull, WhenNoPeers,
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
    let packing = packing(section);
    Some(WebSocketSource { endpoint: endpoint(report, section, server, served)?, codec, packing })
}

pub(super) fn sink(
    report: &mut Report<'_>,
    section: &Section,
    server: &Server,
    served: &mut Vec<Served>,
) -> Option<WebSocketSink> {
    let (message_type, packing) = frames(report, section);
    let buffer = section.section("buffer").map(buffer).unwrap_or_default();
    let peers = if section.word("mode") == "server" {
        Peers {
            buffer_bytes: section.memory("peer_buffer_bytes"),
            when_none: match section.word("when_no_peers") {
                "wait" => WhenNoPeers::Wait,
                _ => WhenNoPeers::Drop,
            },
            replay: section.count("replay"),
            ..peers(section)
        }
    } else {
        Peers::default()
    };
    Some(WebSocketSink {
        endpoint: endpoint(report, section, server, served)?,
        message_type,
        include_metadata: section.bool("include_metadata"),
        packing,
        batch: section.section("batch").and_then(batch),
        buffer,
        peers,
    })
}

fn batch(section: &Section) -> Option<Batch> {
    let max_messages = section.count("max_messages");
    let linger = section.duration("linger").unwrap_or_default();
    let batch = Batch { max_messages, linger, max_bytes: section.memory("max_bytes") };
    (max_messages > 1).then_some(batch)
}

pub(super) fn reply(report: &mut Report<'_>, section: &Section) -> ReplySink {
    let (message_type, packing) = frames(report, section);
    let include_metadata = section.bool("include_metadata");
    ReplySink { message_type, include_metadata, packing, peers: peers(section) }
}

/// The frames a sink sends, and how they are packed.
fn frames(report: &mut Report<'_>, section: &Section) -> (MessageType, Option<Packing>) {
    let (message_type, packing) = (message_type(section), packing(section));
    if message_type == MessageType::Text && packing.is_some() {
        let hint = "leave one of the two out";
        let at = section.span("message_type");
        report.warning(&at, "what is packed by `payload_compression` goes out in binary frames", hint);
    }
    (message_type, packing)
}

fn message_type(section: &Section) -> MessageType {
    match section.word("message_type") {
        "text" => MessageType::Text,
        "binary" => MessageType::Binary,
        _ => MessageType::Auto,
    }
}

fn packing(section: &Section) -> Option<Packing> {
    match section.word("payload_compression") {
        "gzip" => Some(Packing::Gzip),
        "zlib" => Some(Packing::Zlib),
        "zstd" => Some(Packing::Zstd),
        _ => None,
    }
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

/// What may wait for one peer, of every kind of sink that has peers.
fn peers(section: &Section) -> Peers {
    Peers {
        buffer: section.count("peer_buffer"),
        slow: match section.word("slow_peer") {
            "drop_newest" => SlowPeer::DropNewest,
            "disconnect" => SlowPeer::Disconnect,
            "block" => SlowPeer::Block,
            _ => SlowPeer::DropOldest,
        },
        ..Peers::default()
    }
}

/// What source and sink endpoints have in common. `None` where the mode is wrong or there is no url.
pub(super) fn endpoint(
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
        check_connection: section.duration("connect_timeout").filter(|_| section.bool("check_connection")),
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
