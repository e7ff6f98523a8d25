//! What goes into a `tidemill` that needs nothing else, as the folder that `host/build.rs` takes it from.

use crate::plugins;
use crate::tools::{Result, cargo, root, run, say};
use std::fs;
use std::path::{Path, PathBuf};

/// The variable that names the folder to the build of the host.
pub(crate) const VARIABLE: &str = "TIDEMILL_BUILTIN_DIR";

/// The recording of the demo.
pub(crate) const RECORDING: &str = "examples/data/binance-combined-20240808.jsonl.gz";
/// The files beside the plugins: where they are in the checkout, and what they are called in the folder.
const FILES: [(&str, &str); 2] =
    [(RECORDING, "recording.jsonl.gz"), ("docs/configuration.md", "configuration.md")];

/// Builds the shipped plugins, fills the folder, and gives its path. A file that is the same is left alone,
/// so that cargo does not build anew for it.
///
/// # Errors
/// A plugin does not build, or a file cannot be copied.
pub(crate) fn stage() -> Result<PathBuf> {
    let folder = root().join("target/builtin");
    let components = plugins::build(&root().join("target/plugins"))?;
    fs::create_dir_all(folder.join("plugins"))?;
    for component in &components {
        let name = component.file_name().ok_or("a component has a name")?;
        copy(component, &folder.join("plugins").join(name))?;
    }
    // A plugin that is not shipped any more.
    for entry in fs::read_dir(folder.join("plugins"))? {
        let entry = entry?;
        if !components.iter().any(|component| component.file_name() == Some(&entry.file_name())) {
            fs::remove_file(entry.path())?;
        }
    }
    for (from, to) in FILES {
        copy(&root().join(from), &folder.join(to))?;
    }
    Ok(folder)
}

/// `cargo xtask install`: a `tidemill` in cargo's folder of programs.
///
/// # Errors
/// Something does not build.
pub(crate) fn install(arguments: &[String]) -> Result {
    let folder = stage()?;
    say("building the host; the first time this compiles wasmtime, which takes some minutes");
    let mut cargo = cargo();
    cargo.env(VARIABLE, folder).args(["install", "--locked", "--force", "--path"]).arg(root().join("host"));
    run(cargo.args(arguments))
}

fn copy(from: &Path, to: &Path) -> Result {
    let content = fs::read(from).map_err(|error| format!("failed to read {}: {error}", from.display()))?;
    if fs::read(to).is_ok_and(|is| is == content) {
        return Ok(());
    }
    Ok(fs::write(to, content).map_err(|error| format!("failed to write {}: {error}", to.display()))?)
}
