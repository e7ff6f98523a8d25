//! What is wrong with a configuration: the key, and a sentence about it.

use serde::de::{Error, Expected, Unexpected};
use serde_json::Value;
use std::fmt;

/// What serde calls an untagged enum of which no variant fits.
const NO_VARIANT_FITS: &str = "data did not match any variant of untagged enum ";
/// So many letters may differ in a name that is meant, of each four that it has.
const MOST_DIFFERENCES: usize = 2;

/// What is wrong with which key.
#[derive(Debug)]
pub(super) struct Wrong {
    /// The way to the key, the innermost name first.
    path: Vec<Step>,
    why: Why,
}

/// A name in a table, or a place in a list.
#[derive(Debug, PartialEq)]
enum Step {
    Member(String),
    Element(usize),
}

#[derive(Debug)]
enum Why {
    /// What is said of the key, such as `must be a list, got 5`.
    Said(String),
    /// A text that stands behind the key.
    Text(String),
    /// The key is none, and these are.
    Unknown(&'static [&'static str]),
    /// The key is not there.
    Missing,
}

impl Wrong {
    /// The same about something in a member.
    pub(super) fn in_member(mut self, name: &str) -> Self {
        self.path.push(Step::Member(name.to_owned()));
        self
    }

    /// The same about the name of a member, which is a part of the way already where the name is not known.
    pub(super) fn in_key(self, name: &str) -> Self {
        if matches!(self.why, Why::Unknown(_)) { self } else { self.in_member(name) }
    }

    /// The same about something in an element.
    pub(super) fn in_element(mut self, place: usize) -> Self {
        self.path.push(Step::Element(place));
        self
    }

    /// Takes the key out of the configuration, or what it stands in where it cannot go alone. False if nothing went.
    pub(super) fn take_out(&self, config: &mut Value) -> bool {
        (0..self.path.len()).any(|nth| {
            let Step::Member(name) = &self.path[nth] else { return false };
            let table = self.path[nth + 1..].iter().rev().try_fold(&mut *config, |value, step| match step {
                Step::Member(name) => value.get_mut(name),
                Step::Element(place) => value.get_mut(place),
            });
            table.and_then(Value::as_object_mut).is_some_and(|table| table.remove(name).is_some())
        })
    }

    /// Whether this is only wrong since the key of another was taken out, or one is missing since it has that name.
    pub(super) fn may_come_of(&self, other: &Self) -> bool {
        let changed = usize::from(matches!(self.why, Why::Missing));
        other.path.ends_with(&self.path[changed..])
    }

    /// A member is not there.
    pub(super) fn missing_member(name: &str) -> Self {
        Self { path: Vec::new(), why: Why::Missing }.in_member(name)
    }

    /// A value is none of those that there are.
    pub(super) fn no_variant(value: &Value, variants: &[&str]) -> Self {
        Self::must_be(&one_of(variants), &kind(value))
    }

    /// A list stands where a table is meant.
    pub(super) fn list_for_table() -> Self {
        Self::must_be("a table", "a list")
    }

    fn must_be(expected: &str, got: &str) -> Self {
        Self::said(format!("must be {expected}, got {got}"))
    }

    fn said(what: String) -> Self {
        Self { path: Vec::new(), why: Why::Said(what) }
    }
}

impl Error for Wrong {
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        if text.starts_with(NO_VARIANT_FITS) {
            return Self::said("has none of the forms that it may have".to_owned());
        }
        Self { path: Vec::new(), why: Why::Text(text) }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let got = match unexpected {
            // What it says may be a secret.
            Unexpected::Str(_) => "a string".to_owned(),
            other => shown(&other),
        };
        Self::must_be(&plain(&expected.to_string()), &got)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        Self::must_be(&range(&expected).unwrap_or_else(|| plain(&expected)), &shown(&unexpected))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::must_be(&plain(&expected.to_string()), &format!("{length} elements"))
    }

    fn unknown_variant(variant: &str, variants: &'static [&'static str]) -> Self {
        Self::must_be(&one_of(variants), &format!("{variant:?}"))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self { path: Vec::new(), why: Why::Unknown(known) }.in_member(name)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::missing_member(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::said("is there twice".to_owned()).in_member(name)
    }
}

