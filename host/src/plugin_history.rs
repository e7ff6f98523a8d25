//! The contents of plugins that ran, kept beside the compiled code so that one can be had back.
//!
//! Of each plugin the newest few are kept, all together in a bounded size. A file's name says what it is: when the
//! content began to run, its digest, and whether its probation put it away again; so there is no list beside the files
//! that could disagree with them. What is damaged is told, by the log and to whoever looks, and costs nothing else.

use crate::config::FilePath;
use crate::foreign_text;
use crate::plugin_folder::Candidate;
use crate::verdict::now_ms;
use bytes::Bytes;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Contents that are kept of each plugin.
const MOST_OF_A_PLUGIN: usize = 5;
/// What all contents may take together. The ones that run are kept beyond it.
const MOST_BYTES: u64 = 1 << 30;
/// The folder in that of the compiled code.
const FOLDER: &str = "versions";
/// How the names of contents end, and those of contents that a probation put away.
const KEPT: &str = ".wasm";
const PUT_AWAY: &str = ".away.wasm";
/// What is being written.
const UNFINISHED: &str = ".unfinished";

/// The contents of plugins that ran. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct PluginHistory {
    parts: Arc<HistoryParts>,
}

#[derive(Debug)]
struct HistoryParts {
    folder: PathBuf,
    most_bytes: u64,
    /// Of each plugin, the newest first.
    table: Mutex<BTreeMap<String, Vec<KeptVersion>>>,
    /// Held by whoever changes files.
    disk: Mutex<()>,
}

/// A content that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptVersion {
    /// `sha256:` and the digest of the content.
    pub(crate) version: String,
    /// When it began to run last, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// The size of the content.
    pub(crate) bytes: u64,
    /// It failed in its probation, and the version before was put back.
    pub(crate) is_put_away: bool,
    /// Why it cannot be had back, if so.
    pub(crate) damage: Option<String>,
}

/// Why a version cannot be had back; a sentence about the plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HistoryError {
    /// Nothing is kept of the plugin, or nothing like that.
    #[error("nothing like the version {version} is kept of plugin \"{plugin}\"{}", list(kept))]
    Unknown {
        /// The name of the plugin.
        plugin: String,
        /// What was asked for.
        version: String,
        /// What is kept, the newest first.
        kept: Vec<String>,
    },
    /// More than one version begins so.
    #[error("more than one version of plugin \"{plugin}\" begins with {version}{}", list(kept))]
    Ambiguous {
        /// The name of the plugin.
        plugin: String,
        /// What was asked for.
        version: String,
        /// Those that begin so.
        kept: Vec<String>,
    },
    /// No other version ran before, or is kept.
    #[error("no other version of plugin \"{0}\" that ran before is kept")]
    NothingBefore(String),
    /// It is the version that runs.
    #[error("plugin \"{plugin}\" runs the version {version} already")]
    Current {
        /// The name of the plugin.
        plugin: String,
        /// The version.
        version: String,
    },
    /// Its file is not what was written.
    #[error("the kept version {version} of plugin \"{plugin}\" cannot be had back: {reason}")]
    Damaged {
        /// The name of the plugin.
        plugin: String,
        /// The version.
        version: String,
        /// What is wrong with the file.
        reason: String,
    },
}

fn list(kept: &[String]) -> String {
    if kept.is_empty() { String::new() } else { format!(" (there is {})", kept.join(", ")) }
}

impl PluginHistory {
    /// Reads what is kept of the plugins of a folder: beside this cache, which other hosts may use as well. What cannot
    /// be read is told and left out. Blocks.
    pub(crate) fn open(cache: &FilePath, plugins: &FilePath) -> Self {
        let plugins = fs::canonicalize(&**plugins).unwrap_or_else(|_| plugins.to_path_buf());
        let of = digits(&Sha256::digest(plugins.as_os_str().as_encoded_bytes()));
        Self::of(cache.join(FOLDER).join(&of[..16]), MOST_BYTES)
    }

