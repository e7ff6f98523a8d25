//! Connections over HTTP: which there are, closing one, and whether an endpoint could be reached.

use super::HostView;
use super::api_error::ApiError;
use crate::connections::{ConnectionView, Dismissal, EndpointView};
use crate::connector::Connector;
use crate::http_client::HttpClient;
use crate::telemetry::Metrics;
use crate::websocket::{self, BeforeConnect, close_code};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What stands for pipeline and endpoint where a connector is asked for a check.
const CHECK: &str = "check";

pub(super) async fn list(State(host): State<Arc<HostView>>) -> Json<Value> {
    let endpoints: Vec<_> = host.connections.list().iter().map(endpoint).collect();
    Json(json!({ "endpoints": endpoints }))
}

/// One that we dialled is dialled again, as its endpoint says.
pub(super) async fn close(
    State(host): State<Arc<HostView>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let dismissal = Dismissal { code: close_code::POLICY, reason: "closed by an operator".to_owned() };
    if host.connections.dismiss(&id, dismissal) {
        tracing::info!(connection = id, "connection closed by an operator");
        Ok(StatusCode::NO_CONTENT)
    } else {
        let refusal = ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("no connection \"{id}\""));
        Err(refusal.hint("GET /api/v1/connections lists them; a new one has a new id"))
    }
}

pub(super) async fn check(State(host): State<Arc<HostView>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    host.check_trust(&body)?;
    let endpoint = host.reader.endpoint(&body, &host.server)?;
    // It is asked as before a dial of a pipeline, and keeps nothing.
    let connector = endpoint.before_connect().map(|config| {
        let http = HttpClient::of(&config.allow, &config.http);
        let metrics = Metrics::default().guest(CHECK, CHECK);
        Connector::new((CHECK, CHECK), config, http, metrics, host.plugins.clone())
    });
    let connector = connector.as_ref().map(|connector| connector as &dyn BeforeConnect);
    let answer = match websocket::reach(&endpoint, connector, &host.listeners).await {
        Ok(()) => json!({ "reachable": true }),
        Err(why) => json!({ "reachable": false, "error": why.error, "hint": why.hint }),
    };
    Ok(Json(answer))
}

fn endpoint(view: &EndpointView) -> Value {
    let last_error = view.last_error.as_ref().map(|(message, at)| json!({ "message": message, "at": at }));
    json!({
        "pipeline": view.pipeline,
        "endpoint": view.endpoint,
        "address": view.address,
        "state": view.state.as_str(),
        "since": view.since_ms,
        "last_error": last_error,
        "connections": view.connections.iter().map(connection).collect::<Vec<_>>(),
    })
}

fn connection(view: &ConnectionView) -> Value {
    let totals = view.connected.totals();
    let metadata = view.origin.iter().map(|(key, value)| (key.to_owned(), value.into()));
    json!({
        "id": view.connected.id(),
        "since": view.connected.since_ms(),
        "metadata": metadata.collect::<Map<_, _>>(),
        "bytes_received": totals.received_bytes,
        "bytes_sent": totals.sent_bytes,
        "messages_received": totals.received_messages,
        "messages_sent": totals.sent_messages,
    })
}
