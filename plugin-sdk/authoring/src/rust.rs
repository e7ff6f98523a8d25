//! Plugins in Rust: cargo, which makes components with the linker that comes with Rust.

use crate::command::Said;
use crate::mistake::Mistake;
use crate::project::{Effort, Project};
use crate::{BuildError, Progress, Tools};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

const TARGET: &str = "wasm32-unknown-unknown";

const MISSING: BuildError = BuildError::NoProgram {
    program: "cargo",
    language: "Rust",
    install: "install Rust, of https://rustup.rs",
};

/// The profile of [`Effort::Little`]: without link-time optimisation, which takes most of the time where one file has
/// changed.
const QUICK: [&str; 5] = [
    "--profile=quick",
    "--config=profile.quick.inherits=\"release\"",
    "--config=profile.quick.lto=false",
    "--config=profile.quick.codegen-units=16",
    "--config=profile.quick.incremental=true",
];

pub(crate) fn build(
    project: &Project,
    effort: Effort,
    tools: &Tools,
    progress: Progress<'_>,
) -> Result<Vec<u8>, BuildError> {
    add_target(tools, progress)?;
    progress(&format!("compiling {}", project.name));
    let mut selected = vec!["--target", TARGET];
    match effort {
        Effort::Full => selected.push("--release"),
        Effort::Little => selected.extend(QUICK),
    }
    let (said, messages) = compile(project, &["build"], &selected, tools, progress)?;
    if !said.is_well {
        return Err(BuildError::Mistake(mistake(&messages, &said.stderr)));
    }
    let component = component(&messages).ok_or_else(|| {
        BuildError::Mistake(Mistake {
            place: Some("Cargo.toml".to_owned()),
            message: "the package makes no component: its library is to have crate-type = [\"cdylib\"]"
                .to_owned(),
            said: said.stderr.clone(),
        })
    })?;
    fs::read(&component).map_err(BuildError::file("read", &component))
}

pub(crate) fn test(
    project: &Project,
    tools: &Tools,
    progress: Progress<'_>,
) -> Result<Option<Said>, BuildError> {
    progress("running the tests in Rust");
    let (said, messages) = compile(project, &["test", "--no-run"], &[], tools, progress)?;
    if !said.is_well {
        return Err(BuildError::Mistake(mistake(&messages, &said.stderr)));
    }
    cargo(project, &["test", "--quiet"], tools, progress).map(Some)
}

/// Has cargo compile what is selected, of the sources as they are; gives its messages, too.
fn compile(
    project: &Project,
    command: &[&str],
    selected: &[&str],
    tools: &Tools,
    progress: Progress<'_>,
) -> Result<(Said, Vec<Value>), BuildError> {
    let compile = || {
        let arguments = [command, selected, &["--message-format=json"]].concat();
        let said = cargo(project, &arguments, tools, progress)?;
        let messages = said.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let messages: Vec<Value> = messages.collect();
        Ok((said, messages))
    };
    let compiled = compile()?;
    let outdated = outdated(&compiled.1, &project.sources());
    if outdated.is_empty() {
        return Ok(compiled);
    }
    let packages = outdated.iter().flat_map(|package| ["--package", package]);
    let clean: Vec<_> = ["clean"].into_iter().chain(selected.iter().copied()).chain(packages).collect();
    cargo(project, &clean, tools, progress)?.tool("cargo clean")?;
    compile()
}

/// The packages that cargo has taken for compiled though a source was put into its place since. Cargo goes by the times at
/// which files were modified, and a file that is moved or copied with its time may have one from before.
fn outdated(messages: &[Value], sources: &[(PathBuf, SystemTime)]) -> Vec<String> {
    let made = messages.iter().filter(|line| line["reason"] == "compiler-artifact");
    let made: Vec<_> = made.filter_map(|line| Some((folder(line)?, line))).collect();
    let mut outdated = Vec::new();
    for (source, modified) in sources {
        let above = made.iter().map(|(folder, _)| *folder).filter(|folder| source.starts_with(folder));
        let Some(own) = above.max_by_key(|folder| folder.as_os_str().len()) else { continue };
        let Some(put) = fs::metadata(source).ok().and_then(|is| status_changed(&is)) else { continue };
        for (_, line) in made.iter().filter(|(folder, line)| *folder == own && line["fresh"] == true) {
            let file = line["filenames"][0].as_str().unwrap_or_default();
            let compiled = fs::metadata(file).and_then(|is| is.modified());
            if compiled.is_ok_and(|compiled| *modified <= compiled && compiled < put) {
                outdated.extend(line["package_id"].as_str().map(str::to_owned));
            }
        }
    }
    outdated.sort();
    outdated.dedup();
    outdated
}

