//! What is known of each file of the plugin folder, and when it is whole.
//!
//! A file is read once it has been the same for a while: a moment if the system told that it was
//! closed, longer if nothing was told, much longer if it was told that somebody is writing. What
//! was read counts only if the file was the same before and after. Time is given from outside.

use super::file::{PluginFile, is_plugin};
use super::stamp::{OwnFiles, Stamp, version};
use super::watch::{News, Told};
use super::{Candidate, Change, SCAN};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Why a file is not read yet, and with it for how long it must be the same first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SettleDelay {
    /// It was closed. Another writer may follow at once, and what is told of that one comes a
    /// little after the fact.
    Closed,
    /// Nothing was told of it.
    Quiet,
    /// A writer has it open, who may never close it.
    Writing,
    /// It could not be read, for a reason that may go away.
    Retry,
}

impl SettleDelay {
    const fn time(self) -> Duration {
        match self {
            Self::Closed => Duration::from_millis(10),
            Self::Quiet => Duration::from_millis(100),
            Self::Writing => Duration::from_secs(2),
            Self::Retry => SCAN,
        }
    }
}

impl From<Told> for SettleDelay {
    fn from(told: Told) -> Self {
        match told {
            Told::Whole => Self::Closed,
            Told::Writing => Self::Writing,
        }
    }
}

/// The files of a folder.
pub(super) struct FileTable {
    dir: PathBuf,
    max_size_bytes: u64,
    own: Arc<OwnFiles>,
    rows: BTreeMap<OsString, FileRow>,
    /// Whether the folder was looked at before.
    looked: bool,
}

/// A file of the folder, and what is known of it.
struct FileRow {
    seen: Seen,
    /// Since when it is as seen, and nothing was told of it.
    since: Instant,
    wait: SettleDelay,
    /// Whether it was dealt with as it is.
    settled: bool,
    /// The version that was found last, and the file that it was found in: the same content in a file that
    /// was written again is found again, for whoever did not take it.
    found: Option<(String, Stamp)>,
    /// Why it was refused since.
    refused: Option<String>,
}

/// What a look at one file shows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Absent,
    /// No regular file with a good name, and why.
    Unfit(String),
    File(Stamp),
}

/// What reading a file came to.
enum FileContent {
    Whole(Vec<u8>),
    /// It changed in the meantime.
    Changed,
    Failed(io::Error),
}

impl FileTable {
    pub(super) fn new(dir: &Path, max_size_bytes: u64) -> Self {
        let own = Arc::default();
        Self { dir: dir.to_owned(), max_size_bytes, own, rows: BTreeMap::new(), looked: false }
    }

    /// The files that are written by us: they are no news.
    pub(super) fn own(&self) -> &Arc<OwnFiles> {
        &self.own
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Looks at all files, and emits what has changed for good. Says when a file is due that is
    /// not settled yet.
    ///
    /// # Errors
    /// If the folder is there and cannot be listed: then nothing is known, and nothing changes.
    pub(super) fn look(
        &mut self,
        news: &News,
        now: Instant,
        emit: &mut dyn FnMut(Change),
    ) -> io::Result<Option<Instant>> {
        self.observe(news, now)?;
        // Everything has been observed at `now`; emitting may take its time.
        for (file, row) in &mut self.rows {
            if !row.settled && now.saturating_duration_since(row.since) >= row.wait.time() {
                row.settled = true;
                row.settle(
                    &PluginFile { dir: &self.dir, file, max_size_bytes: self.max_size_bytes, own: &self.own },
                    news,
                    now,
                    emit,
                );
            }
        }
        self.rows.retain(|_, row| !(row.settled && row.seen == Seen::Absent));
        Ok(self.rows.values().filter(|row| !row.settled).map(|row| row.since + row.wait.time()).min())
    }

    /// Refuses what is not settled, because no further look will follow.
    pub(super) fn refuse_unsettled(&mut self, emit: &mut dyn FnMut(Change)) {
        for (file, row) in &mut self.rows {
            if !row.settled && row.refused.is_none() && row.seen != Seen::Absent {
                let place =
                    PluginFile { dir: &self.dir, file, max_size_bytes: self.max_size_bytes, own: &self.own };
                let error = "it is still being written, and the folder is not watched: start again once it \
                             is whole, or set `watch = true` under [plugins]";
                row.refuse(&place, error.into(), emit);
            }
        }
    }

    fn observe(&mut self, news: &News, now: Instant) -> io::Result<()> {
        let mut told = news.take();
        let mut seen: BTreeMap<OsString, Seen> =
            self.rows.keys().map(|file| (file.clone(), Seen::Absent)).collect();
        for file in list(&self.dir)? {
            let is = Seen::at(&self.dir, &file);
            seen.insert(file, is);
        }
        for (file, seen) in seen {
            let told = told.remove(&file);
            match self.rows.get_mut(&file) {
                Some(row) => row.observe(seen, told, now),
                None if seen == Seen::Absent => {}
                None => {
                    let mut row = FileRow::new(seen, told, now);
                    if !self.looked {
                        row.since =
                            now.checked_sub(row.seen.age().min(SettleDelay::Quiet.time())).unwrap_or(now);
                    }
                    self.rows.insert(file, row);
                }
            }
        }
        self.looked = true;
        Ok(())
    }
}

impl FileRow {
    fn new(seen: Seen, told: Option<Told>, now: Instant) -> Self {
        let wait = told.map_or(SettleDelay::Quiet, SettleDelay::from);
        Self { seen, since: now, wait, settled: false, found: None, refused: None }
    }

