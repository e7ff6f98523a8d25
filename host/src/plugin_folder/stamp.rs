//! What tells one content of a file from another: its digest, and without reading it the stamp of the file; and which
//! files were written by this host.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Differs after any change of a file. The time of the last status change is in it because no
/// writer can set it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) size_bytes: u64,
    modified: (i64, i64),
    pub(super) changed: (i64, i64),
}

/// The files that were written by this host, and not by others since.
#[derive(Debug, Default)]
pub(super) struct OwnFiles(Mutex<BTreeMap<OsString, Stamp>>);

impl Stamp {
    pub(super) fn of(is: &Metadata) -> Self {
        Self {
            device: is.dev(),
            inode: is.ino(),
            size_bytes: is.size(),
            modified: (is.mtime(), is.mtime_nsec()),
            changed: (is.ctime(), is.ctime_nsec()),
        }
    }
}

impl OwnFiles {
    /// Whether a file with this stamp was written by this host, or another was in its place since.
    pub(super) fn have(&self, path: &Path, file: &OsStr, stamp: &Stamp) -> bool {
        let own = self.lock();
        let Some(own) = own.get(file) else { return false };
        own == stamp || fs::metadata(path).is_ok_and(|is| Stamp::of(&is) == *own)
    }

    /// Puts a file into its place, as `put` does. Whoever looks at the file meanwhile waits until it is known whose it
    /// is. Says whether it was done.
    pub(super) fn change(
        &self,
        file: &OsStr,
        put: impl FnOnce() -> io::Result<Option<Stamp>>,
    ) -> io::Result<bool> {
        let mut own = self.lock();
        let Some(stamp) = put()? else { return Ok(false) };
        own.insert(file.to_owned(), stamp);
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OsString, Stamp>> {
        // Each change of the map is complete in itself, so a panic elsewhere leaves it sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version that content is.
pub(super) fn version(wasm: &[u8]) -> String {
    let mut version = String::from("sha256:");
    for byte in Sha256::digest(wasm) {
        // Writing to a string cannot fail.
        let _ = write!(version, "{byte:02x}");
    }
    version
}
