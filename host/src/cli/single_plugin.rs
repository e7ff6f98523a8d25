//! A plugin that a command runs by itself: in a pipeline of its own, whose output goes to standard output, and what
//! fails to standard error.

use super::{Exit, environment};
use crate::builtin;
use crate::config::{
    BodyError, BodyReader, DEAD_LETTER, Format, Mistake, Outputs, PluginConfig, Plugins, Server, Transform,
    nearest,
};
use crate::http_client::{HttpClient, HttpPlayer, HttpRecorder, RecordingPlace};
use crate::pipeline::{Ended, Ending, Parts, Persistence};
use crate::plugin::{
    Engine, EngineError, FirstAnswers, HostState, Http, Instance, Plugin, PluginKind, Setup, StatePart,
};
use crate::recording::Exchange;
use crate::sink;
use crate::sink::lines::FatalWrite;
use crate::source::Source;
use crate::telemetry::Metrics;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The name of the pipeline, which only the log shows.
pub(super) const PIPELINE: &str = "plugin-run";

/// What a plugin is given, on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct PluginOptions {
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
pub(super) enum PluginRequests {
    /// They are sent, where they are granted.
    Sent,
    /// Likewise, and what came of them is kept.
    Recorded(mpsc::Sender<Exchange>),
    /// They are answered from a recording.
    Played(RecordingPlace),
}

/// A plugin that has taken its configuration.
pub(super) type ReadyPlugin = (Transform, Setup, Vec<Instance>);

impl PluginOptions {
    /// Whether nothing was said.
    pub(super) fn are_defaults(&self) -> bool {
        self.config == "{}" && self.allow.is_empty() && self.http.is_none()
    }

    /// Loads the plugin and gives it its configuration.
    ///
    /// # Errors
    /// How the command ends, and why.
    pub(super) async fn prepare(
        &self,
        file: &Path,
        requests: PluginRequests,
        metrics: &Metrics,
    ) -> Result<ReadyPlugin, (Exit, String)> {
        let failed = |error: String| (Exit::Failure, error);
        let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        // What is typed wrong is told before a file is looked for.
        self.transform(&name).map_err(|error| (Exit::Usage, error))?;
        let wasm = read(file).await.map_err(failed)?;
        // The cache of a host that runs here; without one it only takes longer.
        let engine = Engine::try_new(Some(&Plugins::default().cache)).or_else(|_| Engine::try_new(None));
        let plugin = load(engine, &name, wasm).await.map_err(failed)?;
        self.start(&plugin, requests, metrics).await
    }

    /// Gives a plugin that was loaded its configuration.
    async fn start(
        &self,
        plugin: &Plugin,
        requests: PluginRequests,
        metrics: &Metrics,
    ) -> Result<ReadyPlugin, (Exit, String)> {
        let name = plugin.name();
        let transform = self.transform(name).map_err(|error| (Exit::Usage, error))?;
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
            first_answers: FirstAnswers::default(),
        };
        let instance = plugin
            .instantiate(&setup)
            .await
            .map_err(|fault| (Exit::Configuration, format!("failed to start {name}: {fault}")))?;
        Ok((transform, setup, vec![instance]))
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
pub(super) fn parts(plugin: ReadyPlugin, source: Source, metrics: &Metrics) -> Result<Parts, String> {
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
pub(super) fn outcome(ended: Ended) -> Result<(), String> {
    match ended {
        Ended { ending: Ending::Failed(error), .. } => Err(error),
        Ended { given_up: Some(messages), .. } => {
            Err(format!("it has stopped before all messages reached their end, and gave up {messages}"))
        }
        Ended { ending: Ending::Finished | Ending::Stopped, given_up: None, .. } => Ok(()),
    }
}

/// A plugin that was built, and what its cases may use.
pub(super) struct CasePlugin {
    pub(super) name: String,
    pub(super) wasm: Vec<u8>,
    pub(super) allow: Vec<String>,
}

/// The same, compiled once for all its cases.
pub(super) struct LoadedCase {
    plugin: Plugin,
    allow: Vec<String>,
}

impl CasePlugin {
    /// Compiles it.
    pub(super) async fn load(self) -> Result<LoadedCase, String> {
        let plugin = load(Engine::try_new(None), &self.name, self.wasm).await?;
        Ok(LoadedCase { plugin, allow: self.allow })
    }
}

impl LoadedCase {
    /// An instance with this configuration.
    pub(super) async fn start(&self, config: &str, metrics: &Metrics) -> Result<ReadyPlugin, String> {
        let options = PluginOptions { config: config.to_owned(), allow: self.allow.clone(), http: None };
        let started = options.start(&self.plugin, PluginRequests::Sent, metrics).await;
        started.map_err(|(_, error)| error)
    }
}

/// Compiles a plugin.
async fn load(engine: Result<Engine, EngineError>, name: &str, wasm: Vec<u8>) -> Result<Plugin, String> {
    let engine = engine.map_err(|error| error.to_string())?;
    let name = name.to_owned();
    // Compiling cannot be interrupted: it has a thread of its own, which a signal does not wait for.
    let loading = tokio::task::spawn_blocking(move || engine.load(&name, &wasm));
    loading.await.map_err(|error| error.to_string())?.map_err(|error| match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    })
}

async fn read(file: &Path) -> Result<Vec<u8>, String> {
    match (tokio::fs::read(file).await, file.to_str().and_then(builtin::plugin)) {
        (Ok(wasm), _) => Ok(wasm),
        (Err(error), Some(built_in)) if error.kind() == ErrorKind::NotFound => Ok(built_in.to_vec()),
        (Err(error), _) => {
            let hint = if error.kind() == ErrorKind::NotFound { hint(file) } else { String::new() };
            Err(format!("failed to read {}: {error}{hint}", file.display()))
        }
    }
}

/// What to do where there is no such file, and no built-in plugin of that name.
fn hint(file: &Path) -> String {
    let name = file.to_string_lossy();
    let near = nearest(&name, builtin::plugin_names());
    let near = near.map_or(String::new(), |near| format!("did you mean the built-in plugin `{near}`? "));
    let known = builtin::hint().unwrap_or("`tidemill plugins` lists those that are built in");
    format!("\nhint: {near}{known}")
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
