//! The keys of `tidemill.toml`: the one table that says what may be written, of what type, with
//! which default, and whether this version does it.
//!
//! Unknown keys, wrong types, refusals of what is not built yet, and defaults all come from here.

use super::shape::{Case, Key, Kind, Shape, Word};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Offsets into a batch are 32 bits wide; this leaves room for one large message beside a full one.
const MOST_BYTES: u64 = GIB;
/// What 32-bit WebAssembly can address.
const MOST_MEMORY: u64 = 4 * GIB;
/// One page of WebAssembly memory.
const LEAST_MEMORY: u64 = 64 * KIB;
/// Queues and batches are counted in memory: more messages than this is a slip of the pen.
const MOST_MESSAGES: i64 = 10_000_000;
const MOST_BATCH: i64 = 65_536;
const MOST_CONNECTIONS: i64 = 10_000_000;

const SIZE: Kind = Kind::Size(1, MOST_BYTES);
const QUEUE: Kind = Kind::Integer(1, MOST_MESSAGES);
const CONNECTIONS: Kind = Kind::Integer(1, MOST_CONNECTIONS);
const PORT: Kind = Kind::Integer(0, u16::MAX as i64);

/// The tables of the file, by the headers they are written with.
pub static TABLES: [(&str, &Shape); 8] = [
    ("[plugins]", &PLUGINS),
    ("[server]", &SERVER),
    ("[admin]", &ADMIN),
    ("[[pipelines]]", &PIPELINE),
    ("[pipelines.source]", &SOURCE),
    ("[[pipelines.transforms]]", &TRANSFORM),
    ("[[pipelines.sinks]]", &SINK),
    ("limits", &LIMITS),
];

/// The header of the first table that has this key.
pub fn home(key: &str) -> Option<&'static str> {
    TABLES
        .iter()
        .find(|(_, shape)| shape.all_keys().iter().any(|known| known.name == key && known.built))
        .map(|(name, _)| *name)
}

/// The whole file.
pub static ROOT: Shape = Shape::Keys(&[&[
    Key::new("plugins", Kind::Table(&PLUGINS), "where plugins are found and their compiled code is kept")
        .default("{}"),
    Key::new("server", Kind::Table(&SERVER), "what endpoints in server mode have in common").default("{}"),
    Key::new("admin", Kind::Table(&ADMIN), "the HTTP API; without it there is none"),
    Key::new("state", Kind::Json, "where durable state is kept").later(),
    Key::new("pipelines", Kind::Tables(&PIPELINE), "source, transforms and sinks").default("[]"),
]]);

/// `[plugins]`
pub static PLUGINS: Shape = Shape::Keys(&[&[
    Key::new(
        "dir",
        Kind::Path,
        "the folder of plugins, made if it is missing; vwap.wasm in it is the plugin \"vwap\"",
    )
    .default("plugins"),
    Key::new("watch", Kind::Bool, "whether a new or changed file is taken up while running").default("true"),
    Key::new("cache", Kind::Path, "the folder where compiled code is kept for the next start")
        .default(".tidemill/cache"),
    Key::new("max_size", Kind::Size(1, GIB), "a larger plugin is refused").default("64MiB"),
]]);

/// `[server]`
pub static SERVER: Shape = Shape::Keys(&[&[
    Key::new("host", Kind::Text, "the address to listen on").default("127.0.0.1"),
    Key::new("port", PORT, "the port to listen on; 0 takes a free one").default("10081"),
    Key::new("tls", Kind::Table(&SERVER_TLS), "the certificate of the listener, which makes it wss://"),
    Key::new(
        "max_connections",
        CONNECTIONS,
        "most connections of a listener; more get 503; handshakes have a bound of their own, a quarter of it",
    )
    .default("10000"),
    Key::new("handshake_timeout", Kind::SOME_DURATION, "longest time a handshake may take").default("10s"),
]]);

