//! Dead letters over HTTP: looked at, and given to their pipelines again.
//!
//! Where a letter may enter is looked up in the table of pipelines; whether it does, its pipeline decides when it has
//! room.

use super::HostView;
use super::api_error::ApiError;
use super::query::Query;
use crate::config::{self, Outputs, SOURCE, SourceConfig, nearest};
use crate::dead_letters::{Letter, LetterFilter, RetryOrder, RetryReport, ShownLetter};
use crate::reason::Reason;
use crate::telemetry::PipelineState;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Json;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Letters of one answer, if nothing else is asked for, and at most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;
/// What a list shows of a payload, and of a value of metadata.
const SHORT_BYTES: usize = 256;
/// Letters that one request may name or bring.
const MOST_LETTERS: usize = 1000;
/// How long an answer waits for letters that are kept to enter; they enter all the same when they come later.
const KEPT_PATIENCE: Duration = Duration::from_secs(5);
/// How long letters that come with a request may take to enter.
const GIVEN_PATIENCE: Duration = Duration::from_secs(30);
/// Least and most messages a second.
const RATES: RangeInclusive<f64> = 0.001..=1e6;
/// The largest message that a pipeline can have without being told so: a line of a file.
const LARGEST_MESSAGE_BYTES: usize = 32 << 20;
/// A byte of a text takes so many in JSON at most, where it is a control character.
const BYTES_IN_JSON: usize = 6;
/// What a letter takes beside its message.
const LETTER_BYTES: usize = 1 << 20;

/// What is to be retried, and how.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object that says which letters are meant")]
struct RetryRequest {
    /// Letters that are kept, by name.
    ids: Option<Vec<String>>,
    /// All that are kept.
    #[serde(default)]
    all: bool,
    /// Letters of a file.
    letters: Option<Vec<Box<RawValue>>>,
    pipeline: Option<String>,
    reason: Option<String>,
    rate: Option<f64>,
    #[serde(default)]
    dry_run: bool,
}

/// Which letters of a request may be retried.
#[derive(Debug, Default)]
struct Sorted {
    kept: BTreeMap<Arc<str>, Vec<u64>>,
    given: BTreeMap<Arc<str>, Vec<(u64, Letter)>>,
    /// Which may not, and why.
    refused: Vec<Value>,
}

pub(super) async fn list(
    State(host): State<Arc<HostView>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let query = Query::parse(query.as_deref(), &["pipeline", "reason", "limit", "before"])?;
    let filter = host.filter(query.text("pipeline"), query.text("reason"))?;
    let limit = query.number("limit", 1..=LARGEST_PAGE)?.unwrap_or(PAGE);
    let before = query.text("before").map(|name| host.dead_letters.number(name).ok_or_else(|| absent(name)));
    let (page, total) = host.dead_letters.newest(&filter, before.transpose()?, limit);
    let page: Vec<_> = page.iter().map(|shown| host.shown(shown, SHORT_BYTES)).collect();
    Ok(Json(json!({ "deadletters": page, "total": total })))
}

pub(super) async fn get(
    State(host): State<Arc<HostView>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let letter = host.dead_letters.number(&id).and_then(|number| host.dead_letters.get(number));
    let letter = letter.ok_or_else(|| absent(&id))?;
    Ok(Json(host.shown(&letter, usize::MAX)))
}

