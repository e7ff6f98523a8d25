//! WebSocket endpoints: what sources and sinks have in common, and what each has of its own. What only
//! those that dial have is `client.rs`'s, what only those that accept `listen.rs`'s.

use super::client::Client;
use super::form::{AnyDuration, Bytes, Element, Flag, GIB, List, MOST_MESSAGES, Memory, Messages};
use super::form::{Count, QueueLength, SomeDuration, Sub, SubAs, Word};
use super::listen::Listen;
use super::names::is_token;
use super::read::{self, Becomes, Form, Item, Read, TableReader, Words};
use super::report::Span;
use super::shape::Kind;
use super::{EndpointText, Redacted, Server};
use std::fmt;
use std::time::Duration;

/// The default of `max_message_size`, in bytes: of whom we dialled, and of whom we accepted.
const CLIENT_MESSAGE_BYTES: usize = 16 << 20;
const SERVER_MESSAGE_BYTES: usize = 1 << 20;

/// Bytes that may wait, which is no one message.
type BufferBytes = Memory<1, { 64 * GIB }>;

table! {
    /// A WebSocket endpoint, source or sink.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Endpoint / EndpointAt {
        /// Who dials.
        mode: Mode = flat(Mode);
        /// In client mode these are offered, and the server must choose one; in server mode the first that a
        /// peer offers and that is here is accepted.
        subprotocols: Vec<Redacted> = key(List<Subprotocol>, default(Vec::new()));
        /// In client mode these messages are sent after every connect, in server mode to every new peer; a
        /// table is sent as JSON.
        on_connect: Vec<EndpointText> = key(Messages, default(Vec::new()));
        /// WebSocket pings tell a silent peer from an idle one.
        ping: Option<Ping> = key(SubAs<Ping, Option<Ping>>, default(Some(Ping::default())));
        /// A connection on which no message came for so long is ended; if left out there is no limit.
        idle_timeout: Option<Duration> = key(SomeDuration, optional);
        /// A larger message ends its connection with 1009; a payload that unpacks to more is lost alone.
        max_message_size_bytes: usize =
            key("max_message_size", Bytes, settled("`\"16MiB\"` client, `\"1MiB\"` server"));
        /// The pipeline starts only once the endpoint is connected, in server mode once a peer is, and fails
        /// otherwise.
        check_connection: Option<Duration> = key(CheckConnection, default(None));
    }
    later ["compression", "compression_level", "compression_min_size", "compression_context"];
    check settle_endpoint;
}

/// Fills in what depends on who dials.
fn settle_endpoint(endpoint: &mut Endpoint, at: &EndpointAt, _: &mut TableReader<'_, '_>) {
    let (patience, most) = match &endpoint.mode {
        Mode::Client(client) => (client.connect_timeout, CLIENT_MESSAGE_BYTES),
        Mode::Server(listen) => (listen.connect_timeout, SERVER_MESSAGE_BYTES),
    };
    endpoint.check_connection = endpoint.check_connection.map(|_| patience);
    if at.max_message_size_bytes.is_none() {
        endpoint.max_message_size_bytes = most;
    }
}

choices! {
    /// Which side dials: Tidemill, or its peers.
    #[derive(Clone, Debug, PartialEq)]
    #[expect(clippy::large_enum_variant, reason = "few are ever made, and none is moved in a loop")]
    pub enum Mode / ModeAt / mode by "mode" "client dials a url, server accepts on a path" default("client") {
        /// Tidemill dials the peer.
        "client" => Client(Client);
        /// Peers dial Tidemill.
        "server" => Server(Listen);
    }
}

impl Endpoint {
    /// A client endpoint with the defaults of every key.
    pub fn client(url: impl Into<String>) -> Self {
        let client = Client { urls: vec![EndpointText::plain(url)], ..read::blank() };
        Self { mode: Mode::Client(client), ..read::blank() }
    }

