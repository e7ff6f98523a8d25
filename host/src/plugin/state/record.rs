//! What the host keeps of a transform beyond its instances: for a stop and a start, for the disk, and for whoever
//! asks what there is.
//!
//! The end of a pipeline is sealed before its plugins finish: what they change from then on is for their last
//! messages alone, and is undone afterwards.

use super::{HostState, StateValues, Stored};
use crate::generation::{StateValue, TransformState};
use crate::plugin::part::StatePart;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// What is noted of each change.
#[derive(Debug, Default)]
pub(super) struct ChangeRecord {
    /// What the keys had that were changed since the seal.
    undo: Option<BTreeMap<Arc<str>, Option<Stored>>>,
    /// The keys that were changed since changes were last taken, where anyone takes them.
    dirty: Option<BTreeSet<Arc<str>>>,
    /// What the keys had that were changed since the mark.
    since_mark: Option<BTreeMap<Arc<str>, Option<Stored>>>,
    /// The newest snapshot of each instance, if it has one.
    snapshots: Vec<Option<Bytes>>,
}

impl ChangeRecord {
    /// A key that had this has something else now.
    #[inline]
    pub(super) fn note(&mut self, key: &Arc<str>, before: Option<&Stored>) {
        if let Some(dirty) = &mut self.dirty {
            dirty.insert(key.clone());
        }
        for undo in [&mut self.undo, &mut self.since_mark].into_iter().flatten() {
            undo.entry(key.clone()).or_insert_with(|| before.cloned());
        }
    }
}

impl HostState {
    /// What new instances start with: of each instance before, its newest snapshot; none where it has no state of
    /// its own.
    pub fn snapshots(&self) -> Vec<Option<Bytes>> {
        self.values().record.snapshots.clone()
    }

    /// Keeps the newest snapshot of each instance.
    pub fn keep_all(&self, snapshots: Vec<Option<Bytes>>) {
        self.values().record.snapshots = snapshots;
    }

    /// Keeps the newest snapshot of one instance, unless the end is sealed.
    pub fn keep(&self, part: StatePart, snapshot: Option<Bytes>) {
        let record = &mut self.values().record;
        if record.undo.is_none() {
            record.snapshots.resize(part.of as usize, None);
            record.snapshots[part.number as usize] = snapshot;
        }
    }

    /// From now on, no change outlives the pipeline's end.
    pub fn seal(&self) {
        self.values().record.undo.get_or_insert_default();
    }

    /// Whether the end of the pipeline has come, and is not over.
    pub fn is_sealed(&self) -> bool {
        self.values().record.undo.is_some()
    }

    /// Undoes what was changed since the seal.
    pub fn rewind(&self) {
        let mut values = self.values();
        for (key, before) in values.record.undo.take().into_iter().flatten() {
            values.apply(key, before);
        }
    }

    /// What the next start goes on with, as a state of its own: without what was changed since the seal.
    pub fn resumed(&self) -> Self {
        let values = self.values();
        let mut resumed = StateValues {
            map: values.map.clone(),
            expiries: values.expiries.clone(),
            bytes: values.bytes,
            growth_bytes: 0,
            record: ChangeRecord { snapshots: values.record.snapshots.clone(), ..ChangeRecord::default() },
        };
        for (key, before) in values.record.undo.iter().flatten() {
            resumed.apply(key.clone(), before.clone());
        }
        Self { values: Arc::new(Mutex::new(resumed)), log: self.log.clone() }
    }

    /// A copy for instances beside, whose lines in the log are counted apart.
    pub fn beside(&self) -> Self {
        Self { values: self.resumed().values, log: Arc::default() }
    }

    /// Nothing, for instances that begin anew: until they take over, they see none of this.
    pub fn blank(&self) -> Self {
        Self { values: Arc::default(), log: self.log.clone() }
    }

    /// Takes away every key, which is a change of each.
    pub fn clear(&self) {
        let mut values = self.values();
        let keys: Vec<_> = values.map.keys().cloned().collect();
        keys.into_iter().for_each(|key| values.apply(key, None));
    }

    /// Makes what is kept here a copy of what is kept there now.
    pub fn copy_from(&self, other: &Self) {
        let StateValues { map, expiries, bytes, .. } = {
            let values = other.values();
            StateValues {
                map: values.map.clone(),
                expiries: values.expiries.clone(),
                bytes: values.bytes,
                ..StateValues::default()
            }
        };
        let mut values = self.values();
        (values.map, values.expiries, values.bytes) = (map, expiries, bytes);
    }

    /// From now on it can be made again what it is now, by [`HostState::return_to_mark`].
    pub fn mark(&self) {
        self.values().record.since_mark = Some(BTreeMap::new());
    }

