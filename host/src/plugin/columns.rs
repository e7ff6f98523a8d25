//! Packs messages into the columns that a guest asked for.
//!
//! The batch and its buffers belong to the instance and are filled again for every call. In the
//! packed form nothing is allocated for a message.

use super::Form;
use super::bindings::tidemill::plugin::types::{Batch, Column, Packed, Payload, Payloads, Texts};
use super::instance::Description;
use crate::message::Message;
use crate::metadata::{INGEST_TIME, Metadata, Origin};
use std::io::Write;
use std::sync::Arc;

/// A buffer that grew beyond this for one huge message is given back after it.
const KEEP_BYTES: usize = 4 << 20;

/// The batch of an instance.
pub(super) struct Columns {
    batch: Batch,
    keys: Vec<Arc<str>>,
    /// The vector of the `binary` column while a batch has none.
    spare_binary: Vec<u8>,
    /// The origin whose values the `same` columns have.
    same_origin: Option<Arc<Origin>>,
}

impl Columns {
    pub(super) fn new(description: &Description) -> Self {
        let payloads = match description.form {
            Form::Packed => Payloads::Packed(Packed { data: Vec::new(), ends: Vec::new(), binary: None }),
            Form::Each => Payloads::Each(Vec::new()),
        };
        let columns = description.reads.iter().map(|_| Column::Same(String::new())).collect();
        let batch = Batch {
            payloads,
            times: description.times.then(Vec::new),
            metadata: (!description.reads.is_empty()).then_some(columns),
        };
        Self { batch, keys: description.reads.clone(), spare_binary: Vec::new(), same_origin: None }
    }

    /// Fills the batch with these messages. `None` if they are more than 32-bit offsets reach.
    pub(super) fn fill(&mut self, messages: &[Message]) -> Option<&Batch> {
        match &mut self.batch.payloads {
            Payloads::Packed(packed) => fill_packed(packed, &mut self.spare_binary, messages)?,
            Payloads::Each(each) => fill_each(each, messages),
        }
        if let Some(times) = &mut self.batch.times {
            times.clear();
            times.extend(messages.iter().map(|message| message.metadata.received_us()));
        }
        self.fill_metadata(messages)?;
        Some(&self.batch)
    }

    fn fill_metadata(&mut self, messages: &[Message]) -> Option<()> {
        let Some(columns) = &mut self.batch.metadata else { return Some(()) };
        let packed = matches!(self.batch.payloads, Payloads::Packed(_));
        let shared = shared_origin(messages);
        let unchanged = matches!(
            (shared, &self.same_origin),
            (Some(origin), Some(last)) if Arc::ptr_eq(origin, last)
        );
        for (column, key) in columns.iter_mut().zip(&self.keys) {
            match shared {
                // The time of receipt is each message's own.
                Some(origin) if **key != *INGEST_TIME => {
                    if !unchanged {
                        fill_same(column, origin.get(key));
                    }
                }
                _ if packed => fill_texts(column, key, messages)?,
                _ => fill_strings(column, key, messages),
            }
        }
        if !unchanged {
            self.same_origin = shared.cloned();
        }
        Some(())
    }
}

/// The origin of all messages, if they have one and differ in nothing else but their time.
fn shared_origin(messages: &[Message]) -> Option<&Arc<Origin>> {
    let (first, rest) = messages.split_first()?;
    let origin = first.metadata.origin();
    let same = |metadata: &Metadata| !metadata.is_changed() && Arc::ptr_eq(metadata.origin(), origin);
    (!first.metadata.is_changed() && rest.iter().all(|message| same(&message.metadata))).then_some(origin)
}

fn fill_packed(packed: &mut Packed, spare: &mut Vec<u8>, messages: &[Message]) -> Option<()> {
    let Packed { data, ends, binary } = packed;
    if data.capacity() > KEEP_BYTES && data.len() <= KEEP_BYTES {
        data.clear();
        data.shrink_to(KEEP_BYTES);
    }
    data.clear();
    ends.clear();
    let mut all_text = true;
    for message in messages {
        data.extend_from_slice(message.payload.as_bytes());
        ends.push(u32::try_from(data.len()).ok()?);
        all_text &= message.payload.is_text();
    }
    if all_text {
        if let Some(column) = binary.take() {
            *spare = column;
        }
    } else {
        let column = binary.get_or_insert_with(|| std::mem::take(spare));
        column.clear();
        column.extend(messages.iter().map(|message| u8::from(!message.payload.is_text())));
    }
    Some(())
}

fn fill_each(each: &mut Vec<Payload>, messages: &[Message]) {
    each.truncate(messages.len());
    for (n, message) in messages.iter().enumerate() {
        let payload = &message.payload;
        match (each.get_mut(n), payload.as_text()) {
            (Some(Payload::Text(old)), Some(text)) => text.clone_into(old),
            (Some(Payload::Binary(old)), None) => payload.as_bytes().clone_into(old),
            (old, text) => {
                let new = match text {
                    Some(text) => Payload::Text(text.to_owned()),
                    None => Payload::Binary(payload.as_bytes().to_vec()),
                };
                match old {
                    Some(old) => *old = new,
                    None => each.push(new),
                }
            }
        }
    }
}

fn fill_same(column: &mut Column, value: &str) {
    match column {
        Column::Same(old) => value.clone_into(old),
        other => *other = Column::Same(value.to_owned()),
    }
}

fn fill_texts(column: &mut Column, key: &str, messages: &[Message]) -> Option<()> {
    if !matches!(column, Column::Packed(_)) {
        *column = Column::Packed(Texts { data: Vec::new(), ends: Vec::new() });
    }
    let Column::Packed(Texts { data, ends }) = column else { return Some(()) };
    data.clear();
    ends.clear();
    for Message { metadata, .. } in messages {
        if key == INGEST_TIME && !metadata.is_changed() {
            // Formatted in place: `Metadata::get` would allocate it.
            write!(data, "{}", metadata.received_us() / 1000).ok()?;
        } else {
            data.extend_from_slice(metadata.get(key).as_bytes());
        }
        ends.push(u32::try_from(data.len()).ok()?);
    }
    Some(())
}

fn fill_strings(column: &mut Column, key: &str, messages: &[Message]) {
    let strings = messages.iter().map(|message| message.metadata.get(key).into_owned());
    match column {
        Column::Each(old) => {
            old.clear();
            old.extend(strings);
        }
        other => *other = Column::Each(strings.collect()),
    }
}
