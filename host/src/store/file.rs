//! The file of one pipeline: read whole when it is opened, and then only written.

use super::error::StoreError;
use super::quota::{NoRoom, Quota, QuotaFile};
use crate::generation::{Generation, Position, StateValue, TransformState};
use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is read and written otherwise has another number.
const FORMAT: u64 = 1;
/// More than any configuration has: a number beyond it comes of damage.
const MOST_INSTANCES: u32 = 1 << 16;
/// What a file's name has at its end until it is whole.
const UNFINISHED: &str = ".new";
/// Pages that are kept in memory for each file: a generation's own, since nothing is read twice.
const CACHE_BYTES: usize = 1 << 20;

/// What the file is: `format`, the name of its `pipeline`, `written_us`, and `position`.
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
/// By transform and key, when the value is over (0: never), and the value.
const VALUES: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("values");
/// By transform and instance.
const SNAPSHOTS: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("snapshots");
/// By transform, how many instances wrote the snapshots, where they were several: not each has one.
const INSTANCES: TableDefinition<'_, &str, u32> = TableDefinition::new("instances");

/// An open file.
#[derive(Debug)]
pub(super) struct StateFile {
    database: Database,
    number: FileNumber,
}

/// What tells a file from another that has its name later: its device, and its number there.
type FileNumber = (u64, u64);

/// What is at the path of a file that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtItsPath {
    /// The file.
    Itself,
    /// Nothing: it was removed.
    Nothing,
    /// Another file.
    Another,
}

/// Why a file cannot be opened, read or written.
#[derive(Debug)]
pub(super) enum FileError {
    Damaged(String),
    InUse,
    NoRoom,
    Later(u64),
    /// This file stands where a folder is to be.
    NotAFolder(PathBuf),
    Io(io::Error),
}

impl<E: Into<redb::Error>> From<E> for FileError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<NoRoom>()) => {
                Self::NoRoom
            }
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::InUse,
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier write has failed")),
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl FileError {
    /// The same of a file, which is not damaged.
    pub(super) fn of(self, path: &Path, quota: &Quota) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::InUse => StoreError::InUse { path },
            Self::Later(format) => StoreError::Later { path, format },
            Self::NotAFolder(path) => StoreError::NotAFolder { path },
            Self::NoRoom => StoreError::TooLarge {
                dir: path.parent().map(PathBuf::from).unwrap_or_default(),
                max_bytes: quota.max_bytes(),
            },
            Self::Io(error) => StoreError::Io { path, error },
            Self::Damaged(why) => {
                StoreError::Io { path, error: io::Error::new(io::ErrorKind::InvalidData, why) }
            }
        }
    }
}

/// What is damaged in ways that the database does not foresee makes it panic.
fn guarded<T>(body: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    let told = |panic: Box<dyn std::any::Any + Send>| {
        let text =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        FileError::Damaged(text.unwrap_or("the database panicked").to_owned())
    };
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(told(panic)))
}

