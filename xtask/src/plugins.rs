//! `cargo xtask plugins`: builds the plugins that come with Tidemill.
//!
//! What they need beyond Rust is the standard library of one more target, which `rustup` brings.

use crate::tools::{Result, WASM_TARGET, add_wasm_target, cargo, root, run, say, target};
use std::path::{Path, PathBuf};

/// Builds every plugin of `plugins/`, in release, and copies the components to `out`. Gives their paths.
///
/// # Errors
/// The target cannot be had, a plugin does not build, or `out` cannot be written.
pub(crate) fn build(out: &Path) -> Result<Vec<PathBuf>> {
    let folder = root().join("plugins");
    let names = names(&folder)?;
    add_wasm_target()?;
    say(&format!("building {} plugins", names.len()));
    let mut cargo = cargo();
    // In this folder, because its `.cargo/config.toml` says how components are made.
    cargo.current_dir(&folder).args(["build", "--release", "--target-dir"]).arg(target());
    for name in &names {
        cargo.args(["--package", name]);
    }
    run(&mut cargo)?;

    std::fs::create_dir_all(out).map_err(|error| format!("failed to create {}: {error}", out.display()))?;
    let built = target().join(WASM_TARGET).join("release");
    let mut components = Vec::with_capacity(names.len());
    for name in &names {
        let file = format!("{}.wasm", name.replace('-', "_"));
        let component = out.join(format!("{name}.wasm"));
        // Copied beside and renamed, so that a host that watches the folder never reads half of it.
        let partial = out.join(format!(".{name}.wasm.partial"));
        let bytes = std::fs::copy(built.join(&file), &partial)
            .and_then(|bytes| std::fs::rename(&partial, &component).map(|()| bytes))
            .map_err(|error| format!("failed to copy {file} to {}: {error}", out.display()))?;
        say(&format!("{:>7} KiB  {}", bytes.div_ceil(1024), component.display()));
        components.push(component);
    }
    Ok(components)
}

/// The plugins are the folders with a manifest, each named like its package.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