    /// A server endpoint with the defaults of every key and of `server`.
    pub fn server(path: impl Into<String>, server: &Server) -> Self {
        let listen = Listen { path: Redacted::plain(path), ..read::blank_with(server.inherited()) };
        Self { mode: Mode::Server(listen), max_message_size_bytes: SERVER_MESSAGE_BYTES, ..read::blank() }
    }

    /// The names of the metadata that it takes from handshakes.
    pub fn metadata_names(&self) -> Vec<String> {
        let metadata = self.listen().map_or(&[][..], |listen| &listen.metadata);
        metadata.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The settings of server mode, if the endpoint is in it.
    pub fn listen(&self) -> Option<&Listen> {
        match &self.mode {
            Mode::Server(listen) => Some(listen),
            Mode::Client(_) => None,
        }
    }
}

/// A flag that the longest wait belongs to, which another key says.
pub(super) struct CheckConnection;

impl Form for CheckConnection {
    type Value = Option<Duration>;
    type At = Span;
    const KIND: Kind = Flag::KIND;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let (flag, at) = Flag::read(reader, key, value)?;
        Some((flag.then_some(Duration::ZERO), at))
    }

    fn show(value: &Option<Duration>) -> String {
        Flag::show(&value.is_some())
    }
}

/// The name of a subprotocol.
pub(super) struct Subprotocol;

impl Element for Subprotocol {
    type Value = Redacted;

    fn of(reader: &mut TableReader<'_, '_>, _: &str, text: EndpointText, at: &Span) -> Option<Redacted> {
        if !is_token(text.known().expose()) {
            reader.report.error(at, format!("\"{text}\" is not the name of a subprotocol"));
        }
        Some(text.known().clone())
    }

    fn show(value: &Redacted) -> String {
        format!("\"{value}\"")
    }
}

table! {
    /// Keeping an idle connection alive, and noticing a dead one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Ping / PingAt {
        /// A ping is sent at this interval; 0s turns pings off.
        interval: Duration = key(AnyDuration, default(Duration::from_secs(30)));
        /// If nothing is received for so long after a ping, the connection is ended, unless the peer still
        /// reads what came before.
        timeout: Duration = key(SomeDuration, default(Duration::from_secs(10)));
    }
}

impl Becomes<Option<Self>> for Ping {
    fn become_it(self) -> Option<Self> {
        (!self.interval.is_zero()).then_some(self)
    }
}

table! {
    /// A source that receives messages from a WebSocket endpoint.
    #[derive(Clone, Debug, PartialEq)]
    pub struct WebSocketSource / WebSocketSourceAt {
        /// Where and how.
        endpoint: Endpoint = flat(Endpoint);
        /// A payload that is not of this kind goes to the dead letters; auto takes all as it comes, bytes all
        /// as binary.
        codec: Codec = key(Word<Codec>, default(Codec::Auto));
        /// How payloads come packed.
        packing: Option<Packing> = shared(PayloadCompression);
    }
    later ["receive_limit", "ack", "window"];
}

words! {
    /// The kind that payloads must be of.
    pub enum Codec {
        /// Payloads are taken as frames come, unread.
        Auto = "auto",
        /// JSON, else a decode failure.
        Json = "json",
        /// UTF-8, else a decode failure; text from here on.
        Text = "text",
        /// Binary from here on.
        Bytes = "bytes",
    }
}

shared_key! {
    /// Payloads are compressed in this way within their frames.
    PayloadCompression = key("payload_compression", Word<Option<Packing>>, default(None));
}

words! {
    /// The compression of payloads, each for itself.
    pub enum Packing {
        /// The gzip format (RFC 1952).
        Gzip = "gzip",
        /// The zlib format (RFC 1950).
        Zlib = "zlib",
        /// The zstd format (RFC 8878).
        Zstd = "zstd",
    }
}

