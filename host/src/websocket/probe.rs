//! A look at a client endpoint: one dial, what is found there, and a polite end.

use super::close_code;
use super::connect::{Dial, connect};
use super::connect_error::{ConnectError, Problem};
use super::stream::TlsFacts;
use super::target;
use crate::config::{Endpoint, EndpointText, Mode};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a probe found: the endpoint can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The url that was dialled, as it may be shown.
    pub url: String,
    /// The other end of the TCP connection: the peer, or the proxy on the way to it.
    pub peer: Option<SocketAddr>,
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<String>,
    /// TLS, where the url is `wss://`.
    pub tls: Option<TlsFacts>,
    /// TCP, TLS and handshake together.
    pub took: Duration,
}

impl Endpoint {
    /// Dials the first url of a client endpoint once, sends nothing but what a handshake needs, and closes
    /// the connection with 1000.
    ///
    /// # Errors
    /// Why there is no connection; also for a server endpoint, which others dial.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn probe(&self) -> Result<Probed, ConnectError> {
        let none = EndpointText::plain("");
        let Mode::Client(client) = &self.mode else {
            let why = "a server endpoint is dialled by its peers".to_owned();
            return Err(ConnectError::new(&none, Problem::Url(why)));
        };
        probe(Dial::of(self, client, client.urls.first().unwrap_or(&none))).await
    }
}

/// Dials once, looks, and closes the connection.
pub(super) async fn probe(dial: Dial<'_>) -> Result<Probed, ConnectError> {
    let start = Instant::now();
    let mut connection = connect(dial).await?;
    let probed = Probed {
        url: target::shown(dial.url),
        peer: connection.stream().peer(),
        subprotocol: connection.subprotocol().map(str::to_owned),
        tls: connection.stream().tls(),
        took: start.elapsed(),
    };
    connection.close(close_code::NORMAL, "probe done");
    poll_fn(|cx| connection.poll_closed(cx)).await;
    Ok(probed)
}
