//! Files of state held against a map, under restarts, damage, and want of room.

use super::*;
use crate::generation::{Generation, Position, StateValue, TransformState};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROOM: u64 = 1 << 30;

fn value(bytes: impl Into<Vec<u8>>) -> Option<StateValue> {
    Some(StateValue { bytes: Bytes::from(bytes.into()), expires_us: None })
}

fn position(offset: u64) -> Option<Position> {
    Some(Position { offset, head_bytes: offset.min(4096), head: [7; 32] })
}

/// One transform that has one key and one snapshot.
fn generation(name: &str, bytes: impl Into<Vec<u8>>, offset: u64) -> Generation {
    let bytes = bytes.into();
    let snapshots = Some(vec![Some(Bytes::from(bytes.clone()))]);
    let values = vec![("key".into(), value(bytes))];
    let transform = TransformState { name: name.into(), values, snapshots };
    Generation { position: position(offset), transforms: vec![transform] }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Transform, key, and what it gets: a value with its end.
type ValueChange = (u8, u8, Option<(Vec<u8>, Option<u64>)>);
/// Transform, and the snapshots of its instances.
type SnapshotChange = (u8, Vec<Option<Vec<u8>>>);

/// What is done to a file.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<ValueChange>, Vec<SnapshotChange>, Option<u64>),
    Restart,
    Clear(Option<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let stored = (vec(any::<u8>(), 0..40), proptest::option::of(1..u64::MAX));
    let changes = vec((0..3u8, 0..8u8, proptest::option::weighted(0.7, stored)), 0..12);
    let snapshots =
        vec((0..3u8, vec(proptest::option::weighted(0.8, vec(any::<u8>(), 0..5000)), 0..4)), 0..3);
    prop_oneof![
        6 => (changes, snapshots, proptest::option::of(any::<u64>()))
            .prop_map(|(changes, snapshots, offset)| Step::Write(changes, snapshots, offset)),
        2 => Just(Step::Restart),
        1 => proptest::option::of(0..3u8).prop_map(Step::Clear),
    ]
}

/// What a file must have, as maps.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    values: BTreeMap<(String, String), StateValue>,
    snapshots: BTreeMap<String, Vec<Option<Bytes>>>,
    position: Option<Position>,
}

impl Model {
    fn of(generation: Generation) -> Self {
        let mut model = Self { position: generation.position, ..Self::default() };
        for transform in generation.transforms {
            for (key, value) in transform.values {
                let at = (transform.name.to_string(), key.to_string());
                model.values.insert(at, value.expect("what is read has values"));
            }
            model.snapshots.extend(transform.snapshots.map(|all| (transform.name.to_string(), all)));
        }
        model
    }

    fn apply(&mut self, changes: &Generation) {
        self.position.clone_from(&changes.position);
        for transform in &changes.transforms {
            let name = transform.name.to_string();
            for (key, value) in &transform.values {
                let at = (name.clone(), key.to_string());
                match value {
                    Some(value) => drop(self.values.insert(at, value.clone())),
                    None => drop(self.values.remove(&at)),
                }
            }
            match &transform.snapshots {
                Some(all) if all.iter().all(Option::is_none) => drop(self.snapshots.remove(&name)),
                Some(all) => drop(self.snapshots.insert(name, all.clone())),
                None => {}
            }
        }
    }
}

