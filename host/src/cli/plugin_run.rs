//! `tidemill plugin run`: one plugin between standard input and output, as in a pipeline.

use super::single_plugin::{PluginOptions, PluginRequests, ReadyPlugin, outcome, parts};
use super::{Exit, block_on, complain};
use crate::config::Format;
use crate::http_client::RecordingPlace;
use crate::pipeline::{self, Control};
use crate::shutdown::Shutdown;
use crate::source;
use crate::telemetry::Metrics;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// At a signal, how long what is in flight may take to be written.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct PluginRun {
    /// The plugin: a `.wasm` file, or the name of one that is built in.
    file: PathBuf,
    #[command(flatten)]
    options: PluginOptions,
    /// What the lines of standard input are: messages, or those of a recording with their times. The plugin is then
    /// told these times, draws the same random numbers each time, and its HTTP requests are answered from the
    /// recording alone.
    #[arg(long, value_enum, default_value = "jsonl", value_name = "FORMAT")]
    format: LineFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LineFormat {
    Jsonl,
    Recording,
}

impl PluginRun {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            let metrics = Metrics::default();
            let (format, requests) = match self.format {
                LineFormat::Jsonl => (Format::Jsonl, PluginRequests::Sent),
                LineFormat::Recording => (Format::Recording, PluginRequests::Played(RecordingPlace::Stdin)),
            };
            let prepared = tokio::select! {
                biased;
                // Nothing is in flight yet.
                () = shutdown.requested() => return Exit::Interrupted,
                prepared = self.options.prepare(&self.file, requests, &metrics) => prepared,
            };
            let plugin = match prepared {
                Ok(ready) => ready,
                Err((exit, error)) => {
                    complain(error);
                    return exit;
                }
            };
            match run(plugin, format, &metrics, &shutdown).await {
                Ok(()) => Exit::Success,
                Err(error) => {
                    complain(error);
                    Exit::Failure
                }
            }
        })
    }
}

async fn run(
    plugin: ReadyPlugin,
    format: Format,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(), String> {
    let source = source::lines::stdin(format)
        .map_err(|error| format!("failed to open the standard streams: {error}"))?;
    let (line, control) = pipeline::build(parts(plugin, source, metrics)?, metrics);
    let mut running = std::pin::pin!(line.run(|| ()));
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = shutdown.requested() => {
            // A line that has ended needs no telling.
            let _ = control.send(Control::Stop { deadline: Instant::now() + GRACE }).await;
            running.await
        }
    };
    outcome(ended)
}
