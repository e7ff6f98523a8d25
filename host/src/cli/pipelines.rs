//! `tidemill pipelines`: the pipelines of a running host, listed, shown, added, removed, started and stopped.

use super::Exit;
use super::arguments::name;
use super::part::sending;
use super::readable::{since, text};
use super::running_host::{HostArgs, HostRefusal, asking};
use super::shape::AnswerShape;
use super::table::table;
use crate::admin::ApiRequest;
use crate::config::PartFile;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Longest that a pipeline may take to start, or to stop within the grace period of its host.
const CHANGE_TIMEOUT: Duration = Duration::from_mins(10);

/// What a host tells of a pipeline, and of all of them.
pub(super) const PIPELINE: AnswerShape = AnswerShape::Object(&[
    ("name", AnswerShape::Text),
    ("state", AnswerShape::Text),
    (
        "counters",
        AnswerShape::Object(&[("received", AnswerShape::Count), ("transforms", STAGES), ("sinks", STAGES)]),
    ),
]);
const STAGES: AnswerShape =
    AnswerShape::Each(&AnswerShape::Object(&[("in", AnswerShape::Count), ("in_flight", AnswerShape::Count)]));
const PIPELINES: AnswerShape = AnswerShape::Object(&[("pipelines", AnswerShape::List(&PIPELINE))]);

#[derive(Debug, clap::Subcommand)]
pub(super) enum PipelinesCommand {
    /// List the pipelines, what each does, and what went through.
    List(PipelineList),
    /// Show one pipeline: its state, and what each of its stages has counted.
    Show(PipelineNamed),
    /// Add a pipeline and start it; it lives as long as the host.
    Add(PipelineAdd),
    /// Stop a pipeline and remove it.
    Remove(PipelineNamed),
    /// Start a pipeline that was stopped, has finished, or has failed.
    Start(PipelineNamed),
    /// Stop a pipeline: what is in flight reaches its end first.
    Stop(PipelineNamed),
}

