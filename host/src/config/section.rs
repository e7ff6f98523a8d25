//! A table of the file after it was checked: values of the right type, defaults filled in.

use super::{EndpointText, FilePath, Redacted};
use std::ops::Range;
use std::time::Duration;

/// A range of bytes of the file.
pub(super) type Span = Range<usize>;

/// A checked table.
#[derive(Debug)]
pub(super) struct Section {
    /// Its header, or its braces, or the key it was made by.
    pub(super) header: Span,
    /// Whether its keys could be told: not if the key that decides about them is missing or wrong.
    pub(super) is_known: bool,
    entries: Vec<(&'static str, Entry)>,
}

#[derive(Debug)]
struct Entry {
    value: Value,
    /// Where the value is; `None` for a default.
    span: Option<Span>,
}

/// A checked value, in the terms of its kind.
#[derive(Debug)]
pub(super) enum Value {
    Text(EndpointText),
    Path(FilePath),
    Bool(bool),
    Integer(i64),
    Number(f64),
    Duration(Duration),
    Size(u64),
    Texts(Vec<(EndpointText, Span)>),
    Map(Vec<(String, EndpointText, Span)>),
    Json(EndpointText),
    Section(Section),
    Sections(Vec<Section>),
}

impl Section {
    pub(super) fn new(header: Span) -> Self {
        Self { header, is_known: true, entries: Vec::new() }
    }

    pub(super) fn insert(&mut self, name: &'static str, value: Value, span: Option<Span>) {
        self.entries.push((name, Entry { value, span }));
    }

    /// Whether the file has the key, with a value that is right in itself.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.span.is_some())
    }

    /// Where the value of a key is; the table's header if it is not there.
    pub(super) fn span(&self, key: &str) -> Span {
        self.entry(key).and_then(|entry| entry.span.clone()).unwrap_or_else(|| self.header.clone())
    }

    /// A string of a key that takes no files.
    pub(super) fn text(&self, key: &str) -> Option<&Redacted> {
        self.endpoint_text(key).map(EndpointText::known)
    }

    /// A string of a key that takes files.
    pub(super) fn endpoint_text(&self, key: &str) -> Option<&EndpointText> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A string that is one of few; "" where it is wrong.
    pub(super) fn word(&self, key: &str) -> &str {
        self.text(key).map_or("", Redacted::expose)
    }

    pub(super) fn path(&self, key: &str) -> Option<&FilePath> {
        match self.value(key)? {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    pub(super) fn bool(&self, key: &str) -> bool {
        matches!(self.value(key), Some(Value::Bool(true)))
    }

    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        match self.value(key)? {
            Value::Integer(integer) => Some(*integer),
            _ => None,
        }
    }

    /// A whole number whose kind leaves out what is negative.
    pub(super) fn count(&self, key: &str) -> usize {
        self.integer(key).and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
    }

    pub(super) fn number(&self, key: &str) -> f64 {
        match self.value(key) {
            Some(Value::Number(number)) => *number,
            _ => 0.0,
        }
    }

    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        match self.value(key)? {
            Value::Duration(duration) => Some(*duration),
            _ => None,
        }
    }

    pub(super) fn size(&self, key: &str) -> u64 {
        match self.value(key) {
            Some(Value::Size(bytes)) => *bytes,
            _ => 0,
        }
    }

    /// A size that is held in memory.
    pub(super) fn memory(&self, key: &str) -> usize {
        usize::try_from(self.size(key)).unwrap_or(usize::MAX)
    }

    pub(super) fn texts(&self, key: &str) -> &[(EndpointText, Span)] {
        match self.value(key) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    pub(super) fn map(&self, key: &str) -> &[(String, EndpointText, Span)] {
        match self.value(key) {
            Some(Value::Map(map)) => map,
            _ => &[],
        }
    }

    pub(super) fn json(&self, key: &str) -> Option<&Redacted> {
        match self.value(key)? {
            Value::Json(json) => Some(json.known()),
            _ => None,
        }
    }

    pub(super) fn section(&self, key: &str) -> Option<&Section> {
        match self.value(key)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    pub(super) fn sections(&self, key: &str) -> &[Section] {
        match self.value(key) {
            Some(Value::Sections(sections)) => sections,
            _ => &[],
        }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, entry)| entry)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }
}
