//! The configuration as the rest of the host sees it: validated, with defaults filled in.
//!
//! `config/file.rs` makes it out of a TOML file; code that embeds the host makes it directly. What
//! the file may say, key by key, is one table in `config/keys.rs`.

mod agree;
mod auth;
mod body;
mod build;
mod check;
mod client;
mod compose;
mod endpoint;
pub mod error;
mod file;
mod interpolate;
mod json;
pub mod keys;
mod listen;
mod origin;
mod path;
mod places;
mod redacted;
mod report;
mod section;
pub mod shape;
mod text;
pub mod units;
mod url;
mod value;
mod written;

pub use auth::{Auth, BearerFrom};
pub use body::{BodyError, Mistake, Reader};
pub use error::{ConfigError, ConfigErrors};
pub use file::{Loaded, load, parse};
pub use listen::is_loopback;
pub use origin::AllowedOrigins;
pub use path::{PathError, PathPattern};
pub use places::{Part, Places};
pub use redacted::Redacted;
pub use shape::nearest;
pub use text::{EndpointText, FilePath, Pem, SecretError, without_user_info};
pub use url::{UrlError, WebSocketUrl};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A whole `tidemill.toml`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[plugins]`
    pub plugins: Plugins,
    /// `[server]`
    pub server: Server,
    /// `[admin]`
    pub admin: Option<Admin>,
    /// `[[pipelines]]`, with names that differ.
    pub pipelines: Vec<Pipeline>,
}

/// Where plugins are found, and where their compiled code is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugins {
    /// The folder of `.wasm` files.
    pub dir: FilePath,
    /// Whether changes in it are followed.
    pub watch: bool,
    /// The folder of compiled code.
    pub cache: FilePath,
    /// Larger files are refused, in bytes.
    pub max_size_bytes: u64,
}

/// What endpoints in server mode share: defaults, and the limits of every listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// The address to listen on, a name or an IP address.
    pub host: Redacted,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// Most connections of a listener, handshakes in progress included.
    pub max_connections: usize,
    /// Longest time a handshake may take, TLS included.
    pub handshake_timeout: Duration,
    /// The TLS of endpoints at this address that have none of their own.
    pub tls: Option<ServerTls>,
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The bearer token, needed where the address is not loopback.
    pub token: Option<Redacted>,
}

/// One pipeline: source, transforms, sinks.
#[derive(Clone, PartialEq)]
pub struct Pipeline {
    /// Its name, unique.
    pub name: String,
    /// Where messages come from.
    pub source: Source,
    /// What is done with them, in order.
    pub transforms: Vec<Transform>,
    /// Where they go, with names that differ.
    pub sinks: Vec<Sink>,
    /// Where messages go that failed.
    pub dead_letter: Option<Sink>,
    /// The tables it was read from, as they may be shown; `None` if it was built in Rust.
    pub written: Option<serde_json::Value>,
}

/// Where messages come from.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "few are ever made, and none is moved in a loop")]
pub enum Source {
    /// `type = "websocket"`
    WebSocket(WebSocketSource),
    /// `type = "file"`
    File {
        /// The file, packed if it ends in `.gz`.
        path: FilePath,
        /// How its lines are read.
        format: Format,
    },
    /// `type = "stdin"`
    Stdin {
        /// How its lines are read.
        format: Format,
    },
}

/// A stage that runs a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// The plugin's name: `vwap` is `vwap.wasm` in the plugin folder.
    pub plugin: Redacted,
    /// The label of the stage, unique in its pipeline.
    pub name: String,
    /// The plugin's configuration, as JSON.
    pub config: Redacted,
    /// What becomes of a message that the plugin rejects or faults on.
    pub on_error: OnError,
    /// How often the plugin's timer is called; `None` is what the plugin asks for.
    pub tick: Option<Duration>,
    /// Most messages in one call.
    pub max_batch: usize,
    /// Most payload bytes in one call; one larger message goes alone.
    pub max_batch_bytes: usize,
    /// What an instance may use.
    pub limits: Limits,
}

/// What an instance of a plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of linear memory, in bytes.
    pub memory_bytes: usize,
    /// Of the guest's own running time in one call.
    pub deadline: Duration,
    /// Of what one call may return, in bytes.
    pub output_bytes: usize,
}

/// What becomes of a message that a plugin rejects or faults on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It goes to the dead letters.
    DeadLetter,
    /// It is dropped, and counted.
    Drop,
    /// It goes on unchanged.
    Pass,
    /// It goes to the dead letters, and its pipeline stops.
    Stop,
}

/// Where messages go.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// Its name, unique in its pipeline.
    pub name: String,
    /// The outputs it takes of the last transform.
    pub outputs: Outputs,
    /// What it is.
    pub kind: SinkKind,
}

/// The outputs a sink takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// `["*"]`
    All,
    /// These.
    Named(Vec<Redacted>),
}

/// The kinds of sinks.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "few are ever made, and none is moved in a loop")]
pub enum SinkKind {
    /// `type = "websocket"`
    WebSocket(WebSocketSink),
    /// `type = "reply"`
    Reply(ReplySink),
    /// `type = "file"`
    File {
        /// The file, packed if it ends in `.gz`.
        path: FilePath,
        /// How its lines are written.
        format: Format,
        /// Whether lines are added to what is there.
        append: bool,
    },
    /// `type = "stdout"`
    Stdout {
        /// How its lines are written.
        format: Format,
    },
}

/// The lines of a file of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A message a line.
    Jsonl,
    /// The time of receipt in nanoseconds, a space, the message.
    Recording,
}

/// A WebSocket endpoint, source or sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Whether we dial or are dialled.
    pub mode: Mode,
    /// Subprotocols offered (client) or accepted (server).
    pub subprotocols: Vec<Redacted>,
    /// Messages sent after every connect: client, once connected; server, to every new peer.
    pub on_connect: Vec<EndpointText>,
    /// How often a WebSocket ping is sent; `None` never.
    pub ping: Option<Ping>,
    /// A connection without a message for so long ends.
    pub idle_timeout: Option<Duration>,
    /// Larger frames and messages end their connection.
    pub max_message_size_bytes: usize,
    /// The pipeline starts only once the endpoint is connected, and fails if that takes longer than this
    /// (server) or the one dial fails (client).
    pub check_connection: Option<Duration>,
}

/// Who dials.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "few are ever made, and none is moved in a loop")]
pub enum Mode {
    /// We do.
    Client(Client),
    /// Peers do.
    Server(Listen),
}

/// What a client endpoint dials, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// `ws://` or `wss://` urls; each attempt takes the next. Not empty.
    pub urls: Vec<EndpointText>,
    /// Headers of the handshake.
    pub headers: Vec<(String, EndpointText)>,
    /// Longest time for TCP, TLS and the handshake together.
    pub connect_timeout: Duration,
    /// Whom to trust at `wss://` urls, and who we are there.
    pub tls: ClientTls,
    /// What happens after a loss.
    pub reconnect: Reconnect,
    /// Least time between two messages that we send.
    pub send_interval: Duration,
    /// A heartbeat of the application.
    pub heartbeat: Option<Heartbeat>,
    /// The proxies to go through.
    pub proxies: Proxies,
}

