//! Asking the HTTP API of another process, as commands do that speak to a running host.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest body of an answer that is read: what plugins know may be large.
const MAX_ANSWER_BYTES: usize = 1 << 30;
/// Longest that a host may take to answer, unless its command knows better.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a host is asked.
#[derive(Clone, Debug)]
pub(crate) struct ApiRequest {
    method: &'static str,
    path: String,
    /// Its media type, and the bytes.
    body: Option<(&'static str, Bytes)>,
    timeout: Duration,
}

/// Why a host does not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens at its address.
    #[error(transparent)]
    Absent(io::Error),
    /// What listens there does not speak HTTP.
    #[error(transparent)]
    Foreign(Box<dyn Error + Send + Sync>),
    /// The connection ended before the answer did.
    #[error(transparent)]
    Broken(Box<dyn Error + Send + Sync>),
    /// No whole answer came in time.
    #[error("no answer came after {0:?}")]
    TimedOut(Duration),
}

impl ApiRequest {
    /// A request without a body, which is to be answered within a minute.
    pub(crate) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, timeout: TIMEOUT }
    }

    /// The same with a body of JSON.
    #[must_use]
    pub(crate) fn json(self, body: impl Into<Bytes>) -> Self {
        Self { body: Some(("application/json", body.into())), ..self }
    }

    /// The same with a component as its body.
    #[must_use]
    pub(crate) fn component(self, body: impl Into<Bytes>) -> Self {
        Self { body: Some(("application/wasm", body.into())), ..self }
    }

    /// Whether it asks for something to be done.
    pub(crate) fn is_order(&self) -> bool {
        self.method != "GET"
    }

    /// The same with so much time for the whole answer.
    #[must_use]
    pub(crate) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

impl AskError {
    fn of_exchange(error: Box<dyn Error + Send + Sync>) -> Self {
        let is_cut = error.downcast_ref::<hyper::Error>().is_some_and(|error| {
            let is_of_system = error.source().is_some_and(|cause| cause.is::<io::Error>());
            error.is_incomplete_message() || error.is_closed() || error.is_canceled() || is_of_system
        });
        if is_cut { Self::Broken(error) } else { Self::Foreign(error) }
    }
}

/// What the API at this address answers to a request: the status, and the body as text.
///
/// # Errors
/// If nobody listens there, what listens does not speak HTTP, it leaves in the middle, or the time is over.
pub(crate) async fn ask(
    address: &str,
    token: Option<&str>,
    request: ApiRequest,
) -> Result<(u16, String), AskError> {
    let time = request.timeout;
    let answered = async {
        let stream = TcpStream::connect(address).await.map_err(AskError::Absent)?;
        exchange(stream, address, token, request).await.map_err(AskError::of_exchange)
    };
    timeout(time, answered).await.unwrap_or(Err(AskError::TimedOut(time)))
}

async fn exchange(
    stream: TcpStream,
    address: &str,
    token: Option<&str>,
    asked: ApiRequest,
) -> Result<(u16, String), Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder()
        .method(asked.method)
        .uri(asked.path)
        .header(header::HOST, address)
        .header(header::CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = match asked.body {
        Some((media_type, body)) => {
            request = request.header(header::CONTENT_TYPE, media_type);
            body
        }
        None => Bytes::new(),
    };
    let request = request.body(Full::new(body))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Answers one request with what it consisted of.
    async fn echo(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.expect("it is dialled");
        let (mut text, mut part) = (Vec::new(), vec![0; 1 << 16]);
        let whole = loop {
            let read = stream.read(&mut part).await.expect("it sends");
            text.extend_from_slice(&part[..read]);
            let shown = String::from_utf8_lossy(&text);
            let Some((head, body)) = shown.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().expect("a number"));
            if body.len() >= length {
                break format!("{head}\r\n\r\n{}", body.len());
            }
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", whole.len());
        stream.write_all(format!("{head}{whole}").as_bytes()).await.expect("it reads");
    }

    async fn asked(request: ApiRequest) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (answer, ()) = tokio::join!(ask(&address, Some("t0ken"), request), echo(listener));
        let (status, told) = answer.expect("it answers");
        assert_eq!(status, 200);
        assert!(told.contains("authorization: Bearer t0ken\r\n"), "{told}");
        told
    }

    #[tokio::test]
    async fn a_request_says_of_which_type_its_body_is() {
        let told = asked(ApiRequest::new("GET", "/a")).await;
        assert!(told.starts_with("GET /a HTTP/1.1\r\n") && !told.contains("content-type"), "{told}");
        let told = asked(ApiRequest::new("POST", "/b").json("{\"c\":1}")).await;
        assert!(told.contains("content-type: application/json\r\n") && told.ends_with("\r\n7"), "{told}");
        let large = vec![b'w'; 2 << 20];
        let told = asked(ApiRequest::new("PUT", "/c").component(large)).await;
        assert!(told.contains("content-type: application/wasm\r\n"), "{told}");
        assert!(told.contains("content-length: 2097152\r\n") && told.ends_with("\r\n2097152"), "{told}");
    }

    #[tokio::test]
    async fn whoever_does_not_answer_in_time_is_waited_for_no_longer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let request = ApiRequest::new("GET", "/").within(Duration::from_millis(10));
        assert!(matches!(ask(&address, None, request.clone()).await, Err(AskError::TimedOut(_))));
        drop(listener);
        assert!(matches!(ask(&address, None, request).await, Err(AskError::Absent(_))));
    }
}
