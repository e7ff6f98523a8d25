//! What several JSON pointers have in common, as a tree of names.

use crate::InvalidPointer;
use crate::pointer::names;
use crate::string;
use std::fmt;
use std::ops::Range;

/// A node of a [`Tree`]; the first is the document.
pub(crate) const ROOT: usize = 0;

/// Told what a pass comes across of that which the pointers of a [`Tree`] name.
pub(crate) trait Visitor {
    /// A pass begins; what was told of another one that was given up does not count.
    fn start(&mut self);

    /// The value of a node begins. It may be the second of that name: what the first one held does not count.
    /// `member` is where its name starts, with the quote; an element and the document have none.
    fn begin(&mut self, node: usize, member: Option<usize>, start: usize);

    /// The value of a node, the one that began last of those that have not ended, ended.
    fn end(&mut self, node: usize, end: usize);
}

/// Why a member cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidMember {
    /// What should be its pointer is none.
    Pointer(InvalidPointer),
    /// The pointer is that of the whole document.
    Document,
    /// The pointer leads through another member of the set, or that one's through this one.
    Overlap(String),
}

impl fmt::Display for InvalidMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(invalid) => write!(f, "{invalid}"),
            Self::Document => f.write_str("\"\" is the whole document, and not a member of it"),
            Self::Overlap(pointer) => {
                write!(f, "{pointer:?} is inside another member that is edited, or around it")
            }
        }
    }
}

impl std::error::Error for InvalidMember {}

impl From<InvalidPointer> for InvalidMember {
    fn from(invalid: InvalidPointer) -> Self {
        Self::Pointer(invalid)
    }
}

/// Pointers, as a tree of the names that they go through.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    fields: usize,
    members: usize,
    depth: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// The name under which the parent has it.
    pub(crate) name: String,
    pub(crate) parent: usize,
    /// The number of the field that this is.
    pub(crate) field: Option<usize>,
    /// The number of the member that this is.
    pub(crate) member: Option<usize>,
    /// Whether a member is somewhere inside.
    pub(crate) leads_to_member: bool,
    children: Vec<Child>,
    /// How many names lead here.
    depth: u32,
    /// One bit for each two bytes with which names of the children end, by [`end_of`].
    ends: u64,
    /// The numbers of all fields that are somewhere inside.
    pub(crate) inside: Vec<usize>,
}

/// How a node is known to its parent.
#[derive(Clone, Debug)]
struct Child {
    node: usize,
    /// How long the name is.
    length: usize,
    /// The name with the quote before it, or the last eight bytes of both, as it stands in a document; and which bits
    /// of the eight bytes those are.
    word: u64,
    mask: u64,
    /// The name as the place of an array's element.
    element: Option<usize>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], fields: 0, members: 0, depth: 0 }
    }
}

impl Node {
    /// Whether it is a member to edit, or has one inside.
    #[inline]
    pub(crate) fn is_of_member(&self) -> bool {
        self.leads_to_member || self.member.is_some()
    }
}

impl Tree {
    /// Adds the pointer of a field. Gives its number; one that is there already keeps the number it has.
    pub(crate) fn add_field(&mut self, pointer: &str) -> Result<usize, InvalidPointer> {
        let mut node = ROOT;
        for name in names(pointer)? {
            node = self.child_or_new(node, name);
        }
        if let Some(known) = self.nodes[node].field {
            return Ok(known);
        }
        let field = self.fields;
        self.fields += 1;
        self.nodes[node].field = Some(field);
        while node != ROOT {
            node = self.nodes[node].parent;
            self.nodes[node].inside.push(field);
        }
        Ok(field)
    }

    /// Adds the pointer of a member that is to be edited. Gives its number, and the nodes on the way to it.
    pub(crate) fn add_member(&mut self, pointer: &str) -> Result<(usize, Vec<usize>), InvalidMember> {
        if pointer.is_empty() {
            return Err(InvalidMember::Document);
        }
        let mut tree = self.clone();
        let mut path = vec![ROOT];
        for name in names(pointer)? {
            path.push(tree.child_or_new(path[path.len() - 1], name));
        }
        let (&last, through) = path.split_last().expect("the root is on the way");
        if let Some(known) = tree.nodes[last].member {
            return Ok((known, path));
        }
        let is_inside = through.iter().any(|&node| tree.nodes[node].member.is_some());
        if is_inside || tree.nodes[last].leads_to_member {
            return Err(InvalidMember::Overlap(pointer.to_owned()));
        }
        let number = tree.members;
        tree.members += 1;
        tree.nodes[last].member = Some(number);
        for &node in through {
            tree.nodes[node].leads_to_member = true;
        }
        *self = tree;
        Ok((number, path))
    }

