//! The new messages of one call, as slices of what the guest returned.

use super::rows::range;
use super::writings::Writings;
use crate::message::Payload;
use crate::message::metadata::Metadata;
use bytes::Bytes;

/// New messages. Everything in them was checked.
///
/// A call that emits nothing is the usual one: then there is nothing to move about.
#[derive(Debug, Default)]
pub struct Emissions(Option<Box<EmissionRows>>);

/// The columns of emissions, of which there is at least one.
#[derive(Debug)]
pub(super) struct EmissionRows {
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

    pub(super) fn of(rows: EmissionRows) -> Self {
        Self((rows.count > 0).then(|| Box::new(rows)))
    }

    /// The number of emissions.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |rows| rows.count)
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The payload of one; a slice of what the guest returned, which lives as long as it.
    ///
    /// # Panics
    /// If `i` is not below `len()`.
    #[inline]
    pub fn payload(&self, i: usize) -> Payload {
        let rows = self.rows();
        if let Some(each) = &rows.each {
            return each[i].clone();
        }
        let bytes = rows.payloads.slice(range(&rows.ends, i));
        match &rows.binary {
            Some(binary) if binary[i] == 1 => Payload::binary(bytes),
            _ => Payload::checked_text(bytes),
        }
    }

    /// The index of the message it came from; never descending. `None` from `tick` and `finish`.
    #[inline]
    pub fn origin(&self, i: usize) -> Option<usize> {
        self.origins().get(i).map(|origin| *origin as usize)
    }

    /// Its output: 0 is "default", n is `outputs[n - 1]` of the description.
    ///
    /// # Panics
    /// If there are none.
    #[inline]
    pub fn output(&self, i: usize) -> u16 {
        self.rows().outputs.get(i).copied().unwrap_or(0)
    }

    /// Makes the metadata of an emission's origin that of the emission.
    ///
    /// # Panics
    /// If `i` is not below `len()`.
    #[inline]
    pub fn write_metadata(&self, i: usize, metadata: &mut Metadata) {
        self.rows().writings.write(i, metadata);
    }

    pub(super) fn origins(&self) -> &[u32] {
        self.0.as_ref().map_or(&[], |rows| &rows.origins)
    }

    pub(super) fn origins_mut(&mut self) -> &mut [u32] {
        self.0.as_mut().map_or(&mut [], |rows| &mut rows.origins)
    }

    #[inline]
    fn rows(&self) -> &EmissionRows {
        self.0.as_ref().expect("nobody asks for the emissions of a call that has none")
    }
}
