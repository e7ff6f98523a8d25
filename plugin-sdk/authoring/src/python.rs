//! Plugins in Python: componentize-py, as the SDK of the plugin wants it, in a virtual environment.

use crate::command::{Said, built};
use crate::project::Project;
use crate::{BuildError, Progress, Tools};
use std::process::Command;

pub(crate) fn build(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<Vec<u8>, BuildError> {
    let mut python = python(project, tools, progress)?;
    progress(&format!("compiling {}", project.name));
    built(project, tools, None, |component| {
        python.args(["-m", "tidemill_plugin.build"]).arg(&project.main).arg("--output").arg(component);
        python
    })
}

pub(crate) fn test(
    project: &Project,
    tools: &Tools,
    progress: Progress<'_>,
) -> Result<Option<Said>, BuildError> {
    let has_tests = project.files(".py")?.iter().any(|file| file.to_string_lossy().starts_with("test"));
    if !has_tests {
        return Ok(None);
    }
    let mut python = python(project, tools, progress)?;
    progress("running the tests in Python");
    tools.run_fetched(python.args(["-m", "unittest"])).map(Some)
}

fn python(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<Command, BuildError> {
    let folder = tools.pip("componentize-py", &wanted(project)?, "Python", progress)?;
    let mut python = Command::new(folder.join("bin/python"));
    python.current_dir(&project.folder).env("PYTHONPATH", project.sdk.join("src"));
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(python)
}

/// What the SDK says that builds need.
fn wanted(project: &Project) -> Result<Vec<String>, BuildError> {
    let path = project.sdk.join("pyproject.toml");
    let text = std::fs::read_to_string(&path).map_err(BuildError::file("read", &path))?;
    let table: toml::Table = text.parse().unwrap_or_default();
    let build = table.get("project").and_then(|project| project.get("optional-dependencies")?.get("build"));
    let packages = build.and_then(toml::Value::as_array).into_iter().flatten();
    Ok(packages.filter_map(|package| package.as_str().map(str::to_owned)).collect())
}
