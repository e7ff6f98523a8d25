//! Where the log goes: standard error, as text or JSON, as much of it as was asked for.

use std::io::{self, IsTerminal as _};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The environment variable that says what is logged, target by target.
const FILTER: &str = "RUST_LOG";

/// Starts the log of the process, once; a second call changes nothing. What is logged, the environment
/// variable `RUST_LOG` says, as in `info,tidemill::pipeline=debug,guest=trace`; without it, what matters,
/// and with `is_verbose` more.
///
/// # Errors
/// If `RUST_LOG` is set and cannot be read: what is wrong with it.
pub fn init(format: LogFormat, is_verbose: bool) -> Result<(), String> {
    let default = if is_verbose { "info,tidemill=debug,guest=debug" } else { "info" };
    let wanted = std::env::var(FILTER).ok().filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(default))
        .map_err(|error| format!("failed to read {FILTER}: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A log that was started before is whoever's started it.
    let _ = match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => log.json().with_ansi(false).finish().try_init(),
    };
    Ok(())
}
