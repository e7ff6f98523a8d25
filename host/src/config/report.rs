//! What is found while a configuration is read: errors and warnings, each at a place of its text.

use super::error::{ConfigError, ConfigErrors, LineIndex, sort};
use std::ops::Range;
use std::path::Path;

/// A range of bytes of the text.
pub(super) type Span = Range<usize>;

/// What is read, and what was found in it so far.
pub(super) struct Report<'a> {
    /// What paths are relative to.
    folder: &'a Path,
    text: ReportedText<'a>,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

/// Something that is wrong, or odd, and where.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) at: Span,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Where the text is from, which decides how its places are named.
#[derive(Clone)]
enum ReportedText<'a> {
    File {
        path: &'a Path,
        lines: LineIndex<'a>,
    },
    /// Places are numbers of JSON pointers.
    Body(&'a [String]),
}

impl<'a> Report<'a> {
    pub(super) fn of_file(path: &'a Path, text: &'a str) -> Self {
        let folder = path.parent().unwrap_or(Path::new(""));
        Self {
            folder,
            text: ReportedText::File { path, lines: LineIndex::of(text) },
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn of_body(folder: &'a Path, pointers: &'a [String]) -> Self {
        Self { folder, text: ReportedText::Body(pointers), errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn error(&mut self, at: &Span, message: impl Into<String>) {
        self.errors.push(Finding { at: at.clone(), message: message.into(), hint: None });
    }

    pub(super) fn error_with_hint(&mut self, at: &Span, message: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(Finding { at: at.clone(), message: message.into(), hint: Some(hint.into()) });
    }

    pub(super) fn warning(&mut self, at: &Span, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Finding { at: at.clone(), message: message.into(), hint: Some(hint.into()) });
    }

    /// The folder that paths are relative to.
    pub(super) fn folder(&self) -> &'a Path {
        self.folder
    }

    /// A place in words, for an error that speaks of two: `file:line:column`, or a JSON pointer.
    pub(super) fn name(&self, at: &Span) -> String {
        match &self.text {
            ReportedText::File { path, lines } => {
                let place = lines.place(at.clone());
                format!("{}:{}:{}", path.display(), place.line, place.column)
            }
            ReportedText::Body(pointers) => pointers.get(at.start).cloned().unwrap_or_default(),
        }
    }

    /// The errors, of which there is at least one, as those of a file.
    pub(super) fn into_errors(self) -> ConfigErrors {
        ConfigErrors::new(placed(&self.text, self.errors))
    }

    /// The warnings, as those of a file, in its order.
    pub(super) fn into_warnings(self) -> Vec<ConfigError> {
        let mut warnings = placed(&self.text, self.warnings);
        sort(&mut warnings);
        warnings
    }
}

fn placed(text: &ReportedText<'_>, found: Vec<Finding>) -> Vec<ConfigError> {
    let (file, lines) = match text {
        ReportedText::File { path, lines } => (*path, Some(lines)),
        ReportedText::Body(_) => (Path::new(""), None),
    };
    let placed = |Finding { at, message, hint }| ConfigError {
        file: file.to_owned(),
        place: lines.map(|lines| lines.place(at)),
        message,
        hint,
    };
    found.into_iter().map(placed).collect()
}
