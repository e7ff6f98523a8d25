//! Where one command keeps what it needs as files: a folder of its own, which goes when it ends.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A folder for this command.
    pub(super) fn try_new(command: &str) -> Result<Self, String> {
        let name = format!("tidemill-{command}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let folder = std::env::temp_dir().join(name);
        // Of this user alone: the code of plugins is read from it.
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => Ok(Self(folder)),
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
        // What cannot be removed is left to whoever cleans the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
