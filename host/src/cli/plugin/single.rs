//! A plugin that a command runs by itself: in a pipeline of its own, whose output goes to standard output, and what
//! fails to standard error.

use super::component;
use crate::cli::{Exit, environment, is_terminal, tell};
use crate::config::{
    BodyError, BodyReader, DEAD_LETTER, Format, Mistake, Outputs, PluginConfig, Plugins, Server, Transform,
};
use crate::http_client::{HttpClient, HttpPlayer, HttpRecorder, RecordingPlace};
use crate::message::Message;
use crate::pipeline::{Ended, Ending, Parts, Persistence};
use crate::plugin::{
    Engine, EngineError, FirstAnswers, HostState, Http, Instance, Plugin, PluginKind, Setup, StatePart,
};
use crate::recording::Exchange;
use crate::sink;
use crate::sink::lines::FatalWrite;
use crate::source::{Fill, Room, Source};
use crate::telemetry::Metrics;
use serde_json::{Value, json};
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The name of the pipeline, which only the log shows.
pub(super) const PIPELINE: &str = "plugin-run";
/// Who types a command is told what takes longer.
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// What is taken from a source at once.
const ROOM: Room = Room { messages: 256, bytes: 1 << 20 };

/// What a plugin is given, on the command line.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct PluginOptions {
    /// The plugin's configuration, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = json_as_typed)]
    config: String,
    /// What the plugin may ask for over HTTP, as an entry of `allow`; can be given again.
    #[arg(long, value_name = "ENTRY")]
    allow: Vec<String>,
    /// How its HTTP requests behave: the table `http` of a transform, as JSON.
    #[arg(long, value_name = "JSON", value_parser = parse_json, requires = "allow")]
    http: Option<Value>,
}

/// What becomes of the HTTP requests of a plugin.
pub(in crate::cli) enum PluginRequests {
    /// They are sent, where they are granted.
    Sent,
    /// Likewise, and what came of them is kept.
    Recorded(mpsc::Sender<Exchange>),
    /// They are answered from a recording.
    Played(RecordingPlace),
}

/// A plugin that has taken its configuration.
pub(in crate::cli) type ReadyPlugin = (Transform, Setup, Vec<Instance>);

impl Default for PluginOptions {
    fn default() -> Self {
        Self { config: "{}".to_owned(), allow: Vec::new(), http: None }
    }
}

impl PluginOptions {
    /// Those of a case, which has a configuration of its own.
    pub(super) fn of_case(config: &str, allow: &[String]) -> Self {
        Self { config: config.to_owned(), allow: allow.to_vec(), http: None }
    }

    /// Whether nothing was said.
    pub(in crate::cli) fn are_defaults(&self) -> bool {
        self.config == "{}" && self.allow.is_empty() && self.http.is_none()
    }

    /// Loads the plugin and gives it its configuration.
    ///
    /// # Errors
    /// How the command ends, and why.
    pub(in crate::cli) async fn prepare(
        &self,
        file: &Path,
        requests: PluginRequests,
        metrics: &Metrics,
    ) -> Result<ReadyPlugin, (Exit, String)> {
        let failed = |error: String| (Exit::Failure, error);
        let name = component::name(file);
        // What is typed wrong is told before a file is looked for.
        let transform = self.transform(&name).map_err(|error| (Exit::Usage, error))?;
        let plugin = load_file(file, &name).await.map_err(failed)?;
        start(&plugin, transform, requests, metrics).await
    }

