//! The body of a request: what it has to be, how large it may be, and how long it may take.
//!
//! It says what it is by a media type that a form of a web page cannot have, and is there whole before anyone works
//! on it.

use super::HostView;
use super::api_error::ApiError;
use crate::foreign_text;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// From the end of the headers to the end of the body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A pipeline as JSON is far smaller.
const MAX_JSON_BYTES: usize = 1 << 20;
/// Large bodies that are taken in at once; the next ones wait, and their time goes on.
const COMPONENTS_AT_ONCE: usize = 4;
const LETTERS_AT_ONCE: usize = 2;

/// What the bodies of some paths have to be.
#[derive(Clone, Debug)]
pub(super) struct BodyRule {
    media_type: &'static str,
    most: MostBytes,
    /// How many are taken in at once, where that is to be bounded.
    at_once: Option<Arc<Semaphore>>,
}

/// How large a body may be.
#[derive(Clone, Debug)]
enum MostBytes {
    /// So large.
    Always(usize),
    /// As large as a dead letter of this host can be.
    Letter(Arc<HostView>),
}

impl BodyRule {
    /// JSON.
    pub(super) fn json() -> Self {
        Self { media_type: "application/json", most: MostBytes::Always(MAX_JSON_BYTES), at_once: None }
    }

    /// Dead letters of this host, as JSON.
    pub(super) fn letters(host: Arc<HostView>) -> Self {
        let at_once = Some(Arc::new(Semaphore::new(LETTERS_AT_ONCE)));
        Self { media_type: "application/json", most: MostBytes::Letter(host), at_once }
    }

    /// A component of at most this size.
    pub(super) fn component(max_bytes: usize) -> Self {
        let at_once = Some(Arc::new(Semaphore::new(COMPONENTS_AT_ONCE)));
        Self { media_type: "application/wasm", most: MostBytes::Always(max_bytes), at_once }
    }
}

/// The body of a request that has nothing to say in one: none, or an empty object.
#[derive(Debug)]
pub(super) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        let is_empty = body.trim_ascii().is_empty()
            || serde_json::from_slice(&body).is_ok_and(|said: Map<String, Value>| said.is_empty());
        if is_empty {
            return Ok(Self);
        }
        let message = "the body says something, and this path takes none";
        let refusal = ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message);
        Err(refusal.hint("what it takes is in the query, as in `?name=value`").into_response())
    }
}

/// Takes in the body of a request before anyone works on it, if it is what it has to be.
pub(super) async fn whole_body(State(rule): State<BodyRule>, request: Request, next: Next) -> Response {
    let BodyRule { media_type, most, at_once } = rule;
    let (head, body) = request.into_parts();
    if !has_body(&head.headers) {
        return next.run(Request::from_parts(head, Body::empty())).await;
    }
    if !is_of_type(&head.headers, media_type) {
        return other_type(&head.headers, media_type).into_response();
    }
    let max_bytes = match most {
        MostBytes::Always(bytes) => bytes,
        MostBytes::Letter(host) => host.most_letter_bytes(),
    };
    let taken = async {
        let _turn = match at_once {
            Some(at_once) => at_once.acquire_owned().await.ok(),
            None => None,
        };
        to_bytes(body, max_bytes).await
    };
    match timeout(BODY_TIMEOUT, taken).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        Ok(Err(error)) => {
            let is_too_large = std::error::Error::source(&error)
                .is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
            let refusal = if is_too_large {
                let message = format!("the body is larger than {max_bytes} bytes");
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            } else {
                ApiError::new(StatusCode::BAD_REQUEST, "bad_request", "the body cannot be read")
            };
            refusal.into_response()
        }
        Err(_) => {
            let message = format!("the body was not there after {} s", BODY_TIMEOUT.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message).into_response()
        }
    }
}

fn other_type(headers: &HeaderMap, media_type: &str) -> ApiError {
    let given = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).map(String::from_utf8_lossy);
    let is = match given.filter(|given| !given.is_empty()) {
        Some(given) => format!("says that it is {}", foreign_text::shown(&given)),
        None => "does not say what it is".to_owned(),
    };
    let what = if media_type == "application/wasm" { "the component itself" } else { "JSON" };
    let message = format!("the body {is}, and this path takes {media_type}");
    let hint = format!("send {what} with the header `Content-Type: {media_type}`");
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", message).hint(hint)
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    given.split(';').next().is_some_and(|given| given.trim().eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_body_says_what_it_is() {
        let of = |name, value| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        let is_json = |headers: &HeaderMap| is_of_type(headers, "application/json");
        let mut form = of(header::CONTENT_LENGTH, "5");
        assert!(has_body(&form) && !is_json(&form));
        form.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert!(!is_json(&form));
        form.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        assert!(is_json(&form) && !is_of_type(&form, "application/wasm"));
        assert!(!has_body(&of(header::CONTENT_LENGTH, "0")));
    }
}
