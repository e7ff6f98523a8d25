//! HTTP as a guest sees it: what it asks for, what it is answered, and who answers.
//!
//! Nothing here opens a socket: whoever makes an instance gives it an [`Http`], if its configuration grants
//! requests, and that decides what may be reached.

use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// Sends the requests of the instances of one transform.
pub trait Http: Send + Sync {
    /// Sends one request, and gives the answer to it, whatever its status. What the answer has is taken of
    /// `room` while it comes in.
    fn send<'a>(
        &'a self,
        request: HttpRequest,
        room: &'a AnswerRoom,
    ) -> BoxFuture<'a, Result<HttpResponse, HttpError>>;

    /// The longest that a request may take from its turn on.
    fn timeout(&self) -> Duration;
}

/// What a guest asks for: nothing of it is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// An absolute url.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What is sent with it; may be empty.
    pub body: Vec<u8>,
    /// How long it may take from its turn on, if less than usual.
    pub timeout: Option<Duration>,
    /// When it is given up, whether its turn has come or not.
    pub give_up: Instant,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status, such as 200.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: Vec<u8>,
}

/// Why there is no answer. The texts are for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// The request is none.
    Invalid(String),
    /// It is not granted, or leads to an address that may not be reached.
    Denied(String),
    /// It took too long.
    Timeout,
    /// The answer has more bytes than this.
    TooLarge(u64),
    /// The connection failed, or the answer is none.
    Failed(String),
}

/// The bytes that the answers to the requests of one call may still have together.
#[derive(Debug)]
pub struct AnswerRoom {
    left_bytes: AtomicUsize,
}

impl AnswerRoom {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { left_bytes: AtomicUsize::new(bytes) }
    }

    /// Takes so many bytes; says whether they were there.
    pub fn take(&self, bytes: usize) -> bool {
        self.left_bytes.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}
