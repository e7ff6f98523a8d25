//! A message as a tree, opened only as far as something in it changes: all else stays as its bytes came.
//!
//! The message was checked before: it is JSON, and no deeper than the host lets it be.

use serde::Serialize as _;
use std::fmt;
use std::io::Write;
use tidemill_plugin::Result;
use tidemill_plugin::json::{Kind, Value, names};

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
#[derive(Clone, Debug)]
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
        let names = names(pointer).map_err(|error| format!("`{key}`: {error}"))?;
        if pointer.is_empty() {
            return Err(
                format!("`{key}`: \"\" is the whole message, and a member is meant, like \"/x\"").into()
            );
        }
        let name = |text: String| {
            let quoted = serde_json::Value::from(text.as_str()).to_string();
            // `01` and `+1` are no elements.
            let element = text.parse().ok().filter(|number: &usize| number.to_string() == text);
            Name { text, quoted, element }
        };
        let names = names.into_iter().map(name).collect();
        Ok(Self { pointer: pointer.to_owned(), names })
    }

    pub(crate) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Whether it leads to an element where there is an array.
    pub(crate) fn may_be_element(&self) -> bool {
        self.names.last().is_some_and(|name| name.element.is_some())
    }

    /// Whether the other leads to the same or into it.
    pub(crate) fn has(&self, other: &Self) -> bool {
        other.names.starts_with(&self.names)
    }

    /// Whether one of the two leads into what the other leads to.
    pub(crate) fn crosses(&self, other: &Self) -> bool {
        self != other && (self.has(other) || other.has(self))
    }
}

/// As in a configuration, in quotes.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.pointer)
    }
}

impl<'a> Node<'a> {
    /// A message.
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self::Raw(Value::of_checked(message.trim_ascii()))
    }

    /// Sets a member: in the place of the old value, or as the last of its object. Where several objects have the
    /// name of the one around it, it is set in each, so that every reader sees it, whichever of them it takes.
    ///
    /// # Errors
    /// There is no object that could have it.
    pub(crate) fn set(&mut self, path: &'a Path, value: &Self) -> Result {
        let (name, within) = path.names.split_last().expect("a path leads to a member");
        let mut is_set = false;
        self.each_object(within, &mut |members| {
            is_set = true;
            let Some(place) = members.iter().position(|(known, _)| known.is(&name.text)) else {
                return members.push((Value::of_checked(name.quoted.as_bytes()), value.clone()));
            };
            members[place].1 = value.clone();
            let mut nth = 0;
            members.retain(|(known, _)| {
                nth += 1;
                nth <= place + 1 || !known.is(&name.text)
            });
        });
        if is_set { Ok(()) } else { Err(format!("the message has no object for {}", path.pointer).into()) }
    }

    /// Takes a member out, if it is there: all that have its name, of which the last counts.
    pub(crate) fn take(&mut self, path: &Path) -> Option<Self> {
        let (name, within) = path.names.split_last()?;
        let is_meant = |(known, _): &(Value<'_>, Self)| known.is(&name.text);
        let members = self.within(within).and_then(Self::members);
        let taken = members.and_then(|members| {
            let place = members.iter().rposition(is_meant)?;
            Some(members.remove(place).1)
        });
        self.each_object(within, &mut |members| members.retain(|member| !is_meant(member)));
        taken
    }

    /// Keeps what these paths lead to and what is around that, and nothing else.
    ///
    /// # Errors
    /// It is no object and no array, and would stay whole.
    pub(crate) fn pick(&mut self, paths: &[Path]) -> Result {
        self.open();
        if !matches!(self, Self::Object(_) | Self::Array(_)) {
            return Err("the message is no object of which a part could be picked".into());
        }
        let paths: Vec<&[Name]> = paths.iter().map(|path| &path.names[..]).collect();
        self.pick_names(&paths);
        Ok(())
    }

    /// Takes a member out, as [`take`](Self::take) does.
    ///
    /// # Errors
    /// An element of an array is there, which is no member and would stay.
    pub(crate) fn drop_member(&mut self, path: &Path) -> Result {
        let (name, within) = path.names.split_last().expect("a path leads to a member");
        let Some(element) = name.element else {
            self.take(path);
            return Ok(());
        };
        let mut has_element = false;
        self.each(within, &mut |node| {
            has_element |= matches!(node, Self::Array(elements) if element < elements.len());
        });
        if has_element {
            return Err(format!("{} is an element of an array, and no member", path.pointer).into());
        }
        self.take(path);
        Ok(())
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

    /// What these names lead to; of several members of one name the last counts.
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

    /// Goes through the objects that these names lead to.
    fn each_object(&mut self, names: &[Name], each: &mut impl FnMut(&mut Vec<(Value<'a>, Self)>)) {
        self.each(names, &mut |node| node.members().into_iter().for_each(&mut *each));
    }

    /// Goes through what these names lead to, opened: several, where members have one name.
    fn each(&mut self, names: &[Name], each: &mut impl FnMut(&mut Self)) {
        self.open();
        let Some((name, names)) = names.split_first() else {
            return each(self);
        };
        match self {
            Self::Object(members) => {
                let meant = members.iter_mut().filter(|(known, _)| known.is(&name.text));
                meant.for_each(|(_, value)| value.each(names, each));
            }
            Self::Array(elements) => {
                let element = name.element.and_then(|element| elements.get_mut(element));
                element.into_iter().for_each(|value| value.each(names, each));
            }
            _ => {}
        }
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
