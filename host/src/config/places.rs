//! Where the parts of a configuration stand in its file, for what is found out about them later: a
//! plugin that is not there, an output that it does not have, a folder that cannot be used.

use super::endpoint::{EndpointAt, mode};
use super::error::{ConfigError, LineIndex};
use super::pipeline::{PipelineAt, SinkConfigAt, dead_letter_kind, sink_kind, source};
use super::report::Span;
use super::root::{Config, ConfigAt, PluginsAt};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The places of the parts of a configuration in its file.
#[derive(Clone, Debug)]
pub struct Places {
    file: PathBuf,
    text: Arc<str>,
    /// The keys `dir` and `cache` of the table `[plugins]`, or the table where they are left out.
    plugin_folder: Option<Span>,
    plugin_cache: Option<Span>,
    /// Those of pipelines, by the names of the pipelines.
    pipelines: BTreeMap<String, PipelinePlaces>,
}

/// A part of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The plugin folder.
    PluginFolder,
    /// The folder of compiled code.
    PluginCache,
    /// A part of the pipeline of this name.
    OfPipeline(String, PipelinePart),
}

/// A part of a pipeline, by its number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelinePart {
    /// All of it.
    Whole,
    /// The name of a transform's plugin.
    Plugin(usize),
    /// A transform's `config`; its plugin where that is left out.
    PluginConfig(usize),
    /// The name of a connector's plugin, of those of the pipeline's `connectors`.
    Connector(usize),
    /// A connector's `config`; its plugin where that is left out.
    ConnectorConfig(usize),
    /// An output that a sink takes.
    Output {
        /// The number of the sink, from 0.
        sink: usize,
        /// The output, of those that the sink takes.
        output: usize,
    },
}

#[derive(Clone, Debug)]
struct PipelinePlaces {
    /// The pipeline's table.
    header: Span,
    /// Of each transform: its plugin, and its `config` if it has one.
    transforms: Vec<(Span, Option<Span>)>,
    /// The same of each connector.
    connectors: Vec<(Span, Option<Span>)>,
    /// Of each sink: the outputs that it takes.
    sinks: Vec<Vec<Span>>,
}

impl Places {
    /// The places of a file that has no error.
    pub(super) fn of(file: &Path, text: &str, config: &Config, at: &ConfigAt) -> Self {
        let of_pipelines = at.pipelines.as_ref().map_or(&[] as &[PipelineAt], |at| &at.each);
        let pipelines = config.pipelines.iter().zip(of_pipelines).map(|(pipeline, at)| {
            let transforms = at
                .transforms
                .iter()
                .flat_map(|at| &at.each)
                .map(|at| (at.plugin.clone().unwrap_or_else(|| at.header.clone()), at.config.clone()));
            let outputs = |at: &SinkConfigAt| at.outputs.iter().flat_map(|at| at.each.clone()).collect();
            let sinks = at.sinks.iter().flat_map(|at| &at.each).map(outputs);
            let places = PipelinePlaces {
                header: at.header.clone(),
                transforms: transforms.collect(),
                connectors: connectors(at),
                sinks: sinks.collect(),
            };
            (pipeline.name.clone(), places)
        });
        let plugins = at.plugins.as_ref();
        let key = |key: fn(&PluginsAt) -> &Option<Span>| {
            plugins.map(|at| key(at).as_ref().unwrap_or(&at.header).clone())
        };
        Self {
            file: file.to_owned(),
            text: text.into(),
            plugin_folder: key(|at| &at.dir),
            plugin_cache: key(|at| &at.cache),
            pipelines: pipelines.collect(),
        }
    }

    /// Makes an error or a warning about a part of the configuration, with its place in the file if it has one.
    pub fn said(&self, part: &Part, message: String, hint: Option<String>) -> ConfigError {
        let span = match part {
            Part::PluginFolder => self.plugin_folder.as_ref(),
            Part::PluginCache => self.plugin_cache.as_ref(),
            Part::OfPipeline(pipeline, part) => self.pipelines.get(pipeline).map(|places| places.span(*part)),
        };
        let place = span.map(|span| LineIndex::of(&self.text).place(span.clone()));
        ConfigError { file: self.file.clone(), place, message, hint }
    }
}

/// Of each plugin that is asked before dials, in the order of the endpoints: its name, and its `config`.
fn connectors(at: &PipelineAt) -> Vec<(Span, Option<Span>)> {
    let of_source = at.source.iter().filter_map(|at| match &at.case {
        Some(source::At::WebSocket(at)) => Some(&at.endpoint),
        _ => None,
    });
    let of_sinks = at.sinks.iter().flat_map(|at| &at.each).filter_map(|at| match &at.kind.case {
        Some(sink_kind::At::WebSocket(at)) => Some(&at.endpoint),
        _ => None,
    });
    let of_dead_letter = at.dead_letter.iter().filter_map(|at| match &at.kind.case {
        Some(dead_letter_kind::At::WebSocket(at)) => Some(&at.endpoint),
        _ => None,
    });
    let connector = |at: &EndpointAt| {
        let Some(mode::At::Client(client)) = &at.mode.case else { return None };
        let at = client.before_connect.as_ref()?;
        Some((at.plugin.clone().unwrap_or_else(|| at.header.clone()), at.config.clone()))
    };
    of_source.chain(of_sinks).chain(of_dead_letter).filter_map(connector).collect()
}

impl PipelinePlaces {
    fn span(&self, part: PipelinePart) -> &Span {
        let span = match part {
            PipelinePart::Whole => None,
            PipelinePart::Plugin(transform) => self.transforms.get(transform).map(|(plugin, _)| plugin),
            PipelinePart::PluginConfig(transform) => {
                self.transforms.get(transform).map(|(plugin, config)| config.as_ref().unwrap_or(plugin))
            }
            PipelinePart::Connector(connector) => self.connectors.get(connector).map(|(plugin, _)| plugin),
            PipelinePart::ConnectorConfig(connector) => {
                self.connectors.get(connector).map(|(plugin, config)| config.as_ref().unwrap_or(plugin))
            }
            PipelinePart::Output { sink, output } => {
                self.sinks.get(sink).and_then(|outputs| outputs.get(output))
            }
        };
        span.unwrap_or(&self.header)
    }
}
