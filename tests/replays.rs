//! Recordings that are played again: plugins are told the same of time and chance, and are answered what they were
//! answered, without a network.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output};
use tidemill_tests::guest;
use tidemill_tests::host::{Folder, binary};

/// When the first message of a recording was received: years ago.
const FIRST_NS: u64 = 1_723_100_000_000_000_000;

fn rust_guest(name: &str) -> PathBuf {
    guest(name).expect("guests in Rust are built")
}

/// `tidemill plugin run` in a folder, on a file of it.
fn plugin_run(folder: &Folder, plugin: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(binary());
    command.args(["plugin", "run"]).arg(rust_guest(plugin)).args(args).current_dir(folder.path(""));
    succeeded(&command.stdin(File::open(folder.path(input)).unwrap()).output().unwrap())
}

fn succeeded(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a pipeline from a file through a plugin to another file gives.
fn played(folder: &Folder, input: &str, format: &str, transform: &str) -> String {
    let _ = fs::remove_file(folder.path("out.jsonl"));
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "file", path = "{input}", format = "{format}" }}
        transforms = [{{ {transform} }}]
        sinks = [{{ type = "file", path = "out.jsonl" }}]
        "#
    ));
    host.wait_until("it has ended", |now| {
        now.count("tidemill_pipelines", &["pipeline=\"p\"", "state=\"finished\""]) == 1
    });
    assert!(host.stop().status.success());
    fs::read_to_string(folder.path("out.jsonl")).unwrap()
}

#[test]
fn what_wasi_says_of_time_and_chance_is_the_same_in_each_replay_and_nobody_waits() {
    let folder = Folder::default();
    folder.install("sleeper", &rust_guest("sleeper"));
    // More than is read at once.
    let long = "x".repeat(300);
    let line = |n: u64| format!("{} {long}\n", FIRST_NS + n * 1_000_000);
    fs::write(folder.path("in.recording"), (0..1000).map(line).collect::<String>()).unwrap();
    let transform = "plugin = \"sleeper\", config = { where = \"nowhere\" }, max_batch = 7";
    let first = played(&folder, "in.recording", "recording", transform);
    assert_eq!(first, played(&folder, "in.recording", "recording", transform));
    let lines: std::collections::BTreeSet<&str> = first.lines().collect();
    assert_eq!(lines.len(), 1000, "chance is still chance, and time goes on");
    let told = first.lines().next().unwrap();
    // Before the first message there is no time; then it is that of the last message of the batch.
    assert!(told.starts_with("0.000000000 ") && told.contains(" 1723100000.006000000 "), "{told}");

    let args = ["--config", r#"{"where":"nowhere"}"#];
    let replay = |format: &[&str]| plugin_run(&folder, "sleeper", &[&args, format].concat(), "in.recording");
    let first = replay(&["--format", "recording"]);
    assert_eq!(first, replay(&["--format", "recording"]));
    // Who is not in a replay waits for its time, and has it by the clocks of the machine.
    fs::write(folder.path("in.recording"), "a\nb\n").unwrap();
    assert_ne!(replay(&[]), replay(&[]));
}
