//! The configuration of a reload, read.

use crate::config::{Config, Pipeline, Places, ReloadFile, Reread};
use crate::control::{ControlError, ReloadInput};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// What is to be read.
pub(super) struct ReadOrder {
    pub(super) input: ReloadInput,
    pub(super) file: Option<ReloadFile>,
    pub(super) in_force: Arc<Config>,
    pub(super) plugin_dir: PathBuf,
}

/// What was read.
pub(in crate::app) struct ReadAgain {
    pub(in crate::app) pipelines: Vec<Pipeline>,
    /// Whether these are all that are to be there, but for those of the API.
    pub(in crate::app) are_all: bool,
    pub(in crate::app) places: Option<Places>,
    pub(in crate::app) restart_required: Vec<String>,
    /// The plugins that the folder has a file of, of those that pipelines name.
    pub(in crate::app) in_folder: BTreeSet<String>,
}

impl ReadOrder {
    /// Reads it. Blocks for as long as that takes.
    pub(super) fn read(self) -> Result<ReadAgain, ControlError> {
        let are_all = !matches!(self.input, ReloadInput::Pipeline(_));
        let (pipelines, places, restart_required) = match (self.input, self.file) {
            (ReloadInput::Pipeline(pipeline), _) => (vec![*pipeline], None, Vec::new()),
            (ReloadInput::Given(config), _) => {
                let restart_required = config.needs_restart(&self.in_force);
                (config.pipelines, None, restart_required)
            }
            (ReloadInput::File, Some(file)) => {
                let Reread { loaded, restart_required } =
                    file.read_again(&self.in_force).map_err(ControlError::Wrong)?;
                for warning in &loaded.warnings {
                    let line = warning.place.as_ref().map(|place| place.line);
                    let (file, hint) = (warning.file.display(), warning.hint.as_deref());
                    tracing::warn!(warning = warning.message, %file, line, hint, "odd configuration");
                }
                (loaded.config.pipelines, Some(loaded.places), restart_required)
            }
            (ReloadInput::File, None) => return Err(ControlError::NoFile),
        };
        let plugins = pipelines.iter().flat_map(|pipeline| pipeline.plugins());
        let is_there = |plugin: &&str| self.plugin_dir.join(format!("{plugin}.wasm")).is_file();
        let in_folder = plugins.map(|plugin| plugin.expose()).filter(is_there).map(str::to_owned).collect();
        Ok(ReadAgain { pipelines, are_all, places, restart_required, in_folder })
    }
}
