//! A look at a client endpoint: a dial of each url until one answers, what is found there, and a polite end.

use super::before_connect::{BeforeConnect, Question, ask};
use super::connect::{Dial, connect};
use super::connect_error::{ConnectError, ConnectProblem};
use super::url;
use crate::config::{Endpoint, EndpointText, Mode};
use crate::websocket::close_code;
use crate::websocket::connection::TlsFacts;
use crate::websocket::secret::Secrets;
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
        self.probe_asking(None).await
    }

    /// The same, where `connector` is asked before each dial.
    ///
    /// # Errors
    /// As [`Endpoint::probe`].
    ///
    /// # Cancel safety
    /// As [`Endpoint::probe`].
    pub async fn probe_asking(&self, connector: Option<&dyn BeforeConnect>) -> Result<Probed, ProbeError> {
        let Mode::Client(client) = &self.mode else {
            let why = "a server endpoint is dialled by its peers".to_owned();
            let error = ConnectError::new(&EndpointText::plain(""), ConnectProblem::Url(why));
            return Err(ProbeError { errors: vec![error] });
        };
        let mut errors: Vec<ConnectError> = Vec::new();
        for (number, url) in (1..).zip(&client.urls) {
            let dial = Dial::of(self, client, url);
            let probed = match connector {
                None => probe(dial).await,
                Some(connector) => {
                    let last = errors.last().map(ConnectError::ending);
                    probe_fresh(dial, connector, Question { endpoint: self, client, url, number, last }).await
                }
            };
            match probed {
                Ok(probed) => return Ok(probed),
                Err(error) => errors.push(error),
            }
        }
        Err(ProbeError { errors })
    }
}

/// Asks what is to be dialled, and probes that.
async fn probe_fresh(
    dial: Dial<'_>,
    connector: &dyn BeforeConnect,
    question: Question<'_>,
) -> Result<Probed, ConnectError> {
    let mut secrets = Secrets::default();
    let fresh = ask(connector, question, &mut secrets).await;
    let fresh = fresh.map_err(|problem| ConnectError::new(dial.url, problem).planned())?;
    probe(dial.with(&fresh)).await.map_err(|error| error.concealing(&secrets).planned())
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
