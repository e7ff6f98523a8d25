//! `tidemill deadletter`: the dead letters of a running host, listed, shown, and retried.

use super::readable::{beginning, since_time, text};
use super::running_host::{HostRefusal, RunningHost, asking};
use super::table::table;
use super::{Exit, block_on, complain, tell};
use crate::admin::ApiRequest;
use crate::dead_letters::{Letter, LetterFilter};
use crate::reason::Reason;
use flate2::read::MultiGzDecoder;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a table shows of a text.
const DETAIL_CHARACTERS: usize = 60;
const PAYLOAD_CHARACTERS: usize = 40;
/// Letters of a file that are sent at once, and their bytes; one larger letter goes alone.
const CHUNK_LETTERS: usize = 100;
const CHUNK_BYTES: usize = 512 << 10;
/// A host is given as much of a file as it may retry in this time.
const CHUNK_SECONDS: f64 = 5.0;
/// Longest that a host may take for one chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_mins(2);

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
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: RunningHost,
}

#[derive(Debug, clap::Args)]
pub(super) struct LetterShow {
    /// The id of the letter, as the list has it.
    id: String,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: RunningHost,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["ids", "all", "file"])))]
pub(super) struct LetterRetry {
    /// The ids of letters, as the list has them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All that are kept.
    #[arg(long)]
    all: bool,
    /// Those of a dead-letter file of `format = "jsonl"`; `.gz` is understood.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    meant: LettersMeant,
    /// So many messages a second at most, of each pipeline.
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Say what would be retried, and retry nothing.
    #[arg(long)]
    dry_run: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: RunningHost,
}

#[derive(Clone, Debug, clap::Args)]
struct LettersMeant {
    /// Only those of this pipeline.
    #[arg(long, value_name = "PIPELINE")]
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
                Some(file) => retry.file(&file),
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
        let all = self.host.demand(ApiRequest::new("GET", path)).await?;
        let text = if self.json { format!("{all:#}\n") } else { as_table(&all) };
        Ok((text, Exit::Success))
    }
}

impl LetterShow {
    async fn answer(self) -> Result<(String, Exit), HostRefusal> {
        let path = format!("/api/v1/deadletters/{}", utf8_percent_encode(&self.id, NON_ALPHANUMERIC));
        let letter = self.host.demand(ApiRequest::new("GET", path)).await?;
        let text = if self.json { format!("{letter:#}\n") } else { whole(&letter) };
        Ok((text, Exit::Success))
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
        let answer = self.host.demand(request).await?;
        let refused = answer["refused"].as_array().map_or(&[][..], Vec::as_slice);
        let exit = if refused.is_empty() { Exit::Success } else { Exit::Failure };
        if self.json {
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

    /// Retries what a file has, line by line.
    fn file(self, path: &Path) -> Exit {
        let lines = match lines(path) {
            Ok(lines) => lines,
            Err(error) => {
                complain(format!("failed to read {}: {error}", path.display()));
                return Exit::Failure;
            }
        };
        let path = path.to_owned();
        block_on(|shutdown| async move {
            let mut sent = SentLetters::new(&self, &path);
            let done = tokio::select! {
                done = sent.send_all(lines) => done,
                () = shutdown.requested() => Ok(()),
            };
            if let Err(why) = &done {
                complain(why);
            }
            let is_interrupted = shutdown.is_requested();
            let all_is_well = done.is_ok() && sent.refused.is_empty() && !is_interrupted;
            let exit = match (is_interrupted, all_is_well) {
                (true, _) => Exit::Interrupted,
                (false, true) => Exit::Success,
                (false, false) => Exit::Failure,
            };
            let told = if self.json {
                let SentLetters { retried, refused, .. } = &sent;
                format!("{:#}\n", json!({ "dry_run": self.dry_run, "retried": retried, "refused": refused }))
            } else {
                self.told(sent.retried)
            };
            super::answer(&told, exit)
        })
    }
}

/// The letters of a file on their way to a host.
struct SentLetters<'r> {
    retry: &'r LetterRetry,
    path: &'r Path,
    meant: LetterFilter,
    /// Lines that were not sent yet, with their numbers from 1.
    chunk: Vec<(usize, String)>,
    chunk_bytes: usize,
    most: usize,
    retried: u64,
    /// What is no letter, or was refused.
    refused: Vec<Value>,
}

impl<'r> SentLetters<'r> {
    fn new(retry: &'r LetterRetry, path: &'r Path) -> Self {
        let LettersMeant { pipeline, reason } = retry.meant.clone();
        // The pace of the whole is that of its chunks.
        let most = retry
            .rate
            .map_or(CHUNK_LETTERS, |rate| ((rate * CHUNK_SECONDS) as usize).clamp(1, CHUNK_LETTERS));
        Self {
            retry,
            path,
            meant: LetterFilter { pipeline, reason },
            chunk: Vec::new(),
            chunk_bytes: 0,
            most,
            retried: 0,
            refused: Vec::new(),
        }
    }

    /// # Errors
    /// The file cannot be read on, or the host does not take it.
    async fn send_all(&mut self, lines: impl Iterator<Item = io::Result<String>>) -> Result<(), String> {
        for (number, line) in (1..).zip(lines) {
            let line = line.map_err(|error| format!("failed to read {}: {error}", self.path.display()))?;
            if line.trim().is_empty() {
                continue;
            }
            match Letter::parse(&line) {
                Ok(letter) if !self.meant.has(&letter) => continue,
                Ok(_) => {}
                Err(why) => {
                    self.refuse(number, &format!("no dead letter: {why}"));
                    continue;
                }
            }
            if self.chunk.len() >= self.most || self.chunk_bytes + line.len() > CHUNK_BYTES {
                self.send().await?;
            }
            self.chunk_bytes += line.len();
            self.chunk.push((number, line));
        }
        self.send().await
    }

    async fn send(&mut self) -> Result<(), String> {
        let chunk = std::mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        let Some((first, _)) = chunk.first() else { return Ok(()) };
        // The lines are sent as they stand.
        let letters: Vec<_> = chunk.iter().map(|(_, line)| line.as_str()).collect();
        let rest = self.retry.body().to_string();
        let body = format!("{{\"letters\":[{}],{}", letters.join(","), &rest[1..]);
        let request = ApiRequest::new("POST", "/api/v1/deadletters/retry").json(body).within(CHUNK_TIMEOUT);
        let answer = self.retry.host.demand(request).await;
        let answer = answer.map_err(|why| format!("{}:{first}: from here on: {why}", self.path.display()))?;
        self.retried += answer["retried"].as_u64().unwrap_or(0);
        for each in answer["refused"].as_array().into_iter().flatten() {
            let index = each["index"].as_u64().and_then(|index| chunk.get(index as usize));
            if let Some((number, _)) = index {
                self.refuse(*number, &text(&each["error"]));
            }
        }
        Ok(())
    }

    fn refuse(&mut self, line: usize, why: &str) {
        if !self.retry.json {
            tell(format!("{}:{line}: {why}\n", self.path.display()));
        }
        self.refused.push(json!({ "line": line, "error": why }));
    }
}

/// The lines of a file, unpacked if its name says that it is packed.
fn lines(path: &Path) -> io::Result<Box<dyn Iterator<Item = io::Result<String>>>> {
    let file = File::open(path)?;
    let is_packed = path.extension().is_some_and(|extension| extension == "gz");
    Ok(if is_packed {
        Box::new(BufReader::new(MultiGzDecoder::new(file)).lines())
    } else {
        Box::new(BufReader::new(file).lines())
    })
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