/// A message that is sent again and again, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Between two of them; the first is sent so long after the connect.
    pub interval: Duration,
    /// What is sent, as text.
    pub message: EndpointText,
    /// The answer. A message equal to it is swallowed: neither handed on nor counted as received.
    pub reply: Option<EndpointText>,
    /// Without the answer for so long after one was sent, the connection is given up.
    pub timeout: Duration,
}

/// The HTTP proxies that the environment names; none by default. This machine is always reached straight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The url of the proxy for `ws://`, `http://` with or without user and password.
    pub ws: Option<Redacted>,
    /// The same for `wss://`.
    pub wss: Option<Redacted>,
    /// Hosts, domains and networks that need none, separated by commas; `*` is all.
    pub except: String,
}

/// TLS of what we dial. Its files are read at every dial, so that renewed ones count from the next on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The roots to trust; `None` is the system's.
    pub ca: Option<Pem>,
    /// Our certificate, for servers that ask for one.
    pub identity: Option<Identity>,
    /// Whether the peer's certificate is taken unseen.
    pub insecure_skip_verify: bool,
    /// The name to ask for and to check; `None` is the url's host.
    pub server_name: Option<Redacted>,
}

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those that lead to its root.
    pub cert: Pem,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: Pem,
}

/// Where a server endpoint is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// The address, a name or an IP address.
    pub host: Redacted,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// TLS, the same for all endpoints at the address.
    pub tls: Option<ServerTls>,
    /// The path: exact, or with `{name}` for a segment, as [`PathPattern`] reads it.
    pub path: Redacted,
    /// What every message of a connection is given: a key, and where its value is taken from.
    pub metadata: Vec<(String, FromHandshake)>,
    /// Who may connect; `None` whoever comes.
    pub auth: Option<Auth>,
    /// The web pages that may connect.
    pub allowed_origins: AllowedOrigins,
    /// Most connections of this endpoint; the listener has a limit of its own.
    pub max_connections: usize,
}

