//! The tools of other languages, each in its own folder of `tools` in the target folder: nothing is
//! installed elsewhere, except for Rust's wasm target.
//!
//! A folder is complete once its stamp says so, and is made again when the versions here change.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// What plugins are compiled for; `wasm-component-ld` makes a component of the result.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// What `npm` installs: the JavaScript toolchain, and a peer of the tests.
const NODE_PACKAGES: &[&str] = &["componentize-qjs@0.4.5", "ws@8.18.3"];
/// What `pip` installs: the Python toolchain, the C compiler, and a peer of the tests.
const PYTHON_PACKAGES: &[&str] = &["componentize-py==0.25.1", "ziglang==0.17.1", "websockets==15.0.1"];

/// Whether tools that are not there may be downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// They are.
    Missing,
    /// They are not, and what needs them is skipped.
    Nothing,
}

/// Whether the tools of a language are there.
#[derive(Debug)]
pub(crate) enum Tools {
    /// In this folder.
    In(PathBuf),
    /// They are not, for this reason.
    Missing(String),
}

/// The programs of the npm packages.
///
/// # Errors
/// The installation failed.
pub(crate) fn node(fetch: Fetch) -> Result<Tools> {
    let folder = target().join("tools/node");
    if let Some(missing) = missing(&folder, NODE_PACKAGES, &["node", "npm"], fetch) {
        return Ok(Tools::Missing(missing));
    }
    install(&folder, NODE_PACKAGES, || {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"]).arg(&folder);
        run(npm.args(NODE_PACKAGES))
    })?;
    Ok(Tools::In(folder.join("node_modules/.bin")))
}

/// The programs of a virtual environment, with Python among them.
///
/// # Errors
/// The installation failed.
pub(crate) fn python(fetch: Fetch) -> Result<Tools> {
    let folder = target().join("tools/python");
    if let Some(missing) = missing(&folder, PYTHON_PACKAGES, &["python3"], fetch) {
        return Ok(Tools::Missing(missing));
    }
    install(&folder, PYTHON_PACKAGES, || {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PYTHON_PACKAGES))
    })?;
    Ok(Tools::In(folder.join("bin")))
}

/// Sees to it that Rust can compile to wasm.
///
/// # Errors
/// The target is not there and rustup could not add it.
pub(crate) fn add_wasm_target() -> Result {
    let output =
        Command::new("rustc").args(["--print", "target-libdir", "--target", WASM_TARGET]).output()?;
    if Path::new(String::from_utf8(output.stdout)?.trim()).is_dir() {
        return Ok(());
    }
    say(&format!("adding the Rust target {WASM_TARGET} with rustup, which plugins are compiled for"));
    run(Command::new("rustup").args(["target", "add", WASM_TARGET]))
}

/// Cargo in the root of the checkout, as a user would call it: without what a surrounding `cargo run`
/// or `cargo test` put into the environment.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).env_remove("RUSTFLAGS");
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let is_a_setting = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_INCREMENTAL"].contains(&&*name)
            || ["CARGO_NET_", "CARGO_TERM_", "CARGO_BUILD_"].iter().any(|prefix| name.starts_with(prefix));
        if name.starts_with("CARGO_") && !is_a_setting {
            cargo.env_remove(&*name);
        }
    }
    cargo
}

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the checkout")
}

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// One line on what is being done.
#[expect(clippy::print_stderr, reason = "a task tells the person who started it what it does")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// Runs a command to its end.
///
/// # Errors
/// It could not be started, or did not end well.
pub(crate) fn run(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| format!("failed to run {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}

/// Runs a command whose words are only worth reading if it fails.
///
/// # Errors
/// It could not be started, or did not end well.
pub(crate) fn run_quietly(command: &mut Command) -> Result {
    let output = command.output().map_err(|error| format!("failed to run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{command:?} ended with {}\n{said}{wrong}", output.status).into())
}

/// Why tools cannot be had, if they cannot.
fn missing(folder: &Path, packages: &[&str], interpreters: &[&str], fetch: Fetch) -> Option<String> {
    if let Some(interpreter) = interpreters.iter().find(|interpreter| !is_there(interpreter)) {
        return Some(format!("there is no {interpreter}"));
    }
    let refused = fetch == Fetch::Nothing && !is_installed(folder, packages);
    refused.then(|| format!("{} not installed; `cargo xtask guests` does it", packages.join(", ")))
}

fn install(folder: &Path, packages: &[&str], install: impl FnOnce() -> Result) -> Result {
    if is_installed(folder, packages) {
        return Ok(());
    }
    say(&format!("installing {} into {}", packages.join(", "), folder.display()));
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(folder)?,
    }
    install()?;
    Ok(fs::write(stamp(folder), packages.join(" "))?)
}

fn is_installed(folder: &Path, packages: &[&str]) -> bool {
    fs::read_to_string(stamp(folder)).is_ok_and(|installed| installed == packages.join(" "))
}

/// The file that says what a folder of tools holds.
fn stamp(folder: &Path) -> PathBuf {
    folder.join("installed")
}

fn is_there(program: &str) -> bool {
    let mut version = Command::new(program);
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}
