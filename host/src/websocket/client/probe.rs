//! A look at a client endpoint: a dial of each url until one answers, what is found there, and a polite end.

use super::connect::{Dial, connect};
use super::connect_error::{ConnectError, ConnectProblem};
use super::url;
use crate::config::{Endpoint, EndpointText, Mode};
use crate::websocket::close_code;
use crate::websocket::connection::TlsFacts;
use std::fmt;
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

/// Why none of an endpoint's urls could be connected to.
#[derive(Debug)]
pub struct ProbeError {
    errors: Vec<ConnectError>,
}

impl Endpoint {
    /// Dials the urls of a client endpoint in turn, each once, until one answers; sends nothing but what a
    /// handshake needs, and closes the connection with 1000.
    ///
    /// # Errors
    /// Why there is no connection; also for a server endpoint, which others dial.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn probe(&self) -> Result<Probed, ProbeError> {
        let Mode::Client(client) = &self.mode else {
            let why = "a server endpoint is dialled by its peers".to_owned();
            let error = ConnectError::new(&EndpointText::plain(""), ConnectProblem::Url(why));
            return Err(ProbeError { errors: vec![error] });
        };
        let mut errors = Vec::new();
        for url in &client.urls {
            match probe(Dial::of(self, client, url)).await {
                Ok(probed) => return Ok(probed),
                Err(error) => errors.push(error),
            }
        }
        Err(ProbeError { errors })
    }
}

impl ProbeError {
    /// What went wrong at each url, in turn.
    pub fn errors(&self) -> &[ConnectError] {
        &self.errors
    }

    /// Where to look, if that is known of one of them.
    pub fn hint(&self) -> Option<&'static str> {
        self.errors.iter().find_map(ConnectError::hint)
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<_> = self.errors.iter().map(ConnectError::to_string).collect();
        f.write_str(&errors.join("; "))
    }
}

impl std::error::Error for ProbeError {}

/// Dials once, looks, and closes the connection.
async fn probe(dial: Dial<'_>) -> Result<Probed, ConnectError> {
    let start = Instant::now();
    let mut connection = connect(dial).await?;
    let probed = Probed {
        url: url::shown(dial.url),
        peer: connection.stream().peer(),
        subprotocol: connection.subprotocol().map(str::to_owned),
        tls: connection.stream().tls(),
        took: start.elapsed(),
    };
    connection.close(close_code::NORMAL, "probe done");
    poll_fn(|cx| connection.poll_closed(cx)).await;
    Ok(probed)
}
