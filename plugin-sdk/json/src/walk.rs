//! The walk over the brackets of a document, which finds what pointers name and checks what depends on the array or
//! object that is around.
//!
//! What no pointer leads through is passed from bracket to bracket, and where one of many arrays or objects follows
//! the other, as in order books, those between them are passed all at once.

use crate::block::{BLOCK, Lanes};
use crate::grammar::{CHUNK, Chunk, Separators};
use crate::tree::{ROOT, Tree, Visitor};

/// Pointers through more names than these are left to the pass that goes byte by byte.
pub(crate) const MOST_NAMES: u32 = 15;

/// No node.
const NONE: usize = usize::MAX;

/// A walk in progress.
pub(crate) struct Walk<'a, V> {
    document: &'a [u8],
    tree: &'a Tree,
    visitor: &'a mut V,
    max_depth: u32,
    /// Whether names may be spelt with escapes, or have blanks behind them.
    is_loose: bool,
    /// One bit for each level, the innermost lowest: whether it is an object.
    levels: u128,
    depth: u32,
    /// The node of the innermost array or object that pointers lead into, and how deep its members are; none, and
    /// 0, above the document.
    node: usize,
    node_depth: u32,
    /// The node whose value begins or is gone over in that array or object.
    value: usize,
    /// Which element of the array it is, for each level that pointers lead into. It is elsewhere, so that all the rest
    /// can be in registers.
    elements: &'a mut Elements,
}

/// Which element of an array it is, for each level that pointers lead into.
pub(crate) type Elements = [usize; MOST_NAMES as usize + 1];

impl<'a, V: Visitor> Walk<'a, V> {
    #[inline(always)]
    pub(crate) fn new(
        document: &'a [u8],
        tree: &'a Tree,
        max_depth: u32,
        visitor: &'a mut V,
        elements: &'a mut Elements,
    ) -> Self {
        Self {
            document,
            tree,
            visitor,
            max_depth,
            is_loose: false,
            levels: 0,
            depth: 0,
            node: NONE,
            node_depth: 0,
            value: ROOT,
            elements,
        }
    }

    /// Whether the document is valid.
    #[inline(always)]
    pub(crate) fn run(mut self, lanes: impl Lanes) -> bool {
        let start = after_blanks(self.document, 0);
        self.visitor.begin(ROOT, None, start);
        let mut chunk = Chunk::new();
        let (blocks, rest) = self.document.as_chunks::<BLOCK>();
        let mut base = 0;
        let mut full = blocks.chunks_exact(CHUNK);
        for blocks in &mut full {
            for (block, bytes) in blocks.iter().enumerate() {
                let place = base + block * BLOCK;
                if !chunk.read(lanes, self.document, place, block + 1, lanes.planes(bytes), BLOCK as u32) {
                    return false;
                }
            }
            if !chunk.check(lanes, self.document, base, CHUNK) || !self.blocks(&chunk, base, CHUNK) {
                return false;
            }
            chunk.next();
            base += CHUNK * BLOCK;
        }
        if base > 0 {
            chunk.clear();
        }
        let blocks = full.remainder();
        let mut count = blocks.len();
        for (block, bytes) in blocks.iter().enumerate() {
            let place = base + block * BLOCK;
            if !chunk.read(lanes, self.document, place, block + 1, lanes.planes(bytes), BLOCK as u32) {
                return false;
            }
        }
        let mut length = BLOCK as u32;
        if !rest.is_empty() {
            length = rest.len() as u32;
            let missing = BLOCK as u32 - length;
            let planes = match self.document.last_chunk::<BLOCK>() {
                Some(last) => {
                    let [first, second, third, fourth] = lanes.planes(last);
                    [first >> missing, second >> missing, third >> missing, fourth >> missing]
                }
                None => {
                    let mut bytes = [0; BLOCK];
                    bytes[..rest.len()].copy_from_slice(rest);
                    let [first, second, third, fourth] = lanes.planes(&bytes);
                    let there = u64::MAX >> missing;
                    [first & there, second & there, third & there, fourth & there]
                }
            };
            let place = base + count * BLOCK;
            count += 1;
            if !chunk.read(lanes, self.document, place, count, planes, length) {
                return false;
            }
        }
        if !chunk.check(lanes, self.document, base, count) || !self.blocks(&chunk, base, count) {
            return false;
        }
        if self.depth > 0 || !chunk.may_end(count, length) {
            return false;
        }
        self.end_value(self.document.len());
        true
    }

    /// Walks over the brackets of a chunk. False if one may not stand where it does.
    #[inline(always)]
    fn blocks(&mut self, chunk: &Chunk, base: usize, count: usize) -> bool {
        self.is_loose = chunk.is_loose;
        for at in 1..=count {
            if !self.block(chunk, at, base + (at - 1) * BLOCK) {
                return false;
            }
        }
        true
    }

