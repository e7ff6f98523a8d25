//! Where the parts of a configuration stand in its file, for what is found out about them later: a
//! plugin that is not there, an output that it does not have.

use super::error::{ConfigError, LineIndex};
use super::pipeline::{Pipeline, PipelineAt, SinkConfigAt};
use super::report::Span;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The places of the parts of pipelines in a configuration file, by the names of the pipelines.
#[derive(Clone, Debug)]
pub struct Places {
    file: PathBuf,
    text: Arc<str>,
    pipelines: BTreeMap<String, PipelinePlaces>,
}

/// A part of a pipeline, by its number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The name of a transform's plugin.
    Plugin(usize),
    /// A transform's `config`; its plugin where that is left out.
    PluginConfig(usize),
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
    /// Of each sink: the outputs that it takes.
    sinks: Vec<Vec<Span>>,
}

impl Places {
    /// The places of a file that has no error, and of its pipelines.
    pub(super) fn of(file: &Path, text: &str, pipelines: &[Pipeline], at: &[PipelineAt]) -> Self {
        let pipelines = pipelines.iter().zip(at).map(|(pipeline, at)| {
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
                sinks: sinks.collect(),
            };
            (pipeline.name.clone(), places)
        });
        Self { file: file.to_owned(), text: text.into(), pipelines: pipelines.collect() }
    }

    /// Makes an error or a warning about a part of a pipeline, with its place in the file.
    pub fn said(&self, pipeline: &str, part: Part, message: String, hint: Option<String>) -> ConfigError {
        let place = self.pipelines.get(pipeline).map(|places| {
            let span = match part {
                Part::Plugin(transform) => places.transforms.get(transform).map(|(plugin, _)| plugin),
                Part::PluginConfig(transform) => {
                    places.transforms.get(transform).map(|(plugin, config)| config.as_ref().unwrap_or(plugin))
                }
                Part::Output { sink, output } => {
                    places.sinks.get(sink).and_then(|outputs| outputs.get(output))
                }
            };
            LineIndex::of(&self.text).place(span.unwrap_or(&places.header).clone())
        });
        ConfigError { file: self.file.clone(), place, message, hint }
    }
}
