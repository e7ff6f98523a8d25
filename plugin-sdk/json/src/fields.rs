//! A set of JSON pointers, looked up together in one pass.

use crate::scan::Machine;
use crate::tree::{ROOT, Tree, Visitor};
use crate::{Document, Invalid, InvalidPointer, MAX_DEPTH, Value};
use std::ops::Range;

/// A set of JSON pointers (RFC 6901), compiled.
///
/// The empty pointer is the whole document; `~1` and `~0` stand for `/` and `~` in a name. A number is
/// the place of an element where it meets an array, and a name where it meets an object.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    tree: Tree,
    machine: Machine,
    /// Where each field was found in the last document.
    spans: Vec<Span>,
}

/// A pointer of a [`Fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(pub(crate) usize);

impl Field {
    /// Its number: fields are numbered from 0 in the order in which they were added.
    #[inline]
    pub fn index(self) -> usize {
        self.0
    }
}

/// Where a value stands in a document, or that it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: usize,
    /// No value ends at 0.
    end: usize,
}

impl Span {
    /// The span of a value that is not there.
    pub const ABSENT: Self = Self { start: 0, end: 0 };

    /// The bytes of the value; none if it is absent.
    #[inline]
    pub fn range(self) -> Option<Range<usize>> {
        (self.end > 0).then_some(self.start..self.end)
    }

    /// The value, if it is not absent, in the document in which it was found.
    #[inline]
    pub fn value(self, document: &[u8]) -> Option<Value<'_>> {
        self.range().and_then(|range| document.get(range)).map(Value::new)
    }
}

/// What was found in one document.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    pub(crate) spans: &'a [Span],
    pub(crate) document: &'a [u8],
}

impl<'a> Found<'a> {
    /// What stands at a pointer, if anything does.
    #[inline]
    pub fn get(&self, field: Field) -> Option<Value<'a>> {
        self.spans[field.0].value(self.document)
    }
}

impl Fields {
    /// Adds a pointer. One that is there already gives the same field.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn add(&mut self, pointer: &str) -> Result<Field, InvalidPointer> {
        self.tree.add_field(pointer).map(Field)
    }

    /// How many fields there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.tree.fields()
    }

    /// Whether no pointer was added; documents are checked all the same.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes over a document once, checks all of it, and finds what stands at each pointer.
    ///
    /// # Errors
    /// It is not JSON, wherever the mistake is, or nested too deep.
    pub fn find<'a>(&'a mut self, document: impl Into<Document<'a>>) -> Result<Found<'a>, Invalid> {
        let document = document.into().utf8()?;
        self.spans.resize(self.tree.fields(), Span::ABSENT);
        self.machine.scan(
            document,
            &self.tree,
            MAX_DEPTH,
            &mut Finds { tree: &self.tree, spans: &mut self.spans },
        )?;
        Ok(Found { spans: &self.spans, document })
    }

    /// Does the same for one document of many: appends the [`len`](Self::len) spans of its fields, in the order of
    /// their [`index`](Field::index). Where there is no JSON all of them are absent.
    ///
    /// # Errors
    /// It is not JSON, wherever the mistake is, or nested too deep.
    pub fn find_into<'a>(
        &self,
        document: impl Into<Document<'a>>,
        spans: &mut Vec<Span>,
    ) -> Result<(), Invalid> {
        let start = spans.len();
        spans.resize(start + self.tree.fields(), Span::ABSENT);
        let document = document.into().utf8()?;
        let mut finds = Finds { tree: &self.tree, spans: &mut spans[start..] };
        let found = self.machine.scan(document, &self.tree, MAX_DEPTH, &mut finds);
        if found.is_err() {
            finds.start();
        }
        found
    }
}

/// Notes where fields are; of several members with one name the last counts.
pub(crate) struct Finds<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) spans: &'a mut [Span],
}

impl Visitor for Finds<'_> {
    #[inline]
    fn start(&mut self) {
        self.spans.fill(Span::ABSENT);
    }

    #[inline(always)]
    fn begin(&mut self, node: usize, _: Option<usize>, start: usize) {
        let is_document = node == ROOT;
        let node = self.tree.node(node);
        if !is_document {
            for &field in &node.inside {
                self.spans[field] = Span::ABSENT;
            }
        }
        if let Some(field) = node.field {
            self.spans[field] = Span { start, end: 0 };
        }
    }

    #[inline(always)]
    fn end(&mut self, node: usize, end: usize) {
        if let Some(field) = self.tree.node(node).field {
            self.spans[field].end = end;
        }
    }
}