    /// Undoes what was changed since the mark, which is a change too.
    pub fn return_to_mark(&self) {
        let mut values = self.values();
        for (key, before) in values.record.since_mark.take().into_iter().flatten() {
            values.apply(key, before);
        }
    }

    /// What was there at the mark is not needed any more.
    pub fn forget_mark(&self) {
        self.values().record.since_mark = None;
    }

    /// Notes which keys change, for [`HostState::take_changes`].
    pub fn note_changes(&self) {
        self.values().record.dirty.get_or_insert_default();
    }

    /// Every key that was changed since changes were last taken, with what it has now.
    pub fn take_changes(&self) -> Vec<(Arc<str>, Option<StateValue>)> {
        let mut values = self.values();
        let dirty = values.record.dirty.as_mut().map(std::mem::take).unwrap_or_default();
        let now = |key: Arc<str>| {
            let value = values.map.get(&key).map(Stored::shown);
            (key, value)
        };
        dirty.into_iter().map(now).collect()
    }

    /// Notes changes again that were taken and are not on the disk.
    pub fn give_back(&self, keys: impl IntoIterator<Item = Arc<str>>) {
        if let Some(dirty) = &mut self.values().record.dirty {
            dirty.extend(keys);
        }
    }

    /// Everything, which is to be what the disk has: nothing of it is a change.
    pub fn replace(&self, entries: Vec<(Arc<str>, Option<StateValue>)>, snapshots: Vec<Option<Bytes>>) {
        let mut values = self.values();
        values.map.clear();
        values.expiries.clear();
        (values.bytes, values.record) = (0, ChangeRecord::default());
        for (key, value) in entries {
            let stored = value.map(|value| Stored { value: value.bytes, expires_us: value.expires_us });
            values.apply(key, stored);
        }
        let dirty = Some(BTreeSet::new());
        values.record = ChangeRecord { dirty, snapshots, ..ChangeRecord::default() };
    }

    /// Everything, under the label of the stage.
    pub fn shown(&self, transform: &str) -> TransformState {
        TransformState { name: transform.into(), values: self.entries(), snapshots: Some(self.snapshots()) }
    }

    /// Every key with what it has.
    pub fn entries(&self) -> Vec<(Arc<str>, Option<StateValue>)> {
        let values = self.values();
        values.map.iter().map(|(key, stored)| (key.clone(), Some(stored.shown()))).collect()
    }
}

impl Stored {
    fn shown(&self) -> StateValue {
        StateValue { bytes: self.value.clone(), expires_us: self.expires_us }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeyChange, StateView};
    use super::*;
    use std::time::Duration;

    fn set(view: &mut StateView, key: &str, value: Option<&str>, ttl: Duration) {
        let value = value.map(|value| value.as_bytes().to_vec());
        view.change(vec![KeyChange { key: key.into(), value, ttl }], 0).expect("there is room");
        view.commit(|| 0);
    }

    fn shown(entries: Vec<(Arc<str>, Option<StateValue>)>) -> Vec<(String, Option<String>)> {
        let text = |value: StateValue| String::from_utf8_lossy(&value.bytes).into_owned();
        entries.into_iter().map(|(key, value)| (key.to_string(), value.map(text))).collect()
    }

    fn pairs(pairs: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect()
    }

    #[test]
    fn what_comes_after_the_seal_is_undone_and_nothing_else_is() {
        let state = HostState::default();
        let mut view = StateView::new(state.clone());
        set(&mut view, "a", Some("1"), Duration::ZERO);
        set(&mut view, "b", Some("1"), Duration::from_secs(1));
        let part = StatePart { number: 1, of: 2 };
        state.keep(part, Some(Bytes::from_static(b"before")));
        let (before, bytes) = (state.entries(), state.values().bytes);
        state.seal();
        set(&mut view, "a", Some("2 is longer"), Duration::ZERO);
        set(&mut view, "a", Some("3"), Duration::from_secs(9));
        set(&mut view, "b", None, Duration::ZERO);
        set(&mut view, "c", Some("1"), Duration::ZERO);
        state.keep(part, Some(Bytes::from_static(b"after")));
        assert_eq!(shown(state.entries()), pairs(&[("a", Some("3")), ("c", Some("1"))]), "plugins see it");
        let resumed = state.resumed();
        assert_eq!((resumed.entries(), resumed.values().bytes), (before.clone(), bytes));
        assert_eq!(
            (resumed.snapshots(), resumed.values().expiries.len()),
            (vec![None, Some(Bytes::from_static(b"before"))], 1)
        );
        state.rewind();
        assert_eq!((state.entries(), state.values().bytes), (before, bytes));
        assert_eq!(state.values().expiries.len(), 1);
        assert_eq!(state.snapshots(), [None, Some(Bytes::from_static(b"before"))]);
        set(&mut view, "a", Some("4"), Duration::ZERO);
        state.rewind();
        assert_eq!(shown(state.entries())[0], ("a".to_owned(), Some("4".to_owned())), "the seal is gone");
    }