impl Words for Option<Packing> {
    const LATER: &'static [&'static str] = Packing::LATER;

    fn all() -> Vec<(&'static str, Self)> {
        let packed = Packing::all().into_iter().map(|(word, packing)| (word, Some(packing)));
        std::iter::once(("none", None)).chain(packed).collect()
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::all().into_iter().find(|(_, packing)| packing == self);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}

table! {
    /// A sink that sends messages to a WebSocket endpoint.
    #[derive(Clone, Debug, PartialEq)]
    pub struct WebSocketSink / WebSocketSinkAt {
        /// Where and how.
        endpoint: Endpoint = flat(Endpoint);
        /// The frame type messages are sent as.
        message_type: MessageType = shared(FrameType);
        /// Whether metadata is added to messages that are JSON objects.
        include_metadata: bool = shared(IncludeMetadata);
        /// How frames are packed; packed ones are binary.
        packing: Option<Packing> = shared(PayloadCompression);
        /// Several messages go out in one frame; if left out, each has a frame of its own.
        batch: Option<Batch> = key(SubAs<Batch, Option<Batch>>, settled());
        /// Messages that wait for the connection are kept within these limits.
        buffer: Buffer = only(mode::Client, key(Sub<Buffer>, default(Buffer::default())));
        /// What waits for a server's peer, each.
        peers: Peers = only(mode::Server, flat(Peers));
    }
    check warn_of_packed_text;
}

fn warn_of_packed_text(sink: &mut WebSocketSink, at: &WebSocketSinkAt, reader: &mut TableReader<'_, '_>) {
    warn_of_packed(sink.message_type, sink.packing, at.message_type.as_ref(), reader);
}

/// Warns where what is packed is to go out as text.
fn warn_of_packed(
    frames: MessageType,
    packing: Option<Packing>,
    at: Option<&Span>,
    reader: &mut TableReader<'_, '_>,
) {
    if let (MessageType::Text, Some(_), Some(at)) = (frames, packing, at) {
        let message = "what is packed by `payload_compression` goes out in binary frames";
        reader.report.warning(at, message, "leave one of the two out");
    }
}

impl WebSocketSource {
    /// A source with the defaults of every key.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, ..read::blank() }
    }
}

impl WebSocketSink {
    /// A sink with the defaults of every key.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, ..read::blank() }
    }
}

table! {
    /// A sink that answers on the connection a message came on.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ReplySink / ReplySinkAt {
        /// The frame type messages are sent as.
        message_type: MessageType = shared(FrameType);
        /// Whether metadata is added to messages that are JSON objects.
        include_metadata: bool = shared(IncludeMetadata);
        /// How frames are packed; packed ones are binary.
        packing: Option<Packing> = shared(PayloadCompression);
        /// What waits for one connection; of this `buffer`, `buffer_bytes` and `slow` count.
        peers: Peers = flat_as(ReplyPeers);
    }
    check warn_of_packed_replies;
}

fn warn_of_packed_replies(sink: &mut ReplySink, at: &ReplySinkAt, reader: &mut TableReader<'_, '_>) {
    warn_of_packed(sink.message_type, sink.packing, at.message_type.as_ref(), reader);
}

shared_key! {
    /// Messages are sent as frames of this type; auto takes the type of the message.
    FrameType = key("message_type", Word<MessageType>, default(MessageType::Auto));
}

shared_key! {
    /// If true, metadata is added to messages that are JSON objects.
    IncludeMetadata = key("include_metadata", Flag, default(false));
}

words! {
    /// The frame type messages are sent as.
    pub enum MessageType {
        /// The type of the message is that of the frame.
        Auto = "auto",
        /// Text frames; what is not UTF-8 goes to the dead letters.
        Text = "text",
        /// Messages go out as binary frames.
        Binary = "binary",
    }
}

