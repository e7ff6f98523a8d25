//! The configuration over HTTP: what is in force, and the file read again.

use super::HostView;
use super::api_error::ApiError;
use super::body::NoBody;
use super::query::Query;
use crate::control::{ReloadReport, ReloadedPipeline};
use axum::extract::{RawQuery, State};
use axum::response::Json;
use serde_json::{Value, json};
use std::sync::Arc;

/// The configuration in force: the tables as the host has started with them, and all pipelines as they are now, those
/// of the API included.
pub(super) async fn in_force(State(host): State<Arc<HostView>>) -> Json<Value> {
    let mut config = host.settings.clone();
    let pipelines = host.handle.pipelines();
    config["pipelines"] = pipelines.iter().map(|pipeline| pipeline.config.shown()).collect();
    Json(config)
}

pub(super) async fn reload(
    State(host): State<Arc<HostView>>,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Result<Json<Value>, ApiError> {
    let query = Query::parse(query.as_deref(), &["dry_run"])?;
    let dry_run = query.flag("dry_run")?;
    let ReloadReport { dry_run, pipelines, restart_required } = host.handle.reload(dry_run).await?;
    let pipelines: Vec<_> = pipelines.into_iter().map(as_json).collect();
    Ok(Json(json!({ "dry_run": dry_run, "pipelines": pipelines, "restart_required": restart_required })))
}

/// What became of one pipeline, in the words of the API.
pub(super) fn as_json(told: ReloadedPipeline) -> Value {
    let ReloadedPipeline { pipeline, class, reasons, warnings, error } = told;
    let mut answer = json!({ "pipeline": pipeline, "class": class.as_str(), "reasons": reasons });
    if !warnings.is_empty() {
        answer["warnings"] = warnings.into();
    }
    if let Some(error) = error {
        answer["error"] = error.into();
    }
    answer
}