    /// How many fields there are.
    #[inline]
    pub(crate) fn fields(&self) -> usize {
        self.fields
    }

    #[inline]
    pub(crate) fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// Whether pointers lead through a node.
    #[inline]
    pub(crate) fn is_followed(&self, node: usize) -> bool {
        !self.nodes[node].children.is_empty()
    }

    /// The nodes that are right behind a node.
    #[inline]
    pub(crate) fn children(&self, node: usize) -> impl Iterator<Item = usize> {
        self.nodes[node].children.iter().map(|child| child.node)
    }

    /// How many names the longest pointer goes through.
    #[inline]
    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }

    /// The child that a colon belongs to, and where its name starts with the quote, in a document that is valid and
    /// has neither blanks nor escapes up to there.
    #[inline(always)]
    pub(crate) fn member_before(&self, node: usize, document: &[u8], colon: usize) -> Option<(usize, usize)> {
        let node = &self.nodes[node];
        let (Some(&last), Some(&other)) = (document.get(colon - 2), document.get(colon.wrapping_sub(3)))
        else {
            return None;
        };
        if node.ends >> end_of(other, last) & 1 == 0 {
            return None;
        }
        let word = word_before(document, colon - 1);
        let is_name = |child: &&Child| {
            word & child.mask == child.word
                && (child.length < WORD || self.ends_at(child, document, colon - 1))
        };
        let child = node.children.iter().find(is_name)?;
        Some((child.node, colon - 2 - child.length))
    }

    /// Whether a name that is longer than a word stands, with the quote before it, right before a place.
    #[cold]
    fn ends_at(&self, child: &Child, document: &[u8], end: usize) -> bool {
        let before = document[..end].strip_suffix(self.nodes[child.node].name.as_bytes());
        before.is_some_and(|before| before.last() == Some(&b'"'))
    }

    /// The child whose name stands at a place in a document that was checked so far, without its quotes.
    pub(crate) fn member(&self, node: usize, document: &[u8], name: Range<usize>) -> Option<usize> {
        let name = &document[name];
        self.children(node).find(|&child| string::is(name, &self.nodes[child].name))
    }

    /// The child that is an element of an array.
    #[inline]
    pub(crate) fn element(&self, node: usize, element: usize) -> Option<usize> {
        let mut children = self.nodes[node].children.iter();
        children.find(|child| child.element == Some(element)).map(|child| child.node)
    }

    fn child_or_new(&mut self, parent: usize, name: String) -> usize {
        if let Some(known) = self.children(parent).find(|&child| self.nodes[child].name == name) {
            return known;
        }
        let node = self.nodes.len();
        let quoted = [b"\"", name.as_bytes()].concat();
        let length = name.len();
        let mask = if length < WORD { !(u64::MAX >> 8 >> (length * 8)) } else { u64::MAX };
        // A name with one of these is never written as it is.
        let is_plain = !name.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..b' '));
        let word = word_before(&quoted, quoted.len()) & mask;
        let (mask, word) = if is_plain { (mask, word) } else { (0, 1) };
        // Leading zeros and signs are not the place of an element.
        let element = name.parse().ok().filter(|element: &usize| element.to_string() == name);
        let end = length.checked_sub(1).map(|other| end_of(quoted[other], quoted[length]));
        self.nodes[parent].ends |= end.map_or(u64::MAX, |end| 1 << end);
        self.nodes[parent].children.push(Child { node, length, mask, word, element });
        let depth = self.nodes[parent].depth + 1;
        self.depth = self.depth.max(depth);
        self.nodes.push(Node { name, parent, depth, ..Node::default() });
        node
    }
}

/// How many bytes of names are compared at once.
const WORD: usize = 8;

/// The last two bytes of a name with the quote before it, as one of 64.
#[inline(always)]
fn end_of(other: u8, last: u8) -> u32 {
    u32::from(last ^ other << 1) % u64::BITS
}

/// The bytes before a place, the last one highest.
#[inline(always)]
fn word_before(document: &[u8], end: usize) -> u64 {
    let word = |from: usize| {
        let bytes = document.get(from..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let near_start = || {
        let first = document[..end.min(WORD)].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        if end == 0 { 0 } else { first << ((WORD - end.min(WORD)) * 8) }
    };
    end.checked_sub(WORD).and_then(word).unwrap_or_else(near_start)
}
