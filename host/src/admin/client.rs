//! Asking the HTTP API of another process, as commands do that speak to a running host.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use tokio::net::TcpStream;

/// Longest body of an answer that is read: what plugins know may be large.
const MAX_ANSWER_BYTES: usize = 1 << 30;

/// Why a host does not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens at its address.
    #[error(transparent)]
    Absent(io::Error),
    /// What listens there does not speak HTTP.
    #[error(transparent)]
    Broken(Box<dyn Error + Send + Sync>),
}

/// What the API at this address answers to a request without a body: the status, and the body as text.
///
/// # Errors
/// If nobody listens there, or what listens does not speak HTTP.
pub(crate) async fn ask(
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> Result<(u16, String), AskError> {
    let stream = TcpStream::connect(address).await.map_err(AskError::Absent)?;
    exchange(stream, address, method, path, token).await.map_err(AskError::Broken)
}

async fn exchange(
    stream: TcpStream,
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> Result<(u16, String), Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address)
        .header(header::CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    // The connection ends with its only request; what goes wrong there, the answer says, too.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
