//! What is said of a pipeline that waits for its plugins.

use crate::app::task::Task;
use crate::builtin;
use crate::config::Redacted;
use crate::telemetry::PipelineState;

impl Task {
    /// The state of a pipeline whose plugins are missing.
    pub(super) fn waits_for(&self, missing: &[&Redacted]) -> PipelineState {
        let why = |plugin: &&&Redacted| self.intake.why_refused(plugin.expose());
        let refused =
            missing.iter().filter_map(|plugin| Some((plugin.shown().to_owned(), why(&plugin)?.to_owned())));
        let refused = refused.collect();
        PipelineState::Waiting {
            plugins: missing.iter().map(|plugin| plugin.shown().to_owned()).collect(),
            refused,
        }
    }

    pub(super) fn say_waiting(&self, pipeline: &str, waits: &PipelineState) {
        let PipelineState::Waiting { plugins, refused } = waits else { return };
        let folder = self.folder.path();
        let then = if self.folder.is_watched() {
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
        let absent: Vec<_> = plugins.iter().filter(|plugin| !refused.contains_key(*plugin)).collect();
        if !absent.is_empty() {
            let without = builtin::hint().map_or(String::new(), |hint| format!("; {hint}"));
            let hint = format!("put what is missing into {folder}: {then}{without}");
            tracing::warn!(pipeline, missing = ?absent, hint, "pipeline waits for its plugins");
        }
    }
}
