//! The new messages of one call, as slices of what the guest returned.

use super::rows::range;
use super::writings::Writings;
use crate::message::Payload;
use crate::message::metadata::Metadata;
use bytes::Bytes;

/// New messages. Everything in them was checked.
#[derive(Debug, Default)]
pub struct Emissions {
    /// All payloads in a row, if the guest returned them so.
    pub(super) payloads: Bytes,
    /// The payloads, if the guest returned them one by one.
    pub(super) each: Option<Vec<Payload>>,
    pub(super) ends: Vec<u32>,
    pub(super) binary: Option<Vec<u8>>,
    pub(super) origins: Vec<u32>,
    pub(super) outputs: Vec<u16>,
    pub(super) writings: Writings,
    pub(super) count: usize,
}

impl Emissions {
    /// Makes emissions without a message.
    pub fn none() -> Self {
        Self::default()
    }

    /// The number of emissions.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The payload of one; a slice of what the guest returned, which lives as long as it.
    ///
    /// # Panics
    /// If `i` is not below `len()`.
    #[inline]
    pub fn payload(&self, i: usize) -> Payload {
        if let Some(each) = &self.each {
            return each[i].clone();
        }
        let bytes = self.payloads.slice(range(&self.ends, i));
        match &self.binary {
            Some(binary) if binary[i] == 1 => Payload::binary(bytes),
            _ => Payload::checked_text(bytes),
        }
    }

    /// The index of the message it came from; never descending. `None` from `tick` and `finish`.
    #[inline]
    pub fn origin(&self, i: usize) -> Option<usize> {
        self.origins.get(i).map(|origin| *origin as usize)
    }

    /// Its output: 0 is "default", n is `outputs[n - 1]` of the description.
    #[inline]
    pub fn output(&self, i: usize) -> u16 {
        self.outputs.get(i).copied().unwrap_or(0)
    }

    /// Makes the metadata of an emission's origin that of the emission.
    ///
    /// # Panics
    /// If `i` is not below `len()`.
    #[inline]
    pub fn write_metadata(&self, i: usize, metadata: &mut Metadata) {
        self.writings.write(i, metadata);
    }

    pub(super) fn origins(&self) -> &[u32] {
        &self.origins
    }

    pub(super) fn origins_mut(&mut self) -> &mut [u32] {
        &mut self.origins
    }
}
