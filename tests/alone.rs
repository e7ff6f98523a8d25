//! `tidemill plugin run` and `tidemill plugin bench`: a plugin without a host, on messages of the command line, beside
//! another, and against the clock.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tidemill_tests::commands::{Told, command, said, tidemill};
use tidemill_tests::host::Folder;
use tidemill_tests::{guest, plugin};

fn rust_guest(name: &str) -> PathBuf {
    guest(name).expect("guests in Rust are built")
}

fn run(folder: &Folder) -> Command {
    let mut command = command(folder, &["plugin", "run"]);
    command.stdin(Stdio::null());
    command
}

/// `plugin run --diff` of the two versions of a guest, on these messages.
fn diff_of_trials(folder: &Folder, versions: [&str; 2], texts: &[&str]) -> Told {
    for version in versions {
        fs::copy(rust_guest(&format!("trial-{version}")), folder.path(&format!("{version}.wasm"))).unwrap();
    }
    let mut command = run(folder);
    command.arg(format!("{}.wasm", versions[0])).arg("--diff").arg(format!("{}.wasm", versions[1]));
    for text in texts {
        command.args(["--text", text]);
    }
    said(&mut command)
}

#[test]
fn texts_of_the_command_line_are_messages_in_the_place_of_standard_input() {
    let folder = Folder::default();
    fs::write(folder.path("in.jsonl"), "from standard input\n").unwrap();
    let mut command = run(&folder);
    command.arg(plugin("forward")).args(["--text", r#"{"a":1}"#, "--text", "-1", "--text", "ż"]);
    command.stdin(File::open(folder.path("in.jsonl")).unwrap());
    assert_eq!(said(&mut command), (Some(0), "{\"a\":1}\n-1\nż\n".to_owned(), String::new()));
}

#[test]
fn where_two_versions_differ_is_shown_message_by_message_and_what_is_the_same_is_counted() {
    let folder = Folder::default();
    let texts = [
        r#"{"k":"a"}"#,
        r#"{"do":"new-say"}"#,
        r#"{"do":"new-drop"}"#,
        r#"{"do":"new-side"}"#,
        r#"{"do":"side"}"#,
        r#"{"do":"reject"}"#,
        r#"{"do":"new-reject"}"#,
        r#"{"do":"new-trap"}"#,
        r#"{"k":"a"}"#,
        r#"{"do":"wait"}"#,
        r#"{"do":"tell"}"#,
        r#"{"do":"new-wait"}"#,
        r#"{"do":"spin"}"#,
    ];
    let (exit, shown, _) = diff_of_trials(&folder, ["v1", "v2"], &texts);
    let lines: Vec<&str> = shown.lines().collect();
    // Where the second has trapped, its own words follow.
    let trapped = lines.iter().position(|line| line.starts_with("+ failed: trap: ")).unwrap();
    assert!(lines[trapped].contains("as the message says"), "{shown}");
    let expected = [
        "--- v1.wasm",
        "+++ v2.wasm",
        r#"message 2: {"do":"new-say"}"#,
        r#"- {"do":"new-say"}"#,
        "+ as nobody else",
        r#"message 3: {"do":"new-drop"}"#,
        r#"- {"do":"new-drop"}"#,
        "+ filtered",
        r#"message 4: {"do":"new-side"}"#,
        r#"- {"do":"new-side"}"#,
        r#"+ to "side" {"do":"new-side"}"#,
        r#"message 7: {"do":"new-reject"}"#,
        r#"- {"do":"new-reject"}"#,
        "+ rejected: as the message says",
        r#"message 8: {"do":"new-trap"}"#,
        r#"- {"do":"new-trap"}"#,
        lines[trapped],
        r#"message 12: {"do":"new-wait"}"#,
        r#"- {"do":"new-wait"}"#,
        "+ put off: not yet",
        "13 messages: 7 the same, 6 different",
    ];
    assert_eq!((exit, &lines[..]), (Some(1), &expected[..]));

    let (exit, shown, _) = diff_of_trials(&folder, ["v1", "v1"], &texts);
    assert_eq!(
        (exit, &*shown),
        (Some(0), "--- v1.wasm\n+++ v1.wasm\n13 messages: 13 the same, 0 different\n")
    );
}

#[test]
fn timers_and_the_end_are_compared_too() {
    let folder = Folder::default();
    let first_ns = 1_723_100_000_000_000_000u64;
    let line = |ms: u64| format!("{} {{\"do\":\"drop\"}}\n", first_ns + ms * 1_000_000);
    fs::write(folder.path("in.recording"), [0, 40, 120].map(line).concat()).unwrap();
    let mut command = run(&folder);
    command.arg(rust_guest("trial-v1")).arg("--diff").arg(rust_guest("trial-v2"));
    command.args(["--format", "recording", "--config", r#"{"tick_ms":50,"new_tick":"!"}"#]);
    command.stdin(File::open(folder.path("in.recording")).unwrap());
    let (exit, shown, _) = said(&mut command);
    let ends = "timer at 1723100000.100000\n- tick\n+ tick!\n3 messages: 3 the same, 0 different, and 1 beside messages\n";
    assert!(exit == Some(1) && shown.ends_with(ends), "{shown}");

    let mut command = run(&folder);
    command.arg(rust_guest("contract-rust")).arg("--diff").arg(plugin("forward")).args(["--text", "a"]);
    let (exit, shown, _) = said(&mut command);
    let ends = "end\n- to \"side\" finish:1\n+ nothing\n1 messages: 1 the same, 0 different, and 1 beside messages\n";
    assert!(exit == Some(1) && shown.ends_with(ends), "{shown}");
}

#[test]
fn another_that_is_none_or_does_not_start_is_told_by_its_name() {
    let folder = Folder::default();
    let of = |other: &str| {
        let mut command = run(&folder);
        command.arg(rust_guest("trial-v1")).args(["--text", "a", "--config", r#"{"tick_ms":1}"#]);
        said(command.args(["--diff", other]))
    };
    let (exit, shown, error) = of("none.wasm");
    assert!(exit == Some(1) && shown.is_empty() && error.contains("failed to read none.wasm"), "{error}");
    let (exit, _, error) = of(plugin("forward").to_str().unwrap());
    let why = "error: failed to start forward: init refused its configuration: unknown key `tick_ms`";
    assert!(exit == Some(78) && error.starts_with(why), "{error}");
}

fn bench(folder: &Folder, args: &[&str]) -> Told {
    tidemill(folder, &[&["plugin", "bench"], args].concat())
}

#[test]
fn a_bench_measures_every_message_of_its_input_in_every_size_of_batches() {
    let folder = Folder::default();
    // Of each three messages one is forwarded, one emits and is not, one is rejected.
    let texts = [r#"{"do":"pass"}"#, r#"{"do":"say"}"#, r#"{"do":"reject"}"#];
    fs::write(folder.path("in.jsonl"), texts.map(|text| format!("{text}\n")).concat()).unwrap();
    let trial = rust_guest("trial-v1");
    let (exit, answer, error) = bench(&folder, &[trial.to_str().unwrap(), "--input", "in.jsonl", "--json"]);
    assert_eq!(exit, Some(0), "{error}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["input"]["messages"], &answer["input"]["cut"]), (&3.into(), &false.into()));
    let plugins = answer["plugins"].as_array().unwrap();
    // A build that has no plugins says so.
    assert_eq!(plugins.len(), 1 + usize::from(!error.contains("there is no row `forward`")), "{error}");
    for measured in plugins {
        let number = |pointer: &str| measured.pointer(pointer).and_then(Value::as_f64).unwrap();
        for positive in
            ["/ns_per_message/1", "/ns_per_message/16", "/memory_bytes", "/compile_ms", "/instantiate_ms"]
        {
            assert!(number(positive) > 0.0, "{positive}: {measured}");
        }
        let (ns, a_second) = (number("/ns_per_message/256"), number("/messages_per_second"));
        assert!((a_second * ns / 1e9 - 1.0).abs() < 0.01, "{measured}");
        // A call of its own costs each message more than its share of one.
        assert!(number("/ns_per_message/1") > ns, "{measured}");
    }
    let outcome = &plugins[0]["outcome"];
    let count = |name: &str| outcome[name].as_u64().unwrap();
    // Three messages are repeated until there are enough.
    assert!(count("messages") >= 4096, "{outcome}");
    let third = count("messages") / 3;
    for name in ["forwarded", "emitted", "rejected"] {
        assert!(count(name).abs_diff(third) <= 1, "{outcome}");
    }

    let (exit, table, error) = bench(&folder, &["forward", "--input", "in.jsonl"]);
    let has_plugins = !error.contains("no built-in plugins");
    assert_eq!(exit, Some(i32::from(!has_plugins)), "{error}");
    if has_plugins {
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows[0].starts_with("plugin ") && rows[0].contains("messages/s"), "{table}");
        assert!(rows[1].starts_with("forward ") && rows[2].starts_with("forward (built in) "), "{table}");
        assert!(
            rows[4].starts_with("3 messages of in.jsonl; of ") && rows[4].contains("rejected 0"),
            "{table}"
        );
    }
}

#[test]
fn a_bench_plays_recordings_and_ends_where_the_plugin_fails() {
    let folder = Folder::default();
    let trial = rust_guest("trial-v1");
    let trial = trial.to_str().unwrap();
    let line = |n: u64| {
        format!("{} {}\n", n * 1_000_000, if n == 300 { r#"{"do":"trap"}"# } else { r#"{"do":"drop"}"# })
    };
    fs::write(folder.path("in.recording"), (0..600).map(line).collect::<String>()).unwrap();
    let (exit, shown, error) = bench(&folder, &[trial, "--input", "in.recording"]);
    assert!(exit == Some(1) && shown.is_empty(), "{shown}");
    let wanted = "trial-v1 failed on one of the messages 257 to 512: ";
    assert!(error.contains(wanted) && error.contains("as the message says"), "{error}");

    fs::write(folder.path("empty.jsonl"), "").unwrap();
    let (exit, _, error) = bench(&folder, &[trial, "--input", "empty.jsonl"]);
    assert!(exit == Some(1) && error.contains("there is no message in empty.jsonl"), "{error}");
    let (exit, _, error) = bench(&folder, &[trial, "--input", "none.jsonl"]);
    assert!(exit == Some(1) && error.contains("failed to read none.jsonl: No such file"), "{error}");
}
