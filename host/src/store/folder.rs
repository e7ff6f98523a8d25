//! The folder of `[state]`: a file for each pipeline, by a name that any file system takes.

use super::error::StoreError;
use super::file::{AtItsPath, FileError, StateFile};
use super::quota::Quota;
use crate::generation::Generation;
use crate::message::metadata::now_us;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What state files end in; what does not is somebody else's.
const ENDING: &str = ".redb";
/// What stands for itself in a file's name. Capitals do not: some file systems take them for small letters.
const ENCODED: &AsciiSet = &without_capitals(NON_ALPHANUMERIC.remove(b'-').remove(b'_'));

const fn without_capitals(mut set: AsciiSet) -> AsciiSet {
    let mut letter = b'A';
    while letter <= b'Z' {
        set = set.add(letter);
        letter += 1;
    }
    set
}

/// The files of all pipelines, each opened when it is asked for. Every call waits for the disk.
#[derive(Debug)]
pub struct StoreFolder {
    dir: PathBuf,
    max_bytes: u64,
    /// What all files take: known once the folder was looked at.
    quota: Option<Arc<Quota>>,
    /// Files that are written.
    open: BTreeMap<String, StateFile>,
}

/// What is kept of one pipeline.
#[derive(Debug)]
pub struct Listed {
    /// The name of the pipeline.
    pub pipeline: String,
    /// When its newest generation was written, in microseconds since the Unix epoch.
    pub written_us: Option<u64>,
    /// What its file takes.
    pub file_bytes: u64,
    /// What is kept of each transform, or why that cannot be said.
    pub transforms: Result<Vec<ListedTransform>, StoreError>,
}

/// What is kept of one transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTransform {
    /// The label of the stage.
    pub transform: String,
    /// The keys that its plugin has set.
    pub keys: usize,
    /// What those and their values take.
    pub state_bytes: usize,
    /// What the snapshots of its instances take.
    pub snapshot_bytes: usize,
}

impl StoreFolder {
    /// The folder at this path, which is made when something is kept in it.
    pub fn new(dir: &Path, max_bytes: u64) -> Self {
        Self { dir: dir.to_owned(), max_bytes, quota: None, open: BTreeMap::new() }
    }

    /// The newest generation of a pipeline, an empty one if there is none. Its file is open from then on, and
    /// nobody else may write it.
    ///
    /// # Errors
    /// The file cannot be opened. If it is damaged, it has another name afterwards.
    pub fn load(&mut self, pipeline: &str) -> Result<Generation, StoreError> {
        self.keep_in_place(pipeline)?;
        if let Some(file) = self.open.get(pipeline) {
            let read = file.read();
            return read.map_err(|error| self.broken(pipeline, error));
        }
        let is_new = !self.path(pipeline).exists();
        let (file, generation) = self.open(pipeline).map_err(|error| self.broken(pipeline, error))?;
        self.open.insert(pipeline.to_owned(), file);
        if is_new {
            // Or the machine may forget that there is such a file.
            let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
            synced.map_err(StoreError::io(&self.dir))?;
        }
        Ok(generation)
    }

    /// Writes what has changed of a pipeline since its newest generation, which is the new one then.
    ///
    /// # Errors
    /// It is not written, and the generation before is the newest one. If the file is damaged, it has another
    /// name afterwards.
    pub fn write(&mut self, pipeline: &str, changes: &Generation) -> Result<(), StoreError> {
        self.keep_in_place(pipeline)?;
        if !self.open.contains_key(pipeline) {
            self.load(pipeline)?;
        }
        let file = self.open.get(pipeline).expect("it was just opened");
        let written = file.write(changes, now_us());
        written.map_err(|error| self.broken(pipeline, error))
    }

    /// The newest generation of a pipeline; `None` if nothing is kept of it.
    ///
    /// # Errors
    /// It cannot be read. Its file stays where it is.
    pub fn read(&mut self, pipeline: &str) -> Result<Option<Generation>, StoreError> {
        let path = self.path(pipeline);
        let generation = match self.open.get(pipeline) {
            Some(file) => file.read(),
            None if !path.exists() => return Ok(None),
            None => self.open(pipeline).map(|(_, generation)| generation),
        };
        generation.map(Some).map_err(|error| error.of(&path, &self.quota()))
    }