/// `tls` in server mode.
pub static SERVER_TLS: Shape = Shape::Keys(&[&[
    Key::new("cert", Kind::Path, "the certificate chain, PEM").required(),
    Key::new("key", Kind::Path, "its private key, PEM").required(),
    Key::new(
        "client_ca",
        Kind::Path,
        "roots that clients' certificates must lead to, PEM; none are asked for if left out",
    ),
    Key::new(
        "client_auth",
        Kind::OneOf(&[Word::new("required"), Word::new("optional")]),
        "with client_ca: whether a client needs a certificate; required if left out",
    ),
]]);

/// `[admin]`
pub static ADMIN: Shape = Shape::Keys(&[&[
    Key::new("listen", Kind::Text, "the address of the HTTP API").default("127.0.0.1:10080"),
    Key::new("token", Kind::Text, "the bearer token of requests; needed where the address is not loopback"),
]]);

/// `[[pipelines]]`
pub static PIPELINE: Shape = Shape::Keys(&[&[
    Key::new("name", Kind::Text, "the pipeline's name, unique").required(),
    Key::new("source", Kind::Table(&SOURCE), "where messages come from").required(),
    Key::new("sources", Kind::Tables(&SOURCE), "several sources").later(),
    Key::new("transforms", Kind::Tables(&TRANSFORM), "the plugins that messages go through, in order")
        .default("[]"),
    Key::new("sinks", Kind::Tables(&SINK), "where messages go").required(),
    Key::new("upstreams", Kind::Json, "what each peer of the source is connected to").later(),
    Key::new(
        "dead_letter",
        Kind::Table(&DEAD_LETTER),
        "a sink for messages that failed, each with the reason; if left out they are dropped \
         and counted",
    ),
]]);

/// `[[pipelines.transforms]]`
pub static TRANSFORM: Shape = Shape::Keys(&[&[
    Key::new("plugin", Kind::Text, "the name in the plugin folder").required(),
    Key::new("name", Kind::Text, "label of the stage, unique in its pipeline; the plugin's name if left out"),
    Key::new("config", Kind::Json, "what the plugin gets as its configuration").default("{}"),
    Key::new(
        "on_error",
        Kind::OneOf(&[Word::new("dead_letter"), Word::new("drop"), Word::new("pass"), Word::new("stop")]),
        "what becomes of a message that the plugin rejects or fails on: pass forwards it \
         unchanged, stop fails the pipeline",
    )
    .default("dead_letter"),
    Key::new("retries", Kind::Integer(0, 1000), "how often a message is offered that the plugin wants again")
        .later(),
    Key::new("direction", Kind::Text, "whether it sees messages up, down, or both").later(),
    Key::new("swap", Kind::Json, "how a new version takes over").later(),
    Key::new("http", Kind::Json, "how the plugin's requests are made").later(),
    Key::new("instances", Kind::Integer(1, 1024), "parallel instances").default("1").later(),
    Key::new("key", Kind::Text, "JSON pointer or metadata:NAME; messages of one key keep their order")
        .later(),
    Key::new(
        "tick",
        Kind::SOME_DURATION,
        "how often the plugin's timer is called; what the plugin asks for if left out",
    ),
    Key::new("max_batch", Kind::Integer(1, MOST_BATCH), "most messages in one call").default("256"),
    Key::new("max_batch_bytes", SIZE, "most payload bytes in one call; one larger message goes alone")
        .default("1MiB"),
    Key::new("limits", Kind::Table(&LIMITS), "what an instance of the plugin may use").default("{}"),
    Key::new("allow", Kind::Texts, "capabilities of the plugin").default("[]").later(),
    Key::new("state", Kind::OneOf(&[Word::new("memory"), Word::later("durable")]), "where its state is kept")
        .default("memory"),
]]);

/// `limits` of a transform.
pub static LIMITS: Shape = Shape::Keys(&[&[
    Key::new("memory", Kind::Size(LEAST_MEMORY, MOST_MEMORY), "most memory of an instance").default("64MiB"),
    Key::new("deadline", Kind::SOME_DURATION, "longest time that the plugin itself may run in one call")
        .default("250ms"),
    Key::new("output", SIZE, "most bytes that one call may return").default("16MiB"),
]]);

