//! Writes what a guest edited into the messages that it forwarded.
//!
//! The bytes of a message are copied once, around the values that change, into one buffer for the whole
//! batch; the new payloads are slices of it.

use super::bindings::tidemill::plugin::types as wit;
use super::description::Description;
use super::fault::Fault;
use super::forward::Forward;
use super::json_places::JsonPlaces;
use super::rows::{check_ends, check_texts, range, same_length};
use crate::message::{Message, Payload};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use tidemill_json::{Change, EditError, Invalid, MAX_DEPTH};

/// What stands around a member that is added: its quotes, a colon, a comma.
const MEMBER_BYTES: usize = 4;
/// Most numbers are no longer, in digits.
const NUMBER_BYTES: usize = 20;

/// The places that a guest may edit.
pub(super) struct Edits {
    names: Vec<Arc<str>>,
    places: JsonPlaces,
}

/// What became of the forwarded messages of a call through its edits.
#[derive(Debug, Default)]
pub struct Edited(Option<Box<EditedRows>>);

#[derive(Debug)]
struct EditedRows {
    /// All edited payloads in a row.
    bytes: Bytes,
    /// One for each forwarded message.
    messages: Vec<EditedMessage>,
}

#[derive(Debug)]
enum EditedMessage {
    Unchanged,
    Changed(Range<usize>),
    /// It cannot be edited: it counts as rejected, for this reason.
    Refused(String),
}

/// The values of one edit, one a forwarded message.
enum EditColumn {
    /// What is NaN is left.
    Numbers(Vec<f64>),
    /// In a row. What is absent is left, what is empty removed.
    Row {
        data: Vec<u8>,
        ends: Vec<u32>,
        absent: Option<Vec<u8>>,
    },
    Each(Vec<Option<String>>),
}

impl Edited {
    /// Whether every forwarded message is as it was.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The new payload of forwarded message number `place`, which had `payload`; `None` if it stays as it was.
    ///
    /// # Errors
    /// It could not be edited, for this reason.
    #[inline]
    pub fn payload(&self, place: usize, payload: &Payload) -> Result<Option<Payload>, &str> {
        let Some(rows) = &self.0 else { return Ok(None) };
        match rows.messages.get(place) {
            None | Some(EditedMessage::Unchanged) => Ok(None),
            Some(EditedMessage::Changed(range)) => {
                let bytes = rows.bytes.slice(range.clone());
                let is_text = payload.is_text();
                Ok(Some(if is_text { Payload::checked_text(bytes) } else { Payload::binary(bytes) }))
            }
            Some(EditedMessage::Refused(reason)) => Err(reason),
        }
    }

    /// Makes of each reason, which may name a pointer out of the configuration, what may be told of it.
    pub(super) fn tell_reasons(&mut self, told: impl Fn(&str) -> String) {
        let Some(rows) = &mut self.0 else { return };
        for message in &mut rows.messages {
            if let EditedMessage::Refused(reason) = message {
                *reason = told(reason);
            }
        }
    }
}

impl Edits {
    /// # Errors
    /// A fault of kind `invalid`, if a pointer is none, or one cannot be edited beside another.
    pub(super) fn try_new(description: &Description, mut places: JsonPlaces) -> Result<Self, Fault> {
        for pointer in &description.edits {
            places.add_member(pointer)?;
        }
        Ok(Self { names: description.edits.clone(), places })
    }

    /// Where these places and others are in the messages of a batch.
    #[inline]
    pub(super) fn places(&mut self) -> &mut JsonPlaces {
        &mut self.places
    }

