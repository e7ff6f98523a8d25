//! The component that a command works with, as it is named on the command line: a `.wasm` file, the folder of a plugin,
//! or a plugin that is built in.

use super::build::of_folder;
use crate::builtin;
use crate::config::nearest;
use crate::plugin_folder::read_plugin;
use std::io::ErrorKind;
use std::path::Path;
use tidemill_authoring::Project;

/// The name of the plugin.
pub(super) fn name(path: &Path) -> String {
    match Project::open(path) {
        Ok(project) => project.name().to_owned(),
        Err(_) => path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
    }
}

/// The component. That of a folder is built first.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let built_in = path.to_str().and_then(builtin::plugin);
    if path.is_dir() {
        return match (Project::open(path), built_in) {
            // A folder that only happens to be called so.
            (Err(_), Some(wasm)) => Ok(wasm.to_vec()),
            _ => of_folder(path).map_err(|error| error.text(false)),
        };
    }
    match (read_plugin(path), built_in) {
        (Ok(wasm), _) => Ok(wasm),
        (Err(error), Some(wasm)) if error.kind() == ErrorKind::NotFound => Ok(wasm.to_vec()),
        (Err(error), _) => {
            let hint = if error.kind() == ErrorKind::NotFound { hint(path) } else { String::new() };
            Err(format!("failed to read {}: {error}{hint}", path.display()))
        }
    }
}

/// What to do where there is no such file, and no built-in plugin of that name.
fn hint(path: &Path) -> String {
    let name = path.to_string_lossy();
    let near = nearest(&name, builtin::plugin_names());
    let near = near.map_or(String::new(), |near| format!("did you mean the built-in plugin `{near}`? "));
    let known = builtin::hint().unwrap_or("`tidemill plugins` lists those that are built in");
    format!("\nhint: {near}{known}")
}
