//! The table under a clock of the test's own, then the folder under the real one.
//!
//! What must not happen is shown by what happens next: after a change that must go unseen comes
//! one that must not, and only the second may be told.

use super::table::FileTable;
use super::watch::{News, Watch};
use super::{Candidate, Change, Folder};
use crate::config::Plugins;
use futures_util::FutureExt;
use notify::event::{AccessKind, AccessMode, DataChange, ModifyKind};
use notify::{Event, EventKind};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than any change takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

const LARGEST: usize = 1000;

fn settings(dir: &Path) -> Plugins {
    Plugins { dir: dir.into(), max_size_bytes: LARGEST as u64, ..Plugins::default() }
}

fn found(change: Change) -> (String, Vec<u8>) {
    match change {
        Change::Found(Candidate { name, wasm, .. }) => (name, wasm.to_vec()),
        other => panic!("a file should have been found, not {other:?}"),
    }
}

fn is(name: &str, wasm: &[u8]) -> (String, Vec<u8>) {
    (name.into(), wasm.into())
}

// The table.

/// A table, a folder, and a clock that the test moves.
struct Clocked {
    dir: TempDir,
    table: FileTable,
    news: News,
    start: Instant,
}

impl Clocked {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let table = FileTable::new(dir.path(), LARGEST as u64);
        let mut clocked = Self { dir, table, news: News::default(), start: Instant::now() };
        assert_eq!(clocked.at(0), []);
        clocked
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a look shows at a time.
    fn at(&mut self, ms: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        let now = self.start + Duration::from_millis(ms);
        self.table.look(&self.news, now, &mut |change| changes.push(change)).unwrap();
        changes
    }

    fn one_at(&mut self, ms: u64) -> Change {
        let mut changes = self.at(ms);
        assert_eq!(changes.len(), 1, "one change, not {changes:?}");
        changes.remove(0)
    }

    fn told_of(&self, kind: EventKind, name: &str) {
        self.news.note(&Event::new(kind).add_path(self.file(name)));
    }
}

const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

#[test]
fn a_file_is_read_once_it_was_the_same_for_100_ms() {
    let mut clocked = Clocked::new();
    fs::write(clocked.file("a.wasm"), "ha").unwrap();
    assert_eq!(clocked.at(1000), []);
    assert_eq!(clocked.at(1099), []);
    fs::write(clocked.file("a.wasm"), "half").unwrap();
    assert_eq!(clocked.at(1100), []);
    assert_eq!(clocked.at(1199), []);
    assert_eq!(found(clocked.one_at(1200)), is("a", b"half"));
    assert_eq!(clocked.at(9999), []);
}

