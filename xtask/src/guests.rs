//! Builds the guests of the tests, `tests/guests`, into a folder of `.wasm` files, by default
//! `target/guests`: `asking`, `contract-<language>`, `counter-v1`, `counter-v2`, `endings-go`, `endings-javascript`,
//! `gap`, `hostile`, `minting`, `moody`, `sleeper`, `steered`, `tally`, `trial-v1` and `trial-v2`.
//!
//! What is up to date is left alone. A language whose tools are missing is skipped by name; with
//! `CI=true` that is an error.

use crate::tools::{self, Fetch, Result, Tools, WASM_TARGET, cargo, root, run, run_quietly, say};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, fs, io};

/// Which guests.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only guests in these languages.
    #[arg(value_enum)]
    languages: Vec<Language>,
    /// Install nothing: leave out what needs tools that are not there.
    #[arg(long)]
    installed: bool,
}

/// A language that guests are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Language {
    /// With the SDK, and with bare bindings where lies are needed.
    Rust,
    /// With the SDK, and `zig cc`.
    C,
    /// With the SDK, `esbuild` and `componentize-qjs`.
    #[value(name = "javascript")]
    JavaScript,
    /// With the SDK, and `componentize-py`.
    Python,
    /// With the SDK, and what Go itself compiles.
    Go,
}

impl Language {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Rust, Self::C, Self::JavaScript, Self::Python, Self::Go];

    /// As typed and as part of file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::Go => "go",
        }
    }

    /// The guests in a language other than Rust: their names, and the folders of their sources.
    fn guests(self) -> Vec<(String, PathBuf)> {
        let folder = root().join("tests/guests");
        let mut guests =
            vec![(format!("contract-{}", self.name()), folder.join("contract").join(self.name()))];
        if matches!(self, Self::Go | Self::JavaScript) {
            let endings = format!("endings-{}", self.name());
            guests.push((endings.clone(), folder.join(endings)));
        }
        guests
    }
}

/// The guests in Rust. Their packages are named like their files, after `guest-`.
const RUST: [&str; 13] = [
    "asking",
    "contract-rust",
    "counter-v1",
    "counter-v2",
    "gap",
    "hostile",
    "minting",
    "moody",
    "sleeper",
    "steered",
    "tally",
    "trial-v1",
    "trial-v2",
];

/// `cargo xtask guests`
///
/// # Errors
/// As [`build`].
pub(crate) fn command(args: &Args) -> Result {
    let languages = if args.languages.is_empty() { &Language::ALL } else { args.languages.as_slice() };
    let fetch = if args.installed { Fetch::Nothing } else { Fetch::Missing };
    build(&root().join("target/guests"), languages, fetch)
}

/// Builds the guests of these languages into `out`.
///
/// # Errors
/// One does not build, or is skipped in CI.
pub(crate) fn build(out: &Path, languages: &[Language], fetch: Fetch) -> Result {
    fs::create_dir_all(out)?;
    // Held until this returns: several test binaries may want their guests at once.
    let lock = fs::File::create(out.join(".lock"))?;
    lock.lock()?;
    let in_ci = env::var_os("CI").is_some_and(|ci| ci == "true");
    for &language in languages {
        let built = match language {
            Language::Rust => rust(out).map(|()| None),
            Language::C => foreign(out, language, tools::python(fetch)?, c),
            Language::JavaScript => foreign(out, language, tools::node(fetch)?, javascript),
            Language::Python => foreign(out, language, tools::python(fetch)?, python),
            Language::Go => foreign(out, language, tools::go(), go),
        };
        let name = language.name();
        match built.map_err(|error| format!("failed to build the guests in {name}: {error}"))? {
            None => {}
            Some(missing) if in_ci => {
                return Err(format!("the guest in {name} cannot be built: {missing}").into());
            }
            Some(missing) => {
                // An old one would be tested in place of the one that could not be built.
                for (guest, _) in language.guests() {
                    remove(&file(out, &guest))?;
                }
                say(&format!("the guest in {name} is skipped: {missing}"));
            }
        }
    }
    Ok(())
}

fn rust(out: &Path) -> Result {
    tools::add_wasm_target()?;
    let mut cargo = cargo();
    // As the shipped plugins are built, and with their dependencies: their folder says how.
    cargo.current_dir(root().join("plugins")).args(["build", "--quiet", "--release"]);
    cargo.args(RUST.map(|name| format!("--package=guest-{name}")));
    run(cargo.arg("--target-dir").arg(tools::target()))?;
    for name in RUST {
        let built = format!("{WASM_TARGET}/release/guest_{}.wasm", name.replace('-', "_"));
        put(&file(out, name), &fs::read(tools::target().join(built))?)?;
    }
    Ok(())
}

