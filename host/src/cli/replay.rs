//! `tidemill replay`: a recording, served as a WebSocket server.
//!
//! Every path serves it, and every peer gets it from its start, at its own pace; what peers send is read
//! and ignored. A peer that has had it all is closed with 1000, and gets it again when it comes again.

use super::{Exit, Speed, block_on, complain};
use crate::config::{FilePath, Format, Server};
use crate::message::Message;
use crate::recording::RecordingReader;
use crate::shutdown::Shutdown;
use crate::source::{Fill, Room, Source, lines};
use crate::websocket::{Accepted, Admission, Connection, ConnectionEnd, Received, accept, close_code};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

/// What is taken from the file at once.
const ROOM: Room = Room { messages: 256, bytes: 1 << 20 };
/// Largest message taken from a peer, to be ignored.
const MAX_IGNORED_BYTES: usize = 1 << 20;
/// Pause after an accept that failed, usually because the limit of open files was reached.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    /// The recording, or a file of JSON lines; `.gz` is understood.
    file: PathBuf,
    /// The address to listen on.
    #[arg(long, value_name = "ADDR", value_parser = super::arguments::address, default_value = "127.0.0.1:10082")]
    listen: SocketAddr,
    /// How many times as fast as it was received, or `max`.
    #[arg(long, value_name = "N|max", default_value = "1")]
    speed: Speed,
    /// End when the first peer has had it all.
    #[arg(long)]
    once: bool,
}

impl Replay {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            match self.serve(&shutdown).await {
                Ok(()) => Exit::Success,
                Err(error) => {
                    complain(error);
                    Exit::Failure
                }
            }
        })
    }

    async fn serve(&self, shutdown: &Shutdown) -> Result<(), String> {
        let opened = tokio::select! {
            opened = Recording::open(&self.file) => opened,
            () = shutdown.requested() => return Ok(()),
        };
        let recording = opened.map_err(|error| format!("failed to read {}: {error}", self.file.display()))?;
        let failed = |error: io::Error| format!("failed to listen on {}: {error}", self.listen);
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(url = format!("ws://{address}/"), speed = %self.speed, "replaying");
        replay(listener, &recording, self.speed, self.once, shutdown).await
    }
}

/// A file of messages that can be played.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    path: FilePath,
    format: Format,
}

impl Recording {
    /// Looks at a file: whether it can be read, and whether its lines start with times.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) async fn open(path: &Path) -> io::Result<Self> {
        let (input, _interrupt) = lines::open(path).await?;
        let first =
            tokio::task::spawn_blocking(|| RecordingReader::new(input, Format::Recording).next_block());
        let first = first.await.map_err(io::Error::other)??.and_then(|mut block| block.next());
        let has_times = first.is_none_or(|line| line.is_ok());
        let format = if has_times { Format::Recording } else { Format::Jsonl };
        Ok(Self { path: FilePath::plain(path), format })
    }

    /// Whether its messages have times.
    pub(crate) fn has_times(&self) -> bool {
        self.format == Format::Recording
    }

    /// A source of its messages, from the first one on.
    ///
    /// # Errors
    /// If it cannot be opened any more.
    pub(crate) async fn source(&self) -> io::Result<Source> {
        lines::file(&self.path, self.format, None).await
    }
}

