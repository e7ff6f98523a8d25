//! One pass over a document that checks all of it.
//!
//! The end of the document reads as a NUL byte, which is valid nowhere outside of strings: a document
//! that was cut short needs no checks of its own.

use super::chunk::{Chunk, Window};
use std::fmt;

/// How deep arrays and objects may be nested.
pub const MAX_DEPTH: u32 = 128;

/// Why a document is not JSON that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It breaks the grammar at this byte, or ends there too early.
    Syntax(usize),
    /// It is nested more than [`MAX_DEPTH`] levels deep.
    TooDeep,
    /// It is not UTF-8.
    NotUtf8,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(at) => write!(f, "not JSON (at byte {at})"),
            Self::TooDeep => write!(f, "JSON nested more than {MAX_DEPTH} levels deep"),
            Self::NotUtf8 => f.write_str("not JSON (not UTF-8)"),
        }
    }
}

impl std::error::Error for Invalid {}

/// A document and a place in it.
///
/// It is copied freely: the loops below work on a copy that lives in registers, and what is rarely needed
/// takes one and gives one back.
#[derive(Clone, Copy)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline]
    pub(super) fn at(self) -> usize {
        self.at
    }

    /// The byte here; NUL at the end.
    #[inline(always)]
    pub(super) fn peek(self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Goes over a byte that was seen, and what is blank after it.
    #[inline(always)]
    pub(super) fn advance(&mut self) {
        self.at += 1;
        self.skip_blank();
    }

    /// Goes over spaces and line breaks.
    #[inline(always)]
    pub(super) fn skip_blank(&mut self) {
        while self.peek() <= b' ' && matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Demands a byte, and goes over it and what is blank after it.
    #[inline(always)]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.peek() != byte {
            return Err(self.error());
        }
        self.advance();
        Ok(())
    }

    /// Demands the end.
    pub(super) fn end(self) -> Result<(), Invalid> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.error()) }
    }

    pub(super) fn error(self) -> Invalid {
        Invalid::Syntax(self.at)
    }

    /// Goes over a member's name and its colon. Gives what stands between the quotes.
    #[inline(always)]
    pub(super) fn name(&mut self) -> Result<&'a [u8], Invalid> {
        if self.peek() != b'"' {
            return Err(self.error());
        }
        let start = self.at + 1;
        match Window::at(self.bytes, self.at).and_then(Window::plain_string) {
            Some(length) => self.at += length,
            None => self.skip_string()?,
        }
        let name = &self.bytes[start..self.at - 1];
        self.skip_blank();
        self.expect(b':')?;
        Ok(name)
    }

    /// Goes over the last byte of an array or object, and what is blank after it. Gives where it ended.
    pub(super) fn close(&mut self) -> usize {
        let end = self.at + 1;
        self.advance();
        end
    }

    /// Goes over a value and what is blank after it, `depth` levels down. Gives where it ended.
    #[inline]
    pub(super) fn skip_value(&mut self, depth: u32) -> Result<usize, Invalid> {
        if let Some(length) = Window::at(self.bytes, self.at).and_then(Window::plain_scalar) {
            self.at += length;
            let end = self.at;
            self.skip_blank();
            return Ok(end);
        }
        let (scanner, end) = self.after_value(depth)?;
        *self = scanner;
        Ok(end)
    }

    fn after_value(mut self, depth: u32) -> Result<(Self, usize), Invalid> {
        // One bit a level, the innermost lowest: whether it is an object.
        let mut levels: u128 = 0;
        let mut level = depth;
        loop {
            let in_array = level > depth && levels & 1 == 0;
            let in_arrays = in_array && level > depth + 1 && levels & 2 == 0;
            let plain = self.skip_elements(in_array, in_arrays);
            let first = self.peek();
            if let Some(length) = plain {
                self.at += length;
            } else if first == b'"' {
                self.skip_string()?;
            } else if first.is_ascii_digit() || first == b'-' {
                self = self.after_number()?;
            } else if first == b'[' || first == b'{' {
                if level == MAX_DEPTH {
                    return Err(Invalid::TooDeep);
                }
                self.advance();
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
            } else {
                self = self.after_literal()?;
            }
            loop {
                let end = self.at;
                self.skip_blank();
                if level == depth {
                    return Ok((self, end));
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

    /// How long the plain scalar is that starts here, if one does. In an array it first goes over those that
    /// stand without blanks between them, as long as one more value follows: `1.5,` and, in an array of
    /// arrays, `"1.5"],[`. Order books are little else.
    #[inline(always)]
    fn skip_elements(&mut self, in_array: bool, in_arrays: bool) -> Option<usize> {
        loop {
            let window = Window::at(self.bytes, self.at)?;
            let length = window.plain_scalar()?;
            self.at += length
                + match window.behind(length) {
                    [b',', b'!'..=0xff, ..] if in_array => 1,
                    // What is behind the last bracket may be an empty array.
                    [b']', b',', b'[', next @ b'!'..=0xff] if in_arrays && next != b']' => 3,
                    _ => return Some(length),
                };
        }
    }

    /// Goes over a string, its quotes included.
    #[inline(always)]
    fn skip_string(&mut self) -> Result<(), Invalid> {
        self.at += 1;
        loop {
            // Sixteen bytes at a time; near the end of the document one at a time.
            if let Some(chunk) = Chunk::at(self.bytes, self.at) {
                self.at += chunk.plain();
            }
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => *self = self.after_escape()?,
                0..b' ' => return Err(self.error()),
                _ => self.at += 1,
            }
        }
    }

    /// The scanner behind the escape that starts here.
    #[inline(never)]
    fn after_escape(mut self) -> Result<Self, Invalid> {
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
        Ok(self)
    }

    /// The scanner behind the number that starts here.
    #[inline(never)]
    fn after_number(mut self) -> Result<Self, Invalid> {
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
        Ok(self)
    }

    /// Goes over digits, at least one.
    #[inline(always)]
    fn skip_digits(&mut self) -> Result<(), Invalid> {
        if !self.peek().is_ascii_digit() {
            return Err(self.error());
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    /// The scanner behind the literal that starts here.
    #[inline(never)]
    fn after_literal(mut self) -> Result<Self, Invalid> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let literal = [&b"true"[..], b"false", b"null"].into_iter().find(|literal| rest.starts_with(literal));
        self.at += literal.ok_or_else(|| self.error())?.len();
        Ok(self)
    }
}
