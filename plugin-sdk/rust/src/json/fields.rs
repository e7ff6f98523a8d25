//! A set of JSON pointers, looked up together in one pass.

use super::scan::{Invalid, Scanner};
use super::value::Value;
use super::{MAX_DEPTH, string};
use crate::Message;
use std::fmt;

/// A set of JSON pointers (RFC 6901), compiled.
///
/// The empty pointer is the whole document; `~1` and `~0` stand for `/` and `~` in a name. A number is
/// the place of an element where it meets an array, and a name where it meets an object.
#[derive(Clone, Debug)]
pub struct Fields {
    /// A tree of what the pointers have in common; the first node is the document.
    nodes: Vec<Node>,
    /// Where each field was found in the last document.
    places: Vec<Place>,
}

/// A pointer of a [`Fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(usize);

/// What was found in one document.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    places: &'a [Place],
    json: &'a [u8],
}

/// A text that is not a JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPointer(String);

impl fmt::Display for InvalidPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(pointer) = self;
        write!(f, "{pointer:?} is not a JSON pointer: ")?;
        if pointer.starts_with('/') {
            f.write_str("`~` must be followed by 0 or 1")
        } else {
            write!(f, "it must start with `/`, like \"/{pointer}\"")
        }
    }
}

impl std::error::Error for InvalidPointer {}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The name under which the parent has it.
    name: String,
    /// The same as the place of an array's element.
    element: Option<usize>,
    field: Option<Field>,
    children: Vec<usize>,
}

/// A stretch of the document, or nothing.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    end: usize,
}

impl Place {
    const NONE: Self = Self { start: 0, end: 0 };
}

impl Default for Fields {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], places: Vec::new() }
    }
}

impl Fields {
    /// Adds a pointer. One that is there already gives the same field.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn add(&mut self, pointer: &str) -> Result<Field, InvalidPointer> {
        let mut node = 0;
        if !pointer.is_empty() {
            let names = pointer.strip_prefix('/').ok_or_else(|| InvalidPointer(pointer.to_owned()))?;
            for name in names.split('/') {
                let plain = name.replace("~1", "").replace("~0", "");
                if plain.contains('~') {
                    return Err(InvalidPointer(pointer.to_owned()));
                }
                node = self.child(node, name.replace("~1", "/").replace("~0", "~"));
            }
        }
        Ok(*self.nodes[node].field.get_or_insert_with(|| {
            self.places.push(Place::NONE);
            Field(self.places.len() - 1)
        }))
    }

    /// Goes over a document and finds what stands at each pointer.
    ///
    /// `json` should be UTF-8, as text messages are; [`find_in`](Self::find_in) takes any message. The
    /// contents of strings that are not are passed on as they came.
    ///
    /// # Errors
    /// It is not JSON, wherever the mistake is, or nested too deep.
    pub fn find<'a>(&'a mut self, json: &'a [u8]) -> Result<Found<'a>, Invalid> {
        self.places.fill(Place::NONE);
        let mut scanner = Scanner::new(json);
        scanner.skip_blank();
        let mut search = Search { nodes: &self.nodes, places: &mut self.places, scanner };
        search.value(0, 0)?;
        search.scanner.end()?;
        Ok(Found { places: &self.places, json })
    }

    /// Goes over a message like [`find`](Self::find); a binary one must be UTF-8.
    ///
    /// # Errors
    /// It is not JSON, wherever the mistake is, or nested too deep.
    pub fn find_in<'a>(&'a mut self, message: Message<'a>) -> Result<Found<'a>, Invalid> {
        if !message.is_text() && message.as_text().is_none() {
            return Err(Invalid::NotUtf8);
        }
        self.find(message.as_bytes())
    }

    fn child(&mut self, parent: usize, name: String) -> usize {
        let children = &self.nodes[parent].children;
        if let Some(&known) = children.iter().find(|&&child| self.nodes[child].name == name) {
            return known;
        }
        // Leading zeros and signs are not the place of an element.
        let element = name.parse().ok().filter(|element: &usize| element.to_string() == name);
        self.nodes.push(Node { name, element, ..Node::default() });
        let child = self.nodes.len() - 1;
        self.nodes[parent].children.push(child);
        child
    }
}

impl<'a> Found<'a> {
    /// What stands at a pointer, if anything does.
    #[inline]
    pub fn get(&self, field: Field) -> Option<Value<'a>> {
        let place = self.places[field.0];
        (place.end > 0).then(|| Value::new(&self.json[place.start..place.end]))
    }
}

/// A search in progress: it follows the tree of pointers and skips what none of them names.
struct Search<'a, 'f> {
    nodes: &'f [Node],
    places: &'f mut [Place],
    scanner: Scanner<'a>,
}

impl Search<'_, '_> {
    /// Goes over the value of a node, and what is blank after it. Calls itself no deeper than the
    /// longest pointer goes.
    fn value(&mut self, node: usize, depth: u32) -> Result<(), Invalid> {
        let nodes = self.nodes;
        let node = &nodes[node];
        let start = self.scanner.at();
        let end = match self.scanner.peek() {
            b'{' if !node.children.is_empty() => self.object(node, depth)?,
            b'[' if !node.children.is_empty() => self.array(node, depth)?,
            _ => self.scanner.skip_value(depth)?,
        };
        if let Some(field) = node.field {
            self.places[field.0] = Place { start, end };
        }
        Ok(())
    }

    fn object(&mut self, node: &Node, depth: u32) -> Result<usize, Invalid> {
        if depth == MAX_DEPTH {
            return Err(Invalid::TooDeep);
        }
        self.scanner.advance();
        if self.scanner.peek() == b'}' {
            return Ok(self.scanner.close());
        }
        loop {
            let name = self.scanner.name()?;
            let child = node.children.iter().find(|&&child| string::is(name, &self.nodes[child].name));
            match child {
                Some(&child) => {
                    // It may be the second of that name: what the first one held is gone.
                    self.forget(child);
                    self.value(child, depth + 1)?;
                }
                None => {
                    self.scanner.skip_value(depth + 1)?;
                }
            }
            if self.scanner.peek() == b'}' {
                return Ok(self.scanner.close());
            }
            self.scanner.expect(b',')?;
        }
    }

    fn array(&mut self, node: &Node, depth: u32) -> Result<usize, Invalid> {
        if depth == MAX_DEPTH {
            return Err(Invalid::TooDeep);
        }
        self.scanner.advance();
        if self.scanner.peek() == b']' {
            return Ok(self.scanner.close());
        }
        for element in 0.. {
            let child = node.children.iter().find(|&&child| self.nodes[child].element == Some(element));
            match child {
                Some(&child) => self.value(child, depth + 1)?,
                None => {
                    self.scanner.skip_value(depth + 1)?;
                }
            }
            if self.scanner.peek() == b']' {
                break;
            }
            self.scanner.expect(b',')?;
        }
        Ok(self.scanner.close())
    }

    fn forget(&mut self, node: usize) {
        let nodes = self.nodes;
        if let Some(field) = nodes[node].field {
            self.places[field.0] = Place::NONE;
        }
        for &child in &nodes[node].children {
            self.forget(child);
        }
    }
}
