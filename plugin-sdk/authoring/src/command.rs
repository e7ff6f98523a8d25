//! A program that is run to its end, or until it is stopped, and what it says or writes.

use crate::mistake::Mistake;
use crate::project::Project;
use crate::{BuildError, Tools};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long programs that were stopped may take to be gone.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// The programs of this process that can be stopped.
static STOPPABLE: Stoppable = Stoppable {
    programs: Mutex::new(Programs { groups: Vec::new(), is_over: false }),
    changed: Condvar::new(),
};

struct Stoppable {
    programs: Mutex<Programs>,
    changed: Condvar,
}

struct Programs {
    /// Each leads a group of processes.
    groups: Vec<Pid>,
    /// No more are begun.
    is_over: bool,
}

/// Stops all programs that [`Tools::of_user`] run, with the processes that they have started, and waits until they are
/// gone: a second at most. No other is begun from then on, since whoever calls this is about to end.
pub fn stop_programs() {
    let mut programs = STOPPABLE.lock();
    programs.is_over = true;
    for group in &programs.groups {
        // One that has just ended is no longer there.
        let _ = kill_process_group(*group, Signal::KILL);
    }
    let are_gone =
        STOPPABLE.changed.wait_timeout_while(programs, STOP_PATIENCE, |programs| !programs.groups.is_empty());
    drop(are_gone);
}

impl Stoppable {
    /// Runs a program in a group of its own. `None` if everything was stopped before it has ended.
    fn run(&self, command: &mut Command) -> io::Result<Option<Output>> {
        let mut programs = self.lock();
        if programs.is_over {
            return Ok(None);
        }
        let child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let group = Pid::from_child(&child);
        programs.groups.push(group);
        drop(programs);
        let output = child.wait_with_output();
        let mut programs = self.lock();
        programs.groups.retain(|other| *other != group);
        self.changed.notify_all();
        if programs.is_over { Ok(None) } else { output.map(Some) }
    }

    fn lock(&self) -> MutexGuard<'_, Programs> {
        // Each change is complete in itself, so a panic elsewhere leaves it sound.
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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

/// Runs a program, which keeps its temporary files in the folder `temporary` and can be stopped, if one is given. `None`
/// if there is no program of this name.
pub(crate) fn run(command: &mut Command, temporary: Option<&Path>) -> Result<Option<Said>, BuildError> {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null());
    let output = match temporary {
        Some(folder) => STOPPABLE.run(command.env("TMPDIR", folder)),
        None => command.output().map(Some),
    };
    match output {
        Ok(Some(Output { status, stdout, stderr })) => Ok(Some(Said {
            is_well: status.success(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })),
        Ok(None) => Err(BuildError::Stopped),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BuildError::File { what: "run", path: program.into(), error }),
    }
}

/// What a compiler makes of a plugin: `compiler` says how it is to write that into a file.
///
/// # Errors
/// The plugin's source is not right; or there is no such program, where somebody has to install it.
pub(crate) fn built(
    project: &Project,
    tools: &Tools,
    missing: Option<BuildError>,
    compiler: impl FnOnce(&Path) -> Command,
) -> Result<Vec<u8>, BuildError> {
    let folder = tools.scratch()?;
    let file = folder.path().join("built.wasm");
    let mut compiler = compiler(&file);
    let said = match missing {
        Some(missing) => tools.run(&mut compiler)?.ok_or(missing)?,
        None => tools.run_fetched(&mut compiler)?,
    };
    compiled(&said, project)?;
    fs::read(&file).map_err(BuildError::file("read", &file))
}

/// Whether a compiler, which has said this, found nothing wrong.
pub(crate) fn compiled(said: &Said, project: &Project) -> Result<(), BuildError> {
    if said.is_well { Ok(()) } else { Err(BuildError::Mistake(Mistake::read(&said.all(), &project.folder))) }
}
