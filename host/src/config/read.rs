//! Reads the tables of a file: which names a table may have, which of them are missing, and the strings in
//! it with their variables filled in. What a value must be is said in `form.rs`.
//!
//! Nothing stops at an error: it is reported, and the rest is still looked at.

use super::inherited::Inherited;
use super::interpolate::{Files, Interpolated, InterpolationError, fill};
use super::report::{Report, Span};
use super::shape::{self, Absent, Case, CaseOf, Key, Kind, Known, Shape, ShapePart, nearest};
use super::{EndpointText, Environment, FilePath, Redacted};
use std::fmt::Debug;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeString, DeTable, DeValue};

/// A table of the file, or a part of one.
pub(super) trait Table: Sized {
    /// Where its keys are written.
    type At: Clone + Debug + Default;

    fn shape() -> &'static Shape;

    /// Reads the keys of the table; which names it may have was checked before.
    fn read(reader: &mut TableReader<'_, '_>, written: &Written<'_, '_>) -> (Self, Self::At);
}

/// The value of a key, as it is written.
pub(super) type Item<'v> = Spanned<DeValue<'v>>;

/// What reading a value comes to, and where it is written; `None` where it is wrong, which is reported.
pub(super) type Read<F> = Option<(<F as Form>::Value, <F as Form>::At)>;

/// What may be written as the value of a key, and what becomes of it.
pub(super) trait Form {
    type Value;
    /// Where it is written.
    type At: Clone + Debug;
    /// Whether `${file:PATH}` may stand in it.
    const TAKES_FILES: bool = false;
    const KIND: Kind;

    /// The value, if it is right; otherwise the errors are reported. `key` is what they name.
    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self>;

    /// A value as a file would have it, for the reference.
    fn show(value: &Self::Value) -> String;
}

/// A string that is one of few.
pub(super) trait Words: Clone + PartialEq + 'static {
    /// Words that are known and not built yet.
    const LATER: &'static [&'static str];

    fn all() -> Vec<(&'static str, Self)>;
}

/// A key that several tables have.
pub(super) trait SharedKey {
    type At: Clone + Debug;
}

/// A table that stands in a file in another form than the host has it.
pub(super) trait Becomes<T>: Table {
    fn become_it(self) -> T;
}

/// The header of the first table of the file that has a key of this name.
pub(super) type Home = fn(&str) -> Option<&'static str>;

/// Reads the tables of one file or body.
pub(super) struct TableReader<'r, 'f> {
    pub(super) report: &'r mut Report<'f>,
    environment: &'r Environment,
    /// What endpoints in server mode may leave out.
    inherited: Inherited,
    /// Whether that holds, whatever the file says under `[server]`.
    is_held: bool,
    home: Home,
}

/// A table, as it is written.
pub(super) struct Written<'t, 'i> {
    table: &'t DeTable<'i>,
    pub(super) header: Span,
    /// What the keys say that decide about others.
    chosen: Vec<CaseOf>,
}

impl<'t, 'i> Written<'t, 'i> {
    /// Whether the table is in this case.
    pub(super) fn has(&self, case: CaseOf) -> bool {
        self.chosen.contains(&case)
    }

    /// Where the value of a key is.
    pub(super) fn span(&self, key: &str) -> Option<Span> {
        self.table.get(key).map(Spanned::span)
    }
}

/// What stands for a table that is left out.
pub(super) fn blank<T: Table>() -> T {
    blank_with(Inherited::default())
}

/// The same, with what it takes from `[server]`.
pub(super) fn blank_with<T: Table>(inherited: Inherited) -> T {
    let environment = Environment::new();
    let mut report = Report::of_file(Path::new(""), "");
    let mut reader = TableReader::new(&mut report, &environment, |_| None).with_inherited(inherited);
    reader.blank(&(0..0)).0
}

impl<'r, 'f> TableReader<'r, 'f> {
    /// Reads tables of a file whose keys are at `home` where they are not known.
    pub(super) fn new(report: &'r mut Report<'f>, environment: &'r Environment, home: Home) -> Self {
        Self { report, environment, inherited: Inherited::default(), is_held: false, home }
    }

    /// The same where `[server]` is known before.
    pub(super) fn with_inherited(mut self, inherited: Inherited) -> Self {
        self.inherited = inherited;
        self
    }