impl StateFile {
    /// Opens the file of a pipeline, or makes it, and gives what it has. All of it is checked.
    pub(super) fn open(
        path: &Path,
        pipeline: &str,
        quota: &Arc<Quota>,
    ) -> Result<(Self, Generation), FileError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Self::make(path, pipeline, quota);
            }
            file => file.map_err(FileError::Io)?,
        };
        // The database would take it for a new file.
        if file.metadata().map_err(FileError::Io)?.len() == 0 {
            return Err(FileError::Damaged("it is empty".into()));
        }
        let file = Self::over(file, quota)?;
        guarded(|| {
            if let Some(whose) = file.pipeline()?.filter(|whose| whose != pipeline) {
                return Err(FileError::Damaged(format!("it is the state of pipeline {whose}")));
            }
            let generation = file.read()?;
            Ok((file, generation))
        })
    }

    /// Makes a file under another name, which it has until it is whole: a crash leaves none that is not.
    fn make(path: &Path, pipeline: &str, quota: &Arc<Quota>) -> Result<(Self, Generation), FileError> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&unfinished).map_err(FileError::Io)?;
        // Another host may be making it just now; what a crash has left is worth nothing.
        match file.try_lock() {
            Ok(()) => file.set_len(0).map_err(FileError::Io)?,
            Err(TryLockError::WouldBlock) => return Err(FileError::InUse),
            Err(TryLockError::Error(error)) => return Err(FileError::Io(error)),
        }
        let made = Self::over(file, quota).and_then(|file| {
            file.begin(pipeline)?;
            fs::rename(&unfinished, path).map_err(FileError::Io)?;
            Ok((file, Generation::default()))
        });
        if made.is_err() {
            // The first failure is the one to tell.
            let bytes = fs::metadata(&unfinished).map_or(0, |metadata| metadata.len());
            if fs::remove_file(&unfinished).is_ok() {
                quota.forget(bytes);
            }
        }
        made
    }

    fn over(file: File, quota: &Arc<Quota>) -> Result<Self, FileError> {
        let number = number_of(&file.metadata().map_err(FileError::Io)?);
        guarded(|| {
            let backend = QuotaFile::new(FileBackend::new(file)?, quota.clone());
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(Self { database: builder.create_with_backend(backend)?, number })
        })
    }

    /// Writes whose file it is.
    fn begin(&self, pipeline: &str) -> Result<(), FileError> {
        guarded(|| {
            let mut transaction = self.database.begin_write()?;
            transaction.set_two_phase_commit(true);
            {
                let mut about = transaction.open_table(ABOUT)?;
                about.insert("format", &FORMAT.to_le_bytes()[..])?;
                about.insert("pipeline", pipeline.as_bytes())?;
                transaction.open_table(VALUES)?;
                transaction.open_table(SNAPSHOTS)?;
                transaction.open_table(INSTANCES)?;
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// The pipeline whose file it is, if it says so.
    fn pipeline(&self) -> Result<Option<String>, FileError> {
        match self.database.begin_read()?.open_table(ABOUT) {
            Ok(about) => {
                Ok(about.get("pipeline")?.map(|name| String::from_utf8_lossy(name.value()).into_owned()))
            }
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it is still the file at its path.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<AtItsPath> {
        match fs::metadata(path) {
            Ok(metadata) if number_of(&metadata) == self.number => Ok(AtItsPath::Itself),
            Ok(_) => Ok(AtItsPath::Another),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(AtItsPath::Nothing),
            Err(error) => Err(error),
        }
    }

    /// All that is in it.
    pub(super) fn read(&self) -> Result<Generation, FileError> {
        let transaction = self.database.begin_read()?;
        let about = match transaction.open_table(ABOUT) {
            Ok(about) => about,
            // Nothing was ever written.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Generation::default()),
            Err(error) => return Err(error.into()),
        };
        let format = about.get("format")?.map(|format| number(format.value())).transpose()?;
        if let Some(format) = format.filter(|format| *format != FORMAT) {
            return Err(FileError::Later(format));
        }
        let position = about.get("position")?.map(|position| read_position(position.value())).transpose()?;
        let mut transforms: BTreeMap<Arc<str>, TransformState> = BTreeMap::new();
        for entry in transaction.open_table(VALUES)?.iter()? {
            let (at, stored) = entry?;
            let ((transform, key), (expires_us, bytes)) = (at.value(), stored.value());
            let value = StateValue {
                bytes: Bytes::copy_from_slice(bytes),
                expires_us: (expires_us > 0).then_some(expires_us),
            };
            of(&mut transforms, transform).values.push((key.into(), Some(value)));
        }
        for entry in transaction.open_table(SNAPSHOTS)?.iter()? {
            let (at, snapshot) = entry?;
            let (transform, instance) = at.value();
            let snapshots = of(&mut transforms, transform).snapshots.get_or_insert_default();
            if instance >= MOST_INSTANCES {
                return Err(FileError::Damaged("there are more snapshots than instances".into()));
            }
            snapshots.resize(instance as usize, None);
            snapshots.push(Some(Bytes::copy_from_slice(snapshot.value())));
        }
        for entry in transaction.open_table(INSTANCES)?.iter()? {
            let (transform, instances) = entry?;
            if let Some(snapshots) =
                transforms.get_mut(transform.value()).and_then(|transform| transform.snapshots.as_mut())
            {
                let instances = instances.value().min(MOST_INSTANCES) as usize;
                snapshots.resize(instances.max(snapshots.len()), None);
            }
        }
        Ok(Generation { position, transforms: transforms.into_values().collect() })
    }

    /// When it was last written, in microseconds since the Unix epoch; `None` if it never was.
    pub(super) fn written_us(&self) -> Result<Option<u64>, FileError> {
        match self.database.begin_read()?.open_table(ABOUT) {
            Ok(about) => about.get("written_us")?.map(|written| number(written.value())).transpose(),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what has changed since the generation before, all of it or nothing.
    pub(super) fn write(&self, changes: &Generation, now_us: u64) -> Result<(), FileError> {
        guarded(|| {
            let mut transaction = self.database.begin_write()?;
            // What a crash leaves is then never taken for whole by its checksum alone.
            transaction.set_two_phase_commit(true);
            {
                let mut about = transaction.open_table(ABOUT)?;
                about.insert("format", &FORMAT.to_le_bytes()[..])?;
                about.insert("written_us", &now_us.to_le_bytes()[..])?;
                match &changes.position {
                    Some(position) => drop(about.insert("position", &write_position(position)[..])?),
                    None => drop(about.remove("position")?),
                }
                let mut values = transaction.open_table(VALUES)?;
                let mut snapshots = transaction.open_table(SNAPSHOTS)?;
                let mut instances = transaction.open_table(INSTANCES)?;
                for transform in &changes.transforms {
                    let name = &*transform.name;
                    for (key, value) in &transform.values {
                        match value {
                            Some(StateValue { bytes, expires_us }) => {
                                values.insert((name, &**key), (expires_us.unwrap_or(0), &bytes[..]))?;
                            }
                            None => drop(values.remove((name, &**key))?),
                        }
                    }
                    let Some(new) = &transform.snapshots else { continue };
                    snapshots.retain_in((name, 0)..=(name, u32::MAX), |_, _| false)?;
                    for (instance, snapshot) in (0..).zip(new) {
                        if let Some(snapshot) = snapshot {
                            snapshots.insert((name, instance), &snapshot[..])?;
                        }
                    }
                    match u32::try_from(new.len()) {
                        Ok(count @ 2..) => drop(instances.insert(name, count)?),
                        _ => drop(instances.remove(name)?),
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// Removes the state of one transform. The position stays: it is the pipeline's.
    pub(super) fn clear(&self, transform: &str) -> Result<(), FileError> {
        guarded(|| {
            let mut transaction = self.database.begin_write()?;
            transaction.set_two_phase_commit(true);
            transaction.open_table(VALUES)?.retain(|(of, _), _| of != transform)?;
            transaction.open_table(SNAPSHOTS)?.retain(|(of, _), _| of != transform)?;
            transaction.open_table(INSTANCES)?.remove(transform)?;
            transaction.commit()?;
            Ok(())
        })
    }
}

fn number_of(metadata: &Metadata) -> FileNumber {
    (metadata.dev(), metadata.ino())
}

fn of<'a>(transforms: &'a mut BTreeMap<Arc<str>, TransformState>, name: &str) -> &'a mut TransformState {
    let new = || TransformState { name: name.into(), ..TransformState::default() };
    if !transforms.contains_key(name) {
        transforms.insert(name.into(), new());
    }
    transforms.get_mut(name).expect("it was just put there")
}

fn number(bytes: &[u8]) -> Result<u64, FileError> {
    let bytes = bytes.try_into().map_err(|_| FileError::Damaged("a number has not eight bytes".into()))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Offset and length of the head, in eight bytes each, and the digest of the head.
fn write_position(position: &Position) -> Vec<u8> {
    let numbers = [position.offset, position.head_bytes].map(u64::to_le_bytes);
    [numbers.as_flattened(), &position.head].concat()
}

fn read_position(bytes: &[u8]) -> Result<Position, FileError> {
    let damaged = || FileError::Damaged("the position is none".into());
    let (offset, rest) = bytes.split_at_checked(8).ok_or_else(damaged)?;
    let (head_bytes, head) = rest.split_at_checked(8).ok_or_else(damaged)?;
    let head = head.try_into().map_err(|_| damaged())?;
    Ok(Position { offset: number(offset)?, head_bytes: number(head_bytes)?, head })
}
