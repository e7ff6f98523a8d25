//! What the emissions, or the forwarded messages, of one call do with metadata.

use super::bindings::tidemill::plugin::types as wit;
use super::description::Description;
use super::fault::Fault;
use super::rows::{check_ends, check_texts, range, same_length};
use crate::message::metadata::{Entry, Metadata};
use std::sync::Arc;

/// What a message takes in the host that has metadata of its own.
const CHANGES_BYTES: usize = 64;
/// What a value of metadata takes beside its bytes.
const VALUE_BYTES: usize = 64;

/// What the messages of a call do with metadata. Everything in it was checked.
#[derive(Debug, Default)]
pub struct Writings(WrittenValues);

#[derive(Debug, Default)]
enum WrittenValues {
    /// They keep what they have.
    #[default]
    Nothing,
    /// All the same.
    Same(Arc<[Entry]>),
    /// Each its own, by key.
    Own(Vec<(Arc<str>, Writing)>),
}

/// The values of one metadata key; "" removes it.
#[derive(Debug)]
enum Writing {
    Same(Arc<str>),
    Packed {
        data: String,
        ends: Vec<u32>,
    },
    Each(Vec<Arc<str>>),
    /// The values by the number of their message, ascending.
    Sparse(Vec<(u32, Arc<str>)>),
}

impl Writings {
    /// Whether every message keeps what it has.
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, WrittenValues::Nothing)
    }

    /// Sets what message number `i` is given.
    #[inline]
    pub fn write(&self, i: usize, metadata: &mut Metadata) {
        let writings = match &self.0 {
            WrittenValues::Nothing => return,
            WrittenValues::Same(entries) => return metadata.set_shared(entries),
            WrittenValues::Own(writings) => writings,
        };
        let mut entries = Vec::with_capacity(writings.len());
        for (key, writing) in writings {
            let value = match writing {
                Writing::Same(value) => value.clone(),
                Writing::Packed { data, ends } => data[range(ends, i)].into(),
                Writing::Each(values) => values[i].clone(),
                Writing::Sparse(settings) => {
                    match settings.binary_search_by_key(&i, |(index, _)| *index as usize) {
                        Ok(found) => settings[found].1.clone(),
                        Err(_) => continue,
                    }
                }
            };
            entries.push((key.clone(), value));
        }
        metadata.set_all(entries);
    }

    /// Checks the columns of `count` messages, which are `name`.
    pub(super) fn check(
        name: &str,
        columns: Vec<wit::Writing>,
        count: usize,
        description: &Description,
    ) -> Result<Self, Fault> {
        if columns.is_empty() {
            return Ok(Self::default());
        }
        if columns.len() != description.writes.len() {
            return Err(Fault::invalid(format!(
                "{name} has {} columns for {} keys of description.writes",
                columns.len(),
                description.writes.len()
            )));
        }
        let mut writings = Vec::with_capacity(columns.len());
        for (key, writing) in description.writes.iter().zip(columns) {
            let of_key = || format!("{name}[{key:?}]");
            if let Some(writing) = Writing::check(of_key, writing, count)? {
                writings.push((key.clone(), writing));
            }
        }
        if writings.is_empty() {
            return Ok(Self::default());
        }
        if !writings.iter().all(|(_, writing)| matches!(writing, Writing::Same(_))) {
            return Ok(Self(WrittenValues::Own(writings)));
        }
        let same = writings.into_iter().filter_map(|(key, writing)| match writing {
            Writing::Same(value) => Some((key, value)),
            _ => None,
        });
        Ok(Self(WrittenValues::Same(same.collect())))
    }

    /// What the host would hold to give `count` messages these values, in bytes.
    pub(super) fn bytes(columns: &[wit::Writing], count: usize) -> usize {
        let inherits = |writing: &wit::Writing| matches!(writing, wit::Writing::Inherit);
        if columns.iter().all(inherits) {
            return 0;
        }
        let are_shared =
            columns.iter().all(|writing| inherits(writing) || matches!(writing, wit::Writing::Same(_)));
        let of = |writing: &wit::Writing| {
            let (values, bytes) = match writing {
                wit::Writing::Inherit => (0, 0),
                wit::Writing::Same(value) => (if are_shared { 1 } else { count }, value.len()),
                wit::Writing::Packed(wit::TextsResult { data, ends }) => (ends.len(), data.len()),
                wit::Writing::Each(values) => (values.len(), values.iter().map(String::len).sum()),
                wit::Writing::Sparse(settings) => {
                    (settings.len(), settings.iter().map(|s| s.value.len()).sum())
                }
            };
            values.saturating_mul(VALUE_BYTES).saturating_add(bytes)
        };
        columns.iter().map(of).fold(count.saturating_mul(CHANGES_BYTES), usize::saturating_add)
    }
}

impl Writing {
    /// `None` where every message keeps what it has.
    fn check(name: impl Fn() -> String, writing: wit::Writing, count: usize) -> Result<Option<Self>, Fault> {
        Ok(Some(match writing {
            wit::Writing::Inherit => return Ok(None),
            wit::Writing::Same(value) => Self::Same(value.into()),
            wit::Writing::Packed(wit::TextsResult { data, ends }) => {
                same_length(&name(), ends.len(), count)?;
                check_ends(&name(), &data, &ends)?;
                check_texts(&name(), &data, &ends, 0..count)?;
                let data =
                    String::from_utf8(data).map_err(|_| Fault::invalid(format!("{}: not UTF-8", name())))?;
                Self::Packed { data, ends }
            }
            wit::Writing::Each(values) => {
                same_length(&name(), values.len(), count)?;
                Self::Each(values.into_iter().map(Arc::from).collect())
            }
            wit::Writing::Sparse(settings) => {
                if let Some(pair) = settings.windows(2).find(|pair| pair[0].index >= pair[1].index) {
                    let [before, next] = [pair[0].index, pair[1].index];
                    return Err(Fault::invalid(format!(
                        "{} sets {next} after {before}: not ascending",
                        name()
                    )));
                }
                if let Some(last) = settings.last().filter(|last| last.index as usize >= count) {
                    return Err(Fault::invalid(format!("{} sets {} of {count}", name(), last.index)));
                }
                Self::Sparse(settings.into_iter().map(|s| (s.index, Arc::from(s.value))).collect())
            }
        }))
    }
}
