//! Asking the HTTP API of another process, as commands do that speak to a running host.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::error::Error;
use tokio::net::TcpStream;

/// Longest body of an answer that is read.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// What the API at this address answers to a GET: the status, and the body as text.
///
/// # Errors
/// If nobody listens there, or what listens does not speak HTTP.
pub(crate) async fn get(address: &str, path: &str) -> Result<(u16, String), Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, address)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
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
