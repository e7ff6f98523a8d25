//! A JSON value as it stands in a document.

use crate::{number, plain, string};
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
    pub(crate) fn new(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// A value that stands alone: JSON that somebody has checked, without blanks around it.
    #[inline]
    pub fn of_checked(json: &'a [u8]) -> Self {
        Self { raw: json }
    }

    /// Its bytes, as they stand in the document.
    #[inline]
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// What it is.
    #[inline]
    pub fn kind(self) -> Kind {
        match self.raw.first() {
            Some(b'n') => Kind::Null,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'"') => Kind::String,
            Some(b'[') => Kind::Array,
            Some(b'{') => Kind::Object,
            _ => Kind::Number,
        }
    }

    /// A number, as a JSON number or as a decimal string, rounded to the nearest `f64`. `None` for
    /// what is neither, or too large.
    #[inline]
    pub fn number(self) -> Option<f64> {
        self.decimal(number::parse)
    }

    /// A whole number, exactly, as a JSON number or as a decimal string: 7 is `7`, `7.0` and `7e0`. `None` for what
    /// is none, or does not fit.
    pub fn integer(self) -> Option<i64> {
        self.decimal(number::whole)
    }

    /// What a string says, its escapes read. Borrows from the document if there are none.
    ///
    /// `None` for what is no string, and for a string that says half of a surrogate pair, which is valid JSON but
    /// no text: `serde_json` refuses to read such a string, too.
    #[inline]
    pub fn string(self) -> Option<Cow<'a, str>> {
        self.between_quotes().and_then(string::unescape)
    }

    /// Appends what a string says to a buffer, its escapes read. Gives false, and appends nothing, where
    /// [`string`](Self::string) gives `None`.
    #[inline]
    pub fn append_string(self, buffer: &mut Vec<u8>) -> bool {
        let start = buffer.len();
        let is_text = self.between_quotes().is_some_and(|string| string::append(string, buffer));
        if !is_text {
            buffer.truncate(start);
        }
        is_text
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
        plain::elements(self.raw).map(|range| Value::new(&self.raw[range]))
    }

    /// The members of an object, each a name, which is a string, and a value; none of anything else.
    pub fn members(self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> {
        plain::members(self.raw)
            .map(|(name, value)| (Value::new(&self.raw[name]), Value::new(&self.raw[value])))
    }

    #[inline]
    fn decimal<N>(self, read: impl FnOnce(&[u8]) -> Option<N>) -> Option<N> {
        match self.between_quotes() {
            None => read(self.raw),
            Some(digits) if digits.contains(&b'\\') => read(string::unescape(digits)?.as_bytes()),
            Some(digits) => read(digits),
        }
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
