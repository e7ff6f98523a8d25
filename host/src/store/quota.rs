//! The size of all files together: a file grows only as far as there is room.

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the files may take together, and what those that are open or known take now.
#[derive(Debug)]
pub(super) struct Quota {
    max_bytes: u64,
    used_bytes: AtomicU64,
}

/// The error that a file met which would have taken more than there is room for.
#[derive(Debug, thiserror::Error)]
#[error("there is no room for more state")]
pub(super) struct NoRoom;

impl Quota {
    pub(super) fn new(max_bytes: u64, used_bytes: u64) -> Self {
        Self { max_bytes, used_bytes: AtomicU64::new(used_bytes) }
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// A file has another size.
    ///
    /// # Errors
    /// There is no room for so much.
    fn resize(&self, from: u64, to: u64) -> Result<(), NoRoom> {
        let resized = self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let used = used.saturating_sub(from).saturating_add(to);
            (to <= from || used <= self.max_bytes).then_some(used)
        });
        resized.map(drop).map_err(|_| NoRoom)
    }

    /// A file of this size is gone.
    pub(super) fn forget(&self, bytes: u64) {
        let _ = self.resize(bytes, 0);
    }
}

/// A file of the database that grows within a quota.
#[derive(Debug)]
pub(super) struct QuotaFile {
    file: FileBackend,
    quota: Arc<Quota>,
}

impl QuotaFile {
    pub(super) fn new(file: FileBackend, quota: Arc<Quota>) -> Self {
        Self { file, quota }
    }
}

impl StorageBackend for QuotaFile {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, bytes: u64) -> Result<(), io::Error> {
        let before = self.file.len()?;
        self.quota.resize(before, bytes).map_err(|full| io::Error::new(io::ErrorKind::StorageFull, full))?;
        self.file.set_len(bytes).inspect_err(|_| {
            let _ = self.quota.resize(bytes, before);
        })
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
