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
use tidemill_tests::host::{Folder, Host, PATIENCE, binary};
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
fn windows_keep_to_the_memory_that_their_plugin_has_and_say_what_is_not_sent_at_the_end() {
    const KEYS: usize = 30_000;
    let folder = Folder::default();
    folder.install("window", &plugin("window"));
    let messages: String =
        (0..KEYS).map(|key| format!("{{\"s\":\"K{key:05}\",\"q\":1,\"T\":0}}\n")).collect();
    fs::write(folder.path("in.jsonl"), messages).unwrap();
    let config = |more: &str| {
        format!(
            r#"
            [[pipelines]]
            name = "p"
            source = {{ type = "file", path = "in.jsonl" }}
            sinks = [{{ type = "file", path = "out.jsonl", append = false }}]
            [[pipelines.transforms]]
            plugin = "window"
            limits = {{ memory = "6MiB" }}
            {more}
            "#
        )
    };
    let host = folder.run(&config(""));
    host.becomes("p", "finished");
    let metrics = host.metrics();
    let [unsent, forgotten] = ["windows_unsent", "keys_forgotten"]
        .map(|name| metrics.sum(&format!("tidemill_guest_{name}_total"), &[]));
    assert_eq!(metrics.count("tidemill_plugin_faults_total", &[]), 0, "{}", metrics.text);
    host.says(&format!("{unsent} open windows are not sent"));
    assert!(host.stop().status.success());
    let sent = fs::read_to_string(folder.path("out.jsonl")).unwrap();
    let sent: BTreeSet<&str> = sent.lines().collect();
    // Each key has its window, which made room for others, or was open at the end.
    assert_eq!((sent.len() as f64 + unsent, unsent > 0.0), (KEYS as f64, true));
    assert!((10_000.0..20_000.0).contains(&forgotten), "{forgotten}");
    let first = r#"{"symbol":"K00000","window_start":0,"window_end":60000,"volume":1.0,"final":false}"#;
    assert!(sent.contains(first));
    // So many keys that one can rely on are refused before there is a message.
    let mut command = folder.command(PATIENCE, &config("config = { max_keys = 30000 }"));
    let refused = Host::start(&mut command).wait();
    assert_eq!(refused.status.code(), Some(78), "{}", refused.log);
    assert!(
        refused.log.contains("`max_keys`: 30000 keys of a piece of windows each are too many"),
        "{}",
        refused.log
    );
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
