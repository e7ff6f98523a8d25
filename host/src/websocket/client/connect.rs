//! Dialling: TCP, TLS, the HTTP/1.1 upgrade, and then frames; all of it within `connect_timeout`.
//!
//! The handshake is hyper's, so that a refusal is read as what it is: a status, a reason to wait, a
//! redirect that is not followed. [`ConnectError`] says it in the words users know.

use super::before_connect::FreshDial;
use super::connect_error::{ConnectError, ConnectProblem};
use super::request::{HttpAnswer, exchange};
use super::{proxy, url};
use crate::config::{Client, ClientTls, Endpoint, EndpointText, Redacted, WebSocketUrl};
use crate::websocket::connection::{Connection, Stream};
use crate::websocket::secret::{Secrets, resolved};
use crate::websocket::tls;
use crate::websocket::upgrade::has_token;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::Role;

/// What to dial, and how.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// The url, one of the client's as a rule.
    pub url: &'a EndpointText,
    /// Sent in the handshake.
    pub headers: &'a [(String, EndpointText)],
    /// Timeout, trust, proxies.
    pub client: &'a Client,
    /// Offered; the server must choose one of them, if there are any.
    pub subprotocols: &'a [Redacted],
    /// Larger messages end the connection, in bytes.
    pub max_message_size_bytes: usize,
}

impl<'a> Dial<'a> {
    /// One url of a client endpoint, and what the endpoint says of connections.
    pub fn of(endpoint: &'a Endpoint, client: &'a Client, url: &'a EndpointText) -> Self {
        Self {
            url,
            headers: &client.headers,
            client,
            subprotocols: &endpoint.subprotocols,
            max_message_size_bytes: endpoint.max_message_size_bytes,
        }
    }
}

/// Dials once.
///
/// # Errors
/// Why there is no connection.
///
/// # Cancel safety
/// Dropping the future drops the half-made connection.
pub async fn connect(dial: Dial<'_>) -> Result<Connection, ConnectError> {
    let mut secrets = Secrets::default();
    dial.within(Box::pin(dial.upgrade(&mut secrets))).await
}

impl<'a> Dial<'a> {
    /// The same dial with what a plugin says in the place of what the configuration does.
    pub(super) fn with(self, fresh: &'a FreshDial) -> Self {
        Self { url: &fresh.url, headers: &fresh.headers, subprotocols: &fresh.subprotocols, ..self }
    }