    /// The transform that a configuration with these options would have.
    pub(super) fn transform(&self, name: &str) -> Result<Transform, String> {
        let mut transform = json!({ "plugin": "plugin", "allow": self.allow });
        if let Some(http) = &self.http {
            transform["http"] = http.clone();
        }
        let body = json!({
            "name": PIPELINE, "source": { "type": "stdin" }, "transforms": [transform],
            "sinks": [{ "type": "stdout" }],
        });
        let reader = BodyReader::new(Path::new(""), environment());
        let read =
            reader.pipeline(body.to_string().as_bytes(), &Server::default()).map_err(|error| match error {
                BodyError::NotJson(why) => why,
                BodyError::Wrong(mistakes) => mistakes.into_iter().map(told).collect::<Vec<_>>().join("\n"),
            });
        let read = read?.transforms.pop().expect("it has one");
        let config = PluginConfig::plain(&*self.config);
        Ok(Transform { config, allow: read.allow, http: read.http, ..Transform::new(name) })
    }
}

/// Gives a plugin that was loaded its configuration.
async fn start(
    plugin: &Plugin,
    transform: Transform,
    requests: PluginRequests,
    metrics: &Metrics,
) -> Result<ReadyPlugin, (Exit, String)> {
    let name = plugin.name();
    let is_replay = matches!(requests, PluginRequests::Played(_));
    let setup = Setup {
        pipeline: PIPELINE.into(),
        transform: name.clone(),
        kind: PluginKind::Transform,
        part: StatePart::WHOLE,
        config: transform.config.json().clone(),
        limits: transform.limits,
        is_replay,
        state: HostState::default(),
        http: requests.http(&transform),
        metrics: metrics.guest(PIPELINE, name),
        is_shadow: false,
        retries: transform.retries,
        first_answers: FirstAnswers::default(),
    };
    let instance = instance(plugin, &setup).await?;
    Ok((transform, setup, vec![instance]))
}

/// Another plugin, with all that the one which is ready was given.
///
/// # Errors
/// How the command ends, and why.
pub(super) async fn prepare_beside(
    (_, setup, _): &ReadyPlugin,
    file: &Path,
) -> Result<(Setup, Instance), (Exit, String)> {
    let plugin = load_file(file, &component::name(file)).await.map_err(|error| (Exit::Failure, error))?;
    let setup = setup.beside();
    let instance = instance(&plugin, &setup).await?;
    Ok((setup, instance))
}

async fn instance(plugin: &Plugin, setup: &Setup) -> Result<Instance, (Exit, String)> {
    let started = plugin.instantiate(setup).await;
    started.map_err(|fault| (Exit::Configuration, format!("failed to start {}: {fault}", plugin.name())))
}

impl PluginRequests {
    fn http(self, transform: &Transform) -> Option<Arc<dyn Http>> {
        match self {
            Self::Sent => HttpClient::of(&transform.allow, &transform.http),
            Self::Recorded(kept) => HttpClient::of(&transform.allow, &transform.http).map(|http| {
                Arc::new(HttpRecorder::new(http, transform.config.json().clone(), kept)) as Arc<dyn Http>
            }),
            Self::Played(place) => {
                let grants = (!transform.allow.is_empty()).then(|| transform.allow.clone());
                Some(Arc::new(HttpPlayer::new(place, grants, transform.config.json().clone())))
            }
        }
    }
}

/// A pipeline that runs a plugin on what comes from this source.
///
/// # Errors
/// If there are no standard streams.
pub(in crate::cli) fn parts(plugin: ReadyPlugin, source: Source, metrics: &Metrics) -> Result<Parts, String> {
    let failed = |error: std::io::Error| format!("failed to open the standard streams: {error}");
    let out = sink::lines::stdout(Format::Jsonl, FatalWrite::AnyError, metrics.sink(PIPELINE, "stdout"))
        .map_err(failed)?;
    let rejected = sink::lines::stderr(Format::Jsonl, metrics.sink(PIPELINE, DEAD_LETTER)).map_err(failed)?;
    Ok(Parts {
        name: PIPELINE.into(),
        source,
        transforms: vec![plugin],
        sinks: vec![("stdout".into(), Outputs::All, out)],
        dead_letter: Some(rejected),
        kept: None,
        persistence: Persistence::GivesUp,
        durable: None,
    })
}