/// Serves a recording until a shutdown, or with `once` until the first peer has had it all.
///
/// # Errors
/// With `once`, if no peer can have it all since it cannot be read to its end.
pub(crate) async fn replay(
    listener: TcpListener,
    recording: &Recording,
    speed: Speed,
    once: bool,
    shutdown: &Shutdown,
) -> Result<(), String> {
    // Without times there is nothing to keep pace with.
    let speed = if recording.has_times() { speed } else { Speed::Max };
    let stop = Shutdown::default();
    let mut peers = JoinSet::new();
    let result = loop {
        tokio::select! {
            () = shutdown.requested() => break Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    peers.spawn(serve(tcp, peer, recording.clone(), speed, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(served) = peers.join_next() => {
                match served {
                    Ok(Some(Played::All)) if once => break Ok(()),
                    Ok(Some(Played::Broken(error))) if once => break Err(error),
                    _ => {}
                }
            }
        }
    };
    stop.request();
    while peers.join_next().await.is_some() {}
    result
}

/// How playing to one peer ended.
enum Played {
    All,
    Gone(ConnectionEnd),
    Broken(String),
}

/// Plays to one peer. `None` if the handshake came to nothing, or the server stops.
async fn serve(
    tcp: TcpStream,
    peer: SocketAddr,
    recording: Recording,
    speed: Speed,
    stop: Shutdown,
) -> Option<Played> {
    let admission = Admission { max_message_size_bytes: MAX_IGNORED_BYTES, ..Admission::default() };
    let patience = Server::default().handshake_timeout;
    let admit = |handshake| std::future::ready(Ok((admission.clone(), handshake)));
    let Accepted { connection, token: handshake } = tokio::select! {
        accepted = accept(tcp, patience, admit) => accepted?,
        () = stop.requested() => return None,
    };
    tracing::info!(%peer, path = handshake.path(), "playing");
    let source = match recording.source().await {
        Ok(source) => source,
        Err(error) => {
            tracing::error!(%error, "failed to open the recording");
            return Some(Played::Broken(format!("failed to open {}: {error}", recording.path)));
        }
    };
    let mut player = Player::new(connection, source, speed);
    let played = tokio::select! {
        played = poll_fn(|cx| player.poll(cx)) => Some(played),
        () = stop.requested() => None,
    };
    match &played {
        None => player.connection.close(close_code::GOING_AWAY, ""),
        Some(Played::All) => {
            tracing::info!(%peer, messages = player.sent, "played to the end");
            player.connection.close(close_code::NORMAL, "");
        }
        Some(Played::Gone(why)) => tracing::info!(%peer, messages = player.sent, %why, "peer left"),
        Some(Played::Broken(error)) => {
            tracing::error!(%peer, error, "failed to read the recording");
            player.connection.close(close_code::INTERNAL_ERROR, "");
        }
    }
    poll_fn(|cx| player.connection.poll_closed(cx)).await;
    played
}

/// One peer, and its place in the recording.
struct Player {
    connection: Connection,
    source: Source,
    waiting: VecDeque<Message>,
    has_all: bool,
    speed: Speed,
    started: Instant,
    /// The latest time that was looked at: a clock that is not read for every message.
    now: Instant,
    first_us: Option<u64>,
    timer: Pin<Box<Sleep>>,
    sent: u64,
}

impl Player {
    fn new(connection: Connection, source: Source, speed: Speed) -> Self {
        let now = Instant::now();
        Self {
            connection,
            source,
            waiting: VecDeque::new(),
            has_all: false,
            speed,
            started: now,
            now,
            first_us: None,
            timer: Box::pin(tokio::time::sleep_until(now)),
            sent: 0,
        }
    }

    /// Goes on playing, and flushes whenever there is nothing to do but wait.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Played> {
        loop {
            match self.connection.poll_receive(cx) {
                Poll::Ready(Received::Message(_) | Received::Control) => {}
                Poll::Ready(Received::Ended(ending)) => return Poll::Ready(Played::Gone(ending)),
                Poll::Pending => break,
            }
        }
        match self.poll_play(cx) {
            Poll::Ready(played) => Poll::Ready(played),
            Poll::Pending => {
                if self.connection.is_dirty() {
                    // Where nothing can be written any more, reading finds out why.
                    let _ = self.connection.poll_flush(cx);
                }
                Poll::Pending
            }
        }
    }

    fn poll_play(&mut self, cx: &mut Context<'_>) -> Poll<Played> {
        loop {
            while let Some(message) = self.waiting.front() {
                let received_us = message.metadata.received_us();
                ready!(self.poll_due(cx, received_us));
                if ready!(self.connection.poll_ready(cx)).is_err() {
                    return Poll::Pending;
                }
                let sent =
                    self.waiting.pop_front().map_or(Ok(()), |message| self.connection.send(&message.payload));
                if sent.is_err() {
                    return Poll::Pending;
                }
                self.sent += 1;
            }
            if self.has_all {
                return match ready!(self.connection.poll_flush(cx)) {
                    Ok(()) => Poll::Ready(Played::All),
                    Err(_) => Poll::Pending,
                };
            }
            let (mut batch, mut failed) = (Vec::new(), Vec::new());
            match ready!(self.source.poll_fill(cx, &mut batch, ROOM, &mut failed)) {
                Fill::More | Fill::Drained => {}
                Fill::Ended => self.has_all = true,
                Fill::Failed(error) => return Poll::Ready(Played::Broken(error)),
            }
            for line in failed {
                tracing::warn!(error = line.detail, "line of the recording left out");
            }
            self.waiting.extend(batch);
        }
    }

    /// Ready when a message is due that was received at `received_us`.
    fn poll_due(&mut self, cx: &mut Context<'_>, received_us: u64) -> Poll<()> {
        let first_us = *self.first_us.get_or_insert(received_us);
        let after_first = Duration::from_micros(received_us.saturating_sub(first_us));
        let Some(due) = self.speed.due(after_first) else { return Poll::Ready(()) };
        let due = self.started + due;
        if due <= self.now {
            return Poll::Ready(());
        }
        self.now = Instant::now();
        if due <= self.now {
            return Poll::Ready(());
        }
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        self.timer.as_mut().poll(cx)
    }
}
