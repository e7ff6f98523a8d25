//! Comma-separated values (RFC 4180): records read out of text, and fields written into it.
//!
//! ```
//! use tidemill_plugin::csv::Separator;
//!
//! let comma = Separator::default();
//! let records: Vec<_> = comma.records("BTC,\"a, b\"\nETH,\n").collect::<Result<_, _>>()?;
//! assert_eq!(records, [["BTC", "a, b"], ["ETH", ""]]);
//! # Ok::<(), tidemill_plugin::Error>(())
//! ```

use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::fmt;

/// What stands between two fields: `","` unless a configuration says another character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Separator(char);

/// A text that is not CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// The quote that was opened at this byte is not closed.
    Open(usize),
    /// At this byte, behind a field in quotes, stands neither a separator nor the end of the line.
    Behind(usize),
    /// There are several lines where one is expected.
    Lines,
}

/// One record of a text.
pub type Record<'a> = Vec<Cow<'a, str>>;

/// The records of a text, one after the other.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    text: &'a str,
    at: usize,
    separator: char,
}

impl Separator {
    /// The records of a text, lines as a rule: a field in quotes may have line breaks in it. The last line may end
    /// with a line break or without one; a text without anything has no record.
    pub fn records(self, text: &str) -> Records<'_> {
        Records { text, at: 0, separator: self.0 }
    }

    /// The one record that a line has, with a line break at its end or without one. That of an empty line is an
    /// empty field.
    ///
    /// # Errors
    /// It is not CSV, or has several records.
    pub fn record(self, line: &str) -> Result<Record<'_>, Invalid> {
        let mut records = self.records(line);
        let record = records.next().unwrap_or_else(|| Ok(vec![line.into()]))?;
        if records.next().is_some() { Err(Invalid::Lines) } else { Ok(record) }
    }

    /// Appends a field as it stands in a record: in quotes where it has to be.
    pub fn append_field(self, field: &str, record: &mut String) {
        if !field.contains([self.0, '"', '\r', '\n']) {
            return record.push_str(field);
        }
        record.push('"');
        for (nth, piece) in field.split('"').enumerate() {
            record.push_str(if nth > 0 { "\"\"" } else { "" });
            record.push_str(piece);
        }
        record.push('"');
    }

    /// Appends a record without a line break at its end.
    pub fn append_record<'f>(self, fields: impl IntoIterator<Item = Cow<'f, str>>, text: &mut String) {
        for (nth, field) in fields.into_iter().enumerate() {
            if nth > 0 {
                text.push(self.0);
            }
            self.append_field(&field, text);
        }
    }
}

impl Default for Separator {
    fn default() -> Self {
        Self(',')
    }
}

impl<'de> Deserialize<'de> for Separator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) if !matches!(char, '"' | '\r' | '\n') => Ok(Self(char)),
            _ => Err(de::Error::custom(format!(
                "{text:?} cannot separate fields: take one character such as \",\", \";\" or \"\\t\""
            ))),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Invalid>;

    /// A text that is not CSV ends with its error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.text.len() {
            return None;
        }
        let record = self.record();
        if record.is_err() {
            self.at = self.text.len();
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Result<Record<'a>, Invalid> {
        let mut fields = Vec::new();
        loop {
            fields.push(if self.rest().starts_with('"') { self.quoted()? } else { self.plain() });
            let rest = self.rest();
            if rest.starts_with(self.separator) {
                self.at += self.separator.len_utf8();
                continue;
            }
            let break_bytes = line_break(rest);
            if break_bytes == 0 && !rest.is_empty() {
                return Err(Invalid::Behind(self.at));
            }
            self.at += break_bytes;
            return Ok(fields);
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// A field up to the next separator or line break; quotes within it are part of it.
    fn plain(&mut self) -> Cow<'a, str> {
        let rest = self.rest();
        let ends = |(at, char): &(usize, char)| *char == self.separator || line_break(&rest[*at..]) > 0;
        let end = rest.char_indices().find(ends).map_or(rest.len(), |(at, _)| at);
        self.at += end;
        rest[..end].into()
    }

    /// A field in quotes, in which two quotes stand for one.
    fn quoted(&mut self) -> Result<Cow<'a, str>, Invalid> {
        let open = self.at;
        self.at += 1;
        let mut field = Cow::Borrowed("");
        loop {
            let rest = self.rest();
            let end = rest.find('"').ok_or(Invalid::Open(open))?;
            self.at += end + 1;
            let is_last = !rest[end + 1..].starts_with('"');
            let piece = &rest[..end + usize::from(!is_last)];
            if field.is_empty() {
                field = piece.into();
            } else {
                field.to_mut().push_str(piece);
            }
            if is_last {
                return Ok(field);
            }
            self.at += 1;
        }
    }
}

