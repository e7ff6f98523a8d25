//! The plugins that are there, by name, and why one cannot serve a pipeline.

use crate::config::{self, MAX_SINKS, OnError, Outputs, Redacted};
use crate::connector::CurrentPlugins;
use crate::plugin::{Description, Fault, Plugin, Setup};

/// The current version of each plugin. A cheap handle.
#[derive(Clone, Debug, Default)]
pub(super) struct PluginRegistry {
    plugins: CurrentPlugins,
}

/// Why a plugin cannot serve a pipeline as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum PluginRefusal {
    /// It does not take back what it, or an earlier version of it, knew when its pipeline last ended.
    #[error("pipeline {pipeline}, transform {transform}: {}", self.reason())]
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
    #[error("pipeline {pipeline}, transform {transform}: {}", self.reason())]
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
    /// It is to be asked before an endpoint dials, and does not take its configuration, or is no connector.
    #[error("pipeline {pipeline}, {endpoint}: {}", self.reason())]
    Connector {
        /// The name of the pipeline.
        pipeline: String,
        /// The name of the endpoint.
        endpoint: String,
        /// The name of the plugin.
        plugin: String,
        /// The fault that the start of the plugin ended with.
        fault: Fault,
    },
    /// A sink takes an output that it does not have.
    #[error("pipeline {pipeline}: {}", self.reason())]
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

impl PluginRefusal {
    /// A plugin does not take its configuration in a stage.
    pub(super) fn init(transform: &config::Transform, setup: &Setup, fault: Fault) -> Self {
        Self::Init {
            pipeline: setup.pipeline.to_string(),
            transform: setup.transform.to_string(),
            plugin: transform.plugin.shown().to_owned(),
            fault,
        }
    }

    /// A plugin does not take its state back in a stage.
    pub(super) fn state(transform: &config::Transform, setup: &Setup, fault: Fault) -> Self {
        Self::State {
            pipeline: setup.pipeline.to_string(),
            transform: setup.transform.to_string(),
            plugin: transform.plugin.shown().to_owned(),
            fault,
        }
    }

    /// Why, without the place where the plugin would serve.
    pub fn reason(&self) -> String {
        match self {
            Self::State { plugin, fault, .. } => {
                format!("plugin {plugin} does not take its state back: {fault}")
            }
            Self::Init { plugin, fault, .. } => format!("plugin {plugin} does not start: {fault}"),
            Self::Connector { plugin, fault, .. } => {
                format!("plugin {plugin} of before_connect does not start: {fault}")
            }
            Self::Output { plugin, output, known, .. } => {
                format!(
                    "a sink takes the output \"{output}\", which plugin {plugin} does not have (it has: {known})"
                )
            }
        }
    }
}

impl PluginRegistry {
    /// These plugins.
    pub(super) fn of(plugins: CurrentPlugins) -> Self {
        Self { plugins }
    }

    /// The current version of a plugin.
    pub(super) fn get(&self, name: &str) -> Option<Plugin> {
        self.plugins.get(name)
    }

    /// The same, for whoever looks a version up at work.
    pub(super) fn current(&self) -> CurrentPlugins {
        self.plugins.clone()
    }

    /// Puts a version in the place of the one before.
    pub(super) fn put(&self, plugin: Plugin) {
        self.plugins.put(plugin);
    }

    /// The plugin of each transform of a pipeline, and then that of each connector.
    ///
    /// # Errors
    /// The names of those that are not there, each once.
    pub(super) fn all_of<'a>(
        &self,
        pipeline: &'a config::Pipeline,
    ) -> Result<Vec<Plugin>, Vec<&'a Redacted>> {
        let mut missing: Vec<&Redacted> = Vec::new();
        let mut plugins = Vec::with_capacity(pipeline.transforms.len());
        for name in pipeline.plugins() {
            match self.get(name.expose()) {
                Some(plugin) => plugins.push(plugin),
                None if missing.iter().any(|known| known.expose() == name.expose()) => {}
                None => missing.push(name),
            }
        }
        if missing.is_empty() { Ok(plugins) } else { Err(missing) }
    }
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
                last.map_or(known.clone(), |transform| transform.config.json().told(&known))
            },
        }),
    }
}

/// What is to be known of a transform that lets messages pass which its plugin says must not.
pub(super) fn unguarded(transform: &config::Transform, description: &Description) -> Option<String> {
    (description.guards && transform.on_error == OnError::Pass).then(|| {
        format!(
            "transform {}: with `on_error = \"pass\"` a message that plugin {} rejects or fails on goes on as it came, \
             with what the plugin is there to hide",
            transform.name,
            transform.plugin.shown()
        )
    })
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
