//! Where one command keeps what it needs as files: a folder of its own, which goes when it ends, also at once.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The folders of this process, for an end that unwinds nothing.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// How often it is tried to remove a folder into which others may still write.
const ATTEMPTS: u32 = 10;

pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A folder for this command.
    pub(super) fn try_new(command: &str) -> Result<Self, String> {
        let name = format!("tidemill-{command}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let folder = std::env::temp_dir().join(name);
        // Of this user alone: the code of plugins is read from it.
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {
                FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(folder.clone());
                Ok(Self(folder))
            }
            Err(error) => Err(format!(
                "failed to make the folder {}: {error}\nhint: TMPDIR says where temporary folders are made",
                folder.display()
            )),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes the folders of this process, which is about to end whatever it is doing.
pub(super) fn remove_all() {
    for folder in &*FOLDERS.lock().unwrap_or_else(PoisonError::into_inner) {
        remove(folder);
    }
}

/// What cannot be removed is left to whoever cleans the temporary folder.
fn remove(folder: &Path) {
    for _ in 0..ATTEMPTS {
        if std::fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            return;
        }
    }
}