#[derive(Debug, clap::Args)]
pub(super) struct PipelineList {
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct PipelineNamed {
    /// The name of the pipeline.
    #[arg(value_parser = name)]
    name: String,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct PipelineAdd {
    /// One pipeline as TOML or JSON, by the file's ending: alone, or as the only one of `[[pipelines]]`. Its paths and
    /// variables are those of the host.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    host: HostArgs,
}

impl PipelinesCommand {
    pub(super) fn execute(self) -> Exit {
        match self {
            Self::List(list) => asking(list.answer()),
            Self::Show(named) => asking(named.ask("GET", "", whole)),
            Self::Remove(named) => asking(named.remove()),
            Self::Start(named) => asking(named.ask("POST", "/start", state_line)),
            Self::Stop(named) => asking(named.ask("POST", "/stop", state_line)),
            Self::Add(add) => add.execute(),
        }
    }
}

impl PipelineList {
    async fn answer(self) -> Result<(String, Exit), HostRefusal> {
        let all = self.host.ask(ApiRequest::new("GET", "/api/v1/pipelines"), PIPELINES).await?;
        Ok((self.host.shown(&all, as_table), Exit::Success))
    }
}

impl PipelineNamed {
    async fn ask(
        self,
        method: &'static str,
        what: &str,
        shown: impl Fn(&Value) -> String,
    ) -> Result<(String, Exit), HostRefusal> {
        let request = ApiRequest::new(method, self.path(what)).within(CHANGE_TIMEOUT);
        let answer = self.host.ask(request, PIPELINE).await?;
        Ok((self.host.shown(&answer, shown), Exit::Success))
    }

    async fn remove(self) -> Result<(String, Exit), HostRefusal> {
        let request = ApiRequest::new("DELETE", self.path("")).within(CHANGE_TIMEOUT);
        let answer = self.host.ask(request, AnswerShape::Nothing).await?;
        let removed = |_: &Value| format!("removed: pipeline \"{}\"\n", self.name);
        Ok((self.host.shown(&answer, removed), Exit::Success))
    }

    fn path(&self, what: &str) -> String {
        format!("/api/v1/pipelines/{}{what}", utf8_percent_encode(&self.name, NON_ALPHANUMERIC))
    }
}

impl PipelineAdd {
    fn execute(self) -> Exit {
        let request = ApiRequest::new("POST", "/api/v1/pipelines").within(CHANGE_TIMEOUT);
        let added = |added: &Value| (state_line(added), Exit::Success);
        sending(PartFile::load_pipeline(&self.file), request, PIPELINE, &self.host, added)
    }
}

fn as_table(all: &Value) -> String {
    let pipelines = all["pipelines"].as_array().map_or(&[][..], Vec::as_slice);
    if pipelines.is_empty() {
        return "no pipelines\n".to_owned();
    }
    let rows = pipelines.iter().map(|pipeline| {
        let counters = &pipeline["counters"];
        [
            text(&pipeline["name"]),
            text(&pipeline["state"]),
            pipeline["since"].as_u64().map_or_else(String::new, since),
            counters["received"].to_string(),
            each(&counters["sinks"], "delivered").iter().sum::<u64>().to_string(),
            losses(&counters["dropped"]).to_string(),
            losses(&counters["dead_lettered"]).to_string(),
            pipeline_in_flight(counters).to_string(),
            note(pipeline),
        ]
    });
    let head = [
        "PIPELINE",
        "STATE",
        "SINCE",
        "RECEIVED",
        "DELIVERED",
        "DROPPED",
        "DEAD LETTERS",
        "IN FLIGHT",
        "NOTE",
    ];
    table(head, rows)
}

fn state_line(pipeline: &Value) -> String {
    let note = note(pipeline);
    let note = if note.is_empty() { note } else { format!(": {note}") };
    format!("pipeline \"{}\" is {}{note}\n", text(&pipeline["name"]), text(&pipeline["state"]))
}

/// Why it does not do what it is to do, if so.
pub(super) fn note(pipeline: &Value) -> String {
    let missing =
        pipeline["plugins"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let waits = if missing.is_empty() { missing } else { format!("waits for {missing}") };
    let refused = pipeline["refused"].as_object().into_iter().flatten();
    let refused = refused.map(|(plugin, why)| format!("{plugin}: {}", text(why)));
    let warnings = pipeline["warnings"].as_array().into_iter().flatten().map(text);
    let told = [text(&pipeline["error"]), text(&pipeline["degraded"]), waits];
    let told = told.into_iter().chain(refused).chain(warnings).filter(|each| !each.is_empty());
    told.collect::<Vec<_>>().join("; ")
}

fn whole(pipeline: &Value) -> String {
    let mut told = state_line(pipeline);
    if let Some(ms) = pipeline["since"].as_u64() {
        let _ = writeln!(told, "since {}", since(ms));
    }
    let counters = &pipeline["counters"];
    let lost = |stage: &str, what: &str| {
        let reasons = counters[what][stage].as_object().into_iter().flatten();
        reasons.map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
    };
    let row = |name: &str, kind: &str, entered: String, left: String, counts: &Value| {
        let number = |key: &str| counts[key].as_u64().map_or_else(String::new, |count| count.to_string());
        [
            name.to_owned(),
            kind.to_owned(),
            entered,
            left,
            number("filtered"),
            number("in_flight"),
            lost(name, "dropped"),
            lost(name, "dead_lettered"),
            number("retried"),
        ]
    };
    let mut rows =
        vec![row("source", "source", counters["received"].to_string(), String::new(), &counters["source"])];
    for (name, counts) in counters["transforms"].as_object().into_iter().flatten() {
        let out = ["forwarded", "emitted"].iter().filter_map(|key| counts[key].as_u64()).sum::<u64>();
        rows.push(row(name, "transform", counts["in"].to_string(), out.to_string(), counts));
    }
    for (name, counts) in counters["sinks"].as_object().into_iter().flatten() {
        rows.push(row(name, "sink", counts["in"].to_string(), counts["delivered"].to_string(), counts));
    }
    let head = ["STAGE", "KIND", "IN", "OUT", "FILTERED", "IN FLIGHT", "DROPPED", "DEAD LETTERS", "RETRIED"];
    told.push_str(&table(head, rows));
    told
}

/// A number of each of several places.
fn each(places: &Value, key: &str) -> Vec<u64> {
    places.as_object().into_iter().flat_map(Map::values).filter_map(|place| place[key].as_u64()).collect()
}

/// What was lost at all places, for whatever reason.
fn losses(places: &Value) -> u64 {
    let reasons = places.as_object().into_iter().flat_map(Map::values).filter_map(Value::as_object);
    reasons.flat_map(Map::values).filter_map(Value::as_u64).sum()
}

fn pipeline_in_flight(counters: &Value) -> u64 {
    let source = counters["source"]["in_flight"].as_u64().unwrap_or(0);
    let stages = ["transforms", "sinks"].iter().flat_map(|places| each(&counters[*places], "in_flight"));
    source + stages.sum::<u64>()
}
