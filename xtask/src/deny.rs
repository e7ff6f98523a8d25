//! `cargo xtask deny`: whether all that is depended on has a licence, a source and a version that `deny.toml`
//! allows.
//!
//! Known vulnerabilities are left to `cargo deny check advisories`, which asks a server of its own and may say
//! something else tomorrow of the same commit.

use crate::tools::{self, Result, Tools, root, run, say};
use std::env;
use std::process::Command;

/// Checks the dependencies, where the program for it can be had.
///
/// # Errors
/// One is not allowed, or, with `CI=true`, the program cannot be had.
pub(crate) fn check() -> Result {
    let folder = match tools::deny()? {
        Tools::In(folder) => folder,
        Tools::Missing(why) if env::var_os("CI").is_some_and(|ci| ci == "true") => return Err(why.into()),
        Tools::Missing(why) => {
            say(&format!("skipped: the check of dependencies: {why}"));
            return Ok(());
        }
    };
    say("checking the dependencies");
    let mut deny = Command::new(folder.join("cargo-deny"));
    deny.current_dir(root()).args(["--log-level", "error", "check", "--hide-inclusion-graph"]);
    run(deny.args(["licenses", "bans", "sources"]))
}
