//! Compiled code on disk, so that a plugin is compiled once.
//!
//! An entry belongs to one digest of a plugin and to one build and configuration of the engine.
//! Running compiled code that someone else wrote would be running their program: the folder and the
//! files are the user's own and private, and an entry that is not exactly what was written is
//! refused, and made again.

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What an entry starts with; the last byte counts the formats.
const MAGIC: &[u8; 16] = b"tidemill code \n\x01";
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + 2 * DIGEST_BYTES;
/// How the names of entries end.
const SUFFIX: &str = ".code";
/// Most entries; the oldest make room.
const MAX_ENTRIES: usize = 128;

/// A SHA-256.
pub(super) type Sum = [u8; DIGEST_BYTES];

/// A folder of compiled code.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    engine_key: u64,
}

/// What was found for a plugin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The compiled code.
    Code(Vec<u8>),
    /// Nothing.
    Absent,
    /// Something that must not be used, and why.
    Refused(String),
}

impl Cache {
    /// Opens the folder, and makes it if it is not there.
    pub(super) fn try_new(folder: &Path, engine: &wasmtime::Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let metadata = fs::metadata(folder)?;
        if !metadata.is_dir() {
            return Err(io::Error::other("it is not a folder"));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it belongs to another user"));
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { folder: folder.to_owned(), engine_key: hasher.finish() })
    }

    /// The compiled code of the plugin with this digest.
    pub(super) fn load(&self, plugin: &Sum) -> Entry {
        match self.read(plugin) {
            Ok(Ok(code)) => Entry::Code(code),
            Ok(Err(refused)) => Entry::Refused(refused.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Entry::Absent,
            Err(error) => Entry::Refused(error.to_string()),
        }
    }

    fn read(&self, plugin: &Sum) -> io::Result<Result<Vec<u8>, &'static str>> {
        let no_links = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut file = OpenOptions::new().read(true).custom_flags(no_links).open(self.path(plugin))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Ok(Err("it is not a file of ours"));
        }
        if metadata.mode() & 0o077 != 0 {
            return Ok(Err("others may read or write it"));
        }
        let mut code = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        let mut header = [0; HEADER_BYTES];
        if file.read_exact(&mut header).is_err() {
            return Ok(Err("it is cut short"));
        }
        file.read_to_end(&mut code)?;
        let sum: Sum = Sha256::digest(&code).into();
        if header != Self::header(plugin, &sum) {
            return Ok(Err("it is damaged"));
        }
        Ok(Ok(code))
    }

    /// Keeps the compiled code of a plugin. What is there is replaced at once or not at all.
    pub(super) fn store(&self, plugin: &Sum, code: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unfinished =
            self.folder.join(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Relaxed)));
        let sum: Sum = Sha256::digest(code).into();
        let write = |mut file: File| {
            file.write_all(&Self::header(plugin, &sum))?;
            file.write_all(code)
        };
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(write)
            .and_then(|()| fs::rename(&unfinished, self.path(plugin)));
        if written.is_err() {
            // The first failure is the one to tell.
            let _ = fs::remove_file(&unfinished);
        }
        written.and_then(|()| self.make_room())
    }

    fn header(plugin: &Sum, code: &Sum) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..MAGIC.len() + DIGEST_BYTES].copy_from_slice(plugin);
        header[MAGIC.len() + DIGEST_BYTES..].copy_from_slice(code);
        header
    }

    fn path(&self, plugin: &Sum) -> PathBuf {
        self.folder.join(format!("{}-{:016x}{SUFFIX}", hex(plugin), self.engine_key))
    }

    fn make_room(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
                // Another host on this folder may have removed it in between.
                entries.extend(entry.metadata().and_then(|m| m.modified()).map(|time| (time, entry.path())));
            }
        }
        entries.sort();
        for (_, oldest) in entries.iter().rev().skip(MAX_ENTRIES) {
            fs::remove_file(oldest)?;
        }
        Ok(())
    }
}

/// Hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGIN: Sum = [7; DIGEST_BYTES];

    fn cache(folder: &Path) -> Cache {
        Cache { folder: folder.to_owned(), engine_key: 1 }
    }

    #[test]
    fn what_was_stored_is_found_again_by_this_engine_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        assert_eq!(cache.load(&PLUGIN), Entry::Absent);
        cache.store(&PLUGIN, b"code").unwrap();
        assert_eq!(cache.load(&PLUGIN), Entry::Code(b"code".to_vec()));
        assert_eq!(Cache { engine_key: 2, ..cache }.load(&PLUGIN), Entry::Absent);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| mode(e.unwrap().path())).collect();
        assert_eq!(files, [0o600]);
    }

    #[test]
    fn damage_a_foreign_name_and_open_permissions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let refused = |found| matches!(found, Entry::Refused(_));

        cache.store(&PLUGIN, b"code").unwrap();
        let mut bytes = fs::read(cache.path(&PLUGIN)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(cache.path(&PLUGIN), &bytes).unwrap();
        assert!(refused(cache.load(&PLUGIN)));
        fs::write(cache.path(&PLUGIN), &bytes[..10]).unwrap();
        assert!(refused(cache.load(&PLUGIN)));

        cache.store(&PLUGIN, b"code").unwrap();
        fs::rename(cache.path(&PLUGIN), cache.path(&[8; DIGEST_BYTES])).unwrap();
        assert!(refused(cache.load(&[8; DIGEST_BYTES])));

        cache.store(&PLUGIN, b"code").unwrap();
        fs::set_permissions(cache.path(&PLUGIN), Permissions::from_mode(0o644)).unwrap();
        assert!(refused(cache.load(&PLUGIN)));

        fs::rename(cache.path(&PLUGIN), folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), cache.path(&PLUGIN)).unwrap();
        assert!(refused(cache.load(&PLUGIN)));
    }

    #[test]
    fn the_oldest_entries_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        for n in 0..MAX_ENTRIES + 5 {
            let mut plugin = PLUGIN;
            plugin[..8].copy_from_slice(&n.to_le_bytes());
            cache.store(&plugin, b"code").unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MAX_ENTRIES);
    }
}
