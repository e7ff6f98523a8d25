//! A program that is run to its end, and what it says or writes.

use crate::BuildError;
use crate::mistake::Mistake;
use crate::project::Project;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// What a program that was run has said.
pub(crate) struct Said {
    pub(crate) is_well: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// Both, the mistakes first.
    pub(crate) fn all(&self) -> String {
        let (stderr, stdout) = (self.stderr.trim_end(), self.stdout.trim_end());
        [stderr, stdout].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
    }

    /// What failed was a tool, and not the plugin.
    pub(crate) fn tool(self, program: &str) -> Result<Self, BuildError> {
        if self.is_well {
            Ok(self)
        } else {
            Err(BuildError::Tool { program: program.to_owned(), said: self.all() })
        }
    }
}

/// Runs a program. `None` if there is none of this name.
pub(crate) fn run(command: &mut Command) -> Result<Option<Said>, BuildError> {
    let program = command.get_program().to_owned();
    match command.stdin(Stdio::null()).output() {
        Ok(Output { status, stdout, stderr }) => Ok(Some(Said {
            is_well: status.success(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BuildError::File { what: "run", path: program.into(), error }),
    }
}

/// Runs a program that was fetched.
pub(crate) fn run_fetched(command: &mut Command) -> Result<Said, BuildError> {
    let program = command.get_program().to_owned();
    let gone = || BuildError::File { what: "run", path: program.into(), error: ErrorKind::NotFound.into() };
    run(command)?.ok_or_else(gone)
}

/// What a compiler makes of a plugin: `compiler` says how it is to write that into a file.
///
/// # Errors
/// The plugin's source is not right; or there is no such program, where somebody has to install it.
pub(crate) fn built(
    project: &Project,
    missing: Option<BuildError>,
    compiler: impl FnOnce(&Path) -> Command,
) -> Result<Vec<u8>, BuildError> {
    let folder = scratch()?;
    let file = folder.path().join("built.wasm");
    let mut compiler = compiler(&file);
    let said = match missing {
        Some(missing) => run(&mut compiler)?.ok_or(missing)?,
        None => run_fetched(&mut compiler)?,
    };
    compiled(&said, project)?;
    fs::read(&file).map_err(BuildError::file("read", &file))
}

/// Whether a compiler, which has said this, found nothing wrong.
pub(crate) fn compiled(said: &Said, project: &Project) -> Result<(), BuildError> {
    if said.is_well { Ok(()) } else { Err(BuildError::Mistake(Mistake::read(&said.all(), &project.folder))) }
}

/// A folder for what is made on the way.
pub(crate) fn scratch() -> Result<TempDir, BuildError> {
    tempfile::tempdir().map_err(BuildError::file("create a folder in", &std::env::temp_dir()))
}
