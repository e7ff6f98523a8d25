//! Finds the JSON fields that a guest asked for, and lays them out in columns.
//!
//! Each message is gone over once, however many fields there are, and checked while that is done; where it can be
//! edited is noted on the way. The buffers belong to the instance and are filled again for every call.

use super::bindings::tidemill::plugin::types::{OptionalTextsParam, ValuesParam};
use super::description::{ColumnForm, Description, FieldKind};
use super::fault::Fault;
use super::json_places::JsonPlaces;
use super::rows::range;
use crate::message::Message;
use tidemill_json::Value;

/// A buffer that grew beyond this for one huge batch is given back after it.
const KEEP_BYTES: usize = 4 << 20;

/// The fields that a guest asked for, and their columns.
pub(super) struct JsonFields {
    columns: Vec<FieldColumn>,
    form: ColumnForm,
    needs_json: bool,
}

/// The values of one field in a batch.
struct FieldColumn {
    field: tidemill_json::Field,
    kind: FieldKind,
    numbers: Vec<f64>,
    /// Texts in a row.
    data: Vec<u8>,
    ends: Vec<u32>,
    /// One byte a text: 1 is absent.
    absent: Vec<u8>,
    is_any_absent: bool,
}

/// What was looked for in a batch.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// What the columns take, in bytes.
    pub(super) bytes: usize,
    /// The messages that are not JSON and are therefore not for the guest, and why not. The columns do not
    /// have them.
    pub(super) refused: Vec<(u32, String)>,
}

impl JsonFields {
    /// # Errors
    /// A fault of kind `invalid`, if a pointer is none.
    pub(super) fn try_new(description: &Description, places: &mut JsonPlaces) -> Result<Self, Fault> {
        let mut columns = Vec::with_capacity(description.fields.len());
        for field in &description.fields {
            columns.push(FieldColumn {
                field: places.add_field(&field.pointer)?,
                kind: field.kind,
                numbers: Vec::new(),
                data: Vec::new(),
                ends: Vec::new(),
                absent: Vec::new(),
                is_any_absent: false,
            });
        }
        Ok(Self { columns, form: description.form, needs_json: description.needs_json })
    }

    /// Fills the columns with what these messages have. `None` if that is more than `max_bytes`.
    pub(super) fn find(
        &mut self,
        places: &mut JsonPlaces,
        messages: &[Message],
        max_bytes: usize,
    ) -> Option<Search> {
        let mut search = Search::default();
        places.clear();
        if self.columns.is_empty() && !self.needs_json {
            return Some(search);
        }
        self.columns.iter_mut().for_each(FieldColumn::clear);
        for (index, message) in (0..).zip(messages) {
            match places.find(message.payload.document()) {
                Ok(found) => {
                    for column in &mut self.columns {
                        search.bytes = search.bytes.checked_add(column.push(found.get(column.field)))?;
                    }
                }
                Err(invalid) if self.needs_json => search.refused.push((index, invalid.to_string())),
                Err(_) => {
                    places.skip();
                    for column in &mut self.columns {
                        search.bytes = search.bytes.checked_add(column.push(None))?;
                    }
                }
            }
            if search.bytes > max_bytes {
                return None;
            }
        }
        Some(search)
    }

    /// The texts of each column, if they cross one by one.
    pub(super) fn each(&self) -> Vec<Vec<Option<&str>>> {
        match self.form {
            ColumnForm::Packed => Vec::new(),
            ColumnForm::Each => self.columns.iter().map(|column| column.each().collect()).collect(),
        }
    }

    /// The columns, with what [`Self::each`] gave.
    pub(super) fn values<'a>(
        &'a self,
        each: &'a [Vec<Option<&'a str>>],
    ) -> impl ExactSizeIterator<Item = ValuesParam<'a>> {
        self.columns.iter().enumerate().map(|(n, column)| match (column.kind, self.form) {
            (FieldKind::Number, _) => ValuesParam::Numbers(&column.numbers),
            (_, ColumnForm::Packed) => ValuesParam::Packed(column.packed()),
            (_, ColumnForm::Each) => ValuesParam::Each(&each[n]),
        })
    }
}

impl FieldColumn {
    fn clear(&mut self) {
        if self.data.capacity() > KEEP_BYTES {
            self.data = Vec::new();
        }
        self.numbers.clear();
        self.data.clear();
        self.ends.clear();
        self.absent.clear();
        self.is_any_absent = false;
    }

    /// Appends the value of one message. Says what it takes, in bytes.
    #[inline]
    fn push(&mut self, value: Option<Value<'_>>) -> usize {
        if self.kind == FieldKind::Number {
            self.numbers.push(value.and_then(Value::number).unwrap_or(f64::NAN));
            return size_of::<f64>();
        }
        let start = self.data.len();
        let is_there = value.is_some_and(|value| match self.kind {
            FieldKind::Text => value.append_string(&mut self.data),
            _ => {
                self.data.extend_from_slice(value.raw());
                true
            }
        });
        self.is_any_absent |= !is_there;
        self.absent.push(u8::from(!is_there));
        // What no 32 bits hold is more than any guest's memory: the batch is given up before this is read.
        self.ends.push(u32::try_from(self.data.len()).unwrap_or(u32::MAX));
        self.data.len() - start + size_of::<u32>() + size_of::<u8>()
    }

    fn packed(&self) -> OptionalTextsParam<'_> {
        OptionalTextsParam {
            data: &self.data,
            ends: &self.ends,
            absent: self.is_any_absent.then_some(&*self.absent),
        }
    }

    fn each(&self) -> impl Iterator<Item = Option<&str>> {
        self.absent.iter().enumerate().map(|(n, absent)| {
            let text = &self.data[range(&self.ends, n)];
            (*absent == 0)
                .then(|| std::str::from_utf8(text).expect("a part of a text between its characters"))
        })
    }
}
