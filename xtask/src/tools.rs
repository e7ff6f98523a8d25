//! The tools of the tests and of packages, each in its own folder of `tools` in the target folder: nothing is
//! installed elsewhere, except for Rust's wasm target and the browser of the tests.
//!
//! A folder is complete once its stamp says so, and is made again when the versions here change.

use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};
use tidemill_authoring::BuildError;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// What plugins are compiled for; `wasm-component-ld` makes a component of the result.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// What `npm` installs for the tests: what checks the types of the SDK, and a peer.
const NODE_PACKAGES: &[&str] = &["typescript@5.9.3", "ws@8.18.3"];
/// What `pip` installs for the tests: the same.
const PYTHON_PACKAGES: &[&str] = &["mypy==2.4.1", "websockets==15.0.1"];

/// What `pip` installs to build the static binary: a C compiler and linker that bring musl, and what has
/// cargo use them.
const PACKAGING_PACKAGES: &[&str] = &["cargo-zigbuild==0.24.0", "ziglang==0.17.1"];

/// What checks the dependencies.
const DENY: &str = "cargo-deny@0.20.2";

/// What `pip` installs for Python 2.7, which the suite is written in.
const AUTOBAHN_PACKAGES: &[&str] = &["autobahntestsuite==25.10.1"];
/// The last `virtualenv` that makes environments of Python 2.7.
const VIRTUALENV: &str = "virtualenv==20.15.1";

/// What drives the browser of the tests.
const BROWSER_PACKAGES: &[&str] = &["playwright-core@1.65.1"];
/// The browser, where Debian has it, and its package.
const BROWSER: (&str, &str) = ("/usr/bin/chromium", "chromium");

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

/// The folder of the tools, as what builds plugins knows it.
pub(crate) fn kept(fetch: Fetch) -> tidemill_authoring::Tools {
    let folder = target().join("tools");
    match fetch {
        Fetch::Missing => tidemill_authoring::Tools::fetching(folder),
        Fetch::Nothing => tidemill_authoring::Tools::installed(folder),
    }
}

/// What is missing, if something is that could not be had.
///
/// # Errors
/// Something else went wrong.
pub(crate) fn missing(error: &BuildError) -> Result<String> {
    match error {
        BuildError::NoProgram { .. } | BuildError::NotFetched(_) => Ok(error.to_string()),
        _ => Err(format!("{error}\n{}", error.said().unwrap_or_default()).into()),
    }
}

fn had(folder: std::result::Result<PathBuf, BuildError>) -> Result<Tools> {
    folder.map_or_else(|error| missing(&error).map(Tools::Missing), |folder| Ok(Tools::In(folder)))
}

/// The folder of the npm packages.
///
/// # Errors
/// The installation failed.
pub(crate) fn node() -> Result<Tools> {
    had(kept(Fetch::Missing).npm("node", NODE_PACKAGES, "JavaScript", &say))
}

/// The browser of the tests, and what drives it.
///
/// # Errors
/// The installation failed.
pub(crate) fn browser() -> Result<Tools> {
    let (program, package) = BROWSER;
    if !Path::new(program).exists() {
        say(&format!("installing {package}, which the tests of browsers need"));
        let install = ["install", "--yes", "--quiet", "--no-install-recommends", package];
        let mut apt = Command::new("apt-get");
        if let Err(error) = run_quietly(apt.args(install).env("DEBIAN_FRONTEND", "noninteractive")) {
            return Ok(Tools::Missing(format!("there is no {program}: {error}")));
        }
    }
    had(kept(Fetch::Missing).npm("browser", BROWSER_PACKAGES, "JavaScript", &say))
}

/// The folder of a virtual environment.
///
/// # Errors
/// The installation failed.
pub(crate) fn python() -> Result<Tools> {
    had(kept(Fetch::Missing).pip("python", PYTHON_PACKAGES, "Python", &say))
}

/// The programs that build the static binary.
///
/// # Errors
/// The installation failed.
pub(crate) fn packaging() -> Result<Tools> {
    let folder = kept(Fetch::Missing).pip("packaging", PACKAGING_PACKAGES, "Python", &say);
    had(folder.map(|folder| folder.join("bin")))
}

