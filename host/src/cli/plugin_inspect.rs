//! `tidemill plugin inspect`: what a component exports and imports, and what a host would have to grant it. Nothing
//! is compiled or run.

use super::{Exit, answer, complain};
use crate::builtin;
use crate::plugin::{CONTRACT_VERSION, Inspection, Need, inspect, version_of};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct PluginInspect {
    /// The plugin: a `.wasm` file, or the name of one that is built in.
    file: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl PluginInspect {
    pub(super) fn execute(self) -> Exit {
        let file = self.file.display().to_string();
        let wasm = match (std::fs::read(&self.file), self.file.to_str().and_then(builtin::plugin)) {
            (Err(error), Some(built_in)) if error.kind() == ErrorKind::NotFound => Ok(built_in.to_vec()),
            (read, _) => read,
        };
        let inspected = match wasm {
            Err(error) => Err((format!("failed to read {file}: {error}"), None)),
            Ok(wasm) => match inspect(&file, &wasm) {
                Ok(inspection) => Ok((inspection, wasm)),
                Err(error) => Err((error.to_string(), error.hint())),
            },
        };
        match inspected {
            Ok((inspection, wasm)) => {
                let exit = if problem(&inspection).is_none() { Exit::Success } else { Exit::Failure };
                let text = if self.json {
                    as_json(&file, &wasm, &inspection)
                } else {
                    as_text(&file, &wasm, &inspection)
                };
                answer(&text, exit)
            }
            Err((error, hint)) => {
                complain(match hint {
                    Some(hint) => format!("{error}\nhint: {hint}"),
                    None => error,
                });
                Exit::Failure
            }
        }
    }
}

/// What is said of a component that is none.
const NO_PLUGIN: &str =
    "it is no plugin: it exports no tidemill:plugin/transformer and no tidemill:plugin/dialler";

/// Why no host of this version can run it, if that can be told from its names.
pub(super) fn problem(inspection: &Inspection) -> Option<String> {
    let Some(contract) = &inspection.contract else {
        return Some(NO_PLUGIN.to_owned());
    };
    let track = |version: &str| version.rsplit_once('.').map(|(track, _)| track.to_owned());
    if track(contract) != track(CONTRACT_VERSION) {
        return Some(format!("it is for the contract {contract}, and this host speaks {CONTRACT_VERSION}"));
    }
    let missing = inspection.imports.iter().filter(|import| import.need == Need::Unavailable);
    let missing: Vec<_> = missing.map(|import| import.name.as_str()).collect();
    (!missing.is_empty())
        .then(|| format!("it imports what this host does not provide: {}", missing.join(", ")))
}

fn as_text(file: &str, wasm: &[u8], inspection: &Inspection) -> String {
    let kind = match (inspection.kind, &inspection.contract) {
        (Some(kind), Some(contract)) => format!("{} of the contract {contract}", kind.as_str()),
        _ => "component".to_owned(),
    };
    let mut text =
        format!("{file}: {kind}, {} KiB\nversion  {}\n", wasm.len().div_ceil(1024), version_of(wasm));
    for export in &inspection.exports {
        text.push_str(&format!("exports  {export}\n"));
    }
    for import in &inspection.imports {
        let told = import.need.told(inspection.kind).map_or(String::new(), |told| format!(": {told}"));
        text.push_str(&format!("imports  {}{told}\n", import.name));
    }
    if let Some(problem) = problem(inspection) {
        text.push_str(&format!("problem  {problem}\n"));
    }
    text
}

fn as_json(file: &str, wasm: &[u8], inspection: &Inspection) -> String {
    let imports = inspection.imports.iter().map(|import| {
        let needs = if import.need == Need::Grant { json!(["allow"]) } else { json!([]) };
        json!({
            "name": import.name,
            "provided": import.need != Need::Unavailable,
            "needs": needs,
        })
    });
    let inspected: Value = json!({
        "file": file,
        "version": version_of(wasm),
        "bytes": wasm.len(),
        "kind": inspection.kind.map(|kind| kind.as_str()),
        "contract": inspection.contract,
        "exports": inspection.exports,
        "imports": imports.collect::<Vec<_>>(),
        "problem": problem(inspection),
    });
    format!("{inspected:#}\n")
}
