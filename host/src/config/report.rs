//! What is found while a file is read: errors and warnings, each at a place of the file.

use super::error::{ConfigError, Place};
use super::section::Span;
use std::path::Path;

/// The file, and what was found in it so far.
pub(super) struct Report<'a> {
    file: &'a Path,
    text: &'a str,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigError>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn error(&mut self, at: &Span, message: impl Into<String>) {
        let error = self.at(at, message.into(), None);
        self.errors.push(error);
    }

    pub(super) fn error_with_hint(&mut self, at: &Span, message: impl Into<String>, hint: impl Into<String>) {
        let error = self.at(at, message.into(), Some(hint.into()));
        self.errors.push(error);
    }

    pub(super) fn warning(&mut self, at: &Span, message: impl Into<String>, hint: impl Into<String>) {
        let warning = self.at(at, message.into(), Some(hint.into()));
        self.warnings.push(warning);
    }

    /// The folder that paths of the file are relative to.
    pub(super) fn folder(&self) -> &'a Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// A place in words, for an error that speaks of two: `file:line:column`.
    pub(super) fn name(&self, at: &Span) -> String {
        let place = Place::of(self.text, at.clone());
        format!("{}:{}:{}", self.file.display(), place.line, place.column)
    }

    fn at(&self, at: &Span, message: String, hint: Option<String>) -> ConfigError {
        let place = Some(Place::of(self.text, at.clone()));
        ConfigError { file: self.file.to_owned(), place, message, hint }
    }
}
