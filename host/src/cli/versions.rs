//! `tidemill swap` and `tidemill rollback`: another version of a plugin of a running host, and what became of it.

use super::arguments::{duration, name};
use super::readable::{since, text};
use super::running_host::{HostArgs, HostRefusal, asking};
use super::shape::AnswerShape;
use super::table::table;
use super::{Exit, complain};
use crate::admin::ApiRequest;
use crate::config::MOST_SHADOWED;
use crate::plugin_folder::read_plugin;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Longest that a version may take until it is decided whether it runs: compiling, a shadow, and swaps before it.
const TIMEOUT: Duration = Duration::from_hours(1);
/// Digits of a version that tell it from others well enough for a person.
const SHOWN_DIGITS: usize = 12;
/// What became of a version.
const VERDICT: AnswerShape = AnswerShape::Object(&[
    ("plugin", AnswerShape::Text),
    ("outcome", AnswerShape::Text),
    (
        "uses",
        AnswerShape::List(&AnswerShape::Object(&[
            ("pipeline", AnswerShape::Text),
            ("outcome", AnswerShape::Text),
        ])),
    ),
]);
/// What became of several.
pub(super) const VERDICTS: AnswerShape = AnswerShape::Object(&[("swaps", AnswerShape::List(&VERDICT))]);

#[derive(Debug, clap::Args)]
pub(super) struct SwapArgs {
    /// The component.
    file: PathBuf,
    /// The name of the plugin; if it is left out, that of the file without `.wasm`.
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// What the version begins with, in the place of the state of the one before.
    #[arg(long, value_parser = ["fresh"], value_name = "STATE")]
    state: Option<String>,
    /// Messages that it sees beside the version before it takes over.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=MOST_SHADOWED))]
    shadow: Option<u64>,
    /// The time in which its faults put the version before back.
    #[arg(long, value_name = "DURATION", value_parser = some_duration)]
    probation: Option<String>,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// The name of the plugin.
    #[arg(value_parser = name)]
    name: String,
    /// The version to go back to, or the beginning of its digest; if it is left out, the one that ran before.
    #[arg(long, value_name = "VERSION", value_parser = name)]
    to: Option<String>,
    #[command(flatten)]
    host: HostArgs,
}

/// A duration that goes on as it was typed.
fn some_duration(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_owned())
}

impl SwapArgs {
    pub(super) fn execute(self) -> Exit {
        let Some(name) = self.name.as_deref().or_else(|| self.file.file_stem()?.to_str()) else {
            complain(format!("{} names no plugin\nhint: `--name` does", self.file.display()));
            return Exit::Usage;
        };
        let component = match read_plugin(&self.file) {
            Ok(component) => component,
            Err(error) => {
                complain(format!("failed to read {}: {error}", self.file.display()));
                return Exit::Failure;
            }
        };
        let shadow = self.shadow.map(|messages| messages.to_string());
        let options = [("state", &self.state), ("shadow", &shadow), ("probation", &self.probation)];
        let path = path(name, "", options);
        asking(decided(&self.host, ApiRequest::new("PUT", path).component(component)))
    }
}

impl RollbackArgs {
    pub(super) fn execute(self) -> Exit {
        let path = path(&self.name, "/rollback", [("to", &self.to)]);
        asking(decided(&self.host, ApiRequest::new("POST", path)))
    }
}

fn path<const N: usize>(name: &str, what: &str, options: [(&str, &Option<String>); N]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let given = options.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    let query: Vec<_> = given.map(|(key, value)| format!("{key}={}", encoded(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/api/v1/plugins/{}{what}{mark}{}", encoded(name), query.join("&"))
}

/// What became of a version, and how the command ends.
async fn decided(host: &HostArgs, request: ApiRequest) -> Result<(String, Exit), HostRefusal> {
    // A version that does not run as well is answered as a conflict.
    let (_, verdict) = host.running.ask_either(request.within(TIMEOUT), VERDICT, [200, 409]).await?;
    let exit = if verdict["outcome"] == "swapped" { Exit::Success } else { Exit::Failure };
    Ok((host.shown(&verdict, as_text), exit))
}

fn as_text(verdict: &Value) -> String {
    let mut told = format!(
        "plugin {}: {}, {}",
        text(&verdict["plugin"]),
        outcome(verdict),
        version(&verdict["version"])
    );
    if verdict["previous"].is_string() && verdict["previous"] != verdict["version"] {
        let is_there =
            if verdict["outcome"] == "swapped" { "in the place of" } else { "not in the place of" };
        let _ = write!(told, " {is_there} {}", version(&verdict["previous"]));
    }
    told.push('\n');
    let uses = verdict["uses"].as_array().into_iter().flatten();
    let rows: Vec<_> = uses
        .map(|each| {
            let pause = each["swap_us"].as_u64().map_or_else(String::new, |us| format!("{us} us"));
            [text(&each["pipeline"]), place(each), outcome(each), text(&each["state"]), pause]
        })
        .collect();
    if !rows.is_empty() {
        told.push_str(&table(["PIPELINE", "PLACE", "OUTCOME", "STATE", "PAUSE"], rows));
    } else if verdict["outcome"] == "swapped" {
        told.push_str("no pipeline uses it\n");
    }
    for key in ["error", "folder_error"] {
        if let Some(error) = verdict[key].as_str() {
            let _ = writeln!(told, "{error}");
        }
    }
    for each in verdict["uses"].as_array().into_iter().flatten() {
        let shadow = &each["shadow"];
        if shadow.is_object() {
            let _ = writeln!(
                told,
                "beside the version before in pipeline {}: {} messages the same, {} different, {} faulted",
                text(&each["pipeline"]),
                shadow["same"],
                shadow["different"],
                shadow["faulted"]
            );
            if let (Some(old), Some(new)) = (shadow["first"]["old"].as_str(), shadow["first"]["new"].as_str())
            {
                let _ = writeln!(told, "  before: {old}\n  now:    {new}");
            }
        }
    }
    told
}

/// Verdicts as rows, the newest first.
pub(super) fn as_rows(swaps: &Value) -> String {
    let swaps = swaps["swaps"].as_array().into_iter().flatten();
    let rows = swaps.map(|verdict| {
        let decided = verdict["decided"].as_u64().map_or_else(String::new, since);
        let uses = verdict["uses"].as_array().into_iter().flatten();
        let uses = uses.map(|each| {
            let state = each["state"].as_str().map_or_else(String::new, |state| format!(" ({state})"));
            format!("{}/{} {}{state}", text(&each["pipeline"]), place(each), outcome(each))
        });
        let uses = uses.collect::<Vec<_>>().join(", ");
        let told = [Some(uses), verdict["error"].as_str().map(str::to_owned)];
        let told = told.into_iter().flatten().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
        [
            decided,
            text(&verdict["plugin"]),
            version(&verdict["version"]),
            version(&verdict["previous"]),
            text(&verdict["asked_by"]),
            outcome(verdict),
            told,
        ]
    });
    table(["DECIDED", "PLUGIN", "VERSION", "BEFORE", "ASKED BY", "OUTCOME", "USES"], rows)
}

fn outcome(of: &Value) -> String {
    text(&of["outcome"]).replace('_', " ")
}

fn place(each: &Value) -> String {
    let name = if each["transform"].is_string() { &each["transform"] } else { &each["endpoint"] };
    text(name)
}

/// The beginning of a digest.
pub(super) fn version(version: &Value) -> String {
    let digits = version.as_str().unwrap_or("-").trim_start_matches("sha256:");
    digits.get(..SHOWN_DIGITS).unwrap_or(digits).to_owned()
}
