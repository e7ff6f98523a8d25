//! Packs messages into the columns that a guest asked for.
//!
//! The buffers belong to the instance and are filled again for every call; the batch that crosses
//! borrows from them and from the messages. In the packed form nothing is allocated for a message.

use super::batch::{BatchPayloads, GuestBatch, PackedPayloads, PayloadRow};
use super::bindings::tidemill::plugin::types::{Column, PayloadParam, TextsParam, ValuesParam};
use super::description::{ColumnForm, Description};
use crate::message::Message;
use crate::message::metadata::{INGEST_TIME, Metadata, Origin};
use std::fmt::Write as _;
use std::sync::Arc;

/// A buffer that grew beyond this for one huge message is given back after it.
const KEEP_BYTES: usize = 4 << 20;

/// What a guest asked for, and the buffers of an instance.
pub(super) struct Columns {
    form: ColumnForm,
    has_payloads: bool,
    times: Option<Vec<u64>>,
    /// Where each payload ends in a row of all.
    ends: Vec<u32>,
    /// Which of them are binary; empty if none is.
    binary: Vec<u8>,
    metadata: Vec<Values>,
}

/// The values of one metadata key in a row, where messages differ.
struct Values {
    key: Arc<str>,
    data: String,
    ends: Vec<u32>,
}

/// The columns of one batch.
pub(super) struct Filled<'a> {
    columns: &'a Columns,
    messages: &'a [Message],
    /// The payloads, if they cross one by one.
    each: Vec<PayloadParam<'a>>,
    metadata: Vec<Crossing<'a>>,
}

/// How the values of one metadata key cross.
enum Crossing<'a> {
    Same(&'a str),
    Packed(&'a Values),
    Each(Vec<&'a str>),
}

impl Columns {
    pub(super) fn new(description: &Description) -> Self {
        let values = |key: &Arc<str>| Values { key: key.clone(), data: String::new(), ends: Vec::new() };
        Self {
            form: description.form,
            has_payloads: description.payloads,
            times: description.times.then(Vec::new),
            ends: Vec::new(),
            binary: Vec::new(),
            metadata: description.reads.iter().map(values).collect(),
        }
    }

    /// Fills the columns with these messages. `None` if they are more than `max_bytes`, or than 32-bit
    /// offsets reach: a value that many messages share takes its place here once for each.
    pub(super) fn fill<'a>(&'a mut self, messages: &'a [Message], max_bytes: usize) -> Option<Filled<'a>> {
        let mut left_bytes = max_bytes;
        if let Some(times) = &mut self.times {
            times.clear();
            times.extend(messages.iter().map(|message| message.metadata.received_us()));
        }
        if self.has_payloads && self.form == ColumnForm::Packed {
            left_bytes = left_bytes.checked_sub(self.measure(messages, left_bytes)?)?;
        }
        let shared = if self.metadata.is_empty() { None } else { shared_origin(messages) };
        // The time of receipt is each message's own.
        let same = |key: &str| shared.filter(|_| key != INGEST_TIME).map(|origin| origin.get(key));
        for values in &mut self.metadata {
            if same(&values.key).is_none() {
                left_bytes = left_bytes.checked_sub(values.pack(messages, left_bytes)?)?;
            }
        }
        let columns = &*self;
        let metadata = columns.metadata.iter().map(|values| match (same(&values.key), columns.form) {
            (Some(value), _) => Crossing::Same(value),
            (None, ColumnForm::Packed) => Crossing::Packed(values),
            (None, ColumnForm::Each) => Crossing::Each(values.each().collect()),
        });
        let metadata = metadata.collect();
        let each = match self.form {
            ColumnForm::Each if self.has_payloads => messages.iter().map(payload).collect(),
            _ => Vec::new(),
        };
        Some(Filled { columns, messages, each, metadata })
    }

    /// The bytes that payloads take in a row.
    fn measure(&mut self, messages: &[Message], max_bytes: usize) -> Option<usize> {
        let Self { ends, binary, .. } = self;
        let (mut length, mut is_all_text) = (0, true);
        ends.clear();
        for Message { payload, .. } in messages {
            length += payload.len();
            is_all_text &= payload.is_text();
            ends.push(u32::try_from(length).ok().filter(|_| length <= max_bytes)?);
        }
        binary.clear();
        if !is_all_text {
            binary.extend(messages.iter().map(|message| u8::from(!message.payload.is_text())));
        }
        Some(length)
    }
}

impl Values {
    /// The bytes that were packed.
    fn pack(&mut self, messages: &[Message], max_bytes: usize) -> Option<usize> {
        let Self { key, data, ends } = self;
        if data.capacity() > KEEP_BYTES {
            *data = String::new();
        }
        data.clear();
        ends.clear();
        for Message { metadata, .. } in messages {
            if **key == *INGEST_TIME && !metadata.is_changed() {
                // Formatted in place: `Metadata::get` would allocate it.
                write!(data, "{}", metadata.received_us() / 1000).ok()?;
            } else {
                let value = metadata.get(key);
                if value.len() > max_bytes - data.len().min(max_bytes) {
                    return None;
                }
                data.push_str(&value);
            }
            ends.push(u32::try_from(data.len()).ok()?);
        }
        Some(data.len())
    }

    fn packed(&self) -> TextsParam<'_> {
        TextsParam { data: self.data.as_bytes(), ends: &self.ends }
    }

    fn each(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.data[start as usize..*end as usize])
    }
}

