//! A file of the plugin folder: whether it is a plugin, and the plugin's name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Whether a file of this name is a plugin. Hidden files and those that editors put beside the one
/// they write are none.
pub(super) fn is_plugin(file: &OsStr) -> bool {
    let name = file.as_encoded_bytes();
    name.len() > b".wasm".len() && name.ends_with(b".wasm") && !matches!(name[0], b'.' | b'~' | b'#')
}

/// A file of the folder, and how large it may be.
pub(super) struct PluginFile<'a> {
    pub(super) dir: &'a Path,
    pub(super) file: &'a OsStr,
    pub(super) max_size_bytes: u64,
}

impl PluginFile<'_> {
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(self.file)
    }

    /// The plugin's name: the file's, without `.wasm`.
    pub(super) fn name(&self) -> String {
        Path::new(self.file).file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}
