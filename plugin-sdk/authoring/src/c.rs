//! Plugins in C: a core module by `zig cc`, which needs nothing of the system, and the component around it.

use crate::command::{Said, built, compiled, run_fetched, scratch};
use crate::project::Project;
use crate::{BuildError, Progress, Tools};
use std::path::PathBuf;
use std::process::Command;

/// Of PyPI, where zig is packed for every system.
const PACKAGE: &str = "ziglang==0.17.1";
/// Of the C stack, in bytes. Without a bound each instance claims 16 MiB of memory at once.
const STACK_BYTES: u32 = 64 << 10;
/// How the files of tests end.
const TESTS: &str = "_test.c";

pub(crate) fn build(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<Vec<u8>, BuildError> {
    let mut zig = zig(project, tools, progress)?;
    progress(&format!("compiling {}", project.name));
    let sources = project.files(".c")?.into_iter().filter(|file| !file.to_string_lossy().ends_with(TESTS));
    let module = built(project, None, |module| {
        zig.args(["-target", "wasm32-wasi", "-mexec-model=reactor", "-O2", "-s", "-Wall", "-Wextra"]);
        zig.arg(format!("-Wl,-z,stack-size={STACK_BYTES}")).arg("-I").arg(&project.sdk);
        zig.args(sources).arg(project.sdk.join("tidemill.c")).arg("-o").arg(module);
        zig
    })?;
    Ok(tidemill_component::of_module(&module)?)
}

pub(crate) fn test(
    project: &Project,
    tools: &Tools,
    progress: Progress<'_>,
) -> Result<Option<Said>, BuildError> {
    let folder = scratch()?;
    let mut last = None;
    for file in project.files(TESTS)? {
        progress(&format!("running {}", file.display()));
        let program: PathBuf = folder.path().join(file.with_extension(""));
        let mut zig = zig(project, tools, progress)?;
        zig.args(["-Wall", "-Wextra", "-g", "-I"])
            .arg(&project.sdk)
            .arg(&file)
            .args(["-lm", "-o"])
            .arg(&program);
        compiled(&run_fetched(&mut zig)?, project)?;
        let said = run_fetched(Command::new(&program).current_dir(&project.folder))?;
        if !said.is_well {
            return Ok(Some(said));
        }
        last = Some(said);
    }
    Ok(last)
}

fn zig(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<Command, BuildError> {
    let folder = tools.pip("zig", &[PACKAGE], "C", progress)?;
    let mut zig = Command::new(folder.join("bin/python"));
    zig.current_dir(&project.folder).env("ZIG_GLOBAL_CACHE_DIR", tools.kept("zig-cache")?);
    zig.args(["-m", "ziglang", "cc"]);
    Ok(zig)
}
