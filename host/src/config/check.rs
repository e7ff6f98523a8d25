//! Checks the tables of a file against their shapes: unknown, missing and unsupported keys.
//!
//! Nothing stops at an error: it is reported, and the walk goes on with the key's default or without
//! the key. Values are `value.rs`'s.

use super::report::Report;
use super::section::{Section, Span, Value};
use super::shape::{Absent, Case, Key, Shape, nearest};
use super::{EndpointText, Environment, Redacted, keys};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Walks the tables of one file.
pub(super) struct Checker<'r, 'f> {
    pub(super) report: &'r mut Report<'f>,
    pub(super) environment: &'r Environment,
}

impl Checker<'_, '_> {
    /// Checks a table against a shape.
    pub(super) fn section(&mut self, shape: &'static Shape, table: &DeTable<'_>, header: &Span) -> Section {
        let mut section = Section::new(header.clone());
        let Some(keys) = self.keys_of(shape, table, &mut section) else {
            section.is_known = false;
            return section;
        };
        for (name, value) in in_file_order(table) {
            match keys.iter().find(|key| key.name == *name.get_ref()) {
                Some(key) if !key.built => {
                    self.report.error(&name.span(), format!("`{}` is not supported yet", key.name));
                }
                Some(key) => {
                    if let Some(checked) = self.value(key, value) {
                        section.insert(key.name, checked, Some(value.span()));
                    }
                }
                None if section.is_written(name.get_ref()) => {}
                None => self.unknown_key(shape, &section, &keys, name),
            }
        }
        for key in keys.into_iter().filter(|key| key.built) {
            match key.absent {
                Absent::Default(text) if !section.is_written(key.name) => {
                    let value = self.default(key, text, header);
                    section.insert(key.name, value, None);
                }
                Absent::Required if !table.contains_key(key.name) => {
                    let message = format!("missing key `{}`", key.name);
                    self.report.error_with_hint(header, message, format!("`{}`: {}", key.name, key.doc));
                }
                _ => {}
            }
        }
        section
    }

    /// The keys that a table may have, by what the keys that decide about others say; those go into
    /// `section`. `None` where one of them is missing or wrong.
    fn keys_of(
        &mut self,
        shape: &'static Shape,
        table: &DeTable<'_>,
        section: &mut Section,
    ) -> Option<Vec<&'static Key>> {
        let (tag, cases) = match shape {
            Shape::Keys(groups) => return Some(groups.iter().copied().flatten().collect()),
            Shape::Choice { tag, cases } => (tag, *cases),
        };
        let case = match (table.get(tag.name), tag.absent) {
            (Some(value), _) => {
                let text = self.text(tag, value)?;
                let case = self.case(tag, cases, text.known(), &value.span());
                section.insert(tag.name, Value::Text(text), Some(value.span()));
                case
            }
            (None, Absent::Default(word)) => {
                section.insert(tag.name, Value::Text(EndpointText::plain(word)), None);
                cases.iter().find(|case| case.word == word)
            }
            (None, _) => {
                let built = cases.iter().filter(|case| case.shape.is_some());
                let words: Vec<_> = built.map(|case| format!("\"{}\"", case.word)).collect();
                self.report.error_with_hint(
                    &section.header,
                    format!("missing key `{}`", tag.name),
                    format!("`{}` is one of {}", tag.name, words.join(", ")),
                );
                None
            }
        };
        self.keys_of(case?.shape?, table, section)
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
            Some(case) if case.shape.is_none() => self.word_not_built(tag, case.word, at),
            Some(_) => {}
            None => {
                let built = cases.iter().filter(|case| case.shape.is_some());
                self.not_one_of(tag, text, built.map(|case| case.word), at);
            }
        }
        case
    }

    fn unknown_key(
        &mut self,
        shape: &'static Shape,
        section: &Section,
        keys: &[&'static Key],
        name: &Spanned<DeString<'_>>,
    ) {
        let written: &str = name.get_ref();
        let hint = if let Some((tag, word)) = shape.case_with(written, |tag| section.word(tag)) {
            format!("`{written}` is a key of `{tag} = \"{word}\"`")
        } else if let Some(near) = nearest(written, keys.iter().map(|key| key.name)) {
            format!("did you mean `{near}`?")
        } else if let Some(table) = keys::home(written) {
            format!("`{written}` belongs in `{table}`")
        } else {
            let built = keys.iter().filter(|key| key.built);
            let known: Vec<_> = built.map(|key| format!("`{}`", key.name)).collect();
            format!("known here: {}", known.join(", "))
        };
        self.report.error_with_hint(&name.span(), format!("unknown key `{written}`"), hint);
    }
}

/// The entries of a table in the order in which they were written.
pub(super) fn in_file_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
