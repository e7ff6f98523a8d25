//! Members of a document set and removed, all other bytes left as they are.

use crate::fields::Finds;
use crate::scan::Machine;
use crate::sites::{Mark, Noting};
use crate::tree::{InvalidMember, Tree, Visitor};
use crate::{Document, Field, Found, Invalid, InvalidPointer, MAX_DEPTH, Sites, Span, number, string};
use std::fmt;
use std::ops::Range;

/// Members to be set or removed, as a set of JSON pointers that is compiled once.
///
/// A member that is there gets its new value in the place of the old one; one that is not becomes the last of
/// its object. Blanks and everything else stay as they came. Where an object has several members of one name, all
/// of them are set or removed, so that every reader sees the edit, whichever of them it takes; and where several
/// objects have one name, that is done in each of them. An element of an array is no member: it cannot be set or
/// removed, but a member of an object inside it can.
///
/// Where fields of a document are looked up before it is edited, one pass serves both: [`find`](Self::find) notes where
/// the members are, and [`apply_at`](Self::apply_at) edits there.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    tree: Tree,
    machine: Machine,
    members: Vec<Member>,
    /// Where each field was found in the last document.
    spans: Vec<Span>,
    /// The place of the members in a document that is gone over to be edited.
    sites: Sites,
    splices: Vec<Splice>,
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Change<'a> {
    /// It stays as it is, there or not.
    #[default]
    Leave,
    /// It gets this value, as JSON text.
    Set(&'a [u8]),
    /// It becomes this number.
    Number(f64),
    /// It goes, if it is there.
    Remove,
}

/// Why a document was not edited; the number is that of the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditError {
    /// The document is not JSON.
    Document(Invalid),
    /// The value for a member is not JSON, or too deep for its place.
    Value(usize, Invalid),
    /// The number for a member is not finite, for which JSON has no word.
    NotFinite(usize),
    /// A member is to be set, and the document has no object where its pointer leads.
    NoObject(usize),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(invalid) => write!(f, "{invalid}"),
            Self::Value(number, invalid) => write!(f, "the value of edit {number} is unusable: {invalid}"),
            Self::NotFinite(number) => write!(f, "the number of edit {number} is not finite"),
            Self::NoObject(number) => {
                write!(f, "there is no object that edit {number} could set a member of")
            }
        }
    }
}

impl std::error::Error for EditError {}

#[derive(Clone, Debug)]
struct Member {
    /// The name as a JSON string.
    name: Vec<u8>,
    /// The node of the object that has it.
    object: usize,
    /// How many objects and arrays are around its value.
    depth: u32,
}

/// Bytes of the document that are left out, and what comes in their place.
#[derive(Clone, Debug)]
struct Splice {
    range: Range<usize>,
    put: Put,
}

/// What comes in the place of bytes; the number is that of the edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Put {
    Nothing,
    Value(usize),
    /// The first member of an object that has no other.
    FirstMember(usize),
    /// A member behind others.
    Member(usize),
}

