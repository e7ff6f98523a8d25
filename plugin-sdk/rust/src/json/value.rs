//! A JSON value as it stands in a message.

use super::scan::Scanner;
use super::{number, string};
use std::borrow::Cow;

/// A value, as its bytes in a document that was checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    raw: &'a [u8],
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of JSON")]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) fn new(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// A value that stands alone: JSON that somebody has checked.
    #[inline]
    pub(crate) fn of_checked(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// Its bytes, as they stand in the document.
    #[inline]
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        match self.raw[0] {
            b'n' => Kind::Null,
            b't' | b'f' => Kind::Bool,
            b'"' => Kind::String,
            b'[' => Kind::Array,
            b'{' => Kind::Object,
            _ => Kind::Number,
        }
    }

    /// A number, as a JSON number or as a decimal string, rounded to the nearest `f64`. `None` for
    /// what is neither, or too large.
    #[inline]
    pub fn number(self) -> Option<f64> {
        match self.between_quotes() {
            None => number::parse(self.raw),
            Some(digits) if digits.contains(&b'\\') => number::parse(string::unescape(digits).as_bytes()),
            Some(digits) => number::parse(digits),
        }
    }

    /// A number without a point or exponent, exactly.
    pub fn integer(self) -> Option<i64> {
        std::str::from_utf8(self.between_quotes().unwrap_or(self.raw)).ok()?.parse().ok()
    }

    /// What a string says, its escapes read. Borrows from the document if there are none. Half of a
    /// surrogate pair becomes U+FFFD.
    #[inline]
    pub fn string(self) -> Option<Cow<'a, str>> {
        self.between_quotes().map(string::unescape)
    }

    /// Whether it is a string that says `text`; never allocates if no escape is in it.
    #[inline]
    pub fn is(self, text: &str) -> bool {
        self.between_quotes().is_some_and(|string| string::is(string, text))
    }

    /// What a string says, and of anything else its JSON text: a name for sorting messages by.
    pub fn label(self) -> Cow<'a, str> {
        self.string().unwrap_or_else(|| String::from_utf8_lossy(self.raw))
    }

    /// The elements of an array; none of anything else.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let mut scanner = Scanner::new(self.raw);
        let open = scanner.peek() == b'[';
        scanner.advance();
        std::iter::from_fn(move || {
            if !open || matches!(scanner.peek(), b']' | 0) {
                return None;
            }
            let start = scanner.at();
            let end = scanner.skip_value(0).ok()?;
            if scanner.peek() == b',' {
                scanner.advance();
            }
            Some(Value::new(&self.raw[start..end]))
        })
    }

    #[inline]
    fn between_quotes(self) -> Option<&'a [u8]> {
        self.raw.strip_prefix(b"\"")?.strip_suffix(b"\"")
    }
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.raw))
    }
}
