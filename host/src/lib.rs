//! Tidemill: a host that owns all WebSocket input and output, and runs WebAssembly plugins on the
//! messages in between.
//!
//! This is the interface for programs that embed the host: [`app::Host`] with its [`config`]uration, its
//! [`control::Handle`], [`telemetry::Metrics`] and [`connections::Connections`], and single ends
//! ([`source::Source`], [`sink::Sink`]) and connections ([`websocket`]). The command `tidemill` needs none of
//! it; `ARCHITECTURE.md` has the map of the code.
//!
//! # A host in your program
//!
//! A pipeline is built of a source, transforms and sinks; what is not said has the default that it
//! has in `tidemill.toml`. [`app::Host`] runs pipelines, its [`control::Handle`] adds, starts, stops and
//! removes them, and [`telemetry::Metrics`] tells what went through:
//!
//! ```
//! use tidemill::app::Host;
//! use tidemill::config::{Config, Endpoint, Format, Pipeline, Plugins, Server, SinkKind, SourceConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! # std::fs::write(folder.join("in.jsonl"), "{\"price\":1}\n{\"price\":2}\n")?;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! // Lines of a file go to another file, and to whoever is connected to ws://127.0.0.1:PORT/prices.
//! let server = Server { port: 0, ..Server::default() };
//! let prices = Pipeline::new("prices", SourceConfig::file(folder.join("in.jsonl"), Format::Jsonl))
//!     .to(SinkKind::file(folder.join("out.jsonl"), Format::Jsonl))
//!     .to(Endpoint::server("/prices", &server));
//!
//! let (dir, cache) = (folder.join("plugins").into(), folder.join("cache").into());
//! let plugins = Plugins { dir, cache, ..Plugins::default() };
//! let host = Host::start(Config { plugins, ..Config::default() }).await?;
//! host.handle().add(prices).await?;
//!
//! let metrics = host.metrics().clone();
//! host.ended().await?; // The file has an end, and so has the pipeline.
//! assert_eq!(metrics.received_count("prices"), 2);
//! assert_eq!(metrics.delivered_count("prices", "sink0"), 2);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! With a plugin from a folder, on a feed that is dialled again whenever it is lost, until the program
//! has had enough:
//!
//! ```no_run
//! use tidemill::app::Host;
//! use tidemill::config::{Config, Endpoint, OnError, Pipeline, PluginConfig, Server, Transform};
//! use tidemill::config::{WebSocketSink, SlowPeer};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut vwap = Transform::new("vwap"); // plugins/vwap.wasm
//! vwap.config = PluginConfig::plain(r#"{ "window": "1m" }"#);
//! vwap.on_error = OnError::Drop;
//!
//! let mut served = WebSocketSink::new(Endpoint::server("/vwap", &Server::default()));
//! served.peers.slow = SlowPeer::Disconnect;
//!
//! let trades = Endpoint::client("wss://stream.binance.com:9443/ws/btcusdt@trade");
//! let pipeline = Pipeline::new("trades", trades).through(vwap).to(served);
//! let host = Host::start(Config { pipelines: vec![pipeline], ..Config::default() }).await?;
//!
//! tokio::signal::ctrl_c().await?;
//! for endpoint in host.connections().list() {
//!     println!("{} is {:?}", endpoint.address, endpoint.state);
//! }
//! host.stop().await?; // What is in flight reaches its end first.
//! # Ok(())
//! # }
//! ```
//!
//! A configuration file is read by [`config::load`], and a pipeline that comes as JSON by
//! [`config::BodyReader`]; both give the same types. One end alone, without a pipeline, is a
//! [`source::Source`] or a [`sink::Sink`] that is polled; one connection alone is
//! [`websocket::connect()`]. Whether an endpoint can be reached says [`websocket::reach`].

pub mod app;
pub mod config;
pub mod connections;
pub mod control;
pub mod http_client;
pub mod message;
pub mod reason;
pub mod sink;
pub mod source;
pub mod telemetry;
pub mod verdict;
pub mod websocket;

// The binary has its `main` here, and the tests and benchmarks of this repository take the rest: nothing of it is
// promised to anyone.
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod connector;
#[doc(hidden)]
pub mod dead_letters;
#[doc(hidden)]
pub mod generation;
#[doc(hidden)]
pub mod packing;
#[doc(hidden)]
pub mod pipeline;
#[doc(hidden)]
pub mod plugin;
#[doc(hidden)]
pub mod store;

mod access;
mod admin;
mod backoff;
mod builtin;
mod copying;
mod file_watch;
mod foreign_text;
mod interrupt;
mod plugin_folder;
mod plugin_history;
mod recording;
mod shutdown;
mod wait_budget;