impl Filled<'_> {
    /// The metadata columns and then those of the fields, if the guest asked for any.
    pub(super) fn columns<'b>(
        &'b self,
        fields: impl ExactSizeIterator<Item = ValuesParam<'b>>,
    ) -> Option<Vec<Column<'b>>> {
        let count = self.metadata.len() + fields.len();
        let metadata = self.metadata.iter().map(|crossing| match crossing {
            Crossing::Same(value) => Column::Same(value),
            Crossing::Packed(values) => Column::Packed(values.packed()),
            Crossing::Each(values) => Column::Each(values),
        });
        (count > 0).then(|| metadata.chain(fields.map(Column::Field)).collect())
    }

    /// All that crosses, with the columns.
    pub(super) fn batch<'b>(&'b self, columns: Option<&'b [Column<'b>]>) -> GuestBatch<'b> {
        let Columns { form, times, ends, binary, .. } = self.columns;
        let payloads = || match form {
            ColumnForm::Packed => BatchPayloads::Packed(PackedPayloads {
                data: PayloadRow::new(self.messages, ends.last().map_or(0, |end| *end as usize)),
                ends,
                binary: (!binary.is_empty()).then_some(binary),
            }),
            ColumnForm::Each => BatchPayloads::Each(&self.each),
        };
        GuestBatch {
            count: u32::try_from(self.messages.len()).expect("a batch has at most 65,536 messages"),
            payloads: self.columns.has_payloads.then(payloads),
            times: times.as_deref(),
            columns,
        }
    }
}

fn payload(message: &Message) -> PayloadParam<'_> {
    match message.payload.as_text() {
        Some(text) => PayloadParam::Text(text),
        None => PayloadParam::Binary(message.payload.as_bytes()),
    }
}