/// TLS of a listener. Its files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Who we are.
    pub identity: Identity,
    /// Who peers must be; `None` asks for no certificate.
    pub clients: Option<ClientCertificates>,
}

/// Certificates that a listener asks its peers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The roots they must lead to.
    pub ca: Pem,
    /// Whether a peer without one is refused.
    pub are_required: bool,
}

/// Something that a peer's handshake says, and none of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHandshake {
    /// What stands for a `{name}` of the path.
    Path(String),
    /// A value of the query.
    Query(String),
    /// A header; several of one name are joined by ", ".
    Header(String),
    /// A cookie.
    Cookie(String),
    /// The user of basic authentication.
    User,
    /// The common name of the peer's certificate.
    CommonName,
    /// The alternative names of the peer's certificate, joined by ",".
    AlternativeNames,
    /// The SHA-256 digest of the peer's certificate, in hexadecimal.
    Fingerprint,
}

/// The schedule of reconnection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reconnect {
    /// `false`: fail at the first loss.
    pub enabled: bool,
    /// Before the first attempt; doubles with each.
    pub delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
    /// Give up after so many in a row; `None` never.
    pub max_attempts: Option<u32>,
    /// Each delay is uniform in `d * (1 - jitter) ..= d * (1 + jitter)`.
    pub jitter: f64,
    /// A connection that lived so long makes attempts count from 1 again.
    pub reset_after: Duration,
}

/// Keeping an idle connection alive, and noticing a dead one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Between two pings.
    pub interval: Duration,
    /// With nothing received for so long after a ping, the connection is dead.
    pub timeout: Duration,
}

/// A WebSocket source.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocketSource {
    /// Where and how.
    pub endpoint: Endpoint,
    /// What a payload must be.
    pub codec: Codec,
    /// How payloads come packed.
    pub packing: Option<Packing>,
}

/// How payloads are packed, each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Zlib,
    /// RFC 8878.
    Zstd,
}

impl std::fmt::Display for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        })
    }
}

/// What a payload must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As the frame came, unread.
    Auto,
    /// JSON, else a decode failure.
    Json,
    /// UTF-8, else a decode failure; text from here on.
    Text,
    /// Binary from here on.
    Bytes,
}

/// A WebSocket sink.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocketSink {
    /// Where and how.
    pub endpoint: Endpoint,
    /// The frame type messages are sent as.
    pub message_type: MessageType,
    /// Whether metadata is added to messages that are JSON objects.
    pub include_metadata: bool,
    /// How frames are packed; packed ones are binary.
    pub packing: Option<Packing>,
    /// Several messages in a frame, as a JSON array; `None`: one message, as it is.
    pub batch: Option<Batch>,
    /// What waits for a client's connection.
    pub buffer: Buffer,
    /// What waits for a server's peer, each.
    pub peers: Peers,
}

/// A sink that answers on the connection a message came on.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplySink {
    /// The frame type messages are sent as.
    pub message_type: MessageType,
    /// Whether metadata is added to messages that are JSON objects.
    pub include_metadata: bool,
    /// How frames are packed; packed ones are binary.
    pub packing: Option<Packing>,
    /// What waits for one connection; of this `buffer`, `buffer_bytes` and `slow` count.
    pub peers: Peers,
}

/// The frame type messages are sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// As the message is.
    Auto,
    /// Text frames; what is not UTF-8 goes to the dead letters.
    Text,
    /// Binary frames.
    Binary,
}

/// Messages that share a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Most messages.
    pub max_messages: usize,
    /// How long the first waits for others; nothing: until the next flush.
    pub linger: Duration,
    /// Most bytes, before the frame is packed; one larger message goes alone.
    pub max_bytes: usize,
}

/// A client sink's queue in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Most messages.
    pub capacity: usize,
    /// Most payload bytes.
    pub max_bytes: usize,
    /// What happens to one more.
    pub when_full: WhenFull,
}

/// What happens at a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The pipeline waits.
    Block,
    /// The oldest in the queue makes room.
    DropOldest,
    /// The new one is dropped.
    DropNewest,
}

/// How a server sink treats its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Most messages that wait for one peer.
    pub buffer: usize,
    /// Most payload bytes that wait for one peer.
    pub buffer_bytes: usize,
    /// What happens to a peer that reads too slowly.
    pub slow: SlowPeer,
    /// What happens to messages while there is no peer.
    pub when_none: WhenNoPeers,
    /// The last messages that a new peer gets first.
    pub replay: usize,
}

/// What happens to a peer whose queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowPeer {
    /// It misses the oldest.
    DropOldest,
    /// It misses the newest.
    DropNewest,
    /// It is disconnected, with code 1013.
    Disconnect,
    /// The pipeline waits for it.
    Block,
}

