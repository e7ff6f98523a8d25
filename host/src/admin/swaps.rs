//! Verdicts over HTTP: what became of attempts to have plugins run in other versions.

use super::HostView;
use crate::verdict::{CarriedState, ShadowVerdict, UsePlace, UseVerdict, Verdict};
use axum::extract::State;
use axum::response::Json;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn list(State(host): State<Arc<HostView>>) -> Json<Value> {
    let swaps = host.handle.swaps();
    Json(json!({ "swaps": swaps.iter().map(verdict).collect::<Vec<_>>() }))
}

/// A verdict in the words of the API.
pub(super) fn verdict(verdict: &Verdict) -> Value {
    json!({
        "plugin": verdict.plugin,
        "outcome": verdict.outcome.as_str(),
        "version": verdict.version,
        "previous": verdict.previous,
        "asked_by": verdict.asked_by.as_str(),
        "started": verdict.started_ms,
        "decided": verdict.decided_ms,
        "compile_ms": verdict.compile_ms,
        "error": verdict.error,
        "folder_error": verdict.folder_error,
        "uses": verdict.uses.iter().map(at_place).collect::<Vec<_>>(),
    })
}

fn at_place(each: &UseVerdict) -> Value {
    let (kind, name) = match &each.place {
        UsePlace::Transform(label) => ("transform", label),
        UsePlace::Endpoint(name) => ("endpoint", name),
    };
    let mut told = json!({
        "pipeline": each.pipeline,
        kind: name,
        "outcome": each.outcome.as_str(),
        "state": each.state.map(CarriedState::as_str),
        "swap_us": each.swap_us,
        "error": each.error,
    });
    if let Some(ShadowVerdict { same, different, faulted, first }) = &each.shadow {
        let first = first.as_ref().map(|first| json!({ "old": first.old, "new": first.new }));
        told["shadow"] = json!({ "same": same, "different": different, "faulted": faulted, "first": first });
    }
    told
}
