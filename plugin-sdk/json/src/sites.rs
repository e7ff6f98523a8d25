//! Where documents can be edited, noted while their fields are found.

use crate::tree::{Tree, Visitor};

/// More marks than these are not kept: what one document more has is looked for again when it is edited.
const MOST_MARKS: usize = 1 << 16;
/// Room for so many stays while nothing is noted.
const KEPT_MARKS: usize = 1 << 12;

/// Where the members of an [`Edits`](crate::Edits) are in documents, one after the other, as
/// [`Edits::find`](crate::Edits::find) came across them.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    marks: Vec<Mark>,
    /// Where the marks of each document end.
    ends: Vec<usize>,
    /// Those of the marks that have not ended.
    open: Vec<usize>,
}

/// A value of the document that a pointer leads to or through, in the order in which they begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) node: usize,
    /// Where its name starts; the document and elements have none.
    pub(crate) member: Option<usize>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Sites {
    /// Forgets all documents.
    pub fn clear(&mut self) {
        self.marks.clear();
        self.marks.shrink_to(KEPT_MARKS);
        self.ends.clear();
    }

    /// Counts a document of which nothing is known.
    pub fn skip(&mut self) {
        // A pass that found a mistake has noted what it came across before.
        self.marks.truncate(self.start());
        self.ends.push(self.marks.len());
    }

    /// What was noted of the document that was gone over last and is not counted.
    pub(crate) fn of_last(&self) -> &[Mark] {
        &self.marks[self.start()..]
    }

    /// Counts the document that was gone over last.
    pub(crate) fn keep(&mut self) {
        if self.marks.len() > MOST_MARKS {
            self.skip();
            // Room for the next document, too, which would be made anew for each otherwise.
            self.marks.shrink_to(2 * MOST_MARKS);
        } else {
            self.ends.push(self.marks.len());
        }
    }

    /// What was noted of a document; `None` if nothing is known of it.
    #[inline]
    pub(crate) fn of(&self, document: usize) -> Option<&[Mark]> {
        let start = document.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        // The document itself is always among them.
        self.marks.get(start..*self.ends.get(document)?).filter(|marks| !marks.is_empty())
    }

    /// Notes what a pass comes across of members to edit.
    pub(crate) fn noting<'a>(&'a mut self, tree: &'a Tree) -> Noting<'a> {
        Noting { tree, start: self.start(), sites: self }
    }

    /// Where the marks begin of a document that is not counted yet.
    fn start(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }
}

/// Notes where the members of a document are.
pub(crate) struct Noting<'a> {
    tree: &'a Tree,
    sites: &'a mut Sites,
    start: usize,
}

impl Visitor for Noting<'_> {
    #[inline]
    fn start(&mut self) {
        self.sites.marks.truncate(self.start);
        self.sites.open.clear();
    }

    #[inline(always)]
    fn begin(&mut self, node: usize, member: Option<usize>, start: usize) {
        if self.tree.node(node).is_of_member() {
            self.sites.open.push(self.sites.marks.len());
            self.sites.marks.push(Mark { node, member, start, end: start });
        }
    }

    #[inline(always)]
    fn end(&mut self, node: usize, end: usize) {
        if self.tree.node(node).is_of_member()
            && let Some(mark) = self.sites.open.pop()
        {
            self.sites.marks[mark].end = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_beyond_the_most_marks_are_not_kept_and_need_no_new_memory_each() {
        let mut sites = Sites::default();
        let mut note = |count: usize| {
            let mark = Mark { node: 0, member: None, start: 0, end: 1 };
            sites.marks.extend(std::iter::repeat_n(mark, count));
            sites.keep();
            (sites.marks.as_ptr(), sites.marks.capacity(), sites.of(sites.ends.len() - 1).map(<[_]>::len))
        };
        assert_eq!(note(MOST_MARKS).2, Some(MOST_MARKS));
        let full = note(2);
        assert_eq!(full.2, None);
        assert_eq!((note(2), note(3)), (full, full));
        assert_eq!(note(10 * MOST_MARKS).1, 2 * MOST_MARKS);
    }
}
