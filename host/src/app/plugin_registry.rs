//! The plugins that are there, by name, and what is made of them for a pipeline.

use crate::config::{self, MAX_SINKS, Outputs, Redacted, Transform};
use crate::http_client::HttpClient;
use crate::plugin::{Description, Fault, HostState, Instance, Plugin, Setup, StatePart};
use crate::telemetry::Metrics;
use futures_util::future::try_join_all;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The current version of each plugin.
#[derive(Debug, Default)]
pub(super) struct PluginRegistry {
    plugins: BTreeMap<String, Plugin>,
}

/// Why a plugin cannot serve a pipeline as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum PluginRefusal {
    /// It does not take back what it, or an earlier version of it, knew when its pipeline last ended.
    #[error(
        "pipeline {pipeline}, transform {transform}: plugin {plugin} does not take its state back: {fault}"
    )]
    State {
        /// The name of the pipeline.
        pipeline: String,
        /// The label of the stage.
        transform: String,
        /// The name of the plugin.
        plugin: String,
        /// The fault that `restore` ended with.
        fault: Fault,
    },
    /// It does not take its configuration, or fails before it is asked anything.
    #[error("pipeline {pipeline}, transform {transform}: plugin {plugin} does not start: {fault}")]
    Init {
        /// The name of the pipeline.
        pipeline: String,
        /// The label of the stage.
        transform: String,
        /// The name of the plugin.
        plugin: String,
        /// The fault that the start of the plugin ended with.
        fault: Fault,
    },
    /// A sink takes an output that it does not have.
    #[error(
        "pipeline {pipeline}: a sink takes the output \"{output}\", which plugin {plugin} does not have (it has: {known})"
    )]
    Output {
        /// The name of the pipeline.
        pipeline: String,
        /// The name of the plugin.
        plugin: String,
        /// The output that the sink takes.
        output: String,
        /// The outputs that the plugin has, separated by commas.
        known: String,
    },
}

/// A stage that is ready to run.
pub(super) type Ready = (config::Transform, Setup, Instance);

impl PluginRegistry {
    /// The current version of a plugin.
    pub(super) fn get(&self, name: &str) -> Option<&Plugin> {
        self.plugins.get(name)
    }

    /// Puts a version in the place of the one before.
    pub(super) fn put(&mut self, plugin: Plugin) {
        self.plugins.insert(plugin.name().to_string(), plugin);
    }

    /// The plugin of each transform of a pipeline.
    ///
    /// # Errors
    /// The names of those that are not there, each once.
    pub(super) fn all_of<'a>(
        &self,
        pipeline: &'a config::Pipeline,
    ) -> Result<Vec<Plugin>, Vec<&'a Redacted>> {
        let mut missing: Vec<&Redacted> = Vec::new();
        let mut plugins = Vec::with_capacity(pipeline.transforms.len());
        for Transform { plugin: name, .. } in &pipeline.transforms {
            match self.get(name.expose()) {
                Some(plugin) => plugins.push(plugin.clone()),
                None if missing.iter().any(|known| known.expose() == name.expose()) => {}
                None => missing.push(name),
            }
        }
        if missing.is_empty() { Ok(plugins) } else { Err(missing) }
    }
}

/// Makes an instance for every transform of a pipeline, side by side; `plugins` has the plugin of each, and
/// `states` what it is to go on with.
pub(super) async fn stages(
    pipeline: &config::Pipeline,
    plugins: &[Plugin],
    states: &[HostState],
    metrics: &Metrics,
) -> Result<Vec<Ready>, PluginRefusal> {
    let all = pipeline.transforms.iter().zip(plugins).zip(states);
    let made = all.map(|((transform, plugin), state)| async move {
        let setup = setup(pipeline, transform, state.clone(), metrics);
        let instance = instance(transform, plugin, &setup).await?;
        Ok((transform.clone(), setup, instance))
    });
    let stages = try_join_all(made).await?;
    if let Some((transform, _, instance)) = stages.last() {
        check_outputs(pipeline, transform.plugin.shown(), instance.description())?;
    }
    Ok(stages)
}

/// Makes an instance that goes on with what the host has kept of the stage.
pub(super) async fn instance(
    transform: &config::Transform,
    plugin: &Plugin,
    setup: &Setup,
) -> Result<Instance, PluginRefusal> {
    let shown = transform.plugin.shown();
    let place = || (setup.pipeline.to_string(), setup.transform.to_string(), shown.to_owned());
    let mut instance = plugin.instantiate(setup).await.map_err(|fault| {
        let (pipeline, transform, plugin) = place();
        PluginRefusal::Init { pipeline, transform, plugin, fault }
    })?;
    let snapshots = setup.state.snapshots();
    if !snapshots.is_empty()
        && let Err(fault) = instance.restore(&snapshots, StatePart::WHOLE).await
    {
        let (pipeline, transform, plugin) = place();
        return Err(PluginRefusal::State { pipeline, transform, plugin, fault });
    }
    Ok(instance)
}

/// Whether the plugin of the last transform has every output that a sink takes by name.
pub(super) fn check_outputs(
    pipeline: &config::Pipeline,
    plugin: &str,
    description: &Description,
) -> Result<(), PluginRefusal> {
    debug_assert!(pipeline.sinks.len() <= MAX_SINKS, "the configuration has refused more");
    let named = pipeline.sinks.iter().filter_map(|sink| match &sink.outputs {
        Outputs::All => None,
        Outputs::Named(names) => Some(names),
    });
    let has = |name: &str| name == "default" || description.outputs.iter().any(|known| **known == *name);
    let missing = named.flatten().find(|name| !has(name.expose()));
    match missing {
        None => Ok(()),
        Some(output) => Err(PluginRefusal::Output {
            pipeline: pipeline.name.clone(),
            plugin: plugin.to_owned(),
            output: output.shown().to_owned(),
            known: {
                let known = description.outputs.iter().map(|known| &**known);
                let known = std::iter::once("default").chain(known).collect::<Vec<_>>().join(", ");
                let last = pipeline.transforms.last();
                last.map_or(known.clone(), |transform| transform.config.told(&known))
            },
        }),
    }
}

/// Of the outputs of the last transform, those that no sink takes.
pub(super) fn untaken_outputs<'o>(
    pipeline: &config::Pipeline,
    outputs: impl Iterator<Item = &'o str>,
) -> Vec<&'o str> {
    let is_taken = |output: &str| {
        pipeline.sinks.iter().any(|sink| match &sink.outputs {
            Outputs::All => true,
            Outputs::Named(names) => names.iter().any(|name| name.expose() == output),
        })
    };
    outputs.filter(|output| !is_taken(output)).collect()
}

pub(super) fn setup(
    pipeline: &config::Pipeline,
    transform: &config::Transform,
    state: HostState,
    metrics: &Metrics,
) -> Setup {
    Setup {
        pipeline: Arc::from(pipeline.name.as_str()),
        transform: Arc::from(transform.name.as_str()),
        config: transform.config.clone(),
        limits: transform.limits,
        is_replay: pipeline.source.is_recording(),
        state,
        http: HttpClient::of(transform),
        metrics: metrics.guest(&pipeline.name, &transform.name),
    }
}
