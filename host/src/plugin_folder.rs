//! The plugin folder: which `.wasm` files are there, and what changes.
//!
//! One thread owns the folder. It looks when a notification rings its bell, and every two seconds
//! for what notifications missed; what is true is what a look finds, never what a notification
//! said. A file goes out, whole and read, as a [`Candidate`] once nobody has touched it for a
//! moment; compiling and swapping it is for whoever takes it. What came by another way and runs is written
//! here, and not told as a change. Nothing here runs a plugin, and no
//! file is read on a thread of the async runtime.

mod file;
mod stamp;
mod table;
mod watch;
mod write;

pub(crate) use file::{is_plugin_name, read_plugin};
pub(crate) use write::FolderWriter;

use crate::builtin;
use crate::config::{self, FilePath};
use bytes::Bytes;
use file::PLUGIN_SUFFIX;
use rustix::fs::{Access, access};
use stamp::OwnFiles;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use table::FileTable;
use tokio::sync::mpsc;
use watch::{News, Watch};
use write::Heard;

/// Between two looks at the folder that nothing asked for.
const SCAN: Duration = Duration::from_secs(2);

/// The longest that opening the folder waits for files that were written a moment ago.
const PATIENCE: Duration = Duration::from_millis(500);

/// A plugin's file, whole.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The plugin's name: the file's, without `.wasm`.
    pub name: String,
    /// The file; none of a plugin that is built into the host.
    pub path: Option<PathBuf>,
    /// What is in it.
    pub wasm: Bytes,
    /// `sha256:` and the digest of what is in it, in hexadecimal.
    pub version: String,
}

impl Candidate {
    /// The plugin of this name that is built into the host, if there is one. It stands back for a file of
    /// its name in the folder.
    pub(crate) fn built_in(name: &str) -> Option<Self> {
        Some(Self::sent(name, Bytes::from_static(builtin::plugin(name)?)))
    }

    /// A plugin that comes from elsewhere than the folder.
    pub(crate) fn sent(name: &str, wasm: Bytes) -> Self {
        Self { name: name.to_owned(), path: None, version: stamp::version(&wasm), wasm }
    }

    /// The file of this plugin, if it has this version now. Blocks.
    pub(crate) fn read(dir: &Path, name: &str, version: &str) -> io::Result<Option<Self>> {
        let path = dir.join(format!("{name}{PLUGIN_SUFFIX}"));
        let wasm = Bytes::from(read_plugin(&path)?);
        let is = stamp::version(&wasm);
        let found = Self { name: name.to_owned(), path: Some(path), version: is, wasm };
        Ok((found.version == version).then_some(found))
    }
}

/// What became of a file in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is new, or was written again, with other content or the same. It is found once, until the file
    /// changes again.
    Found(Candidate),
    /// It is gone. The version that runs goes on.
    Gone {
        /// The name of the plugin.
        name: String,
    },
    /// It cannot be a plugin as it is. Told once, until the file changes again.
    Refused {
        /// The name of the plugin.
        name: String,
        /// The path of the file.
        path: PathBuf,
        /// Why, and what helps: a text to follow "failed to read `path`: ".
        error: String,
    },
}

/// Why the folder cannot be used; completes "failed to ...".
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is missing, and cannot be made.
    #[error("create the plugin folder {path}: {source}")]
    Create {
        /// The path of the folder.
        path: FilePath,
        /// The error of the system.
        source: io::Error,
    },
    /// It cannot be listed.
    #[error("read the plugin folder {path}: {source}")]
    Read {
        /// The path of the folder.
        path: FilePath,
        /// The error of the system.
        source: io::Error,
    },
    /// The system gives no thread to watch it with.
    #[error("start a thread for the plugin folder {path}: {source}")]
    Thread {
        /// The path of the folder.
        path: FilePath,
        /// The error of the system.
        source: io::Error,
    },
}

/// The plugin folder.
///
/// Dropping it ends its thread, after the file that is being read.
#[derive(Debug)]
pub(crate) struct Folder {
    path: FilePath,
    max_size_bytes: u64,
    own: Arc<OwnFiles>,
    /// Of each file that was told of and is there.
    heard: BTreeMap<String, Heard>,
    /// None: nothing is watched.
    watched: Option<Watched>,
}