/// `[pipelines.source]`
pub static SOURCE: Shape = Shape::Choice {
    tag: Key::new("type", Kind::Text, "what the source is").required(),
    cases: &[
        Case { word: "websocket", shape: Some(&WEBSOCKET_SOURCE) },
        Case { word: "file", shape: Some(&FILE_SOURCE) },
        Case { word: "stdin", shape: Some(&STDIN) },
        Case { word: "nats", shape: None },
    ],
};

/// `[[pipelines.sinks]]`
pub static SINK: Shape = Shape::Choice {
    tag: Key::new("type", Kind::Text, "what the sink is").required(),
    cases: &[
        Case { word: "websocket", shape: Some(&WEBSOCKET_SINK) },
        Case { word: "file", shape: Some(&FILE_SINK) },
        Case { word: "stdout", shape: Some(&STDOUT) },
        Case { word: "nats", shape: None },
        Case { word: "reply", shape: Some(&REPLY_SINK) },
    ],
};

/// `[pipelines.dead_letter]`: a sink that takes no outputs, and never a reply.
pub static DEAD_LETTER: Shape = Shape::Choice {
    tag: Key::new("type", Kind::Text, "what the sink is").required(),
    cases: &[
        Case { word: "websocket", shape: Some(&WEBSOCKET_DEAD_LETTER) },
        Case { word: "file", shape: Some(&FILE_DEAD_LETTER) },
        Case { word: "stdout", shape: Some(&STDOUT_DEAD_LETTER) },
        Case { word: "nats", shape: None },
    ],
};

static FILE_SOURCE: Shape = Shape::Keys(&[FILE, FORMAT]);
static STDIN: Shape = Shape::Keys(&[FORMAT]);
static REPLY_SINK: Shape = Shape::Keys(&[NAMED, OUTPUTS, REPLY]);
static FILE_SINK: Shape = Shape::Keys(&[NAMED, OUTPUTS, FILE, FORMAT, APPEND]);
static STDOUT: Shape = Shape::Keys(&[NAMED, OUTPUTS, FORMAT]);
static FILE_DEAD_LETTER: Shape = Shape::Keys(&[NAMED, FILE, FORMAT, APPEND]);
static STDOUT_DEAD_LETTER: Shape = Shape::Keys(&[NAMED, FORMAT]);

const FILE: &[Key] = &[Key::new("path", Kind::Path, "the file, packed if its name ends in .gz").required()];
const FORMAT: &[Key] = &[Key::new(
    "format",
    Kind::OneOf(&[Word::new("jsonl"), Word::new("recording")]),
    "jsonl: a message a line; recording: the same, each after its time in nanoseconds",
)
.default("jsonl")];
const APPEND: &[Key] = &[Key::new(
    "append",
    Kind::Bool,
    "whether lines are added to what is there; if not, the file begins anew",
)
.default("true")];
const NAMED: &[Key] =
    &[Key::new("name", Kind::Text, "the sink's name, unique in its pipeline; sink0, sink1, ... if left out")];
const OUTPUTS: &[Key] =
    &[Key::new("outputs", Kind::Texts, "the outputs of the last transform that the sink takes; [\"*\"] all")
        .default("[default]")];

static WEBSOCKET_SOURCE: Shape = Shape::Choice {
    tag: MODE,
    cases: &[
        Case {
            word: "client",
            shape: Some(&Shape::Keys(&[ENDPOINT, CLIENT, CLIENT_SIZE, WEBSOCKET_SOURCE_KEYS])),
        },
        Case {
            word: "server",
            shape: Some(&Shape::Keys(&[ENDPOINT, LISTEN, SERVER_SIZE, WEBSOCKET_SOURCE_KEYS])),
        },
    ],
};

