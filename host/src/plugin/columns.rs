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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload as Said;

    fn columns(form: Form, reads: &[&str]) -> Columns {
        Columns::new(&Description {
            outputs: Vec::new(),
            reads: reads.iter().map(|key| Arc::from(*key)).collect(),
            writes: Vec::new(),
            form,
            times: true,
            tick: None,
        })
    }

    fn message(payload: Said, origin: &Arc<Origin>, received_us: u64) -> Message {
        Message { payload, metadata: Metadata::new(origin.clone(), received_us) }
    }

    fn texts(column: &Column) -> Vec<&str> {
        let Column::Packed(Texts { data, ends }) = column else { panic!("{column:?}") };
        let starts = std::iter::once(&0).chain(ends);
        let slice = |(start, end): (&u32, &u32)| &data[*start as usize..*end as usize];
        starts.zip(ends).map(|range| std::str::from_utf8(slice(range)).unwrap()).collect()
    }

    #[test]
    fn payloads_lie_in_a_row_and_only_a_mixed_batch_says_which_are_binary() {
        let origin = Origin::new([("room", "7")]);
        let mut columns = columns(Form::Packed, &[]);
        let mixed = [message(Said::text("ab"), &origin, 1), message(Said::binary(vec![0xff]), &origin, 2)];
        let batch = columns.fill(&mixed).unwrap();
        let Payloads::Packed(packed) = &batch.payloads else { panic!() };
        assert_eq!((&packed.data[..], &packed.ends[..]), (&b"ab\xff"[..], &[2, 3][..]));
        assert_eq!(packed.binary.as_deref(), Some(&[0, 1][..]));
        assert_eq!((batch.times.as_deref(), batch.metadata.is_none()), (Some(&[1, 2][..]), true));
        let Payloads::Packed(packed) = &columns.fill(&mixed[..1]).unwrap().payloads else { panic!() };
        assert_eq!((packed.ends.len(), &packed.binary), (1, &None));
    }

    #[test]
    fn each_payload_is_a_value_and_buffers_are_used_again() {
        let origin = Origin::new([("room", "7")]);
        let mut columns = columns(Form::Each, &["room"]);
        let one =
            [message(Said::text("long enough"), &origin, 1), message(Said::binary(vec![1]), &origin, 2)];
        columns.fill(&one).unwrap();
        let two = [message(Said::text("b"), &origin, 1), message(Said::text("c"), &origin, 2)];
        let batch = columns.fill(&two).unwrap();
        let Payloads::Each(each) = &batch.payloads else { panic!() };
        let said: Vec<_> = each.iter().map(|p| format!("{p:?}")).collect();
        assert_eq!(said, ["Payload::Text(\"b\")", "Payload::Text(\"c\")"]);
    }

    #[test]
    fn a_value_that_all_have_crosses_once() {
        let (one, two) = (Origin::new([("room", "7")]), Origin::new([("room", "8")]));
        let of = |origin: &Arc<Origin>, received_us| message(Said::text(""), origin, received_us);
        let mut columns = columns(Form::Packed, &["room", INGEST_TIME]);
        let column = |columns: &mut Columns, messages: &[Message]| {
            let metadata = columns.fill(messages).unwrap().metadata.clone().unwrap();
            assert_eq!(texts(&metadata[1]).len(), messages.len());
            metadata.into_iter().next().unwrap()
        };
        for (origin, value) in [(&one, "7"), (&two, "8"), (&two, "8")] {
            let Column::Same(same) = column(&mut columns, &[of(origin, 1000), of(origin, 2000)]) else {
                panic!("one origin, and not one value")
            };
            assert_eq!(same, value);
        }
        assert_eq!(texts(&column(&mut columns, &[of(&one, 1), of(&two, 2)])), ["7", "8"]);
        let mut changed = of(&one, 3000);
        changed.metadata.set(&"room".into(), "9");
        assert_eq!(texts(&column(&mut columns, &[of(&one, 1), changed])), ["7", "9"]);
        let metadata = columns.fill(&[of(&one, 5_000), of(&one, 6_000)]).unwrap().metadata.clone().unwrap();
        assert_eq!(texts(&metadata[1]), ["5", "6"]);
        assert!(matches!(&metadata[0], Column::Same(value) if value == "7"));
    }
}