/// The folder's thread, seen from outside.
#[derive(Debug)]
struct Watched {
    changes: mpsc::Receiver<Change>,
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

/// Asks the folder's thread for a look. Rings that come before the look are one.
#[derive(Clone, Debug)]
struct Bell(SyncSender<()>);

impl Bell {
    fn new() -> (Self, Receiver<()>) {
        let (sender, rings) = sync_channel(1);
        (Self(sender), rings)
    }

    fn ring(&self) {
        // A full channel is a look already asked for; a closed one, a thread that has ended.
        let _ = self.0.try_send(());
    }
}

/// How notifications are had: replaced in tests, where there are to be none.
type Attach = fn(&Path, Arc<News>, Bell) -> notify::Result<Watch>;

impl Folder {
    /// Reads what is in the folder, which is created if it is missing, and watches it from then on
    /// if the settings say so.
    ///
    /// Blocks: for as long as reading takes, and a moment longer where a file was written within
    /// the last 100 ms.
    ///
    /// # Errors
    /// If the folder cannot be created or listed. What is wrong with one file is a [`Change`].
    pub(crate) fn open(settings: &config::Plugins) -> Result<(Self, Vec<Change>), FolderError> {
        Self::open_with(settings, Watch::attach)
    }

    /// Reads what is in the folder, and neither makes nor watches it: an empty one, if it is missing.
    ///
    /// Blocks as [`Folder::open`] does.
    ///
    /// # Errors
    /// If the folder is there and cannot be listed, or is missing and could not be made.
    pub(crate) fn find(settings: &config::Plugins) -> Result<Vec<Change>, FolderError> {
        let path = &settings.dir;
        could_be_made(path).map_err(|source| FolderError::Create { path: path.clone(), source })?;
        let (bell, rings) = Bell::new();
        let mut keeper = Keeper::new(settings, None, bell);
        let mut found = keeper.first_look(&rings)?;
        if !settings.watch {
            keeper.table.refuse_unsettled(&mut |change| found.push(change));
        }
        Ok(found)
    }

    fn open_with(settings: &config::Plugins, attach: Attach) -> Result<(Self, Vec<Change>), FolderError> {
        let path = &settings.dir;
        fs::create_dir_all(&**path).map_err(|source| {
            // What is there and no folder is there "already".
            let source = could_be_made(path).err().unwrap_or(source);
            FolderError::Create { path: path.clone(), source }
        })?;

        let (bell, rings) = Bell::new();
        let mut keeper = Keeper::new(settings, settings.watch.then_some(attach), bell.clone());
        let own = keeper.table.own().clone();
        let mut found = keeper.first_look(&rings)?;
        if !settings.watch {
            keeper.table.refuse_unsettled(&mut |change| found.push(change));
            return Ok((Self::of(settings, own, None, &found), found));
        }

        let (sender, changes) = mpsc::channel(1);
        let thread = thread::Builder::new()
            .name("plugin-folder".into())
            .spawn(move || keeper.run(&rings, &sender))
            .map_err(|source| FolderError::Thread { path: path.clone(), source })?;
        let watched = Some(Watched { changes, bell, thread: Some(thread) });
        Ok((Self::of(settings, own, watched, &found), found))
    }

    fn of(
        settings: &config::Plugins,
        own: Arc<OwnFiles>,
        watched: Option<Watched>,
        found: &[Change],
    ) -> Self {
        let (path, max_size_bytes) = (settings.dir.clone(), settings.max_size_bytes);
        let mut this = Self { path, max_size_bytes, own, heard: BTreeMap::new(), watched };
        found.iter().for_each(|change| this.hear(change));
        this
    }

    /// Takes note of a change that is told.
    fn hear(&mut self, change: &Change) {
        let (name, heard) = match change {
            Change::Found(Candidate { name, version, .. }) => (name, Heard::Version(version.clone())),
            Change::Refused { name, .. } => (name, Heard::Refused),
            Change::Gone { name } => {
                self.heard.remove(name);
                return;
            }
        };
        self.heard.insert(name.clone(), heard);
    }

    /// Writes the file of a plugin, unless it changes between now and then.
    pub(crate) fn writer(&self, name: &str) -> FolderWriter {
        FolderWriter {
            dir: self.path.clone(),
            name: name.to_owned(),
            heard: self.heard.get(name).cloned(),
            is_watched: self.is_watched(),
            max_size_bytes: self.max_size_bytes,
            own: self.own.clone(),
        }
    }

