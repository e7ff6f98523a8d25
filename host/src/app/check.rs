//! Checking a configuration against the plugins that are there, without opening anything.

use super::connectors;
use super::instances::setup;
use super::plugin_registry::{PluginRefusal, PluginRegistry, unguarded, untaken_outputs};
use super::{AppError, compile};
use crate::builtin;
use crate::config::{Config, FilePath, Mode, Outputs, Part, Pipeline, PipelinePart, Redacted, nearest};
use crate::connector::CurrentPlugins;
use crate::plugin::{Engine, EngineError, HostState};
use crate::plugin_folder::{Candidate, Change, Folder};
use crate::telemetry::Metrics;
use crate::websocket::{self, Listeners, Unreachable};
use futures_util::stream::{self, StreamExt as _};
use rustix::fs::{Access, access};
use std::collections::BTreeMap;

/// Dials of a check that run at once.
const DIALS_AT_ONCE: usize = 32;

/// The errors and warnings that a check has found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Plugins that cannot serve their pipelines as configured.
    pub errors: Vec<CheckFinding>,
    /// What will not stop a start, but is worth a look.
    pub warnings: Vec<CheckFinding>,
    /// The plugins that are there and can be loaded, as far as they are used.
    pub plugins: CurrentPlugins,
}

/// One thing that checking found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckFinding {
    /// What it is about.
    pub part: Part,
    /// What is wrong, as a text that stands alone.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl CheckFinding {
    /// Something that is wrong with a part of a configuration.
    pub(super) fn error(part: Part, message: impl std::fmt::Display) -> Self {
        Self { part, message: message.to_string(), hint: None }
    }
}

/// Dials every client endpoint once, several at a time, after one of these plugins was asked where one is to be.
/// Answers with those that cannot be reached: the pipeline, the end's name, and why.
pub(crate) async fn check_connections(
    config: &Config,
    plugins: CurrentPlugins,
) -> Vec<(String, String, Unreachable)> {
    let registry = PluginRegistry::of(plugins);
    let metrics = Metrics::default();
    let pipelines = config.pipelines.iter();
    let ends = pipelines.flat_map(|pipeline| {
        let asked = connectors::of(pipeline, &registry, &metrics);
        pipeline.endpoints().map(move |(end, endpoint)| {
            (pipeline.name.clone(), end.to_owned(), connectors::find(&asked, end), endpoint)
        })
    });
    let dials = ends.filter(|(_, _, _, endpoint)| matches!(endpoint.mode, Mode::Client(_)));
    let listeners = &Listeners::default();
    let reached = dials.map(|(pipeline, end, asked, endpoint)| async move {
        let reached = websocket::reach(endpoint, asked.as_deref(), listeners).await;
        reached.err().map(|why| (pipeline, end, why))
    });
    let reached: Vec<_> = stream::iter(reached).buffered(DIALS_AT_ONCE).collect().await;
    reached.into_iter().flatten().collect()
}

/// Loads the plugins that are there and gives each its configuration. Writes nothing but compiled code,
/// and does without a cache that cannot be used, which is a warning.
///
/// # Errors
/// If the engine does not start, or the plugin folder cannot be used for now.
pub(crate) async fn check(config: &Config) -> Result<Checked, AppError> {
    let mut checked = Checked::default();
    let engine = engine(&config.plugins.cache, &mut checked)?;
    let found = match Folder::find(&config.plugins).map_err(AppError::from) {
        Err(error) if error.is_configuration() => {
            let hint = Some("`dir` under [plugins] names another folder".to_owned());
            checked.errors.push(CheckFinding { part: Part::PluginFolder, message: error.to_string(), hint });
            // Of no plugin it is known whether it is there.
            return Ok(checked);
        }
        found => found?,
    };
    let mut uses: BTreeMap<&str, (&Pipeline, PipelinePart)> = BTreeMap::new();
    for pipeline in &config.pipelines {
        let transforms = (0..pipeline.transforms.len()).map(PipelinePart::Plugin);
        let parts = transforms.chain((0..).map(PipelinePart::Connector));
        for (plugin, part) in pipeline.plugins().zip(parts) {
            uses.entry(plugin.expose()).or_insert((pipeline, part));
        }
    }
    let mut check = PluginCheck { config, registry: PluginRegistry::default(), names: Vec::new(), checked };
    for change in found {
        let (name, loaded) = match change {
            Change::Gone { .. } => continue,
            Change::Refused { name, error, .. } => (name, Err(error)),
            Change::Found(Candidate { name, wasm, .. }) if uses.contains_key(&*name) => {
                let loaded = compile::compile(engine.clone(), name.clone(), wasm).await;
                (name, loaded.map(Some))
            }
            Change::Found(Candidate { name, .. }) => (name, Ok(None)),
        };
        match (loaded, uses.get(&*name)) {
            (Ok(Some(plugin)), _) => check.registry.put(plugin),
            (Err(error), Some((pipeline, part))) => {
                check.error(pipeline, *part, format!("plugin {name}: {error}"), None);
            }
            _ => {}
        }
        check.names.push(name);
    }
    for (name, (pipeline, part)) in &uses {
        let Some(built_in) = Candidate::built_in(name).filter(|_| !check.names.iter().any(|is| is == name))
        else {
            continue;
        };
        match compile::compile(engine.clone(), built_in.name, built_in.wasm).await {
            Ok(plugin) => check.registry.put(plugin),
            Err(error) => check.error(pipeline, *part, format!("plugin {name}: {error}"), None),
        }
        check.names.push((*name).to_owned());
    }
    let metrics = Metrics::default();
    for pipeline in &config.pipelines {
        check.pipeline(pipeline, &metrics).await;
        check.connectors(pipeline, &metrics).await;
    }
    Ok(Checked { plugins: check.registry.current(), ..check.checked })
}