static WEBSOCKET_SINK: Shape = Shape::Choice {
    tag: MODE,
    cases: &[
        Case {
            word: "client",
            shape: Some(&Shape::Keys(&[
                NAMED,
                OUTPUTS,
                ENDPOINT,
                CLIENT,
                CLIENT_SIZE,
                WEBSOCKET_SINK_KEYS,
                CLIENT_SINK,
            ])),
        },
        Case {
            word: "server",
            shape: Some(&Shape::Keys(&[
                NAMED,
                OUTPUTS,
                ENDPOINT,
                LISTEN,
                SERVER_SIZE,
                WEBSOCKET_SINK_KEYS,
                SERVER_SINK,
            ])),
        },
    ],
};

static WEBSOCKET_DEAD_LETTER: Shape = Shape::Choice {
    tag: MODE,
    cases: &[
        Case {
            word: "client",
            shape: Some(&Shape::Keys(&[
                NAMED,
                ENDPOINT,
                CLIENT,
                CLIENT_SIZE,
                WEBSOCKET_SINK_KEYS,
                CLIENT_SINK,
            ])),
        },
        Case {
            word: "server",
            shape: Some(&Shape::Keys(&[
                NAMED,
                ENDPOINT,
                LISTEN,
                SERVER_SIZE,
                WEBSOCKET_SINK_KEYS,
                SERVER_SINK,
            ])),
        },
    ],
};

const MODE: Key =
    Key::new("mode", Kind::Text, "client dials a url, server accepts on a path").default("client");

const PACKED: Kind =
    Kind::OneOf(&[Word::new("none"), Word::new("gzip"), Word::new("zlib"), Word::new("zstd")]);

const PAYLOAD_COMPRESSION: Key =
    Key::new("payload_compression", PACKED, "how payloads are packed within their frames").default("none");

/// Of every WebSocket endpoint.
const ENDPOINT: &[Key] = &[
    Key::new(
        "subprotocols",
        Kind::Texts,
        "client: offered, of which the server must choose one; server: accepted, the first \
         that a peer offers",
    )
    .default("[]"),
    Key::new(
        "on_connect",
        Kind::Messages,
        "client: sent after every connect; server: to every new peer; a table is sent as JSON",
    )
    .default("[]")
    .with_files(),
    Key::new("ping", Kind::Table(&PING), "WebSocket pings, which tell a silent peer from an idle one")
        .default("{}"),
    Key::new(
        "idle_timeout",
        Kind::SOME_DURATION,
        "no message for so long ends a connection; no limit if left out",
    ),
    Key::new(
        "compression",
        Kind::OneOf(&[Word::new("off"), Word::later("permessage-deflate")]),
        "compression of the WebSocket layer",
    )
    .default("off")
    .later(),
    Key::new("compression_level", Kind::Integer(1, 9), "how hard it compresses").later(),
    Key::new("compression_min_size", SIZE, "smaller messages go as they are").later(),
    Key::new("compression_context", Kind::Bool, "whether messages are compressed with the ones before")
        .later(),
    PAYLOAD_COMPRESSION,
    Key::new(
        "check_connection",
        Kind::Bool,
        "whether the pipeline starts only once the endpoint is connected, and fails \
         otherwise; server: once a peer is",
    )
    .default("false"),
];

/// Of whom we dialled, and of whom we accepted.
const CLIENT_SIZE: &[Key] = &[MAX_MESSAGE_SIZE.default("16MiB")];
const SERVER_SIZE: &[Key] = &[MAX_MESSAGE_SIZE.default("1MiB")];
const MAX_MESSAGE_SIZE: Key = Key::new(
    "max_message_size",
    SIZE,
    "a larger message ends its connection with 1009; a payload that unpacks to more is lost alone",
);

/// Of an endpoint that dials.
const CLIENT: &[Key] = &[
    Key::new("url", Kind::TextOrTexts, "ws:// or wss://; of a list each attempt takes the next")
        .required()
        .with_files(),
    Key::new("headers", Kind::Map, "headers that are sent in the handshake").default("{}").with_files(),
    Key::new("connect_timeout", Kind::SOME_DURATION, "longest time for TCP, TLS and handshake together")
        .default("10s"),
    Key::new("tls", Kind::Table(&CLIENT_TLS), "for wss://: whom to trust, and who we are").default("{}"),
    Key::new(
        "reconnect",
        Kind::Table(&RECONNECT),
        "when a connection that was lost or refused is dialled again",
    )
    .default("{}"),
    Key::new("send_interval", Kind::ANY_DURATION, "least time between two messages we send").default("0s"),
    Key::new(
        "heartbeat",
        Kind::Table(&HEARTBEAT),
        "a message of the application that is sent again and again; none if left out",
    ),
    Key::new("before_connect", Kind::Json, "a plugin that prepares each dial").later(),
];