    /// What is kept of each pipeline, by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&mut self) -> Result<Vec<Listed>, StoreError> {
        let mut all = Vec::new();
        for (pipeline, path, file_bytes) in self.files()? {
            let (written_us, transforms) = match self.look(&pipeline) {
                Ok((written_us, generation)) => (written_us, Ok(ListedTransform::all_of(&generation))),
                Err(error) => (None, Err(error.of(&path, &self.quota()))),
            };
            all.push(Listed { pipeline, written_us, file_bytes, transforms });
        }
        all.sort_by(|a, b| a.pipeline.cmp(&b.pipeline));
        Ok(all)
    }

    /// Forgets what is kept of a pipeline, or of one of its transforms. Says whether there was anything.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn clear(&mut self, pipeline: &str, transform: Option<&str>) -> Result<bool, StoreError> {
        let path = self.path(pipeline);
        if !path.exists() {
            return Ok(false);
        }
        if let Some(transform) = transform {
            let generation = self.load(pipeline)?;
            if !generation.transforms.iter().any(|known| *known.name == *transform && !known.is_empty()) {
                return Ok(false);
            }
            let cleared = self.open.get(pipeline).expect("it was just opened").clear(transform);
            return cleared.map(|()| true).map_err(|error| self.broken(pipeline, error));
        }
        // Another host may have it open, which must not lose it unawares. What is damaged goes too.
        match self.open(pipeline) {
            Err(error @ FileError::InUse) if !self.open.contains_key(pipeline) => {
                return Err(error.of(&path, &self.quota()));
            }
            _ => {}
        }
        self.open.remove(pipeline);
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        fs::remove_file(&path).map_err(StoreError::io(&path))?;
        self.quota().forget(bytes);
        Ok(true)
    }

    fn path(&self, pipeline: &str) -> PathBuf {
        self.dir.join(format!("{}{ENDING}", utf8_percent_encode(pipeline, ENCODED)))
    }

    /// A file that was removed while it is open is made anew: what is written to it reaches nobody any more, and
    /// keeps no other host away.
    fn keep_in_place(&mut self, pipeline: &str) -> Result<(), StoreError> {
        let Some(file) = self.open.get(pipeline) else { return Ok(()) };
        let path = self.path(pipeline);
        match file.is_at(&path).map_err(StoreError::io(&path))? {
            AtItsPath::Itself => Ok(()),
            AtItsPath::Another => {
                self.open.remove(pipeline);
                Err(StoreError::Replaced { path })
            }
            AtItsPath::Nothing => {
                let kept = file.read();
                let made = kept.and_then(|kept| {
                    let (file, _) = self.open(pipeline)?;
                    file.write(&kept, now_us())?;
                    Ok(file)
                });
                let made = made.map_err(|error| error.of(&path, &self.quota()))?;
                self.open.insert(pipeline.to_owned(), made);
                // In the place of one that took about as much.
                let bytes = path.metadata().map_or(0, |metadata| metadata.len());
                self.quota().forget(bytes);
                tracing::warn!(pipeline, path = %path.display(), "state was removed while it was in use; it is written anew");
                Ok(())
            }
        }
    }

    fn look(&mut self, pipeline: &str) -> Result<(Option<u64>, Generation), FileError> {
        if let Some(file) = self.open.get(pipeline) {
            return Ok((file.written_us()?, file.read()?));
        }
        let (file, generation) = self.open(pipeline)?;
        Ok((file.written_us()?, generation))
    }

    fn open(&mut self, pipeline: &str) -> Result<(StateFile, Generation), FileError> {
        let quota = self.quota();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| self.file_in_the_way().map_or(FileError::Io(error), FileError::NotAFolder))?;
        StateFile::open(&self.path(pipeline), pipeline, &quota)
    }

    /// A file cannot be used as it is: it is closed, and out of the way if it is damaged.
    fn broken(&mut self, pipeline: &str, error: FileError) -> StoreError {
        self.open.remove(pipeline);
        let path = self.path(pipeline);
        let FileError::Damaged(why) = error else { return error.of(&path, &self.quota()) };
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        let name = |number: u32| match number {
            1 => PathBuf::from(format!("{}.damaged", path.display())),
            number => PathBuf::from(format!("{}.{number}.damaged", path.display())),
        };
        let kept_as = (1..).map(name).find(|name| !name.exists()).unwrap_or_else(|| name(1));
        if let Err(error) = fs::rename(&path, &kept_as) {
            return StoreError::io(&path)(error);
        }
        self.quota().forget(bytes);
        StoreError::Damaged { pipeline: pipeline.to_owned(), why, kept_as }
    }

    fn quota(&mut self) -> Arc<Quota> {
        if let Some(quota) = &self.quota {
            return quota.clone();
        }
        let used_bytes = self.files().unwrap_or_default().iter().map(|(_, _, bytes)| bytes).sum();
        self.quota.insert(Arc::new(Quota::new(self.max_bytes, used_bytes))).clone()
    }

    /// What stands in the place of the folder, or of one that it is in, and is none.
    fn file_in_the_way(&self) -> Option<PathBuf> {
        let is_file = |path: &&Path| path.metadata().is_ok_and(|metadata| !metadata.is_dir());
        self.dir.ancestors().find(is_file).map(Path::to_owned)
    }

    /// The pipelines that have a file, with its path and size.
    fn files(&self) -> Result<Vec<(String, PathBuf, u64)>, StoreError> {
        let failed = StoreError::io(&self.dir);
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                let in_the_way = self.file_in_the_way().map(|path| StoreError::NotAFolder { path });
                return Err(in_the_way.unwrap_or_else(|| failed(error)));
            }
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(&failed)?;
            let name = entry.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(ENDING)) else { continue };
            let Ok(pipeline) = percent_decode_str(stem).decode_utf8() else { continue };
            let bytes = entry.metadata().map_err(&failed)?.len();
            files.push((pipeline.into_owned(), entry.path(), bytes));
        }
        Ok(files)
    }
}

impl ListedTransform {
    /// What a generation has of each transform.
    pub fn all_of(generation: &Generation) -> Vec<Self> {
        let transforms = generation.transforms.iter().map(|transform| Self {
            transform: transform.name.to_string(),
            keys: transform.values.len(),
            state_bytes: transform
                .values
                .iter()
                .map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.bytes.len()))
                .sum(),
            snapshot_bytes: transform
                .snapshots
                .iter()
                .flatten()
                .flatten()
                .map(|snapshot| snapshot.len())
                .sum(),
        });
        transforms.collect()
    }
}
