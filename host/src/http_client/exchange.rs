//! One request and its answer, on a connection of their own.
//!
//! The answer is read while it comes, and given up where it grows beyond its bound; nothing is unpacked. Whatever
//! a server sends, it costs its own request alone.

use super::failed;
use super::request::CheckedRequest;
use crate::config::HttpUrl;
use crate::plugin::{AnswerRoom, HttpError, HttpResponse};
use crate::websocket::{ByteStream, secure};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io::{self, ErrorKind};
use std::pin::pin;
use tokio::net::TcpStream;

/// The head of an answer.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;

/// An answer, which may lead on.
#[derive(Debug)]
pub(super) struct ServerAnswer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Sends the request and reads the answer, of `max_bytes` at most.
///
/// # Errors
/// Why there is none.
pub(super) async fn exchange(
    tcp: TcpStream,
    request: &CheckedRequest,
    max_bytes: usize,
    room: &AnswerRoom,
) -> Result<ServerAnswer, HttpError> {
    let url = &request.url;
    let stream = if url.is_tls {
        secure(tcp, &url.host_name()).await.map_err(|why| failed(url, &why))?
    } else {
        ByteStream::from(tcp)
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| of_http(url, &error))?;
    let sent = request.to_http()?;
    let mut answer = pin!(async {
        let response = sender.send_request(sent).await.map_err(|error| of_http(url, &error))?;
        read(url, response, max_bytes, room).await
    });
    let mut connection = pin!(connection);
    let mut is_over = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // What went wrong with it, the answer tells.
            _ = &mut connection, if !is_over => is_over = true,
        }
    }
}

async fn read(
    url: &HttpUrl,
    response: Response<Incoming>,
    max_bytes: usize,
    room: &AnswerRoom,
) -> Result<ServerAnswer, HttpError> {
    let too_large = || HttpError::TooLarge(max_bytes as u64);
    let (head, mut body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(failed(url, "it switches protocols, which nobody asked for"));
    }
    let head_bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if body.size_hint().lower() > max_bytes as u64 || !room.take(head_bytes) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| of_http(url, &error))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > max_bytes - bytes.len() || !room.take(data.len()) {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(ServerAnswer { status: head.status, headers: head.headers, body: bytes })
}

impl ServerAnswer {
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Where it leads, if it does.
    pub(super) fn redirection(&self) -> Option<&str> {
        let leads = matches!(self.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = self.headers.get(header::LOCATION).filter(|_| leads)?;
        // What is not ASCII is refused with the url it makes.
        Some(location.to_str().unwrap_or("\\"))
    }

    pub(super) fn into_response(self) -> HttpResponse {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = self.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
        HttpResponse { status: self.status.as_u16(), headers: headers.collect(), body: self.body }
    }
}

fn of_http(url: &HttpUrl, error: &hyper::Error) -> HttpError {
    let cause = std::error::Error::source(error);
    let is_end = cause
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == ErrorKind::UnexpectedEof);
    let why = if is_end || error.is_incomplete_message() || error.is_closed() {
        "the connection ended before the answer did".to_owned()
    } else if error.is_parse() {
        format!("the answer is not HTTP: {error}")
    } else {
        let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
        format!("{error}{cause}")
    };
    failed(url, &why)
}
