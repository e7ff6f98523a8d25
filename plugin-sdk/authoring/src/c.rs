//! Plugins in C: a core module by `zig cc`, which needs nothing of the system, and the component around it.

use crate::command::{Said, compiled};
use crate::project::Project;
use crate::{BuildError, Progress, Tools};
use std::path::PathBuf;
use std::process::Command;

/// Of PyPI, where zig is packed for every system.
const PACKAGE: &str = "ziglang==0.17.1";
/// Of the C stack, in bytes. Without a bound each instance claims 16 MiB of memory at once.
const STACK_BYTES: u32 = 64 << 10;
/// Where the compiler keeps what it has compiled, among the tools.
const CACHE: &str = "zig-cache";
/// How the files of tests end.
const TESTS: &str = "_test.c";

pub(crate) fn build(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<Vec<u8>, BuildError> {
    let mut zig = zig(project, tools, progress)?;
    progress(&format!("compiling {}", project.name));
    let sources = project.files(".c")?.into_iter().filter(|file| !file.to_string_lossy().ends_with(TESTS));
    let sources: Vec<_> = sources.collect();
    let folder = tools.scratch()?;
    let file = folder.path().join("plugin.wasm");
    let compile = |zig: &mut Command, more: &[&str]| {
        zig.args(["cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-O2", "-Wall", "-Wextra"]);
        // The plugin has lines, the C library that is linked to it has none.
        // A function that nothing is inlined into would have no entry otherwise, and a fault in it no line.
        zig.args(["-gline-tables-only", "-fdebug-info-for-profiling", "-s"]).args(more);
        zig.arg(format!("-Wl,-z,stack-size={STACK_BYTES}")).arg("-I").arg(&project.sdk);
        tools.run_fetched(zig.args(&sources).arg(project.sdk.join("tidemill.c")).arg("-o").arg(&file))
    };
    compiled(&compile(&mut zig, &[])?, project)?;
    // What was compiled is at hand.
    let said = compile(&mut self::zig(project, tools, progress)?, &["-v"])?;
    if let Some(linking) = linking(&said.stderr, &[tools.kept(CACHE)?, folder.path().to_owned()]) {
        tools.run_fetched(self::zig(project, tools, progress)?.args(linking))?.tool("zig wasm-ld")?;
    }
    let module = std::fs::read(&file).map_err(BuildError::file("read", &file))?;
    Ok(tidemill_component::of_module(&module)?)
}

/// How the linker was called, without having it leave out the lines: `zig cc` can link the C library with its lines,
/// which have a megabyte, or nothing with lines. None of it where the compiler does not say so.
fn linking(said: &str, folders: &[PathBuf]) -> Option<Vec<String>> {
    let line = said.lines().find(|line| line.starts_with("wasm-ld "))?;
    // Only these may have spaces.
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let short = |n: usize| format!("\u{1}{n}\u{1}");
    let line =
        folders.iter().enumerate().fold(line.to_owned(), |line, (n, folder)| line.replace(folder, &short(n)));
    let whole = |word: &str| {
        folders.iter().enumerate().fold(word.to_owned(), |word, (n, folder)| word.replace(&short(n), folder))
    };
    Some(line.split(' ').filter(|word| *word != "-s").map(whole).collect())
}

pub(crate) fn test(
    project: &Project,
    tools: &Tools,
    progress: Progress<'_>,
) -> Result<Option<Said>, BuildError> {
    let folder = tools.scratch()?;
    let mut last = None;
    for file in project.files(TESTS)? {
        progress(&format!("running {}", file.display()));
        let program: PathBuf = folder.path().join(file.with_extension(""));
        let mut zig = zig(project, tools, progress)?;
        zig.args(["cc", "-Wall", "-Wextra", "-g", "-I"])
            .arg(&project.sdk)
            .arg(&file)
            .args(["-lm", "-o"])
            .arg(&program);
        compiled(&tools.run_fetched(&mut zig)?, project)?;
        let said = tools.run_fetched(Command::new(&program).current_dir(&project.folder))?;
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
    zig.current_dir(&project.folder).env("ZIG_GLOBAL_CACHE_DIR", tools.kept(CACHE)?);
    zig.args(["-m", "ziglang"]);
    Ok(zig)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_is_called_again_without_leaving_out_the_lines() {
        let said =
            " \"/zig\" -cc1\nwasm-ld --error-limit=0 -s -o /tmp/a b/x.wasm /c d/zig-cache/o/1/libc.a x.o\n";
        let words = linking(said, &["/c d/zig-cache".into(), "/tmp/a b".into()]).expect("it says how");
        let wanted =
            ["wasm-ld", "--error-limit=0", "-o", "/tmp/a b/x.wasm", "/c d/zig-cache/o/1/libc.a", "x.o"];
        assert_eq!(words, wanted);
        assert_eq!(linking("ld.lld x", &[]), None);
    }
}
