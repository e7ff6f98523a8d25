//! The SDK of plugins in JavaScript and TypeScript: its own tests, its types, and what a mistake in a plugin ends in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use tidemill_tests::{Tool, guest, load, root, setup, texts, tool};

#[test]
fn the_sdk_passes_its_own_tests() {
    if tool(Tool::Node).is_some() {
        succeeds(Command::new("node").args(["--test", "test/"]));
    }
}

#[test]
fn the_types_of_the_sdk_are_what_they_promise() {
    if let Some(packages) = tool(Tool::Node) {
        succeeds(&mut Command::new(packages.join("node_modules/.bin/tsc")));
    }
}

#[tokio::test]
async fn a_mistake_in_a_plugin_names_its_file_and_line() {
    let Some(file) = guest("contract-javascript") else { return };
    let mut instance = load(&file).instantiate(&setup("{}")).await.unwrap();
    let fault = instance.process(&texts(["a", "throw:a mistake"])).await.unwrap_err();
    let path = "tests/guests/contract/javascript/commands.js";
    let source = std::fs::read_to_string(root().join(path)).unwrap();
    let line = source.lines().position(|line| line.contains("throw new TypeError")).unwrap() + 1;
    assert!(
        fault.detail.contains(&format!("TypeError: a mistake (at obey {path}:{line}, ")),
        "{}",
        fault.detail
    );
}

/// Runs a command in the folder of the SDK.
fn succeeds(command: &mut Command) {
    let output = command.current_dir(root().join("plugin-sdk/javascript")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
