//! Metadata on its way out.

use crate::Write;
use crate::bindings::tidemill::plugin::types;
use crate::emissions::position;

/// The values that emissions, or messages that go on, were given for metadata keys.
#[derive(Debug, Default)]
pub(crate) struct Writings {
    /// How many keys the plugin described.
    keys: usize,
    /// One for each key; none until a value is given, for most calls give none.
    columns: Vec<Writing>,
}

/// The values of one key, in a row.
#[derive(Debug, Default)]
struct Writing {
    /// The numbers of those that were given one, ascending.
    indices: Vec<u32>,
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Writings {
    #[inline]
    pub(crate) fn new(keys: usize) -> Self {
        Self { keys, columns: Vec::new() }
    }

    /// Gives emission or message number `index` a value of a key.
    pub(crate) fn set(&mut self, key: Write, index: u32, value: &str) {
        self.columns.resize_with(self.keys, Writing::default);
        self.columns[key.index()].set(index, value);
    }

    /// Forgets what those from this number on were given.
    pub(crate) fn keep(&mut self, end: u32) {
        self.columns.iter_mut().for_each(|column| column.keep(end));
    }

    /// One column for each key, of the emissions or messages that have these numbers; no column if none was given
    /// any.
    pub(crate) fn into_wit<I: ExactSizeIterator<Item = u32>>(
        self,
        numbers: impl Fn() -> I,
    ) -> Vec<types::Writing> {
        if self.columns.iter().all(|column| column.indices.is_empty()) {
            return Vec::new();
        }
        self.columns.into_iter().map(|column| column.into_wit(numbers())).collect()
    }
}

impl Writing {
    fn set(&mut self, index: u32, value: &str) {
        self.keep(index);
        self.data.extend_from_slice(value.as_bytes());
        self.indices.push(index);
        self.ends.push(position(self.data.len()));
    }

    fn keep(&mut self, end: u32) {
        while self.indices.pop_if(|last| *last >= end).is_some() {
            self.ends.pop();
            self.data.truncate(self.ends.last().map_or(0, |&end| end as usize));
        }
    }

    /// In a row if each of them was given a value, as a list of those that were otherwise.
    fn into_wit(self, numbers: impl ExactSizeIterator<Item = u32>) -> types::Writing {
        if self.indices.is_empty() {
            return types::Writing::Inherit;
        }
        let count = numbers.len();
        let mut given = self.indices.iter().enumerate().peekable();
        let places = (0..).zip(numbers).filter_map(|(place, number)| {
            while given.next_if(|(_, index)| **index < number).is_some() {}
            given.next_if(|(_, index)| **index == number).map(|(nth, _)| (place, nth))
        });
        let places: Vec<(u32, usize)> = places.collect();
        if places.len() == count && count == self.indices.len() {
            return types::Writing::Packed(types::Texts { data: self.data, ends: self.ends });
        }
        let settings = places.into_iter().map(|(index, nth)| {
            let start = nth.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
            let value = &self.data[start..self.ends[nth] as usize];
            types::Setting { index, value: String::from_utf8_lossy(value).into_owned() }
        });
        types::Writing::Sparse(settings.collect())
    }
}