    /// The same for a host that runs, whose endpoints take this from `[server]`, whatever the file says there.
    pub(super) fn holding(mut self, inherited: Option<Inherited>) -> Self {
        self.is_held = inherited.is_some();
        self.inherited = inherited.unwrap_or_default();
        self
    }

    /// Endpoints take this where they leave it out, unless something else is held.
    pub(super) fn inherit(&mut self, inherited: Inherited) {
        if !self.is_held {
            self.inherited = inherited;
        }
    }

    pub(super) fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    pub(super) fn environment(&self) -> &'r Environment {
        self.environment
    }

    /// A path of the file.
    pub(super) fn path(&self, text: &Redacted) -> FilePath {
        FilePath::relative_to(self.report.folder(), text)
    }

    /// Reads a table: refuses names that it may not have, and then reads the others.
    pub(super) fn table<T: Table>(&mut self, table: &DeTable<'_>, header: &Span) -> (T, T::At) {
        let parts = &T::shape().parts;
        let mut chosen = Vec::new();
        if self.choose(parts, table, header, &mut chosen).is_none() {
            return self.blank(header);
        }
        let known = shape::known(parts, &chosen);
        for (name, _) in in_file_order(table) {
            match known.iter().find(|known| known.name() == *name.get_ref()) {
                Some(Known::Key(_)) => {}
                Some(Known::Later(key)) => {
                    self.report.error(&name.span(), format!("`{key}` is not supported yet"));
                }
                None => self.unknown_key(parts, &chosen, &known, name),
            }
        }
        T::read(self, &Written { table, header: header.clone(), chosen })
    }

    /// What stands for a table of which nothing can be told.
    pub(super) fn blank<T: Table>(&mut self, header: &Span) -> (T, T::At) {
        let (errors, warnings) = (self.report.errors.len(), self.report.warnings.len());
        let nothing = DeTable::new();
        let blank = T::read(self, &Written { table: &nothing, header: header.clone(), chosen: Vec::new() });
        self.report.errors.truncate(errors);
        self.report.warnings.truncate(warnings);
        blank
    }

    /// The value of a key; `None` where it is left out, or wrong, which is reported.
    pub(super) fn key<C: Form>(
        &mut self,
        written: &Written<'_, '_>,
        name: &str,
    ) -> Option<(C::Value, C::At)> {
        let value = written.table.get(name)?;
        C::read(self, name, value)
    }

    /// Reports a key that is left out and must not be.
    pub(super) fn missing(&mut self, written: &Written<'_, '_>, name: &str, doc: &str) {
        if !written.table.contains_key(name) {
            let message = format!("missing key `{name}`");
            self.report.error_with_hint(&written.header, message, format!("`{name}`: {doc}"));
        }
    }

    /// Finds out what the keys say that decide about others. `None` where one is missing or wrong.
    fn choose(
        &mut self,
        parts: &'static [ShapePart],
        table: &DeTable<'_>,
        header: &Span,
        chosen: &mut Vec<CaseOf>,
    ) -> Option<()> {
        for part in parts {
            let ShapePart::Choice { tag, cases } = part else { continue };
            let case = match (table.get(tag.name), &tag.absent) {
                (Some(value), _) => {
                    let text = self.text(tag.name, Kind::Text, false, value)?;
                    self.case(tag, cases, text.known(), &value.span())?
                }
                (None, Absent::Default(_)) => cases.first()?,
                (None, _) => {
                    let words: Vec<_> = built(cases).map(|word| format!("\"{word}\"")).collect();
                    self.report.error_with_hint(
                        header,
                        format!("missing key `{}`", tag.name),
                        format!("`{}` is one of {}", tag.name, words.join(", ")),
                    );
                    return None;
                }
            };
            chosen.push((tag.name, case.word));
            self.choose(case.parts.as_deref()?, table, header, chosen)?;
        }
        Some(())
    }

    fn case(
        &mut self,
        tag: &Key,
        cases: &'static [Case],
        text: &Redacted,
        at: &Span,
    ) -> Option<&'static Case> {
        let case = cases.iter().find(|case| case.word == text.expose());
        match case {
            Some(case) if case.parts.is_none() => self.word_not_built(tag.name, case.word, at),
            Some(_) => {}
            None => self.not_one_of(tag.name, text, &built(cases).collect::<Vec<_>>(), at),
        }
        case
    }

    fn unknown_key(
        &mut self,
        parts: &[ShapePart],
        chosen: &[CaseOf],
        known: &[Known<'_>],
        name: &Spanned<DeString<'_>>,
    ) {
        let written: &str = name.get_ref();
        let hint = if let Some((tag, word)) = shape::case_with(parts, written, chosen) {
            format!("`{written}` is a key of `{tag} = \"{word}\"`")
        } else if let Some(near) = nearest(written, known.iter().map(Known::name)) {
            format!("did you mean `{near}`?")
        } else if let Some(table) = (self.home)(written) {
            format!("`{written}` belongs in `{table}`")
        } else {
            let keys = known.iter().filter(|known| matches!(known, Known::Key(_)));
            let keys: Vec<_> = keys.map(|known| format!("`{}`", known.name())).collect();
            format!("known here: {}", keys.join(", "))
        };
        self.report.error_with_hint(&name.span(), format!("unknown key `{written}`"), hint);
    }

    /// A string with its variables filled in.
    pub(super) fn text(
        &mut self,
        key: &str,
        kind: Kind,
        takes_files: bool,
        value: &Item<'_>,
    ) -> Option<EndpointText> {
        match value.get_ref() {
            DeValue::String(text) => {
                let files = if takes_files { Files::Secret } else { Files::Refused };
                self.fill(key, files, text, &value.span()).map(|filled| filled.text)
            }
            _ => self.wrong_type(key, kind, value),
        }
    }

    /// A string with its variables filled in; `key` is what errors name.
    pub(super) fn fill(&mut self, key: &str, files: Files, text: &str, at: &Span) -> Option<Interpolated> {
        let problems = match fill(text, files, self.environment, self.report.folder()) {
            Ok(filled) if filled.text.has_files() && files == Files::Refused => {
                self.report.error_with_hint(
                    at,
                    format!("`${{file:...}}` cannot be used in `{key}`"),
                    "files belong into what an endpoint needs to connect, and into the `config` of a plugin",
                );
                return None;
            }
            Ok(filled) => return Some(filled),
            Err(problems) => problems,
        };
        let literal = "a literal `${` is written `$${`";
        for problem in problems {
            match problem {
                InterpolationError::Unset(name) => self.report.error_with_hint(
                    at,
                    format!("the environment variable `{name}` of `{key}` is not set"),
                    format!("set it, or give a default: `${{{name}:-default}}`"),
                ),
                InterpolationError::Unclosed => {
                    self.report.error_with_hint(at, format!("`${{` without `}}` in `{key}`"), literal);
                }
                InterpolationError::Name(name) => self.report.error_with_hint(
                    at,
                    format!("`{name}` in `{key}` is not the name of an environment variable"),
                    literal,
                ),
                InterpolationError::Nested => self.report.error_with_hint(
                    at,
                    format!("`${{` within `${{}}` in `{key}`: variables cannot be nested"),
                    "a default is plain text, and so is a path",
                ),
                InterpolationError::NoPath => {
                    self.report.error(at, format!("`${{file:}}` without a path in `{key}`"));
                }
            }
        }
        None
    }

    /// A number or a boolean, or a string that is one variable with such a value.
    pub(super) fn scalar<T>(
        &mut self,
        key: &str,
        kind: Kind,
        value: &Item<'_>,
        written: impl Fn(&DeValue<'_>) -> Option<T>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let DeValue::String(text) = value.get_ref() else {
            return written(value.get_ref()).or_else(|| self.wrong_type(key, kind, value));
        };
        let filled = self.fill(key, Files::Refused, text, &value.span())?;
        if !filled.is_one_variable {
            return self.wrong_type(key, kind, value);
        }
        parse(filled.text.known().expose().trim()).or_else(|| {
            let expected = kind.describe();
            let message = format!("`{key}` must be {expected}, and what `{text}` stands for is not");
            self.report.error(&value.span(), message);
            None
        })
    }

    /// A string with a unit.
    pub(super) fn unit<T>(
        &mut self,
        key: &str,
        kind: Kind,
        value: &Item<'_>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key, kind, false, value)?;
        parse(text.known().expose()).or_else(|| {
            let message = format!("`{key}` must be {}, got \"{text}\"", kind.describe());
            self.report.error(&value.span(), message);
            None
        })
    }

    /// A list of strings, each with its place.
    pub(super) fn texts(
        &mut self,
        key: &str,
        kind: Kind,
        takes_files: bool,
        value: &Item<'_>,
    ) -> Option<Vec<(EndpointText, Span)>> {
        let elements = self.array(key, kind, value)?.iter();
        let texts: Vec<_> =
            elements.map(|text| Some((self.text(key, kind, takes_files, text)?, text.span()))).collect();
        texts.into_iter().collect()
    }

    pub(super) fn array<'v, 'i>(
        &mut self,
        key: &str,
        kind: Kind,
        value: &'v Item<'i>,
    ) -> Option<&'v DeArray<'i>> {
        value.get_ref().as_array().or_else(|| self.wrong_type(key, kind, value))
    }

    pub(super) fn entries<'v, 'i>(
        &mut self,
        key: &str,
        kind: Kind,
        value: &'v Item<'i>,
    ) -> Option<&'v DeTable<'i>> {
        value.get_ref().as_table().or_else(|| self.wrong_type(key, kind, value))
    }

    pub(super) fn wrong_type<T>(&mut self, key: &str, kind: Kind, value: &Item<'_>) -> Option<T> {
        let message = format!("`{key}` must be {}, got {}", kind.describe(), describe(value.get_ref()));
        let hint = match (kind, value.get_ref()) {
            (Kind::Duration(_), DeValue::Integer(n)) => Some(format!("write \"{n}ms\" or \"{n}s\"")),
            (Kind::Size(..), DeValue::Integer(n)) => Some(format!("write \"{n}B\" or \"{n}KiB\"")),
            (Kind::Tables(_), DeValue::Table(_)) if key == "pipelines" => {
                Some("write the header in double brackets: `[[pipelines]]`".to_owned())
            }
            (Kind::Tables(_), DeValue::Table(_)) => {
                Some(format!("write the header in double brackets: `[[pipelines.{key}]]`"))
            }
            (Kind::Table(_), DeValue::Array(_)) => Some("write the header in single brackets".to_owned()),
            _ => None,
        };
        match hint {
            Some(hint) => self.report.error_with_hint(&value.span(), message, hint),
            None => self.report.error(&value.span(), message),
        }
        None
    }

    /// Reports what is not within a range.
    pub(super) fn within<T: PartialOrd>(
        &mut self,
        key: &str,
        at: &Span,
        value: &T,
        (least, most): (T, T),
        show: impl Fn(&T) -> String,
    ) -> Option<()> {
        if *value >= least && *value <= most {
            return Some(());
        }
        let (least, most) = (show(&least), show(&most));
        self.report.error(at, format!("`{key}` must be between {least} and {most}"));
        None
    }

    pub(super) fn word_not_built(&mut self, key: &str, word: &str, at: &Span) {
        self.report.error(at, format!("`{key} = \"{word}\"` is not supported yet"));
    }

    pub(super) fn not_one_of(&mut self, key: &str, text: &Redacted, words: &[&'static str], at: &Span) {
        let known: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let message = format!("`{key}` must be one of {}, got \"{text}\"", known.join(", "));
        match nearest(text.shown(), words.iter().copied()) {
            Some(near) => self.report.error_with_hint(at, message, format!("did you mean \"{near}\"?")),
            None => self.report.error(at, message),
        }
    }
}

fn built(cases: &'static [Case]) -> impl Iterator<Item = &'static str> + Clone {
    cases.iter().filter(|case| case.parts.is_some()).map(|case| case.word)
}

/// The entries of a table in the order in which they were written.
pub(super) fn in_file_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

pub(super) fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// An integer as TOML writes it; one that is beyond 128 bits counts as their end.
pub(super) fn wide_integer(written: &DeInteger<'_>) -> i128 {
    let end = if written.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
    i128::from_str_radix(written.as_str(), written.radix()).unwrap_or(end)
}

/// An integer as TOML writes it, if 64 bits hold it.
pub(super) fn integer(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
