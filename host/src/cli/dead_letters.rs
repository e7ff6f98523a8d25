//! `tidemill deadletter`: the dead letters of a running host, listed, shown, and retried.

mod file;

use super::arguments::name;
use super::readable::{beginning, since_time, text};
use super::running_host::{HostArgs, HostRefusal, asking};
use super::shape::AnswerShape;
use super::table::table;
use super::{Exit, complain};
use crate::admin::ApiRequest;
use crate::reason::Reason;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What a table shows of a text.
const DETAIL_CHARACTERS: usize = 60;
const PAYLOAD_CHARACTERS: usize = 40;
/// Most letters of one list: as many as a host keeps.
const MOST_LISTED: i64 = 1000;
/// What a host tells of letters, and of what became of them.
const LETTERS: AnswerShape =
    AnswerShape::Object(&[("deadletters", AnswerShape::List(&LETTER)), ("total", AnswerShape::Count)]);
const LETTER: AnswerShape = AnswerShape::Object(&[
    ("id", AnswerShape::Text),
    ("pipeline", AnswerShape::Text),
    ("reason", AnswerShape::Text),
]);
const RETRIED: AnswerShape = AnswerShape::Object(&[
    ("retried", AnswerShape::Count),
    ("waiting", AnswerShape::Count),
    ("refused", AnswerShape::List(&AnswerShape::Object(&[("error", AnswerShape::Text)]))),
]);

#[derive(Debug, clap::Subcommand)]
pub(super) enum DeadLetterCommand {
    /// List the newest dead letters, the newest first.
    List(LetterList),
    /// Show one dead letter whole.
    Show(LetterShow),
    /// Give dead letters to their pipelines again.
    Retry(LetterRetry),
}

#[derive(Debug, clap::Args)]
pub(super) struct LetterList {
    #[command(flatten)]
    meant: LettersMeant,
    /// List so many at most.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=MOST_LISTED)
    )]
    limit: u32,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct LetterShow {
    /// The id of the letter, as the list has it.
    #[arg(value_parser = name)]
    id: String,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["ids", "all", "file"])))]
pub(super) struct LetterRetry {
    /// The ids of letters, as the list has them.
    #[arg(value_name = "ID", value_parser = name)]
    ids: Vec<String>,
    /// All that are kept.
    #[arg(long)]
    all: bool,
    /// Those of a dead-letter file of `format = "jsonl"`; `.gz` is understood.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    meant: LettersMeant,
    /// So many messages a second at most, of each pipeline. Those of other commands come on top.
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Say what would be retried, and retry nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct LettersMeant {
    /// Only those of this pipeline.
    #[arg(long, value_name = "PIPELINE", value_parser = name)]
    pipeline: Option<String>,
    /// Only those that failed for this reason, such as `rejected` or `trap`.
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,
}

impl DeadLetterCommand {
    pub(super) fn execute(self) -> Exit {
        match self {
            Self::List(list) => asking(list.answer()),
            Self::Show(show) => asking(show.answer()),
            Self::Retry(retry) => match retry.file.clone() {
                Some(file) => file::retry(&retry, &file),
                None => asking(retry.answer()),
            },
        }
    }
}

impl LetterList {
    async fn answer(self) -> Result<(String, Exit), HostRefusal> {
        let mut path = format!("/api/v1/deadletters?limit={}", self.limit);
        let Self { meant: LettersMeant { pipeline, reason }, .. } = &self;
        let filters = [("pipeline", pipeline.as_deref()), ("reason", reason.map(Reason::as_str))];
        for (name, value) in filters.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            let _ = write!(path, "&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        let all = self.host.ask(ApiRequest::new("GET", path), LETTERS).await?;
        Ok((self.host.shown(&all, as_table), Exit::Success))
    }
}

impl LetterShow {
    async fn answer(self) -> Result<(String, Exit), HostRefusal> {
        let path = format!("/api/v1/deadletters/{}", utf8_percent_encode(&self.id, NON_ALPHANUMERIC));
        let letter = self.host.ask(ApiRequest::new("GET", path), LETTER).await?;
        Ok((self.host.shown(&letter, whole), Exit::Success))
    }
}

impl LetterRetry {
    async fn answer(self) -> Result<(String, Exit), HostRefusal> {
        let mut body = self.body();
        if self.all {
            body["all"] = true.into();
        } else {
            body["ids"] = self.ids.clone().into();
        }
        let request = ApiRequest::new("POST", "/api/v1/deadletters/retry").json(body.to_string());
        let answer = self.host.ask(request, RETRIED).await?;
        let refused = answer["refused"].as_array().map_or(&[][..], Vec::as_slice);
        let exit = if refused.is_empty() { Exit::Success } else { Exit::Failure };
        if self.host.json {
            return Ok((format!("{answer:#}\n"), exit));
        }
        for each in refused {
            complain(format!("{}: {}", text(&each["id"]), text(&each["error"])));
        }
        let waiting = answer["waiting"].as_u64().unwrap_or(0);
        let mut told = self.told(answer["retried"].as_u64().unwrap_or(0));
        if waiting > 0 {
            let _ = writeln!(told, "{waiting} wait: they follow as their pipelines take them");
        }
        Ok((told, exit))
    }

