//! The configuration as the rest of the host sees it: validated, with defaults filled in.
//!
//! `config/file.rs` makes it out of a TOML file; code that embeds the host makes it directly. Each table of
//! the file is declared once, by the type that it becomes (`config/table.rs` says how): `root`, `pipeline`,
//! `endpoint`, `client`, `listen` and `auth` have the declarations.

#[macro_use]
mod table;

mod agree;
mod agreements;
mod auth;
mod before_connect;
mod body;
mod client;
mod comparison;
mod compose;
mod endpoint;
pub mod error;
mod file;
mod files;
mod form;
mod from_handshake;
mod header;
mod http;
mod http_grant;
mod http_url;
mod inherited;
mod interpolate;
mod json;
mod json_tree;
mod listen;
mod message_key;
mod names;
mod origin;
mod part_file;
mod path;
mod pipeline;
mod places;
mod plugin_config;
mod plugin_use;
mod quotation;
mod read;
mod redacted;
mod reference;
mod reload_file;
mod report;
mod root;
mod schema;
mod server;
mod server_tls;
mod shape;
mod shared_keys;
mod swap;
mod text;
pub mod units;
mod url;
mod written;

pub use agreements::{Agreements, Before, BeforeAll, Disagreement, Reconfigured};
pub use auth::{Auth, BearerFrom};
pub use before_connect::ConnectorSettings;
pub use body::{BodyError, BodyReader, Mistake};
pub use client::{Client, ClientTls, Heartbeat, Proxies, Reconnect, is_of_handshake};
pub use comparison::{PipelineChanges, StageChange};
pub use endpoint::{
    Batch, Buffer, Codec, Endpoint, MessageType, Mode, Packing, Peers, Ping, ReplySink, SlowPeer,
    WebSocketSink, WebSocketSource, WhenFull, WhenNoPeers,
};
pub use error::{ConfigError, ConfigErrors};
pub use file::{Loaded, load, parse};
pub use from_handshake::FromHandshake;
pub use http::{HttpSettings, is_reserved_header};
pub use http_grant::{GrantError, HttpGrant, NotGranted, granted};
pub use http_url::{HttpHost, HttpUrl, HttpUrlError};
pub use listen::Listen;
pub use message_key::MessageKey;
pub use names::is_loopback;
pub use origin::AllowedOrigins;
pub(crate) use part_file::PartFile;
pub use path::{PathError, PathPattern};
pub use pipeline::{
    FileSink, FileSource, Format, OnError, Outputs, Pipeline, SinkConfig, SinkKind, SourceConfig, StateStore,
    StdinSource, StdoutSink, Transform,
};
pub use places::{Part, PipelinePart, Places};
pub use plugin_config::PluginConfig;
pub use plugin_use::Limits;
pub use redacted::Redacted;
pub use reference::reference;
pub use reload_file::{ReloadFile, Reread};
pub(crate) use root::MOST_PLUGIN_BYTES;
pub use root::{Admin, Config, Plugins, StateFolder};
pub use schema::schema;
pub use server::Server;
pub use server_tls::{ClientCertificates, Identity, ServerTls};
pub use shape::nearest;
pub use swap::{MOST_SHADOWED, SwapSettings};
pub use text::{EndpointText, FilePath, Pem, SecretError, without_user_info};
pub use url::{UrlError, WebSocketUrl};

use std::collections::BTreeMap;

/// The environment that `${NAME}` is looked up in.
pub type Environment = BTreeMap<String, String>;

/// The label of a pipeline's source, in metrics, logs and dead letters.
pub const SOURCE: &str = "source";
/// The label of its dead-letter sink.
pub const DEAD_LETTER: &str = "dead_letter";

/// Most sinks of one pipeline: which of them take a message is one bit each.
pub const MAX_SINKS: usize = 64;
