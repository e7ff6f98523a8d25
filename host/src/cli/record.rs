//! `tidemill record`: what a WebSocket server sends, written to a file with the times of receipt. Where a plugin is
//! named it runs on that, and the file has what its HTTP requests were answered too.
//!
//! Three work side by side: one reads, one runs the plugin, one writes what both have for the file.

use super::arguments::{duration, url};
use super::plugin::single::{PluginOptions, PluginRequests, outcome, parts};
use super::{Exit, block_on, complain, environment};
use crate::config::{Endpoint, FilePath, Format, Mode, Proxies, SOURCE, WebSocketSource};
use crate::connections::Connections;
use crate::message::metadata::{Metadata, now_us};
use crate::message::{Failed, Message, Payload};
use crate::pipeline;
use crate::recording::{self, Exchange};
use crate::shutdown::Shutdown;
use crate::sink::{self, Sink};
use crate::source::{self, Fill, Room, Source, SourceChunk, SourceFeed};
use crate::telemetry::Metrics;
use crate::websocket::close_code;
use std::future::poll_fn;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// What is received before it is written on.
const ROOM: Room = Room { messages: 256, bytes: 1 << 20 };
/// Batches, and exchanges, that may wait to be written.
const WAITING: usize = 16;
/// At the end, how long what was received may take to go through the plugin and to be written.
const GRACE: Duration = Duration::from_secs(10);
/// The name in the log.
const PIPELINE: &str = "record";

#[derive(Debug, clap::Args)]
pub(super) struct Record {
    /// The server, `ws://` or `wss://`.
    #[arg(value_parser = url)]
    url: String,
    /// The file to write, packed if it ends in `.gz`; what it had is replaced.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// End after so many messages.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so long a time.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
    /// Run this plugin on the messages, a `.wasm` file or the name of one that is built in, and record what its HTTP
    /// requests are answered. What it emits goes to standard output.
    #[arg(long, value_name = "PLUGIN")]
    plugin: Option<PathBuf>,
    #[command(flatten)]
    options: PluginOptions,
}

impl Record {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            match Box::pin(self.record(&shutdown)).await {
                Ok(()) => Exit::Success,
                Err((exit, error)) => {
                    complain(error);
                    exit
                }
            }
        })
    }

    async fn record(&self, shutdown: &Shutdown) -> Result<(), (Exit, String)> {
        let failed = |error: String| (Exit::Failure, error);
        if self.plugin.is_none() && !self.options.are_defaults() {
            let error = "--config, --allow and --http are for the plugin that --plugin names";
            return Err((Exit::Usage, error.to_owned()));
        }
        let metrics = Metrics::default();
        let (kept, exchanges) = mpsc::channel(WAITING);
        let (lines, waiting) = mpsc::channel(WAITING);
        let stopped = Shutdown::default();
        let path = FilePath::plain(&*self.output);
        let mut sink = sink::lines::file_of_lines(&path, metrics.sink(PIPELINE, "file"))
            .await
            .map_err(|error| failed(format!("failed to open {path}: {error}")))?;
        let working = async {
            let plugin = match &self.plugin {
                None => None,
                Some(file) => {
                    let requests = PluginRequests::Recorded(kept);
                    tokio::select! {
                        biased;
                        () = shutdown.requested() => return Ok(()),
                        ready = self.options.prepare(file, requests, &metrics) => Some(ready?),
                    }
                }
            };
            let (feed, queue) = source::queue();
            let running = async {
                let Some(plugin) = plugin else { return Ok(()) };
                let (line, _control) =
                    pipeline::build(parts(plugin, Source::Queue(queue), &metrics)?, &metrics);
                outcome(line.run(|| ()).await)
            };
            let feed = self.plugin.is_some().then_some(feed);
            let reading = async {
                let read = self.read(&metrics, lines, feed, shutdown).await;
                stopped.request();
                read
            };
            let (read, ran) = tokio::join!(reading, running);
            read.and(ran).map_err(failed)
        };
        let writing = write(&mut sink, waiting, exchanges);
        let overdue = async {
            tokio::select! {
                () = stopped.requested() => {}
                () = shutdown.requested() => {}
            }
            tokio::time::sleep(GRACE).await;
        };
        let (worked, written) = tokio::select! {
            ended = async { tokio::join!(working, writing) } => ended,
            () = overdue => {
                let error = format!("what was received last took too long, and {path} may not have it");
                return Err(failed(error));
            }
        };
        written.map_err(failed).and(worked)
    }

    /// Reads from the server, until enough was read or a signal comes.
    async fn read(
        &self,
        metrics: &Metrics,
        lines: mpsc::Sender<Vec<Message>>,
        feed: Option<SourceFeed>,
        shutdown: &Shutdown,
    ) -> Result<(), String> {
        let endpoint = Endpoint::client(&*self.url);
        let Mode::Client(mut client) = endpoint.mode.clone() else { return Err("a recorder dials".into()) };
        client.proxies = Proxies::of(&environment());
        let config = WebSocketSource::new(endpoint);
        let endpoint = Connections::default().open(metrics.endpoint(PIPELINE, SOURCE));
        let dialled = source::DialledSource::new(&config, &client, None, false, endpoint);
        let mut source = Source::Dialled(Box::new(dialled));
        let mut copy = Copy { left: self.count.unwrap_or(u64::MAX), taken: 0 };
        let enough = async {
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(self.time.unwrap_or_default()), if self.time.is_some() => {}
            }
        };
        let copied = copy.run(&mut source, &lines, feed.as_ref(), enough).await;
        drop((lines, feed));
        poll_fn(|cx| source.poll_close(cx, close_code::NORMAL)).await;
        tracing::info!(messages = copy.taken, path = %self.output.display(), "recorded");
        copied
    }
}