    #[inline(always)]
    fn block(&mut self, chunk: &Chunk, at: usize, base: usize) -> bool {
        let Separators { comma, colon, open, close, curly, array_only } = chunk.separators(at);
        let brackets = open | close;
        // `],[` and `},{`: what is around stays the same.
        let next = close & comma >> 1 & open >> 2 & !(curly ^ curly >> 2);
        let irregular = brackets & !(next | next << 2);
        let mut rest = u64::MAX;
        loop {
            let object = 0_u64.wrapping_sub((self.levels & 1) as u64);
            let is_skipped = self.depth >= self.node_depth + 2;
            let left = if is_skipped { irregular } else { brackets } & rest;
            // The lowest bracket, and all up to it; all there is if there is none.
            let bracket = left & left.wrapping_neg();
            let passed = rest & (left ^ left.wrapping_sub(1));
            rest &= !passed;

            // What must not stand between the last bracket and this one.
            let mut wrong = (array_only & object) | (colon & !object);
            if is_skipped {
                // An array must have this array or object among its elements for others to follow it.
                let is_in_object = self.levels & 2 != 0;
                wrong =
                    (wrong & !(next << 2)) | next & (curly ^ object) | if is_in_object { next } else { 0 };
            } else if self.depth == 0 {
                wrong |= comma;
            }
            if wrong & passed != 0 {
                return false;
            }
            if self.depth == self.node_depth {
                self.members(base, colon & passed, (comma | brackets) & passed, object != 0);
            }
            if bracket == 0 {
                return true;
            }
            let at = base + bracket.trailing_zeros() as usize;
            if bracket & open != 0 {
                if self.depth == self.max_depth {
                    return false;
                }
                self.open(bracket & curly != 0, at);
            } else {
                if self.depth == 0 || (object ^ curly) & bracket != 0 {
                    return false;
                }
                self.close(at);
            }
        }
    }

    /// Goes over colons, commas and the bracket after them that stand in the array or object that pointers lead into.
    #[inline(always)]
    fn members(&mut self, base: usize, colon: u64, stop: u64, is_object: bool) {
        if self.value != NONE {
            self.end_scalar(base, stop, self.value);
        }
        if is_object {
            let mut colons = colon;
            while colons != 0 {
                let behind = colons & colons.wrapping_neg();
                let at = base + colons.trailing_zeros() as usize;
                colons ^= behind;
                if let Some((child, member)) = self.member(at) {
                    self.begin_value(child, Some(member), after_blanks(self.document, at + 1));
                    self.end_scalar(base, stop & !behind.wrapping_sub(1), child);
                }
            }
        } else if self.node != NONE {
            let mut commas = stop;
            while commas != 0 {
                let behind = commas & commas.wrapping_neg();
                let at = base + commas.trailing_zeros() as usize;
                commas ^= behind;
                if self.document[at] == b',' {
                    self.elements[self.node_depth as usize] += 1;
                    self.element(at);
                    self.end_scalar(base, commas, self.value);
                }
            }
        }
    }

    /// The child that a colon belongs to, and where its name starts.
    #[inline(always)]
    fn member(&self, colon: usize) -> Option<(usize, usize)> {
        if self.is_loose {
            return loose_member(self.tree, self.node, self.document, colon);
        }
        self.tree.member_before(self.node, self.document, colon)
    }

    /// The value of a node ends if it is no array or object and something follows it in this block.
    #[inline(always)]
    fn end_scalar(&mut self, base: usize, stop: u64, node: usize) {
        if stop != 0 && node != NONE {
            let at = base + stop.trailing_zeros() as usize;
            if !matches!(self.document.get(at), Some(b'[' | b'{')) {
                self.end_value(at);
            }
        }
    }

    /// The bracket with which an array or object begins.
    #[inline(always)]
    fn open(&mut self, is_object: bool, at: usize) {
        self.levels = self.levels << 1 | u128::from(is_object);
        self.depth += 1;
        if self.depth == self.node_depth + 1 && self.value != NONE && self.tree.is_followed(self.value) {
            self.node = self.value;
            self.node_depth = self.depth;
            self.value = NONE;
            if !is_object {
                self.elements[self.depth as usize] = 0;
                self.element(at);
            }
        }
    }

    /// The bracket with which an array or object ends.
    #[inline(always)]
    fn close(&mut self, at: usize) {
        if self.depth == self.node_depth {
            self.value = self.node;
            self.node = self.tree.node(self.node).parent;
            self.node_depth -= 1;
        }
        self.levels >>= 1;
        self.depth -= 1;
        if self.depth == self.node_depth {
            self.end_value(at + 1);
        }
    }

    /// The element begins, if there is one, that comes after a bracket or comma.
    #[inline(always)]
    fn element(&mut self, at: usize) {
        let element = self.elements[self.node_depth as usize];
        if let Some(child) = self.tree.element(self.node, element) {
            let start = after_blanks(self.document, at + 1);
            if self.document.get(start) != Some(&b']') {
                self.begin_value(child, None, start);
            }
        }
    }

    #[inline(always)]
    fn begin_value(&mut self, node: usize, member: Option<usize>, start: usize) {
        self.value = node;
        self.visitor.begin(node, member, start);
    }

    /// The value that is gone over ends, if there is one: before this place and the blanks in front of it.
    #[inline(always)]
    fn end_value(&mut self, at: usize) {
        if self.value != NONE {
            let end = before_blanks(self.document, at);
            self.visitor.end(self.value, end);
            self.value = NONE;
        }
    }
}

/// The child that a colon belongs to, and where its name starts, where blanks and escapes are possible.
#[cold]
fn loose_member(tree: &Tree, node: usize, document: &[u8], colon: usize) -> Option<(usize, usize)> {
    let end = before_blanks(document, colon) - 1;
    let is_escaped =
        |at: usize| document[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1;
    let start = (0..end).rev().find(|&at| document[at] == b'"' && !is_escaped(at))?;
    let child = tree.member(node, document, start + 1..end)?;
    Some((child, start))
}

/// The first place from here on that is not blank.
#[inline(always)]
fn after_blanks(document: &[u8], from: usize) -> usize {
    let mut at = from;
    while document.get(at).is_some_and(|&byte| is_blank(byte)) {
        at += 1;
    }
    at
}

/// The last place up to here that has nothing blank before it.
#[inline(always)]
fn before_blanks(document: &[u8], to: usize) -> usize {
    let mut at = to;
    while at > 0 && is_blank(document[at - 1]) {
        at -= 1;
    }
    at
}

#[inline(always)]
fn is_blank(byte: u8) -> bool {
    byte <= b' ' && matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}