    fn observe(&mut self, seen: Seen, told: Option<Told>, now: Instant) {
        if told.is_none() && seen == self.seen {
            return;
        }
        self.wait = match told {
            Some(told) => told.into(),
            // Until it is told of closing.
            None if self.wait == SettleDelay::Writing && !self.settled => SettleDelay::Writing,
            None => SettleDelay::Quiet,
        };
        self.seen = seen;
        self.since = now;
        self.settled = false;
    }

    fn settle(&mut self, place: &PluginFile<'_>, news: &News, now: Instant, emit: &mut dyn FnMut(Change)) {
        match &self.seen {
            Seen::Absent => {
                if self.found.is_some() || self.refused.is_some() {
                    emit(Change::Gone { name: place.name() });
                }
            }
            Seen::Unfit(error) => self.refuse(place, error.clone(), emit),
            // Not yet: a file that is made before it is filled.
            Seen::File(stamp) if stamp.size_bytes == 0 => {}
            Seen::File(stamp) if stamp.size_bytes > place.max_size_bytes => {
                let error = format!(
                    "it has {} bytes, and `max_size` is {}: build it for release and without debug \
                     information, or raise `max_size` under [plugins]",
                    stamp.size_bytes, place.max_size_bytes,
                );
                self.refuse(place, error, emit);
            }
            Seen::File(stamp) => match read(&place.path(), stamp) {
                // What was told meanwhile would say that a writer came.
                FileContent::Whole(wasm) if !news.mentions(place.file) => {
                    let stamp = *stamp;
                    self.offer(place, stamp, wasm, emit);
                }
                FileContent::Whole(_) | FileContent::Changed => self.again(now),
                FileContent::Failed(error) => {
                    // The reason may go away without a change of the file.
                    self.wait = SettleDelay::Retry;
                    self.again(now);
                    self.refuse(place, format!("{error}: the host must be able to read it"), emit);
                }
            },
        }
    }

    /// Another look is needed, when it has been the same for as long as before.
    fn again(&mut self, now: Instant) {
        self.settled = false;
        self.since = now;
    }

    fn offer(&mut self, place: &PluginFile<'_>, stamp: Stamp, wasm: Vec<u8>, emit: &mut dyn FnMut(Change)) {
        let found = (version(&wasm), stamp);
        self.refused = None;
        if place.own.have(&place.path(), place.file, &stamp) {
            // It runs already, or what does was written over it meanwhile.
            self.found = Some(found);
            return;
        }
        if self.found.as_ref() != Some(&found) {
            let version = found.0.clone();
            self.found = Some(found);
            emit(Change::Found(Candidate {
                name: place.name(),
                path: Some(place.path()),
                wasm: wasm.into(),
                version,
            }));
        }
    }

    fn refuse(&mut self, place: &PluginFile<'_>, error: String, emit: &mut dyn FnMut(Change)) {
        if self.refused.as_ref() != Some(&error) {
            self.refused = Some(error.clone());
            emit(Change::Refused { name: place.name(), path: place.path(), error });
        }
    }
}

impl Seen {
    /// Follows links.
    fn at(dir: &Path, file: &OsStr) -> Self {
        let path = dir.join(file);
        if file.to_str().is_none() {
            return Self::Unfit("its name is not UTF-8, so that no pipeline can name it: rename it".into());
        }
        match fs::metadata(&path) {
            Ok(is) if is.is_file() => Self::File(Stamp::of(&is)),
            Ok(_) => Self::Unfit("it is not a file: put the component itself here, or a link to it".into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(&path) {
                Ok(target) => {
                    Self::Unfit(format!("it is a link to {}, which is not there", target.display()))
                }
                Err(_) => Self::Absent,
            },
            Err(error) => Self::Unfit(format!("{error}: the host must be able to read it")),
        }
    }

    /// The time since the last change, by the clock that stamps files; none if that is ahead.
    fn age(&self) -> Duration {
        let Self::File(Stamp { changed: (seconds, nanoseconds), .. }) = self else { return Duration::MAX };
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(*seconds), u32::try_from(*nanoseconds)) else {
            return Duration::MAX;
        };
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
        changed.and_then(|changed| changed.elapsed().ok()).unwrap_or_default()
    }
}

/// The plugin files of a folder, in no order. A folder that is not there has none.
fn list(dir: &Path) -> io::Result<Vec<OsString>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    names.filter(|name| name.as_deref().map_or(true, is_plugin)).collect()
}

/// Reads a file, if it is the one with this stamp, before and after.
fn read(path: &Path, stamp: &Stamp) -> FileContent {
    let attempt = || -> io::Result<Option<Vec<u8>>> {
        let mut file = File::open(path)?;
        let same = |file: &File| file.metadata().map(|is| Stamp::of(&is) == *stamp);
        if !same(&file)? {
            return Ok(None);
        }
        let capacity = usize::try_from(stamp.size_bytes).unwrap_or_default();
        let mut wasm = Vec::with_capacity(capacity);
        // One byte more than there should be, so that growth is seen and bounded.
        file.by_ref().take(stamp.size_bytes + 1).read_to_end(&mut wasm)?;
        Ok((wasm.len() == capacity && same(&file)?).then_some(wasm))
    };
    match attempt() {
        Ok(Some(wasm)) => FileContent::Whole(wasm),
        Ok(None) => FileContent::Changed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => FileContent::Changed,
        Err(error) => FileContent::Failed(error),
    }
}
