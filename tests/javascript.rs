//! The SDK of plugins in JavaScript and TypeScript: its own tests, its types, and what a mistake in a plugin ends in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use tidemill::plugin::Instance;
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

/// The text that an order makes the guest emit.
async fn answer(instance: &mut Instance, order: &str) -> String {
    let outcome = instance.process(&texts([order])).await.unwrap();
    outcome.emissions.payload(0).as_text().unwrap().to_owned()
}

#[tokio::test]
async fn the_time_and_chance_of_the_language_are_those_of_the_host() {
    let Some(file) = guest("endings-javascript") else { return };
    let plugin = load(&file);
    let mut instance = plugin.instantiate(&setup("{}")).await.unwrap();
    instance.set_time(Some(1_723_075_200_000_999));
    assert_eq!(answer(&mut instance, "now").await, r#"[1723075200000,"2024-08-08T00:00:00.000Z",5]"#);
    assert_eq!(answer(&mut instance, "print").await, "printed");
    let mut other = plugin.instantiate(&setup("{}")).await.unwrap();
    assert_ne!(answer(&mut instance, "random").await, answer(&mut other, "random").await);
}

#[tokio::test]
async fn a_callback_that_nobody_waits_for_is_a_fault_that_says_so() {
    let Some(file) = guest("endings-javascript") else { return };
    let mut instance = load(&file).instantiate(&setup("{}")).await.unwrap();
    let fault = instance.process(&texts(["async"])).await.unwrap_err();
    assert!(fault.detail.contains("the function is async, and nothing waits for it"), "{}", fault.detail);
}

/// Runs a command in the folder of the SDK.
fn succeeds(command: &mut Command) {
    let output = command.current_dir(root().join("plugin-sdk/javascript")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
