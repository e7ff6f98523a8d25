//! Writing into the plugin folder: content that came by another way and runs is put there, so that the folder says
//! what runs.
//!
//! A file is there whole or not at all. What is written here is not told as a change. Newer content that the folder
//! has, and that whoever takes the changes does not know yet, is left alone: it comes next.

use super::file::PLUGIN_SUFFIX;
use super::stamp::{OwnFiles, Stamp, version};
use crate::config::FilePath;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The last that was heard of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Its content.
    Version(String),
    /// That it cannot be a plugin as it is.
    Refused,
}

/// Writes the file of one plugin.
#[derive(Debug)]
pub(crate) struct FolderWriter {
    pub(super) dir: FilePath,
    pub(super) name: String,
    /// What is known of the file; `None` where there is none.
    pub(super) heard: Option<Heard>,
    /// Whether changes of others are told.
    pub(super) is_watched: bool,
    pub(super) max_size_bytes: u64,
    pub(super) own: Arc<OwnFiles>,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderWriteError {
    /// Somebody else has.
    #[error("{0}.wasm in the plugin folder has newer content, which comes next")]
    Newer(String),
    /// The system does not.
    #[error("failed to write {plugin}.wasm in the plugin folder {folder}: {source}")]
    Io {
        /// The name of the plugin.
        plugin: String,
        /// The path of the folder.
        folder: FilePath,
        /// The error of the system.
        source: io::Error,
    },
}

impl FolderWriter {
    /// Puts this content into the file. Blocks.
    ///
    /// # Errors
    /// The folder has newer content of the plugin, or cannot be written.
    pub(crate) fn write(&self, wasm: &[u8]) -> Result<(), FolderWriteError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let file = OsString::from(format!("{}{PLUGIN_SUFFIX}", self.name));
        let path = self.dir.join(&file);
        let unfinished = format!(".tidemill-{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let unfinished = self.dir.join(unfinished);
        let written = self.replace(&file, &path, &unfinished, wasm);
        if written.is_err() {
            // The first failure is the one to tell.
            let _ = fs::remove_file(&unfinished);
        }
        match written {
            Ok(true) => Ok(()),
            Ok(false) => {
                let _ = fs::remove_file(&unfinished);
                Err(FolderWriteError::Newer(self.name.clone()))
            }
            Err(source) => {
                Err(FolderWriteError::Io { plugin: self.name.clone(), folder: self.dir.clone(), source })
            }
        }
    }

    /// Says whether it was done: not where the file has newer content.
    fn replace(&self, file: &OsStr, path: &Path, unfinished: &Path, wasm: &[u8]) -> io::Result<bool> {
        let mut whole = OpenOptions::new().write(true).create_new(true).open(unfinished)?;
        whole.write_all(wasm)?;
        whole.sync_all()?;
        self.own.change(file, || {
            if self.is_watched && self.is_newer(path, wasm) {
                return Ok(None);
            }
            fs::rename(unfinished, path)?;
            Ok(Some(Stamp::of(&whole.metadata()?)))
        })
    }

    /// Whether the file has content that nobody has heard of yet.
    fn is_newer(&self, path: &Path, wasm: &[u8]) -> bool {
        let heard = match &self.heard {
            Some(Heard::Refused) => return false,
            Some(Heard::Version(version)) => Some(version),
            None => None,
        };
        let read = || {
            let mut content = Vec::new();
            File::open(path)?.take(self.max_size_bytes.saturating_add(1)).read_to_end(&mut content)?;
            io::Result::Ok(content)
        };
        // One that is gone is no content; of one that cannot be read, replacing it says what is wrong.
        let Ok(content) = read() else { return false };
        // An empty file is no content yet.
        if content.is_empty() {
            return false;
        }
        let is = version(&content);
        heard != Some(&is) && is != version(wasm)
    }
}