/// The folder of the package that a message of cargo is about.
fn folder(message: &Value) -> Option<&Path> {
    Path::new(message["manifest_path"].as_str()?).parent()
}

/// When a file was last written, moved or given other times, which nobody can set.
fn status_changed(is: &fs::Metadata) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(is.ctime()).ok()?, u32::try_from(is.ctime_nsec()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// Runs cargo without a network, and once more if it misses something of the registry.
fn cargo(
    project: &Project,
    arguments: &[&str],
    tools: &Tools,
    progress: Progress<'_>,
) -> Result<Said, BuildError> {
    let said = tools.run(&mut command(&project.folder, arguments, true))?.ok_or(MISSING)?;
    if said.is_well || !said.stderr.contains("offline") {
        return Ok(said);
    }
    progress("fetching the crates that Cargo.toml names");
    tools.run(&mut command(&project.folder, arguments, false))?.ok_or(MISSING)
}

fn command(folder: &Path, arguments: &[&str], is_offline: bool) -> Command {
    let mut cargo = Command::new("cargo");
    // Flags of the environment would stand before those of the plugin's `.cargo/config.toml`.
    cargo.current_dir(folder).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    // Two plugins of one name are the same to cargo where they share a target folder, whatever is in them.
    cargo.env_remove("CARGO_BUILD_TARGET").args(arguments).args(["--target-dir", "target"]);
    if is_offline {
        cargo.arg("--offline");
    }
    cargo
}

/// Sees to it that Rust can compile to WebAssembly.
fn add_target(tools: &Tools, progress: Progress<'_>) -> Result<(), BuildError> {
    let mut rustc = Command::new("rustc");
    let said = tools.run(rustc.args(["--print", "target-libdir", "--target", TARGET]))?.ok_or(MISSING)?;
    // Such as that of rustup where no Rust is installed.
    let said = said.tool("rustc")?;
    if Path::new(said.stdout.trim()).is_dir() {
        return Ok(());
    }
    progress(&format!("adding the Rust target {TARGET}, which plugins are compiled for"));
    let missing = BuildError::NoProgram {
        program: "rustup",
        language: "Rust",
        install: "install Rust with rustup, or the standard library of wasm32-unknown-unknown with your system",
    };
    let said = tools.run(Command::new("rustup").args(["target", "add", TARGET]))?.ok_or(missing)?;
    if said.is_well {
        Ok(())
    } else {
        Err(BuildError::Fetch { what: format!("the target {TARGET}"), said: said.all() })
    }
}

/// The first error that the compiler tells of, with all that it says.
fn mistake(messages: &[Value], stderr: &str) -> Mistake {
    let errors =
        || messages.iter().map(|line| &line["message"]).filter(|message| message["level"] == "error");
    let rendered: Vec<_> = errors().filter_map(|error| error["rendered"].as_str()).collect();
    let Some(first) = errors().next() else {
        return Mistake { place: None, message: last_words(stderr), said: stderr.trim_end().to_owned() };
    };
    let spans = first["spans"].as_array().into_iter().flatten();
    let place = spans.filter(|span| span["is_primary"] == true).find_map(|span| {
        Some(format!("{}:{}:{}", span["file_name"].as_str()?, span["line_start"], span["column_start"]))
    });
    let message = first["message"].as_str().unwrap_or_default().to_owned();
    Mistake { place, message, said: rendered.concat().trim_end().to_owned() }
}

/// What cargo says where no source is at fault.
fn last_words(stderr: &str) -> String {
    let line = stderr.lines().find_map(|line| line.strip_prefix("error: "));
    line.unwrap_or("cargo failed").to_owned()
}

/// The file of the component among what cargo says that it has made.
fn component(messages: &[Value]) -> Option<PathBuf> {
    let made = messages.iter().filter(|line| line["reason"] == "compiler-artifact");
    let files = made.flat_map(|line| line["filenames"].as_array().into_iter().flatten());
    let mut files = files.filter_map(|file| file.as_str()).filter(|file| file.ends_with(".wasm"));
    files.next_back().map(PathBuf::from)
}
