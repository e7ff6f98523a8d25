//! `cargo xtask demo`: the recorded exchange, the host on it, live VWAP.

use crate::builtin::RECORDING;
use crate::plugins;
use crate::tools::{Result, cargo, root, run, say};

/// Builds the host and the plugins, and runs `tidemill demo` with these arguments.
///
/// # Errors
/// Something does not build, or the demo fails.
pub(crate) fn run_demo(arguments: &[String]) -> Result {
    let plugins = root().join("target/plugins");
    plugins::build(&plugins)?;
    say("building the host; the first time this compiles wasmtime, which takes some minutes");
    run(cargo().current_dir(root()).args(["build", "--release", "--package", "tidemill"]))?;
    let mut demo = cargo();
    demo.current_dir(root()).args(["run", "--quiet", "--release", "--package", "tidemill", "--", "demo"]);
    // What is typed comes last, and counts.
    demo.arg("--recording").arg(root().join(RECORDING)).arg("--plugins").arg(plugins);
    run(demo.args(arguments))
}
