//! What comes in: a batch of messages, sliced out of the columns in which it crossed.

use crate::bindings::tidemill::plugin::types;
use crate::{Read, Result};

/// Messages in the order in which they came.
pub struct Batch {
    payloads: types::Packed,
    times: Option<Vec<u64>>,
    metadata: Option<Vec<types::Column>>,
}

/// One message of a batch.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    batch: &'a Batch,
    index: u32,
    bytes: &'a [u8],
}

impl Batch {
    pub(crate) fn try_from_wit(batch: types::Batch) -> Result<Self> {
        let types::Payloads::Packed(payloads) = batch.payloads else {
            return Err("the host sent payloads one by one to a plugin that asked for them packed".into());
        };
        Ok(Self { payloads, times: batch.times, metadata: batch.metadata })
    }

    /// How many messages there are; at least one.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.payloads.ends.len()
    }

    /// The messages, in order.
    #[inline]
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let mut start = 0;
        self.payloads.ends.iter().zip(0..).map(move |(&end, index)| {
            let bytes = &self.payloads.data[start..end as usize];
            start = end as usize;
            Message { batch: self, index, bytes }
        })
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

    /// Its payload.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it is a text message.
    #[inline]
    pub fn is_text(self) -> bool {
        self.batch.payloads.binary.as_ref().is_none_or(|binary| binary[self.index()] == 0)
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
        match self.batch.metadata.as_ref().map(|columns| &columns[key.index()]) {
            None => "",
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
