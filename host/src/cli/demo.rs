//! `tidemill demo`: a recorded exchange, the host on it, live one-minute VWAP.
//!
//! Nothing is faked: the recording is served as a WebSocket server, the host dials it, runs the plugin
//! and serves the result, and what is shown here came over that last connection.

use super::scratch::Scratch;
use super::{Exit, Recording, Speed, block_on, complain, free_port, replay};
use crate::app::{self, AppError, Settings};
use crate::builtin;
use crate::config::{self, Config, Endpoint, Pipeline, Server, SlowPeer, WebSocketSink};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use crate::websocket::{Connection, Dial, Received, connect};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::future::poll_fn;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// The plugin that the demo runs.
const PLUGIN: &str = "vwap";
/// Where the result is served, if the port is free.
const PORT: u16 = 10081;
/// The path it is served on.
const PATH: &str = "/vwap";
/// The name of the pipeline.
const PIPELINE: &str = "vwap";
/// How long the host may take to start listening: it compiles the plugin the first time.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to reach it.
const START_INTERVAL: Duration = Duration::from_millis(20);
/// How long the end of a round may take.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// End when the recording does, instead of going round again.
    #[arg(long)]
    once: bool,
    /// How many times as fast as it was received, or `max`.
    #[arg(long, value_name = "N|max", default_value = "20")]
    speed: Speed,
    /// Another recording than the one that is built in.
    #[arg(long, value_name = "FILE", overrides_with = "recording")]
    recording: Option<PathBuf>,
    /// A folder with the plugin `vwap`, instead of the one that is built in.
    #[arg(long, value_name = "DIR", overrides_with = "plugins")]
    plugins: Option<PathBuf>,
}

/// What the rounds are played with.
struct DemoParts {
    recording: Recording,
    plugins: PathBuf,
    cache: PathBuf,
    port: u16,
}

/// What one round of the recording came to.
struct Round {
    received: u64,
    delivered: u64,
    windows: u64,
    took: Duration,
}

impl Demo {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            match self.rounds(&shutdown).await {
                Ok(()) => Exit::Success,
                Err(error) => {
                    complain(error);
                    Exit::Failure
                }
            }
        })
    }

    async fn rounds(&self, shutdown: &Shutdown) -> Result<(), String> {
        let scratch = Scratch::try_new("demo")?;
        let parts = self.parts(&scratch).await?;
        let mut show = Show::new(self.speed, parts.port);
        loop {
            let round = self.round(&parts, &mut show, shutdown).await?;
            show.summary(&round);
            if let Some(error) = show.failure {
                return Err(format!("failed to write stdout: {error}"));
            }
            if self.once || shutdown.is_requested() {
                return Ok(());
            }
        }
    }

    /// The recording and the plugin: those that are named, or those that are built in.
    async fn parts(&self, scratch: &Scratch) -> Result<DemoParts, String> {
        let missing = |what: &str| {
            let hint = builtin::hint().unwrap_or("name another");
            format!("there is no {what} to show\nhint: {hint}; in a checkout, `cargo xtask demo`")
        };
        let recording = match &self.recording {
            Some(file) => file.clone(),
            None => {
                let file = scratch.path().join("recording.jsonl.gz");
                let packed = builtin::recording().ok_or_else(|| missing("recording"))?;
                std::fs::write(&file, packed)
                    .map_err(|error| format!("failed to write {}: {error}", file.display()))?;
                file
            }
        };
        let plugins = match &self.plugins {
            Some(folder) if !folder.join(PLUGIN).with_extension("wasm").is_file() => {
                return Err(format!("there is no {}/{PLUGIN}.wasm", folder.display()));
            }
            Some(folder) => folder.clone(),
            // An empty folder, in which nothing stands before the built-in one.
            None if builtin::plugin(PLUGIN).is_some() => scratch.path().join("plugins"),
            None => return Err(missing("plugin")),
        };
        let opened = Recording::open(&recording).await;
        Ok(DemoParts {
            recording: opened
                .map_err(|error| format!("failed to read the recording {}: {error}", recording.display()))?,
            plugins,
            cache: scratch.path().join("cache"),
            port: free_port(PORT).await.map_err(|error| format!("failed to find a free port: {error}"))?,
        })
    }

    /// Plays the recording once. Each round is a new run of the host: the trades of the next are as old
    /// as those of the last, and would be late in windows that are closed.
    async fn round(&self, parts: &DemoParts, show: &mut Show, shutdown: &Shutdown) -> Result<Round, String> {
        let DemoParts { recording, port, .. } = parts;
        let listen = |error: io::Error| format!("failed to listen: {error}");
        let exchange = TcpListener::bind(("127.0.0.1", 0)).await.map_err(listen)?;
        let url = format!("ws://{}/stream", exchange.local_addr().map_err(listen)?);
        let metrics = Arc::new(Metrics::default());
        let stop = Shutdown::default();
        let settings = Settings { metrics: metrics.clone(), grace: GRACE, ..Settings::default() };
        let mut host = tokio::spawn(app::run(parts.config(&url), settings, stop.clone()));
        // The exchange answers nobody until the viewer is there, so that it sees every window.
        let mut viewer = tokio::select! {
            ended = &mut host => return Err(ended_early(ended)),
            viewer = view(*port) => viewer?,
        };
        let started = Instant::now();
        let mut windows = 0;
        let played = async {
            let played = replay(exchange, recording, self.speed, true, shutdown).await;
            stop.request();
            played
        };
        let ticking = show.follow(&metrics);
        let shown = async {
            while let Some(window) = next(&mut viewer).await {
                windows += 1;
                if let Err(error) = show.window(&window) {
                    show.failure = Some(error);
                    shutdown.request();
                }
            }
            // The answer to the close frame: until it is sent, the host waits for it.
            poll_fn(|cx| viewer.poll_closed(cx)).await;
        };
        let (played, (), ended) = tokio::select! {
            all = async { tokio::join!(played, shown, &mut host) } => all,
            never = ticking => match never {},
        };
        played?;
        ended.map_err(|error| format!("the host panicked: {error}"))?.map_err(|error| error.to_string())?;
        Ok(Round {
            received: metrics.received_count(PIPELINE),
            delivered: metrics.delivered_count(PIPELINE, "served"),
            windows,
            took: started.elapsed(),
        })
    }
}