#[test]
fn a_closed_file_is_read_almost_at_once() {
    let mut clocked = Clocked::new();
    fs::write(clocked.file("a.wasm"), "whole").unwrap();
    clocked.told_of(CLOSED, "a.wasm");
    assert_eq!(clocked.at(1000), []);
    assert_eq!(found(clocked.one_at(1010)), is("a", b"whole"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_whose_writer_pauses_waits_for_its_closing() {
    let mut clocked = Clocked::new();
    fs::write(clocked.file("a.wasm"), "ha").unwrap();
    clocked.told_of(WRITTEN, "a.wasm");
    assert_eq!(clocked.at(1000), []);
    assert_eq!(clocked.at(1900), []);
    // This write is seen before it is told of.
    fs::write(clocked.file("a.wasm"), "half").unwrap();
    assert_eq!(clocked.at(2000), []);
    assert_eq!(clocked.at(2900), []);
    clocked.told_of(CLOSED, "a.wasm");
    assert_eq!(clocked.at(2901), []);
    assert_eq!(found(clocked.one_at(2911)), is("a", b"half"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_writer_that_never_closes_is_waited_for_2_s() {
    let mut clocked = Clocked::new();
    fs::write(clocked.file("a.wasm"), "whole").unwrap();
    clocked.told_of(WRITTEN, "a.wasm");
    assert_eq!(clocked.at(1000), []);
    assert_eq!(clocked.at(2999), []);
    assert_eq!(found(clocked.one_at(3000)), is("a", b"whole"));
}

#[test]
fn a_second_writer_right_after_the_first_is_not_overtaken() {
    let mut clocked = Clocked::new();
    fs::write(clocked.file("a.wasm"), "one").unwrap();
    clocked.told_of(CLOSED, "a.wasm");
    assert_eq!(clocked.at(1000), []);
    // The second one has begun, and nothing was told of it yet.
    fs::write(clocked.file("a.wasm"), "tw").unwrap();
    assert_eq!(clocked.at(1010), []);
    assert_eq!(clocked.at(1020), []);
    fs::write(clocked.file("a.wasm"), "two").unwrap();
    clocked.told_of(CLOSED, "a.wasm");
    assert_eq!(clocked.at(1030), []);
    assert_eq!(found(clocked.one_at(1040)), is("a", b"two"));
}

#[test]
fn news_that_were_lost_leave_the_size_and_the_times() {
    let mut clocked = Clocked::new();
    fs::write(clocked.file("a.wasm"), "whole").unwrap();
    clocked.told_of(WRITTEN, "a.wasm");
    let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
    assert!(clocked.news.note(&lost));
    assert_eq!(clocked.at(1000), []);
    assert_eq!(found(clocked.one_at(1100)), is("a", b"whole"));
}

#[test]
fn an_empty_file_is_not_yet_one() {
    let mut clocked = Clocked::new();
    fs::write(clocked.file("a.wasm"), "").unwrap();
    clocked.told_of(CLOSED, "a.wasm");
    assert_eq!(clocked.at(1000), []);
    assert_eq!(clocked.at(5000), []);
    fs::write(clocked.file("a.wasm"), "whole").unwrap();
    assert_eq!(clocked.at(6000), []);
    assert_eq!(found(clocked.one_at(6100)), is("a", b"whole"));
}

#[test]
fn a_file_is_found_once_until_it_changes_or_is_written_again() {
    let mut clocked = Clocked::new();
    let mut now = 0;
    let mut written = |clocked: &mut Clocked, wasm: Option<&str>| {
        now += 1000;
        if let Some(wasm) = wasm {
            fs::write(clocked.file("a.wasm"), wasm).unwrap();
            // The clock that stamps files is too coarse for a test that waits for nothing.
            let modified = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(now);
            File::open(clocked.file("a.wasm")).unwrap().set_modified(modified).unwrap();
        }
        clocked.told_of(CLOSED, "a.wasm");
        assert_eq!(clocked.at(now), []);
        clocked.at(now + 100).len()
    };
    assert_eq!(written(&mut clocked, Some("one")), 1);
    assert_eq!(written(&mut clocked, Some("one")), 1);
    assert_eq!(written(&mut clocked, None), 0);
    assert_eq!(written(&mut clocked, Some("two")), 1);
    assert_eq!(written(&mut clocked, None), 0);
    assert_eq!(written(&mut clocked, Some("one")), 1);
}

#[test]
fn a_file_that_is_too_large_is_refused_once() {
    let mut clocked = Clocked::new();
    fs::write(clocked.file("a.wasm"), vec![7; LARGEST]).unwrap();
    assert_eq!(clocked.at(1000), []);
    assert_eq!(found(clocked.one_at(1100)), is("a", &[7; LARGEST]));
    fs::write(clocked.file("a.wasm"), vec![7; LARGEST + 1]).unwrap();
    assert_eq!(clocked.at(2000), []);
    let Change::Refused { name, path, error } = clocked.one_at(2100) else { panic!("not refused") };
    assert_eq!((name.as_str(), path), ("a", clocked.file("a.wasm")));
    assert!(error.starts_with("it has 1001 bytes, and `max_size` is 1000: "), "{error}");
    fs::write(clocked.file("a.wasm"), vec![8; LARGEST + 1]).unwrap();
    assert_eq!(clocked.at(3000), []);
    assert_eq!(clocked.at(3100), []);
    fs::write(clocked.file("a.wasm"), "small").unwrap();
    assert_eq!(clocked.at(4000), []);
    assert_eq!(found(clocked.one_at(4100)), is("a", b"small"));
}

#[test]
fn a_file_that_is_away_for_a_moment_is_not_gone() {
    let mut clocked = Clocked::new();
    fs::write(clocked.file("a.wasm"), "one").unwrap();
    assert_eq!(clocked.at(1000), []);
    assert_eq!(clocked.at(1100).len(), 1);
    fs::remove_file(clocked.file("a.wasm")).unwrap();
    assert_eq!(clocked.at(2000), []);
    assert_eq!(clocked.at(2099), []);
    fs::write(clocked.file("a.wasm"), "one").unwrap();
    assert_eq!(clocked.at(2100), []);
    assert_eq!(found(clocked.one_at(2200)), is("a", b"one"));
    fs::remove_file(clocked.file("a.wasm")).unwrap();
    assert_eq!(clocked.at(3000), []);
    assert_eq!(clocked.one_at(3100), Change::Gone { name: "a".into() });
    assert_eq!(clocked.at(9999), []);
}

#[test]
fn what_is_no_plugin_file_is_refused_or_ignored() {
    let mut clocked = Clocked::new();
    for ignored in [".a.wasm", "~a.wasm", "#a.wasm", "a.wasm~", "a.wasm.tmp", ".wasm", "a.txt", "4913"] {
        fs::write(clocked.file(ignored), "x").unwrap();
    }
    fs::create_dir(clocked.file("folder.wasm")).unwrap();
    symlink("nowhere", clocked.file("link.wasm")).unwrap();
    assert_eq!(clocked.at(1000), []);
    let texts = clocked.at(1100).into_iter().map(|change| match change {
        Change::Refused { name, error, .. } => format!("{name}: {error}"),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        texts.collect::<Vec<_>>(),
        [
            "folder: it is not a file: put the component itself here, or a link to it",
            "link: it is a link to nowhere, which is not there",
        ]
    );
    assert_eq!(clocked.at(9999), []);
}

// The folder.

async fn next(folder: &mut Folder) -> Change {
    tokio::time::timeout(TIMEOUT, folder.next()).await.expect("a change should have come")
}

/// A watched folder with the plugin `a`, whose content is "one".
fn watched() -> (TempDir, PathBuf, Folder) {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("plugins");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.wasm"), "one").unwrap();
    let (folder, changes) = Folder::open(&settings(&dir)).unwrap();
    assert_eq!(changes.into_iter().map(found).collect::<Vec<_>>(), [is("a", b"one")]);
    (parent, dir, folder)
}

#[tokio::test]
async fn opening_creates_the_folder_and_reads_what_is_there() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("not/yet");
    let (folder, changes) = Folder::open(&settings(&dir)).unwrap();
    assert_eq!(changes, []);
    drop(folder);
    fs::write(dir.join("b.wasm"), "two").unwrap();
    fs::write(dir.join("a.wasm"), "one").unwrap();
    let (_folder, changes) = Folder::open(&settings(&dir)).unwrap();
    let Change::Found(first) = &changes[0] else { panic!("{changes:?}") };
    assert_eq!(
        first.version,
        // sha256 of "one"
        "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    );
    assert_eq!(first.path, Some(dir.join("a.wasm")));
    assert_eq!(changes.into_iter().map(found).collect::<Vec<_>>(), [is("a", b"one"), is("b", b"two")]);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
    let parent = TempDir::new().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Folder::open(&settings(&file.join("plugins"))).unwrap_err().to_string();
    assert!(error.starts_with("create the plugin folder ") && error.contains("file/plugins"), "{error}");
}

#[tokio::test]
async fn an_atomic_rename_is_found() {
    let (parent, dir, mut folder) = watched();
    let made = parent.path().join("made");
    fs::write(&made, "two").unwrap();
    fs::rename(made, dir.join("a.wasm")).unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"two"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_written_in_pieces_is_never_found_half_written() {
    let (_parent, dir, mut folder) = watched();
    let path = dir.join("a.wasm");
    let writer = thread::spawn(move || {
        let mut file = File::create(path).unwrap();
        for piece in [b"pie", b"ces", b" of", b" it"] {
            file.write_all(piece).unwrap();
            // Pacing: a writer that pauses for longer than a quiet file is waited for.
            thread::sleep(Duration::from_millis(250));
        }
    });
    assert_eq!(found(next(&mut folder).await), is("a", b"pieces of it"));
    writer.join().unwrap();
}

#[tokio::test]
async fn the_ways_editors_and_tools_save_are_found_once_each() {
    let (parent, dir, mut folder) = watched();
    let path = dir.join("a.wasm");

    // A backup under another name, the file anew, the backup removed.
    fs::write(dir.join(".a.wasm.swp"), "swap").unwrap();
    fs::rename(&path, dir.join("a.wasm~")).unwrap();
    fs::write(&path, "backup").unwrap();
    fs::remove_file(dir.join("a.wasm~")).unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"backup"));

    // A hidden file beside it, renamed over it.
    fs::write(dir.join(".a.wasm.Xy12"), "hidden").unwrap();
    fs::rename(dir.join(".a.wasm.Xy12"), &path).unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"hidden"));

    // A copy over it.
    let made = parent.path().join("made");
    fs::write(&made, "copied").unwrap();
    fs::copy(&made, &path).unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"copied"));

    // Cut off, and written again.
    File::options().write(true).truncate(true).open(&path).unwrap();
    fs::write(&path, "again").unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"again"));

    // A second name of a file.
    fs::hard_link(&made, dir.join("b.wasm")).unwrap();
    assert_eq!(found(next(&mut folder).await), is("b", b"copied"));
}

