//! What a table of the configuration file may hold, as data: for errors that name what is known, for the
//! reference and for the JSON Schema.
//!
//! A shape is made of the declaration of its table (`table.rs`), and of nothing else.

use std::time::Duration;

/// The keys of a table.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) parts: Vec<ShapePart>,
}

/// A part of a table.
#[derive(Clone, Debug)]
pub(super) enum ShapePart {
    /// A key.
    Key(Key),
    /// A key whose value decides about others.
    Choice { tag: Key, cases: Vec<Case> },
    /// Keys that the table has in one case alone.
    Only { case: CaseOf, parts: Vec<ShapePart> },
    /// A key that is known and not built yet: it is refused by name.
    Later(&'static str),
}

/// What one value of a deciding key leads to.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) word: &'static str,
    /// `None` where this version does not do it.
    pub(super) parts: Option<Vec<ShapePart>>,
}

/// A deciding key, and a value of it.
pub(super) type CaseOf = (&'static str, &'static str);

/// One key of a table.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The key as it is written.
    pub(super) name: &'static str,
    /// What its value must be.
    pub(super) kind: Kind,
    /// What stands for it where it is left out.
    pub(super) absent: Absent,
    /// What it does, in one line.
    pub(super) doc: &'static str,
    /// Whether `${file:PATH}` may stand in its strings.
    pub(super) takes_files: bool,
}

/// What a key that is left out means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// It is an error.
    Required,
    /// There is none of it, or another key decides.
    None,
    /// This value, as a file would have it.
    Default(String),
    /// What this says.
    Settled(&'static str),
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Any string.
    Text,
    /// A file or folder, relative to the configuration file.
    Path,
    /// `true` or `false`.
    Bool,
    /// A whole number, both ends included.
    Integer(i64, i64),
    /// A number, both ends included.
    Number(f64, f64),
    /// A string such as `"250ms"`, at least this long.
    Duration(Duration),
    /// A string such as `"64KiB"`, in bytes, both ends included.
    Size(u64, u64),
    /// One of these strings.
    OneOf(fn() -> Vec<&'static str>),
    /// A list of strings.
    Texts,
    /// A string or a list of strings, at least one.
    TextOrTexts,
    /// A list of strings, and of tables that stand for their JSON.
    Messages,
    /// A table of strings.
    Map,
    /// Any table, passed on as JSON.
    Json,
    /// A table of this shape.
    Table(fn() -> &'static Shape),
    /// An array of tables of this shape.
    Tables(fn() -> &'static Shape),
}

impl Kind {
    /// The kind in words, after "must be".
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Text | Self::Path | Self::OneOf(_) => "a string",
            Self::Bool => "true or false",
            Self::Integer(..) => "a whole number",
            Self::Number(..) => "a number",
            Self::Duration(_) => "a duration such as \"250ms\" or \"10s\"",
            Self::Size(..) => "a size such as \"64KiB\" or \"16MiB\"",
            Self::Texts => "a list of strings",
            Self::TextOrTexts => "a string or a list of strings",
            Self::Messages => "a list of strings and tables",
            Self::Map => "a table of strings",
            Self::Json | Self::Table(_) => "a table",
            Self::Tables(_) => "an array of tables",
        }
    }
}

/// A name that a table may have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<'s> {
    Key(&'s Key),
    Later(&'static str),
}

impl Known<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Key(key) => key.name,
            Self::Later(name) => name,
        }
    }
}

/// The names that a table may have whose deciding keys say this.
pub(super) fn known<'s>(parts: &'s [ShapePart], chosen: &[CaseOf]) -> Vec<Known<'s>> {
    let mut names = Vec::new();
    collect(parts, &|case| chosen.contains(&case), &mut names);
    names
}

/// Whether a table may have a key that this version does, whatever its deciding keys say.
pub(super) fn has(parts: &[ShapePart], name: &str) -> bool {
    let mut names = Vec::new();
    collect(parts, &|_| true, &mut names);
    names.iter().any(|known| matches!(known, Known::Key(key) if key.name == name))
}

fn collect<'s>(parts: &'s [ShapePart], is_chosen: &dyn Fn(CaseOf) -> bool, into: &mut Vec<Known<'s>>) {
    for part in parts {
        match part {
            ShapePart::Key(key) => into.push(Known::Key(key)),
            ShapePart::Later(name) => into.push(Known::Later(name)),
            ShapePart::Choice { tag, cases } => {
                into.push(Known::Key(tag));
                for case in cases.iter().filter(|case| is_chosen((tag.name, case.word))) {
                    collect(case.parts.as_deref().unwrap_or_default(), is_chosen, into);
                }
            }
            ShapePart::Only { case, parts } if is_chosen(*case) => collect(parts, is_chosen, into),
            ShapePart::Only { .. } => {}
        }
    }
}

/// The deciding key and its value under which a table may have `name`, where it is not the value that the
/// table has; as many of the deciding keys as can be stay as they are.
pub(super) fn case_with(parts: &[ShapePart], name: &str, chosen: &[CaseOf]) -> Option<CaseOf> {
    let mut others: Vec<(CaseOf, bool)> = Vec::new();
    for part in parts {
        match part {
            ShapePart::Choice { tag, cases } => {
                for case in cases {
                    let Some(parts) = case.parts.as_deref().filter(|parts| has(parts, name)) else {
                        continue;
                    };
                    let here = (tag.name, case.word);
                    if chosen.contains(&here) {
                        return case_with(parts, name, chosen);
                    }
                    let is_simple = !parts.iter().any(|part| matches!(part, ShapePart::Choice { .. }));
                    others.push((here, is_simple));
                }
            }
            ShapePart::Only { case, parts } if has(parts, name) => others.push((*case, true)),
            _ => {}
        }
    }
    others.iter().find(|(_, is_simple)| *is_simple).or(others.first()).map(|(case, _)| *case)
}

/// Every choice that the deciding keys of a table can make together, of those that this version does.
pub(super) fn choices(parts: &[ShapePart]) -> Vec<Vec<CaseOf>> {
    let mut all = vec![Vec::new()];
    for part in parts {
        let ShapePart::Choice { tag, cases } = part else { continue };
        let built = cases.iter().filter_map(|case| Some((case.word, case.parts.as_deref()?)));
        let ways: Vec<Vec<CaseOf>> = built
            .flat_map(|(word, parts)| {
                choices(parts).into_iter().map(move |rest| [vec![(tag.name, word)], rest].concat())
            })
            .collect();
        all = all
            .iter()
            .flat_map(|so_far| ways.iter().map(|way| [so_far.clone(), way.clone()].concat()))
            .collect();
    }
    all
}

/// Of `known`, the name that `name` most likely was meant to be.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this likeness a suggestion misleads more than it helps.
    const ALIKE: f64 = 0.5;
    let name = name.to_lowercase().replace('-', "_");
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
