//! `tidemill dev`: a plugin on a feed while it is written. What is saved is built and swapped in, what messages
//! become is shown beside them, and what fails is told while the version before runs on.
//!
//! A host of its own has two pipelines: one takes the feed, the other has the plugin. The messages go from the one to
//! the other through this command (`relay`), so that each can be shown with what came of it (`shown`).

mod relay;
mod shown;

use super::build::{Built, NotBuilt, PluginFolder, build, progress};
use super::single::PluginOptions;
use crate::app::{AppError, Host, Settings};
use crate::builtin;
use crate::cli::scratch::Scratch;
use crate::cli::{Exit, Recording, Speed, block_on, complain, free_port, replay};
use crate::config::{
    Config, Endpoint, Outputs, Pipeline, Plugins, Server, SinkConfig, SlowPeer, WebSocketSink,
    WebSocketSource,
};
use crate::plugin::PluginKind;
use crate::shutdown::Shutdown;
use crate::telemetry::PipelineState;
use crate::verdict::{SwapOptions, SwapOutcome};
use crate::websocket;
use relay::{AFTER, BEFORE, FAILED, PIPELINE, Relay};
use shown::DevDisplay;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tidemill_authoring::{Effort, Project, Tools};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The pipeline that takes the feed.
const FEED: &str = "feed";
/// Between two looks at the sources.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Builds that may wait to be swapped in; messages that may wait to be shown.
const WAITING: usize = 4;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Dev {
    #[command(flatten)]
    folder: PluginFolder,
    /// The feed: the url of a WebSocket server, or a recording, which is played again and again. If none is named, the
    /// recording of the demo.
    #[arg(long, value_name = "URL|FILE")]
    feed: Option<String>,
    /// How many times as fast as it was received a recording is played, or `max`.
    #[arg(long, value_name = "N|max", default_value = "1")]
    speed: Speed,
    #[command(flatten)]
    options: PluginOptions,
}

impl Dev {
    pub(in crate::cli) fn execute(self, is_verbose: bool) -> Exit {
        block_on(|shutdown| async move {
            match self.run(&shutdown, is_verbose).await {
                Ok(()) => Exit::Success,
                Err(error) => {
                    complain(error);
                    Exit::Failure
                }
            }
        })
    }