    /// Takes note that a writer has written a file: that is not told as a change.
    pub(crate) fn wrote(&mut self, name: &str, version: &str) {
        self.heard.insert(name.to_owned(), Heard::Version(version.to_owned()));
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &FilePath {
        &self.path
    }

    /// Whether changes are told.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// The next change; never, where the folder is not watched.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing is lost: the change comes with the next call.
    pub(crate) async fn next(&mut self) -> Change {
        if let Some(watched) = &mut self.watched {
            if let Some(change) = watched.changes.recv().await {
                self.hear(&change);
                return change;
            }
            tracing::error!("the thread of the plugin folder has ended: changes go unseen");
            self.watched = None;
        }
        std::future::pending().await
    }
}

/// Whether a folder is there, or could be made.
fn could_be_made(path: &Path) -> io::Result<()> {
    for above in path.ancestors() {
        let here = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs::metadata(here) {
            Ok(found) if !found.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
            Ok(_) if above == path => return Ok(()),
            Ok(_) => return Ok(access(here, Access::WRITE_OK | Access::EXEC_OK)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.changes.close();
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            // Its panic, if it had one, was reported on its own thread.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("wasm", &format_args!("{} bytes", self.wasm.len()))
            .field("version", &self.version)
            .finish()
    }
}

/// What the folder's thread owns.
struct Keeper {
    path: FilePath,
    table: FileTable,
    news: Arc<News>,
    bell: Bell,
    /// None: no notifications are wanted.
    attach: Option<Attach>,
    watch: Option<Watch>,
    /// The folder that `watch` is for.
    identity: Option<FolderIdentity>,
    /// That notifications cannot be had was said.
    warned: bool,
}

/// Tells a folder from another one that takes its place: device, inode, and the time of creation,
/// since inode numbers are used again.
type FolderIdentity = (u64, u64, Option<SystemTime>);

impl Keeper {
    fn new(settings: &config::Plugins, attach: Option<Attach>, bell: Bell) -> Self {
        let path = settings.dir.clone();
        Self {
            table: FileTable::new(&path, settings.max_size_bytes),
            path,
            news: Arc::default(),
            bell,
            attach,
            watch: None,
            identity: None,
            warned: false,
        }
    }

    /// Finds what is there, and waits a moment for files that were written just now.
    fn first_look(&mut self, rings: &Receiver<()>) -> Result<Vec<Change>, FolderError> {
        let mut found = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let due = self
                .look(&mut |change| found.push(change))
                .map_err(|source| FolderError::Read { path: self.path.clone(), source })?;
            match due {
                Some(due) if due <= deadline => {
                    // A ring, or the time at which a file is due: in both cases, another look.
                    let _ = rings.recv_timeout(due.saturating_duration_since(Instant::now()));
                }
                _ => return Ok(found),
            }
        }
    }

    fn run(mut self, rings: &Receiver<()>, changes: &mpsc::Sender<Change>) {
        let mut complained = false;
        while !changes.is_closed() {
            let look = self.look(&mut |change| {
                // Nobody takes it any more: the loop ends.
                let _ = changes.blocking_send(change);
            });
            if let Err(error) = &look
                && !complained
            {
                tracing::warn!(path = %self.path, %error, "the plugin folder cannot be read: what runs goes on");
            }
            complained = look.is_err();
            let due = look.ok().flatten();
            let wait = due.map_or(SCAN, |due| due.saturating_duration_since(Instant::now()).min(SCAN));
            let _ = rings.recv_timeout(wait);
        }
    }

    /// Looks at the folder once; says when the next look is due, if one is before the next scan.
    fn look(&mut self, emit: &mut dyn FnMut(Change)) -> io::Result<Option<Instant>> {
        // First the notifications, then the look: what changes in between is noticed twice, not
        // never.
        self.rewatch();
        self.table.look(&self.news, Instant::now(), emit)
    }

    /// Sees to it that the notifications are those of the folder that is there now.
    fn rewatch(&mut self) {
        let Some(attach) = self.attach else { return };
        let dir = self.table.dir();
        let identity = fs::metadata(dir).ok().map(|is| (is.dev(), is.ino(), is.created().ok()));
        if identity == self.identity {
            return;
        }
        // What is still told of the folder before must not be taken for this one's.
        self.news = Arc::default();
        self.watch = None;
        self.identity = identity;
        if identity.is_none() {
            return;
        }
        match attach(dir, self.news.clone(), self.bell.clone()) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) if !self.warned => {
                self.warned = true;
                tracing::warn!(
                    path = %dir.display(), %error,
                    "no notifications of changes in the plugin folder: it is scanned every 2 s instead"
                );
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
