//! Requests to the origins that the transform's `allow` grants.
//!
//! ```no_run
//! # fn main() -> tidemill_plugin::Result {
//! use tidemill_plugin::http::Request;
//!
//! let answer = Request::post("https://api.example.com/v1/risk").json(r#"{"symbol":"BTC"}"#).send()?;
//! let risk = answer.success()?.text()?;
//! # Ok(())
//! # }
//! ```
//!
//! A call waits for its answers, which costs it no running time. [`send_all`] sends several requests side by side.
//! Of a batch that is tried again after a fault, requests are sent again too. The host adds the headers of its
//! configuration, such as `Authorization`, which the plugin never sees. While state is carried, in `snapshot` and
//! `restore`, every request is denied.

pub use crate::bindings::tidemill::plugin::http::{Request, Response};

#[cfg(target_arch = "wasm32")]
use crate::bindings::tidemill::plugin::http as wit;
use std::fmt;
use std::time::Duration;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request is none: its method, its url or a header.
    Invalid(String),
    /// The configuration does not grant it, or the address is one that may not be reached.
    Denied(String),
    /// It took too long.
    Timeout,
    /// The answer has more bytes than this, which the host allows.
    TooLarge(u64),
    /// The connection failed.
    Failed(String),
}

/// Sends all requests side by side; the answers are in their order.
pub fn send_all(requests: &[Request]) -> Vec<Result<Response, Error>> {
    #[cfg(target_arch = "wasm32")]
    return wit::send_all(requests).into_iter().map(|answer| Ok(answer?)).collect();
    #[cfg(not(target_arch = "wasm32"))]
    requests.iter().map(crate::testing::answer).collect()
}

impl Request {
    /// A request of this method for an absolute url.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self { method: method.into(), url: url.into(), headers: Vec::new(), body: Vec::new(), timeout_ms: 0 }
    }

    /// `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// The same with a header more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The same with this JSON text as its body.
    #[must_use]
    pub fn json(self, json: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/json").body(json)
    }

    /// The same, which may take no longer than this, in whole milliseconds and at least one. The host's
    /// configuration has the last word.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1), ..self }
    }

    /// Sends it and waits for the answer, whatever its status.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn send(&self) -> Result<Response, Error> {
        #[cfg(target_arch = "wasm32")]
        return Ok(wit::send(self)?);
        #[cfg(not(target_arch = "wasm32"))]
        crate::testing::answer(self)
    }
}

impl Response {
    /// An answer of this status with this body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// The same, if its status is one of success: 200 to 299.
    ///
    /// # Errors
    /// The status.
    pub fn success(self) -> crate::Result<Self> {
        match self.status {
            200..=299 => Ok(self),
            status => Err(format!("the answer has the status {status}").into()),
        }
    }

    /// The first value of a header, whose name has any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Errors
    /// The body is not UTF-8.
    pub fn text(&self) -> crate::Result<&str> {
        Ok(std::str::from_utf8(&self.body)?)
    }
}

#[cfg(target_arch = "wasm32")]
impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::Invalid(why) => Self::Invalid(why),
            wit::Error::Denied(why) => Self::Denied(why),
            wit::Error::Timeout => Self::Timeout,
            wit::Error::TooLarge(bytes) => Self::TooLarge(bytes),
            wit::Error::Failed(why) => Self::Failed(why),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => write!(f, "the request is invalid: {why}"),
            Self::Denied(why) => write!(f, "the request is denied: {why}"),
            Self::Timeout => f.write_str("the answer took too long"),
            Self::TooLarge(bytes) => write!(f, "the answer has more than {bytes} bytes"),
            Self::Failed(why) => write!(f, "the request failed: {why}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answers, Harness};
    use crate::{Description, Message, NoConfig, Out, Plugin};

    /// Adds to each message what a server answers to it.
    struct Asking;

    impl Plugin for Asking {
        type Config = NoConfig;

        fn new(_: NoConfig, _: &mut Description) -> crate::Result<Self> {
            Ok(Self)
        }

        fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> crate::Result {
            let request = Request::post("https://api.example.com/").json(message.as_bytes());
            let answer = request.timeout(Duration::from_micros(1)).send()?.success()?;
            out.emit().text(answer.text()?);
            Ok(())
        }
    }

    #[test]
    fn a_test_answers_for_the_servers() {
        let mut plugin = Harness::<Asking>::try_new("{}").unwrap();
        plugin.host.answers = Answers::by(|request: &Request| match &*request.body {
            b"slow" => Err(Error::Timeout),
            b"ill" => Ok(Response::new(500, "")),
            body => Ok(Response::new(200, [b"got ", body].concat())),
        });
        let processed = plugin.process(["a", "slow", "ill", "b"]);
        assert_eq!(processed.texts(), ["got a", "got b"]);
        let reasons: Vec<_> = processed.rejected.iter().map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(reasons, ["the answer took too long", "the answer has the status 500"]);
        let asked = &plugin.host.requests;
        assert_eq!((asked.len(), asked[0].timeout_ms, &*asked[0].method), (4, 1, "POST"));
        let unanswered = send_all(&[Request::get("https://a/"), Request::get("https://b/")]);
        assert!(matches!(&unanswered[..], [Err(Error::Denied(_)), Err(Error::Denied(_))]), "{unanswered:?}");
    }

    #[test]
    fn headers_have_names_in_any_case() {
        let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
        let response = Response { headers, ..Response::new(200, *b"\xff") };
        assert_eq!(response.header("Content-Type"), Some("text/plain"));
        assert!(response.header("x").is_none() && response.text().is_err());
    }
}
