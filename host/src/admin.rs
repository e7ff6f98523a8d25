//! The HTTP API on the `[admin]` address: health, readiness, metrics, pipelines, what is kept of them, swaps of
//! plugins, connections.
//!
//! Each part of it is a file of handlers that ask the layers below and answer in JSON. Who may ask is
//! decided before any of them.

mod api_error;
mod body;
mod client;
mod connections;
mod dead_letters;
mod guard;
mod pipelines;
mod plugins;
mod query;
mod reload;
mod serve;
mod state;
mod swaps;
mod untrusted;

pub(crate) use client::{ApiRequest, AskError, ask};
pub(crate) use state::{exported, listed};

use crate::config::{BodyReader, Pipeline, Redacted, Server, Transform};
use crate::connections::Connections;
use crate::connector::CurrentPlugins;
use crate::control::Handle;
use crate::dead_letters::KeptLetters;
use crate::plugin_history::PluginHistory;
use crate::store::Store;
use crate::telemetry::{Described, Metrics, Status};
use crate::websocket::Listeners;
use api_error::ApiError;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{self, delete, post};
use body::{BodyRule, whole_body};
use guard::Guard;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The media type of the OpenMetrics text format, which Prometheus asks for and reads.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What the API shows, and who may ask.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    host: Arc<HostView>,
    guard: Arc<Guard>,
}

/// The host that the API is of.
#[derive(Debug)]
pub(crate) struct HostView {
    /// The metrics of the host.
    pub metrics: Arc<Metrics>,
    /// The open endpoints and their connections.
    pub connections: Connections,
    /// The states of the pipelines.
    pub status: Arc<Status>,
    /// A handle to change the pipelines with.
    pub handle: Handle,
    /// What is kept of pipelines on the disk.
    pub store: Store,
    /// The dead letters that are kept.
    pub dead_letters: KeptLetters,
    /// What a pipeline that comes as JSON means.
    pub reader: BodyReader,
    /// Whether whoever asks has shown a token: without, a body may ask for less.
    pub is_trusting: bool,
    /// The defaults of endpoints in server mode.
    pub server: Server,
    /// The tables of the configuration beside the pipelines, as they may be shown.
    pub settings: Value,
    /// The listeners of endpoints in server mode.
    pub listeners: Listeners,
    /// The current version of each plugin.
    pub plugins: CurrentPlugins,
    /// The versions of plugins that ran.
    pub history: PluginHistory,
    /// The largest component that can be a plugin.
    pub max_component_bytes: usize,
}

impl Api {
    /// The API of a host, listening on `address`.
    pub(crate) fn new(address: SocketAddr, token: Option<Redacted>, host: HostView) -> Self {
        Self { host: Arc::new(host), guard: Arc::new(Guard { address, token }) }
    }

    /// Answers requests until `stop`, and then those that were whole.
    ///
    /// # Errors
    /// If the listener fails.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let kept = || routing::get(state::export).delete(state::clear);
        let pipeline = routing::get(pipelines::get).delete(pipelines::remove).put(pipelines::replace);
        let component = BodyRule::component(self.host.max_component_bytes);
        let plugin = routing::get(plugins::get).put(plugins::put);
        // What is sent there is far larger.
        let letters = Router::new()
            .route("/api/v1/deadletters/retry", post(dead_letters::retry))
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(BodyRule::letters(self.host.clone()), whole_body));
        let components = Router::new()
            .route("/api/v1/plugins/{name}", plugin)
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(component, whole_body));
        let router = Router::new()
            .route("/healthz", routing::get(|| async { Json(json!({ "status": "ok" })) }))
            .route("/readyz", routing::get(ready))
            .route("/metrics", routing::get(metrics))
            .route("/api/v1/pipelines", routing::get(pipelines::list).post(pipelines::add))
            .route("/api/v1/pipelines/{name}", pipeline)
            .route("/api/v1/pipelines/{name}/start", post(pipelines::start))
            .route("/api/v1/pipelines/{name}/stop", post(pipelines::stop))
            .route("/api/v1/config", routing::get(reload::in_force))
            .route("/api/v1/reload", post(reload::reload))
            .route("/api/v1/state", routing::get(state::list))
            .route("/api/v1/state/{pipeline}", kept())
            .route("/api/v1/state/{pipeline}/{transform}", kept())
            .route("/api/v1/plugins", routing::get(plugins::list))
            .route("/api/v1/plugins/{name}/rollback", post(plugins::roll_back))
            .route("/api/v1/swaps", routing::get(swaps::list))
            .route("/api/v1/deadletters", routing::get(dead_letters::list))
            .route("/api/v1/deadletters/{id}", routing::get(dead_letters::get))
            .route("/api/v1/connections", routing::get(connections::list))
            .route("/api/v1/connections/{id}", delete(connections::close))
            .route("/api/v1/connections/check", post(connections::check))
            .layer(middleware::from_fn_with_state(BodyRule::json(), whole_body))
            .merge(letters)
            .merge(components)
            .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path") })
            .method_not_allowed_fallback(|| async {
                let message = "the path does not take this method";
                ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", message)
            })
            .layer(middleware::map_response(in_json))
            .layer(middleware::from_fn_with_state(self.guard, guard::guard))
            .with_state(self.host);
        serve::serve(listener, router, stop).await
    }
}

impl HostView {
    /// Refuses a body that asks for what takes a token, where there is none.
    fn check_trust(&self, body: &[u8]) -> Result<(), ApiError> {
        if self.is_trusting { Ok(()) } else { untrusted::check(body) }
    }

    /// The pipelines that run and whose messages wait for a plugin, and why.
    fn degraded(&self) -> Map<String, Value> {
        let pipelines = self.handle.pipelines().into_iter();
        let degraded = pipelines.filter_map(|Described { config, .. }| {
            Some((config.name.clone(), self.why_degraded(&config)?.into()))
        });
        degraded.collect()
    }

    /// Why messages of a pipeline wait for a plugin, if they do.
    fn why_degraded(&self, pipeline: &Pipeline) -> Option<String> {
        let is_paused = |each: &&Transform| self.metrics.is_paused(&pipeline.name, &each.name);
        let transform = &pipeline.transforms.iter().find(is_paused)?.name;
        Some(format!("transform {transform}: its plugin fails again and again, and its messages wait"))
    }
}

async fn ready(State(host): State<Arc<HostView>>) -> Response {
    let reasons = host.status.not_ready();
    let is_stopping = host.status.is_stopping();
    let is_ready = reasons.is_empty() && !is_stopping;
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = json!({ "ready": is_ready, "reasons": reasons });
    if is_stopping {
        answer["stopping"] = "the host was told to stop, and finishes what is in flight".into();
    }
    let degraded = host.degraded();
    if !degraded.is_empty() {
        answer["degraded"] = degraded.into();
    }
    (code, Json(answer)).into_response()
}

async fn metrics(State(host): State<Arc<HostView>>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], host.metrics.encode()).into_response()
}

/// Refusals of the library itself, such as of a body that is too large, in the words of this API.
async fn in_json(response: Response) -> Response {
    let is_text =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|is| is.as_bytes().starts_with(b"text/"));
    let status = response.status();
    if !is_text || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    ApiError::new(status, "bad_request", "the request cannot be read").into_response()
}