    fn of(folder: PathBuf, most_bytes: u64) -> Self {
        let mut table = BTreeMap::new();
        match read_names(&folder) {
            Ok(plugins) => {
                for plugin in plugins {
                    match versions_in(&folder.join(&plugin)) {
                        Ok(versions) if versions.is_empty() => {}
                        Ok(versions) => _ = table.insert(plugin, versions),
                        Err(error) => {
                            tracing::warn!(plugin, %error, "earlier versions of a plugin cannot be read");
                        }
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "earlier versions of plugins cannot be read"),
        }
        let (table, disk) = (Mutex::new(table), Mutex::default());
        Self { parts: Arc::new(HistoryParts { folder, most_bytes, table, disk }) }
    }

    /// The plugins of which something is kept.
    pub(crate) fn plugins(&self) -> Vec<String> {
        self.table().keys().cloned().collect()
    }

    /// What is kept of a plugin, the newest first.
    pub(crate) fn versions(&self, plugin: &str) -> Vec<KeptVersion> {
        self.table().get(plugin).cloned().unwrap_or_default()
    }

    /// Whether a version is known to be the one that ran last, and is whole as far as is known.
    pub(crate) fn is_newest(&self, plugin: &str, version: &str) -> bool {
        let is_it = |newest: &KeptVersion| {
            newest.version == version && !newest.is_put_away && newest.damage.is_none()
        };
        self.table().get(plugin).and_then(|kept| kept.first()).is_some_and(is_it)
    }

    /// The version to go back to: the one that is asked for by the beginning of its digest, or the newest that ran
    /// before `current` and was not put away.
    ///
    /// # Errors
    /// There is none, more than one, or it runs.
    pub(crate) fn earlier(
        &self,
        plugin: &str,
        current: Option<&str>,
        asked: Option<&str>,
    ) -> Result<KeptVersion, HistoryError> {
        let kept = self.versions(plugin);
        let names = |kept: &[&KeptVersion]| kept.iter().map(|each| each.version.clone()).collect();
        let plugin = plugin.to_owned();
        let Some(asked) = asked else {
            let others = kept.into_iter().filter(|each| Some(&*each.version) != current && !each.is_put_away);
            let whole = others.into_iter().find(|each| each.damage.is_none());
            return whole.ok_or(HistoryError::NothingBefore(plugin));
        };
        let digits = asked.strip_prefix("sha256:").unwrap_or(asked).to_ascii_lowercase();
        let begins = |each: &&KeptVersion| {
            let of = each.version.strip_prefix("sha256:").unwrap_or_default();
            !digits.is_empty() && of.starts_with(&digits)
        };
        let version = foreign_text::shown(asked);
        match &kept.iter().filter(begins).collect::<Vec<_>>()[..] {
            [] => {
                let kept = names(&kept.iter().collect::<Vec<_>>());
                Err(HistoryError::Unknown { plugin, version, kept })
            }
            [one] if Some(&*one.version) == current => {
                Err(HistoryError::Current { plugin, version: one.version.clone() })
            }
            [one] => Ok((*one).clone()),
            several => Err(HistoryError::Ambiguous { plugin, version, kept: names(several) }),
        }
    }

    /// The content of a version that is kept. Blocks.
    ///
    /// # Errors
    /// It is damaged, which is noted.
    pub(crate) fn read(&self, plugin: &str, kept: &KeptVersion) -> Result<Candidate, HistoryError> {
        let _disk = self.disk();
        let read = read_file(&self.path(plugin, kept), kept.bytes).map_err(|error| error.to_string());
        let read = read.and_then(|wasm| {
            let content = Candidate::sent(plugin, Bytes::from(wasm));
            let is_whole = content.version == kept.version;
            is_whole.then_some(content).ok_or_else(|| "its file is damaged".to_owned())
        });
        read.map_err(|reason| {
            self.damaged(plugin, &kept.version, &reason);
            let (plugin, version) = (plugin.to_owned(), kept.version.clone());
            HistoryError::Damaged { plugin, version, reason }
        })
    }

    /// What is to run at the start in the place of this content, if that failed in its probation and was put away: the
    /// version before. Blocks.
    pub(crate) fn stand_in(&self, content: &Candidate) -> Option<Candidate> {
        let Candidate { name, version, .. } = content;
        let is_this = |kept: &KeptVersion| kept.version == *version && kept.is_put_away;
        if !self.versions(name).iter().any(is_this) {
            return None;
        }
        let before = self.earlier(name, Some(version), None).and_then(|before| self.read(name, &before));
        match before {
            Ok(before) => {
                tracing::warn!(
                    plugin = name,
                    version,
                    previous = before.version,
                    "the version in the plugin folder failed in its probation: the one before runs until the file changes"
                );
                Some(before)
            }
            Err(error) => {
                tracing::warn!(
                    plugin = name, version, %error,
                    "the version in the plugin folder failed in its probation, and runs again, for want of another"
                );
                None
            }
        }
    }

    /// Looks at every content, and tells what is damaged. Blocks for as long as reading all takes.
    pub(crate) fn verify(&self) {
        for plugin in self.plugins() {
            for kept in self.versions(&plugin) {
                // What is wrong is told by the log.
                let _ = self.read(&plugin, &kept);
            }
        }
    }

    fn damaged(&self, plugin: &str, version: &str, reason: &str) {
        let mut table = self.table();
        let found =
            table.get_mut(plugin).and_then(|kept| kept.iter_mut().find(|each| each.version == version));
        if let Some(each) = found
            && each.damage.is_none()
        {
            tracing::warn!(plugin, version, reason, "an earlier version of a plugin cannot be had back");
            each.damage = Some(reason.to_owned());
        }
    }

    /// A content of a plugin begins to run. Blocks.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(crate) fn ran(&self, content: &Candidate) -> io::Result<()> {
        let Candidate { name: plugin, version, wasm, .. } = content;
        let _disk = self.disk();
        if self.is_newest(plugin, version) {
            return Ok(());
        }
        let mut kept = self.versions(plugin);
        let before = kept.iter().position(|each| each.version == *version).map(|at| kept.remove(at));
        let last_ms = kept.iter().chain(&before).map(|each| each.since_ms).max().unwrap_or(0);
        let now = KeptVersion {
            version: version.clone(),
            since_ms: now_ms().max(last_ms + 1),
            bytes: wasm.len() as u64,
            is_put_away: false,
            damage: None,
        };
        let folder = self.parts.folder.join(plugin);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let path = self.path(plugin, &now);
        match &before {
            Some(before) if before.damage.is_none() && before.bytes == now.bytes => {
                fs::rename(self.path(plugin, before), &path)?;
            }
            _ => {
                write(&folder.join(UNFINISHED), &path, wasm)?;
                if let Some(before) = &before {
                    remove(&self.path(plugin, before));
                }
            }
        }
        kept.insert(0, now);
        for older in kept.drain(MOST_OF_A_PLUGIN.min(kept.len())..) {
            remove(&self.path(plugin, &older));
        }
        self.table().insert(plugin.clone(), kept);
        self.make_room();
        Ok(())
    }

    /// A version has failed in its probation, and the one before runs again. Blocks.
    ///
    /// # Errors
    /// The files cannot be renamed.
    pub(crate) fn put_away(&self, plugin: &str, version: &str, previous: &str) -> io::Result<()> {
        let _disk = self.disk();
        let mut kept = self.versions(plugin);
        let newest_ms = kept.first().map_or(0, |each| each.since_ms);
        for each in &mut kept {
            let now = match &each.version {
                is if is == version => KeptVersion { is_put_away: true, ..each.clone() },
                is if is == previous => KeptVersion { since_ms: now_ms().max(newest_ms + 1), ..each.clone() },
                _ => continue,
            };
            fs::rename(self.path(plugin, each), self.path(plugin, &now))?;
            *each = now;
        }
        kept.sort_by_key(|each| std::cmp::Reverse(each.since_ms));
        self.table().insert(plugin.to_owned(), kept);
        Ok(())
    }

    /// Removes what was not run for longest, until the rest is small enough. The newest of each plugin stays.
    fn make_room(&self) {
        let mut table = self.table();
        let mut bytes: u64 = table.values().flatten().map(|each| each.bytes).sum();
        while bytes > self.parts.most_bytes {
            let oldest = table.iter_mut().filter(|(_, kept)| kept.len() > 1);
            let oldest = oldest.min_by_key(|(_, kept)| kept.last().map(|each| each.since_ms));
            let Some((plugin, kept)) = oldest else { return };
            let Some(oldest) = kept.pop() else { return };
            bytes -= oldest.bytes;
            remove(&self.path(plugin, &oldest));
        }
    }

    fn path(
        &self,
        plugin: &str,
        KeptVersion { version, since_ms, is_put_away, .. }: &KeptVersion,
    ) -> PathBuf {
        let digits = version.strip_prefix("sha256:").unwrap_or(version);
        let end = if *is_put_away { PUT_AWAY } else { KEPT };
        self.parts.folder.join(plugin).join(format!("{since_ms}-{digits}{end}"))
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Vec<KeptVersion>>> {
        // Each change of the table is complete in itself, so a panic elsewhere leaves it sound.
        self.parts.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, ()> {
        self.parts.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a file of this size, and nothing that is something else: not even for a moment.
fn read_file(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    // Opening a FIFO would wait for whoever writes it.
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(at_once).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if found.len() != bytes {
        return Err(io::Error::other("its file is damaged"));
    }
    let mut content = Vec::new();
    file.take(bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// Puts content into a file, whole or not at all.
fn write(unfinished: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(unfinished)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(unfinished, path));
    if written.is_err() {
        remove(unfinished);
    }
    written
}

/// Removes a file that may not be there.
fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a version of a plugin is not needed, and cannot be removed");
        }
        _ => {}
    }
}

fn read_names(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    // A name that is not text was not written here.
    names.filter_map(|name| name.map(|name| name.into_string().ok()).transpose()).collect()
}

/// The contents of a plugin's folder, the newest first.
fn versions_in(folder: &Path) -> io::Result<Vec<KeptVersion>> {
    let mut versions: Vec<KeptVersion> = Vec::new();
    for name in read_names(folder)? {
        let path = folder.join(&name);
        if name == UNFINISHED {
            remove(&path);
            continue;
        }
        let Some((version, since_ms, is_put_away)) = parse(&name) else {
            tracing::warn!(path = %path.display(), "this is no earlier version of a plugin, and is left alone");
            continue;
        };
        let (bytes, damage) = match fs::metadata(&path) {
            Ok(is) if is.is_file() => (is.len(), None),
            Ok(_) => (0, Some("it is not a file".to_owned())),
            Err(error) => (0, Some(error.to_string())),
        };
        versions.push(KeptVersion { version, since_ms, bytes, is_put_away, damage });
    }
    versions.sort_by_key(|each| std::cmp::Reverse(each.since_ms));
    // One content is there once, but for a kill between two steps.
    let mut seen = Vec::new();
    versions.retain(|each| {
        let is_first = !seen.contains(&each.version);
        seen.push(each.version.clone());
        is_first
    });
    Ok(versions)
}

/// Version, time, and whether it was put away.
fn parse(name: &str) -> Option<(String, u64, bool)> {
    let (stem, is_put_away) = match name.strip_suffix(PUT_AWAY) {
        Some(stem) => (stem, true),
        None => (name.strip_suffix(KEPT)?, false),
    };
    let (since_ms, digits) = stem.split_once('-')?;
    let is_digest = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_digest.then_some((format!("sha256:{digits}"), since_ms.parse().ok()?, is_put_away))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(wasm: &str) -> Candidate {
        Candidate::sent("p", Bytes::copy_from_slice(wasm.as_bytes()))
    }

    fn versions(history: &PluginHistory) -> Vec<String> {
        history.versions("p").into_iter().map(|each| each.version).collect()
    }

    fn of(contents: &[&str]) -> Vec<String> {
        contents.iter().map(|wasm| content(wasm).version).collect()
    }

    #[test]
    fn the_newest_five_that_ran_are_kept_over_a_restart_and_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let history = PluginHistory::of(folder.path().join("h"), MOST_BYTES);
        for wasm in ["a", "b", "c", "d", "e", "f", "b", "b"] {
            history.ran(&content(wasm)).unwrap();
        }
        assert_eq!(versions(&history), of(&["b", "f", "e", "d", "c"]));
        let history = PluginHistory::of(folder.path().join("h"), MOST_BYTES);
        assert_eq!(versions(&history), of(&["b", "f", "e", "d", "c"]));
        assert_eq!(fs::read_dir(folder.path().join("h/p")).unwrap().count(), 5);
        let kept = history.versions("p");
        let read: Vec<_> = kept.iter().map(|each| history.read("p", each).unwrap().wasm).collect();
        assert_eq!(read, ["b", "f", "e", "d", "c"]);
    }

    #[test]
    fn what_to_go_back_to_is_what_ran_before_or_what_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let history = PluginHistory::of(folder.path().join("h"), MOST_BYTES);
        let [a, b, c] = ["a", "b", "c"].map(|wasm| content(wasm).version);
        let back = |current: &str, asked: Option<&str>| history.earlier("p", Some(current), asked);
        assert_eq!(back(&a, None), Err(HistoryError::NothingBefore("p".into())));
        for wasm in ["a", "b", "c"] {
            history.ran(&content(wasm)).unwrap();
        }
        assert_eq!(back(&c, None).unwrap().version, b);
        history.put_away("p", &c, &b).unwrap();
        let order: Vec<_> = history.versions("p").into_iter().map(|each| each.version).collect();
        assert_eq!(order, [&b, &c, &a].map(String::clone), "the one before runs again");
        assert_eq!(back(&b, None).unwrap().version, a, "not one that has failed");
        assert_eq!(back(&b, Some(&c)).unwrap().version, c, "unless it is asked for");
        assert_eq!(back(&c, Some(&a[7..12])).unwrap().version, a, "by the beginning of its digest");
        assert!(matches!(back(&c, Some(&c)), Err(HistoryError::Current { .. })));
        assert!(matches!(back(&c, Some("x")), Err(HistoryError::Unknown { kept, .. }) if kept.len() == 3));
        assert!(matches!(back(&c, Some("sha256:")), Err(HistoryError::Unknown { .. })));
        let again = PluginHistory::of(folder.path().join("h"), MOST_BYTES);
        assert_eq!(again.versions("p"), history.versions("p"), "all of it is in the names");
    }

    #[test]
    fn what_is_damaged_or_foreign_is_told_and_costs_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let history = PluginHistory::of(folder.path().join("h"), MOST_BYTES);
        for wasm in ["a", "b", "c"] {
            history.ran(&content(wasm)).unwrap();
        }
        let kept = history.versions("p");
        fs::write(history.path("p", &kept[1]), "B").unwrap();
        fs::write(folder.path().join("h/p/notes"), "mine").unwrap();
        fs::write(folder.path().join("h/p").join(UNFINISHED), "half").unwrap();
        let history = PluginHistory::of(folder.path().join("h"), MOST_BYTES);
        history.verify();
        let damage: Vec<_> = history.versions("p").into_iter().map(|each| each.damage.is_some()).collect();
        assert_eq!(damage, [false, true, false]);
        assert!(matches!(history.read("p", &kept[1]), Err(HistoryError::Damaged { .. })));
        assert_eq!(history.earlier("p", Some(&kept[0].version), None).unwrap().version, kept[2].version);
        assert!(
            folder.path().join("h/p/notes").exists() && !folder.path().join("h/p").join(UNFINISHED).exists()
        );
        history.ran(&content("b")).unwrap();
        assert_eq!(history.read("p", &history.versions("p")[0]).unwrap().wasm, "b", "it is whole again");
    }

    #[test]
    fn what_was_not_run_for_longest_makes_room_and_the_newest_of_each_plugin_stays() {
        let folder = tempfile::tempdir().unwrap();
        let history = PluginHistory::of(folder.path().join("h"), 10);
        let ran = |plugin: &str, wasm: &'static str| {
            history.ran(&Candidate::sent(plugin, Bytes::from_static(wasm.as_bytes()))).unwrap();
        };
        ran("p", "1111");
        ran("q", "2222");
        ran("p", "33");
        ran("q", "444");
        let count = |plugin: &str| history.versions(plugin).len();
        assert_eq!((count("p"), count("q")), (1, 2));
        ran("q", "5555555555555");
        assert_eq!((count("p"), count("q")), (1, 1));
    }
}
