//! What plugins know, over HTTP: listed, exported, and cleared.
//!
//! Durable state is read from the disk, where it is of one moment; what is kept in memory alone is as it is now.
//! Commands that read the folder without a host say it in the same JSON.

use super::HostView;
use super::api_error::ApiError;
use crate::control::ControlError;
use crate::generation::{Generation, Position, StateValue, TransformState};
use crate::store::{Listed, ListedTransform};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// A pipeline, and one of its transforms or all of them.
#[derive(Debug, Deserialize)]
pub(super) struct StatePath {
    pipeline: String,
    transform: Option<String>,
}

pub(super) async fn list(State(host): State<Arc<HostView>>) -> Result<Json<Value>, ApiError> {
    let on_disk = host.store.list().await.map_err(ControlError::of_state)?;
    let in_memory = host.handle.state_in_memory(None).await?;
    Ok(Json(listed(&on_disk, &in_memory)))
}

pub(super) async fn export(
    State(host): State<Arc<HostView>>,
    Path(StatePath { pipeline, transform }): Path<StatePath>,
) -> Result<Response, ApiError> {
    let on_disk = host.store.read(&pipeline).await.map_err(ControlError::of_state)?;
    let in_memory = host.handle.state_in_memory(Some(pipeline.clone())).await?;
    // It may be large.
    let written = tokio::task::spawn_blocking(move || {
        let all = on_disk.iter().chain(in_memory.iter().map(|(_, generation)| generation));
        let written = exported(all, transform.as_deref());
        written.ok_or_else(|| ControlError::nothing_kept(&pipeline, transform.as_deref()))
    });
    let written = written.await.map_err(|error| ControlError::Hung(error.to_string()))?;
    Ok(Json(written?).into_response())
}

pub(super) async fn clear(
    State(host): State<Arc<HostView>>,
    Path(StatePath { pipeline, transform }): Path<StatePath>,
) -> Result<StatusCode, ApiError> {
    host.handle.clear_state(&pipeline, transform.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is kept of each pipeline: in files, and by a running host in memory alone.
pub(crate) fn listed(on_disk: &[Listed], in_memory: &[(String, Generation)]) -> Value {
    let mut pipelines: BTreeMap<&str, Value> = BTreeMap::new();
    for each in on_disk {
        let (transforms, error) = match &each.transforms {
            Ok(transforms) => (rows(transforms, true), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let written_ms = each.written_us.map(|written_us| written_us / 1000);
        let row = json!({
            "pipeline": each.pipeline, "written": written_ms, "file_bytes": each.file_bytes, "error": error,
            "transforms": transforms,
        });
        pipelines.insert(&each.pipeline, row);
    }
    for (pipeline, generation) in in_memory {
        let known = rows(&ListedTransform::all_of(generation), false);
        let row = pipelines.entry(pipeline).or_insert_with(|| {
            json!({
                "pipeline": pipeline, "written": null, "file_bytes": 0, "error": null, "transforms": [],
            })
        });
        if let Value::Array(transforms) = &mut row["transforms"] {
            transforms.extend(known);
        }
    }
    json!({ "pipelines": pipelines.into_values().collect::<Vec<_>>() })
}

fn rows(transforms: &[ListedTransform], is_durable: bool) -> Vec<Value> {
    let row = |each: &ListedTransform| {
        json!({
            "transform": each.transform, "durable": is_durable, "keys": each.keys,
            "state_bytes": each.state_bytes, "snapshot_bytes": each.snapshot_bytes,
        })
    };
    transforms.iter().map(row).collect()
}

/// All that is kept of one transform or of each; `None` if that is nothing.
pub(crate) fn exported<'g>(
    kept: impl IntoIterator<Item = &'g Generation>,
    transform: Option<&str>,
) -> Option<Value> {
    let mut transforms = Map::new();
    for Generation { position, transforms: all } in kept {
        let meant = all.iter().filter(|each| transform.is_none_or(|name| *each.name == *name));
        transforms.extend(meant.map(|each| (each.name.to_string(), whole(each, position.as_ref()))));
    }
    (!transforms.is_empty()).then(|| json!({ "transforms": transforms }))
}

fn whole(state: &TransformState, position: Option<&Position>) -> Value {
    let (mut values, mut ends) = (Map::new(), Map::new());
    for (key, value) in &state.values {
        let Some(StateValue { bytes, expires_us }) = value else { continue };
        values.insert(key.to_string(), BASE64.encode(bytes).into());
        ends.extend(expires_us.map(|end_us| (key.to_string(), (end_us / 1000).into())));
    }
    // One of each instance, where any has one.
    let snapshots =
        state.snapshots.as_deref().filter(|all| all.iter().any(Option::is_some)).unwrap_or_default();
    let snapshots =
        snapshots.iter().map(|snapshot| snapshot.as_ref().map(|bytes| BASE64.encode(bytes)).into());
    let position = position.map(|Position { offset, head_bytes, head }| {
        let head = head.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        json!({ "offset": offset, "head_bytes": head_bytes, "head_sha256": head })
    });
    let mut written =
        json!({ "state": values, "snapshots": snapshots.collect::<Vec<Value>>(), "position": position });
    if !ends.is_empty() {
        written["expires"] = ends.into();
    }
    written
}