#[tokio::test]
async fn the_same_content_is_found_again_when_the_file_is_written_or_touched_and_not_otherwise() {
    let (_parent, dir, mut folder) = watched();
    fs::write(dir.join("a.wasm"), "one").unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"one"));
    File::open(dir.join("a.wasm")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"one"));
    // Opened to be written, and closed: the system tells of it, and nothing has changed.
    drop(File::options().append(true).open(dir.join("a.wasm")).unwrap());
    fs::write(dir.join("z.wasm"), "mark").unwrap();
    assert_eq!(found(next(&mut folder).await), is("z", b"mark"));
}

#[tokio::test]
async fn links_are_followed_also_when_they_are_turned() {
    let (parent, dir, mut folder) = watched();
    let [one, two] = ["v1", "v2"].map(|version| {
        let release = parent.path().join(version);
        fs::create_dir(&release).unwrap();
        fs::write(release.join("b.wasm"), version).unwrap();
        release
    });

    // A link to a folder, and a link to a file through it: both are as containers mount them.
    symlink(&one, dir.join("..data")).unwrap();
    symlink("..data/b.wasm", dir.join("b.wasm")).unwrap();
    assert_eq!(found(next(&mut folder).await), is("b", b"v1"));
    symlink(&two, dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    assert_eq!(found(next(&mut folder).await), is("b", b"v2"));

    // What the link points to is written to: no notification tells of it.
    fs::write(two.join("b.wasm"), "v3").unwrap();
    assert_eq!(found(next(&mut folder).await), is("b", b"v3"));
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_watched_on() {
    let (parent, dir, mut folder) = watched();
    let other = parent.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("a.wasm"), "two").unwrap();
    fs::rename(&dir, parent.path().join("before")).unwrap();
    fs::rename(&other, &dir).unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"two"));
    fs::write(dir.join("a.wasm"), "three").unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"three"));

    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(next(&mut folder).await, Change::Gone { name: "a".into() });
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.wasm"), "three").unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"three"));
}

