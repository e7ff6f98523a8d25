//! What is wrong with a configuration file: every error with its place, the line, and a hint.

use serde_json::{Value, json};
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// All errors of a configuration file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

/// An error or a warning, with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The path of the configuration file.
    pub file: PathBuf,
    /// The place in the file; `None` where the file as a whole is meant.
    pub place: Option<Location>,
    /// What is wrong, as a text that stands alone.
    pub message: String,
    /// What to do about the error, where that is known.
    pub hint: Option<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The number of characters that are meant, at least 1.
    pub width: usize,
    /// The line as the file has it, without its end.
    pub text: String,
}

impl ConfigErrors {
    /// These errors, of which there is at least one.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        sort(&mut errors);
        Self(errors)
    }

    /// An error of the file as a whole.
    pub(super) fn whole(file: &Path, message: impl Into<String>, hint: Option<String>) -> Self {
        Self(vec![ConfigError { file: file.to_owned(), place: None, message: message.into(), hint }])
    }

    /// These errors of a file that is right by itself, in its order: of what it names, say. `None` if there is none.
    pub fn of(errors: Vec<ConfigError>) -> Option<Self> {
        (!errors.is_empty()).then(|| Self::new(errors))
    }

    /// The errors, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }

    /// The errors as text, in colour for a terminal.
    pub fn render(&self, colour: bool) -> String {
        let texts: Vec<_> = self.iter().map(|error| error.render_error(colour)).collect();
        texts.join("\n")
    }
}

/// Puts errors, or warnings, in the order of the file.
pub(super) fn sort(errors: &mut [ConfigError]) {
    errors.sort_by_key(|error| error.place.as_ref().map(|place| (place.line, place.column)));
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render("", false))
    }
}

impl ConfigError {
    /// An error of a file as a whole.
    pub fn whole(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, message: message.into(), hint: None }
    }

    /// The error for programs: `file`, `line`, `column`, `message` and `hint`, which are null where there is none.
    pub fn to_json(&self) -> Value {
        json!({
            "file": self.file.display().to_string(),
            "line": self.place.as_ref().map(|place| place.line),
            "column": self.place.as_ref().map(|place| place.column),
            "message": self.message,
            "hint": self.hint,
        })
    }

    /// The error in one line: `file:line:column: message`.
    pub fn in_a_line(&self) -> String {
        let place = self.place.as_ref().map(|place| format!("{}:{}:", place.line, place.column));
        format!("{}:{} {}", self.file.display(), place.unwrap_or_default(), self.message)
    }

    /// The error as text that ends in a line break, in colour for a terminal.
    pub fn render_error(&self, colour: bool) -> String {
        self.render("", colour)
    }

    /// The error as a warning: text that ends in a line break, in colour for a terminal.
    pub fn render_warning(&self, colour: bool) -> String {
        self.render("warning: ", colour)
    }

    /// `file:line:column: message`, the line with what is meant underlined, and the hint; ends in a line break.
    fn render(&self, level: &str, colour: bool) -> String {
        let [bold, red, cyan, reset] =
            if colour { ["\x1b[1m", "\x1b[1;31m", "\x1b[36m", "\x1b[0m"] } else { [""; 4] };
        let mut text = format!("{bold}{}", self.file.display());
        if let Some(Location { line, column, .. }) = self.place {
            // Writing to a string cannot fail.
            let _ = write!(text, ":{line}:{column}");
        }
        let _ = writeln!(text, ":{reset} {red}{level}{reset}{bold}{}{reset}", self.message);
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            let line: String = place.text.chars().map(printable).collect();
            let blank: String =
                line.chars().take(place.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
            let underline = "^".repeat(place.width);
            let _ = writeln!(text, " {cyan}{number} |{reset} {line}");
            let _ = writeln!(text, " {cyan}{:1$} |{reset} {blank}{red}{underline}{reset}", "", number.len());
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "{cyan}hint:{reset} {hint}");
        }
        text
    }
}

/// A file must not drive the terminal that an error about it is shown on.
fn printable(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

/// A text with the places of its lines, so that finding one line does not read all before it.
#[derive(Clone, Debug)]
pub(super) struct LineIndex<'t> {
    text: &'t str,
    /// Where each line starts, in bytes.
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The place of a range of bytes.
    pub(super) fn place(&self, range: Range<usize>) -> Location {
        let text = self.text;
        let start = floor(text, range.start);
        let end = floor(text, range.end).max(start);
        let line = self.starts.partition_point(|line| *line <= start);
        let line_start = self.starts[line - 1];
        let line_end = self.starts.get(line).map_or(text.len(), |next| next - 1);
        let line_text = text[line_start..line_end].trim_end_matches('\r');
        let meant = &text[start..end.min(line_start + line_text.len()).max(start)];
        Location {
            line,
            column: text[line_start..start].chars().count() + 1,
            width: meant.chars().count().max(1),
            text: line_text.to_owned(),
        }
    }
}

/// The largest character boundary of `text` that is not after `at`.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_tabs_keep_the_underline_in_line() {
        let text = "a = 1\r\n\tü = \"bad\"\r\n";
        let at = text.find("\"bad\"").expect("is there");
        let place = LineIndex::of(text).place(at..at + 5);
        assert_eq!((place.line, place.column, place.width, place.text.as_str()), (2, 6, 5, "\tü = \"bad\""));
        let error = ConfigError { file: "f".into(), place: Some(place), message: "m".into(), hint: None };
        assert_eq!(error.to_string(), "f:2:6: m\n 2 | \tü = \"bad\"\n   | \t    ^^^^^\n");
    }

    #[test]
    fn a_place_past_the_end_is_the_end() {
        let place = LineIndex::of("a = ").place(9..12);
        assert_eq!((place.line, place.column, place.width), (1, 5, 1));
    }
}
