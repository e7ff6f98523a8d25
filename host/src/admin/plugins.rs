//! Plugins over HTTP: which there are and in which versions, a new version, and back to one that ran before.

use super::HostView;
use super::api_error::ApiError;
use super::body::NoBody;
use super::query::Query;
use super::swaps::verdict;
use crate::config::{Limits, MOST_SHADOWED, units};
use crate::control::ControlError;
use crate::plugin_history::KeptVersion;
use crate::telemetry::Described;
use crate::verdict::{SwapOptions, SwapOutcome, Verdict};
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) async fn list(State(host): State<Arc<HostView>>) -> Json<Value> {
    let pipelines = host.handle.pipelines();
    let used = pipelines.iter().flat_map(|pipeline| pipeline.config.plugins());
    let mut names: BTreeSet<String> = used.map(|name| name.expose().to_owned()).collect();
    names.extend(host.plugins.names());
    names.extend(host.history.plugins());
    let plugins = names.iter().map(|name| host.plugin(name, &pipelines));
    Json(json!({ "plugins": plugins.collect::<Vec<_>>() }))
}

pub(super) async fn get(
    State(host): State<Arc<HostView>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let pipelines = host.handle.pipelines();
    let is_used =
        pipelines.iter().any(|pipeline| pipeline.config.plugins().any(|used| used.expose() == name));
    let is_known = is_used || host.plugins.get(&name).is_some() || !host.history.versions(&name).is_empty();
    if is_known { Ok(Json(host.plugin(&name, &pipelines))) } else { Err(ControlError::NoPlugin(name).into()) }
}

/// Answers when it is decided whether the component runs.
pub(super) async fn put(
    State(host): State<Arc<HostView>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    component: Bytes,
) -> Result<Response, ApiError> {
    let options = options(query.as_deref())?;
    if component.is_empty() {
        return Err(ControlError::Unfit("there is no component in the body".to_owned()).into());
    }
    Ok(decided(&host.handle.swap(&name, component, options).await?))
}

/// Answers when it is decided whether the earlier version runs.
pub(super) async fn roll_back(
    State(host): State<Arc<HostView>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Result<Response, ApiError> {
    let query = Query::parse(query.as_deref(), &["to"])?;
    Ok(decided(&host.handle.roll_back(&name, query.text("to")).await?))
}

fn decided(decided: &Verdict) -> Response {
    let is_swapped = decided.outcome == SwapOutcome::Swapped;
    let status = if is_swapped { StatusCode::OK } else { StatusCode::CONFLICT };
    (status, Json(verdict(decided))).into_response()
}

fn options(query: Option<&str>) -> Result<SwapOptions, ApiError> {
    let wrong = |text: String| ApiError::new(StatusCode::BAD_REQUEST, "bad_request", text);
    let query = Query::parse(query, &["state", "shadow", "probation"])?;
    let state_fresh = match query.text("state") {
        None => false,
        Some("fresh") => true,
        Some(other) => return Err(wrong(format!("`state={other}` is not known; it can be `fresh`"))),
    };
    let probation = query.text("probation").map(|text| {
        units::parse_duration(text).ok_or_else(|| {
            wrong(format!("`probation={text}` is no duration of less than 584 years"))
                .hint("write it as 30s or 5m")
        })
    });
    let (shadow, probation) = (query.number("shadow", 0..=MOST_SHADOWED)?, probation.transpose()?);
    Ok(SwapOptions { state_fresh, shadow, probation, ..SwapOptions::default() })
}

impl HostView {
    /// All that is known of a plugin.
    fn plugin(&self, name: &str, pipelines: &[Described]) -> Value {
        let current = self.plugins.get(name).map(|plugin| plugin.version().to_string());
        let kept = self.history.versions(name);
        let newer = std::iter::once(None).chain(kept.iter().map(|each| Some(each.since_ms)));
        let versions =
            kept.iter().zip(newer).map(|(each, until_ms)| as_kept(each, until_ms, current.as_deref()));
        let mut limits: Option<Limits> = None;
        let mut uses = Vec::new();
        for pipeline in pipelines {
            let config = &pipeline.config;
            let state = pipeline.state.as_str();
            let mut add = |kind: &str, label: &str, granted: Limits, version: Option<&str>| {
                limits = Some(limits.map_or(granted, |limits| widest(limits, granted)));
                uses.push(json!({
                    "pipeline": config.name, kind: label, "state": state, "version": version,
                    "limits": as_limits(granted),
                }));
            };
            for (index, transform) in config.transforms.iter().enumerate() {
                if transform.plugin.expose() == name {
                    let version = pipeline.versions.get(index).map(|version| &**version);
                    add("transform", &transform.name, transform.limits, version);
                }
            }
            for (endpoint, connector) in config.connectors() {
                if connector.plugin.expose() == name {
                    add("endpoint", endpoint, connector.limits(), current.as_deref());
                }
            }
        }
        json!({
            "name": name,
            "version": current,
            "versions": versions.collect::<Vec<_>>(),
            "limits": as_limits(limits.unwrap_or_default()),
            "uses": uses,
        })
    }
}

/// A version that ran, until the one after it did.
fn as_kept(kept: &KeptVersion, until_ms: Option<u64>, current: Option<&str>) -> Value {
    let is_current = current == Some(&kept.version);
    json!({
        "version": kept.version,
        "since": kept.since_ms,
        "until": until_ms.filter(|_| !is_current),
        "current": is_current,
        "rolled_back": kept.is_put_away,
        "available": kept.damage.is_none(),
        "error": kept.damage,
        "bytes": kept.bytes,
    })
}

/// What both grant together.
fn widest(one: Limits, other: Limits) -> Limits {
    Limits {
        memory_bytes: one.memory_bytes.max(other.memory_bytes),
        deadline: one.deadline.max(other.deadline),
        output_bytes: one.output_bytes.max(other.output_bytes),
    }
}

fn as_limits(Limits { memory_bytes, deadline, output_bytes }: Limits) -> Value {
    json!({
        "memory_bytes": memory_bytes,
        "deadline_ms": deadline.as_secs_f64() * 1e3,
        "output_bytes": output_bytes,
    })
}