pub(super) async fn retry(State(host): State<Arc<HostView>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let request: RetryRequest = serde_json::from_slice(&body).map_err(|error| {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        let code = if is_json { "invalid" } else { "not_json" };
        let status = if is_json { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        ApiError::new(status, code, format!("the body is no request to retry: {error}"))
    })?;
    let (rate, dry_run) = (request.rate, request.dry_run);
    if rate.is_some_and(|rate| !RATES.contains(&rate)) {
        return Err(invalid("`rate` must be between 0.001 and 1000000 messages a second"));
    }
    let Sorted { kept, given, mut refused } = host.sorted(request)?;
    if dry_run {
        let kept: usize = kept.values().map(Vec::len).sum();
        let retried = kept + given.values().map(Vec::len).sum::<usize>();
        return Ok(Json(json!({ "dry_run": true, "retried": retried, "waiting": 0, "refused": refused })));
    }
    let (mut reports, mut given_reports) = (Vec::new(), Vec::new());
    for (pipeline, numbers) in kept {
        let (order, report) = RetryOrder::of_kept(&pipeline, numbers.clone(), rate, &host.dead_letters);
        match host.handle.retry(&pipeline, order).await {
            Ok(()) => reports.push(report),
            Err(why) => refused.extend(numbers.iter().map(|number| host.refused(*number, &why.to_string()))),
        }
    }
    for (pipeline, letters) in given {
        let numbers: Vec<_> = letters.iter().map(|(number, _)| *number).collect();
        let (order, report) = RetryOrder::of_given(&pipeline, letters, rate, &host.dead_letters);
        match host.handle.retry(&pipeline, order).await {
            Ok(()) => given_reports.push(report),
            Err(why) => refused.extend(numbers.iter().map(|number| refused_given(*number, &why.to_string()))),
        }
    }
    let (mut retried, mut waiting) = (0, 0);
    let until = Instant::now() + KEPT_PATIENCE;
    for report in &reports {
        let became = report.over(until.saturating_duration_since(Instant::now())).await;
        (retried, waiting) = (retried + became.entered, waiting + became.waiting);
        refused.extend(became.refused.iter().map(|(number, why)| host.refused(*number, why)));
    }
    let until = Instant::now() + GIVEN_PATIENCE;
    for report in &given_reports {
        report.over(until.saturating_duration_since(Instant::now())).await;
    }
    given_reports.iter().for_each(RetryReport::cancel);
    for report in &given_reports {
        let became = report.over(Duration::ZERO).await;
        retried += became.entered;
        refused.extend(became.refused.iter().map(|(number, why)| refused_given(*number, why)));
    }
    Ok(Json(json!({ "dry_run": false, "retried": retried, "waiting": waiting, "refused": refused })))
}

impl HostView {
    /// What a request with one letter of a pipeline may take: all that can have been written as a line of a file.
    pub(super) fn most_letter_bytes(&self) -> usize {
        let pipelines = self.handle.pipelines();
        let largest = pipelines.iter().map(|pipeline| largest_message_bytes(&pipeline.config)).max();
        let largest = largest.unwrap_or(0).max(LARGEST_MESSAGE_BYTES);
        largest.saturating_mul(BYTES_IN_JSON).saturating_add(LETTER_BYTES)
    }

    /// A letter as it is kept, and where it enters again.
    fn shown(&self, shown: &ShownLetter, most_bytes: usize) -> Value {
        let mut json = shown.letter.to_json(most_bytes);
        json["id"] = self.dead_letters.name(shown.number).into();
        json["waiting"] = shown.is_waiting.into();
        match self.places(&shown.letter) {
            Ok(places) => json["enters"] = places.into(),
            Err(why) => {
                json["enters"] = json!([]);
                json["not_retryable"] = why.into();
            }
        }
        json
    }

    /// The stages that a letter enters again.
    ///
    /// # Errors
    /// There are none, and why.
    fn places(&self, letter: &Letter) -> Result<Vec<String>, String> {
        if letter.whole_bytes.is_some() {
            let why = "its message was too large to be kept whole; if its pipeline writes dead letters to a file, \
                       it can be retried from there";
            return Err(why.to_owned());
        }
        let pipeline = self.handle.pipeline(&letter.pipeline);
        let pipeline = pipeline.ok_or_else(|| format!("there is no pipeline \"{}\"", letter.pipeline))?;
        let stages = stages(&pipeline.config, &letter.stage);
        let none = || format!("pipeline \"{}\" has no stage \"{}\" any more", letter.pipeline, letter.stage);
        if stages.is_empty() { Err(none()) } else { Ok(stages) }
    }

    /// The letters that are meant. A pipeline that was removed may have left some.
    fn filter(&self, pipeline: Option<&str>, reason: Option<&str>) -> Result<LetterFilter, ApiError> {
        let reason = reason.map(|name| Reason::of_name(name).ok_or_else(|| no_reason(name))).transpose()?;
        let of_pipeline = LetterFilter { pipeline: pipeline.map(str::to_owned), reason: None };
        if let Some(name) = pipeline
            && self.handle.pipeline(name).is_none()
            && self.dead_letters.newest(&of_pipeline, None, 0).1 == 0
        {
            return Err(self.no_pipeline(name));
        }
        Ok(LetterFilter { reason, ..of_pipeline })
    }

    /// Why a letter cannot be retried now, if it cannot.
    fn why_not(&self, letter: &Letter) -> Option<String> {
        if let Err(why) = self.places(letter) {
            return Some(why);
        }
        match self.handle.pipeline(&letter.pipeline)?.state {
            PipelineState::Running => None,
            state => Some(format!("pipeline \"{}\" does not run: it is {}", letter.pipeline, state.as_str())),
        }
    }

    fn sorted(&self, request: RetryRequest) -> Result<Sorted, ApiError> {
        let RetryRequest { ids, all, letters, pipeline, reason, .. } = request;
        let filter = self.filter(pipeline.as_deref(), reason.as_deref())?;
        let mut sorted = Sorted::default();
        match (ids, all, letters) {
            (Some(ids), false, None) if ids.len() <= MOST_LETTERS => {
                self.sort_ids(&ids, &filter, &mut sorted);
            }
            (None, true, None) => self.sort_all(&filter, &mut sorted),
            (None, false, Some(letters)) if letters.len() <= MOST_LETTERS => {
                self.sort_given(&letters, &filter, &mut sorted);
            }
            (Some(_), false, None) | (None, false, Some(_)) => {
                return Err(invalid(&format!("one request takes at most {MOST_LETTERS} letters")));
            }
            _ => {
                let hint = "such as {\"ids\": [\"ID\"]}, or {\"all\": true}";
                return Err(invalid("the body has one of `ids`, `all` and `letters`").hint(hint));
            }
        }
        Ok(sorted)
    }

    fn sort_ids(&self, ids: &[String], filter: &LetterFilter, sorted: &mut Sorted) {
        let ids: BTreeSet<_> = ids.iter().collect();
        let mut found = Vec::new();
        for id in ids {
            let kept = self.dead_letters.number(id).and_then(|number| self.dead_letters.get(number));
            let why = match &kept {
                None => Some("it is not kept".to_owned()),
                Some(shown) if !filter.has(&shown.letter) => Some("it is not one of those".to_owned()),
                Some(shown) if shown.is_waiting => Some("it waits to be retried already".to_owned()),
                Some(shown) => self.why_not(&shown.letter),
            };
            match (why, kept) {
                (None, Some(shown)) => found.push(shown),
                (why, _) => sorted.refused.push(json!({ "id": id, "error": why })),
            }
        }
        // In the order in which they failed.
        found.sort_unstable_by_key(|shown| shown.number);
        for shown in found {
            sorted.kept.entry(shown.letter.pipeline.clone()).or_default().push(shown.number);
        }
    }

    fn sort_all(&self, filter: &LetterFilter, sorted: &mut Sorted) {
        let (all, _) = self.dead_letters.newest(filter, None, usize::MAX);
        for shown in all.into_iter().rev().filter(|shown| !shown.is_waiting) {
            match self.why_not(&shown.letter) {
                None => sorted.kept.entry(shown.letter.pipeline.clone()).or_default().push(shown.number),
                Some(why) => sorted.refused.push(self.refused(shown.number, &why)),
            }
        }
    }

    fn sort_given(&self, letters: &[Box<RawValue>], filter: &LetterFilter, sorted: &mut Sorted) {
        for (number, json) in (0..).zip(letters) {
            let letter = match Letter::parse(json.get()) {
                Ok(letter) if !filter.has(&letter) => Err("it is not one of those".to_owned()),
                Ok(letter) => self.why_not(&letter).map_or(Ok(letter), Err),
                Err(why) => Err(format!("it is no dead letter: {why}")),
            };
            match letter {
                Ok(letter) => {
                    sorted.given.entry(letter.pipeline.clone()).or_default().push((number, letter));
                }
                Err(why) => sorted.refused.push(refused_given(number, &why)),
            }
        }
    }

    fn refused(&self, number: u64, why: &str) -> Value {
        json!({ "id": self.dead_letters.name(number), "error": why })
    }
}

fn refused_given(number: u64, why: &str) -> Value {
    json!({ "index": number, "error": why })
}

/// The stages of a pipeline that a letter of this one enters: that one, and in the place of the source what comes
/// first behind it.
fn stages(pipeline: &config::Pipeline, stage: &str) -> Vec<String> {
    let transforms = || pipeline.transforms.iter().map(|transform| &transform.name);
    let sinks = || pipeline.sinks.iter();
    if stage != SOURCE {
        let all = transforms().chain(sinks().map(|sink| &sink.name));
        return all.filter(|name| **name == stage).cloned().collect();
    }
    if let Some(first) = transforms().next() {
        return vec![first.clone()];
    }
    let takes_default = |outputs: &Outputs| match outputs {
        Outputs::All => true,
        Outputs::Named(names) => names.iter().any(|name| name.expose() == "default"),
    };
    sinks().filter(|sink| takes_default(&sink.outputs)).map(|sink| sink.name.clone()).collect()
}

/// The largest message that a pipeline may be given, or make.
fn largest_message_bytes(pipeline: &config::Pipeline) -> usize {
    let received = match &pipeline.source {
        SourceConfig::WebSocket(source) => source.endpoint.max_message_size_bytes,
        _ => 0,
    };
    pipeline.transforms.iter().map(|transform| transform.limits.output_bytes).fold(received, usize::max)
}

fn no_reason(name: &str) -> ApiError {
    let known = Reason::ALL.map(Reason::as_str);
    let hint = match nearest(name, known.into_iter()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("a reason is one of {}", known.join(", ")),
    };
    ApiError::new(StatusCode::BAD_REQUEST, "bad_request", format!("there is no reason `{name}`")).hint(hint)
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
}

fn absent(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("no dead letter \"{id}\" is kept"))
        .hint("GET /api/v1/deadletters lists those that are: the newest 1000, of at most 16 MiB")
}