impl Edits {
    /// Adds a member by its pointer. Gives its number: they are numbered from 0 in the order in which they are
    /// added, and one that is there already keeps the number it has.
    ///
    /// # Errors
    /// The pointer is none, or that of the whole document; or one of two members would be inside the other.
    pub fn add(&mut self, pointer: &str) -> Result<usize, InvalidMember> {
        let (number, path) = self.tree.add_member(pointer)?;
        if let (true, [.., object, node]) = (number == self.members.len(), &path[..]) {
            let name = string::quoted(&self.tree.node(*node).name);
            self.members.push(Member { name, object: *object, depth: path.len() as u32 - 1 });
        }
        Ok(number)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is nothing to edit.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Adds a field that [`find`](Self::find) looks up, by its pointer. One that is there already gives the same field.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn add_field(&mut self, pointer: &str) -> Result<Field, InvalidPointer> {
        self.tree.add_field(pointer).map(Field)
    }

    /// Goes over a document once, checks all of it, finds its fields, and appends to `sites` where its members are.
    ///
    /// # Errors
    /// It is not JSON, or nested too deep; then nothing is appended.
    pub fn find<'a>(
        &'a mut self,
        document: impl Into<Document<'a>>,
        sites: &mut Sites,
    ) -> Result<Found<'a>, Invalid> {
        let document = document.into().utf8()?;
        let Self { tree, machine, spans, .. } = self;
        spans.resize(tree.fields(), Span::ABSENT);
        let mut both = FindsAndNotes { finds: Finds { tree, spans }, notes: sites.noting(tree) };
        machine.scan(document, tree, MAX_DEPTH, &mut both)?;
        sites.keep();
        Ok(Found { spans: &self.spans, document })
    }

    /// As [`apply`](Self::apply), for the document that was the one of this number in `sites`. It is gone over again
    /// only if nothing is known of it.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    ///
    /// # Panics
    /// It can where `sites` is not of this document and these members.
    pub fn apply_at<'a>(
        &mut self,
        document: impl Into<Document<'a>>,
        (sites, number): (&Sites, usize),
        changes: &[Change<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), EditError> {
        let document = document.into();
        let Some(marks) = sites.of(number) else { return self.apply(document, changes, out) };
        let changes = self.check(changes)?;
        self.write(document.bytes(), marks, changes, out)
    }

    /// Appends a document to `out` with the changes made, one for each member by number. Members for which none is
    /// given stay as they are.
    ///
    /// # Errors
    /// The document or a value is not JSON, or there is no object that could have a member. Nothing is appended
    /// then.
    pub fn apply<'a>(
        &mut self,
        document: impl Into<Document<'a>>,
        changes: &[Change<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), EditError> {
        let document = document.into().utf8().map_err(EditError::Document)?;
        let changes = self.check(changes)?;
        let mut sites = std::mem::take(&mut self.sites);
        let scanned = self.machine.scan(document, &self.tree, MAX_DEPTH, &mut sites.noting(&self.tree));
        let written = scanned
            .map_err(EditError::Document)
            .and_then(|()| self.write(document, sites.of_last(), changes, out));
        sites.clear();
        self.sites = sites;
        written
    }

    /// Appends a document to `out` with the changes made in the places that were noted of it.
    fn write(
        &mut self,
        document: &[u8],
        marks: &[Mark],
        changes: &[Change<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), EditError> {
        self.plan(document, marks, changes)?;
        let mut at = 0;
        for splice in &self.splices {
            out.extend_from_slice(&document[at..splice.range.start]);
            at = splice.range.end;
            let number = match splice.put {
                Put::Nothing => continue,
                Put::Value(number) => number,
                Put::FirstMember(number) | Put::Member(number) => {
                    if matches!(splice.put, Put::Member(_)) {
                        out.push(b',');
                    }
                    out.extend_from_slice(&self.members[number].name);
                    out.push(b':');
                    number
                }
            };
            match changes[number] {
                Change::Set(json) => out.extend_from_slice(json),
                Change::Number(value) => number::append(value, out),
                Change::Leave | Change::Remove => {}
            }
        }
        out.extend_from_slice(&document[at..]);
        Ok(())
    }

    /// Those of the changes that are of a member, if their values can be where they are to be.
    fn check<'a, 'b>(&self, changes: &'a [Change<'b>]) -> Result<&'a [Change<'b>], EditError> {
        let changes = &changes[..changes.len().min(self.members.len())];
        for (number, (change, member)) in changes.iter().zip(&self.members).enumerate() {
            match change {
                Change::Set(json) => Document::from(*json)
                    .utf8()
                    .and_then(|json| self.machine.check(json, MAX_DEPTH.saturating_sub(member.depth)))
                    .map_err(|invalid| EditError::Value(number, invalid))?,
                Change::Number(value) if !value.is_finite() => return Err(EditError::NotFinite(number)),
                Change::Number(_) | Change::Leave | Change::Remove => {}
            }
        }
        Ok(changes)
    }

    /// Makes splices of the marks and the changes, in the order in which they stand in the document.
    fn plan(&mut self, document: &[u8], marks: &[Mark], changes: &[Change<'_>]) -> Result<(), EditError> {
        self.splices.clear();
        let is_object =
            |mark: &Mark| self.tree.node(mark.node).leads_to_member && document[mark.start] == b'{';
        for (number, (change, member)) in changes.iter().zip(&self.members).enumerate() {
            let is_parent = |mark: &Mark| mark.node == member.object && is_object(mark);
            if matches!(change, Change::Set(_) | Change::Number(_)) && !marks.iter().any(is_parent) {
                return Err(EditError::NoObject(number));
            }
        }
        for (at, object) in marks.iter().enumerate().filter(|(_, mark)| is_object(mark)) {
            let behind = &marks[at + 1..];
            let inside = behind.iter().take_while(|mark| mark.start < object.end).count();
            let members = || {
                behind[..inside].iter().filter_map(|mark| {
                    let number = self.tree.node(mark.node).member?;
                    let is_own = self.members[number].object == object.node;
                    is_own.then_some((number, mark.member?, mark.start..mark.end))
                })
            };
            let range = object.start..object.end;
            let mut plan = ObjectPlan { document, changes, object: range, splices: &mut self.splices };
            let is_bare = plan.edit(members());
            let own = (0..self.members.len()).filter(|&number| self.members[number].object == object.node);
            plan.add(own.filter(|&number| members().all(|(there, ..)| there != number)), is_bare);
        }
        self.splices.sort_unstable_by_key(|splice| (splice.range.start, splice.range.end, splice.put));
        Ok(())
    }
}

