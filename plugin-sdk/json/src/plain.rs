//! A pass over a document that goes byte by byte.
//!
//! It is there for machines without vectors that we know, and it has the last word: what another pass refuses is
//! gone over once more, to tell where the mistake is.
//!
//! The end of the document reads as a NUL byte, which is valid nowhere outside of strings: a document
//! that was cut short needs no checks of its own.

use crate::tree::{ROOT, Tree, Visitor};
use crate::{Invalid, MAX_DEPTH};
use std::ops::Range;

/// Goes over a document that may be nested `max_depth` levels deep, and tells the visitor what is in it.
pub(crate) fn scan(
    document: &[u8],
    tree: &Tree,
    max_depth: u32,
    visitor: &mut impl Visitor,
) -> Result<(), Invalid> {
    let mut scanner = Scanner { bytes: document, at: 0, max_depth };
    scanner.skip_blank();
    let mut search = Search { tree, visitor, scanner };
    search.value(ROOT, None, 0)?;
    search.scanner.end()
}

/// Where the elements of an array stand that was checked; none in anything else.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut scanner = Scanner { bytes: value, at: 0, max_depth: MAX_DEPTH };
    let open = scanner.peek() == b'[';
    scanner.advance();
    std::iter::from_fn(move || {
        if !open || matches!(scanner.peek(), b']' | 0) {
            return None;
        }
        let start = scanner.at;
        let end = scanner.skip_value(0).ok()?;
        if scanner.peek() == b',' {
            scanner.advance();
        }
        Some(start..end)
    })
}

/// Where the members of an object stand that was checked: names, with their quotes, and values; none in anything else.
pub(crate) fn members(value: &[u8]) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let mut scanner = Scanner { bytes: value, at: 0, max_depth: MAX_DEPTH };
    let open = scanner.peek() == b'{';
    scanner.advance();
    std::iter::from_fn(move || {
        if !open || matches!(scanner.peek(), b'}' | 0) {
            return None;
        }
        let name = scanner.name().ok()?;
        let start = scanner.at;
        let end = scanner.skip_value(0).ok()?;
        if scanner.peek() == b',' {
            scanner.advance();
        }
        Some((name.start - 1..name.end + 1, start..end))
    })
}

/// Where the number or literal ends that has a byte of the document in it; none if it is none.
pub(crate) fn token_around(document: &[u8], at: usize) -> Option<usize> {
    let length = document[..at].iter().rev().take_while(|&&byte| !ends_token(byte)).count();
    let mut scanner = Scanner { bytes: document, at: at - length, max_depth: MAX_DEPTH };
    scanner.skip_token().then_some(scanner.at)
}

/// Whether the escape is valid of which the backslash is at a place.
pub(crate) fn is_escape(document: &[u8], backslash: usize) -> bool {
    Scanner { bytes: document, at: backslash, max_depth: MAX_DEPTH }.skip_escape().is_ok()
}

/// Whether numbers and literals end before a byte.
fn ends_token(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b'"' | b',' | b':' | b'[' | b']' | b'{' | b'}')
}

/// A search in progress: it follows the tree of pointers and skips what none of them names.
struct Search<'a, 't, V> {
    tree: &'t Tree,
    visitor: &'t mut V,
    scanner: Scanner<'a>,
}

impl<V: Visitor> Search<'_, '_, V> {
    /// Goes over the value of a node, and what is blank after it. Calls itself no deeper than the
    /// longest pointer goes.
    fn value(&mut self, node: usize, member: Option<usize>, depth: u32) -> Result<(), Invalid> {
        self.visitor.begin(node, member, self.scanner.at);
        let is_followed = self.tree.is_followed(node);
        let end = match self.scanner.peek() {
            b'{' if is_followed => self.members(node, depth)?,
            b'[' if is_followed => self.elements(node, depth)?,
            _ => self.scanner.skip_value(depth)?,
        };
        self.visitor.end(node, end);
        Ok(())
    }

    fn members(&mut self, node: usize, depth: u32) -> Result<usize, Invalid> {
        self.scanner.open(depth)?;
        if self.scanner.peek() == b'}' {
            return Ok(self.scanner.close());
        }
        loop {
            let member = self.scanner.at;
            let name = self.scanner.name()?;
            match self.tree.member(node, self.scanner.bytes, name) {
                Some(child) => self.value(child, Some(member), depth + 1)?,
                None => drop(self.scanner.skip_value(depth + 1)?),
            }
            if self.scanner.peek() == b'}' {
                return Ok(self.scanner.close());
            }
            self.scanner.expect(b',')?;
        }
    }

