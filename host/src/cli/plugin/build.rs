//! `tidemill plugin build`: the plugin of a folder, compiled by the toolchain of its language, and looked at as a host
//! would.

use super::problem::problem;
use crate::cli::scratch::Scratch;
use crate::cli::{Exit, answer, block_on_thread, complain, tell};
use crate::plugin::{Inspection, Need, inspect};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tidemill_authoring::{BuildError, Effort, Project, Tools};

/// What a tool says is shown up to so many lines, unless more is asked for.
const MOST_LINES: usize = 40;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PluginBuild {
    #[command(flatten)]
    folder: PluginFolder,
    /// The file that is written; if none is named, NAME.wasm in the folder.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The folder of a plugin on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct PluginFolder {
    /// The folder of the plugin, as `tidemill plugin new` makes it.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// A plugin that was built and looked at.
pub(super) struct Built {
    pub(super) wasm: Vec<u8>,
    pub(super) inspection: Inspection,
}

/// Why there is no plugin: one sentence, what to do about it, and what a tool said.
#[derive(Debug, Default)]
pub(super) struct NotBuilt {
    pub(super) error: String,
    hint: Option<String>,
    said: Option<String>,
}

impl PluginBuild {
    pub(super) fn execute(self, is_verbose: bool) -> Exit {
        block_on_thread(
            move || self.build(),
            |built| match built {
                Ok((output, built)) => answer(&shown(&output, &built), Exit::Success),
                Err(error) => {
                    error.complain(is_verbose);
                    Exit::Failure
                }
            },
        )
    }

    fn build(&self) -> Result<(PathBuf, Built), NotBuilt> {
        let scratch = scratch()?;
        let (project, tools) = self.folder.open(&scratch)?;
        let output = self.output.clone().unwrap_or_else(|| project.component());
        let built = build(&project, Effort::Full, &tools)?;
        write(&output, &built.wasm)?;
        Ok((output, built))
    }
}

impl PluginFolder {
    /// The plugin, and the tools that it is built with, whose temporary files are in `scratch`.
    pub(super) fn open(&self, scratch: &Scratch) -> Result<(Project, Tools), NotBuilt> {
        open(&self.folder, scratch)
    }
}

fn open(folder: &Path, scratch: &Scratch) -> Result<(Project, Tools), NotBuilt> {
    let project = Project::open(folder).map_err(|error| NotBuilt {
        error: error.to_string(),
        hint: Some("`tidemill plugin new NAME --lang python` makes one".to_owned()),
        said: None,
    })?;
    Ok((project, Tools::of_user(scratch.path()).map_err(NotBuilt::from)?))
}

/// A folder for what a build keeps as files on its way.
pub(super) fn scratch() -> Result<Scratch, NotBuilt> {
    Scratch::try_new("build").map_err(NotBuilt::of)
}

/// The component of the plugin in a folder, which is built and written there first: the times of files do not tell
/// whether a component is of them.
pub(super) fn of_folder(folder: &Path) -> Result<Vec<u8>, NotBuilt> {
    let scratch = scratch()?;
    let (project, tools) = open(folder, &scratch)?;
    let built = build(&project, Effort::Full, &tools)?;
    write(&project.component(), &built.wasm)?;
    Ok(built.wasm)
}

/// Builds a plugin, telling what is done, and looks at what comes of it.
pub(super) fn build(project: &Project, effort: Effort, tools: &Tools) -> Result<Built, NotBuilt> {
    let wasm = project.build(effort, tools, &progress)?;
    let refused =
        |error: String, hint: Option<&str>| NotBuilt { error, hint: hint.map(str::to_owned), said: None };
    let inspection = inspect(project.name(), &wasm);
    let inspection = inspection.map_err(|error| refused(error.to_string(), error.hint()))?;
    match problem(&inspection) {
        Some(problem) => Err(refused(format!("{}: {problem}", project.name()), None)),
        None => Ok(Built { wasm, inspection }),
    }
}

/// One line on what is being done.
pub(super) fn progress(line: &str) {
    tell(format!("{line}\n"));
}

impl From<BuildError> for NotBuilt {
    fn from(error: BuildError) -> Self {
        Self { said: error.said().map(str::to_owned), error: error.to_string(), hint: None }
    }
}

impl NotBuilt {
    /// Something else than the build has failed.
    pub(super) fn of(error: String) -> Self {
        Self { error, ..Self::default() }
    }

    /// Says it on standard error: where and what first, then what the tool said.
    pub(super) fn complain(&self, is_verbose: bool) {
        complain(self.text(is_verbose));
    }

    pub(super) fn text(&self, is_verbose: bool) -> String {
        let mut text = self.error.clone();
        let said = self.said.as_deref().unwrap_or_default();
        // What stands above is not said again.
        let is_told = |line: &str| line.trim_start_matches("error: ") == self.error;
        let lines: Vec<_> = said.trim().lines().filter(|line| !is_told(line)).collect();
        if !lines.is_empty() {
            let most = if is_verbose { lines.len() } else { MOST_LINES.min(lines.len()) };
            text.push_str(&format!("\n\n{}\n", lines[..most].join("\n")));
            if most < lines.len() {
                text.push_str(&format!("... {} more lines, which `-v` shows\n", lines.len() - most));
            }
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
        text
    }
}

/// Replaces a file at once: a host may watch its folder.
fn write(file: &Path, wasm: &[u8]) -> Result<(), NotBuilt> {
    replace(file, wasm).map_err(|error| NotBuilt::of(format!("failed to write {}: {error}", file.display())))
}

fn replace(file: &Path, wasm: &[u8]) -> io::Result<()> {
    // A device, a pipe: nothing that another file may take the place of.
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        return fs::File::options().write(true).open(file)?.write_all(wasm);
    }
    let name = file.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
    let partial = file.with_file_name(format!(".{name}.partial"));
    let written = fs::File::create(&partial).and_then(|mut to| to.write_all(wasm));
    let renamed = written.and_then(|()| fs::rename(&partial, file));
    if renamed.is_err() {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_file(&partial);
    }
    renamed
}

fn shown(output: &Path, Built { wasm, inspection }: &Built) -> String {
    let kind = inspection.kind.map_or("component", |kind| kind.as_str());
    let mut text = format!("{}: {kind}, {} KiB\n", near(output), wasm.len().div_ceil(1024));
    for import in inspection.imports.iter().filter(|import| import.need == Need::Grant) {
        let told = import.need.told(inspection.kind).unwrap_or_default();
        text.push_str(&format!("note: it imports {}, and {told}\n", import.name));
    }
    text
}

/// A path as it is called from here.
pub(super) fn near(path: &Path) -> std::path::Display<'_> {
    let here = std::env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).display()
}
