//! `tidemill plugin inspect`: what a component exports and imports, and what a host would have to grant it. Nothing
//! is run.

use super::component;
use super::problem::problem;
use crate::cli::{Exit, answer, block_on_thread, complain};
use crate::plugin::{Inspection, Need, inspect, version_of};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PluginInspect {
    /// The plugin: a `.wasm` file, the folder of one, or the name of one that is built in.
    #[arg(value_name = "PLUGIN")]
    file: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl PluginInspect {
    pub(super) fn execute(self) -> Exit {
        block_on_thread(
            move || self.inspect(),
            |inspected| match inspected {
                Ok((text, exit)) => answer(&text, exit),
                Err(error) => {
                    complain(error);
                    Exit::Failure
                }
            },
        )
    }

    fn inspect(&self) -> Result<(String, Exit), String> {
        let file = self.file.display().to_string();
        let wasm = component::read(&self.file)?;
        let inspection = inspect(&file, &wasm).map_err(|error| match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        })?;
        let exit = if problem(&inspection).is_none() { Exit::Success } else { Exit::Failure };
        let text = if self.json { as_json } else { as_text };
        Ok((text(&file, &wasm, &inspection), exit))
    }
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
