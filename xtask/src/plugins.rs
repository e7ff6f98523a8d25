//! `cargo xtask plugins`: builds the plugins that come with Tidemill.
//!
//! What they need beyond Rust is the standard library of one more target, which `rustup` brings.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// What plugins are compiled for; `wasm-component-ld` makes a component of the result.
const TARGET: &str = "wasm32-unknown-unknown";

/// Builds every plugin of `plugins/`, in release, and copies the components to `out`. Gives their paths.
///
/// # Errors
/// The target cannot be had, a plugin does not build, or `out` cannot be written.
pub(crate) fn build(out: &Path) -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask has no workspace around it")?;
    let folder = root.join("plugins");
    let names = names(&folder)?;
    add_target()?;
    say(&format!("building {} plugins", names.len()));
    let mut cargo = cargo();
    // In this folder, because its `.cargo/config.toml` says how components are made.
    cargo.current_dir(&folder).args(["build", "--release", "--target-dir"]).arg(root.join("target"));
    for name in &names {
        cargo.args(["--package", name]);
    }
    run(&mut cargo)?;

    std::fs::create_dir_all(out).map_err(|error| format!("failed to create {}: {error}", out.display()))?;
    let built = root.join("target").join(TARGET).join("release");
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

/// Adds the target if it is not there.
fn add_target() -> Result {
    let mut rustc = Command::new("rustc");
    let library = rustc.args(["--print", "target-libdir", "--target", TARGET]).output()?;
    let library = String::from_utf8(library.stdout)?;
    if Path::new(library.trim()).is_dir() {
        return Ok(());
    }
    say(&format!("adding the Rust target {TARGET} with rustup, which plugins are compiled for"));
    run(Command::new("rustup").args(["target", "add", TARGET]))
}

/// Cargo as a user would call it: without what the surrounding `cargo run` put into the environment.
fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_") && name != "CARGO_HOME" && !name.starts_with("CARGO_NET_") {
            cargo.env_remove(name);
        }
    }
    cargo.env_remove("RUSTFLAGS");
    cargo
}

fn run(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| format!("failed to run {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}").into()) }
}

#[expect(clippy::print_stderr, reason = "a task tells the person who started it what it does")]
fn say(text: &str) {
    eprintln!("{text}");
}
