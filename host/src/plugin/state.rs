//! What the host keeps for a transform, whichever instance of its plugin runs.
//!
//! A call sees its own changes at once; everyone else sees them when the outcome of the call was
//! accepted. What `init` and `restore` change waits for the first accepted call, so that a version
//! which is tried and rejected leaves no trace.

use super::log::LogBudget;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

/// Most bytes of keys and values of one transform.
const MAX_STATE_BYTES: usize = 64 << 20;
/// Longest key of the state, in bytes.
const MAX_KEY_BYTES: usize = 1 << 10;
/// What an entry costs beside its key and value, so that many small ones are bounded too.
const ENTRY_BYTES: usize = 128;

/// Key-value state of one transform, and how much its plugin may still log. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct HostState {
    values: Arc<Mutex<StateValues>>,
    log: Arc<Mutex<LogBudget>>,
}

#[derive(Debug, Default)]
struct StateValues {
    map: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

fn entry_bytes(key: &str, value: &[u8]) -> usize {
    ENTRY_BYTES + key.len() + value.len()
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

impl StateValues {
    fn apply(&mut self, key: String, value: Option<Vec<u8>>) {
        let key_bytes = key.len();
        let old = match value {
            Some(value) => {
                self.bytes += entry_bytes(&key, &value);
                self.map.insert(key, value)
            }
            None => self.map.remove(&key),
        };
        self.bytes -= old.map_or(0, |old| ENTRY_BYTES + key_bytes + old.len());
    }
}

impl HostState {
    /// The number of keys.
    pub fn len(&self) -> usize {
        self.values().map.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn log(&self) -> Arc<Mutex<LogBudget>> {
        self.log.clone()
    }

    fn values(&self) -> MutexGuard<'_, StateValues> {
        self.values.lock().expect("nothing panics while it is held")
    }
}

/// The state as one instance sees it: what all see, and its own changes since.
#[derive(Debug)]
pub(super) struct StateView {
    shared: HostState,
    changes: BTreeMap<String, Option<Vec<u8>>>,
    /// How much more there is once the changes are committed than there was before; less, if negative.
    growth_bytes: isize,
}

impl StateView {
    pub(super) fn new(shared: HostState) -> Self {
        Self { shared, changes: BTreeMap::new(), growth_bytes: 0 }
    }

    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self.changes.get(key) {
            Some(change) => change.clone(),
            None => self.shared.values().map.get(key).cloned(),
        }
    }

    pub(super) fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), String> {
        if key.len() > MAX_KEY_BYTES {
            return Err(format!("a key may have {MAX_KEY_BYTES} bytes, this one has {}", key.len()));
        }
        let growth = signed(entry_bytes(&key, &value)) - signed(self.entry_bytes(&key));
        let total = signed(self.shared.values().bytes) + self.growth_bytes + growth;
        if growth > 0 && total > signed(MAX_STATE_BYTES) {
            return Err(format!("the state of a transform may have {MAX_STATE_BYTES} bytes"));
        }
        self.growth_bytes += growth;
        self.changes.insert(key, Some(value));
        Ok(())
    }

    pub(super) fn delete(&mut self, key: String) {
        let bytes = self.entry_bytes(&key);
        if bytes > 0 {
            self.growth_bytes -= signed(bytes);
            self.changes.insert(key, None);
        }
    }

    /// What a key takes now; 0 if it is not there.
    fn entry_bytes(&self, key: &str) -> usize {
        match self.changes.get(key) {
            Some(change) => change.as_ref().map_or(0, |value| entry_bytes(key, value)),
            None => self.shared.values().map.get(key).map_or(0, |value| entry_bytes(key, value)),
        }
    }

    pub(super) fn keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = (start, Bound::Unbounded);
        let shared = self.shared.values();
        let old = shared.map.range::<str, _>(range).map(|(key, _)| key);
        let old = old
            .take_while(|key| key.starts_with(prefix))
            .filter(|key| !self.changes.contains_key(*key))
            .take(limit);
        let new = self.changes.range::<str, _>(range);
        let new = new
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, value)| value.is_some())
            .map(|(key, _)| key)
            .take(limit);
        let mut keys: Vec<String> = old.chain(new).cloned().collect();
        keys.sort_unstable();
        keys.truncate(limit);
        keys
    }

    /// Lets everyone see the changes.
    pub(super) fn commit(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        self.growth_bytes = 0;
        let mut values = self.shared.values();
        for (key, value) in std::mem::take(&mut self.changes) {
            values.apply(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_seen_by_others_once_committed() {
        let shared = HostState::default();
        let (mut one, two) = (StateView::new(shared.clone()), StateView::new(shared.clone()));
        one.set("a".into(), vec![1]).unwrap();
        assert_eq!((one.get("a"), two.get("a")), (Some(vec![1]), None));
        one.commit();
        assert_eq!(two.get("a"), Some(vec![1]));
        one.delete("a".into());
        assert_eq!((one.get("a"), two.get("a")), (None, Some(vec![1])));
        one.commit();
        assert_eq!((two.get("a"), shared.values().bytes), (None, 0));
    }

    #[test]
    fn keys_are_listed_in_order_with_the_changes_of_the_call() {
        let mut view = StateView::new(HostState::default());
        for key in ["b/2", "b/1", "a", "c", "b/4"] {
            view.set(key.into(), vec![]).unwrap();
        }
        view.commit();
        view.delete("b/2".into());
        view.set("b/3".into(), vec![]).unwrap();
        assert_eq!(view.keys("b/", None, 10), ["b/1", "b/3", "b/4"]);
        assert_eq!(view.keys("b/", Some("b/1"), 1), ["b/3"]);
        assert_eq!(view.keys("b/", Some("a"), 2), ["b/1", "b/3"]);
        assert_eq!(view.keys("", Some("b/4"), 10), ["c"]);
    }

    #[test]
    fn keys_and_the_whole_are_bounded() {
        let mut view = StateView::new(HostState::default());
        assert!(view.set("k".repeat(MAX_KEY_BYTES), vec![]).is_ok());
        assert!(view.set("k".repeat(MAX_KEY_BYTES + 1), vec![]).is_err());
        let half = vec![0; MAX_STATE_BYTES / 2];
        assert!(view.set("1".into(), half.clone()).is_ok());
        assert!(view.set("2".into(), half).is_err());
        view.commit();
        view.delete("1".into());
        view.commit();
        assert!(view.set("2".into(), vec![0; MAX_STATE_BYTES / 2]).is_ok());
    }

    #[test]
    fn what_is_replaced_does_not_count_any_more() {
        let shared = HostState::default();
        let mut view = StateView::new(shared.clone());
        let most = vec![0; MAX_STATE_BYTES - ENTRY_BYTES - 1];
        for _ in 0..2 {
            assert!(view.set("1".into(), most.clone()).is_ok());
            assert!(view.set("1".into(), most.clone()).is_ok());
            assert!(view.set("2".into(), vec![]).is_err());
            view.commit();
        }
        view.delete("1".into());
        assert!(view.set("2".into(), vec![0; 1000]).is_ok());
        view.delete("2".into());
        view.delete("3".into());
        view.commit();
        assert_eq!((shared.values().bytes, view.growth_bytes), (0, 0));
    }
}