/// The length of the line break with which a text starts, in bytes.
fn line_break(text: &str) -> usize {
    match text.as_bytes() {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => 0,
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(at) => write!(f, "not CSV: the quote at byte {at} is not closed"),
            Self::Behind(at) => {
                write!(f, "not CSV: at byte {at}, behind a field in quotes, a separator is missing")
            }
            Self::Lines => f.write_str("not a line of CSV: it has several lines"),
        }
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn separator(text: &str) -> Result<Separator, String> {
        serde_json::from_value(text.into()).map_err(|error| error.to_string())
    }

    fn read<'a>(separator: &str, text: &'a str) -> Result<Vec<Record<'a>>, Invalid> {
        self::separator(separator).unwrap().records(text).collect()
    }

    #[test]
    fn records_are_read() {
        for (by, text, records) in [
            (",", "", vec![]),
            (",", "\n", vec![vec![""]]),
            (",", "a", vec![vec!["a"]]),
            (",", "a,b\r\n,\n", vec![vec!["a", "b"], vec!["", ""]]),
            (",", "\"a,\"\"b\"\"\n\",c", vec![vec!["a,\"b\"\n", "c"]]),
            (",", "\"\",\"\"\"\"", vec![vec!["", "\""]]),
            (",", "5\" pipe, x ", vec![vec!["5\" pipe", " x "]]),
            (";", "1,5;\"2;5\"", vec![vec!["1,5", "2;5"]]),
            ("\t", "a\tb", vec![vec!["a", "b"]]),
            ("¦", "ä¦\"¦\"", vec![vec!["ä", "¦"]]),
        ] {
            let read = read(by, text);
            assert_eq!(read.unwrap(), records, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_csv_is_refused_where_it_is() {
        assert_eq!(read(",", "a,\"b"), Err(Invalid::Open(2)));
        assert_eq!(read(",", "a\n\"b\"\"\n"), Err(Invalid::Open(2)));
        assert_eq!(read(",", "\"b\"c,d"), Err(Invalid::Behind(3)));
        assert_eq!(Separator::default().records("\"").count(), 1);
    }

    #[test]
    fn a_line_is_one_record() {
        let comma = Separator::default();
        assert_eq!(comma.record("a,\"b\nc\"\r\n").unwrap(), ["a", "b\nc"]);
        assert_eq!(comma.record("").unwrap(), [""]);
        assert_eq!(comma.record("a\nb"), Err(Invalid::Lines));
    }

    #[test]
    fn a_separator_is_one_character() {
        for text in ["", ",,", "\"", "\n", "\r"] {
            let error = separator(text).unwrap_err();
            assert!(
                error.ends_with(r#"cannot separate fields: take one character such as ",", ";" or "\t""#)
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            records in prop::collection::vec(prop::collection::vec("[a\",;\r\n ä]{0,6}", 1..5), 0..5),
            by in "[,;\t|ä]",
        ) {
            let by = separator(&by).unwrap();
            let mut text = String::new();
            for record in &records {
                by.append_record(record.iter().map(|field| field.as_str().into()), &mut text);
                text.push('\n');
            }
            let read: Vec<Record<'_>> = by.records(&text).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), by in "[,;\t|ä]") {
            let records = separator(&by).unwrap().records(&text).count();
            prop_assert!(records <= text.len());
        }
    }
}