    fn body(&self) -> Value {
        let mut body = json!({ "dry_run": self.dry_run });
        let LettersMeant { pipeline, reason } = &self.meant;
        if let Some(pipeline) = pipeline {
            body["pipeline"] = pipeline.as_str().into();
        }
        if let Some(reason) = reason {
            body["reason"] = reason.as_str().into();
        }
        if let Some(rate) = self.rate {
            body["rate"] = rate.into();
        }
        body
    }

    fn told(&self, retried: u64) -> String {
        let letters =
            if retried == 1 { "1 dead letter".to_owned() } else { format!("{retried} dead letters") };
        if self.dry_run { format!("{letters} would be retried\n") } else { format!("{letters} retried\n") }
    }
}

fn as_table(all: &Value) -> String {
    let letters = all["deadletters"].as_array().map_or(&[][..], Vec::as_slice);
    let total = all["total"].as_u64().unwrap_or(0);
    if total == 0 {
        return "no dead letters\n".to_owned();
    }
    let rows = letters.iter().map(|letter| {
        let payload = match (&letter["payload"], &letter["payload_base64"]) {
            (Value::String(text), _) => beginning(text, PAYLOAD_CHARACTERS),
            (_, packed) => format!("base64 {}", beginning(&text(packed), PAYLOAD_CHARACTERS)),
        };
        [
            text(&letter["id"]),
            since_time(&text(&letter["time"])),
            text(&letter["pipeline"]),
            text(&letter["stage"]),
            text(&letter["reason"]),
            beginning(&text(&letter["detail"]), DETAIL_CHARACTERS),
            payload,
        ]
    });
    let mut told = table(["ID", "FAILED", "PIPELINE", "STAGE", "REASON", "DETAIL", "PAYLOAD"], rows);
    if (letters.len() as u64) < total {
        let _ = writeln!(told, "{} of {total}; `--limit` lists more", letters.len());
    }
    told
}

fn whole(letter: &Value) -> String {
    let mut told = String::new();
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(told, "{key:<10} {value}");
        }
    };
    let time = text(&letter["time"]);
    line("id", &text(&letter["id"]));
    line("failed", &format!("{time}, {}", since_time(&time)));
    line("pipeline", &text(&letter["pipeline"]));
    line("stage", &text(&letter["stage"]));
    if letter["plugin"].is_string() {
        line("plugin", &format!("{} {}", text(&letter["plugin"]), text(&letter["version"])));
    }
    line("reason", &text(&letter["reason"]));
    line("detail", &text(&letter["detail"]));
    let enters: Vec<_> = letter["enters"].as_array().into_iter().flatten().map(text).collect();
    line(
        "retry",
        &match letter["not_retryable"].as_str() {
            Some(why) => format!("not possible: {why}"),
            None if letter["waiting"] == true => "it waits to be retried".to_owned(),
            None => format!("enters {}", enters.join(", ")),
        },
    );
    for (key, value) in letter["metadata"].as_object().into_iter().flatten() {
        line("metadata", &beginning(&format!("{key} = {}", text(value)), usize::MAX));
    }
    let bytes = letter["payload_bytes"].as_u64().unwrap_or(0);
    let kind = if letter["payload"].is_string() { "text" } else { "base64" };
    line("payload", &format!("{bytes} bytes, as {kind}"));
    let payload =
        letter["payload"].as_str().or_else(|| letter["payload_base64"].as_str()).unwrap_or_default();
    for text in payload.lines() {
        let _ = writeln!(told, "{}", beginning(text, usize::MAX));
    }
    told
}

/// A reason on the command line.
fn reason(name: &str) -> Result<Reason, String> {
    let known = || Reason::ALL.map(Reason::as_str).join(", ");
    Reason::of_name(name).ok_or_else(|| format!("it is one of {}", known()))
}

/// Messages a second on the command line.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.001..=1e6).contains(rate));
    rate.ok_or_else(|| "write it as a number of messages a second, from 0.001 to 1000000".to_owned())
}
