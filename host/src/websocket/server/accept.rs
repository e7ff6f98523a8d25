//! The server's side of the handshake: one HTTP/1.1 request, and an answer to whatever it is.
//!
//! hyper reads and writes it, so that a browser, a scanner and a health check get a proper status.
//! Whom to admit is the caller's to say; frames begin where a 101 was sent.

use super::auth::BEARER;
use super::request::Handshake;
use crate::websocket::connection::{Connection, Stream, prepare};
use crate::websocket::tls::{PeerCertificate, ServerCertificates};
use crate::websocket::upgrade::has_token;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The head of a request may take so much; a larger one gets 431, and a longer url 414.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// More headers get 431.
const MAX_HEADERS: usize = 100;
/// Most bytes that are read in vain from a peer that was not let in.
const MAX_DISCARDED_BYTES: usize = 1 << 20;
/// Read at once.
const DISCARDED_AT_ONCE_BYTES: usize = 8 << 10;
/// How long a peer that was not let in may take to hang up.
const LINGER: Duration = Duration::from_secs(1);
/// Whose credentials are asked for.
const BASIC_CHALLENGE: &str = "Basic realm=\"tidemill\", charset=\"UTF-8\"";
const BEARER_CHALLENGE: &str = "Bearer realm=\"tidemill\"";

/// How a peer that is let in is treated.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Subprotocols we accept; the first that the peer offers of them is chosen.
    pub subprotocols: Vec<String>,
    /// Whether `bearer` is chosen where none of these is offered: a browser that offers it before a
    /// token takes no other answer.
    pub offers_bearer: bool,
    /// Larger messages end the connection, in bytes.
    pub max_message_size_bytes: usize,
}

/// Why a peer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeRefusal {
    /// Nothing is at this path: 404.
    NotFound,
    /// It asks a listener of this machine alone for a name that is not this machine's: 403.
    Host,
    /// The page that the peer's script is of may not connect: 403.
    Origin,
    /// It has shown no credential that we know: 401, with what would do.
    Unauthorized {
        /// A token would.
        bearer: bool,
        /// A user and a password would.
        basic: bool,
    },
    /// A header that metadata is taken from is not UTF-8: 400.
    Unreadable,
    /// There are too many connections: 503.
    Full,
    /// What is to be at this path is not there yet: 503.
    NotOpen,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The peer was answered with this status.
    Answered(u16),
    /// It has not asked in time.
    Late,
    /// TLS could not be agreed on.
    Tls,
}

/// What is said of a peer that asks to be let in.
pub type AdmissionResult<T> = Result<(Admission, T), HandshakeRefusal>;

/// A peer that was let in.
pub struct Accepted<T> {
    /// The connection.
    pub connection: Connection,
    /// What the caller made of the handshake when it let it in.
    pub token: T,
}

/// Makes the handshake on a fresh stream; `admit` is asked once for a request that is sound. `None` if there
/// is no connection: the peer has had its answer then, or hung up.
pub async fn accept<T: Send, F: Future<Output = AdmissionResult<T>> + Send>(
    tcp: TcpStream,
    patience: Duration,
    admit: impl Fn(Handshake) -> F + Sync,
) -> Option<Accepted<T>> {
    accept_over(tcp, None, patience, admit, |_| {}).await
}

/// The same, with TLS where there are certificates. `refused` is told at once where there will be no
/// connection, unless the peer just went.
pub(super) async fn accept_over<T: Send, F: Future<Output = AdmissionResult<T>> + Send>(
    tcp: TcpStream,
    certificates: Option<&ServerCertificates>,
    patience: Duration,
    admit: impl Fn(Handshake) -> F + Sync,
    refused: impl Fn(HandshakeFailure) + Sync,
) -> Option<Accepted<T>> {
    prepare(&tcp).ok()?;
    let handshakes = async {
        let (stream, certificate) = match certificates {
            Some(certificates) => {
                let Some(secured) = Box::pin(certificates.accept(tcp)).await else {
                    refused(HandshakeFailure::Tls);
                    return Err(None);
                };
                secured
            }
            None => (Stream::Tcp(tcp), None),
        };
        upgrade(stream, certificate, admit, &refused).await.map_err(Some)
    };
    match tokio::time::timeout(patience, handshakes).await {
        Ok(Ok(accepted)) => Some(accepted),
        Ok(Err(None)) => None,
        Ok(Err(Some(stream))) => {
            let _ = tokio::time::timeout(LINGER, hang_up(stream)).await;
            None
        }
        Err(_) => {
            refused(HandshakeFailure::Late);
            None
        }
    }
}

/// What was decided about the one request of a connection.
struct Admitted<T> {
    max_message_size_bytes: usize,
    subprotocol: Option<String>,
    token: T,
}

async fn upgrade<T: Send, F: Future<Output = AdmissionResult<T>> + Send>(
    stream: Stream,
    certificate: Option<PeerCertificate>,
    admit: impl Fn(Handshake) -> F + Sync,
    refused: &(impl Fn(HandshakeFailure) + Sync),
) -> Result<Accepted<T>, Stream> {
    let admitted = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let (head, _) = request.into_parts();
        let handshake = Handshake::new(&head.uri, &head.headers, certificate.clone());
        let (admit, admitted) = (&admit, &admitted);
        Box::pin(async move {
            let answer = answer(&head, admit(handshake)).await.map(|(admission, response)| {
                *admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some(admission);
                response
            });
            Ok::<_, Infallible>(answer.unwrap_or_else(|no| {
                refused(HandshakeFailure::Answered(no.status.as_u16()));
                no.into_response()
            }))
        })
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS).title_case_headers(true);
    let mut served = builder.serve_connection(TokioIo::new(stream), service);
    // What was wrong with a request that could not be read, hyper has answered.
    if let Err(error) = poll_fn(|cx| served.poll_without_shutdown(cx)).await
        && error.is_parse()
    {
        refused(HandshakeFailure::Answered(answered(&error).as_u16()));
    }
    let http1::Parts { io, read_buf: rest, .. } = served.into_parts();
    let stream = io.into_inner();
    match admitted.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(Admitted { max_message_size_bytes, subprotocol, token }) => {
            let connection =
                Connection::new(stream, &rest, Role::Server, max_message_size_bytes, subprotocol);
            Ok(Accepted { connection, token })
        }
        None => Err(stream),
    }
}

