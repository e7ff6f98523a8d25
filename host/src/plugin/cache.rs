//! Compiled code on disk, so that a plugin is compiled once.
//!
//! An entry belongs to one digest of a plugin and to one build and configuration of the engine.
//! Running compiled code that someone else wrote would be running their program: the folder and the
//! files are the user's own and private, and an entry that is not exactly what was written is
//! refused, and made again.

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// What an entry starts with; the last byte counts the formats.
const MAGIC: &[u8; 16] = b"tidemill code \n\x01";
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + 2 * DIGEST_BYTES;
/// How the names of entries end.
const SUFFIX: &str = ".code";
/// Most entries that no loaded plugin uses; those that were not used for longest make room.
const MAX_UNUSED: usize = 128;

/// The SHA-256 digest of a plugin's file.
pub(super) type Sha256Sum = [u8; DIGEST_BYTES];

/// A folder of compiled code.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    engine_key: u64,
    in_use: Arc<Mutex<BTreeMap<Sha256Sum, usize>>>,
    /// Whether what is not in use now is not about to be: while a host starts, most is not loaded yet.
    makes_room: AtomicBool,
    /// Whether something was stored since room was made.
    is_stored: AtomicBool,
}

/// A loaded plugin whose code stays.
#[derive(Debug)]
pub(super) struct InUse {
    sum: Sha256Sum,
    in_use: Arc<Mutex<BTreeMap<Sha256Sum, usize>>>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut in_use = lock(&self.in_use);
        if let Some(count) = in_use.get_mut(&self.sum) {
            *count -= 1;
            if *count == 0 {
                in_use.remove(&self.sum);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A count is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was found for a plugin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CachedCode {
    /// The compiled code, whole by its own digest.
    Code(Vec<u8>),
    /// The cache has no code of this digest.
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
        Ok(Self::of(folder, hasher.finish()))
    }

    fn of(folder: &Path, engine_key: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            engine_key,
            in_use: Arc::default(),
            makes_room: AtomicBool::new(false),
            is_stored: AtomicBool::new(false),
        }
    }

    /// Keeps the code of a plugin for as long as the answer lives.
    pub(super) fn hold(&self, plugin: Sha256Sum) -> InUse {
        *lock(&self.in_use).entry(plugin).or_default() += 1;
        InUse { sum: plugin, in_use: self.in_use.clone() }
    }

    /// Makes room now, if anything was stored, and whenever something is stored.
    pub(super) fn make_room_from_now_on(&self) -> io::Result<()> {
        self.makes_room.store(true, Relaxed);
        if self.is_stored.swap(false, Relaxed) { self.make_room() } else { Ok(()) }
    }

    /// The compiled code of the plugin with this digest.
    pub(super) fn load(&self, plugin: &Sha256Sum) -> CachedCode {
        match self.read(plugin) {
            Ok(Ok(code)) => CachedCode::Code(code),
            Ok(Err(refused)) => CachedCode::Refused(refused.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => CachedCode::Absent,
            Err(error) => CachedCode::Refused(error.to_string()),
        }
    }

    fn read(&self, plugin: &Sha256Sum) -> io::Result<Result<Vec<u8>, &'static str>> {
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
        // When it was used last; where that cannot be noted, it makes room earlier.
        let _ = file.set_modified(SystemTime::now());
        let sum: Sha256Sum = Sha256::digest(&code).into();
        if header != Self::header(plugin, &sum) {
            return Ok(Err("it is damaged"));
        }
        Ok(Ok(code))
    }

    /// Keeps the compiled code of a plugin. What is there is replaced at once or not at all.
    pub(super) fn store(&self, plugin: &Sha256Sum, code: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unfinished =
            self.folder.join(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Relaxed)));
        let sum: Sha256Sum = Sha256::digest(code).into();
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
        written?;
        self.is_stored.store(true, Relaxed);
        if self.makes_room.load(Relaxed) { self.make_room_from_now_on() } else { Ok(()) }
    }

    fn header(plugin: &Sha256Sum, code: &Sha256Sum) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..MAGIC.len() + DIGEST_BYTES].copy_from_slice(plugin);
        header[MAGIC.len() + DIGEST_BYTES..].copy_from_slice(code);
        header
    }

    fn path(&self, plugin: &Sha256Sum) -> PathBuf {
        self.folder.join(format!("{}-{:016x}{SUFFIX}", hex(plugin), self.engine_key))
    }

    fn make_room(&self) -> io::Result<()> {
        let in_use: BTreeSet<PathBuf> = lock(&self.in_use).keys().map(|sum| self.path(sum)).collect();
        let mut unused = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().ends_with(SUFFIX) && !in_use.contains(&path) {
                // Another host on this folder may have removed it in between.
                unused.extend(entry.metadata().and_then(|m| m.modified()).map(|time| (time, path)));
            }
        }
        unused.sort();
        for (_, oldest) in unused.iter().rev().skip(MAX_UNUSED) {
            match fs::remove_file(oldest) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGIN: Sha256Sum = [7; DIGEST_BYTES];

    fn cache(folder: &Path) -> Cache {
        Cache::of(folder, 1)
    }

    #[test]
    fn what_was_stored_is_found_again_by_this_engine_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        assert_eq!(cache.load(&PLUGIN), CachedCode::Absent);
        cache.store(&PLUGIN, b"code").unwrap();
        assert_eq!(cache.load(&PLUGIN), CachedCode::Code(b"code".to_vec()));
        assert_eq!(Cache::of(folder.path(), 2).load(&PLUGIN), CachedCode::Absent);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| mode(e.unwrap().path())).collect();
        assert_eq!(files, [0o600]);
    }

    #[test]
    fn damage_a_foreign_name_and_open_permissions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let refused = |found| matches!(found, CachedCode::Refused(_));

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

    fn plugin(n: usize) -> Sha256Sum {
        let mut plugin = PLUGIN;
        plugin[..8].copy_from_slice(&n.to_le_bytes());
        plugin
    }

    #[test]
    fn what_is_in_use_stays_and_what_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let count = || fs::read_dir(folder.path()).unwrap().count();
        let mut held: Vec<_> = (0..2 * MAX_UNUSED).map(|n| cache.hold(plugin(n))).collect();
        for n in 0..2 * MAX_UNUSED {
            cache.store(&plugin(n), b"code").unwrap();
        }
        cache.make_room_from_now_on().unwrap();
        assert_eq!(count(), 2 * MAX_UNUSED);
        for n in 2 * MAX_UNUSED..3 * MAX_UNUSED + 5 {
            cache.store(&plugin(n), b"code").unwrap();
        }
        assert_eq!(count(), 3 * MAX_UNUSED);
        held.truncate(1);
        cache.store(&plugin(usize::MAX), b"code").unwrap();
        assert_eq!(count(), MAX_UNUSED + 1);
        assert_eq!(cache.load(&plugin(0)), CachedCode::Code(b"code".to_vec()));
    }

    #[test]
    fn a_start_removes_nothing_before_all_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let before = cache(folder.path());
        for n in 0..MAX_UNUSED + 50 {
            before.store(&plugin(n), b"code").unwrap();
        }
        let now = cache(folder.path());
        now.store(&plugin(usize::MAX), b"code").unwrap();
        let held: Vec<_> =
            (0..MAX_UNUSED + 50).map(|n| (now.hold(plugin(n)), now.load(&plugin(n)))).collect();
        assert!(held.iter().all(|(_, found)| matches!(found, CachedCode::Code(_))));
        now.make_room_from_now_on().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MAX_UNUSED + 51);
    }
}
