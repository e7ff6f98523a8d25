//! A file that is watched: whoever watches it is told once it has another content, and keeps it.
//!
//! Its folder is watched rather than the file, since editors put another file in its place, and so does whoever swaps a
//! link that it is reached through; the folder that it really lies in too, where links lead elsewhere. Notifications
//! only ring for a look, and a look from time to time finds what they missed. What counts is the content: one that is
//! the same at two looks, and not empty, is whole. A file that is gone may come back.

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks where nothing is told.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// A content that is the same for so long is whole.
const SETTLED: Duration = Duration::from_millis(100);
/// A configuration is far smaller.
const MAX_BYTES: u64 = 16 << 20;

/// A watch of a file. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct FileWatch {
    rings: SyncSender<Ring>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread of a watch is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ring {
    Look,
    End,
}

impl FileWatch {
    /// Watches a file; `changed` is called for each content that is not the one that was read last.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(crate) fn start(
        path: &Path,
        read: LastRead,
        changed: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (rings, rung) = sync_channel(1);
        let file = WatchedFile { path: path.to_owned(), read };
        let bell = rings.clone();
        let thread = std::thread::Builder::new()
            .name("config-watch".into())
            .spawn(move || file.watch(&rung, &Notifier::new(bell), &changed))?;
        Ok(Self { rings, thread: Some(thread) })
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        // A ring that is there already is followed by a look, and that by this.
        let _ = self.rings.send(Ring::End);
        if let Some(thread) = self.thread.take() {
            // Its panic, if it had one, was reported on its own thread.
            let _ = thread.join();
        }
    }
}

/// The content that was read last, by whoever acts on it: for the watch, or because somebody asked for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastRead(Arc<Mutex<Option<Vec<u8>>>>);

impl LastRead {
    /// This was read just now.
    pub(crate) fn note(&self, content: Option<Vec<u8>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = content;
    }

    fn is(&self, content: &[u8]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(content)
    }
}

/// The content of a file; `None` where it is not there, empty, or no file.
pub(crate) fn content(path: &Path) -> Option<Vec<u8>> {
    let found = std::fs::metadata(path).ok()?;
    if !found.is_file() || found.len() > MAX_BYTES {
        return None;
    }
    std::fs::read(path).ok().filter(|content| !content.is_empty())
}

struct WatchedFile {
    path: PathBuf,
    read: LastRead,
}

impl WatchedFile {
    fn watch(self, rung: &Receiver<Ring>, notifier: &Notifier, changed: &impl Fn()) {
        let mut watched = notifier.attach(&self.path);
        // What has changed since it was known.
        let mut wait = Duration::ZERO;
        loop {
            match rung.recv_timeout(wait) {
                Ok(Ring::End) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Ring::Look) | Err(RecvTimeoutError::Timeout) => {}
            }
            wait = LOOK_INTERVAL;
            let mut found = content(&self.path);
            while found.as_deref().is_some_and(|found| !self.read.is(found)) {
                match rung.recv_timeout(SETTLED) {
                    Ok(Ring::End) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(Ring::Look) => continue,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                let again = content(&self.path);
                if again == found {
                    // It is read because of this, and told once.
                    self.read.note(again);
                    changed();
                } else {
                    found = again;
                }
            }
            if watched.as_ref().is_none_or(|(_, folders)| *folders != folders_of(&self.path)) {
                watched = notifier.attach(&self.path);
            }
        }
    }
}

/// The folders in which a change may be one of the file: where it is named, and where it lies.
fn folders_of(path: &Path) -> BTreeSet<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let lies = path.canonicalize().ok().map(|path| parent(&path));
    let named = parent(path).canonicalize().unwrap_or_else(|_| parent(path));
    std::iter::once(named).chain(lies).collect()
}

/// What rings for a look where the system tells of a change.
struct Notifier {
    bell: SyncSender<Ring>,
}

impl Notifier {
    fn new(bell: SyncSender<Ring>) -> Self {
        Self { bell }
    }

    /// Watches the folders of a file; where that cannot be, the looks from time to time remain.
    fn attach(&self, path: &Path) -> Option<(RecommendedWatcher, BTreeSet<PathBuf>)> {
        let bell = self.bell.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Our own reading is told of, too.
            if !event.is_ok_and(|event| event.kind.is_access() && !is_close(&event)) {
                let _ = bell.try_send(Ring::Look);
            }
        });
        let folders = folders_of(path);
        let watched = watcher.and_then(|mut watcher| {
            for folder in &folders {
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => Some((watcher, folders)),
            Err(error) => {
                tracing::debug!(%error, "the system does not tell of changes of the configuration file");
                None
            }
        }
    }
}

/// Whether a file was closed after writing.
fn is_close(event: &Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::channel;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn however_a_file_gets_another_content_that_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tidemill.toml");
        fs::write(&path, "0").expect("it is ours");
        let (sender, told) = channel();
        let (read, seen) = (LastRead::default(), path.clone());
        read.note(content(&path));
        let reader = read.clone();
        let _watch = FileWatch::start(&path, read, move || {
            let _ = sender.send(content(&seen));
        })
        .expect("there is a thread");
        let told = |wanted: &str| {
            let content = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{wanted} is not told"));
            assert_eq!(content.as_deref(), Some(wanted.as_bytes()));
        };
        fs::write(&path, "in place").expect("it is ours");
        told("in place");
        let other = folder.path().join("other");
        fs::write(&other, "renamed").expect("it is ours");
        fs::rename(&other, &path).expect("in one folder");
        told("renamed");
        fs::rename(&path, folder.path().join("tidemill.toml~")).expect("in one folder");
        fs::write(&path, "with a backup").expect("it is ours");
        told("with a backup");
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "").expect("it is ours");
        fs::write(&path, "gone and back").expect("it is ours");
        told("gone and back");
        // Somebody else had another content read meanwhile.
        reader.note(Some(b"not for long".to_vec()));
        fs::write(&path, "gone and back").expect("it is ours");
        told("gone and back");
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_another_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let in_folder = |name: &str| folder.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(in_folder(version)).expect("it is ours");
            fs::write(in_folder(version).join("tidemill.toml"), version).expect("it is ours");
        }
        symlink("1", in_folder("..data")).expect("it is ours");
        symlink("..data/tidemill.toml", in_folder("tidemill.toml")).expect("it is ours");
        let path = in_folder("tidemill.toml");
        let (sender, told) = channel();
        let (read, seen) = (LastRead::default(), path.clone());
        read.note(content(&path));
        let _watch = FileWatch::start(&path, read, move || {
            let _ = sender.send(content(&seen));
        })
        .expect("there is a thread");
        symlink("2", in_folder("..data_tmp")).expect("it is ours");
        fs::rename(in_folder("..data_tmp"), in_folder("..data")).expect("in one folder");
        assert_eq!(told.recv_timeout(PATIENCE).expect("it is told").as_deref(), Some(&b"2"[..]));
        fs::write(in_folder("2").join("tidemill.toml"), "where it lies").expect("it is ours");
        assert_eq!(told.recv_timeout(PATIENCE).expect("it is told").as_deref(), Some(&b"where it lies"[..]));
    }
}
