//! The SDK of plugins in C: its own tests, compiled by the C compiler of this machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use tidemill_tests::{is_to_skip, root};

#[test]
fn the_sdk_passes_its_own_tests() {
    if Command::new("cc").arg("--version").output().is_err() {
        is_to_skip("there is no cc");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (sdk, tests) = (root().join("plugin-sdk/c"), folder.path().join("tests"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I."]).arg("tests/tests.c").arg("-o").arg(&tests);
    succeeds(cc.current_dir(&sdk));
    succeeds(Command::new(&tests).arg(&sdk));
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
