//! Who may ask: any web page can reach a loopback port.
//!
//! A request must name this host in `Host`, and may come from no other origin; with a token set, all
//! but health and readiness need it. What a body may be is said in `body.rs`.

use super::api_error::ApiError;
use crate::access::{CredentialDigest, names_this_machine};
use crate::config::{AllowedOrigins, Redacted};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::Arc;

/// Who may ask.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) address: SocketAddr,
    pub(super) token: Option<Redacted>,
}

/// Lets a request through, or answers it.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    // A request may name its host in its target, which is what counts then (RFC 9112, section 3.2.2).
    if request.uri().authority().is_some() {
        let refusal =
            ApiError::new(StatusCode::FORBIDDEN, "foreign_host", "the request names its host in its target");
        return refusal.hint("ask for a path alone").into_response();
    }
    match guard.check(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

impl Guard {
    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        let forbidden =
            |code, message, hint| Err(ApiError::new(StatusCode::FORBIDDEN, code, message).hint(hint));
        if !self.knows_host(headers) {
            let hint = "ask for the address that the API listens on";
            return forbidden("foreign_host", "the Host header names another host", hint);
        }
        if !is_own_origin(headers) {
            let hint = "the API answers its own page only";
            return forbidden("foreign_origin", "the request comes from another site", hint);
        }
        if !matches!(path, "/healthz" | "/readyz") && !self.lets_in(headers) {
            let refusal =
                ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "the token is missing or wrong")
                    .hint("send `Authorization: Bearer` with the token of [admin]");
            return Err(refusal.header(header::WWW_AUTHENTICATE, "Bearer"));
        }
        Ok(())
    }

    /// Where the API listens on loopback, only names of the loopback are its own: a foreign name
    /// that resolves to it is how a web page gets round the same-origin rule (DNS rebinding).
    fn knows_host(&self, headers: &HeaderMap) -> bool {
        if !self.address.ip().is_loopback() {
            return true;
        }
        let Some(host) = only(headers, &header::HOST).and_then(|host| host.to_str().ok()) else {
            return false;
        };
        names_this_machine(host)
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let (scheme, given) = given.split_at_checked(b"Bearer ".len()).unwrap_or_default();
        let is_same = CredentialDigest::of_token(token.expose().as_bytes())
            .is_among(&[CredentialDigest::of_token(given)]);
        scheme.eq_ignore_ascii_case(b"Bearer ") && is_same
    }
}

/// The value of a header that is given once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn is_own_origin(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    let text = |name| only(headers, name).and_then(|value| value.to_str().ok());
    let (origin, host) = (text(&header::ORIGIN), text(&header::HOST));
    // The API's page is served without TLS.
    let origin = origin.filter(|origin| origin.starts_with("http://"));
    origin.is_some_and(|origin| AllowedOrigins::default().allow(origin, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard { address: SocketAddr::from(([127, 0, 0, 1], 10080)), token: Some(Redacted::plain("secret")) }
    }

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn on_loopback_only_loopback_names_are_its_own() {
        for own in ["localhost:10080", "127.0.0.1:10080", "[::1]:10080", "localhost"] {
            assert!(guard().knows_host(&headers(header::HOST, own)), "{own}");
        }
        let mut two = headers(header::HOST, "localhost:10080");
        two.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(!guard().knows_host(&two), "two are none");
        for foreign in ["example.com", "localhost.example.com:10080", "10.0.0.1"] {
            assert!(!guard().knows_host(&headers(header::HOST, foreign)), "{foreign}");
        }
    }

    #[test]
    fn the_token_must_be_the_whole_token() {
        let cases = [
            ("Bearer secret", true),
            ("bearer secret", true),
            ("Bearer secre", false),
            ("Bearer secrets", false),
            ("Bearer ", false),
            ("secret", false),
        ];
        for (given, expected) in cases {
            assert_eq!(guard().lets_in(&headers(header::AUTHORIZATION, given)), expected, "{given}");
        }
        assert!(!guard().lets_in(&HeaderMap::new()));
    }

    #[test]
    fn another_sites_origin_is_refused() {
        let mut own = headers(header::HOST, "localhost:1");
        own.insert(header::ORIGIN, HeaderValue::from_static("http://localhost:1"));
        assert!(is_own_origin(&own));
        let mut usual_port = headers(header::HOST, "localhost");
        usual_port.insert(header::ORIGIN, HeaderValue::from_static("http://localhost:80"));
        assert!(is_own_origin(&usual_port), "the port that its scheme has anyway");
        own.append(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
        assert!(!is_own_origin(&own), "two are none");
        own.insert(header::ORIGIN, HeaderValue::from_static("https://localhost:1"));
        assert!(!is_own_origin(&own), "another scheme is another site");
        own.insert(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
        assert!(!is_own_origin(&own));
        own.insert(header::ORIGIN, HeaderValue::from_static("null"));
        assert!(!is_own_origin(&own));
    }
}
