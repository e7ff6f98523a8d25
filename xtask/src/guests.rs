//! Builds the guests of the tests, `tests/guests`, into a folder of `.wasm` files, by default
//! `target/guests`: `asking`, `asking-<language>`, `contract-<language>`, `counter-v1`, `counter-v2`, `dialling`,
//! `dialling-<language>`, `endings-go`, `endings-javascript`, `gap`, `hostile`, `minting`, `moody`, `sleeper`, `steered`,
//! `tally`, `trial-v1` and `trial-v2`.
//! So are the plugins of `examples`, each named like its folder.
//!
//! What is up to date is left alone. A language whose tools are missing is skipped by name; with
//! `CI=true` that is an error.

use crate::tools::{self, Fetch, Result, WASM_TARGET, cargo, root, run, say};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs, io};
use tidemill_authoring::{Effort, Project};

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

    /// The guests in a language other than Rust: their names, and their main files.
    fn guests(self) -> Vec<(String, PathBuf)> {
        let folder = root().join("tests/guests");
        let main = match self {
            Self::Rust => "src/lib.rs",
            Self::C => "guest.c",
            Self::JavaScript => "guest.js",
            Self::Python => "guest.py",
            Self::Go => "guest.go",
        };
        let own = |folder: PathBuf| folder.join(self.name()).join(main);
        let of_all = ["contract", "asking", "dialling"];
        let mut guests: Vec<_> =
            of_all.map(|name| (format!("{name}-{}", self.name()), own(folder.join(name)))).into();
        if matches!(self, Self::Go | Self::JavaScript) {
            let endings = format!("endings-{}", self.name());
            guests.push((endings.clone(), folder.join(endings).join(main)));
        }
        let example = match self {
            Self::JavaScript => Some(("connector-token", "plugin.js")),
            Self::Python => Some(("connector-signed-login", "plugin.py")),
            Self::Rust | Self::C | Self::Go => None,
        };
        guests
            .extend(example.map(|(name, main)| (name.into(), root().join("examples").join(name).join(main))));
        guests
    }

    /// A guest as a folder that `tidemill plugin build` knows.
    fn project(self, main: &Path) -> Project {
        use tidemill_authoring::Language as Authored;
        let language = match self {
            Self::Rust => Authored::Rust,
            Self::C => Authored::C,
            Self::JavaScript => Authored::JavaScript,
            Self::Python => Authored::Python,
            Self::Go => Authored::Go,
        };
        // Errors of a guest in JavaScript name its files from the root of the checkout on.
        let (folder, main) = match (self, main.parent(), main.file_name()) {
            (Self::JavaScript, ..) | (_, None, _) | (_, _, None) => (root(), main),
            (_, Some(folder), Some(name)) => (folder, Path::new(name)),
        };
        Project::laid_out(language, folder, main, &root().join("plugin-sdk").join(self.name()))
    }
}

/// The guests in Rust. Their packages are named like their files, after `guest-`.
const RUST: [&str; 14] = [
    "asking",
    "contract-rust",
    "counter-v1",
    "counter-v2",
    "dialling",
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

/// The plugins of examples in Rust, whose packages are named like them.
const RUST_EXAMPLES: [&str; 2] = ["connector-listen-key", "connector-ping-pong"];

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
            Language::C | Language::JavaScript | Language::Python | Language::Go => {
                foreign(out, language, fetch)
            }
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
    let guests = RUST.map(|name| (name, format!("guest-{name}")));
    let examples = RUST_EXAMPLES.map(|name| (name, name.to_owned()));
    let all: Vec<_> = guests.into_iter().chain(examples).collect();
    cargo.args(all.iter().map(|(_, package)| format!("--package={package}")));
    run(cargo.arg("--target-dir").arg(tools::target()))?;
    for (name, package) in all {
        let built = format!("{WASM_TARGET}/release/{}.wasm", package.replace('-', "_"));
        put(&file(out, name), &fs::read(tools::target().join(built))?)?;
    }
    Ok(())
}

/// The guests of another language, built as `tidemill plugin build` does it. Or what is missing.
fn foreign(out: &Path, language: Language, fetch: Fetch) -> Result<Option<String>> {
    let tools = tools::kept(fetch);
    for (name, main) in language.guests() {
        let guest = file(out, &name);
        let source = main.parent().ok_or("a main file is in a folder")?;
        if is_current(&guest, language, source)? {
            continue;
        }
        say(&format!("building the guest {name}"));
        match language.project(&main).build(Effort::Full, &tools, &say) {
            Ok(component) => {
                let new = guest.with_extension("new");
                fs::write(&new, component)?;
                fs::rename(new, guest)?;
            }
            Err(error) => return tools::missing(&error).map(Some),
        }
    }
    Ok(None)
}

/// A plugin in JavaScript whose main file this is; none, and why, where its tools are missing.
///
/// # Errors
/// It does not build.
pub(crate) fn in_javascript(main: &Path) -> Result<std::result::Result<Vec<u8>, String>> {
    match Language::JavaScript.project(main).build(Effort::Full, &tools::kept(Fetch::Missing), &say) {
        Ok(component) => Ok(Ok(component)),
        Err(error) => tools::missing(&error).map(Err),
    }
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
    let sdk = root().join("plugin-sdk");
    let mut inputs =
        vec![source.to_owned(), wit(), root().join("xtask/src/guests.rs"), sdk.join("authoring/src")];
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
        inputs.push(sdk.join("go"));
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