/// What the end of the pipeline is to whoever typed the command.
pub(in crate::cli) fn outcome(ended: Ended) -> Result<(), String> {
    match ended {
        Ended { ending: Ending::Failed(error), .. } => Err(error),
        Ended { given_up: Some(messages), .. } => {
            Err(format!("it has stopped before all messages reached their end, and gave up {messages}"))
        }
        Ended { ending: Ending::Finished | Ending::Stopped, given_up: None, .. } => Ok(()),
    }
}

/// A plugin that is compiled anew, for as many instances as are wanted.
pub(super) struct AlonePlugin(Plugin);

impl AlonePlugin {
    /// Compiles it.
    pub(super) async fn load(name: &str, wasm: Vec<u8>) -> Result<Self, String> {
        load(Engine::with_lines(None), name, wasm).await.map(Self)
    }

    /// An instance that is given this.
    pub(super) async fn start(
        &self,
        options: &PluginOptions,
        metrics: &Metrics,
    ) -> Result<ReadyPlugin, (Exit, String)> {
        let transform = options.transform(self.0.name()).map_err(|error| (Exit::Usage, error))?;
        start(&self.0, transform, PluginRequests::Sent, metrics).await
    }
}

/// Reads and compiles a plugin.
async fn load_file(file: &Path, name: &str) -> Result<Plugin, String> {
    let wasm = read(file).await?;
    // The cache of a host that runs here; without one it only takes longer.
    let engine = Engine::with_lines(Some(&Plugins::default().cache)).or_else(|_| Engine::with_lines(None));
    load(engine, name, wasm).await
}

/// Compiles a plugin.
async fn load(engine: Result<Engine, EngineError>, name: &str, wasm: Vec<u8>) -> Result<Plugin, String> {
    let engine = engine.map_err(|error| error.to_string())?;
    // Compiling cannot be interrupted: it has a thread of its own, which a signal does not wait for.
    let mut loading = tokio::task::spawn_blocking({
        let name = name.to_owned();
        move || engine.load(&name, &wasm)
    });
    let loaded = match timeout(SHORT_WAIT, &mut loading).await {
        Ok(loaded) => loaded,
        Err(_) => {
            if is_terminal() {
                tell(format_args!("compiling {name}\n"));
            }
            loading.await
        }
    };
    loaded.map_err(|error| error.to_string())?.map_err(|error| match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    })
}

/// The component that is named on the command line. Building one may take its time: it has a thread of its own, which a
/// signal does not wait for.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || component::read(&path));
    reading.await.map_err(|error| error.to_string())?
}

/// A mistake in what the options make of a transform.
fn told(Mistake { pointer, message, hint }: Mistake) -> String {
    let option = pointer.strip_prefix("/transforms/0/").unwrap_or_default();
    let option = option.split('/').next().unwrap_or_default();
    let hint = hint.map_or(String::new(), |hint| format!("\nhint: {hint}"));
    format!("--{option}: {message}{hint}")
}

/// JSON on the command line, whose numbers and order are kept.
fn json_as_typed(text: &str) -> Result<String, String> {
    parse_json(text).map(|_| text.to_owned())
}

/// JSON on the command line.
fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// The next messages of a source, and how it goes on. What is no message is told.
pub(super) async fn next_messages(source: &mut Source) -> (Vec<Message>, Fill) {
    let (mut batch, mut failed) = (Vec::new(), Vec::new());
    let fill = poll_fn(|cx| source.poll_fill(cx, &mut batch, ROOM, &mut failed)).await;
    for line in failed {
        tell(format!("a line is left out: {}\n", line.detail));
    }
    (batch, fill)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Resume;

    #[test]
    fn a_run_that_has_given_up_messages_has_failed() {
        let ended = |given_up| Ended { ending: Ending::Stopped, given_up, resume: Resume::Here(None) };
        assert_eq!(outcome(ended(None)), Ok(()));
        assert!(outcome(ended(Some(46))).is_err_and(|error| error.ends_with("gave up 46")));
    }
}