    async fn run(&self, shutdown: &Shutdown, is_verbose: bool) -> Result<(), String> {
        let scratch = Scratch::try_new("dev")?;
        let (project, tools) = self.folder.open(&scratch).map_err(|error| error.text(is_verbose))?;
        let mut tasks = JoinSet::new();
        let feed = self.feed(&scratch, &mut tasks, shutdown).await?;
        let (sender, mut builds) = mpsc::channel(WAITING);
        let name = project.name().to_owned();
        tasks.spawn(build_whenever_saved(project, tools, sender));
        let first = tokio::select! {
            biased;
            // A build that is stopped is nobody's mistake.
            () = shutdown.requested() => return Ok(()),
            first = first_that_is_right(&mut builds, is_verbose) => first?,
        };
        if first.inspection.kind == Some(PluginKind::Connector) {
            return Err("a connector sees no messages: `tidemill plugin test` tries it".to_owned());
        }
        let plugins = scratch.path().join("plugins");
        let written = std::fs::create_dir(&plugins)
            .and_then(|()| std::fs::write(plugins.join(format!("{name}.wasm")), &first.wasm));
        written.map_err(|error| format!("failed to write into {}: {error}", plugins.display()))?;
        let port = free_port(0).await.map_err(|error| format!("failed to find a free port: {error}"))?;
        let config = self.config(&name, &feed, port, &scratch)?;
        let settings = Settings { is_authoring: true, ..Settings::default() };
        let host = Host::start_with(config, settings).await.map_err(|error| error.to_string())?;
        if let Some(PipelineState::Failed { error }) = host.handle().pipeline(PIPELINE).map(|dev| dev.state) {
            return Err(error);
        }
        progress(&format!(
            "{name} runs on {feed}; some of its messages are shown, with all that fail, and all go through it. Save a \
             source, and it is built and swapped in"
        ));
        let (sender, mut pairs) = mpsc::channel(WAITING);
        tasks.spawn(Relay::new(port, name.clone(), host.metrics().clone()).run(sender));
        let mut shown = DevDisplay::new();
        let unwritten = |error: std::io::Error| format!("failed to write to standard output: {error}");
        loop {
            let count_is_due = shown.count_is_due();
            let counting = async {
                match count_is_due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                () = counting => shown.count().map_err(unwritten)?,
                Some(built) = builds.recv() => match built {
                    Ok(built) => swap(&host, &name, built).await,
                    Err(error) => tell_of(&error, is_verbose),
                },
                Some(pair) = pairs.recv() => shown.pair(&pair).map_err(unwritten)?,
                else => break,
            }
        }
        // Before the host, which would wait for them to leave.
        tasks.shutdown().await;
        match host.stop().await {
            // Nobody wants to see what was on its way, nor what a version that fails again and again had before it.
            Ok(()) | Err(AppError::GaveUp(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The url of the feed. A recording is served by this command.
    async fn feed(
        &self,
        scratch: &Scratch,
        tasks: &mut JoinSet<()>,
        shutdown: &Shutdown,
    ) -> Result<String, String> {
        let file = match &self.feed {
            Some(url) if url.contains("://") => {
                websocket::check_url(url).map_err(|error| format!("--feed {url}: {error}"))?;
                return Ok(url.clone());
            }
            Some(file) => PathBuf::from(file),
            None => {
                let hint = "`--feed` names a url, or a recording";
                let packed = builtin::recording().ok_or_else(|| {
                    format!("this build has no recording to run the plugin on\nhint: {hint}")
                })?;
                let file = scratch.path().join("recording.jsonl.gz");
                std::fs::write(&file, packed)
                    .map_err(|error| format!("failed to write {}: {error}", file.display()))?;
                file
            }
        };
        let failed =
            |error: std::io::Error| format!("failed to read the recording {}: {error}", file.display());
        let recording = Recording::open(&file).await.map_err(failed)?;
        let listening = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listening.map_err(|error| format!("failed to listen: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("failed to listen: {error}"))?;
        let (speed, shutdown) = (self.speed, shutdown.clone());
        tasks.spawn(async move {
            if let Err(error) = replay(listener, &recording, speed, false, &shutdown).await {
                complain(error);
            }
        });
        Ok(format!("ws://{address}/"))
    }

    fn config(&self, name: &str, feed: &str, port: u16, scratch: &Scratch) -> Result<Config, String> {
        let server = Server { port, ..Server::default() };
        // What is not shown waits: nothing is lost between the two pipelines.
        let served = |path: &str| {
            let mut sink = WebSocketSink::new(Endpoint::server(path, &server));
            sink.peers.slow = SlowPeer::Block;
            sink
        };
        let all = |name: &str, path: &str| SinkConfig {
            outputs: Outputs::All,
            ..SinkConfig::new(name, served(path))
        };
        let given = WebSocketSource::new(Endpoint::server(relay::path(PIPELINE), &server));
        let pipelines = vec![
            Pipeline::new(FEED, Endpoint::client(feed)).with_sink(all(BEFORE, &relay::path(BEFORE))),
            Pipeline::new(PIPELINE, given)
                .through(self.options.transform(name)?)
                .with_sink(all(AFTER, &relay::path(AFTER)))
                .dead_letters_to(served(&relay::path(FAILED))),
        ];
        let in_scratch = |name: &str| scratch.path().join(name).into();
        let plugins =
            Plugins { dir: in_scratch("plugins"), cache: in_scratch("cache"), ..Plugins::default() };
        Ok(Config { plugins, server, pipelines, ..Config::default() })
    }
}

/// Builds the plugin at once, and whenever its sources have changed and then stayed the same for a look.
async fn build_whenever_saved(project: Project, tools: Tools, builds: mpsc::Sender<Result<Built, NotBuilt>>) {
    let (project, tools) = (Arc::new(project), Arc::new(tools));
    let mut built_of = Vec::new();
    let mut before: Vec<(PathBuf, SystemTime)> = sources(&project).await;
    loop {
        let now = sources(&project).await;
        if now != built_of && now == before {
            built_of = now.clone();
            let (project, tools) = (project.clone(), tools.clone());
            // What panics there was told by the panic.
            if let Ok(built) =
                tokio::task::spawn_blocking(move || build(&project, Effort::Little, &tools)).await
                && builds.send(built).await.is_err()
            {
                return;
            }
        }
        before = now;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn sources(project: &Arc<Project>) -> Vec<(PathBuf, SystemTime)> {
    let project = project.clone();
    let looked = tokio::task::spawn_blocking(move || project.sources());
    looked.await.unwrap_or_default()
}

async fn first_that_is_right(
    builds: &mut mpsc::Receiver<Result<Built, NotBuilt>>,
    is_verbose: bool,
) -> Result<Built, String> {
    loop {
        match builds.recv().await {
            Some(Ok(built)) => return Ok(built),
            Some(Err(error)) => {
                error.complain(is_verbose);
                progress("it is built again when a source is saved");
            }
            None => return Err("the sources cannot be watched any more".to_owned()),
        }
    }
}

/// A version that does not compile.
fn tell_of(error: &NotBuilt, is_verbose: bool) {
    error.complain(is_verbose);
    progress("the version before runs on");
}

/// Has the host take a version over, and says what came of it.
async fn swap(host: &Host, name: &str, built: Built) {
    let options = SwapOptions { fresh_if_refused: true, ..SwapOptions::default() };
    match host.handle().swap(name, built.wasm.into(), options).await {
        Ok(verdict) if verdict.outcome == SwapOutcome::Swapped => {
            progress(&format!("{name} runs in the new version"));
        }
        Ok(verdict) => {
            complain(verdict.error.unwrap_or_else(|| "the new version was not taken".to_owned()));
            progress("the version before runs on");
        }
        Err(error) => {
            complain(error);
            progress("the version before runs on");
        }
    }
}
