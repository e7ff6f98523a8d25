//! The host in a program of your own: a feed goes through a plugin, and what comes out goes to a file and
//! to whoever connects.
//!
//!     cargo xtask plugins -o plugins
//!     cargo run --example embed -- wss://feed.example.com/orders
//!
//! It runs until ctrl-c. A new `plugins/filter.wasm` is swapped in meanwhile.

#![allow(clippy::print_stdout, reason = "it tells its user what it does")]

use std::error::Error;
use tidemill::app::Host;
use tidemill::config::{Config, Endpoint, Format, Pipeline, PluginConfig, Server, SinkKind, Transform};

/// What the plugin is told, as it would be in `tidemill.toml`.
const BUYS: &str = r#"{ "where": [{ "field": "/side", "op": "eq", "value": "buy" }] }"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("name the url of a feed")?;
    let server = Server::default();
    let mut filter = Transform::new("filter");
    filter.config = PluginConfig::plain(BUYS);

    let pipeline = Pipeline::new("buys", Endpoint::client(url))
        .through(filter)
        .to(SinkKind::file("buys.jsonl", Format::Jsonl))
        .to(Endpoint::server("/buys", &server));
    let host = Host::start(Config { pipelines: vec![pipeline], ..Config::default() }).await?;
    println!("buys go to buys.jsonl and to ws://{}:{}/buys", server.host, server.port);

    tokio::signal::ctrl_c().await?;
    let metrics = host.metrics().clone();
    host.stop().await?; // What is in flight reaches its end first.
    let (received, written) = (metrics.received_count("buys"), metrics.delivered_count("buys", "sink0"));
    println!("{written} of {received} messages were buys");
    Ok(())
}
