//! `tidemill plugins`: the plugins of a running host with their versions, or those that a configuration can name.
//!
//! A running host is asked. Where none answers, or a configuration is named, the plugins of its folder and those that
//! are built in are listed; nothing is compiled then.

use super::arguments::{CONFIG_FILE, ConfigFile};
use super::readable::text;
use super::running_host::{HostArgs, RefusalCause, asking};
use super::shape::AnswerShape;
use super::table::table;
use super::{Exit, answer, block_on, complain, is_terminal, tell, versions};
use crate::admin::ApiRequest;
use crate::builtin;
use crate::config::{Config, Limits, units};
use crate::plugin::PluginKind;
use crate::plugin_folder::{Candidate, Change, Folder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct PluginsArgs {
    /// List what this configuration can name, and ask no host.
    #[arg(short = 'c', long, value_name = "FILE", conflicts_with = "swaps")]
    config: Option<PathBuf>,
    /// Show what became of new versions in a running host.
    #[arg(long)]
    swaps: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// The plugins of a host.
const PLUGINS: AnswerShape = AnswerShape::Object(&[("plugins", AnswerShape::List(&PLUGIN))]);
const PLUGIN: AnswerShape =
    AnswerShape::Object(&[("name", AnswerShape::Text), ("versions", OBJECTS), ("uses", OBJECTS)]);
const OBJECTS: AnswerShape = AnswerShape::List(&AnswerShape::Object(&[]));

/// One plugin: what there is of it, and the stages that run it.
#[derive(Debug, Default)]
struct Row {
    file: Option<String>,
    /// Version and size of what a pipeline gets.
    content: Option<(String, usize)>,
    /// Why the file cannot be used.
    error: Option<String>,
    is_built_in: bool,
    uses: Vec<Use>,
}

/// A stage that runs a plugin, or an endpoint that asks it before it dials.
#[derive(Debug)]
struct Use {
    pipeline: String,
    kind: PluginKind,
    /// The label of the stage, or the name of the endpoint.
    name: String,
    limits: Limits,
}

impl PluginsArgs {
    pub(super) fn execute(self) -> Exit {
        if self.swaps {
            let swaps = async {
                let request = ApiRequest::new("GET", "/api/v1/swaps");
                let swaps = self.host.ask(request, versions::VERDICTS).await?;
                Ok((self.host.shown(&swaps, versions::as_rows), Exit::Success))
            };
            return asking(swaps);
        }
        if let Some(file) = self.config {
            return listed(&ConfigFile { file }, self.host.json);
        }
        block_on(|shutdown| async move {
            let asked = self.host.ask(ApiRequest::new("GET", "/api/v1/plugins"), PLUGINS);
            let answered = tokio::select! {
                answered = asked => answered,
                () = shutdown.requested() => return Exit::Interrupted,
            };
            match answered {
                Ok(plugins) => answer(&self.host.shown(&plugins, of_host), Exit::Success),
                // Where nobody named a host, there may be none.
                Err(refusal)
                    if self.host.running.is_default()
                        && matches!(refusal.cause, RefusalCause::Absent | RefusalCause::Foreign) =>
                {
                    listed(&ConfigFile { file: CONFIG_FILE.into() }, self.host.json)
                }
                Err(refusal) => {
                    complain(refusal);
                    Exit::Failure
                }
            }
        })
    }
}

/// Lists what a configuration can name; without one, what the folder has that one would have.
fn listed(config: &ConfigFile, is_json: bool) -> Exit {
    let config = match config.load_or_default() {
        Ok(config) => config,
        Err(errors) => {
            tell(errors.render(is_terminal()));
            return Exit::Configuration;
        }
    };
    let rows = match rows(&config) {
        Ok(rows) => rows,
        Err(error) => {
            complain(error);
            return Exit::Failure;
        }
    };
    let text = if is_json {
        let plugins: Vec<_> = rows.iter().map(|(name, row)| row.as_json(name)).collect();
        format!("{:#}\n", json!({ "plugins": plugins }))
    } else {
        as_table(&rows)
    };
    let exit = answer(&text, Exit::Success);
    if let Some(hint) = builtin::hint().filter(|_| !is_json) {
        tell(format!("note: {hint}\n"));
    }
    exit
}

/// The plugins of a running host, for people.
fn of_host(plugins: &Value) -> String {
    let plugins = plugins["plugins"].as_array().into_iter().flatten();
    let rows = plugins.map(|plugin| {
        let earlier = plugin["versions"].as_array().into_iter().flatten();
        let earlier = earlier.filter(|each| each["current"] != true).map(|each| {
            let why_not = match (&each["available"], &each["rolled_back"]) {
                (Value::Bool(false), _) => " (damaged)",
                (_, Value::Bool(true)) => " (rolled back)",
                _ => "",
            };
            format!("{}{why_not}", versions::version(&each["version"]))
        });
        let uses = plugin["uses"].as_array().into_iter().flatten().map(|each| {
            let name = if each["transform"].is_string() { &each["transform"] } else { &each["endpoint"] };
            let is_other = each["version"].is_string() && each["version"] != plugin["version"];
            let runs =
                if is_other { format!(", {}", versions::version(&each["version"])) } else { String::new() };
            format!("{}/{} ({}{runs})", text(&each["pipeline"]), text(name), text(&each["state"]))
        });
        [
            text(&plugin["name"]),
            versions::version(&plugin["version"]),
            uses.collect::<Vec<_>>().join(", "),
            earlier.collect::<Vec<_>>().join(", "),
        ]
    });
    table(["PLUGIN", "VERSION", "USED BY", "EARLIER"], rows)
}

fn rows(config: &Config) -> Result<BTreeMap<String, Row>, String> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let content = |candidate: &Candidate| (candidate.version.clone(), candidate.wasm.len());
    for change in Folder::find(&config.plugins).map_err(|error| format!("failed to {error}"))? {
        match change {
            Change::Gone { .. } => {}
            Change::Found(candidate) => {
                let row = rows.entry(candidate.name.clone()).or_default();
                row.file = candidate.path.as_ref().map(|path| path.display().to_string());
                row.content = Some(content(&candidate));
            }
            Change::Refused { name, path, error } => {
                let row = rows.entry(name).or_default();
                row.file = Some(path.display().to_string());
                row.error = Some(error);
            }
        }
    }
    for candidate in builtin::plugin_names().filter_map(Candidate::built_in) {
        let row = rows.entry(candidate.name.clone()).or_default();
        row.is_built_in = true;
        if row.file.is_none() {
            row.content = Some(content(&candidate));
        }
    }
    for pipeline in &config.pipelines {
        for transform in &pipeline.transforms {
            rows.entry(transform.plugin.shown().to_owned()).or_default().uses.push(Use {
                pipeline: pipeline.name.clone(),
                kind: PluginKind::Transform,
                name: transform.name.clone(),
                limits: transform.limits,
            });
        }
        for (endpoint, connector) in pipeline.connectors() {
            rows.entry(connector.plugin.shown().to_owned()).or_default().uses.push(Use {
                pipeline: pipeline.name.clone(),
                kind: PluginKind::Connector,
                name: endpoint.to_owned(),
                limits: connector.limits(),
            });
        }
    }
    Ok(rows)
}

impl Row {
    /// Where a pipeline gets it from.
    fn place(&self) -> String {
        match (&self.file, self.is_built_in) {
            (Some(file), true) => format!("{file}, before the built-in one"),
            (Some(file), false) => file.clone(),
            (None, true) => "built in".to_owned(),
            (None, false) => "missing".to_owned(),
        }
    }

    fn as_json(&self, name: &str) -> Value {
        let uses = self.uses.iter().map(|each| {
            let place = match each.kind {
                PluginKind::Transform => "transform",
                PluginKind::Connector => "endpoint",
            };
            json!({
                "pipeline": each.pipeline,
                place: each.name,
                "limits": {
                    "memory_bytes": each.limits.memory_bytes,
                    "deadline_ms": each.limits.deadline.as_secs_f64() * 1e3,
                    "output_bytes": each.limits.output_bytes,
                },
            })
        });
        json!({
            "name": name,
            "file": self.file,
            "built_in": self.is_built_in,
            "version": self.content.as_ref().map(|(version, _)| version),
            "bytes": self.content.as_ref().map(|(_, bytes)| bytes),
            "error": self.error,
            "uses": uses.collect::<Vec<_>>(),
        })
    }
}

fn as_table(rows: &BTreeMap<String, Row>) -> String {
    let cells = rows.iter().map(|(name, row)| {
        let (version, size) = match (&row.content, &row.error) {
            (_, Some(error)) => (format!("refused: {error}"), String::new()),
            (Some((version, bytes)), None) => {
                (versions::version(&version.as_str().into()), format!("{} KiB", bytes.div_ceil(1024)))
            }
            (None, None) => (String::new(), String::new()),
        };
        let uses = row.uses.iter().map(|each| {
            let Limits { memory_bytes, deadline, output_bytes } = each.limits;
            format!(
                "{}/{} (memory {}, deadline {}, output {})",
                each.pipeline,
                each.name,
                units::show_size(memory_bytes as u64),
                units::show_duration(deadline),
                units::show_size(output_bytes as u64),
            )
        });
        [name.clone(), row.place(), version, size, uses.collect::<Vec<_>>().join(", ")]
    });
    table(["PLUGIN", "FROM", "VERSION", "SIZE", "USED BY"], cells)
}
