//! What the places that use a plugin have in common: its name, what an instance may use, and what goes with HTTP.

use super::Redacted;
use super::form::{Bytes, GIB, KIB, Memory, SomeDuration};
use super::report::{Report, Span};
use std::time::Duration;

/// What 32-bit WebAssembly can address.
const MOST_MEMORY: u64 = 4 * GIB;
/// One page of WebAssembly memory.
const LEAST_MEMORY: u64 = 64 * KIB;

table! {
    /// The limits of an instance of a plugin.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Limits / LimitsAt {
        /// An instance may have at most so much memory.
        memory_bytes: usize = key("memory", Memory<LEAST_MEMORY, MOST_MEMORY>, default(64 << 20));
        /// The plugin itself may run for at most so long in one call.
        deadline: Duration = key(SomeDuration, default(Duration::from_millis(250)));
        /// One call may return at most so many bytes.
        output_bytes: usize = key("output", Bytes, default(16 << 20));
    }
}

with_defaults!(Limits);

/// Warns of an `http` that nothing is granted beside.
pub(super) fn warn_of_http(report: &mut Report<'_>, http: Option<&Span>, is_granted: bool) {
    if let (Some(http), false) = (http, is_granted) {
        let hint = "`allow = [\"https://api.example.com\"]` grants them";
        report.warning(http, "`http` is of no use where no HTTP requests are granted", hint);
    }
}

/// Whether a file of the plugin folder can have the name.
pub(super) fn check_plugin_name(report: &mut Report<'_>, plugin: &Redacted, at: &Span) {
    if let Some(stem) = plugin.shown().strip_suffix(".wasm") {
        report.error_with_hint(
            at,
            "`plugin` is the name of the plugin, not of its file",
            format!("write \"{stem}\", which is {stem}.wasm in the plugin folder"),
        );
    } else if plugin.expose().is_empty()
        || plugin.expose().starts_with('.')
        || plugin.expose().contains(['/', '\\', '\0'])
    {
        report.error(at, format!("\"{plugin}\" is not the name of a file in the plugin folder"));
    }
}
