//! Dialling: TCP, TLS, the HTTP/1.1 upgrade, and then frames; all of it within `connect_timeout`.
//!
//! The handshake is hyper's, so that a refusal is read as what it is: a status, a reason to wait, a
//! redirect that is not followed. [`ConnectError`] says it in the words users know.

use super::connect_error::{ConnectError, Problem};
use super::connection::Connection;
use super::stream::Stream;
use super::target::Target;
use super::tls;
use crate::config::{Client, Redacted};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, Parts};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::pin::pin;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::Role;

/// What to dial, and how.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// The url, one of the client's.
    pub url: &'a Redacted,
    /// Headers, timeout, trust.
    pub client: &'a Client,
    /// Offered; the server must choose one of them, if there are any.
    pub subprotocols: &'a [String],
    /// Larger messages end the connection, in bytes.
    pub max_message_size_bytes: usize,
}

/// Dials once.
///
/// # Errors
/// Why there is no connection.
///
/// # Cancel safety
/// Dropping the future drops the half-made connection.
pub async fn connect(dial: Dial<'_>) -> Result<Connection, ConnectError> {
    let patience = dial.client.connect_timeout;
    let dialled = tokio::time::timeout(patience, dial.upgrade()).await;
    let dialled = dialled.unwrap_or(Err(Problem::Timeout(patience)));
    dialled.map_err(|problem| ConnectError::new(dial.url, problem))
}

impl Dial<'_> {
    async fn upgrade(&self) -> Result<Connection, Problem> {
        let target = Target::parse(self.url).map_err(Problem::Url)?;
        let key = generate_key();
        let request = self.request(&target, &key)?;
        let stream = self.stream(&target).await?;
        let (response, parts) = exchange(stream, request).await?;
        let Some(Parts { io, read_buf, .. }) = parts else {
            return Err(Problem::of_answer(&response));
        };
        let subprotocol = self.check(&response, &key)?;
        let limit = self.max_message_size_bytes;
        Ok(Connection::new(io.into_inner(), read_buf, Role::Client, limit, subprotocol))
    }

    async fn stream(&self, target: &Target) -> Result<Stream, Problem> {
        let tcp = TcpStream::connect((&*target.host, target.port)).await.map_err(Problem::Tcp)?;
        tcp.set_nodelay(true).map_err(Problem::Tcp)?;
        if !target.is_tls {
            return Ok(Stream::Tcp(tcp));
        }
        let config = tls::client_config(&self.client.tls).await.map_err(Problem::tls)?;
        let name = self.client.tls.server_name.as_ref().map_or(&*target.host, Redacted::expose);
        let name = ServerName::try_from(name.to_owned());
        let name = name.map_err(|_| Problem::tls("the name to check is not a DNS name or an IP address"))?;
        let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| Problem::of_tls(&e))?;
        Ok(Stream::Tls(Box::new(tls.into())))
    }

    fn request(&self, target: &Target, key: &str) -> Result<Request<Empty<Bytes>>, Problem> {
        let mut request = Request::builder()
            .uri(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::UPGRADE, "websocket")
            .header(header::CONNECTION, "Upgrade")
            .header(header::SEC_WEBSOCKET_KEY, key)
            .header(header::SEC_WEBSOCKET_VERSION, "13");
        if !self.subprotocols.is_empty() {
            request = request.header(header::SEC_WEBSOCKET_PROTOCOL, self.subprotocols.join(", "));
        }
        let request = request.body(Empty::new());
        let mut request = request.map_err(|error| Problem::Handshake(error.to_string()))?;
        if let Some(user_info) = &target.user_info {
            let credentials = BASE64_STANDARD.encode(percent_decoded(user_info));
            set(request.headers_mut(), "authorization", &format!("Basic {credentials}"))?;
        }
        for (name, value) in &self.client.headers {
            set(request.headers_mut(), name, value.expose())?;
        }
        Ok(request)
    }

    /// Whether a 101 is an answer to our request; the subprotocol it chose.
    fn check(
        &self,
        response: &Response<hyper::body::Incoming>,
        key: &str,
    ) -> Result<Option<String>, Problem> {
        let headers = response.headers();
        let is_upgrade = super::has_token(headers, &header::UPGRADE, "websocket")
            && super::has_token(headers, &header::CONNECTION, "upgrade");
        if !is_upgrade {
            return Err(Problem::Handshake("the answer does not upgrade to websocket".to_owned()));
        }
        let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if accept != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(Problem::Handshake("Sec-WebSocket-Accept is wrong".to_owned()));
        }
        if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
            return Err(Problem::Handshake("the server uses an extension that was not offered".to_owned()));
        }
        let chosen = headers.get(header::SEC_WEBSOCKET_PROTOCOL);
        let chosen = chosen.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let is_agreed = match &chosen {
            Some(chosen) => self.subprotocols.contains(chosen),
            None => self.subprotocols.is_empty(),
        };
        if is_agreed {
            Ok(chosen)
        } else {
            Err(Problem::Subprotocol { offered: self.subprotocols.join(", "), chosen })
        }
    }
}

type Exchanged = (Response<hyper::body::Incoming>, Option<Parts<TokioIo<Stream>>>);

/// Sends the request and reads the head of the answer; gives the stream back if that is a 101.
async fn exchange(stream: Stream, request: Request<Empty<Bytes>>) -> Result<Exchanged, Problem> {
    let mut builder = http1::Builder::new();
    // Some servers compare header names as the RFC writes them.
    builder.title_case_headers(true);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|e| Problem::of_http(&e))?;
    let mut answer = pin!(sender.send_request(request));
    let mut connection = pin!(connection.without_shutdown());
    let mut parts = None;
    let response = loop {
        tokio::select! {
            biased;
            response = &mut answer => break response.map_err(|e| Problem::of_http(&e))?,
            ended = &mut connection, if parts.is_none() => parts = Some(ended),
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok((response, None));
    }
    let parts = match parts {
        Some(parts) => parts,
        None => connection.await,
    };
    Ok((response, Some(parts.map_err(|e| Problem::of_http(&e))?)))
}

/// A header of the configuration replaces one of ours.
fn set(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Problem> {
    let invalid = || Problem::Handshake(format!("header {name:?} is not a valid HTTP header"));
    let header_name = HeaderName::try_from(name).map_err(|_| invalid())?;
    let mut header_value = HeaderValue::try_from(value).map_err(|_| invalid())?;
    header_value.set_sensitive(true);
    headers.insert(header_name, header_value);
    Ok(())
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                rest = &tail[2..];
            }
            None => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_that_escape_nothing_stay() {
        assert_eq!(percent_decoded("a%3Ab%zz%4"), b"a:b%zz%4");
    }
}