/// `tls` in client mode.
pub static CLIENT_TLS: Shape = Shape::Keys(&[&[
    Key::new("ca", Kind::Path, "roots to trust instead of the system's, PEM"),
    Key::new("cert", Kind::Path, "our certificate chain for servers that ask for one, PEM"),
    Key::new("key", Kind::Path, "its private key, PEM"),
    Key::new("ca_base64", Kind::Text, "like ca, base64 of PEM").with_files(),
    Key::new("cert_base64", Kind::Text, "like cert, base64 of PEM").with_files(),
    Key::new("key_base64", Kind::Text, "like key, base64 of PEM").with_files(),
    Key::new("insecure_skip_verify", Kind::Bool, "whether any certificate is taken, which is for tests")
        .default("false"),
    Key::new("server_name", Kind::Text, "the name to ask for and to check; the host of the url if left out"),
]]);

/// `reconnect`
pub static RECONNECT: Shape = Shape::Keys(&[&[
    Key::new(
        "enabled",
        Kind::Bool,
        "whether it is dialled again; if not, the first loss or refusal is a failure",
    )
    .default("true"),
    Key::new("delay", Kind::SOME_DURATION, "before the first attempt; doubles with each").default("1s"),
    Key::new("max_delay", Kind::SOME_DURATION, "the longest delay").default("30s"),
    Key::new(
        "max_attempts",
        Kind::Integer(-1, u32::MAX as i64),
        "most attempts in a row, after which it has failed; -1 is no limit",
    )
    .default("-1"),
    Key::new(
        "jitter",
        Kind::Number(0.0, 1.0),
        "how much a delay d varies: it is anything from d(1 - jitter) to d(1 + jitter)",
    )
    .default("0.1"),
    Key::new(
        "reset_after",
        Kind::ANY_DURATION,
        "attempts count from 1 again after a connection that lived so long",
    )
    .default("10s"),
]]);

/// `heartbeat`
pub static HEARTBEAT: Shape = Shape::Keys(&[&[
    Key::new("interval", Kind::SOME_DURATION, "between two messages").required(),
    Key::new("message", Kind::Text, "what is sent").required().with_files(),
    Key::new(
        "reply",
        Kind::Text,
        "the answer, which is no message for the pipeline; none is waited for if left out",
    )
    .with_files(),
    Key::new("timeout", Kind::SOME_DURATION, "no answer for so long after a beat was due reconnects")
        .default("10s"),
]]);

/// `ping`
pub static PING: Shape = Shape::Keys(&[&[
    Key::new("interval", Kind::ANY_DURATION, "between two pings; 0s turns them off").default("30s"),
    Key::new(
        "timeout",
        Kind::SOME_DURATION,
        "nothing received for so long after one ends the connection, unless the peer still \
         reads what came before",
    )
    .default("10s"),
]]);

