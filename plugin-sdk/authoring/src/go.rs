//! Plugins in Go: a core module by Go itself, which fetches a newer Go where the module wants one, and the component
//! around it.

use crate::command::{Said, built};
use crate::project::Project;
use crate::{BuildError, Progress, Tools};
use std::process::Command;

const MISSING: BuildError = BuildError::NoProgram {
    program: "go",
    language: "Go",
    install: "install Go 1.26 or later, of https://go.dev/dl",
};

pub(crate) fn build(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<Vec<u8>, BuildError> {
    progress(&format!("compiling {}", project.name));
    let module = built(project, tools, Some(MISSING), |module| {
        let mut build = go(project);
        build.env("GOOS", "wasip1").env("GOARCH", "wasm");
        build
            .args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o"])
            .arg(module)
            .arg(".");
        build
    })?;
    Ok(tidemill_component::of_go(&module)?)
}

pub(crate) fn test(
    project: &Project,
    tools: &Tools,
    progress: Progress<'_>,
) -> Result<Option<Said>, BuildError> {
    progress("running the tests in Go");
    tools.run(go(project).args(["test", "./..."]))?.ok_or(MISSING).map(Some)
}

fn go(project: &Project) -> Command {
    let mut go = Command::new("go");
    // What a module needs it says in its go.mod, and not in the environment or in a workspace around it.
    go.current_dir(&project.folder).env("GOFLAGS", "").env("GOWORK", "off");
    go
}
