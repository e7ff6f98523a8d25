//! What is said of a pipeline that waits for its plugins.

use crate::app::plugins::ManagedPlugins;
use crate::builtin;
use crate::config::Redacted;
use crate::telemetry::PipelineState;

/// The state of a pipeline whose plugins are missing; those that are being compiled are not.
pub(super) fn state(plugins: &ManagedPlugins, missing: &[&Redacted]) -> PipelineState {
    let why = |plugin: &&&Redacted| plugins.intake.why_refused(plugin.expose());
    let refused =
        missing.iter().filter_map(|plugin| Some((plugin.shown().to_owned(), why(&plugin)?.to_owned())));
    let refused = refused.collect();
    PipelineState::Waiting {
        plugins: missing.iter().map(|plugin| plugin.shown().to_owned()).collect(),
        refused,
    }
}

/// Tells the log what a pipeline waits for, and what to do; `coming` are being compiled.
pub(super) fn tell(plugins: &ManagedPlugins, pipeline: &str, waits: &PipelineState, coming: &[&Redacted]) {
    let PipelineState::Waiting { plugins: missing, refused } = waits else { return };
    if !coming.is_empty() {
        let compiling: Vec<_> = coming.iter().map(|plugin| plugin.shown()).collect();
        tracing::info!(pipeline, ?compiling, "plugins of a pipeline are being compiled");
    }
    let folder = plugins.folder.path();
    let then = if plugins.folder.is_watched() {
        "it is taken up at once"
    } else {
        "start again then, since `watch` is off under [plugins]"
    };
    for (plugin, error) in refused {
        tracing::error!(
            pipeline,
            plugin,
            error,
            hint = format!("put a component that runs here at {folder}/{plugin}.wasm: {then}"),
            "pipeline waits for a plugin whose file cannot run"
        );
    }
    let absent: Vec<_> = missing.iter().filter(|plugin| !refused.contains_key(*plugin)).collect();
    if !absent.is_empty() {
        let without = builtin::hint().map_or(String::new(), |hint| format!("; {hint}"));
        let hint = format!("put what is missing into {folder}: {then}{without}");
        tracing::warn!(pipeline, missing = ?absent, hint, "pipeline waits for its plugins");
    }
}