/// The origin of all messages, if they have one and differ in nothing else but their time.
fn shared_origin(messages: &[Message]) -> Option<&Arc<Origin>> {
    let (first, rest) = messages.split_first()?;
    let origin = first.metadata.origin();
    let same = |metadata: &Metadata| !metadata.is_changed() && Arc::ptr_eq(metadata.origin(), origin);
    (!first.metadata.is_changed() && rest.iter().all(|message| same(&message.metadata))).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;

    fn columns(form: ColumnForm, reads: &[&str]) -> Columns {
        let reads = reads.iter().map(|key| Arc::from(*key)).collect();
        Columns::new(&Description { reads, times: true, ..Description::plain(form) })
    }

    fn message(payload: Payload, origin: &Arc<Origin>, received_us: u64) -> Message {
        Message { payload, metadata: Metadata::new(origin.clone(), received_us) }
    }

    fn texts<'a>(column: &Column<'a>) -> Vec<&'a str> {
        match column {
            Column::Same(value) => vec![value],
            Column::Each(values) => values.to_vec(),
            Column::Field(_) => panic!("nobody asked for a field"),
            Column::Packed(TextsParam { data, ends }) => {
                let starts = std::iter::once(&0).chain(*ends);
                let slices = starts.zip(*ends).map(|(start, end)| &data[*start as usize..*end as usize]);
                slices.map(|text| std::str::from_utf8(text).unwrap()).collect()
            }
        }
    }

    #[test]
    fn payloads_lie_in_a_row_and_only_a_mixed_batch_says_which_are_binary() {
        let origin = Origin::new([("room", "7")]);
        let mut columns = columns(ColumnForm::Packed, &[]);
        let mixed =
            [message(Payload::text("ab"), &origin, 1), message(Payload::binary(vec![0xff]), &origin, 2)];
        let filled = columns.fill(&mixed, usize::MAX).unwrap();
        let batch = filled.batch(None);
        let Some(BatchPayloads::Packed(packed)) = batch.payloads else { panic!() };
        assert_eq!((packed.data.to_vec(), packed.ends), (b"ab\xff".to_vec(), &[2, 3][..]));
        assert_eq!(packed.binary, Some(&[0, 1][..]));
        assert_eq!((batch.times, filled.columns(std::iter::empty()).is_none()), (Some(&[1, 2][..]), true));
        let filled = columns.fill(&mixed[..1], usize::MAX).unwrap();
        let Some(BatchPayloads::Packed(packed)) = filled.batch(None).payloads else { panic!() };
        assert_eq!((packed.data.to_vec(), packed.ends, packed.binary), (b"ab".to_vec(), &[2][..], None));
    }

    #[test]
    fn what_would_not_fit_into_the_guest_is_not_packed() {
        let origin = Origin::new([("room", "7")]);
        let mut two =
            [message(Payload::text("1234"), &origin, 1), message(Payload::text("5678"), &origin, 2)];
        assert!(columns(ColumnForm::Packed, &["room"]).fill(&two, 8).is_some());
        assert!(columns(ColumnForm::Packed, &["room"]).fill(&two, 7).is_none());
        let shared: Arc<[crate::message::metadata::Entry]> = [("room".into(), "x".repeat(100).into())].into();
        two.iter_mut().for_each(|message| message.metadata.set_shared(&shared));
        assert!(columns(ColumnForm::Packed, &["room"]).fill(&two, 208).is_some());
        assert!(columns(ColumnForm::Packed, &["room"]).fill(&two, 207).is_none());
        assert!(columns(ColumnForm::Each, &["room"]).fill(&two, 199).is_none());
    }

    #[test]
    fn each_payload_is_a_value() {
        let origin = Origin::new([("room", "7")]);
        let mut columns = columns(ColumnForm::Each, &["room"]);
        let two = [message(Payload::text("a"), &origin, 1), message(Payload::binary(vec![1]), &origin, 2)];
        let filled = columns.fill(&two, usize::MAX).unwrap();
        let Some(BatchPayloads::Each(each)) = filled.batch(None).payloads else { panic!() };
        let said: Vec<_> = each.iter().map(|payload| format!("{payload:?}")).collect();
        assert_eq!(said, ["PayloadParam::Text(\"a\")", "PayloadParam::Binary([1])"]);
    }

    #[test]
    fn a_value_that_all_have_crosses_once() {
        let (one, two) = (Origin::new([("room", "7")]), Origin::new([("room", "8")]));
        let of = |origin: &Arc<Origin>, received_us| message(Payload::text(""), origin, received_us);
        let mut changed = of(&one, 3000);
        changed.metadata.set(&"room".into(), "9");
        let cases = [
            (vec![of(&one, 1000), of(&one, 2000)], vec!["7"], ["1", "2"]),
            (vec![of(&two, 5000), of(&two, 6000)], vec!["8"], ["5", "6"]),
            (vec![of(&one, 1000), of(&two, 2000)], vec!["7", "8"], ["1", "2"]),
            (vec![of(&one, 1000), changed], vec!["7", "9"], ["1", "3"]),
        ];
        for form in [ColumnForm::Packed, ColumnForm::Each] {
            let mut columns = columns(form, &["room", INGEST_TIME]);
            for (messages, rooms, times) in &cases {
                let filled = columns.fill(messages, usize::MAX).unwrap();
                let metadata = filled.columns(std::iter::empty()).unwrap();
                assert_eq!(matches!(metadata[0], Column::Same(_)), rooms.len() == 1);
                assert_eq!((texts(&metadata[0]), texts(&metadata[1])), (rooms.clone(), times.to_vec()));
            }
        }
    }
}
