//! A part of the configuration that comes as JSON, in the shape of the file.
//!
//! The JSON is written as the TOML that means the same, so that one table of keys, one set of
//! variables and one set of errors holds for both; errors are named by JSON pointers (RFC 6901).

use super::file::syntax;
use super::pipeline::{PipelineAt, SinkAt, SourceAt};
use super::report::{Finding, Report, Span};
use super::shape::{self, Shape};
use super::table::Table as _;
use super::{Endpoint, Environment, Pipeline, Server, Sink, SinkKind, Source, agree, read, written};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// The key that the body has in the TOML it is written as.
const BODY: &str = "body";

/// Reads parts of a configuration that come as JSON, as the configuration file would be read.
#[derive(Clone, Default)]
pub struct Reader {
    folder: PathBuf,
    environment: Environment,
}

/// Why a body is no part of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is not JSON, and why.
    NotJson(String),
    /// All that is wrong with it, in its order; not empty.
    Wrong(Vec<Mistake>),
}

/// One thing that is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The JSON pointer of the value or key that is meant; "" is the whole body.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Reader {
    /// Paths are relative to the folder of `file`; variables come from `environment`.
    pub fn new(file: &Path, environment: Environment) -> Self {
        Self { folder: file.parent().unwrap_or(Path::new("")).to_owned(), environment }
    }

    /// One pipeline. `server` has what endpoints in server mode may leave out.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn pipeline(&self, body: &[u8], server: &Server) -> Result<Pipeline, BodyError> {
        let (mut pipeline, shown) = self.read(body, server, |reader, table, at| {
            let (mut pipeline, at): (Pipeline, PipelineAt) = reader.table(table, at);
            agree::agree(reader.report, server, &mut agree::served(&mut pipeline, &at));
            Some(pipeline)
        })?;
        pipeline.written = Some(shown);
        Ok(pipeline)
    }

    /// The WebSocket endpoint of a source or a sink.
    ///
    /// # Errors
    /// All that is wrong with it, or that it is no WebSocket endpoint.
    pub fn endpoint(&self, body: &[u8], server: &Server) -> Result<Endpoint, BodyError> {
        let make = |reader: &mut read::Reader<'_, '_>, table: &DeTable<'_>, at: &Span| {
            let (endpoint, tag) = if is_sink(table) {
                let (sink, at): (Sink, SinkAt) = reader.table(table, at);
                let endpoint = match sink.kind {
                    SinkKind::WebSocket(sink) => Some(sink.endpoint),
                    _ => None,
                };
                (endpoint, at.kind.tag)
            } else {
                let (source, at): (Source, SourceAt) = reader.table(table, at);
                let endpoint = match source {
                    Source::WebSocket(source) => Some(source.endpoint),
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
        make: impl FnOnce(&mut read::Reader<'_, '_>, &DeTable<'_>, &Span) -> Option<T>,
    ) -> Result<(T, Value), BodyError> {
        let translated = Translation::of(body)?;
        let mut report = Report::of_body(&self.folder, &translated);
        let document = syntax(&mut report, &translated.text);
        let value = document.as_ref().and_then(|document| document.get_ref().get(BODY));
        let made = value.and_then(|value| {
            let Some(table) = value.get_ref().as_table() else {
                report.error(&value.span(), "the body must be a JSON object");
                return None;
            };
            let mut reader = read::Reader::new(&mut report, &self.environment).with_server(server);
            make(&mut reader, table, &value.span())
        });
        let shown = value.filter(|_| report.errors.is_empty());
        let shown = shown
            .and_then(|value| written::shown(&mut read::Reader::new(&mut report, &self.environment), value));
        match (made, shown) {
            (Some(made), Some(shown)) if report.errors.is_empty() => Ok((made, shown)),
            _ => Err(translated.wrong(report.errors)),
        }
    }
}

/// Whether a table that may be a source's or a sink's is a sink's: if it has a key that only sinks have.
fn is_sink(table: &DeTable<'_>) -> bool {
    let knows = |shape: &'static Shape, name: &str| shape::has(&shape.parts, name);
    let mut names = table.keys().map(|name| name.get_ref());
    names.any(|name| knows(Sink::shape(), name) && !knows(Source::shape(), name))
}

impl fmt::Debug for Reader {
    /// The environment has secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// JSON as TOML, with the place of every value and key.
#[derive(Debug, Default)]
pub(super) struct Translation {
    text: String,
    /// Where each is in the text, with its JSON pointer, in the order of their ends: inner ones before
    /// outer ones.
    places: Vec<(Span, String)>,
    nulls: Vec<Span>,
    /// The pointer of the value that is being written.
    pointer: String,
}

impl Translation {
    fn of(body: &[u8]) -> Result<Self, BodyError> {
        let mut translation = Self { text: format!("{BODY} = "), ..Self::default() };
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = Node(&mut translation).deserialize(&mut json).and_then(|()| json.end());
        read.map_err(|error| BodyError::NotJson(error.to_string()))?;
        if translation.nulls.is_empty() {
            return Ok(translation);
        }
        let nulls = std::mem::take(&mut translation.nulls).into_iter();
        let said = |at| Finding {
            at,
            message: "null is no value of the configuration".to_owned(),
            hint: Some("leave the key out".to_owned()),
        };
        Err(translation.wrong(nulls.map(said).collect()))
    }

    /// The pointer of the innermost value or key at a place.
    pub(super) fn pointer(&self, at: &Span) -> &str {
        // They are in the order of their ends.
        let from = self.places.partition_point(|(span, _)| span.end < at.end);
        let found = self.places[from..].iter().find(|(span, _)| span.contains(&at.start));
        found.map_or("", |(_, pointer)| pointer)
    }

    fn wrong(&self, mut found: Vec<Finding>) -> BodyError {
        found.sort_by_key(|finding| finding.at.start);
        let mistake =
            |Finding { at, message, hint }| Mistake { pointer: self.pointer(&at).to_owned(), message, hint };
        BodyError::Wrong(found.into_iter().map(mistake).collect())
    }

    /// Writes what has no parts.
    fn scalar(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.place(start);
    }

    /// What was written since `start` is the value that is being written.
    fn place(&mut self, start: usize) {
        self.places.push((start..self.text.len(), self.pointer.clone()));
    }

    /// Does something one step further down.
    fn within<T>(&mut self, step: &str, write: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        let result = write(self);
        self.pointer.truncate(length);
        result
    }
}

/// A string as TOML writes it: as JSON does, but for the one control character that JSON leaves.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// Writes one value of the JSON, without making anything of it before.
struct Node<'t>(&'t mut Translation);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.scalar(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.scalar(&value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.scalar(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.scalar(&format!("{value:?}"));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.scalar(&quoted(value));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        let start = self.0.text.len();
        self.0.scalar("\"\"");
        self.0.nulls.push(start..self.0.text.len());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let start = self.0.text.len();
        self.0.text.push('[');
        let mut index = 0;
        while self.0.within(&index.to_string(), |out| elements.next_element_seed(Node(out)))?.is_some() {
            self.0.text.push(',');
            index += 1;
        }
        self.0.text.push(']');
        self.0.place(start);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let start = self.0.text.len();
        self.0.text.push('{');
        let mut separator = "";
        while let Some(name) = entries.next_key::<String>()? {
            self.0.text.push_str(std::mem::replace(&mut separator, ","));
            self.0.within(&name, |out| {
                out.scalar(&quoted(&name));
                out.text.write_str(" = ").map_err(A::Error::custom)?;
                entries.next_value_seed(Node(out))
            })?;
        }
        self.0.text.push('}');
        self.0.place(start);
        Ok(())
    }
}
