//! The new messages of one call, as slices of what the guest returned.

use crate::message::Payload;
use crate::message::metadata::{Entry, Metadata};
use bytes::Bytes;
use std::sync::Arc;

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

/// What the emissions of a call do with metadata.
#[derive(Debug)]
pub(super) enum Writings {
    /// All the same; without entries, nothing.
    Same(Arc<[Entry]>),
    /// Each its own, by key.
    Own(Vec<(Arc<str>, Writing)>),
}

impl Default for Writings {
    fn default() -> Self {
        Self::Same(Arc::default())
    }
}

/// The values of one metadata key; "" removes it.
#[derive(Debug)]
pub(super) enum Writing {
    Same(Arc<str>),
    Packed {
        data: String,
        ends: Vec<u32>,
    },
    Each(Vec<Arc<str>>),
    /// The values by the number of their emission, ascending.
    Sparse(Vec<(u32, Arc<str>)>),
}

/// Where piece `i` of a row lies.
fn range(ends: &[u32], i: usize) -> std::ops::Range<usize> {
    let start = if i == 0 { 0 } else { ends[i - 1] as usize };
    start..ends[i] as usize
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
        let writings = match &self.writings {
            Writings::Same(entries) => return metadata.set_shared(entries),
            Writings::Own(writings) => writings,
        };
        let mut entries = Vec::with_capacity(writings.len());
        for (key, writing) in writings {
            let value = match writing {
                Writing::Same(value) => value.clone(),
                Writing::Packed { data, ends } => data[range(ends, i)].into(),
                Writing::Each(values) => values[i].clone(),
                Writing::Sparse(settings) => {
                    match settings.binary_search_by_key(&i, |(emission, _)| *emission as usize) {
                        Ok(found) => settings[found].1.clone(),
                        Err(_) => continue,
                    }
                }
            };
            entries.push((key.clone(), value));
        }
        metadata.set_all(entries);
    }

    pub(super) fn origins(&self) -> &[u32] {
        &self.origins
    }
}
