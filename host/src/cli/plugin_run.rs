//! `tidemill plugin run`: one plugin between standard input and output, as in a pipeline.

use super::{Exit, block_on, complain};
use crate::builtin;
use crate::config::{DEAD_LETTER, Format, Outputs, Plugins, Redacted, Transform};
use crate::pipeline::{self, Control, Ended, Ending, Parts};
use crate::plugin::{Engine, HostState, Instance, Setup};
use crate::shutdown::Shutdown;
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
            let (transform, setup, instance) = match self.prepare(&metrics).await {
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
        let wasm = wasm.map_err(|error| (Exit::Failure, format!("failed to read {file}: {error}")))?;
        // The cache of a host that runs here; without one it only takes longer.
        let engine = Engine::try_new(Some(&Plugins::default().cache)).or_else(|_| Engine::try_new(None));
        let engine = engine.map_err(|error| (Exit::Failure, error.to_string()))?;
        let plugin = engine.load(&name, &wasm);
        let plugin = plugin.map_err(|error| (Exit::Failure, error.to_string()))?;
        let transform = Transform { config: Redacted::plain(&*self.config), ..Transform::new(&*name) };
        let setup = Setup {
            pipeline: PIPELINE.into(),
            transform: name.as_str().into(),
            config: transform.config.clone(),
            limits: transform.limits,
            state: HostState::default(),
            metrics: metrics.guest(PIPELINE, &name),
        };
        let instance = plugin.instantiate(&setup).await;
        let instance =
            instance.map_err(|fault| (Exit::Configuration, format!("failed to start {file}: {fault}")))?;
        Ok((transform, setup, instance))
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
    let out = sink::lines::stdout(Format::Jsonl, metrics.sink(PIPELINE, "stdout")).map_err(failed)?;
    let rejected = sink::lines::stderr(Format::Jsonl, metrics.sink(PIPELINE, DEAD_LETTER)).map_err(failed)?;
    let parts = Parts {
        name: PIPELINE.into(),
        source: source::lines::stdin(Format::Jsonl).map_err(failed)?,
        transforms: vec![(transform, setup, instance)],
        sinks: vec![("stdout".into(), Outputs::All, out)],
        dead_letter: Some(rejected),
    };
    let (line, control) = pipeline::build(parts, metrics);
    let mut running = std::pin::pin!(line.run(|| ()));
    let Ended { ending, .. } = tokio::select! {
        ended = &mut running => ended,
        () = shutdown.requested() => {
            // A line that has ended needs no telling.
            let _ = control.send(Control::Stop { deadline: Instant::now() + GRACE }).await;
            running.await
        }
    };
    match ending {
        Ending::Finished | Ending::Stopped => Ok(()),
        Ending::Failed(error) => Err(error),
    }
}

/// JSON on the command line, as it was typed.
fn json(text: &str) -> Result<String, String> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}
