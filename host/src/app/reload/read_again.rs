//! The configuration of a reload, read.

use crate::config::{Config, Places, ReloadFile, Reread};
use crate::control::ControlError;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// What is to be read.
pub(super) struct ReadOrder {
    pub(super) given: Option<Box<Config>>,
    pub(super) file: Option<ReloadFile>,
    pub(super) in_force: Arc<Config>,
    pub(super) plugin_dir: PathBuf,
}

/// What was read.
pub(in crate::app) struct ReadAgain {
    pub(in crate::app) config: Config,
    pub(in crate::app) places: Option<Places>,
    pub(in crate::app) restart_required: Vec<String>,
    /// The plugins that the folder has a file of, of those that pipelines name.
    pub(in crate::app) in_folder: BTreeSet<String>,
}

impl ReadOrder {
    /// Reads it. Blocks for as long as that takes.
    pub(super) fn read(self) -> Result<ReadAgain, ControlError> {
        let (config, places, restart_required) = match (self.given, self.file) {
            (Some(config), _) => {
                let restart_required = config.needs_restart(&self.in_force);
                (*config, None, restart_required)
            }
            (None, Some(file)) => {
                let Reread { loaded, restart_required } =
                    file.read_again(&self.in_force).map_err(ControlError::Wrong)?;
                for warning in &loaded.warnings {
                    let line = warning.place.as_ref().map(|place| place.line);
                    let (file, hint) = (warning.file.display(), warning.hint.as_deref());
                    tracing::warn!(warning = warning.message, %file, line, hint, "odd configuration");
                }
                (loaded.config, Some(loaded.places), restart_required)
            }
            (None, None) => return Err(ControlError::NoFile),
        };
        let plugins = config.pipelines.iter().flat_map(|pipeline| pipeline.plugins());
        let is_there = |plugin: &&str| self.plugin_dir.join(format!("{plugin}.wasm")).is_file();
        let in_folder = plugins.map(|plugin| plugin.expose()).filter(is_there).map(str::to_owned).collect();
        Ok(ReadAgain { config, places, restart_required, in_folder })
    }
}
