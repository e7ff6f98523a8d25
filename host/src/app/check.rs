//! Checking a configuration against the plugins that are there, without opening anything.

use super::shelf::{Refusal, Shelf, untaken_outputs};
use super::{AppError, compile};
use crate::config::{Config, Mode};
use crate::plugin::Engine;
use crate::reload::{Candidate, Change, Folder};
use crate::telemetry::Metrics;
use crate::websocket::{self, Listeners, Unreachable};
use futures_util::stream::{self, StreamExt as _};

/// Dials of a check that run at once.
const DIALS_AT_ONCE: usize = 32;

/// What checking found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Plugins that cannot serve their pipelines as configured.
    pub errors: Vec<String>,
    /// What will not stop a start, but is worth a look.
    pub warnings: Vec<String>,
}

/// Dials every client endpoint once, several at a time. Answers with those that cannot be reached: the
/// pipeline, the end's name, and why.
pub async fn check_connections(config: &Config) -> Vec<(String, String, Unreachable)> {
    let pipelines = config.pipelines.iter();
    let ends = pipelines.flat_map(|pipeline| {
        pipeline.endpoints().map(move |(end, endpoint)| (pipeline.name.clone(), end.to_owned(), endpoint))
    });
    let dials = ends.filter(|(_, _, endpoint)| matches!(endpoint.mode, Mode::Client(_)));
    let listeners = Listeners::default();
    let reached = dials.map(|(pipeline, end, endpoint)| {
        let reached = websocket::reach(endpoint, &listeners);
        async move { reached.await.err().map(|why| (pipeline, end, why)) }
    });
    let reached: Vec<_> = stream::iter(reached).buffered(DIALS_AT_ONCE).collect().await;
    reached.into_iter().flatten().collect()
}

/// Loads the plugins that are there and gives each its configuration.
///
/// # Errors
/// If the engine or the plugin folder cannot be used.
pub async fn check(config: &Config) -> Result<Checked, AppError> {
    let engine = Engine::try_new(Some(&config.plugins.cache))?;
    let (_folder, found) = Folder::open(&config.plugins)?;
    let metrics = Metrics::default();
    let mut shelf = Shelf::default();
    let mut checked = Checked::default();
    let needed = |name: &str| {
        config
            .pipelines
            .iter()
            .flat_map(|pipeline| &pipeline.transforms)
            .any(|each| each.plugin.expose() == name)
    };
    for change in found {
        match change {
            Change::Found(Candidate { name, wasm, .. }) if needed(&name) => {
                match compile::compile(engine.clone(), name.clone(), wasm).await {
                    Ok(plugin) => shelf.put(plugin),
                    Err(error) => checked.errors.push(format!("plugin {name}: {error}")),
                }
            }
            Change::Refused { name, error, .. } if needed(&name) => {
                checked.errors.push(format!("plugin {name}: {error}"));
            }
            Change::Found(_) | Change::Refused { .. } | Change::Gone { .. } => {}
        }
    }
    for pipeline in &config.pipelines {
        for missing in shelf.missing(pipeline) {
            let dir = &config.plugins.dir;
            let nearest =
                shelf.nearest(&missing).map_or(String::new(), |near| format!("; did you mean {near}?"));
            checked.warnings.push(format!(
                "pipeline {}: there is no {dir}/{missing}.wasm yet; the pipeline waits for it{nearest}",
                pipeline.name
            ));
        }
        match shelf.stages(pipeline, &metrics).await {
            Err(refusal @ (Refusal::Init { .. } | Refusal::Output { .. })) => {
                checked.errors.push(refusal.to_string());
            }
            Ok(stages) => {
                let last = stages.last().filter(|_| shelf.missing(pipeline).is_empty());
                let untaken = last.map(|(_, _, last)| untaken_outputs(pipeline, last.description()));
                for output in untaken.unwrap_or_default() {
                    checked.warnings.push(format!(
                        "pipeline {}: no sink takes the output \"{output}\"; its messages are dropped",
                        pipeline.name
                    ));
                }
            }
        }
    }
    Ok(checked)
}