/// The engine, without a cache where that cannot be used.
fn engine(cache: &FilePath, checked: &mut Checked) -> Result<Engine, EngineError> {
    let mut warn = |message, hint: &str| {
        let hint = Some(hint.to_owned());
        checked.warnings.push(CheckFinding { part: Part::PluginCache, message, hint });
    };
    match Engine::try_new(Some(cache)) {
        Err(error @ EngineError::Cache { .. }) => {
            warn(error.to_string(), "a start fails with it: `cache` under [plugins] names another folder");
            Engine::try_new(None)
        }
        engine => {
            if let Err(error) = access(&**cache, Access::WRITE_OK | Access::EXEC_OK) {
                let message = format!("the plugin cache {cache} cannot be written: {error}");
                warn(message, "every start compiles all plugins, and takes longer");
            }
            engine
        }
    }
}

/// A check under way.
struct PluginCheck<'c> {
    config: &'c Config,
    registry: PluginRegistry,
    /// The plugins of the folder and the built-in ones in use, those that cannot be loaded included.
    names: Vec<String>,
    checked: Checked,
}

impl PluginCheck<'_> {
    async fn pipeline(&mut self, pipeline: &Pipeline, metrics: &Metrics) {
        let mut outputs: Vec<Option<Vec<String>>> = Vec::new();
        for (index, transform) in pipeline.transforms.iter().enumerate() {
            let Some(plugin) = self.registry.get(transform.plugin.expose()) else {
                self.missing(pipeline, PipelinePart::Plugin(index), &transform.plugin);
                outputs.push(None);
                continue;
            };
            let instance =
                plugin.instantiate(&setup(pipeline, transform, HostState::default(), metrics)).await;
            match instance {
                Ok(instance) => {
                    if let Some(unguarded) = unguarded(transform, instance.description()) {
                        let hint = "leave `on_error` out, and it is a dead letter; or `drop` it";
                        let message = format!("pipeline {}, {unguarded}", pipeline.name);
                        self.warning(pipeline, PipelinePart::Plugin(index), message, Some(hint.to_owned()));
                    }
                    let known = instance.description().outputs.iter().map(ToString::to_string);
                    outputs.push(Some(known.collect()));
                }
                Err(fault) => {
                    let refusal = PluginRefusal::Init {
                        pipeline: pipeline.name.clone(),
                        transform: transform.name.clone(),
                        plugin: transform.plugin.shown().to_owned(),
                        fault,
                    };
                    self.error(pipeline, PipelinePart::PluginConfig(index), refusal.to_string(), None);
                    outputs.push(None);
                }
            }
        }
        self.outputs(pipeline, &outputs);
    }

    /// Tries out the plugins that are asked before dials.
    async fn connectors(&mut self, pipeline: &Pipeline, metrics: &Metrics) {
        let connectors = connectors::of(pipeline, &self.registry, metrics);
        for (index, connector) in connectors.iter().enumerate() {
            let Some(plugin) = self.registry.get(connector.plugin().expose()) else {
                self.missing(pipeline, PipelinePart::Connector(index), connector.plugin());
                continue;
            };
            if let Err(refusal) = connectors::try_out(&pipeline.name, connector, &plugin).await {
                self.error(pipeline, PipelinePart::ConnectorConfig(index), refusal.to_string(), None);
            }
        }
    }

    /// Says that a plugin is not in the folder; of one that is and cannot be loaded, that was said before.
    fn missing(&mut self, pipeline: &Pipeline, part: PipelinePart, missing: &Redacted) {
        if self.names.iter().any(|name| name == missing.expose()) {
            return;
        }
        let dir = &self.config.plugins.dir;
        let message = format!(
            "pipeline {}: there is no {dir}/{missing}.wasm yet; the pipeline waits for it",
            pipeline.name
        );
        let mut known: Vec<&str> = self.names.iter().map(String::as_str).collect();
        known.extend(builtin::plugin_names().map(|name| -> &str { name }));
        let hint = match nearest(missing.shown(), known.iter().copied()) {
            Some(near) => Some(format!("did you mean \"{near}\"?")),
            None => builtin::hint().map(str::to_owned),
        };
        self.warning(pipeline, part, message, hint);
    }

    /// Compares the outputs that sinks take with those of the last transform; `outputs` has those of each
    /// transform whose plugin started.
    fn outputs(&mut self, pipeline: &Pipeline, outputs: &[Option<Vec<String>>]) {
        let last = pipeline.transforms.len().wrapping_sub(1);
        let with_outputs = pipeline.transforms.iter().zip(outputs).enumerate();
        for (index, (transform, known)) in with_outputs.take(last) {
            let Some([first, others @ ..]) = known.as_deref() else { continue };
            let others = if others.is_empty() { "" } else { ", and to others," };
            let message = format!(
                "pipeline {}: what transform {} sends to the output \"{}\"{others} is dropped: sinks take the outputs of \
                 the last transform",
                pipeline.name,
                transform.name,
                transform.config.json().told(first)
            );
            let hint = Some(format!("let {} be the last transform", transform.name));
            self.warning(pipeline, PipelinePart::Plugin(index), message, hint);
        }
        let Some(Some(known)) = outputs.get(last) else { return };
        let plugin = pipeline.transforms[last].plugin.shown();
        // A name may be what the plugin was told in confidence.
        let config = pipeline.transforms[last].config.json();
        let with_default = || std::iter::once("default").chain(known.iter().map(String::as_str));
        for (sink, outputs_of_sink) in pipeline.sinks.iter().map(|sink| &sink.outputs).enumerate() {
            let Outputs::Named(names) = outputs_of_sink else { continue };
            for (output, name) in names.iter().enumerate() {
                if with_default().any(|known| known == name.expose()) {
                    continue;
                }
                let refusal = PluginRefusal::Output {
                    pipeline: pipeline.name.clone(),
                    plugin: plugin.to_owned(),
                    output: name.shown().to_owned(),
                    known: config.told(&with_default().collect::<Vec<_>>().join(", ")),
                };
                let has_it =
                    |of: &Option<Vec<String>>| of.iter().flatten().any(|known| known == name.expose());
                let hint = match outputs.iter().position(has_it) {
                    Some(earlier) => Some(format!(
                        "the transform `{}` has it, but sinks take the outputs of the last transform",
                        pipeline.transforms[earlier].name
                    )),
                    None => nearest(name.shown(), with_default())
                        .map(|near| format!("did you mean \"{}\"?", config.told(near))),
                };
                self.error(pipeline, PipelinePart::Output { sink, output }, refusal.to_string(), hint);
            }
        }
        for output in untaken_outputs(pipeline, known.iter().map(String::as_str)) {
            let message = format!(
                "pipeline {}: no sink takes the output \"{}\"; its messages are dropped",
                pipeline.name,
                config.told(output)
            );
            self.warning(pipeline, PipelinePart::Plugin(last), message, None);
        }
    }

    fn error(&mut self, pipeline: &Pipeline, part: PipelinePart, message: String, hint: Option<String>) {
        let part = Part::OfPipeline(pipeline.name.clone(), part);
        self.checked.errors.push(CheckFinding { part, message, hint });
    }

    fn warning(&mut self, pipeline: &Pipeline, part: PipelinePart, message: String, hint: Option<String>) {
        let part = Part::OfPipeline(pipeline.name.clone(), part);
        self.checked.warnings.push(CheckFinding { part, message, hint });
    }
}
