//! One HTTP/1.1 request on a stream of its own, and the stream back where the answer grants it.

use super::connect_error::ConnectProblem;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Parts};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// The head of an answer, and what a granted request leaves: the stream, and what was read beyond.
pub(super) struct HttpAnswer<S> {
    pub(super) response: Response<Incoming>,
    /// `None` where the status is not the one that grants the stream.
    pub(super) granted: Option<(S, Bytes)>,
}

/// Sends the request and reads the head of the answer; `grant` is the status that makes the stream ours.
pub(super) async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
    grant: StatusCode,
) -> Result<HttpAnswer<S>, ConnectProblem>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    // Some servers compare header names as the RFC writes them.
    builder.title_case_headers(true);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|e| ConnectProblem::of_http(&e))?;
    let mut answer = pin!(sender.send_request(request));
    let mut connection = pin!(connection.without_shutdown());
    let mut parts = None;
    let response = loop {
        tokio::select! {
            biased;
            response = &mut answer => break response.map_err(|e| ConnectProblem::of_http(&e))?,
            ended = &mut connection, if parts.is_none() => parts = Some(ended),
        }
    };
    if response.status() != grant {
        return Ok(HttpAnswer { response, granted: None });
    }
    let parts = match parts {
        Some(parts) => parts,
        None => connection.await,
    };
    let Parts { io, read_buf, .. } = parts.map_err(|e| ConnectProblem::of_http(&e))?;
    Ok(HttpAnswer { response, granted: Some((io.into_inner(), read_buf)) })
}