#[tokio::test]
async fn a_deleted_file_is_gone_and_may_come_back() {
    let (_parent, dir, mut folder) = watched();
    fs::remove_file(dir.join("a.wasm")).unwrap();
    assert_eq!(next(&mut folder).await, Change::Gone { name: "a".into() });
    fs::write(dir.join("a.wasm"), "one").unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"one"));
}

#[tokio::test]
async fn without_notifications_the_scan_finds_what_changed() {
    let parent = TempDir::new().unwrap();
    let no_watch_left = |_: &Path, _, _| -> notify::Result<Watch> {
        Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch))
    };
    let (mut folder, changes) = Folder::open_with(&settings(parent.path()), no_watch_left).unwrap();
    assert_eq!(changes, []);
    fs::write(parent.path().join("a.wasm"), "one").unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"one"));
    fs::write(parent.path().join("a.wasm"), "two").unwrap();
    assert_eq!(found(next(&mut folder).await), is("a", b"two"));
}

#[tokio::test]
async fn a_folder_that_is_not_watched_changes_never() {
    let parent = TempDir::new().unwrap();
    fs::write(parent.path().join("a.wasm"), "one").unwrap();
    let settings = Plugins { watch: false, ..settings(parent.path()) };
    let (mut folder, changes) = Folder::open(&settings).unwrap();
    assert_eq!(changes.into_iter().map(found).collect::<Vec<_>>(), [is("a", b"one")]);
    assert!(folder.watched.is_none());
    assert_eq!(folder.next().now_or_never(), None);
}

#[tokio::test]
async fn a_dropped_wait_loses_no_change() {
    let (_parent, dir, mut folder) = watched();
    fs::write(dir.join("a.wasm"), "two").unwrap();
    fs::write(dir.join("b.wasm"), "two").unwrap();
    let (mut seen, mut dropped) = (Vec::new(), 0);
    let deadline = Instant::now() + TIMEOUT;
    while seen.len() < 2 {
        assert!(Instant::now() < deadline, "only {seen:?} came");
        // A wait that is dropped after it was polled, as another branch of a `select!` does.
        match folder.next().now_or_never() {
            Some(change) => seen.push(found(change)),
            None => {
                dropped += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(dropped > 0);
    assert_eq!(seen, [is("a", b"two"), is("b", b"two")]);
}