    /// Checks the columns of edits, and makes them in the forwarded messages of a batch.
    pub(super) fn apply(
        &mut self,
        columns: Vec<wit::ValuesResult>,
        batch: &[Message],
        forward: &Forward,
        forwarded: usize,
    ) -> Result<Edited, Fault> {
        if columns.is_empty() {
            return Ok(Edited::default());
        }
        if columns.len() != self.names.len() {
            return Err(Fault::invalid(format!(
                "edits has {} columns for {} places of description.edits",
                columns.len(),
                self.names.len()
            )));
        }
        let columns = self.names.iter().zip(columns).map(|(name, values)| check(name, values, forwarded));
        let columns: Vec<EditColumn> = columns.collect::<Result<_, _>>()?;
        let payloads: usize = (0..forwarded).map(|n| batch[forward.index(n)].payload.len()).sum();
        let names: usize = self.names.iter().map(|name| name.len() + MEMBER_BYTES).sum();
        let values: usize = columns.iter().map(EditColumn::bytes).sum();
        let mut buffer = Vec::with_capacity(payloads + names * forwarded + values);
        let mut messages = Vec::with_capacity(forwarded);
        let mut changes = Vec::with_capacity(columns.len());
        for n in 0..forwarded {
            changes.clear();
            changes.extend(columns.iter().map(|column| column.change(n)));
            if changes.iter().all(|change| matches!(change, Change::Leave)) {
                messages.push(EditedMessage::Unchanged);
                continue;
            }
            let start = buffer.len();
            let index = forward.index(n);
            let edited = self.places.edit(index, batch[index].payload.document(), &changes, &mut buffer);
            messages.push(match edited {
                Ok(()) => EditedMessage::Changed(start..buffer.len()),
                Err(EditError::Document(invalid)) => EditedMessage::Refused(invalid.to_string()),
                Err(EditError::NoObject(edit)) => {
                    EditedMessage::Refused(format!("the message has no object for {}", self.names[edit]))
                }
                // The value may be one that came out of the message.
                Err(EditError::Value(edit, Invalid::TooDeep)) => EditedMessage::Refused(format!(
                    "{} would be JSON nested more than {MAX_DEPTH} levels deep",
                    self.names[edit]
                )),
                Err(EditError::Value(edit, invalid)) => {
                    return Err(Fault::invalid(format!("edits[{:?}][{n}]: {invalid}", self.names[edit])));
                }
                Err(EditError::NotFinite(edit)) => {
                    return Err(Fault::invalid(format!("edits[{:?}][{n}] is not finite", self.names[edit])));
                }
            });
        }
        Ok(Edited(Some(Box::new(EditedRows { bytes: Bytes::from(buffer), messages }))))
    }
}

impl EditColumn {
    fn bytes(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len() * NUMBER_BYTES,
            Self::Row { data, .. } => data.len(),
            Self::Each(values) => values.iter().flatten().map(String::len).sum(),
        }
    }

    #[inline]
    fn change(&self, n: usize) -> Change<'_> {
        let value = match self {
            Self::Numbers(numbers) if numbers[n].is_nan() => None,
            Self::Numbers(numbers) => return Change::Number(numbers[n]),
            Self::Row { absent: Some(absent), .. } if absent[n] == 1 => None,
            Self::Row { data, ends, .. } => Some(&data[range(ends, n)]),
            Self::Each(values) => values[n].as_deref().map(str::as_bytes),
        };
        match value {
            None => Change::Leave,
            Some([]) => Change::Remove,
            Some(json) => Change::Set(json),
        }
    }
}

/// Checks the values of one edit. That they are JSON is seen when they are written.
fn check(pointer: &str, values: wit::ValuesResult, forwarded: usize) -> Result<EditColumn, Fault> {
    let name = || format!("edits[{pointer:?}]");
    Ok(match values {
        wit::ValuesResult::Numbers(numbers) => {
            same_length(&name(), numbers.len(), forwarded)?;
            EditColumn::Numbers(numbers)
        }
        wit::ValuesResult::Packed(wit::OptionalTextsResult { data, ends, absent }) => {
            same_length(&name(), ends.len(), forwarded)?;
            check_ends(&name(), &data, &ends)?;
            check_texts(&name(), &data, &ends, 0..forwarded)?;
            if let Some(absent) = &absent {
                let list = format!("{}.absent", name());
                same_length(&list, absent.len(), forwarded)?;
                if let Some(n) = absent.iter().position(|absent| *absent > 1) {
                    return Err(Fault::invalid(format!("{list}[{n}] is {}, neither 0 nor 1", absent[n])));
                }
                if let Some(n) = (0..forwarded).find(|&n| absent[n] == 1 && !range(&ends, n).is_empty()) {
                    return Err(Fault::invalid(format!("{}[{n}] is absent, and has bytes", name())));
                }
            }
            EditColumn::Row { data, ends, absent }
        }
        wit::ValuesResult::Each(values) => {
            same_length(&name(), values.len(), forwarded)?;
            EditColumn::Each(values)
        }
    })
}
