//! `cargo xtask test`: everything, on a machine that has only Rust and the base image.
//!
//! Guests and plugins are built first, so that the tests find them; tools of other languages go into
//! `target/tools`. Then one `cargo test` runs the whole workspace and prints its own summary, the
//! dependencies are checked, and the Autobahn suite runs where there is a Python 2.7.

use crate::builtin;
use crate::conformance;
use crate::deny;
use crate::guests::{self, Language};
use crate::tools::{self, Fetch, Result, Tools, cargo, root, run, say};

/// Builds what the tests need, and runs them.
///
/// # Errors
/// Something does not build, or a test fails.
pub(crate) fn run_tests(arguments: &[String]) -> Result {
    let builtin = builtin::stage()?;
    say("building the guests of the tests");
    guests::build(&root().join("target/guests"), &Language::ALL, Fetch::Missing)?;
    for (tested, tools) in [
        ("browsers", tools::browser()?),
        ("the SDK in JavaScript", tools::node()?),
        ("the SDK in Python", tools::python()?),
    ] {
        if let Tools::Missing(why) = tools {
            say(&format!("the tests of {tested} are skipped: {why}"));
        }
    }
    say("running the tests");
    let mut cargo = cargo();
    cargo.current_dir(root()).env("TIDEMILL_TESTS_PREPARED", "1").env(builtin::VARIABLE, builtin);
    run(cargo.args(["test", "--workspace"]).args(arguments))?;
    // Arguments choose among the tests.
    if !arguments.is_empty() {
        return Ok(());
    }
    deny::check()?;
    conformance::run_where_possible()
}