/// The program that checks the dependencies.
///
/// # Errors
/// The folder of tools cannot be written.
pub(crate) fn deny() -> Result<Tools> {
    let folder = target().join("tools/deny");
    let built = folder.join("build");
    let installed = install(&folder, &[DENY], || {
        let mut install = cargo();
        // It runs for seconds: to optimise it takes longer than that ever saves.
        install.env("CARGO_TARGET_DIR", &built).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
        install.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        run(install.args(["install", "--quiet", "--locked", "--root"]).arg(&folder).arg(DENY))
    });
    match fs::remove_dir_all(&built) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(installed.map_or_else(|error| Tools::Missing(error.to_string()), |()| Tools::In(folder.join("bin"))))
}

/// The programs of a virtual environment of Python 2.7, with the Autobahn test suite among them.
///
/// # Errors
/// The installation failed.
pub(crate) fn autobahn() -> Result<Tools> {
    let folder = target().join("tools/autobahn");
    let Some(python) = python_2() else {
        let missing = "there is no Python 2.7, neither on the PATH nor under pyenv (`pyenv install 2.7.18`)";
        return Ok(Tools::Missing(missing.to_owned()));
    };
    if !is_there("python3") {
        return Ok(Tools::Missing("there is no python3".to_owned()));
    }
    install(&folder, AUTOBAHN_PACKAGES, || {
        let (maker, suite) = (folder.join("virtualenv"), folder.join("python"));
        run(Command::new("python3").args(["-m", "venv"]).arg(&maker))?;
        let mut pip = Command::new(maker.join("bin/pip"));
        run(pip.args(["install", "--quiet", "--disable-pip-version-check", VIRTUALENV]))?;
        let mut make = Command::new(maker.join("bin/virtualenv"));
        run(make.arg("--quiet").arg("-p").arg(&python).arg(&suite))?;
        let mut pip = Command::new(suite.join("bin/pip"));
        run_quietly(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(AUTOBAHN_PACKAGES))
    })?;
    Ok(Tools::In(folder.join("python/bin")))
}

/// A Python 2.7. pyenv puts one on the PATH that only complains unless a version is chosen.
fn python_2() -> Option<PathBuf> {
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".pyenv")));
    let versions = pyenv.and_then(|pyenv| fs::read_dir(pyenv.join("versions")).ok());
    let versions = versions.into_iter().flatten().flatten();
    let of_pyenv = versions.filter(|version| version.file_name().to_string_lossy().starts_with("2.7"));
    let of_pyenv = of_pyenv.map(|version| version.path().join("bin/python2.7"));
    std::iter::once(PathBuf::from("python2.7")).chain(of_pyenv).find(|python| is_there(python))
}

/// Sees to it that Rust can compile to wasm.
///
/// # Errors
/// As [`add_target`].
pub(crate) fn add_wasm_target() -> Result {
    add_target(WASM_TARGET, "which plugins are compiled for")
}

/// Sees to it that Rust can compile for this target; `what` says what it is.
///
/// # Errors
/// The target is not there and rustup could not add it.
pub(crate) fn add_target(target: &str, what: &str) -> Result {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output()?;
    if Path::new(String::from_utf8(output.stdout)?.trim()).is_dir() {
        return Ok(());
    }
    say(&format!("adding the Rust target {target} with rustup, {what}"));
    run(Command::new("rustup").args(["target", "add", target]))
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

/// Sees to it that packages are in a folder, which `install` puts them into.
fn install(folder: &Path, packages: &[&str], install: impl FnOnce() -> Result) -> Result {
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == packages.join(" ")) {
        return Ok(());
    }
    say(&format!("installing {} into {}", packages.join(", "), folder.display()));
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(folder)?,
    }
    install()?;
    Ok(fs::write(stamp, packages.join(" "))?)
}

fn is_there(program: impl AsRef<OsStr>) -> bool {
    let mut version = Command::new(program);
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}
