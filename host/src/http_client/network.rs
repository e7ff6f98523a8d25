//! The network under the requests of plugins: names resolved, and connections to addresses that were chosen.
//!
//! The two are apart so that what is looked at between them holds. Tests put another network in their place.

use crate::websocket;
use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Resolves and connects.
pub(super) trait Network: Send + Sync {
    /// The addresses of a name.
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// A connection to one of these addresses.
    fn connect(&self, addresses: Vec<SocketAddr>) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// The network that the machine is in.
pub(super) struct Internet;

impl Network for Internet {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }

    fn connect(&self, addresses: Vec<SocketAddr>) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(websocket::connect_to(addresses))
    }
}
