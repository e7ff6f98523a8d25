//! What can be wrong with the files of the store.

use std::io;
use std::path::{Path, PathBuf};

/// The reason why state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is not what the store wrote. It is out of the way now.
    #[error(
        "the state of pipeline {pipeline} is damaged: {why}; it is kept as {}, and the next start begins without \
         state",
        kept_as.display()
    )]
    Damaged {
        /// The name of the pipeline.
        pipeline: String,
        /// What is wrong with it.
        why: String,
        /// The name that the file has now.
        kept_as: PathBuf,
    },
    /// The files would take more than they may.
    #[error("the state in {} may take {max_bytes} bytes ([state] max_size), and this takes more", dir.display())]
    TooLarge {
        /// The folder of the files.
        dir: PathBuf,
        /// What all files may take together.
        max_bytes: u64,
    },
    /// There is another file in its place.
    #[error(
        "{} was replaced while the pipeline ran, which knows more than is there: stop it before its state is exchanged",
        path.display()
    )]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the file open.
    #[error("{} is in use by another host", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A later version has written the file.
    #[error("{} was written by a later version of tidemill (format {format})", path.display())]
    Later {
        /// The file.
        path: PathBuf,
        /// The number of its format.
        format: u64,
    },
    /// There is a file in the place of the folder, or of one that it is in.
    #[error("{} is a file, not a folder: state is kept in a folder ([state] dir)", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// The system does not do it.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// More waits for the disk than may.
    #[error("the disk is busy with state; try again")]
    Busy,
    /// The thread of the store has ended: the host is about to.
    #[error("the host is shutting down")]
    Closed,
}

impl StoreError {
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |error| Self::Io { path: path.to_owned(), error }
    }

    /// Whether the pipeline cannot go on with it: a later write could not do better.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Later { .. } | Self::Replaced { .. } | Self::Closed)
    }
}
