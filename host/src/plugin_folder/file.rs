//! A file of the plugin folder: whether it is a plugin, and the plugin's name.

use super::stamp::OwnFiles;
use crate::config::MOST_PLUGIN_BYTES;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Longest name of a plugin: with its ending, what file systems take.
const MAX_NAME_BYTES: usize = 250;
/// How the name of a plugin's file ends.
pub(super) const PLUGIN_SUFFIX: &str = ".wasm";

/// Whether a plugin can have this name: a file of the folder can.
pub(crate) fn is_plugin_name(name: &str) -> bool {
    let is_one_name = !name.contains(['/', '\\', '\0']) && name.len() <= MAX_NAME_BYTES;
    is_one_name && is_plugin(OsStr::new(&format!("{name}{PLUGIN_SUFFIX}")))
}

/// Whether a file of this name is a plugin. Hidden files and those that editors put beside the one
/// they write are none.
pub(super) fn is_plugin(file: &OsStr) -> bool {
    let name = file.as_encoded_bytes();
    name.len() > PLUGIN_SUFFIX.len()
        && name.ends_with(PLUGIN_SUFFIX.as_bytes())
        && !matches!(name[0], b'.' | b'~' | b'#')
}

/// What is in a file that may be a plugin of whatever host. Blocks.
///
/// # Errors
/// It is no file, as a device is none, or is larger than any plugin may be; and whatever the system says.
pub(crate) fn read_plugin(path: &Path) -> io::Result<Vec<u8>> {
    let is = fs::metadata(path)?;
    if !is.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut wasm = Vec::new();
    if is.len() <= MOST_PLUGIN_BYTES {
        File::open(path)?.take(MOST_PLUGIN_BYTES + 1).read_to_end(&mut wasm)?;
    }
    if is.len().max(wasm.len() as u64) > MOST_PLUGIN_BYTES {
        return Err(io::Error::other(format!("no plugin is larger than {} MiB", MOST_PLUGIN_BYTES >> 20)));
    }
    Ok(wasm)
}

/// A file of the folder, and how large it may be.
pub(super) struct PluginFile<'a> {
    pub(super) dir: &'a Path,
    pub(super) file: &'a OsStr,
    pub(super) max_size_bytes: u64,
    pub(super) own: &'a OwnFiles,
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