impl DemoParts {
    fn config(&self, url: &str) -> Config {
        let server = Server { port: self.port, ..Server::default() };
        let mut transform = config::Transform::new(PLUGIN);
        transform.config = config::PluginConfig::plain(r#"{"window":"1m"}"#);
        let mut sink = WebSocketSink::new(Endpoint::server(PATH, &server));
        sink.peers.slow = SlowPeer::Block;
        let pipeline = Pipeline::new(PIPELINE, Endpoint::client(url));
        Config {
            plugins: config::Plugins {
                dir: (&self.plugins).into(),
                cache: (&self.cache).into(),
                ..config::Plugins::default()
            },
            server,
            pipelines: vec![pipeline.through(transform).with_sink(config::SinkConfig::new("served", sink))],
            ..Config::default()
        }
    }
}

fn ended_early(ended: Result<Result<(), AppError>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "the host ended before it began".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("the host panicked: {error}"),
    }
}

/// A connection to what the host serves, as soon as it does.
async fn view(port: u16) -> Result<Connection, String> {
    let url = format!("ws://127.0.0.1:{port}{PATH}");
    let endpoint = Endpoint::client(&*url);
    let config::Mode::Client(client) = &endpoint.mode else { return Err("a viewer dials".to_owned()) };
    let dial = Dial::of(&endpoint, client, &client.urls[0]);
    let deadline = tokio::time::Instant::now() + START_PATIENCE;
    loop {
        match connect(dial).await {
            Ok(connection) => return Ok(connection),
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(START_INTERVAL).await,
        }
    }
}

/// The next message the host serves; `None` once it has closed.
async fn next(viewer: &mut Connection) -> Option<String> {
    loop {
        match poll_fn(|cx| viewer.poll_receive(cx)).await {
            Received::Message(payload) => return payload.as_text().map(str::to_owned),
            Received::Control => {}
            Received::Ended(_) => return None,
        }
    }
}

/// A window as the plugin emits it.
#[derive(Deserialize)]
struct Window {
    symbol: String,
    window_start: i64,
    vwap: Option<f64>,
    volume: f64,
    count: u64,
    #[serde(rename = "final")]
    is_final: bool,
}

/// What the person sees: a table that grows on a terminal, JSON lines elsewhere.
struct Show {
    bar: Option<ProgressBar>,
    url: String,
    /// Nobody sees it any more.
    failure: Option<io::Error>,
}

impl Show {
    fn new(speed: Speed, port: u16) -> Self {
        let url = format!("ws://127.0.0.1:{port}{PATH}");
        let _ = writeln!(
            io::stderr(),
            "A recorded exchange (74,867 messages of Binance) at speed {speed}, through the plugin vwap.\n\
             Live one-minute VWAP is served at {url}; any WebSocket client can read along.\n"
        );
        let bar = io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::no_length();
            bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is right"));
            bar.println(format!(
                "{:<16} {:<9} {:>14} {:>12} {:>7}",
                "minute (UTC)", "symbol", "vwap", "volume", "trades"
            ));
            bar
        });
        Self { bar, url, failure: None }
    }

    fn window(&self, text: &str) -> io::Result<()> {
        let Some(bar) = &self.bar else { return writeln!(io::stdout(), "{text}") };
        let Ok(window) = serde_json::from_str::<Window>(text) else {
            bar.println(text);
            return Ok(());
        };
        let start = jiff::Timestamp::from_millisecond(window.window_start).unwrap_or_default();
        bar.println(format!(
            "{:<16} {:<9} {:>14.4} {:>12.4} {:>7}{}",
            start.strftime("%Y-%m-%d %H:%M").to_string(),
            window.symbol,
            window.vwap.unwrap_or(f64::NAN),
            window.volume,
            window.count,
            if window.is_final { "" } else { "  (still open at the end)" }
        ));
        Ok(())
    }

    /// Keeps the count of messages up to date; never ends.
    fn follow(&self, metrics: &Arc<Metrics>) -> impl Future<Output = std::convert::Infallible> + use<> {
        let (bar, metrics, url) = (self.bar.clone(), metrics.clone(), self.url.clone());
        async move {
            loop {
                if let Some(bar) = &bar {
                    bar.set_message(format!(
                        "{} messages received; serving {url}",
                        HumanCount(metrics.received_count(PIPELINE))
                    ));
                    bar.tick();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn summary(&self, round: &Round) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let rate = HumanCount((round.received as f64 / round.took.as_secs_f64()) as u64);
        let _ = writeln!(
            io::stderr(),
            "{} messages in {:.1} s ({rate} a second); {} windows, {} delivered",
            HumanCount(round.received),
            round.took.as_secs_f64(),
            round.windows,
            round.delivered,
        );
    }
}
