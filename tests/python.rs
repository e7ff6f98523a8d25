//! The SDK of plugins in Python: its own tests, its types, and what a mistake in a plugin ends in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use tidemill_tests::{Tool, guest, load, root, setup, texts, tool};

#[test]
fn the_sdk_passes_its_own_tests() {
    succeeds(&["-m", "unittest"]);
}

#[test]
fn the_types_of_the_sdk_are_right() {
    let cache = std::env::temp_dir().join("tidemill-mypy");
    succeeds(&["-m", "mypy", "--cache-dir", cache.to_str().unwrap()]);
}

#[tokio::test]
async fn a_mistake_in_a_plugin_names_its_file_and_line() {
    let Some(file) = guest("contract-python") else { return };
    let mut instance = load(&file).instantiate(&setup("{}")).await.unwrap();
    let fault = instance.process(&texts(["a", "throw:a mistake"])).await.unwrap_err();
    let source = std::fs::read_to_string(root().join("tests/guests/contract/python/commands.py")).unwrap();
    let line = source.lines().position(|line| line.contains("raise RuntimeError")).unwrap() + 1;
    assert!(
        fault.detail.contains(&format!("RuntimeError: a mistake (at obey commands.py:{line}, ")),
        "{}",
        fault.detail
    );
}

/// Runs Python in the folder of the SDK, where it is installed.
fn succeeds(arguments: &[&str]) {
    let Some(programs) = tool(Tool::Python) else { return };
    let mut python = Command::new(programs.join("python"));
    python.current_dir(root().join("plugin-sdk/python")).args(arguments);
    let output = python.env("PYTHONPATH", "src").env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