/// What happens to messages while there is no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenNoPeers {
    /// They are dropped, and counted.
    Drop,
    /// The pipeline waits.
    Wait,
}

impl std::fmt::Debug for Pipeline {
    /// What it means, not how it was written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut pipeline = f.debug_struct("Pipeline");
        pipeline.field("name", &self.name).field("source", &self.source);
        pipeline.field("transforms", &self.transforms).field("sinks", &self.sinks);
        pipeline.field("dead_letter", &self.dead_letter).finish()
    }
}

/// What the environment variables of a `${NAME}` are looked up in.
pub type Environment = BTreeMap<String, String>;

/// The label of a pipeline's source, in metrics, logs and dead letters.
pub const SOURCE: &str = "source";
/// The label of its dead-letter sink.
pub const DEAD_LETTER: &str = "dead_letter";

/// Most sinks of one pipeline: which of them take a message is one bit each.
pub const MAX_SINKS: usize = 64;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Default for Plugins {
    fn default() -> Self {
        Self {
            dir: FilePath::plain("plugins"),
            watch: true,
            cache: FilePath::plain(".tidemill/cache"),
            max_size_bytes: 64 * MIB as u64,
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 10081,
            max_connections: 10_000,
            handshake_timeout: Duration::from_secs(10),
            tls: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 64 * MIB, deadline: Duration::from_millis(250), output_bytes: 16 * MIB }
    }
}

impl Proxies {
    /// The proxies of `HTTP_PROXY` (for `ws://`), `HTTPS_PROXY` (for `wss://`), `ALL_PROXY` (for what has
    /// none of its own), and `NO_PROXY`, in upper or in lower case.
    pub fn of(environment: &Environment) -> Self {
        let set = |name: &str| {
            let value = environment.get(name).or_else(|| environment.get(&name.to_lowercase()));
            value.filter(|value| !value.trim().is_empty())
        };
        let proxy = |name| set(name).or_else(|| set("ALL_PROXY")).map(|url| Redacted::new(url, "***"));
        Self {
            ws: proxy("HTTP_PROXY"),
            wss: proxy("HTTPS_PROXY"),
            except: set("NO_PROXY").cloned().unwrap_or_default(),
        }
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            enabled: true,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(30),
            max_attempts: None,
            jitter: 0.1,
            reset_after: Duration::from_secs(10),
        }
    }
}

impl Default for Ping {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self { capacity: 1024, max_bytes: 64 * MIB, when_full: WhenFull::Block }
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            buffer: 1024,
            buffer_bytes: 8 * MIB,
            slow: SlowPeer::DropOldest,
            when_none: WhenNoPeers::Drop,
            replay: 0,
        }
    }
}

impl Transform {
    /// A stage with the defaults of every key.
    pub fn new(plugin: impl Into<Redacted>) -> Self {
        let plugin = plugin.into();
        Self {
            name: plugin.shown().to_owned(),
            plugin,
            config: Redacted::plain("{}"),
            on_error: OnError::DeadLetter,
            tick: None,
            max_batch: 256,
            max_batch_bytes: MIB,
            limits: Limits::default(),
        }
    }
}

impl Endpoint {
    /// A client endpoint with the defaults of every key.
    pub fn client(url: impl Into<String>) -> Self {
        Self {
            mode: Mode::Client(Client {
                urls: vec![EndpointText::plain(url)],
                headers: Vec::new(),
                connect_timeout: Duration::from_secs(10),
                tls: ClientTls::default(),
                reconnect: Reconnect::default(),
                send_interval: Duration::ZERO,
                heartbeat: None,
                proxies: Proxies::default(),
            }),
            subprotocols: Vec::new(),
            on_connect: Vec::new(),
            ping: Some(Ping::default()),
            idle_timeout: None,
            max_message_size_bytes: 16 * MIB,
            check_connection: None,
        }
    }

    /// A server endpoint with the defaults of every key and of `server`.
    pub fn server(path: impl Into<String>, server: &Server) -> Self {
        Self {
            mode: Mode::Server(Listen {
                host: server.host.clone(),
                port: server.port,
                tls: server.tls.clone(),
                path: Redacted::plain(path),
                metadata: Vec::new(),
                auth: None,
                allowed_origins: AllowedOrigins::default(),
                max_connections: server.max_connections,
            }),
            max_message_size_bytes: 1024 * KIB,
            ..Self::client("")
        }
    }

    /// Where peers reach it, if it accepts.
    pub fn listen(&self) -> Option<&Listen> {
        match &self.mode {
            Mode::Server(listen) => Some(listen),
            Mode::Client(_) => None,
        }
    }
}
