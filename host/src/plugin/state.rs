//! What the host keeps for a transform, whichever instance of its plugin runs.
//!
//! A call sees its own changes at once; everyone else sees them when the outcome of the call was
//! accepted. What `init` and `restore` change waits for the first accepted call, so that a version
//! which is tried and rejected leaves no trace. A value whose time is over is not there for anyone; it
//! is taken away when there is a reason to look: a few at each commit, and all that are over before a
//! change is refused for want of room.

mod record;

use super::log::LogBudget;
use bytes::Bytes;
use record::ChangeRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Most bytes of keys and values of one transform.
const MAX_STATE_BYTES: usize = 64 << 20;
/// Longest key of the state, in bytes.
const MAX_KEY_BYTES: usize = 1 << 10;
/// What an entry costs beside its key and value, so that many small ones are bounded too.
const ENTRY_BYTES: usize = 128;
/// What it costs that an entry has an end.
const EXPIRY_BYTES: usize = 64;
/// Entries that are over and go at each commit: more than one, so that they become fewer.
const SWEPT_AT_COMMIT: usize = 64;
/// What a value costs that is handed to a guest, beside its bytes.
const HANDED_BYTES: usize = size_of::<Option<Vec<u8>>>();

/// Key-value state of one transform, and how much its plugin may still log. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct HostState {
    values: Arc<Mutex<StateValues>>,
    log: Arc<Mutex<LogBudget>>,
}

#[derive(Debug, Default)]
struct StateValues {
    map: BTreeMap<Arc<str>, Stored>,
    /// The keys whose values have an end, by when that is.
    expiries: BTreeSet<(u64, Arc<str>)>,
    bytes: usize,
    /// How much more there is once all instances have committed their changes; less, if negative.
    growth_bytes: isize,
    record: ChangeRecord,
}

/// A value, and when it is over, in microseconds since the Unix epoch.
#[derive(Clone, Debug)]
struct Stored {
    value: Bytes,
    expires_us: Option<u64>,
}

/// A change of one key: a value, or none, which removes it.
#[derive(Debug)]
pub(super) struct KeyChange {
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
    /// How long it has the value; zero is until it is changed.
    pub(super) ttl: Duration,
}

impl Stored {
    fn is_there(&self, now_us: u64) -> bool {
        self.expires_us.is_none_or(|expires| now_us < expires)
    }

    fn bytes(&self, key: &str) -> usize {
        entry_bytes(key, self.value.len(), self.expires_us.is_some())
    }
}

impl KeyChange {
    pub(super) fn bytes(&self) -> usize {
        let value = self.value.as_ref();
        value.map_or(0, |value| entry_bytes(&self.key, value.len(), !self.ttl.is_zero()))
    }
}