    /// Does the work of a dial within its `connect_timeout`.
    pub(super) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, ConnectProblem>>,
    ) -> Result<T, ConnectError> {
        let patience = self.client.connect_timeout;
        let done = tokio::time::timeout(patience, work).await;
        let done = done.unwrap_or(Err(ConnectProblem::Timeout(patience)));
        done.map_err(|problem| ConnectError::new(self.url, problem))
    }

    /// Dials; what the peer is given and is not shown is added to `secrets`. Each file is read once, so that
    /// what is hidden afterwards is what was sent.
    pub(super) async fn upgrade(&self, secrets: &mut Secrets) -> Result<Connection, ConnectProblem> {
        let url = resolved(self.url).await.map_err(ConnectProblem::Secret)?;
        secrets.add(&url);
        let target = url::parse(&url).map_err(ConnectProblem::Url)?;
        let key = generate_key();
        let request = self.request(&target, &key, secrets).await?;
        let stream = self.stream(&target).await?;
        let HttpAnswer { response, granted } =
            exchange(stream, request, StatusCode::SWITCHING_PROTOCOLS).await?;
        let Some((stream, rest)) = granted else { return Err(ConnectProblem::of_answer(&response)) };
        let subprotocol = self.check(&response, &key)?;
        Ok(Connection::new(stream, &rest, Role::Client, self.max_message_size_bytes, subprotocol))
    }

    async fn stream(&self, target: &WebSocketUrl) -> Result<Stream, ConnectProblem> {
        let tcp = proxy::connect_tcp(target, &self.client.proxies).await?;
        if !target.is_tls {
            return Ok(Stream::Tcp(tcp));
        }
        let name = self.client.tls.server_name.as_ref().map_or(&*target.host, Redacted::expose);
        over_tls(tcp, name, &self.client.tls).await
    }

    async fn request(
        &self,
        target: &WebSocketUrl,
        key: &str,
        secrets: &mut Secrets,
    ) -> Result<Request<Empty<Bytes>>, ConnectProblem> {
        let mut request = Request::builder()
            .uri(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::UPGRADE, "websocket")
            .header(header::CONNECTION, "Upgrade")
            .header(header::SEC_WEBSOCKET_KEY, key)
            .header(header::SEC_WEBSOCKET_VERSION, "13");
        if !self.subprotocols.is_empty() {
            request = request.header(header::SEC_WEBSOCKET_PROTOCOL, self.offered(Redacted::expose));
        }
        let request = request.body(Empty::new());
        let mut request = request.map_err(|error| ConnectProblem::Handshake(error.to_string()))?;
        if let Some(user_info) = &target.user_info {
            let credentials = BASE64_STANDARD.encode(percent_decode_str(user_info).collect::<Vec<u8>>());
            set(request.headers_mut(), "authorization", &format!("Basic {credentials}"))?;
        }
        for (name, value) in self.headers {
            let value = resolved(value).await.map_err(ConnectProblem::Secret)?;
            secrets.add(&value);
            set(request.headers_mut(), name, value.expose())?;
        }
        Ok(request)
    }

    /// Whether a 101 is an answer to our request; the subprotocol it chose.
    fn check(&self, response: &Response<Incoming>, key: &str) -> Result<Option<String>, ConnectProblem> {
        let headers = response.headers();
        let is_upgrade = has_token(headers, &header::UPGRADE, "websocket")
            && has_token(headers, &header::CONNECTION, "upgrade");
        if !is_upgrade {
            return Err(ConnectProblem::Handshake("the answer does not upgrade to websocket".to_owned()));
        }
        let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if accept != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(ConnectProblem::Handshake("Sec-WebSocket-Accept is wrong".to_owned()));
        }
        if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
            return Err(ConnectProblem::Handshake(
                "the server uses an extension that was not offered".to_owned(),
            ));
        }
        let chosen = headers.get(header::SEC_WEBSOCKET_PROTOCOL);
        let chosen = chosen.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let agreed = self.subprotocols.iter().find(|name| Some(name.expose()) == chosen.as_deref());
        match (agreed, chosen) {
            (Some(agreed), _) => Ok(Some(agreed.shown().to_owned())),
            (None, None) if self.subprotocols.is_empty() => Ok(None),
            (None, chosen) => {
                Err(ConnectProblem::Subprotocol { offered: self.offered(Redacted::shown), chosen })
            }
        }
    }

    fn offered(&self, text: impl Fn(&Redacted) -> &str) -> String {
        self.subprotocols.iter().map(text).collect::<Vec<_>>().join(", ")
    }
}

/// TLS over a connection, as what a server of this name speaks to us; system roots are trusted.
///
/// # Errors
/// A sentence that says why there is none.
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub(crate) async fn secure(tcp: TcpStream, name: &str) -> Result<Stream, String> {
    over_tls(tcp, name, &ClientTls::default()).await.map_err(|problem| problem.to_string())
}

async fn over_tls(tcp: TcpStream, name: &str, tls: &ClientTls) -> Result<Stream, ConnectProblem> {
    let config = tls::client_config(tls).await.map_err(ConnectProblem::tls)?;
    let name = ServerName::try_from(name.to_owned());
    let name =
        name.map_err(|_| ConnectProblem::tls("the name to check is not a DNS name or an IP address"))?;
    let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| ConnectProblem::of_tls(&e))?;
    Ok(Stream::Tls(Box::new(tls.into())))
}

/// A header of the configuration replaces one of ours.
fn set(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), ConnectProblem> {
    let invalid = || ConnectProblem::Handshake(format!("header {name:?} is not a valid HTTP header"));
    let header_name = HeaderName::try_from(name).map_err(|_| invalid())?;
    let mut header_value = HeaderValue::try_from(value).map_err(|_| invalid())?;
    header_value.set_sensitive(true);
    headers.insert(header_name, header_value);
    Ok(())
}
