//! The shipped plugins do what their pages say: each runs the cases that are recorded in its folder, as a component,
//! and has a page that `docs/plugins.md` leads to.
//!
//! A case is `cases/NAME.in.jsonl`, or `cases/NAME.in.recording` where the times of messages or random numbers matter;
//! what comes of it is `cases/NAME.out.jsonl`, and `cases/NAME.config.json` is the plugin's configuration, if it has
//! one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tidemill_tests::host::binary;
use tidemill_tests::{plugin, root};

/// What the name of a case's input ends with, and the format that it has.
const INPUTS: [(&str, &str); 2] = [(".in.jsonl", "jsonl"), (".in.recording", "recording")];

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

/// The names of the cases of a plugin, and what their inputs are.
fn cases(folder: &Path) -> Vec<(String, &'static str, &'static str)> {
    let files =
        fs::read_dir(folder.join("cases")).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let case = |name: String| {
        let input =
            INPUTS.iter().find_map(|(ending, format)| Some((name.strip_suffix(ending)?, ending, format)));
        input.map(|(case, ending, format)| (case.to_owned(), *ending, *format))
    };
    let mut cases: Vec<_> = names.filter_map(case).collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} has no case", folder.display());
    cases
}

/// What a plugin makes of an input.
fn run(name: &str, config: &str, format: &str, input: Stdio) -> String {
    let mut run = Command::new(binary());
    // The cache of compiled code is relative to where the command runs.
    run.current_dir(root().join("target")).args(["plugin", "run"]).arg(plugin(name));
    run.args(["--config", config, "--format", format]).stdin(input);
    let ran = run.output().unwrap();
    assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn every_recorded_case_gives_what_is_recorded() {
    for (folder, name) in shipped() {
        for (case, ending, format) in cases(&folder) {
            let file = |ending: &str| folder.join("cases").join(format!("{case}{ending}"));
            let config = fs::read_to_string(file(".config.json")).unwrap_or_else(|_| "{}".to_owned());
            let got = run(&name, &config, format, fs::File::open(file(ending)).unwrap().into());
            let expected = fs::read_to_string(file(".out.jsonl")).unwrap();
            assert_eq!(got, expected, "{name}, case {case}");
        }
    }
}

#[test]
fn what_encrypt_seals_differs_each_time_and_decrypt_opens_it() {
    let config = r#"{"key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}"#;
    let mut clear = tempfile::tempfile().unwrap();
    clear.write_all(b"ping\n{\"a\":1}\nping\n").unwrap();
    let sealed = [(); 2].map(|()| {
        let mut clear = clear.try_clone().unwrap();
        clear.rewind().unwrap();
        run("encrypt", config, "jsonl", clear.into())
    });
    let lines: BTreeSet<&str> = sealed.iter().flat_map(|sealed| sealed.lines()).collect();
    assert_eq!(lines.len(), 6, "{lines:?}");
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(sealed[0].as_bytes()).unwrap();
    file.rewind().unwrap();
    assert_eq!(run("decrypt", config, "jsonl", file.into()), "ping\n{\"a\":1}\nping\n");
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