/// What hyper answers to a request that it cannot read.
fn answered(error: &hyper::Error) -> StatusCode {
    if !error.is_parse_too_large() {
        StatusCode::BAD_REQUEST
    } else if error.to_string().contains("URI") {
        StatusCode::URI_TOO_LONG
    } else {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    }
}

/// Ends a connection whose answer is written: what is unread when a socket is dropped makes it a
/// reset, which may overtake the answer. Errors are the peer's affair now.
async fn hang_up(mut stream: Stream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let (mut discarded, mut chunk) = (0, [0; DISCARDED_AT_ONCE_BYTES]);
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        discarded += length;
        if discarded > MAX_DISCARDED_BYTES {
            return;
        }
    }
}

/// An answer that is no 101.
struct HttpRefusal {
    status: StatusCode,
    why: &'static str,
    headers: Vec<(HeaderName, &'static str)>,
}

fn no(status: StatusCode, why: &'static str) -> HttpRefusal {
    HttpRefusal { status, why, headers: Vec::new() }
}

impl HttpRefusal {
    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from_static(self.why.as_bytes())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        let is_upgrade = self.headers.iter().any(|(name, _)| name == header::UPGRADE);
        let connection = HeaderValue::from_static(if is_upgrade { "upgrade, close" } else { "close" });
        headers.insert(header::CONNECTION, connection);
        for (name, value) in self.headers {
            headers.append(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<HandshakeRefusal> for HttpRefusal {
    fn from(refusal: HandshakeRefusal) -> Self {
        match refusal {
            HandshakeRefusal::NotFound => no(StatusCode::NOT_FOUND, "nothing is at this path"),
            HandshakeRefusal::Host => no(StatusCode::FORBIDDEN, "the Host header names another machine"),
            HandshakeRefusal::Origin => no(StatusCode::FORBIDDEN, "pages of this origin may not connect"),
            HandshakeRefusal::Unauthorized { bearer, basic } => {
                let challenges = [(bearer, BEARER_CHALLENGE), (basic, BASIC_CHALLENGE)];
                let answer = no(StatusCode::UNAUTHORIZED, "a credential is missing or wrong");
                let wanted = challenges.into_iter().filter(|(is_wanted, _)| *is_wanted);
                wanted.fold(answer, |answer, (_, challenge)| answer.with(header::WWW_AUTHENTICATE, challenge))
            }
            HandshakeRefusal::Unreadable => {
                no(StatusCode::BAD_REQUEST, "a header that metadata is taken from is not UTF-8")
            }
            HandshakeRefusal::Full => no(StatusCode::SERVICE_UNAVAILABLE, "too many connections"),
            HandshakeRefusal::NotOpen => no(StatusCode::SERVICE_UNAVAILABLE, "this path is not open yet"),
        }
    }
}

/// `admitted` is awaited where the request is sound.
async fn answer<T>(
    request: &Parts,
    admitted: impl Future<Output = AdmissionResult<T>>,
) -> Result<(Admitted<T>, Response<Full<Bytes>>), HttpRefusal> {
    let headers = &request.headers;
    // One who reads the first and one who reads the last must not see two hosts (RFC 9110, section 7.2).
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(no(StatusCode::BAD_REQUEST, "Host is given more than once"));
    }
    if request.method != Method::GET {
        let refusal = no(StatusCode::METHOD_NOT_ALLOWED, "only GET opens a WebSocket");
        return Err(refusal.with(header::ALLOW, "GET"));
    }
    let is_upgrade = request.version == Version::HTTP_11
        && has_token(headers, &header::UPGRADE, "websocket")
        && has_token(headers, &header::CONNECTION, "upgrade");
    if !is_upgrade {
        // What may not connect is not told what is here.
        admitted.await?;
        let refusal = no(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint");
        return Err(refusal.with(header::UPGRADE, "websocket"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        let refusal = no(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13");
        return Err(refusal.with(header::SEC_WEBSOCKET_VERSION, "13"));
    }
    let Some(key) = key(headers) else {
        return Err(no(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64"));
    };
    if !headers.contains_key(header::HOST) {
        return Err(no(StatusCode::BAD_REQUEST, "Host is missing"));
    }
    let (Admission { subprotocols, offers_bearer, max_message_size_bytes }, token) = admitted.await?;
    let bearer = offers_bearer.then(|| BEARER.to_owned());
    let subprotocol = choose(headers, &subprotocols).or_else(|| choose(headers, bearer.as_slice()));
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key));
    if let Some(chosen) = &subprotocol {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    let response = response.body(Full::default());
    let response = response.map_err(|_| no(StatusCode::INTERNAL_SERVER_ERROR, "no answer"))?;
    Ok((Admitted { max_message_size_bytes, subprotocol, token }, response))
}

fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes();
    (BASE64_STANDARD.decode(key).ok()?.len() == 16).then_some(key)
}

/// The peer's order of preference decides.
fn choose(headers: &HeaderMap, accepted: &[String]) -> Option<String> {
    let offers =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut offers = offers.flat_map(|value| value.split(',')).map(str::trim);
    offers.find(|offer| accepted.iter().any(|name| name == offer)).map(str::to_owned)
}
