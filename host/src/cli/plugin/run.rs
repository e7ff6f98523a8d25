//! `tidemill plugin run`: one plugin between standard input and output, as in a pipeline.

use super::diff::diff;
use super::single::{PluginOptions, PluginRequests, ReadyPlugin, outcome, parts};
use crate::cli::{Exit, block_on, complain};
use crate::config::Format;
use crate::http_client::RecordingPlace;
use crate::message::metadata::{Metadata, Origin, SOURCE, now_us};
use crate::message::{Message, Payload};
use crate::pipeline::{self, Control};
use crate::shutdown::Shutdown;
use crate::source::{self, Source, SourceChunk};
use crate::telemetry::Metrics;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// At a signal, how long what is in flight may take to be written.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PluginRun {
    /// The plugin: a `.wasm` file, the folder of one, or the name of one that is built in.
    #[arg(value_name = "PLUGIN")]
    file: PathBuf,
    #[command(flatten)]
    options: PluginOptions,
    /// What the lines of standard input are: messages, or those of a recording with their times. The plugin is then
    /// told these times, draws the same random numbers each time, and its HTTP requests are answered from the
    /// recording alone.
    #[arg(long, value_enum, default_value = "jsonl", value_name = "FORMAT")]
    format: LineFormat,
    /// A message, in the place of standard input; can be given again.
    #[arg(long, value_name = "TEXT", conflicts_with = "format", allow_hyphen_values = true)]
    text: Vec<String>,
    /// Run this plugin on the same messages, a `.wasm` file, a folder or the name of one that is built in, and show where
    /// what the two make of them differs, in the place of what comes out. Ends with 1 if anything does.
    #[arg(long, value_name = "OTHER")]
    diff: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LineFormat {
    Jsonl,
    Recording,
}

impl PluginRun {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            match self.run(&shutdown).await {
                Ok(exit) => exit,
                Err((exit, error)) => {
                    complain(error);
                    exit
                }
            }
        })
    }

    async fn run(&self, shutdown: &Shutdown) -> Result<Exit, (Exit, String)> {
        let failed = |error: String| (Exit::Failure, error);
        let metrics = Metrics::default();
        let (format, requests) = match self.format {
            LineFormat::Jsonl => (Format::Jsonl, PluginRequests::Sent),
            LineFormat::Recording => (Format::Recording, PluginRequests::Played(RecordingPlace::Stdin)),
        };
        let plugin = tokio::select! {
            biased;
            // Nothing is in flight yet.
            () = shutdown.requested() => return Ok(Exit::Interrupted),
            prepared = self.options.prepare(&self.file, requests, &metrics) => prepared?,
        };
        let source = if self.text.is_empty() {
            let opened = source::lines::stdin(format);
            opened.map_err(|error| failed(format!("failed to open the standard streams: {error}")))?
        } else {
            texts(&self.text).await
        };
        let Some(other) = &self.diff else {
            return run(plugin, source, &metrics, shutdown).await.map(|()| Exit::Success).map_err(failed);
        };
        tokio::select! {
            biased;
            // Nothing goes out that could be cut short.
            () = shutdown.requested() => Ok(Exit::Interrupted),
            compared = diff((self.file.as_path(), plugin), other, source) => compared,
        }
    }
}

async fn run(
    plugin: ReadyPlugin,
    source: Source,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(), String> {
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

/// A source of these messages.
async fn texts(texts: &[String]) -> Source {
    let origin = Origin::new([(SOURCE, "text")]);
    let message = |text: &String| Message {
        payload: Payload::text(text),
        metadata: Metadata::new(origin.clone(), now_us()),
    };
    let messages = texts.iter().map(message).collect();
    let (feed, queue) = source::queue();
    let fed = feed.push(SourceChunk { messages, ..SourceChunk::default() }).await;
    fed.expect("nobody has closed the queue");
    Source::Queue(queue)
}
