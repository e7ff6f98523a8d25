//! What a table of the configuration file may hold: the vocabulary that `keys.rs` is written in.
//!
//! A shape is data. The reader in `check.rs` checks a file against it; anything else that needs to
//! know the keys, a JSON Schema say, can be made of it as well.

use std::time::Duration;

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key as it is written.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// What stands for it where it is left out.
    pub absent: Absent,
    /// What it does, in one line.
    pub doc: &'static str,
    /// Whether this version does it; a key that is known and not built is refused by name.
    pub built: bool,
    /// Whether `${file:PATH}` may stand in its strings.
    pub takes_files: bool,
}

/// What a key that is left out means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It is an error.
    Required,
    /// There is none of it, or another key decides.
    None,
    /// This value, written as in a file but without quotes; `{}` is a table of its keys' defaults.
    Default(&'static str),
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
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
    OneOf(&'static [Word]),
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
    Table(&'static Shape),
    /// An array of tables of this shape.
    Tables(&'static Shape),
}

/// One of the strings that a value may be.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// The string.
    pub text: &'static str,
    /// Whether this version does it.
    pub built: bool,
}

/// The keys of a table, some of which may depend on what another key says.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// These keys, in groups that several shapes share.
    Keys(&'static [&'static [Key]]),
    /// The value of one key decides about the others.
    Choice {
        /// The key that decides.
        tag: Key,
        /// What each of its values leads to.
        cases: &'static [Case],
    },
}

/// What one value of a deciding key leads to.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The value.
    pub word: &'static str,
    /// The keys it brings; `None` where this version does not do it.
    pub shape: Option<&'static Shape>,
}

impl Key {
    /// An optional key without a default.
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, absent: Absent::None, doc, built: true, takes_files: false }
    }

    /// The same, needed.
    pub const fn required(self) -> Self {
        Self { absent: Absent::Required, ..self }
    }

    /// The same, with a default.
    pub const fn default(self, text: &'static str) -> Self {
        Self { absent: Absent::Default(text), ..self }
    }

    /// The same, not built yet.
    pub const fn later(self) -> Self {
        Self { built: false, ..self }
    }

    /// The same, and the texts of files may stand in it.
    pub const fn with_files(self) -> Self {
        Self { takes_files: true, ..self }
    }
}

impl Word {
    /// A string that is understood.
    pub const fn new(text: &'static str) -> Self {
        Self { text, built: true }
    }

    /// A string that is known and not built yet.
    pub const fn later(text: &'static str) -> Self {
        Self { text, built: false }
    }
}

impl Kind {
    /// A duration that may be nothing.
    pub const ANY_DURATION: Self = Self::Duration(Duration::ZERO);
    /// A duration that must be something.
    pub const SOME_DURATION: Self = Self::Duration(Duration::from_nanos(1));

    /// The kind in words, after "must be".
    pub fn describe(&self) -> &'static str {
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

impl Shape {
    /// Every key that a table of this shape may have, whatever its deciding keys say, each name once.
    pub fn all_keys(&'static self) -> Vec<&'static Key> {
        let mut keys = Vec::new();
        self.collect(&mut keys);
        keys
    }

    /// The deciding key and its value under which `key` may be written, if it is one of this shape;
    /// `chosen` tells what the deciding keys of a table say, and as many as can be stay as they are.
    pub fn case_with<'a>(
        &'static self,
        key: &str,
        chosen: impl Fn(&str) -> &'a str + Copy,
    ) -> Option<(&'static str, &'static str)> {
        let Self::Choice { tag, cases } = self else { return None };
        let mut with_key = cases.iter().filter_map(|case| {
            let shape = case.shape?;
            shape.all_keys().iter().any(|known| known.name == key).then_some((case.word, shape))
        });
        let here = with_key.clone().find(|(word, _)| *word == chosen(tag.name));
        match here {
            Some((_, shape)) => shape.case_with(key, chosen),
            None => {
                let simple = with_key.clone().find(|(_, shape)| matches!(shape, Self::Keys(_)));
                simple.or_else(|| with_key.next()).map(|(word, _)| (tag.name, word))
            }
        }
    }

    fn collect(&'static self, into: &mut Vec<&'static Key>) {
        let mut add = |key: &'static Key| {
            if into.iter().all(|known| known.name != key.name) {
                into.push(key);
            }
        };
        match self {
            Self::Keys(groups) => groups.iter().copied().flatten().for_each(add),
            Self::Choice { tag, cases } => {
                add(tag);
                cases.iter().filter_map(|case| case.shape).for_each(|shape| shape.collect(into));
            }
        }
    }
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
