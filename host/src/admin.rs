//! The HTTP API on the `[admin]` address: health, readiness, metrics.
//!
//! Any web page can reach a loopback port, so a request must name this host in `Host`, and may come
//! from no other origin; with a token set, all but health and readiness need it.

use crate::config;
use crate::control::Handle;
use crate::telemetry::{Metrics, Status};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;

/// The media type of the OpenMetrics text format, which Prometheus asks for and reads.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the API shows.
#[derive(Clone, Debug)]
pub struct Admin {
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    #[expect(dead_code, reason = "a host that has an API runs on; its commands will go through it")]
    handle: Handle,
    guard: Arc<Guard>,
}

/// Who may ask.
#[derive(Debug)]
struct Guard {
    address: SocketAddr,
    token: Option<config::Redacted>,
}

impl Admin {
    /// The API of a host, listening on `address`.
    pub fn new(
        address: SocketAddr,
        token: Option<config::Redacted>,
        metrics: Arc<Metrics>,
        status: Arc<Status>,
        handle: Handle,
    ) -> Self {
        Self { metrics, status, handle, guard: Arc::new(Guard { address, token }) }
    }

    /// Answers requests until `stopped` resolves.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stopped: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .fallback(|| async { refusal(StatusCode::NOT_FOUND, "not_found", "no such path", "") })
            .layer(middleware::from_fn_with_state(self.clone(), guard))
            .with_state(self);
        axum::serve(listener, router).with_graceful_shutdown(stopped).await
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let reasons = admin.status.not_ready();
    let is_ready = reasons.is_empty();
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": is_ready, "reasons": reasons }))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], admin.metrics.encode()).into_response()
}

async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !admin.guard.knows_host(headers) {
        let hint = "ask for the address that the API listens on";
        return refusal(StatusCode::FORBIDDEN, "foreign_host", "the Host header names another host", hint);
    }
    if !is_own_origin(headers) {
        let hint = "the API answers its own page only";
        return refusal(StatusCode::FORBIDDEN, "foreign_origin", "the request comes from another site", hint);
    }
    let is_open = matches!(request.uri().path(), "/healthz" | "/readyz");
    if !is_open && !admin.guard.lets_in(headers) {
        let hint = "send `Authorization: Bearer` with the token of [admin]";
        return refusal(StatusCode::UNAUTHORIZED, "unauthorized", "the token is missing or wrong", hint);
    }
    next.run(request).await
}

impl Guard {
    /// Where the API listens on loopback, only names of the loopback are its own: a foreign name
    /// that resolves to it is how a web page gets round the same-origin rule (DNS rebinding).
    fn knows_host(&self, headers: &HeaderMap) -> bool {
        if !self.address.ip().is_loopback() {
            return true;
        }
        let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
            return false;
        };
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let name = name.map_or(host, |(name, _)| name).trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer "));
        given.is_some_and(|given| is_equal(given.as_bytes(), token.expose().as_bytes()))
    }
}

fn is_own_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let origin = origin.as_bytes();
    let origin = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    origin.is_some_and(|origin| origin == host)
}

/// Compares in a time that does not depend on where the two differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn refusal(status: StatusCode, code: &str, message: &str, hint: &str) -> Response {
    (status, Json(json!({ "error": { "code": code, "message": message, "hint": hint } }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard {
            address: SocketAddr::from(([127, 0, 0, 1], 10080)),
            token: Some(config::Redacted::plain("secret")),
        }
    }

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn on_loopback_only_loopback_names_are_its_own() {
        for own in ["localhost:10080", "127.0.0.1:10080", "[::1]:10080", "localhost"] {
            assert!(guard().knows_host(&headers(header::HOST, own)), "{own}");
        }
        for foreign in ["example.com", "localhost.example.com:10080", "10.0.0.1"] {
            assert!(!guard().knows_host(&headers(header::HOST, foreign)), "{foreign}");
        }
    }

    #[test]
    fn the_token_must_be_the_whole_token() {
        for (given, expected) in [("Bearer secret", true), ("Bearer secre", false), ("secret", false)] {
            assert_eq!(guard().lets_in(&headers(header::AUTHORIZATION, given)), expected, "{given}");
        }
        assert!(!guard().lets_in(&HeaderMap::new()));
    }

    #[test]
    fn another_sites_origin_is_refused() {
        let mut own = headers(header::HOST, "localhost:1");
        own.insert(header::ORIGIN, HeaderValue::from_static("http://localhost:1"));
        assert!(is_own_origin(&own));
        own.insert(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
        assert!(!is_own_origin(&own));
    }
}