    #[test]
    fn what_was_changed_since_the_mark_is_undone_and_is_a_change_for_the_disk() {
        let state = HostState::default();
        let mut view = StateView::new(state.clone());
        state.note_changes();
        set(&mut view, "a", Some("1"), Duration::ZERO);
        set(&mut view, "b", Some("1"), Duration::from_secs(1));
        let (before, bytes) = (state.entries(), state.values().bytes);
        state.mark();
        state.take_changes();
        set(&mut view, "a", Some("2 is longer"), Duration::ZERO);
        set(&mut view, "b", None, Duration::ZERO);
        set(&mut view, "c", Some("1"), Duration::ZERO);
        state.take_changes();
        state.return_to_mark();
        assert_eq!((state.entries(), state.values().bytes), (before, bytes));
        assert_eq!(state.values().expiries.len(), 1);
        assert_eq!(shown(state.take_changes()), pairs(&[("a", Some("1")), ("b", Some("1")), ("c", None)]));
        set(&mut view, "a", Some("3"), Duration::ZERO);
        state.return_to_mark();
        assert_eq!(shown(state.entries())[0], ("a".to_owned(), Some("3".to_owned())), "the mark is gone");
    }

    #[test]
    fn a_copy_beside_has_what_there_is_and_changes_apart() {
        let state = HostState::default();
        let mut view = StateView::new(state.clone());
        set(&mut view, "a", Some("1"), Duration::ZERO);
        let beside = state.beside();
        let mut other = StateView::new(beside.clone());
        set(&mut view, "b", Some("1"), Duration::from_secs(1));
        set(&mut other, "z", Some("1"), Duration::ZERO);
        beside.copy_from(&state);
        assert_eq!((beside.entries(), beside.values().bytes), (state.entries(), state.values().bytes));
        set(&mut other, "b", None, Duration::ZERO);
        set(&mut other, "a", Some("2"), Duration::ZERO);
        assert_eq!(shown(beside.entries()), pairs(&[("a", Some("2"))]));
        assert_eq!(shown(state.entries()), pairs(&[("a", Some("1")), ("b", Some("1"))]));
    }

    #[test]
    fn changes_are_taken_once_and_those_that_were_given_back_with_what_is_there_then() {
        let state = HostState::default();
        let mut view = StateView::new(state.clone());
        set(&mut view, "early", Some("1"), Duration::ZERO);
        assert!(state.take_changes().is_empty(), "nobody wanted them");
        state.note_changes();
        set(&mut view, "a", Some("1"), Duration::ZERO);
        set(&mut view, "b", Some("1"), Duration::ZERO);
        set(&mut view, "early", None, Duration::ZERO);
        let taken = state.take_changes();
        assert_eq!(shown(taken.clone()), pairs(&[("a", Some("1")), ("b", Some("1")), ("early", None)]));
        assert!(state.take_changes().is_empty());
        set(&mut view, "b", Some("2"), Duration::ZERO);
        state.give_back(taken.into_iter().map(|(key, _)| key));
        assert_eq!(
            shown(state.take_changes()),
            pairs(&[("a", Some("1")), ("b", Some("2")), ("early", None)])
        );
    }

    #[test]
    fn values_that_are_over_are_changes_too() {
        let state = HostState::default();
        let mut view = StateView::new(state.clone());
        state.note_changes();
        set(&mut view, "a", Some("1"), Duration::from_micros(5));
        assert_eq!(state.take_changes().len(), 1);
        view.commit(|| 10);
        assert_eq!(shown(state.take_changes()), pairs(&[("a", None)]));
    }

    #[test]
    fn what_is_loaded_is_no_change_and_keeps_its_ends() {
        let state = HostState::default();
        let value = |expires_us| Some(StateValue { bytes: Bytes::from_static(b"x"), expires_us });
        let loaded = vec![("a".into(), value(None)), ("b".into(), value(Some(5)))];
        let snapshots = vec![Some(Bytes::from_static(b"snapshot"))];
        state.replace(loaded.clone(), snapshots.clone());
        assert_eq!((state.entries(), state.snapshots()), (loaded, snapshots));
        assert!(state.take_changes().is_empty());
        let view = StateView::new(state);
        assert_eq!(
            (view.get("a", 5), view.get("b", 4), view.get("b", 5)),
            (Some(b"x".to_vec()), Some(b"x".to_vec()), None)
        );
    }
}
