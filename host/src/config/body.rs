//! A part of the configuration that comes as JSON, in the shape of the file.
//!
//! The JSON becomes the same tree of values as the text of a file (`json_tree.rs`), so that one declaration of
//! keys, one set of variables and one set of errors holds for both; errors are named by JSON pointers.

use super::json_tree::{JsonTree, JsonValue};
use super::pipeline::{PipelineAt, SinkConfigAt, SourceConfigAt};
use super::read::{self, Table as _};
use super::report::{Finding, Report, Span};
use super::root::home;
use super::shape::{self, Shape};
use super::{
    Endpoint, Environment, Pipeline, Server, SinkConfig, SinkKind, SourceConfig, agree, files, written,
};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// Reads parts of a configuration that come as JSON, as the configuration file would be read.
#[derive(Clone, Default)]
pub struct BodyReader {
    folder: PathBuf,
    environment: Environment,
}

/// The reason why a JSON body is no part of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The body is not JSON; the text says why.
    NotJson(String),
    /// All mistakes of the body, at least one, in the order of the body.
    Wrong(Vec<Mistake>),
}

/// One mistake of a JSON body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The JSON pointer of the value or key that is meant; "" is the whole body.
    pub pointer: String,
    /// What is wrong, as a text that stands alone.
    pub message: String,
    /// What to do about the mistake, where that is known.
    pub hint: Option<String>,
}

impl BodyReader {
    /// Makes a reader: paths are relative to the folder of `file`, and variables come from `environment`.
    pub fn new(file: &Path, environment: Environment) -> Self {
        Self { folder: file.parent().unwrap_or(Path::new("")).to_owned(), environment }
    }

    /// Reads one pipeline. `server` has what endpoints in server mode may leave out.
    ///
    /// # Errors
    /// All mistakes of the body.
    pub fn pipeline(&self, body: &[u8], server: &Server) -> Result<Pipeline, BodyError> {
        let (mut pipeline, shown) = self.read(body, server, |reader, table, at| {
            let (mut pipeline, at): (Pipeline, PipelineAt) = reader.table(table, at);
            files::report_shared(reader.report, std::iter::once((&pipeline, &at)));
            agree::agree(reader.report, server, &mut agree::served(&mut pipeline, &at));
            Some(pipeline)
        })?;
        pipeline.set_written(Some(shown));
        Ok(pipeline)
    }

    /// Reads the WebSocket endpoint of a source or a sink.
    ///
    /// # Errors
    /// All mistakes of the body, or that it is no WebSocket endpoint.
    pub fn endpoint(&self, body: &[u8], server: &Server) -> Result<Endpoint, BodyError> {
        let make = |reader: &mut read::TableReader<'_, '_>, table: &DeTable<'_>, at: &Span| {
            let (endpoint, tag) = if is_sink(table) {
                let (sink, at): (SinkConfig, SinkConfigAt) = reader.table(table, at);
                let endpoint = match sink.kind {
                    SinkKind::WebSocket(sink) => Some(sink.endpoint),
                    _ => None,
                };
                (endpoint, at.kind.tag)
            } else {
                let (source, at): (SourceConfig, SourceConfigAt) = reader.table(table, at);
                let endpoint = match source {
                    SourceConfig::WebSocket(source) => Some(source.endpoint),
                    _ => None,
                };
                (endpoint, at.tag)
            };
            if let (None, Some(tag)) = (&endpoint, tag) {
                let message = "only an endpoint of `type = \"websocket\"` connects to something";
                reader.report.error(&tag, message);
            }
            endpoint
        };
        self.read(body, server, make).map(|(endpoint, _)| endpoint)
    }

    /// Makes something of a body; answers how it may be shown, too.
    fn read<T>(
        &self,
        body: &[u8],
        server: &Server,
        make: impl FnOnce(&mut read::TableReader<'_, '_>, &DeTable<'_>, &Span) -> Option<T>,
    ) -> Result<(T, Value), BodyError> {
        let json: JsonValue =
            serde_json::from_slice(body).map_err(|error| BodyError::NotJson(error.to_string()))?;
        let JsonTree { value, pointers, found } = JsonTree::of(&json);
        let wrong = |found| Err(BodyError::Wrong(mistakes(&pointers, found)));
        if !found.is_empty() {
            return wrong(found);
        }
        let mut report = Report::of_body(&self.folder, &pointers);
        let Some(table) = value.get_ref().as_table() else {
            report.error(&value.span(), "the body must be a JSON object");
            return wrong(report.errors);
        };
        let mut reader =
            read::TableReader::new(&mut report, &self.environment, home).with_inherited(server.inherited());
        let made = make(&mut reader, table, &value.span());
        let mut shown = None;
        if reader.report.errors.is_empty() {
            shown = written::shown(&mut reader, &value);
        }
        match (made, shown) {
            (Some(made), Some(shown)) if report.errors.is_empty() => Ok((made, shown)),
            _ => wrong(report.errors),
        }
    }
}

/// What was found, in the order of the body.
fn mistakes(pointers: &[String], mut found: Vec<Finding>) -> Vec<Mistake> {
    found.sort_by_key(|finding| finding.at.start);
    let mistake = |Finding { at, message, hint }| {
        let pointer = pointers.get(at.start).cloned().unwrap_or_default();
        Mistake { pointer, message, hint }
    };
    found.into_iter().map(mistake).collect()
}

/// Whether a table that may be a source's or a sink's is a sink's: if it has a key that only sinks have.
fn is_sink(table: &DeTable<'_>) -> bool {
    let knows = |shape: &'static Shape, name: &str| shape::has(&shape.parts, name);
    let mut names = table.keys().map(|name| name.get_ref());
    names.any(|name| knows(SinkConfig::shape(), name) && !knows(SourceConfig::shape(), name))
}

impl fmt::Debug for BodyReader {
    /// The environment has secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("folder", &self.folder).finish_non_exhaustive()
    }
}