fn changes(values: Vec<ValueChange>, snapshots: Vec<SnapshotChange>, offset: Option<u64>) -> Generation {
    let mut transforms: BTreeMap<u8, TransformState> = BTreeMap::new();
    let new = |number: &u8| TransformState { name: format!("t{number}").into(), ..TransformState::default() };
    for (number, key, stored) in values {
        let stored = stored.map(|(bytes, expires_us)| StateValue { bytes: bytes.into(), expires_us });
        let key: Arc<str> = format!("k{key}").into();
        let transform = transforms.entry(number).or_insert_with_key(new);
        // A generation has each key once.
        transform.values.retain(|(known, _)| *known != key);
        transform.values.push((key, stored));
    }
    for (number, all) in snapshots {
        let transform = transforms.entry(number).or_insert_with_key(new);
        transform.snapshots = Some(all.into_iter().map(|snapshot| snapshot.map(Bytes::from)).collect());
    }
    Generation { position: offset.and_then(position), transforms: transforms.into_values().collect() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_file_is_what_a_map_is_after_the_same_changes_and_after_restarts(steps in vec(step(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = StoreFolder::new(dir.path(), ROOM);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Write(values, snapshots, offset) => {
                    let changes = changes(values, snapshots, offset);
                    folder.write("p", &changes).unwrap();
                    model.apply(&changes);
                }
                Step::Restart => folder = StoreFolder::new(dir.path(), ROOM),
                Step::Clear(None) => {
                    folder.clear("p", None).unwrap();
                    model = Model::default();
                }
                Step::Clear(Some(number)) => {
                    let name = format!("t{number}");
                    folder.clear("p", Some(&name)).unwrap();
                    model.values.retain(|(of, _), _| *of != name);
                    model.snapshots.remove(&name);
                }
            }
            let read = folder.read("p").unwrap().unwrap_or_default();
            prop_assert_eq!(Model::of(read), model.clone());
        }
        drop(folder);
        prop_assert_eq!(Model::of(StoreFolder::new(dir.path(), ROOM).load("p").unwrap()), model);
    }

    #[test]
    fn a_file_that_was_changed_from_outside_is_never_taken_for_another_state(
        offset in any::<prop::sample::Index>(),
        bytes in vec(any::<u8>(), 1..64),
        cut in proptest::bool::weighted(0.2),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = StoreFolder::new(dir.path(), ROOM);
        let generation = generation("t", vec![9; 3000], 17);
        folder.write("p", &generation).unwrap();
        let file = files(dir.path()).remove(0);
        drop(folder);
        let mut content = std::fs::read(&file).unwrap();
        let at = offset.index(content.len());
        let end = (at + bytes.len()).min(content.len());
        content[at..end].copy_from_slice(&bytes[..end - at]);
        if cut {
            content.truncate(at);
        }
        std::fs::write(&file, &content).unwrap();
        match StoreFolder::new(dir.path(), ROOM).load("p") {
            // What was changed had no meaning.
            Ok(loaded) => prop_assert_eq!(loaded, generation),
            Err(StoreError::Damaged { kept_as, .. }) => {
                prop_assert!(kept_as.exists() && !file.exists());
                prop_assert_eq!(StoreFolder::new(dir.path(), ROOM).load("p").unwrap(), Generation::default());
            }
            Err(StoreError::Later { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_of_any_bytes_is_told_by_its_name_and_is_out_of_the_way(
        bytes in vec(any::<u8>(), 1..9000),
        is_begun_well in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.redb");
        let mut folder = StoreFolder::new(dir.path(), ROOM);
        let mut content = bytes;
        if is_begun_well {
            // What the database knows its files by, and its first page.
            folder.write("p", &generation("t", vec![9; 300], 17)).unwrap();
            let whole = std::fs::read(&path).unwrap();
            let length = content.len().min(whole.len() / 2).min(512);
            content[..length].copy_from_slice(&whole[..length]);
        }
        drop(folder);
        std::fs::write(&path, &content).unwrap();
        let mut folder = StoreFolder::new(dir.path(), ROOM);
        let read = folder.read("p").map_err(|error| error.to_string());
        prop_assert!(read.is_err_and(|error| error.contains("p.redb")));
        prop_assert!(folder.list().unwrap()[0].transforms.is_err());
        let error = folder.load("p").unwrap_err();
        prop_assert!(error.to_string().contains("p.redb"), "{}", error);
    }
}

#[test]
fn a_damaged_file_is_kept_aside_and_costs_no_other_pipeline_anything() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = StoreFolder::new(dir.path(), ROOM);
    folder.write("good", &generation("t", "good", 1)).unwrap();
    folder.write("bad", &generation("t", "bad", 1)).unwrap();
    drop(folder);
    for number in [1, 2] {
        std::fs::write(dir.path().join("bad.redb"), b"no database at all").unwrap();
        let mut folder = StoreFolder::new(dir.path(), ROOM);
        let listed = folder.list().unwrap();
        assert!(listed[0].transforms.is_err() && listed[1].transforms.is_ok(), "{listed:?}");
        let error = folder.load("bad").unwrap_err();
        let StoreError::Damaged { kept_as, .. } = &error else { panic!("{error}") };
        let name = ["", "bad.redb.damaged", "bad.redb.2.damaged"][number];
        assert_eq!(kept_as, &dir.path().join(name));
        assert!(error.to_string().contains(name) && error.is_final(), "{error}");
        assert_eq!(folder.load("bad").unwrap(), Generation::default(), "the next start begins fresh");
        assert_eq!(folder.load("good").unwrap(), generation("t", "good", 1));
    }
}

#[test]
fn a_file_is_there_only_once_it_is_whole_whatever_a_crash_has_left_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let (path, unfinished) = (dir.path().join("p.redb"), dir.path().join("p.redb.new"));
    for left in [&b""[..], b"half of a file"] {
        std::fs::write(&unfinished, left).unwrap();
        let mut folder = StoreFolder::new(dir.path(), ROOM);
        assert_eq!(folder.read("p").unwrap(), None);
        assert_eq!(folder.load("p").unwrap(), Generation::default());
        assert!(path.exists() && !unfinished.exists());
        assert!(folder.clear("p", None).unwrap());
    }
    // Another host makes it just now.
    let other = std::fs::File::create(&unfinished).unwrap();
    other.try_lock().unwrap();
    let error = StoreFolder::new(dir.path(), ROOM).load("p").unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn an_empty_file_and_that_of_another_pipeline_are_told_and_taken_for_no_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = StoreFolder::new(dir.path(), ROOM);
    folder.write("other", &generation("t", "x", 1)).unwrap();
    drop(folder);
    std::fs::rename(dir.path().join("other.redb"), dir.path().join("p.redb")).unwrap();
    std::fs::write(dir.path().join("empty.redb"), b"").unwrap();
    let mut folder = StoreFolder::new(dir.path(), ROOM);
    for (pipeline, why) in [("p", "it is the state of pipeline other"), ("empty", "it is empty")] {
        let error = folder.load(pipeline).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { why: told, .. } if told == why), "{error}");
        assert_eq!(folder.load(pipeline).unwrap(), Generation::default(), "the next start begins fresh");
    }
}

#[test]
fn a_file_that_is_removed_while_it_is_open_is_written_anew_with_all_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("state");
    let mut folder = StoreFolder::new(&inner, ROOM);
    folder.write("p", &generation("t", "x", 1)).unwrap();
    std::fs::remove_dir_all(&inner).unwrap();
    folder.write("p", &Generation { position: position(2), ..Generation::default() }).unwrap();
    let mut other = StoreFolder::new(&inner, ROOM);
    assert!(matches!(other.load("p"), Err(StoreError::InUse { .. })), "nobody else may have it");
    drop(folder);
    assert_eq!(other.load("p").unwrap(), generation("t", "x", 2));
}