    fn elements(&mut self, node: usize, depth: u32) -> Result<usize, Invalid> {
        self.scanner.open(depth)?;
        if self.scanner.peek() == b']' {
            return Ok(self.scanner.close());
        }
        for element in 0.. {
            match self.tree.element(node, element) {
                Some(child) => self.value(child, None, depth + 1)?,
                None => drop(self.scanner.skip_value(depth + 1)?),
            }
            if self.scanner.peek() == b']' {
                break;
            }
            self.scanner.expect(b',')?;
        }
        Ok(self.scanner.close())
    }
}

/// A document and a place in it.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    max_depth: u32,
}

impl<'a> Scanner<'a> {
    /// The byte here; NUL at the end.
    #[inline]
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Demands the end.
    fn end(&self) -> Result<(), Invalid> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.error()) }
    }

    fn error(&self) -> Invalid {
        Invalid::Syntax(self.at)
    }

    /// Goes over a byte that was seen, and what is blank after it.
    fn advance(&mut self) {
        self.at += 1;
        self.skip_blank();
    }

    /// Goes over spaces and line breaks.
    fn skip_blank(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Demands a byte, and goes over it and what is blank after it.
    fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.peek() != byte {
            return Err(self.error());
        }
        self.advance();
        Ok(())
    }

    /// Goes over the first byte of an array or object that is `depth` levels down, and what is blank after it.
    fn open(&mut self, depth: u32) -> Result<(), Invalid> {
        if depth == self.max_depth {
            return Err(Invalid::TooDeep);
        }
        self.advance();
        Ok(())
    }

    /// Goes over the last byte of an array or object, and what is blank after it. Gives where it ended.
    fn close(&mut self) -> usize {
        let end = self.at + 1;
        self.advance();
        end
    }

    /// Goes over a member's name and its colon. Gives where it stands, without its quotes.
    fn name(&mut self) -> Result<Range<usize>, Invalid> {
        if self.peek() != b'"' {
            return Err(self.error());
        }
        let start = self.at + 1;
        self.skip_string()?;
        let name = start..self.at - 1;
        self.skip_blank();
        self.expect(b':')?;
        Ok(name)
    }

    /// Goes over a value and what is blank after it, `depth` levels down. Gives where it ended.
    fn skip_value(&mut self, depth: u32) -> Result<usize, Invalid> {
        // One bit a level, the innermost lowest: whether it is an object.
        let mut levels: u128 = 0;
        let mut level = depth;
        loop {
            let first = self.peek();
            match first {
                b'[' | b'{' => {
                    self.open(level)?;
                    // `]` and `}` are two behind `[` and `{`.
                    if self.peek() != first + 2 {
                        let object = first == b'{';
                        levels = levels << 1 | u128::from(object);
                        level += 1;
                        if object {
                            self.name()?;
                        }
                        continue;
                    }
                    self.at += 1;
                }
                b'"' => self.skip_string()?,
                b'0'..=b'9' | b'-' => self.skip_number()?,
                _ => self.skip_literal()?,
            }
            loop {
                let end = self.at;
                self.skip_blank();
                if level == depth {
                    return Ok(end);
                }
                let object = levels & 1 == 1;
                let next = self.peek();
                if next == b',' {
                    self.advance();
                    if object {
                        self.name()?;
                    }
                    break;
                }
                if next != if object { b'}' } else { b']' } {
                    return Err(self.error());
                }
                self.at += 1;
                levels >>= 1;
                level -= 1;
            }
        }
    }

    /// Goes over a number or literal that starts here. Gives whether there is one, and nothing of another behind it.
    fn skip_token(&mut self) -> bool {
        let token = match self.peek() {
            b'0'..=b'9' | b'-' => self.skip_number(),
            _ => self.skip_literal(),
        };
        token.is_ok() && (self.at == self.bytes.len() || ends_token(self.peek()))
    }

    /// Goes over a string, its quotes included.
    fn skip_string(&mut self) -> Result<(), Invalid> {
        self.at += 1;
        loop {
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.skip_escape()?,
                0..b' ' => return Err(self.error()),
                _ => self.at += 1,
            }
        }
    }

    /// Goes over an escape, which starts with the backslash here.
    fn skip_escape(&mut self) -> Result<(), Invalid> {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.peek().is_ascii_hexdigit() {
                        return Err(self.error());
                    }
                }
                self.at += 1;
            }
            _ => return Err(self.error()),
        }
        Ok(())
    }

    fn skip_number(&mut self) -> Result<(), Invalid> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.skip_digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    /// Goes over digits, at least one.
    fn skip_digits(&mut self) -> Result<(), Invalid> {
        if !self.peek().is_ascii_digit() {
            return Err(self.error());
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    fn skip_literal(&mut self) -> Result<(), Invalid> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let literal = [&b"true"[..], b"false", b"null"].into_iter().find(|literal| rest.starts_with(literal));
        self.at += literal.ok_or_else(|| self.error())?.len();
        Ok(())
    }
}
