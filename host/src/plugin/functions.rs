//! Functions that were compiled before, and need not be compiled again.
//!
//! Most of a component in Python, JavaScript or Go is an interpreter or a runtime, which the plugin's next version has
//! again, and so has another plugin in that language. Cranelift knows a function by a digest of all that its code depends
//! on (its incremental cache), and this is where it keeps and finds that code: what the plugins compiled last had, as
//! one entry of the cache of compiled code.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most that is kept, in bytes: a plugin in Python has some 26 MiB of functions, one in JavaScript 6.
const MOST_BYTES: usize = 64 << 20;
const KEY_BYTES: usize = 32;
const LENGTH_BYTES: usize = size_of::<u32>();

type FunctionKey = [u8; KEY_BYTES];

/// The functions that are known while one component is compiled.
#[derive(Default)]
pub(super) struct KnownFunctions {
    /// Keys, lengths and code in a row, as they are kept.
    kept: Vec<u8>,
    /// Where the code of each is in `kept`.
    places: HashMap<FunctionKey, Range<usize>>,
    met: Mutex<MetFunctions>,
}

/// What the component in the making has.
#[derive(Default)]
struct MetFunctions {
    /// Where the code of functions is that were known before.
    again: BTreeSet<usize>,
    new: HashMap<FunctionKey, Vec<u8>>,
}

impl std::fmt::Debug for KnownFunctions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownFunctions").field("known", &self.places.len()).finish_non_exhaustive()
    }
}

impl KnownFunctions {
    /// Those that [`Self::to_keep`] wrote.
    pub(super) fn of(kept: Vec<u8>) -> Self {
        let mut places = HashMap::new();
        let mut at = 0;
        while let Some((key, code)) = entry(&kept, at) {
            at = code.end;
            places.insert(key, code);
        }
        Self { kept, places, met: Mutex::default() }
    }

    /// What is to be kept for the next component: the functions of this one, and of those before it as many as there is
    /// room for. None where this one had nothing new.
    pub(super) fn to_keep(&self) -> Option<Vec<u8>> {
        let met = self.met();
        if met.new.is_empty() {
            return None;
        }
        let mut kept = Vec::new();
        let mut keep = |key: &[u8], code: &[u8]| {
            if kept.len() + KEY_BYTES + LENGTH_BYTES + code.len() > MOST_BYTES {
                return;
            }
            let Ok(length) = u32::try_from(code.len()) else { return };
            kept.extend_from_slice(key);
            kept.extend_from_slice(&length.to_le_bytes());
            kept.extend_from_slice(code);
        };
        for (key, code) in &met.new {
            keep(key, code);
        }
        for is_of_this in [true, false] {
            let mut at = 0;
            while let Some((key, code)) = entry(&self.kept, at) {
                at = code.end;
                if met.again.contains(&code.start) == is_of_this && !met.new.contains_key(&key) {
                    keep(&key, &self.kept[code]);
                }
            }
        }
        Some(kept)
    }

    /// How many functions of the component in the making were known before.
    #[cfg(test)]
    pub(super) fn met_again(&self) -> usize {
        self.met().again.len()
    }

    fn met(&self) -> MutexGuard<'_, MetFunctions> {
        // Each change of it is made in one step.
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry that begins there: its key, and where its code is. None at the end.
fn entry(kept: &[u8], at: usize) -> Option<(FunctionKey, Range<usize>)> {
    let (key, rest) = kept.get(at..)?.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len())?;
    let start = at + KEY_BYTES + LENGTH_BYTES;
    Some((*key, start..start + length))
}

impl wasmtime::CacheStore for KnownFunctions {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let key: &FunctionKey = key.try_into().ok()?;
        if let Some(code) = self.places.get(key) {
            self.met().again.insert(code.start);
            return Some(Cow::Borrowed(&self.kept[code.clone()]));
        }
        self.met().new.get(key).map(|code| Cow::Owned(code.clone()))
    }

    fn insert(&self, key: &[u8], code: Vec<u8>) -> bool {
        let Ok(key) = key.try_into() else { return false };
        self.met().new.insert(key, code);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::CacheStore as _;

    fn key(n: u8) -> FunctionKey {
        [n; KEY_BYTES]
    }

    #[test]
    fn what_was_kept_is_known_and_what_nobody_has_any_more_goes_first() {
        let first = KnownFunctions::of(Vec::new());
        assert!(first.get(&key(1)).is_none());
        assert!(first.insert(&key(1), vec![1; 10]) && first.insert(&key(2), vec![]));
        assert_eq!(first.get(&key(1)).as_deref(), Some(&[1; 10][..]), "it may be there twice");
        let kept = first.to_keep().expect("there is something new");

        let second = KnownFunctions::of(kept);
        assert_eq!(second.get(&key(2)).as_deref(), Some(&[][..]));
        assert!(second.to_keep().is_none(), "nothing new was met");
        // It leaves room for itself and the function that it has again, and for no other.
        let large = MOST_BYTES - 2 * (KEY_BYTES + LENGTH_BYTES);
        assert!(second.insert(&key(3), vec![3; large]));
        let third = KnownFunctions::of(second.to_keep().expect("there is something new"));
        assert_eq!(third.get(&key(3)).map(|code| code.len()), Some(large));
        assert!(third.get(&key(2)).is_some() && third.get(&key(1)).is_none());
    }

    #[test]
    fn what_is_cut_or_makes_no_sense_is_known_as_far_as_it_does() {
        let first = KnownFunctions::of(Vec::new());
        first.insert(&key(1), vec![7; 100]);
        let kept = first.to_keep().expect("there is something new");
        for length in 0..kept.len() {
            assert!(KnownFunctions::of(kept[..length].to_vec()).get(&key(1)).is_none());
        }
        assert!(KnownFunctions::of(vec![0xff; 1000]).places.is_empty());
        assert!(first.get(b"short").is_none() && !first.insert(b"short", Vec::new()));
    }
}
