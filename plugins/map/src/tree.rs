//! A message as a tree, opened only as far as something in it changes: all else stays as its bytes came.
//!
//! The message was checked before: it is JSON, and no deeper than the host lets it be.

use serde::Serialize as _;
use std::io::Write;
use tidemill_plugin::json::{Kind, Value};
use tidemill_plugin::{Description, Result};

/// A JSON pointer, as the names that it goes through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    pointer: String,
    names: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    text: String,
    /// The same as JSON.
    quoted: String,
    /// The same as the number of an element.
    element: Option<usize>,
}

/// A value of a message.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    /// As it came.
    Raw(Value<'a>),
    Number(f64),
    Truth(bool),
    Object(Vec<(Value<'a>, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

impl Path {
    /// The path to a member; `key` is what errors begin with.
    ///
    /// # Errors
    /// The text is no JSON pointer, or that of the whole message.
    pub(crate) fn parse(key: &str, pointer: &str) -> Result<Self> {
        // What a pointer is, the SDK says.
        Description::default().json(pointer).map_err(|error| format!("`{key}`: {error}"))?;
        if pointer.is_empty() {
            return Err(
                format!("`{key}`: \"\" is the whole message, and a member is meant, like \"/x\"").into()
            );
        }
        let name = |name: &str| {
            let text = name.replace("~1", "/").replace("~0", "~");
            let quoted = serde_json::Value::from(text.as_str()).to_string();
            // `01` and `+1` are no elements.
            let element = text.parse().ok().filter(|number: &usize| number.to_string() == text);
            Name { text, quoted, element }
        };
        let names = pointer.split('/').skip(1).map(name).collect();
        Ok(Self { pointer: pointer.to_owned(), names })
    }

    pub(crate) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Whether one of the two leads into what the other leads to.
    pub(crate) fn crosses(&self, other: &Self) -> bool {
        let common = self.names.len().min(other.names.len());
        self != other && self.names[..common] == other.names[..common]
    }
}

impl<'a> Node<'a> {
    /// A message.
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self::Raw(Value::of_checked(message.trim_ascii()))
    }

    /// Sets a member: in the place of the old value, or as the last of its object.
    ///
    /// # Errors
    /// There is no object that could have it.
    pub(crate) fn set(&mut self, path: &'a Path, value: Self) -> Result {
        let (name, within) = path.names.split_last().expect("a path leads to a member");
        let Some(members) = self.within(within).and_then(Self::members) else {
            return Err(format!("the message has no object for {}", path.pointer).into());
        };
        match members.iter().position(|(known, _)| known.is(&name.text)) {
            Some(place) => {
                members[place].1 = value;
                // Of several of one name the last would count for most readers.
                let mut nth = 0;
                members.retain(|(known, _)| {
                    nth += 1;
                    nth <= place + 1 || !known.is(&name.text)
                });
            }
            None => members.push((Value::of_checked(name.quoted.as_bytes()), value)),
        }
        Ok(())
    }

    /// Takes a member out, if it is there.
    pub(crate) fn take(&mut self, path: &Path) -> Option<Self> {
        let (name, within) = path.names.split_last()?;
        let members = self.within(within)?.members()?;
        let mut taken = None;
        while let Some(place) = members.iter().rposition(|(known, _)| known.is(&name.text)) {
            let (_, value) = members.remove(place);
            taken = taken.or(Some(value));
        }
        taken
    }

    /// Keeps what these paths lead to and what is around that, and nothing else.
    pub(crate) fn pick(&mut self, paths: &[Path]) {
        let paths: Vec<&[Name]> = paths.iter().map(|path| &path.names[..]).collect();
        self.pick_names(&paths);
    }

    /// Whether anything is left.
    fn pick_names(&mut self, paths: &[&[Name]]) -> bool {
        if paths.iter().any(|path| path.is_empty()) {
            return true;
        }
        self.open();
        let inside = |is_meant: &dyn Fn(&Name) -> bool| -> Vec<&[Name]> {
            paths.iter().filter(|path| is_meant(&path[0])).map(|path| &path[1..]).collect()
        };
        match self {
            Self::Object(members) => {
                members.retain_mut(|(known, value)| {
                    let paths = inside(&|name| known.is(&name.text));
                    !paths.is_empty() && value.pick_names(&paths)
                });
                !members.is_empty()
            }
            Self::Array(elements) => {
                let mut number = 0;
                elements.retain_mut(|value| {
                    let paths = inside(&|name| name.element == Some(number));
                    number += 1;
                    !paths.is_empty() && value.pick_names(&paths)
                });
                !elements.is_empty()
            }
            _ => false,
        }
    }

    /// Removes null, "", [] and {} at any depth, and what has nothing else in it. The message itself stays.
    pub(crate) fn omit_empty(&mut self) {
        self.open();
        match self {
            Self::Object(members) => members.retain_mut(|(_, value)| !value.becomes_empty()),
            Self::Array(elements) => elements.retain_mut(|value| !value.becomes_empty()),
            _ => {}
        }
    }

    fn becomes_empty(&mut self) -> bool {
        self.omit_empty();
        match self {
            Self::Raw(value) => matches!(value.raw(), b"null" | b"\"\""),
            Self::Object(members) => members.is_empty(),
            Self::Array(elements) => elements.is_empty(),
            // For a number that JSON does not have, null is written.
            Self::Number(number) => !number.is_finite(),
            Self::Truth(_) => false,
        }
    }

    /// Writes it as JSON.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result {
        match self {
            Self::Raw(value) => out.write_all(value.raw())?,
            Self::Number(number) => number.serialize(&mut serde_json::Serializer::new(out))?,
            Self::Truth(truth) => write!(out, "{truth}")?,
            Self::Object(members) => {
                out.write_all(b"{")?;
                for (nth, (name, value)) in members.iter().enumerate() {
                    out.write_all(if nth > 0 { b"," } else { b"" })?;
                    out.write_all(name.raw())?;
                    out.write_all(b":")?;
                    value.write(out)?;
                }
                out.write_all(b"}")?;
            }
            Self::Array(elements) => {
                out.write_all(b"[")?;
                for (nth, value) in elements.iter().enumerate() {
                    out.write_all(if nth > 0 { b"," } else { b"" })?;
                    value.write(out)?;
                }
                out.write_all(b"]")?;
            }
        }
        Ok(())
    }

    fn within(&mut self, names: &[Name]) -> Option<&mut Self> {
        let mut node = self;
        for name in names {
            node.open();
            node = match node {
                Self::Object(members) => &mut members.iter_mut().rfind(|(known, _)| known.is(&name.text))?.1,
                Self::Array(elements) => elements.get_mut(name.element?)?,
                _ => return None,
            };
        }
        Some(node)
    }

    fn members(&mut self) -> Option<&mut Vec<(Value<'a>, Self)>> {
        self.open();
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    /// Opens an object or an array by one level.
    fn open(&mut self) {
        let Self::Raw(value) = self else { return };
        *self = match value.kind() {
            Kind::Object => {
                Self::Object(value.members().map(|(name, value)| (name, Self::Raw(value))).collect())
            }
            Kind::Array => Self::Array(value.elements().map(Self::Raw).collect()),
            _ => return,
        };
    }
}