#[test]
fn a_file_that_is_replaced_while_it_is_open_is_told_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = StoreFolder::new(dir.path(), ROOM);
    folder.write("p", &generation("t", "old", 1)).unwrap();
    drop(folder);
    std::fs::copy(dir.path().join("p.redb"), dir.path().join("copy")).unwrap();
    let mut folder = StoreFolder::new(dir.path(), ROOM);
    folder.write("p", &generation("t", "new", 2)).unwrap();
    std::fs::rename(dir.path().join("copy"), dir.path().join("p.redb")).unwrap();
    let error = folder.write("p", &generation("t", "newer", 3)).unwrap_err();
    assert!(matches!(error, StoreError::Replaced { .. }) && error.is_final(), "{error}");
    assert_eq!(folder.load("p").unwrap(), generation("t", "old", 1), "the next start has what was put there");
}

#[test]
fn what_would_take_more_than_it_may_is_refused_and_the_generation_before_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = StoreFolder::new(dir.path(), 4 << 20);
    folder.write("a", &generation("t", vec![1; 100_000], 1)).unwrap();
    folder.write("b", &generation("t", vec![1; 100_000], 1)).unwrap();
    let error = folder.write("a", &generation("t", vec![2; 6 << 20], 2)).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }) && !error.is_final(), "{error}");
    assert_eq!(folder.read("a").unwrap(), Some(generation("t", vec![1; 100_000], 1)));
    let bytes: u64 = files(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 4 << 20, "{bytes}");
    // What fits is written again, by either.
    folder.write("a", &generation("t", vec![3; 100_000], 3)).unwrap();
    folder.write("b", &generation("t", vec![3; 100_000], 3)).unwrap();
    assert!(folder.clear("b", None).unwrap());
    folder.write("c", &generation("t", vec![1; 100_000], 1)).unwrap();
    let listed: Vec<_> = folder.list().unwrap().into_iter().map(|each| each.pipeline).collect();
    assert_eq!(listed, ["a", "c"]);
}

#[test]
fn a_file_that_another_host_has_open_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = StoreFolder::new(dir.path(), ROOM);
    folder.write("p", &generation("t", "x", 1)).unwrap();
    let mut other = StoreFolder::new(dir.path(), ROOM);
    assert!(matches!(other.load("p"), Err(StoreError::InUse { .. })));
    assert!(matches!(other.read("p"), Err(StoreError::InUse { .. })));
    assert!(matches!(other.clear("p", None), Err(StoreError::InUse { .. })));
    assert!(matches!(other.clear("p", Some("t")), Err(StoreError::InUse { .. })));
    folder.write("p", &generation("t", "y", 2)).unwrap();
    assert_eq!(folder.load("p").unwrap(), generation("t", "y", 2));
}

#[test]
fn names_that_a_file_system_would_not_take_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = StoreFolder::new(dir.path(), ROOM);
    let names = ["a", "A", "a/b", "..", "é", "a b", "%41"];
    for name in names {
        folder.write(name, &generation("t", name, 1)).unwrap();
    }
    for name in names {
        assert_eq!(folder.read(name).unwrap(), Some(generation("t", name, 1)), "{name}");
    }
    let mut listed: Vec<_> = folder.list().unwrap().into_iter().map(|each| each.pipeline).collect();
    listed.sort_by_key(|name| names.iter().position(|each| each == name));
    assert_eq!(listed, names);
}

#[tokio::test]
async fn the_thread_writes_one_generation_after_the_other_and_ends_with_its_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = Store::start(StoreFolder::new(dir.path(), ROOM)).unwrap();
    assert_eq!(store.load("p").await.unwrap(), Generation::default());
    let mut writer = store.writer("p");
    for offset in 1..4 {
        writer.write(generation("t", "x", offset));
        std::future::poll_fn(|cx| writer.poll_written(cx)).await.unwrap();
        assert!(!writer.is_writing());
        assert_eq!(store.read("p").await.unwrap().unwrap().position, position(offset));
    }
    assert_eq!(store.list().await.unwrap().len(), 1);
    assert!(store.clear("p", None).unwrap().await.unwrap());
    assert_eq!(store.read("p").await.unwrap(), None);
    drop((store, writer));
    thread.join();
}
