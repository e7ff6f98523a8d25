//! JSON fields that the host finds in messages, and members that it edits.

use crate::Message;
use crate::bindings::tidemill::plugin::types::{OptionalTexts, Values};
use crate::json::Value;

/// A JSON field that crosses as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub(crate) usize);

/// A JSON field that crosses as what a string says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text(pub(crate) usize);

/// A JSON field that crosses as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json(pub(crate) usize);

/// A member of JSON objects that the plugin may set or remove in what it forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit(pub(crate) usize);

/// A field that was asked for: what [`Message::get`] takes.
pub trait Field: Copy {
    /// What a message has of it.
    type Value<'a>;

    /// What a message has of it; `None` if it is not there, or is something else than was asked for.
    fn of(self, message: Message<'_>) -> Option<Self::Value<'_>>;
}

impl Field for Number {
    type Value<'a> = f64;

    #[inline]
    fn of(self, message: Message<'_>) -> Option<f64> {
        let Values::Numbers(numbers) = message.values(self.0)? else { return None };
        let number = numbers[message.index()];
        (!number.is_nan()).then_some(number)
    }
}

impl Field for Text {
    type Value<'a> = &'a str;

    #[inline]
    fn of(self, message: Message<'_>) -> Option<&str> {
        let text = text(message.values(self.0)?, message.index())?;
        Some(std::str::from_utf8(text).expect("fields are UTF-8"))
    }
}

impl Field for Json {
    type Value<'a> = Value<'a>;

    #[inline]
    fn of(self, message: Message<'_>) -> Option<Value<'_>> {
        text(message.values(self.0)?, message.index()).map(Value::of_checked)
    }
}

#[inline]
fn text(values: &Values, index: usize) -> Option<&[u8]> {
    let Values::Packed(OptionalTexts { data, ends, absent }) = values else { return None };
    if absent.as_ref().is_some_and(|absent| absent[index] == 1) {
        return None;
    }
    let start = index.checked_sub(1).map_or(0, |before| ends[before] as usize);
    Some(&data[start..ends[index] as usize])
}

/// A value that an edit can give a member: numbers, texts, `bool`, and JSON that was read.
pub trait EditValue {
    /// Hands it over.
    #[doc(hidden)]
    fn put(self, column: &mut EditColumn, message: u32);
}

impl EditValue for f64 {
    #[inline]
    fn put(self, column: &mut EditColumn, message: u32) {
        if self.is_finite() {
            column.push(message, Change::Number(self));
        } else {
            column.push_json(message, b"null");
        }
    }
}

impl EditValue for &str {
    fn put(self, column: &mut EditColumn, message: u32) {
        column.write(message, |data| {
            serde_json::to_writer(data, self).expect("every text is a JSON string");
        });
    }
}

impl EditValue for String {
    fn put(self, column: &mut EditColumn, message: u32) {
        self.as_str().put(column, message);
    }
}

impl EditValue for Value<'_> {
    fn put(self, column: &mut EditColumn, message: u32) {
        column.push_json(message, self.raw());
    }
}

impl EditValue for bool {
    fn put(self, column: &mut EditColumn, message: u32) {
        column.push_json(message, if self { b"true" } else { b"false" });
    }
}

/// Whole numbers stay whole: 2 is `2`, where the `f64` 2.0 is `2.0`.
macro_rules! whole_numbers {
    ($($number:ty)*) => { $(
        impl EditValue for $number {
            fn put(self, column: &mut EditColumn, message: u32) {
                column.push_json(message, self.to_string().as_bytes());
            }
        }
    )* };
}

whole_numbers! { i32 i64 u32 u64 usize }

/// The changes of one member, in the order of the messages; each message has at most one.
#[derive(Debug, Default)]
#[doc(hidden)]
pub struct EditColumn {
    changes: Vec<(u32, Change)>,
    /// The JSON texts in a row.
    data: Vec<u8>,
    numbers: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Number(f64),
    /// The text that stands here.
    Json {
        start: usize,
        end: usize,
    },
    Remove,
}

impl EditColumn {
    #[inline]
    pub(crate) fn push(&mut self, message: u32, change: Change) {
        self.take_back(message);
        self.numbers += usize::from(matches!(change, Change::Number(_)));
        self.changes.push((message, change));
    }

    pub(crate) fn push_json(&mut self, message: u32, json: &[u8]) {
        self.write(message, |data| data.extend_from_slice(json));
    }

    pub(crate) fn write(&mut self, message: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.take_back(message);
        let start = self.data.len();
        write(&mut self.data);
        self.changes.push((message, Change::Json { start, end: self.data.len() }));
    }

    /// Forgets the change of a message, if it is the latest one.
    #[inline]
    pub(crate) fn take_back(&mut self, message: u32) {
        match self.changes.pop_if(|(last, _)| *last == message) {
            Some((_, Change::Number(_))) => self.numbers -= 1,
            Some((_, Change::Json { start, .. })) => self.data.truncate(start),
            Some((_, Change::Remove)) | None => {}
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The column of the messages that were forwarded: numbers, or texts where not all are.
    pub(crate) fn into_wit(self, forwarded: impl Iterator<Item = u32>) -> Values {
        let mut changes = self.changes.iter().peekable();
        let mut next = |message: u32| {
            while changes.next_if(|(other, _)| *other < message).is_some() {}
            changes.next_if(|(other, _)| *other == message).map(|(_, change)| change)
        };
        if self.numbers == self.changes.len() {
            let column = forwarded.map(|message| match next(message) {
                Some(Change::Number(number)) => *number,
                _ => f64::NAN,
            });
            return Values::Numbers(column.collect());
        }
        let mut texts =
            OptionalTexts { data: Vec::with_capacity(self.data.len()), ends: Vec::new(), absent: None };
        let mut absent = Vec::new();
        for message in forwarded {
            let change = next(message);
            absent.push(u8::from(change.is_none()));
            match change {
                Some(Change::Number(number)) => {
                    serde_json::to_writer(&mut texts.data, number).expect("a number is JSON");
                }
                Some(Change::Json { start, end }) => texts.data.extend_from_slice(&self.data[*start..*end]),
                Some(Change::Remove) | None => {}
            }
            texts.ends.push(u32::try_from(texts.data.len()).expect("a guest's memory ends at 4 GiB"));
        }
        texts.absent = absent.contains(&1).then_some(absent);
        Values::Packed(texts)
    }
}
