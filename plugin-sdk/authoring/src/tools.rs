//! Tools that are fetched from the registry of their language, once, each in a folder of its own.
//!
//! A folder is complete once its stamp says so, and is made again when other versions are wanted. Several programs may
//! want the same at once: a lock has one of them fetch it.

use crate::command::{Said, run};
use crate::{BuildError, Progress};
use std::borrow::Borrow;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// How npm installs packages. Left alone it tries for minutes where there is no network, and says nothing.
const NPM_INSTALL: [&str; 7] = [
    "install",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
    "--fetch-retries=2",
    "--fetch-retry-mintimeout=500",
    "--fetch-retry-maxtimeout=1000",
];
/// The same of pip.
const PIP_INSTALL: [&str; 6] =
    ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=2"];

/// The variable that names the folder of the tools.
const VARIABLE: &str = "TIDEMILL_TOOLS";

/// Where tools are kept, whether what is missing is fetched, and how they are run.
#[derive(Clone, Debug)]
pub struct Tools {
    folder: PathBuf,
    is_fetching: bool,
    /// Where they keep their temporary files, if they can be stopped.
    temporary: Option<PathBuf>,
}

impl Tools {
    /// Those of the user: in the folder that `TIDEMILL_TOOLS` names, or in the cache folder of the user. They can be
    /// stopped ([`stop_programs`](crate::stop_programs)), and what they leave behind then is in the folder `temporary`.
    ///
    /// # Errors
    /// The environment names neither.
    pub fn of_user(temporary: &Path) -> Result<Self, BuildError> {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = || named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
        let folder = named(VARIABLE).or_else(|| Some(cache()?.join("tidemill/tools")));
        let folder = folder.ok_or_else(|| BuildError::File {
            what: "find the folder of tools",
            path: format!("${VARIABLE}").into(),
            error: ErrorKind::NotFound.into(),
        })?;
        let absolute = std::path::absolute(&folder).map_err(BuildError::file("find", &folder))?;
        Ok(Self { temporary: Some(temporary.to_owned()), ..Self::fetching(absolute) })
    }

    /// Those in a folder; what is missing is fetched.
    pub fn fetching(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), is_fetching: true, temporary: None }
    }

    /// Those in a folder, as they are.
    pub fn installed(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), is_fetching: false, temporary: None }
    }

    /// Runs a program. `None` if there is none of this name.
    pub(crate) fn run(&self, command: &mut Command) -> Result<Option<Said>, BuildError> {
        run(command, self.temporary.as_deref())
    }

    /// Runs a program that was fetched.
    pub(crate) fn run_fetched(&self, command: &mut Command) -> Result<Said, BuildError> {
        let program = command.get_program().to_owned();
        let gone =
            || BuildError::File { what: "run", path: program.into(), error: ErrorKind::NotFound.into() };
        self.run(command)?.ok_or_else(gone)
    }

    /// A folder for what is made on the way.
    pub(crate) fn scratch(&self) -> Result<TempDir, BuildError> {
        let parent = self.temporary.clone().unwrap_or_else(std::env::temp_dir);
        tempfile::tempdir_in(&parent).map_err(BuildError::file("create a folder in", &parent))
    }

    /// A folder of what is built, kept to build faster the next time.
    pub(crate) fn kept(&self, name: &str) -> Result<PathBuf, BuildError> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).map_err(BuildError::file("create", &folder))?;
        Ok(folder)
    }

    /// A folder in which npm has installed these packages.
    ///
    /// # Errors
    /// They are missing, and nothing is fetched or can be.
    pub fn npm(
        &self,
        name: &str,
        packages: &[impl Borrow<str>],
        language: &'static str,
        progress: Progress<'_>,
    ) -> Result<PathBuf, BuildError> {
        self.install(name, packages, progress, |folder| {
            let mut npm = npm_install();
            npm.arg("--prefix").arg(folder).args(names(packages));
            let install = "install Node.js 20 or later, of https://nodejs.org";
            self.run(&mut npm)?.ok_or(BuildError::NoProgram { program: "npm", language, install })
        })
    }

    /// The folder of a virtual environment in which pip has installed these packages.
    ///
    /// # Errors
    /// They are missing, and nothing is fetched or can be.
    pub fn pip(
        &self,
        name: &str,
        packages: &[impl Borrow<str>],
        language: &'static str,
        progress: Progress<'_>,
    ) -> Result<PathBuf, BuildError> {
        self.install(name, packages, progress, |folder| {
            let mut make = Command::new("python3");
            make.args(["-m", "venv"]).arg(folder);
            let install = "install Python 3.11 or later, with venv";
            let made = self.run(&mut make)?.ok_or(BuildError::NoProgram {
                program: "python3",
                language,
                install,
            })?;
            made.tool("python3 -m venv")?;
            let mut pip = Command::new(folder.join("bin/python"));
            self.run_fetched(pip.args(PIP_INSTALL).args(names(packages)))
        })
    }

    /// A folder in which these packages are: as they were, or as `install` puts them there.
    fn install(
        &self,
        name: &str,
        packages: &[impl Borrow<str>],
        progress: Progress<'_>,
        install: impl FnOnce(&Path) -> Result<Said, BuildError>,
    ) -> Result<PathBuf, BuildError> {
        let folder = self.folder.join(name);
        let (stamp, wanted) = (folder.join("installed"), packages.join(" "));
        let is_there = || fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
        if is_there() {
            return Ok(folder);
        }
        if !self.is_fetching {
            return Err(BuildError::NotFetched(packages.join(", ")));
        }
        fs::create_dir_all(&self.folder).map_err(BuildError::file("create", &self.folder))?;
        let path = self.folder.join(format!(".{name}.lock"));
        let waits =
            || progress(&format!("waiting for another program, which fetches {}", packages.join(" and ")));
        let _lock = lock(&path, waits).map_err(BuildError::file("lock", &path))?;
        if is_there() {
            return Ok(folder);
        }
        progress(&format!("fetching {} into {}, once", packages.join(" and "), folder.display()));
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(BuildError::File { what: "remove", path: folder, error });
            }
            _ => fs::create_dir_all(&folder).map_err(BuildError::file("create", &folder))?,
        }
        let said = install(&folder)?;
        if !said.is_well {
            return Err(BuildError::Fetch { what: packages.join(" and "), said: said.all() });
        }
        fs::write(&stamp, wanted).map_err(BuildError::file("write", &stamp))?;
        Ok(folder)
    }
}

/// npm, which is to install packages.
pub(crate) fn npm_install() -> Command {
    let mut npm = Command::new("npm");
    npm.args(NPM_INSTALL);
    npm
}

/// The lock of a file, which nobody else has meanwhile.
fn lock(path: &Path, waits: impl FnOnce()) -> std::io::Result<File> {
    let file = File::create(path)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            waits();
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    Ok(file)
}

fn names(packages: &[impl Borrow<str>]) -> impl Iterator<Item = &str> {
    packages.iter().map(|package| package.borrow())
}