fn entry_bytes(key: &str, value_bytes: usize, expires: bool) -> usize {
    ENTRY_BYTES + key.len() + value_bytes + if expires { EXPIRY_BYTES } else { 0 }
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

impl StateValues {
    fn apply(&mut self, key: Arc<str>, value: Option<Stored>) {
        self.remove(&key);
        if let Some(stored) = value {
            self.bytes += stored.bytes(&key);
            self.expiries.extend(stored.expires_us.map(|expires| (expires, key.clone())));
            self.map.insert(key, stored);
        }
    }

    /// Says what the key took.
    fn remove(&mut self, key: &Arc<str>) -> usize {
        let old = self.map.remove(key);
        self.record.note(key, old.as_ref());
        let Some(old) = old else { return 0 };
        if let Some(expires) = old.expires_us {
            self.expiries.remove(&(expires, key.clone()));
        }
        let bytes = old.bytes(key);
        self.bytes -= bytes;
        bytes
    }

    /// Takes away what is over, `most` entries of it, and says of each what it took.
    fn sweep(&mut self, now_us: u64, most: usize, mut swept: impl FnMut(&str, usize)) {
        for _ in 0..most {
            let Some((_, key)) = self.expiries.first().filter(|(expires, _)| *expires <= now_us) else {
                break;
            };
            let key = key.clone();
            let bytes = self.remove(&key);
            swept(&key, bytes);
        }
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
    changes: BTreeMap<Arc<str>, Option<Stored>>,
    /// The part of these changes in what the state is to grow by.
    growth_bytes: isize,
    /// Whether the instance has ever given a value an end, or seen that there are such values.
    has_expiries: bool,
}

impl StateView {
    pub(super) fn new(shared: HostState) -> Self {
        let has_expiries = !shared.values().expiries.is_empty();
        Self { shared, changes: BTreeMap::new(), growth_bytes: 0, has_expiries }
    }

    /// From now on these are its changes of another state.
    pub(super) fn adopt(&mut self, shared: HostState) {
        let mut adopted = Self::new(shared);
        adopted.has_expiries |= self.has_expiries;
        let changes = std::mem::take(&mut self.changes);
        let growth = changes.iter().map(|(key, change)| {
            let bytes = change.as_ref().map_or(0, |stored| stored.bytes(key));
            signed(bytes) - signed(adopted.entry_bytes(key))
        });
        let growth = growth.sum();
        adopted.grow(growth);
        adopted.changes = changes;
        *self = adopted;
    }

    pub(super) fn get(&self, key: &str, now_us: u64) -> Option<Vec<u8>> {
        let there = |stored: &&Stored| stored.is_there(now_us);
        match self.changes.get(key) {
            Some(change) => change.as_ref().filter(there).map(|stored| stored.value.to_vec()),
            None => self.shared.values().map.get(key).filter(there).map(|stored| stored.value.to_vec()),
        }
    }

    /// The values of many keys.
    ///
    /// # Errors
    /// They are more than `max_bytes` together.
    pub(super) fn get_many(
        &self,
        keys: &[String],
        now_us: u64,
        max_bytes: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, String> {
        let shared = self.shared.values();
        let mut left_bytes = max_bytes;
        let value = |key: &String| {
            let change = self.changes.get(&**key);
            let stored = change.map_or_else(|| shared.map.get(&**key), Option::as_ref);
            let value = stored.filter(|stored| stored.is_there(now_us)).map(|stored| &stored.value);
            let bytes = HANDED_BYTES + value.map_or(0, Bytes::len);
            left_bytes = left_bytes.checked_sub(bytes).ok_or("get-many asked for more than limits.memory")?;
            Ok(value.map(|value| value.to_vec()))
        };
        keys.iter().map(value).collect()
    }

    /// Makes all changes, or none.
    ///
    /// # Errors
    /// The limit that they would break.
    pub(super) fn change(&mut self, changes: Vec<KeyChange>, now_us: u64) -> Result<(), String> {
        if let Some(change) = changes.iter().find(|change| change.key.len() > MAX_KEY_BYTES) {
            return Err(format!("a key may have {MAX_KEY_BYTES} bytes, this one has {}", change.key.len()));
        }
        let mut growth = self.growth_of(&changes);
        if growth > 0 && !self.has_room(growth) {
            self.make_room(now_us);
            growth = self.growth_of(&changes);
            if growth > 0 && !self.has_room(growth) {
                return Err(format!("the state of a transform may have {MAX_STATE_BYTES} bytes"));
            }
        }
        self.grow(growth);
        for KeyChange { key, value, ttl } in changes {
            let ttl_us = u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX);
            let expires_us = (ttl_us > 0).then(|| now_us.saturating_add(ttl_us));
            self.has_expiries |= expires_us.is_some();
            match value {
                Some(value) => {
                    self.changes.insert(key.into(), Some(Stored { value: value.into(), expires_us }));
                }
                None if self.entry_bytes(&key) > 0 => {
                    self.changes.insert(key.into(), None);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// How much more there is after these changes.
    fn growth_of(&self, changes: &[KeyChange]) -> isize {
        if let [change] = changes {
            return signed(change.bytes()) - signed(self.entry_bytes(&change.key));
        }
        let mut sizes = BTreeMap::new();
        let mut growth = 0;
        for change in changes {
            let bytes = change.bytes();
            let before = sizes.insert(&*change.key, bytes).unwrap_or_else(|| self.entry_bytes(&change.key));
            growth += signed(bytes) - signed(before);
        }
        growth
    }

    fn has_room(&self, growth: isize) -> bool {
        let values = self.shared.values();
        signed(values.bytes) + values.growth_bytes + growth <= signed(MAX_STATE_BYTES)
    }

    fn grow(&mut self, bytes: isize) {
        self.growth_bytes += bytes;
        self.shared.values().growth_bytes += bytes;
    }

    /// Takes away all that is over.
    fn make_room(&mut self, now_us: u64) {
        let Self { shared, changes, .. } = self;
        let mut growth = 0;
        shared.values().sweep(now_us, usize::MAX, |key, bytes| {
            if changes.contains_key(key) {
                // The change replaces nothing any more.
                growth += signed(bytes);
            }
        });
        self.grow(growth);
    }

    /// What a key takes now; 0 if it is not there.
    fn entry_bytes(&self, key: &str) -> usize {
        match self.changes.get(key) {
            Some(change) => change.as_ref().map_or(0, |stored| stored.bytes(key)),
            None => self.shared.values().map.get(key).map_or(0, |stored| stored.bytes(key)),
        }
    }

    pub(super) fn keys(&self, prefix: &str, after: Option<&str>, limit: u32, now_us: u64) -> Vec<String> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = (start, Bound::Unbounded);
        let shared = self.shared.values();
        let old = shared.map.range::<str, _>(range);
        let old = old
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, stored)| stored.is_there(now_us) && !self.changes.contains_key(*key))
            .map(|(key, _)| key)
            .take(limit);
        let new = self.changes.range::<str, _>(range);
        let new = new
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, change)| change.as_ref().is_some_and(|stored| stored.is_there(now_us)))
            .map(|(key, _)| key)
            .take(limit);
        let mut keys: Vec<String> = old.chain(new).map(|key| key.to_string()).collect();
        keys.sort_unstable();
        keys.truncate(limit);
        keys
    }

    /// Lets everyone see the changes.
    pub(super) fn commit(&mut self, now_us: impl FnOnce() -> u64) {
        if self.changes.is_empty() && !self.has_expiries {
            return;
        }
        let mut values = self.shared.values();
        values.growth_bytes -= std::mem::take(&mut self.growth_bytes);
        for (key, value) in std::mem::take(&mut self.changes) {
            values.apply(key, value);
        }
        if self.has_expiries {
            values.sweep(now_us(), SWEPT_AT_COMMIT, |_, _| {});
            self.has_expiries = !values.expiries.is_empty();
        }
    }
}

impl Drop for StateView {
    /// The changes will not be made.
    fn drop(&mut self) {
        if self.growth_bytes != 0 {
            self.shared.values().growth_bytes -= self.growth_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_instances_are_about_to_change_is_bounded_together() {
        let shared = HostState::default();
        let half = vec![0; MAX_STATE_BYTES / 2];
        let [mut one, mut two, mut three] = [(); 3].map(|()| StateView::new(shared.clone()));
        set(&mut one, "one", half.clone()).unwrap();
        assert!(set(&mut two, "two", half.clone()).is_err(), "there is not room for both");
        set(&mut two, "two", vec![0; 1 << 20]).unwrap();
        drop(one);
        set(&mut three, "three", half.clone()).unwrap();
        two.commit(|| 0);
        three.commit(|| 0);
        assert_eq!((shared.len(), shared.values().growth_bytes), (2, 0));
        assert!(set(&mut two, "more", half).is_err());
    }

    fn change(key: &str, value: Option<Vec<u8>>, ttl: Duration) -> KeyChange {
        KeyChange { key: key.into(), value, ttl }
    }

    fn set(view: &mut StateView, key: &str, value: Vec<u8>) -> Result<(), String> {
        view.change(vec![change(key, Some(value), Duration::ZERO)], 0)
    }

    fn delete(view: &mut StateView, key: &str) {
        view.change(vec![change(key, None, Duration::ZERO)], 0).unwrap();
    }

    #[test]
    fn changes_are_seen_by_others_once_committed() {
        let shared = HostState::default();
        let (mut one, two) = (StateView::new(shared.clone()), StateView::new(shared.clone()));
        set(&mut one, "a", vec![1]).unwrap();
        assert_eq!((one.get("a", 0), two.get("a", 0)), (Some(vec![1]), None));
        one.commit(|| 0);
        assert_eq!(two.get("a", 0), Some(vec![1]));
        delete(&mut one, "a");
        assert_eq!((one.get("a", 0), two.get("a", 0)), (None, Some(vec![1])));
        one.commit(|| 0);
        assert_eq!((two.get("a", 0), shared.values().bytes), (None, 0));
    }

    #[test]
    fn keys_are_listed_in_order_with_the_changes_of_the_call() {
        let mut view = StateView::new(HostState::default());
        for key in ["b/2", "b/1", "a", "c", "b/4"] {
            set(&mut view, key, vec![]).unwrap();
        }
        view.commit(|| 0);
        delete(&mut view, "b/2");
        set(&mut view, "b/3", vec![]).unwrap();
        assert_eq!(view.keys("b/", None, 10, 0), ["b/1", "b/3", "b/4"]);
        assert_eq!(view.keys("b/", Some("b/1"), 1, 0), ["b/3"]);
        assert_eq!(view.keys("b/", Some("a"), 2, 0), ["b/1", "b/3"]);
        assert_eq!(view.keys("", Some("b/4"), 10, 0), ["c"]);
    }

    #[test]
    fn keys_and_the_whole_are_bounded() {
        let mut view = StateView::new(HostState::default());
        assert!(set(&mut view, &"k".repeat(MAX_KEY_BYTES), vec![]).is_ok());
        assert!(set(&mut view, &"k".repeat(MAX_KEY_BYTES + 1), vec![]).is_err());
        let half = vec![0; MAX_STATE_BYTES / 2];
        assert!(set(&mut view, "1", half.clone()).is_ok());
        assert!(set(&mut view, "2", half).is_err());
        view.commit(|| 0);
        delete(&mut view, "1");
        view.commit(|| 0);
        assert!(set(&mut view, "2", vec![0; MAX_STATE_BYTES / 2]).is_ok());
    }

    #[test]
    fn what_is_replaced_does_not_count_any_more() {
        let shared = HostState::default();
        let mut view = StateView::new(shared.clone());
        let most = vec![0; MAX_STATE_BYTES - ENTRY_BYTES - 1];
        for _ in 0..2 {
            assert!(set(&mut view, "1", most.clone()).is_ok());
            assert!(set(&mut view, "1", most.clone()).is_ok());
            assert!(set(&mut view, "2", vec![]).is_err());
            view.commit(|| 0);
        }
        delete(&mut view, "1");
        assert!(set(&mut view, "2", vec![0; 1000]).is_ok());
        delete(&mut view, "2");
        delete(&mut view, "3");
        view.commit(|| 0);
        assert_eq!((shared.values().bytes, view.growth_bytes), (0, 0));
    }

    #[test]
    fn many_changes_are_made_in_their_order_or_none_is() {
        let mut view = StateView::new(HostState::default());
        let lasting = |key, value| change(key, value, Duration::ZERO);
        let most = || Some(vec![0; MAX_STATE_BYTES - 2 * ENTRY_BYTES - 2]);
        let too_much = vec![lasting("a", Some(vec![])), lasting("b", most()), lasting("c", Some(vec![]))];
        view.change(too_much, 0).unwrap_err();
        assert_eq!((view.keys("", None, 10, 0).len(), view.growth_bytes), (0, 0));
        // What is replaced and removed on the way does not count.
        let fits =
            vec![lasting("a", most()), lasting("b", most()), lasting("a", None), lasting("c", Some(vec![]))];
        view.change(fits, 0).unwrap();
        assert_eq!(view.keys("", None, 10, 0), ["b", "c"]);
        let values = view.get_many(&["c".into(), "a".into(), "c".into()], 0, 1 << 10).unwrap();
        assert_eq!(values, [Some(vec![]), None, Some(vec![])]);
        assert!(view.get_many(&["b".into()], 0, MAX_STATE_BYTES / 2).is_err());
    }

    #[test]
    fn a_value_whose_time_is_over_is_not_there_and_does_not_count() {
        let shared = HostState::default();
        let mut view = StateView::new(shared.clone());
        let second = Duration::from_secs(1);
        let half = || Some(vec![0; MAX_STATE_BYTES / 2]);
        view.change(vec![change("short", half(), second)], 5).unwrap();
        assert_eq!(view.get("short", 1_000_004).map(|value| value.len()), half().map(|half| half.len()));
        assert_eq!((view.get("short", 1_000_005), view.keys("", None, 9, 1_000_005).len()), (None, 0));
        view.commit(|| 6);
        view.change(vec![change("long", half(), Duration::ZERO)], 1_000_004).unwrap_err();
        assert_eq!(shared.len(), 1);
        view.change(vec![change("long", half(), Duration::ZERO)], 1_000_005).unwrap();
        view.commit(|| 1_000_006);
        assert_eq!((shared.len(), shared.values().expiries.len()), (1, 0));
        delete(&mut view, "long");
        view.commit(|| 0);
        assert_eq!((shared.values().bytes, view.growth_bytes), (0, 0));
    }

    #[test]
    fn what_is_over_is_swept_a_few_at_a_time_also_where_nothing_changes() {
        let shared = HostState::default();
        let mut view = StateView::new(shared.clone());
        let many = 3 * SWEPT_AT_COMMIT;
        let moment = Duration::from_micros(1);
        view.change((0..many).map(|n| change(&n.to_string(), Some(vec![]), moment)).collect(), 0).unwrap();
        view.commit(|| 0);
        assert_eq!(shared.len(), many);
        // An instance that comes later takes its turn too.
        let mut next = StateView::new(shared.clone());
        for left in [2, 1, 0, 0] {
            next.commit(|| 1);
            assert_eq!(shared.len(), left * SWEPT_AT_COMMIT);
        }
        assert_eq!(shared.values().bytes, 0);
    }

    #[test]
    fn what_an_instance_has_changed_of_a_blank_state_it_changes_of_the_real_one_which_is_cleared() {
        let shared = HostState::default();
        let change = |key: &str, value: &str| KeyChange {
            key: key.into(),
            value: Some(value.as_bytes().to_vec()),
            ttl: Duration::ZERO,
        };
        let mut old = StateView::new(shared.clone());
        old.change(vec![change("a", "old"), change("b", "old")], 0).expect("there is room");
        old.commit(|| 0);
        let mut new = StateView::new(shared.blank());
        assert_eq!(new.get("a", 0), None);
        new.change(vec![change("a", "newer"), change("c", "new")], 0).expect("there is room");
        assert_eq!(shared.len(), 2, "nobody else sees it");
        shared.note_changes();
        shared.mark();
        shared.clear();
        new.adopt(shared.clone());
        assert_eq!(new.get("a", 0).as_deref(), Some(&b"newer"[..]));
        new.commit(|| 0);
        let values = shared.values();
        assert_eq!((values.map.len(), values.growth_bytes), (2, 0));
        assert_eq!(values.bytes, entry_bytes("a", 5, false) + entry_bytes("c", 3, false));
        drop(values);
        let mut changed: Vec<_> = shared.take_changes().into_iter().map(|(key, _)| key.to_string()).collect();
        changed.sort();
        assert_eq!(changed, ["a", "b", "c"]);
        shared.return_to_mark();
        assert_eq!(StateView::new(shared.clone()).get("b", 0).as_deref(), Some(&b"old"[..]));
        assert_eq!(StateView::new(shared).get("c", 0), None);
    }

    /// A pending change is counted against what it replaces, also if that goes before it is committed.
    #[test]
    fn room_is_counted_right_when_what_a_change_replaces_is_over() {
        let shared = HostState::default();
        let mut view = StateView::new(shared.clone());
        let moment = Duration::from_micros(1);
        let (large, most) = (vec![0; MAX_STATE_BYTES / 2], vec![0; MAX_STATE_BYTES - 2 * ENTRY_BYTES - 3]);
        view.change(vec![change("a", Some(large), moment)], 0).unwrap();
        view.commit(|| 0);
        set(&mut view, "a", vec![1]).unwrap();
        view.change(vec![change("b", Some(most), Duration::ZERO)], 1).unwrap();
        assert!(view.change(vec![change("c", Some(vec![]), Duration::ZERO)], 1).is_err());
        view.commit(|| 1);
        assert!(shared.values().bytes <= MAX_STATE_BYTES);
    }
}