/// Of an endpoint that accepts.
const LISTEN: &[Key] = &[
    Key::new("path", Kind::Text, "the exact path, or with {name} for any one segment: /rooms/{room}")
        .default("/"),
    Key::new("host", Kind::Text, "the address to listen on; from [server] if left out"),
    Key::new("port", PORT, "the port to listen on; from [server] if left out"),
    Key::new("connect_timeout", Kind::SOME_DURATION, "with check_connection: the longest wait for a peer")
        .default("10s"),
    Key::new(
        "tls",
        Kind::Table(&SERVER_TLS),
        "the certificate, which makes it wss://; from [server] if left out",
    ),
    Key::new(
        "metadata",
        Kind::Map,
        "metadata of a connection's messages, from its handshake: \"path:NAME\", \
         \"query:NAME\", \"header:NAME\", \"cookie:NAME\", \"auth:user\", \"tls:cn\", \
         \"tls:san\", \"tls:fingerprint\"",
    )
    .default("{}"),
    Key::new("auth", Kind::Table(&AUTH), "who may connect; others get 401; everybody may if left out"),
    Key::new(
        "allowed_origins",
        Kind::Texts,
        "origins of web pages that may connect, with * for any name or for all; those of the \
         same host if left out",
    ),
    Key::new("max_connections", CONNECTIONS, "most connections of this endpoint; from [server] if left out"),
    Key::new("receive_limit", Kind::Json, "how many messages a peer may send in a time").later(),
    Key::new("subscribe", Kind::Texts, "a peer's topics at connect").later(),
    Key::new("client_protocol", Kind::Text, "how peers choose their topics").later(),
    Key::new("max_topics", QUEUE, "most topics of a peer").later(),
    Key::new("auto_reply", Kind::Map, "messages that the host answers itself").later(),
    Key::new("ack", Kind::Text, "JSON pointer of an id that a peer is told once its message is at its end")
        .later(),
    Key::new("window", SIZE, "most bytes of a connection that are under way").later(),
];

/// `auth`
pub static AUTH: Shape = Shape::Keys(&[&[
    Key::new("bearer", Kind::Texts, "tokens, each of which lets in").with_files(),
    Key::new("basic", Kind::Map, "users, and the password of each").with_files(),
    Key::new(
        "bearer_from",
        Kind::Texts,
        "where a token may stand: \"header\", \"query:NAME\", \"cookie:NAME\", \"subprotocol\"",
    )
    .default("[header]"),
    Key::new("forward", Kind::Text, "another server that decides").later(),
    Key::new("jwt", Kind::Json, "tokens that are signed").later(),
]]);

const WEBSOCKET_SOURCE_KEYS: &[Key] = &[Key::new(
    "codec",
    Kind::OneOf(&[Word::new("auto"), Word::new("json"), Word::new("text"), Word::new("bytes")]),
    "what a payload must be, or it goes to the dead letters; auto takes all as it comes, \
         bytes all as binary",
)
.default("auto")];

const WEBSOCKET_SINK_KEYS: &[Key] = &[
    MESSAGE_TYPE,
    INCLUDE_METADATA,
    Key::new("batch", Kind::Table(&BATCH), "several messages in one frame; each has its own if left out"),
];

/// Of a sink that answers on the connection a message came on.
const REPLY: &[Key] = &[MESSAGE_TYPE, INCLUDE_METADATA, PAYLOAD_COMPRESSION, PEER_BUFFER, SLOW_PEER];

const MESSAGE_TYPE: Key = Key::new(
    "message_type",
    Kind::OneOf(&[Word::new("auto"), Word::new("text"), Word::new("binary")]),
    "the frames that messages are sent as; auto: as the message is",
)
.default("auto");
const INCLUDE_METADATA: Key =
    Key::new("include_metadata", Kind::Bool, "whether metadata is added to a JSON object").default("false");

/// `batch`
pub static BATCH: Shape = Shape::Keys(&[&[
    Key::new("max_messages", QUEUE, "most messages in a frame; more than one makes every frame a JSON array")
        .default("1"),
    Key::new("linger", Kind::ANY_DURATION, "longest wait for more messages").default("0ms"),
    Key::new("max_bytes", SIZE, "most bytes in a frame").default("1MiB"),
]]);

const CLIENT_SINK: &[Key] =
    &[Key::new("buffer", Kind::Table(&BUFFER), "the messages that wait for the connection").default("{}")];

