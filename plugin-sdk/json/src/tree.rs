//! What several JSON pointers have in common, as a tree of names.

use crate::InvalidPointer;
use crate::pointer::names;
use std::fmt;

/// A node of a [`Tree`]; the first is the document.
pub(crate) const ROOT: usize = 0;

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
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// The name under which the parent has it.
    pub(crate) name: String,
    /// The same as the place of an array's element.
    element: Option<usize>,
    /// The number of the pointer that ends here.
    pub(crate) field: Option<usize>,
    pub(crate) children: Vec<usize>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], fields: 0 }
    }
}

impl Tree {
    /// Adds a pointer. Gives its number; one that is there already keeps the number it has.
    pub(crate) fn add(&mut self, pointer: &str) -> Result<usize, InvalidPointer> {
        let mut node = ROOT;
        for name in names(pointer)? {
            node = self.child_or_new(node, name);
        }
        let fields = &mut self.fields;
        Ok(*self.nodes[node].field.get_or_insert_with(|| {
            *fields += 1;
            *fields - 1
        }))
    }

    /// Adds the pointer of a member that is to be edited. Gives its number, and the nodes on the way to it.
    pub(crate) fn add_member(&mut self, pointer: &str) -> Result<(usize, Vec<usize>), InvalidMember> {
        if pointer.is_empty() {
            return Err(InvalidMember::Document);
        }
        let mut tree = self.clone();
        let number = tree.add(pointer)?;
        let mut path = vec![ROOT];
        for name in names(pointer)? {
            path.push(tree.child_or_new(path[path.len() - 1], name));
        }
        let (last, through) = path.split_last().expect("the root is on the way");
        let is_edited = |node: &usize| tree.nodes[*node].field.is_some();
        if through.iter().any(is_edited) || !tree.nodes[*last].children.is_empty() {
            return Err(InvalidMember::Overlap(pointer.to_owned()));
        }
        *self = tree;
        Ok((number, path))
    }

    /// How many pointers there are.
    #[inline]
    pub(crate) fn fields(&self) -> usize {
        self.fields
    }

    #[inline]
    pub(crate) fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// The child whose name stands between the quotes of a checked string.
    #[inline]
    pub(crate) fn member(&self, node: usize, name: &[u8]) -> Option<usize> {
        let children = self.nodes[node].children.iter().copied();
        children.into_iter().find(|&child| crate::string::is(name, &self.nodes[child].name))
    }

    /// The child that is an element of an array.
    #[inline]
    pub(crate) fn element(&self, node: usize, element: usize) -> Option<usize> {
        let children = self.nodes[node].children.iter().copied();
        children.into_iter().find(|&child| self.nodes[child].element == Some(element))
    }

    fn child_or_new(&mut self, parent: usize, name: String) -> usize {
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