impl std::error::Error for Wrong {}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = String::new();
        for step in self.path.iter().rev() {
            match step {
                Step::Element(place) => key.push_str(&format!("[{place}]")),
                Step::Member(name) if key.is_empty() => key.push_str(name),
                Step::Member(name) => key.push_str(&format!(".{name}")),
            }
        }
        let subject = if self.path.is_empty() { "the configuration".to_owned() } else { format!("`{key}`") };
        match &self.why {
            Why::Said(what) => write!(f, "{subject} {what}"),
            Why::Text(text) if self.path.is_empty() => f.write_str(text),
            Why::Text(text) => write!(f, "{subject}: {text}"),
            Why::Missing => write!(f, "missing key {subject}"),
            Why::Unknown(known) => {
                let name = if let Some(Step::Member(name)) = self.path.first() { name } else { "" };
                write!(f, "unknown key {subject}: {}", hint(name, known))
            }
        }
    }
}

/// What helps somebody who wrote a name that is not known.
fn hint(name: &str, known: &[&str]) -> String {
    let likely = known.iter().map(|known| (differences(name, known), known)).min_by_key(|(count, _)| *count);
    match likely {
        None => "there is nothing to configure here".to_owned(),
        Some((count, near)) if count * 4 <= MOST_DIFFERENCES * name.chars().count() => {
            format!("did you mean `{near}`?")
        }
        Some(_) => format!("known here: `{}`", known.join("`, `")),
    }
}

/// How many letters are to be added, left out or changed to make one name of the other.
fn differences(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (nth, letter) in one.chars().enumerate() {
        let mut before = std::mem::replace(&mut row[0], nth + 1);
        for (place, other) in other.chars().enumerate() {
            let changed = before + usize::from(letter != other);
            before = row[place + 1];
            row[place + 1] = changed.min(before + 1).min(row[place] + 1);
        }
    }
    row[row.len() - 1]
}

fn one_of(variants: &[&str]) -> String {
    let quoted: Vec<_> = variants.iter().map(|variant| format!("{variant:?}")).collect();
    match &quoted[..] {
        [] => "left out".to_owned(),
        [only] => only.clone(),
        [one, other] => format!("{one} or {other}"),
        [..] => format!("one of {}", quoted.join(", ")),
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        other => other.to_string(),
    }
}

fn shown(unexpected: &Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(truth) => truth.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        // The way to write numbers that plugins have anyway.
        Unexpected::Float(number) => Value::from(*number).to_string(),
        Unexpected::Char(letter) => format!("{letter:?}"),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq | Unexpected::TupleVariant | Unexpected::Bytes(_) => "a list".to_owned(),
        Unexpected::Map | Unexpected::StructVariant => "a table".to_owned(),
        Unexpected::Other(what) => (*what).to_owned(),
        _ => "something else".to_owned(),
    }
}

/// What the visitors of serde expect, in words that are no Rust; what others say is theirs.
fn plain(expected: &str) -> String {
    let words = match expected {
        "a sequence" => "a list",
        "a map" => "a table",
        "a boolean" => "true or false",
        "a character" => "a single character",
        "f32" | "f64" => "a number",
        "unit" | "null" => "null",
        "string or map" => "a string or a table",
        _ if limits(expected).is_some() => "a whole number",
        _ if expected.starts_with("struct ") || expected.contains(" tagged enum ") => "a table",
        _ if expected.starts_with("tuple ") || expected.starts_with("a tuple ") => {
            let size = expected.rsplit(' ').next().and_then(|size| size.parse::<usize>().ok());
            return size.map_or_else(|| "a list".to_owned(), |size| format!("a list of {size} elements"));
        }
        _ if expected.starts_with("an array of length ") => {
            let size = expected.rsplit(' ').next().unwrap_or_default();
            return format!("a list of {size} elements");
        }
        other => other,
    };
    words.to_owned()
}

/// A whole number that fits into a type of Rust.
fn range(expected: &str) -> Option<String> {
    Some(match limits(expected)? {
        (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
        (Some(least), None) => format!("a whole number of at least {least}"),
        _ => "a whole number of 64 bits".to_owned(),
    })
}

/// The least and the largest number of a type, if it is one of whole numbers; of those of 64 bits, for which
/// configurations have no other numbers, only a least that everybody knows.
fn limits(expected: &str) -> Option<(Option<i64>, Option<i64>)> {
    let (name, is_nonzero) = match expected.strip_prefix("a nonzero ") {
        Some(name) => (name, true),
        None => (expected, false),
    };
    let bits = match name.get(1..)? {
        "8" => 8,
        "16" => 16,
        "32" => 32,
        "64" | "128" => 64,
        "size" => usize::BITS,
        _ => return None,
    };
    match name.get(..1)? {
        "u" => Some((Some(i64::from(is_nonzero)), (bits < 64).then(|| (1 << bits) - 1))),
        "i" if bits < 64 => Some((Some(-1 << (bits - 1)), Some((1 << (bits - 1)) - 1))),
        "i" => Some((None, None)),
        _ => None,
    }
}