/// The guests of another language: `command` makes one with the tools in a folder, of its sources, into a
/// file. Or what is missing.
fn foreign(
    out: &Path,
    language: Language,
    tools: Tools,
    command: impl Fn(&Path, &Path, &Path) -> Command,
) -> Result<Option<String>> {
    let tools = match tools {
        Tools::In(folder) => folder,
        Tools::Missing(missing) => return Ok(Some(missing)),
    };
    for (name, source) in language.guests() {
        let guest = file(out, &name);
        if !is_current(&guest, language, &source)? {
            say(&format!("building the guest {name}"));
            let new = guest.with_extension("new");
            run_quietly(&mut command(&tools, &source, &new))?;
            fs::rename(new, guest)?;
        }
    }
    Ok(None)
}

fn c(tools: &Path, _: &Path, guest: &Path) -> Command {
    let mut cargo = builder("guest-contract-c");
    cargo.arg(tools.join("python")).arg(guest);
    cargo
}

fn go(tools: &Path, source: &Path, guest: &Path) -> Command {
    let mut cargo = builder("guest-contract-go");
    cargo.arg(tools.join("go")).arg(source).arg(guest);
    cargo
}

/// The program of a package that makes guests.
fn builder(package: &str) -> Command {
    let mut cargo = cargo();
    cargo.args(["run", "--quiet", "--package", package]);
    // It runs once: optimised dependencies would take longer to compile than they save.
    cargo.args(["--config", "profile.dev.package.'*'.opt-level=0", "--"]);
    cargo
}

fn javascript(tools: &Path, source: &Path, guest: &Path) -> Command {
    let mut build = Command::new("node");
    build.current_dir(root()).arg("plugin-sdk/javascript/build.js").arg(source.join("guest.js"));
    build.arg("--tools").arg(tools).arg("--output").arg(guest);
    build
}

fn python(tools: &Path, source: &Path, guest: &Path) -> Command {
    let mut build = Command::new(tools.join("python"));
    build.current_dir(root()).env("PYTHONPATH", "plugin-sdk/python/src").env("PYTHONDONTWRITEBYTECODE", "1");
    build.args(["-m", "tidemill_plugin.build"]).arg(source.join("guest.py")).arg("--output").arg(guest);
    build
}

/// The file of a guest.
fn file(out: &Path, name: &str) -> PathBuf {
    out.join(format!("{name}.wasm"))
}

fn wit() -> PathBuf {
    root().join("wit")
}

/// Whether a guest is newer than its source, the contract, and what says how it is built.
fn is_current(guest: &Path, language: Language, source: &Path) -> Result<bool> {
    let Ok(built) = fs::metadata(guest).and_then(|metadata| metadata.modified()) else {
        return Ok(false);
    };
    let (xtask, sdk) = (root().join("xtask/src"), root().join("plugin-sdk"));
    let mut inputs = vec![source.to_owned(), wit(), xtask.join("guests.rs"), xtask.join("tools.rs")];
    if matches!(language, Language::C | Language::Go) {
        inputs.push(sdk.join("component/src"));
    }
    if language == Language::C {
        inputs.push(sdk.join("c"));
    }
    if language == Language::JavaScript {
        inputs.extend(["build.js", "package.json", "src"].map(|own| sdk.join("javascript").join(own)));
    }
    if language == Language::Python {
        inputs.push(sdk.join("python/src"));
    }
    if language == Language::Go {
        // The builder of all guests in Go is beside the first.
        inputs.extend([sdk.join("go"), root().join("tests/guests/contract/go")]);
    }
    for input in inputs {
        if newest(&input)? >= built {
            return Ok(false);
        }
    }
    Ok(true)
}

/// When a file or the latest one in a folder was changed.
fn newest(path: &Path) -> io::Result<SystemTime> {
    if !path.is_dir() {
        return fs::metadata(path)?.modified();
    }
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(path)? {
        newest = newest.max(self::newest(&entry?.path())?);
    }
    Ok(newest)
}

/// Replaces a file at once, and only if that changes it.
fn put(path: &Path, contents: &[u8]) -> Result {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::write(&new, contents)?;
    Ok(fs::rename(new, path)?)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