/// `buffer`
pub static BUFFER: Shape = Shape::Keys(&[&[
    Key::new("type", Kind::OneOf(&[Word::new("memory"), Word::later("disk")]), "where messages wait")
        .default("memory"),
    Key::new("capacity", QUEUE, "most messages").default("1024"),
    Key::new("max_bytes", Kind::Size(1, 64 * GIB), "most payload bytes").default("64MiB"),
    Key::new(
        "when_full",
        Kind::OneOf(&[Word::new("block"), Word::new("drop_oldest"), Word::new("drop_newest")]),
        "what happens when there is one more; block holds the source",
    )
    .default("block"),
    Key::new("path", Kind::Path, "the folder of a buffer on disk").later(),
    Key::new("max_size", Kind::Size(MIB, u64::MAX), "most bytes on disk").later(),
    Key::new("fsync", Kind::OneOf(&[Word::new("always"), Word::new("interval")]), "when it is safe on disk")
        .later(),
]]);

const PEER_BUFFER: Key =
    Key::new("peer_buffer", QUEUE, "most messages that wait for one peer").default("1024");
const SLOW_PEER: Key = Key::new(
    "slow_peer",
    Kind::OneOf(&[
        Word::new("drop_oldest"),
        Word::new("drop_newest"),
        Word::new("disconnect"),
        Word::new("block"),
        Word::later("conflate"),
    ]),
    "what happens when more would wait: disconnect closes the peer with 1013, block \
         holds the source",
)
.default("drop_oldest");

const SERVER_SINK: &[Key] = &[
    PEER_BUFFER,
    Key::new("peer_buffer_bytes", Kind::Size(1, 64 * GIB), "most bytes that wait for one peer")
        .default("8MiB"),
    SLOW_PEER,
    Key::new(
        "when_no_peers",
        Kind::OneOf(&[Word::new("drop"), Word::new("wait")]),
        "what happens to messages while nobody is connected; wait holds the source",
    )
    .default("drop"),
    Key::new(
        "replay",
        Kind::Integer(0, MOST_MESSAGES),
        "so many of the last messages are the first that a new peer gets",
    )
    .default("0"),
    Key::new("topic", Kind::Text, "only peers subscribed to this value get the message").later(),
    Key::new("max_rate", Kind::Text, "most messages of a topic to a peer").later(),
    Key::new("resume", Kind::Bool, "whether a peer that comes back gets what it missed").later(),
    Key::new("exclude_sender", Kind::Bool, "whether a peer misses what it sent itself").later(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::shape::Absent;
    use crate::config::units::{parse_duration, parse_size};

    fn every_key(shape: &'static Shape, see: &mut dyn FnMut(&'static Key)) {
        for key in shape.all_keys() {
            see(key);
            if let Kind::Table(shape) | Kind::Tables(shape) = key.kind {
                every_key(shape, see);
            }
        }
    }

    #[test]
    fn defaults_are_of_the_kind_of_their_key_and_within_its_range() {
        let mut seen = 0;
        every_key(&ROOT, &mut |key| {
            seen += 1;
            let Absent::Default(text) = key.absent else { return };
            let is_right = match key.kind {
                Kind::Text | Kind::Path => !text.is_empty(),
                Kind::Bool => matches!(text, "true" | "false"),
                Kind::Integer(least, most) => text.parse().is_ok_and(|n| (least..=most).contains(&n)),
                Kind::Number(least, most) => text.parse().is_ok_and(|n| (least..=most).contains(&n)),
                Kind::Duration(least) => parse_duration(text).is_some_and(|duration| duration >= least),
                Kind::Size(least, most) => parse_size(text).is_some_and(|n| (least..=most).contains(&n)),
                Kind::OneOf(words) => words.iter().any(|word| word.text == text && word.built),
                Kind::Texts | Kind::TextOrTexts | Kind::Messages | Kind::Tables(_) => {
                    text.starts_with('[') && text.ends_with(']')
                }
                Kind::Map | Kind::Json | Kind::Table(_) => text == "{}",
            };
            assert!(is_right, "the default of `{}` is {text:?}", key.name);
        });
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn every_key_says_what_it_does_in_one_line() {
        every_key(&ROOT, &mut |key| {
            assert!(
                !key.doc.is_empty() && !key.doc.contains('\n') && !key.doc.ends_with('.'),
                "{}",
                key.name
            );
        });
    }
}