/// Messages on their way from a source to the file, and to a plugin.
struct Copy {
    left: u64,
    taken: u64,
}

impl Copy {
    /// Ready when as many were taken as were asked for or it is enough, or with an error.
    async fn run(
        &mut self,
        source: &mut Source,
        lines: &mpsc::Sender<Vec<Message>>,
        feed: Option<&SourceFeed>,
        enough: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let mut enough = std::pin::pin!(enough);
        while self.left > 0 {
            let (mut batch, mut failed) = (Vec::new(), Vec::new());
            let messages = usize::try_from(self.left).unwrap_or(usize::MAX).min(ROOM.messages);
            // There is a place for what is received before it is received.
            let place = tokio::select! {
                biased;
                () = &mut enough => break,
                place = lines.reserve() => place,
            };
            // Whoever writes says itself why it does not any more; so does the plugin.
            let Ok(place) = place else { break };
            let fill = tokio::select! {
                biased;
                () = &mut enough => break,
                () = lines.closed() => break,
                () = ended(feed) => break,
                fill = poll_fn(|cx| source.poll_fill(cx, &mut batch, Room { messages, ..ROOM }, &mut failed)) => fill,
            };
            for Failed { detail, .. } in failed {
                tracing::warn!(error = detail, "message left out");
            }
            self.left -= batch.len() as u64;
            self.taken += batch.len() as u64;
            place.send(batch.iter().map(line).collect());
            if let Some(feed) = feed
                && feed.push(SourceChunk { messages: batch, ..SourceChunk::default() }).await.is_err()
            {
                break;
            }
            match fill {
                Fill::More | Fill::Drained => {}
                Fill::Ended => break,
                Fill::Failed(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Resolves when the plugin takes no more, if there is one.
async fn ended(feed: Option<&SourceFeed>) {
    match feed {
        Some(feed) => feed.closed().await,
        None => std::future::pending().await,
    }
}

/// Writes lines and exchanges until there is nobody left who has any.
async fn write(
    sink: &mut Sink,
    mut lines: mpsc::Receiver<Vec<Message>>,
    mut exchanges: mpsc::Receiver<Exchange>,
) -> Result<(), String> {
    let mut failed = Vec::new();
    loop {
        let next = tokio::select! {
            biased;
            Some(lines) = lines.recv() => lines,
            Some(exchange) = exchanges.recv() => exchange_line(&exchange).into_iter().collect(),
            else => break,
        };
        for line in next {
            poll_fn(|cx| {
                sink.poll_drive(cx, &mut failed);
                sink.poll_ready(cx)
            })
            .await;
            sink.push(line, &mut failed);
        }
        poll_fn(|cx| sink.poll_flush(cx, &mut failed)).await;
        first(std::mem::take(&mut failed))?;
    }
    poll_fn(|cx| sink.poll_close(cx, close_code::NORMAL, &mut failed)).await;
    first(failed)
}

/// The line of a message.
fn line(message: &Message) -> Message {
    let mut line = Vec::new();
    let time_ns = message.metadata.received_us().saturating_mul(1000);
    recording::write(&message.payload, time_ns, Format::Recording, &mut line);
    written(line)
}

/// The line of an exchange, if it is short enough to be read again.
fn exchange_line(exchange: &Exchange) -> Option<Message> {
    let mut line = Vec::new();
    if !recording::write_exchange(exchange, now_us().saturating_mul(1000), &mut line) {
        tracing::warn!(url = exchange.request.url, "an answer is too long for a recording, and is left out");
        return None;
    }
    Some(written(line))
}

/// A line as the sink takes it: without its end.
fn written(mut line: Vec<u8>) -> Message {
    line.pop();
    Message { payload: Payload::checked_text(line.into()), metadata: Metadata::without_origin(0) }
}

/// The first failure as an error.
fn first(failed: Vec<Failed>) -> Result<(), String> {
    failed.into_iter().next().map_or(Ok(()), |failed| Err(failed.detail))
}
