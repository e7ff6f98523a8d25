//! `tidemill plugins`: the plugins that a configuration can name, and what uses them.
//!
//! Those of the plugin folder and those that are built in; nothing is compiled, and no host is asked.

use super::table::table;
use super::{ConfigFile, Exit, answer, complain, is_terminal, tell};
use crate::builtin;
use crate::config::{Config, Limits, units};
use crate::plugin::PluginKind;
use crate::plugin_folder::{Candidate, Change, Folder};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, clap::Args)]
pub(super) struct PluginsArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

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
        // Without a configuration, the folder that one would have.
        let config = match self.config.load_or_default() {
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
        let text = if self.json {
            let plugins: Vec<_> = rows.iter().map(|(name, row)| row.as_json(name)).collect();
            format!("{:#}\n", json!({ "plugins": plugins }))
        } else {
            as_table(&rows)
        };
        let exit = answer(&text, Exit::Success);
        if let Some(hint) = builtin::hint().filter(|_| !self.json) {
            tell(format!("note: {hint}\n"));
        }
        exit
    }
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

/// Digits of a version that tell it from others well enough for a person.
const SHOWN_DIGITS: usize = 12;

fn as_table(rows: &BTreeMap<String, Row>) -> String {
    let cells = rows.iter().map(|(name, row)| {
        let (version, size) = match (&row.content, &row.error) {
            (_, Some(error)) => (format!("refused: {error}"), String::new()),
            (Some((version, bytes)), None) => {
                let digits = version.trim_start_matches("sha256:");
                (
                    digits.get(..SHOWN_DIGITS).unwrap_or(digits).to_owned(),
                    format!("{} KiB", bytes.div_ceil(1024)),
                )
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
