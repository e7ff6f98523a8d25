//! Where the log goes: standard error, as text or JSON, as much of it as was asked for.
//!
//! Whatever is logged, a line of the log is one line: fields may quote what others wrote.

use super::log_stream::LogStream;
use crate::foreign_text;
use std::fmt::{self, Debug};
use std::io::{self, IsTerminal as _};
use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people, in colour on a terminal.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The environment variable that says what is logged, target by target.
const FILTER: &str = "RUST_LOG";
/// How a terminal begins and ends the name of a field.
const NAME_STYLE: (&str, &str) = ("\x1b[3m", "\x1b[0m");

/// Starts the log of the process, once; a second call changes nothing. What is logged, the environment
/// variable `RUST_LOG` says, as in `info,tidemill::pipeline=debug,guest=trace`; without it, what matters,
/// and with `is_verbose` more.
///
/// # Errors
/// If `RUST_LOG` is set and cannot be read, or nothing can write the log: what is wrong.
pub fn init(format: LogFormat, is_verbose: bool) -> Result<(), String> {
    let default = if is_verbose { "info,tidemill=debug,guest=debug" } else { "info" };
    let wanted = std::env::var(FILTER).ok().filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(default))
        .map_err(|error| format!("failed to read {FILTER}: {error}"))?;
    let stream = LogStream::start().map_err(|error| format!("failed to start the log: {error}"))?;
    // Where nobody reads the log, that cannot be told anyone either: saying so on standard error panics.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || stream)
        .log_internal_errors(false);
    // A log that was started before is whoever's started it.
    let _ = match format {
        LogFormat::Text => {
            log.fmt_fields(PlainFields).with_ansi(io::stderr().is_terminal()).finish().try_init()
        }
        LogFormat::Json => log.json().with_ansi(false).finish().try_init(),
    };
    Ok(())
}

/// Writes fields of the text log so that nothing in them can end the line or be obeyed by a terminal.
struct PlainFields;

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = LogLine { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct LogLine<'w> {
    writer: Writer<'w>,
    is_empty: bool,
    result: fmt::Result,
}

impl LogLine<'_> {
    fn write(&mut self, field: &Field, value: &dyn Debug) -> fmt::Result {
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        if field.name() != "message" {
            let (begin, end) = if self.writer.has_ansi_escapes() { NAME_STYLE } else { ("", "") };
            write!(self.writer, "{begin}{}{end}=", field.name())?;
        }
        self.writer.write_str(&foreign_text::shown(&format!("{value:?}")))
    }
}

impl Visit for LogLine<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.result.is_ok() {
            self.result = self.write(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nothing panics while it is held").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_field_can_forge_a_line_or_draw_on_a_terminal() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().fmt_fields(PlainFields).with_ansi(false);
        let log = log.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let foreign = "bad\n2030-01-01 ERROR tidemill: forged \x1b[31m";
            let _span = tracing::info_span!("peer", name = %foreign).entered();
            tracing::warn!(error = %foreign, quoted = foreign, list = ?[foreign], "closed: {foreign}");
        });
        let written = lines.0.lock().expect("nothing panics while it is held").clone();
        let written = String::from_utf8(written).expect("a log is text");
        assert_eq!(written.matches('\n').count(), 1, "{written}");
        assert!(written.ends_with('\n') && !written.contains('\x1b'), "{written}");
        assert!(written.contains(r"closed: bad\n2030-01-01 ERROR tidemill: forged \u{1b}[31m"), "{written}");
    }
}
