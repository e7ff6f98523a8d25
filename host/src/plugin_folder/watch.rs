//! Notifications of the system about the plugin folder.
//!
//! They do two things: ring for a look, and tell which files are being written and which are
//! closed, so that a file whose writer pauses is not taken for whole. Either may be missing or
//! late: then a file is known by its size and times alone.

use super::Bell;
use super::file::is_plugin;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether the system tells when a file is closed after writing. Where it does not, a write says
/// nothing about when the file is whole.
const TELLS_OF_CLOSING: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Most files that news are kept of. More are no plugin folder; then news are forgotten.
const MOST_FILES: usize = 4096;

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Notes news of `dir` in `news`, and rings where a look is worth it.
    pub(super) fn attach(dir: &Path, news: Arc<News>, bell: Bell) -> notify::Result<Self> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let worth_a_look = match event {
                Ok(event) => news.note(&event),
                Err(_) => news.forget(),
            };
            if worth_a_look {
                bell.ring();
            }
        })?;
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        Ok(Self { _watcher: watcher })
    }
}

/// The last that was told of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It was written to, and not closed since.
    Writing,
    /// It was closed after writing, or renamed to its name.
    Whole,
}

/// What was told since the last look.
#[derive(Debug, Default)]
pub(super) struct News(Mutex<HashMap<OsString, Told>>);

impl News {
    /// Takes what was told.
    pub(super) fn take(&self) -> HashMap<OsString, Told> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether something was told of this file since the last look.
    pub(super) fn mentions(&self, file: &OsStr) -> bool {
        self.lock().contains_key(file)
    }

    /// Notes an event; says whether it is worth a look.
    pub(super) fn note(&self, event: &Event) -> bool {
        if event.need_rescan() {
            return self.forget();
        }
        let (told, worth_a_look) = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => (Some(Told::Whole), true),
            // Our own reading is told of, too.
            EventKind::Access(_) => return false,
            EventKind::Modify(ModifyKind::Data(_)) if TELLS_OF_CLOSING => (Some(Told::Writing), false),
            _ => (None, true),
        };
        if let Some(told) = told {
            let mut news = self.lock();
            let files = event.paths.iter().filter_map(|path| path.file_name());
            for file in files.filter(|file| is_plugin(file)) {
                if news.len() >= MOST_FILES {
                    news.clear();
                }
                news.insert(file.to_owned(), told);
            }
        }
        worth_a_look
    }

    /// News were lost: forgets the others too, since they may no longer hold.
    fn forget(&self) -> bool {
        self.lock().clear();
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OsString, Told>> {
        // Each change of the map is complete in itself, so a panic elsewhere leaves it sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
