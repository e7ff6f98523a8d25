//! `tidemill plugin run`: one plugin between standard input and output, as in a pipeline.

use super::{Exit, block_on, complain};
use crate::builtin;
use crate::config::{DEAD_LETTER, Format, Outputs, Plugins, Redacted, Transform, nearest};
use crate::http_client::HttpClient;
use crate::pipeline::{self, Control, Ended, Ending, Parts, Persistence};
use crate::plugin::{Engine, HostState, Instance, Setup, StatePart};
use crate::shutdown::Shutdown;
use crate::sink::lines::FatalWrite;
use crate::telemetry::Metrics;
use crate::{sink, source};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// The name of the pipeline, which only the log shows.
const PIPELINE: &str = "plugin-run";
/// At a signal, how long what is in flight may take to be written.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct PluginRun {
    /// The plugin: a `.wasm` file, or the name of one that is built in.
    file: PathBuf,
    /// The plugin's configuration, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = json)]
    config: String,
}

impl PluginRun {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            let metrics = Metrics::default();
            let prepared = tokio::select! {
                biased;
                // Nothing is in flight yet.
                () = shutdown.requested() => return Exit::Interrupted,
                prepared = self.prepare(&metrics) => prepared,
            };
            let (transform, setup, instance) = match prepared {
                Ok(ready) => ready,
                Err((exit, error)) => {
                    complain(error);
                    return exit;
                }
            };
            match run(transform, setup, instance, &metrics, &shutdown).await {
                Ok(()) => Exit::Success,
                Err(error) => {
                    complain(error);
                    Exit::Failure
                }
            }
        })
    }

    /// Loads the plugin and gives it its configuration.
    async fn prepare(&self, metrics: &Metrics) -> Result<(Transform, Setup, Instance), (Exit, String)> {
        let file = self.file.display();
        let name = self.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let wasm = match (tokio::fs::read(&self.file).await, self.file.to_str().and_then(builtin::plugin)) {
            (Err(error), Some(built_in)) if error.kind() == ErrorKind::NotFound => Ok(built_in.to_vec()),
            (read, _) => read,
        };
        let wasm = wasm.map_err(|error| {
            let hint = if error.kind() == ErrorKind::NotFound { self.hint() } else { String::new() };
            (Exit::Failure, format!("failed to read {file}: {error}{hint}"))
        })?;
        // The cache of a host that runs here; without one it only takes longer.
        let engine = Engine::try_new(Some(&Plugins::default().cache)).or_else(|_| Engine::try_new(None));
        let engine = engine.map_err(|error| (Exit::Failure, error.to_string()))?;
        // Compiling cannot be interrupted: it has a thread of its own, which a signal does not wait for.
        let loading = tokio::task::spawn_blocking({
            let name = name.clone();
            move || engine.load(&name, &wasm)
        });
        let plugin = loading.await.map_err(|error| (Exit::Failure, error.to_string()))?;
        let plugin = plugin.map_err(|error| (Exit::Failure, error.to_string()))?;
        let transform = Transform { config: Redacted::plain(&*self.config), ..Transform::new(&*name) };
        let setup = Setup {
            pipeline: PIPELINE.into(),
            transform: name.as_str().into(),
            part: StatePart::WHOLE,
            config: transform.config.clone(),
            limits: transform.limits,
            is_replay: false,
            state: HostState::default(),
            http: HttpClient::of(&transform),
            metrics: metrics.guest(PIPELINE, &name),
        };
        let instance = plugin.instantiate(&setup).await;
        let instance =
            instance.map_err(|fault| (Exit::Configuration, format!("failed to start {file}: {fault}")))?;
        Ok((transform, setup, instance))
    }

    /// What to do where there is no such file, and no built-in plugin of that name.
    fn hint(&self) -> String {
        let name = self.file.to_string_lossy();
        let near = nearest(&name, builtin::plugin_names());
        let near = near.map_or(String::new(), |near| format!("did you mean `tidemill plugin run {near}`? "));
        let known = builtin::hint().unwrap_or("`tidemill plugins` lists those that are built in");
        format!("\nhint: {near}{known}")
    }
}

async fn run(
    transform: Transform,
    setup: Setup,
    instance: Instance,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("failed to open the standard streams: {error}");
    let out = sink::lines::stdout(Format::Jsonl, FatalWrite::AnyError, metrics.sink(PIPELINE, "stdout"))
        .map_err(failed)?;
    let rejected = sink::lines::stderr(Format::Jsonl, metrics.sink(PIPELINE, DEAD_LETTER)).map_err(failed)?;
    let parts = Parts {
        name: PIPELINE.into(),
        source: source::lines::stdin(Format::Jsonl).map_err(failed)?,
        transforms: vec![(transform, setup, vec![instance])],
        sinks: vec![("stdout".into(), Outputs::All, out)],
        dead_letter: Some(rejected),
        persistence: Persistence::GivesUp,
        durable: None,
    };
    let (line, control) = pipeline::build(parts, metrics);
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

/// What the end of the pipeline is to whoever typed the command.
fn outcome(ended: Ended) -> Result<(), String> {
    match ended {
        Ended { ending: Ending::Failed(error), .. } => Err(error),
        Ended { given_up: Some(messages), .. } => {
            Err(format!("it has stopped before all messages reached their end, and gave up {messages}"))
        }
        Ended { ending: Ending::Finished | Ending::Stopped, given_up: None, .. } => Ok(()),
    }
}

/// JSON on the command line, as it was typed.
fn json(text: &str) -> Result<String, String> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
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
