//! Pipelines over HTTP: list, show, add, replace, remove, start and stop; adding, removing, starting, stopping.
//!
//! What is added here lives as long as the host; no file is written.

use super::HostView;
use super::api_error::ApiError;
use super::body::NoBody;
use super::query::Query;
use super::reload;
use crate::config::{self, nearest};
use crate::control::ControlError;
use crate::reason::Reason;
use crate::telemetry::{Described, Metrics, PipelineState};
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) async fn list(State(host): State<Arc<HostView>>) -> Json<Value> {
    let all = host.handle.pipelines();
    let all: Vec<_> = all.iter().map(|pipeline| host.describe(pipeline)).collect();
    Json(json!({ "pipelines": all }))
}

pub(super) async fn get(
    State(host): State<Arc<HostView>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let pipeline = host.handle.pipeline(&name).ok_or_else(|| host.no_pipeline(&name))?;
    Ok(Json(host.describe(&pipeline)).into_response())
}

pub(super) async fn add(State(host): State<Arc<HostView>>, body: Bytes) -> Result<Response, ApiError> {
    let pipeline = read(&host, body).await?;
    let added = host.handle.add(pipeline).await?;
    let location = format!("/api/v1/pipelines/{}", utf8_percent_encode(&added.config.name, NON_ALPHANUMERIC));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(host.describe(&added))).into_response())
}

pub(super) async fn remove(
    State(host): State<Arc<HostView>>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    host.handle.remove(&name).await.map_err(|error| host.told(error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// 202 where it is to run and does not yet.
pub(super) async fn start(
    State(host): State<Arc<HostView>>,
    Path(name): Path<String>,
    _: NoBody,
) -> Result<Response, ApiError> {
    let started = host.handle.start(&name).await.map_err(|error| host.told(error))?;
    let runs = started.state == PipelineState::Running;
    let status = if runs { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(host.describe(&started))).into_response())
}

pub(super) async fn stop(
    State(host): State<Arc<HostView>>,
    Path(name): Path<String>,
    _: NoBody,
) -> Result<Response, ApiError> {
    let stopped = host.handle.stop(&name).await.map_err(|error| host.told(error))?;
    Ok(Json(host.describe(&stopped)).into_response())
}

/// The pipeline is as the body says from now on: in place where that can be, as at a reload.
pub(super) async fn replace(
    State(host): State<Arc<HostView>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let query = Query::parse(query.as_deref(), &["dry_run"])?;
    let dry_run = query.flag("dry_run")?;
    let pipeline = read(&host, body).await?;
    if pipeline.name != name {
        let message = format!("this is pipeline \"{name}\", and the body has the name \"{}\"", pipeline.name);
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "other_name", message)
            .hint("a pipeline keeps its name: remove this one, and add one with the other name"));
    }
    Ok(Json(reload::as_json(host.handle.replace(pipeline, dry_run).await?)))
}

/// Reads a pipeline of a body.
async fn read(host: &Arc<HostView>, body: Bytes) -> Result<config::Pipeline, ApiError> {
    host.check_trust(&body)?;
    let reading = tokio::task::spawn_blocking({
        // It looks at files, which may take its time where they lie on a network.
        let host = host.clone();
        move || host.reader.pipeline(&body, &host.server)
    });
    Ok(reading.await.map_err(|error| ControlError::Hung(error.to_string()))??)
}

impl HostView {
    /// That there is no pipeline of this name.
    pub(super) fn no_pipeline(&self, name: &str) -> ApiError {
        self.told(ControlError::NotFound(name.to_owned()))
    }

    /// Why a pipeline did not do what it was told; with the nearest name, where there is none of this one.
    fn told(&self, error: ControlError) -> ApiError {
        let pipelines = self.handle.pipelines();
        let near = match &error {
            ControlError::NotFound(name) => nearest(name, pipelines.iter().map(|each| &*each.config.name)),
            _ => None,
        };
        let hint = near.map(|near| format!("did you mean \"{near}\"? GET /api/v1/pipelines lists them"));
        let refusal = ApiError::from(error);
        match hint {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    }

    /// A pipeline as it is configured, its state, and what it has counted.
    fn describe(&self, pipeline: &Described) -> Value {
        let mut answer = pipeline.config.shown();
        let state = serde_json::to_value(&pipeline.state).unwrap_or_default();
        if let (Value::Object(answer), Value::Object(state)) = (&mut answer, state) {
            answer.extend(state);
            answer.insert("since".to_owned(), pipeline.since_ms.into());
            if let Some(why) = self.why_degraded(&pipeline.config) {
                answer.insert("degraded".to_owned(), why.into());
            }
            if !pipeline.warnings.is_empty() {
                answer.insert("warnings".to_owned(), json!(pipeline.warnings));
            }
            answer.insert("counters".to_owned(), counters(&self.metrics, &pipeline.config));
        }
        answer
    }
}

fn counters(metrics: &Metrics, pipeline: &config::Pipeline) -> Value {
    let name = &pipeline.name;
    let transforms: Map<_, _> = pipeline
        .transforms
        .iter()
        .map(|transform| {
            let counts = metrics.stage_counts(name, &transform.name);
            let settled = counts.settled;
            let counts = json!({
                "in": counts.entered, "passed": settled.passed, "filtered": settled.filtered,
                "forwarded": settled.forwarded, "emitted": settled.emitted, "in_flight": counts.in_flight,
                "retried": counts.retried,
                "paused": metrics.is_paused(name, &transform.name),
            });
            (transform.name.clone(), counts)
        })
        .collect();
    let sinks: Map<_, _> = pipeline
        .sinks
        .iter()
        .map(|sink| {
            let counts = metrics.stage_counts(name, &sink.name);
            let counts = json!({
                "in": counts.entered, "delivered": counts.delivered, "in_flight": counts.in_flight,
                "retried": counts.retried,
            });
            (sink.name.clone(), counts)
        })
        .collect();
    let stages = transforms.keys().chain(sinks.keys());
    let stages: Vec<&str> = std::iter::once(config::SOURCE).chain(stages.map(String::as_str)).collect();
    let lost = |of: &dyn Fn(&str, Reason) -> u64| {
        let stages = stages.iter().filter_map(|stage| {
            let reasons: Map<_, _> = Reason::ALL
                .into_iter()
                .map(|reason| (reason.as_str().to_owned(), of(stage, reason)))
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason, count.into()))
                .collect();
            (!reasons.is_empty()).then(|| ((*stage).to_owned(), Value::Object(reasons)))
        });
        stages.collect::<Map<_, _>>()
    };
    json!({
        "received": metrics.received_count(name),
        "source": { "in_flight": metrics.stage_counts(name, config::SOURCE).in_flight },
        "dropped": lost(&|stage, reason| metrics.loss_counts(name, stage, reason).dropped),
        "dead_lettered": lost(&|stage, reason| metrics.loss_counts(name, stage, reason).dead_lettered),
        "transforms": transforms,
        "sinks": sinks,
    })
}
