//! Plugins in JavaScript and TypeScript: the SDK's own build, with esbuild and componentize-qjs as the SDK wants them.

use crate::command::{Said, built, compiled};
use crate::language::Language;
use crate::project::Project;
use crate::tools::npm_install;
use crate::{BuildError, Progress, Tools};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What checks types.
const TYPESCRIPT: &str = "typescript@5.9.3";
/// How the files of tests in TypeScript end.
const TESTS: &str = ".test.ts";

pub(crate) fn build(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<Vec<u8>, BuildError> {
    install_own_packages(project, tools, progress)?;
    if project.language == Language::TypeScript {
        check_types(project, tools, progress)?;
    }
    let packages = packages(project, tools, progress)?;
    progress(&format!("compiling {}", project.name));
    built(project, tools, Some(no_node(project)), |component| {
        let mut node = node(project);
        node.arg(project.sdk.join("build.js")).arg(&project.main);
        node.arg("--tools").arg(packages).arg("--output").arg(component);
        node
    })
}

pub(crate) fn test(
    project: &Project,
    tools: &Tools,
    progress: Progress<'_>,
) -> Result<Option<Said>, BuildError> {
    install_own_packages(project, tools, progress)?;
    let folder = tools.scratch()?;
    let mut node = node(project);
    node.arg("--test");
    if project.language == Language::TypeScript {
        let tests = project.files(TESTS)?;
        if tests.is_empty() {
            return Ok(None);
        }
        bundle(project, tools, &tests, folder.path(), progress)?;
        node.arg("--enable-source-maps").arg(folder.path());
    }
    progress(&format!("running the tests in {}", project.language.title()));
    tools.run(&mut node)?.ok_or(no_node(project)).map(Some)
}

/// Tests in TypeScript, as Node runs them.
fn bundle(
    project: &Project,
    tools: &Tools,
    tests: &[PathBuf],
    to: &Path,
    progress: Progress<'_>,
) -> Result<(), BuildError> {
    let packages = packages(project, tools, progress)?;
    let mut esbuild = Command::new(packages.join("node_modules/.bin/esbuild"));
    esbuild.current_dir(&project.folder).args(tests).arg(format!("--outdir={}", to.display()));
    esbuild.args(["--bundle", "--platform=node", "--format=esm", "--out-extension:.js=.mjs"]);
    esbuild.args(["--sourcemap=inline", "--log-level=error", "--color=false"]);
    compiled(&tools.run_fetched(&mut esbuild)?, project)
}

fn check_types(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<(), BuildError> {
    if !project.folder.join("tsconfig.json").is_file() {
        return Ok(());
    }
    let packages = tools.npm("typescript", &[TYPESCRIPT], project.language.title(), progress)?;
    progress("checking the types");
    let mut node = node(project);
    node.arg(packages.join("node_modules/typescript/bin/tsc")).args(["--pretty", "false", "--noEmit"]);
    // The declarations of others were checked by them, and to do it again is half of the time.
    node.arg("--skipLibCheck");
    compiled(&tools.run(&mut node)?.ok_or(no_node(project))?, project)
}

/// What the plugin's package.json names, the SDK among it, unless it is there. The SDK alone needs no network.
fn install_own_packages(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<(), BuildError> {
    let package = project.folder.join("package.json");
    if !package.is_file() || project.folder.join("node_modules/tidemill-plugin").exists() {
        return Ok(());
    }
    progress("installing the packages that package.json names");
    let said = tools.run(npm_install().current_dir(&project.folder))?.ok_or(no_node(project))?;
    if said.is_well {
        Ok(())
    } else {
        Err(BuildError::Fetch { what: "the packages of package.json".into(), said: said.all() })
    }
}

/// The folder of esbuild and componentize-qjs.
fn packages(project: &Project, tools: &Tools, progress: Progress<'_>) -> Result<PathBuf, BuildError> {
    let path = project.sdk.join("package.json");
    let text = std::fs::read_to_string(&path).map_err(BuildError::file("read", &path))?;
    let package: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let wanted = package["peerDependencies"].as_object().into_iter().flatten();
    let wanted = wanted.filter_map(|(name, version)| Some(format!("{name}@{}", version.as_str()?)));
    tools.npm("componentize-qjs", &wanted.collect::<Vec<_>>(), project.language.title(), progress)
}

fn node(project: &Project) -> Command {
    let mut node = Command::new("node");
    node.current_dir(&project.folder);
    node
}

fn no_node(project: &Project) -> BuildError {
    let install = "install Node.js 20 or later, of https://nodejs.org";
    BuildError::NoProgram { program: "node", language: project.language.title(), install }
}
