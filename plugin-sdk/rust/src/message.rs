//! What comes in: a batch of messages, sliced out of the columns in which it crossed.

use crate::bindings::tidemill::plugin::types;
use crate::{Field, Read, Result};

/// Messages in the order in which they came.
pub struct Batch {
    count: u32,
    /// None if the plugin does without.
    payloads: Option<types::Packed>,
    times: Option<Vec<u64>>,
    columns: Option<Vec<types::Column>>,
    /// How many of the columns are metadata; the others are fields.
    reads: usize,
}

/// One message of a batch.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    batch: &'a Batch,
    index: u32,
    bytes: &'a [u8],
}

impl Batch {
    pub(crate) fn try_from_wit(batch: types::Batch, reads: usize) -> Result<Self> {
        let types::Batch { count, payloads, times, columns } = batch;
        let payloads = match payloads {
            None => None,
            Some(types::Payloads::Packed(packed)) => Some(packed),
            Some(types::Payloads::Each(_)) => {
                return Err("the host sent payloads one by one to a plugin that asked for them packed".into());
            }
        };
        Ok(Self { count, payloads, times, columns, reads })
    }

    /// How many messages there are; at least one.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The messages, in order.
    #[inline]
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let (data, ends) =
            self.payloads.as_ref().map_or((&[][..], &[][..]), |packed| (&packed.data, &packed.ends));
        let mut start = 0;
        let with_payloads = ends.iter().zip(0..).map(move |(&end, index)| {
            let bytes = &data[start..end as usize];
            start = end as usize;
            Message { batch: self, index, bytes }
        });
        let count = if self.payloads.is_some() { 0 } else { self.count };
        with_payloads.chain((0..count).map(|index| Message { batch: self, index, bytes: &[] }))
    }
}

impl<'a> Message<'a> {
    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.index
    }

    /// Its place in the batch.
    #[inline]
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Its payload; empty if the plugin [does without](crate::Description::without_payloads).
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it is a text message; true if the plugin does without payloads.
    #[inline]
    pub fn is_text(self) -> bool {
        let binary = self.batch.payloads.as_ref().and_then(|packed| packed.binary.as_ref());
        binary.is_none_or(|binary| binary[self.index()] == 0)
    }

    /// What it has of a JSON field; `None` if that is not there, or is something else than was asked for.
    #[inline]
    pub fn get<F: Field>(self, field: F) -> Option<F::Value<'a>> {
        field.of(self)
    }

    #[inline]
    pub(crate) fn values(self, field: usize) -> Option<&'a types::Values> {
        match &self.batch.columns.as_ref()?[self.batch.reads + field] {
            types::Column::Field(values) => Some(values),
            _ => None,
        }
    }

    /// Its payload, if that is text, or bytes that happen to be UTF-8.
    #[inline]
    pub fn as_text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes).ok()
    }

    /// When it was received, in microseconds since the Unix epoch; `None` unless
    /// [`Description::times`](crate::Description::times) asked for it.
    #[inline]
    pub fn received_us(self) -> Option<u64> {
        self.batch.times.as_ref().map(|times| times[self.index()])
    }

    /// The value of a metadata key; "" if the message does not have it.
    #[inline]
    pub fn metadata(self, key: Read) -> &'a str {
        match self.batch.columns.as_ref().map(|columns| &columns[key.index()]) {
            None | Some(types::Column::Field(_)) => "",
            Some(types::Column::Same(value)) => value,
            Some(types::Column::Each(values)) => &values[self.index()],
            Some(types::Column::Packed(texts)) => {
                let start = self.index().checked_sub(1).map_or(0, |before| texts.ends[before] as usize);
                let text = &texts.data[start..texts.ends[self.index()] as usize];
                std::str::from_utf8(text).expect("metadata is UTF-8")
            }
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.messages()).finish()
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.as_text() {
            Some(text) => write!(f, "{text:?}"),
            None => write!(f, "{:?}", self.bytes),
        }
    }
}