/// The edits of one object.
struct ObjectPlan<'a> {
    document: &'a [u8],
    changes: &'a [Change<'a>],
    object: Range<usize>,
    splices: &'a mut Vec<Splice>,
}

impl ObjectPlan<'_> {
    /// Edits the members that are there, given in order with their numbers. Tells whether none is left, known to us
    /// or not.
    fn edit(&mut self, members: impl Iterator<Item = (usize, usize, Range<usize>)>) -> bool {
        // Where the members end that are removed before any that stays; the brace at first.
        let mut removed = self.object.start + 1;
        for (number, start, value) in members {
            match self.changes.get(number) {
                None | Some(Change::Leave) => {}
                Some(Change::Set(_) | Change::Number(_)) => {
                    self.splices.push(Splice { range: value, put: Put::Value(number) });
                }
                Some(Change::Remove) => {
                    let before = self.before(start);
                    if before == removed {
                        removed = value.end;
                    } else {
                        // With the comma before it.
                        self.splices.push(Splice { range: before..value.end, put: Put::Nothing });
                    }
                }
            }
        }
        let next = removed + blanks(&self.document[removed..]);
        if removed > self.object.start + 1 {
            // The first that stays has no comma before it.
            let end = if self.document[next] == b',' { next + 1 } else { removed };
            self.splices.push(Splice { range: self.object.start + 1..end, put: Put::Nothing });
        }
        next + 1 == self.object.end
    }

    /// Adds members behind those that are there.
    fn add(&mut self, missing: impl Iterator<Item = usize>, mut is_bare: bool) {
        let close = self.object.end - 1;
        for number in missing {
            if matches!(self.changes.get(number), Some(Change::Set(_) | Change::Number(_))) {
                let put =
                    if std::mem::take(&mut is_bare) { Put::FirstMember(number) } else { Put::Member(number) };
                self.splices.push(Splice { range: close..close, put });
            }
        }
    }

    /// Where the member before the one that starts here ends; behind the brace if there is none.
    fn before(&self, start: usize) -> usize {
        let blank =
            |end: usize| end - self.document[..end].iter().rev().take_while(|&&byte| is_blank(byte)).count();
        let separator = blank(start) - 1;
        if self.document[separator] == b',' { blank(separator) } else { separator + 1 }
    }
}

/// Finds fields, and notes where members are.
struct FindsAndNotes<'a> {
    finds: Finds<'a>,
    notes: Noting<'a>,
}

impl Visitor for FindsAndNotes<'_> {
    #[inline]
    fn start(&mut self) {
        self.finds.start();
        self.notes.start();
    }

    #[inline]
    fn begin(&mut self, node: usize, member: Option<usize>, start: usize) {
        self.finds.begin(node, member, start);
        self.notes.begin(node, member, start);
    }

    #[inline]
    fn end(&mut self, node: usize, end: usize) {
        self.finds.end(node, end);
        self.notes.end(node, end);
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|&&byte| is_blank(byte)).count()
}
