//! `cargo xtask demo`: the recorded exchange, the host on it, live VWAP.

use crate::plugins;
use crate::tools::{Result, cargo, root, run, say};

/// Builds the host and the plugins, and runs `tidemill demo` with these arguments.
///
/// # Errors
/// Something does not build, or the demo fails.
pub(crate) fn run_demo(arguments: &[String]) -> Result {
    plugins::build(&root().join("target/plugins"))?;
    say("building the host; the first time this compiles wasmtime, which takes some minutes");
    run(cargo().current_dir(root()).args(["build", "--release", "--package", "tidemill"]))?;
    let mut demo = cargo();
    // In the checkout's root the demo finds the recording and the plugins.
    demo.current_dir(root()).args(["run", "--quiet", "--release", "--package", "tidemill", "--", "demo"]);
    run(demo.args(arguments))
}
