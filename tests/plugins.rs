//! The shipped plugins do what their pages say: each runs the cases that are recorded in its folder, as a component,
//! and has a page that `docs/plugins.md` leads to.
//!
//! A case is `cases/NAME.in.jsonl`, what comes of it is `cases/NAME.out.jsonl`, and `cases/NAME.config.json` is the
//! plugin's configuration, if it has one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tidemill_tests::host::binary;
use tidemill_tests::{plugin, root};

/// What the name of a case's input ends with.
const INPUT: &str = ".in.jsonl";

/// The folders of the shipped plugins, and their names.
fn shipped() -> Vec<(PathBuf, String)> {
    let folders = fs::read_dir(root().join("plugins")).unwrap().map(|entry| entry.unwrap().path());
    let plugins = folders.filter(|folder| folder.join("Cargo.toml").exists());
    let mut plugins: Vec<_> = plugins
        .map(|folder| (folder.clone(), folder.file_name().unwrap().to_str().unwrap().to_owned()))
        .collect();
    plugins.sort();
    assert!(plugins.len() >= 5, "{plugins:?}");
    plugins
}

/// The names of the cases of a plugin.
fn cases(folder: &Path) -> Vec<String> {
    let files =
        fs::read_dir(folder.join("cases")).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut cases: Vec<String> =
        names.filter_map(|name| name.strip_suffix(INPUT).map(str::to_owned)).collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} has no case", folder.display());
    cases
}

#[test]
fn every_recorded_case_gives_what_is_recorded() {
    for (folder, name) in shipped() {
        for case in cases(&folder) {
            let file = |ending: &str| folder.join("cases").join(format!("{case}{ending}"));
            let config = fs::read_to_string(file(".config.json")).unwrap_or_else(|_| "{}".to_owned());
            let mut run = Command::new(binary());
            // The cache of compiled code is relative to where the command runs.
            run.current_dir(root().join("target")).args(["plugin", "run"]).arg(plugin(&name));
            let input = fs::File::open(file(INPUT)).unwrap();
            let ran = run.args(["--config", &config]).stdin(Stdio::from(input)).output().unwrap();
            let told = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "{name}, case {case}: {told}");
            let expected = fs::read_to_string(file(".out.jsonl")).unwrap();
            let got = String::from_utf8(ran.stdout).unwrap();
            assert_eq!(got, expected, "{name}, case {case}: {told}");
        }
    }
}

#[test]
fn every_shipped_plugin_has_a_page_and_a_row_that_leads_to_it() {
    let page = fs::read_to_string(root().join("docs/plugins.md")).unwrap();
    for (folder, name) in shipped() {
        assert!(
            page.contains(&format!("| [`{name}`](../plugins/{name}/README.md) |")),
            "docs/plugins.md: {name}"
        );
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        assert!(readme.starts_with(&format!("# {name}\n")), "{name}/README.md");
        assert!(readme.contains(&format!("plugin = \"{name}\"")), "{name}/README.md has an example");
    }
}
