//! `tidemill record`: what a WebSocket server sends, written to a file with the times of receipt.

use super::{Exit, block_on, complain, duration, environment, url};
use crate::config::{Endpoint, FilePath, Format, Mode, Proxies, SOURCE, WebSocketSource};
use crate::connections::Connections;
use crate::message::Failed;
use crate::shutdown::Shutdown;
use crate::sink::{self, Sink};
use crate::source::{self, Fill, Room, Source};
use crate::telemetry::Metrics;
use crate::websocket::close_code;
use std::future::poll_fn;
use std::path::PathBuf;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// What is received before it is written on.
const ROOM: Room = Room { messages: 256, bytes: 1 << 20 };
/// At the end, how long what was received may take to be written.
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
}

impl Record {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            match self.record(&shutdown).await {
                Ok(()) => Exit::Success,
                Err(error) => {
                    complain(error);
                    Exit::Failure
                }
            }
        })
    }

    async fn record(&self, shutdown: &Shutdown) -> Result<(), String> {
        let metrics = Metrics::default();
        let endpoint = Endpoint::client(&*self.url);
        let Mode::Client(mut client) = endpoint.mode.clone() else { return Err("a recorder dials".into()) };
        client.proxies = Proxies::of(&environment());
        let config = WebSocketSource::new(endpoint);
        let endpoint = Connections::default().open(metrics.endpoint(PIPELINE, SOURCE));
        let dialled = source::DialledSource::new(&config, &client, false, endpoint);
        let mut source = Source::Dialled(Box::new(dialled));
        let path = FilePath::plain(&*self.output);
        let mut sink = sink::lines::file(&path, Format::Recording, false, metrics.sink(PIPELINE, "file"))
            .await
            .map_err(|error| format!("failed to open {path}: {error}"))?;
        let mut copy = Copy { left: self.count.unwrap_or(u64::MAX), taken: 0 };
        let copied = tokio::select! {
            copied = poll_fn(|cx| copy.poll(cx, &mut source, &mut sink)) => copied,
            () = shutdown.requested() => Ok(()),
            () = tokio::time::sleep(self.time.unwrap_or_default()), if self.time.is_some() => Ok(()),
        };
        let mut failed = Vec::new();
        let closing = async {
            poll_fn(|cx| sink.poll_flush(cx, &mut failed)).await;
            poll_fn(|cx| sink.poll_close(cx, close_code::NORMAL, &mut failed)).await;
            poll_fn(|cx| source.poll_close(cx, close_code::NORMAL)).await;
        };
        if tokio::time::timeout(GRACE, closing).await.is_err() {
            return Err(format!("{} messages could not be written to {path}", sink.in_flight()));
        }
        tracing::info!(messages = copy.taken, %path, "recorded");
        copied.and(first(failed))
    }
}

/// Messages on their way from a source to a sink.
struct Copy {
    left: u64,
    taken: u64,
}

impl Copy {
    /// Ready when as many were taken as were asked for, or with an error.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source,
        sink: &mut Sink,
    ) -> Poll<Result<(), String>> {
        let (mut batch, mut failed) = (Vec::new(), Vec::new());
        loop {
            sink.poll_drive(cx, &mut failed);
            first(std::mem::take(&mut failed))?;
            if self.left == 0 {
                return Poll::Ready(Ok(()));
            }
            // Room for one batch is made before it is read: the queue takes as many at once.
            ready!(sink.poll_ready(cx));
            let room = Room { messages: 1, ..ROOM };
            match source.poll_fill(cx, &mut batch, room, &mut failed) {
                Poll::Ready(Fill::More | Fill::Drained) => {}
                Poll::Ready(Fill::Ended) => return Poll::Ready(Ok(())),
                Poll::Ready(Fill::Failed(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let _ = sink.poll_flush(cx, &mut failed);
                    first(failed)?;
                    return Poll::Pending;
                }
            }
            for Failed { detail, .. } in failed.drain(..) {
                tracing::warn!(error = detail, "message left out");
            }
            for message in batch.drain(..) {
                sink.push(message, &mut failed);
                self.left -= 1;
                self.taken += 1;
            }
        }
    }
}

/// The first failure as an error.
fn first(failed: Vec<Failed>) -> Result<(), String> {
    failed.into_iter().next().map_or(Ok(()), |failed| Err(failed.detail))
}