table! {
    /// Messages that share a frame.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Batch / BatchAt {
        /// A frame has at most so many messages; more than one makes every frame a JSON array.
        max_messages: usize = key(QueueLength, default(1));
        /// A frame that is not full waits at most so long for more messages.
        linger: Duration = key(AnyDuration, default(Duration::ZERO));
        /// A frame has at most so many bytes.
        max_bytes: usize = key(Bytes, default(1 << 20));
    }
}

impl Becomes<Option<Self>> for Batch {
    fn become_it(self) -> Option<Self> {
        (self.max_messages > 1).then_some(self)
    }
}

table! {
    /// A client sink's queue in memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Buffer / BufferAt {
        /// At most so many messages wait.
        capacity: usize = key(QueueLength, default(1024));
        /// At most so many bytes of payload wait.
        max_bytes: usize = key(BufferBytes, default(64 << 20));
        /// This happens when there is one more; block holds the source.
        when_full: WhenFull = key(Word<WhenFull>, default(WhenFull::Block));
    }
    unused {
        /// Messages wait here.
        kind = key("type", Word<BufferKind>, default(BufferKind::Memory));
    }
    later ["path", "max_size", "fsync"];
}

words! {
    /// Where the messages of a queue wait.
    enum BufferKind {
        /// The buffer is kept in memory.
        Memory = "memory",
    }
    later ["disk"];
}

words! {
    /// The policy for a queue that is full.
    pub enum WhenFull {
        /// The pipeline waits until there is room.
        Block = "block",
        /// The oldest in the queue makes room.
        DropOldest = "drop_oldest",
        /// The new one is dropped.
        DropNewest = "drop_newest",
    }
}

table! {
    /// The limits and policies of a server sink for its peers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Peers / PeersAt {
        /// Most messages that wait for one peer.
        buffer: usize = shared(PeerBuffer);
        /// At most so many bytes wait for one peer.
        buffer_bytes: usize = key("peer_buffer_bytes", BufferBytes, default(8 << 20));
        /// What happens to a peer that reads too slowly.
        slow: SlowPeer = shared(SlowPeers);
        /// This happens to messages while no peer is connected; wait holds the source.
        when_none: WhenNoPeers = key("when_no_peers", Word<WhenNoPeers>, default(WhenNoPeers::Drop));
        /// A new peer first gets so many of the last messages.
        replay: usize = key(Count<0, MOST_MESSAGES>, default(0));
    }
    later ["topic", "max_rate", "resume", "exclude_sender"];
}

table! {
    /// The limits of replies that wait for their connection.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct ReplyPeers / ReplyPeersAt {
        /// Most messages that wait for it.
        buffer: usize = shared(PeerBuffer);
        /// What happens if it reads too slowly.
        slow: SlowPeer = shared(SlowPeers);
    }
}

impl Becomes<Peers> for ReplyPeers {
    fn become_it(self) -> Peers {
        Peers { buffer: self.buffer, slow: self.slow, ..Peers::default() }
    }
}

shared_key! {
    /// At most so many messages wait for one peer.
    PeerBuffer = key("peer_buffer", QueueLength, default(1024));
}

shared_key! {
    /// This happens when more would wait; disconnect closes the peer with 1013, block holds the source.
    SlowPeers = key("slow_peer", Word<SlowPeer>, default(SlowPeer::DropOldest));
}

words! {
    /// The policy for a peer whose queue is full.
    pub enum SlowPeer {
        /// The peer misses the oldest messages.
        DropOldest = "drop_oldest",
        /// The peer misses the newest messages.
        DropNewest = "drop_newest",
        /// The peer is disconnected, with code 1013.
        Disconnect = "disconnect",
        /// The pipeline waits for it.
        Block = "block",
    }
    later ["conflate"];
}

words! {
    /// The policy for messages while there is no peer.
    pub enum WhenNoPeers {
        /// Messages are dropped, and counted.
        Drop = "drop",
        /// The pipeline waits until a peer is connected.
        Wait = "wait",
    }
}

with_defaults!(Ping, ReplySink, Buffer, Peers);
