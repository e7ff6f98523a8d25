//! The folder of a plugin: which language it is in, and where what is.

use crate::language::Language;
use crate::{BuildError, Progress, Tools, c, go, javascript, python, rust};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folders that hold nothing of the plugin's own.
const NOT_SOURCES: [&str; 4] = ["target", "node_modules", "__pycache__", "cases"];

/// The folder of a plugin.
#[derive(Clone, Debug)]
pub struct Project {
    pub(crate) name: String,
    pub(crate) language: Language,
    pub(crate) folder: PathBuf,
    pub(crate) main: PathBuf,
    pub(crate) sdk: PathBuf,
}

/// What a toolchain spends its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// On a plugin that is small and fast.
    Full,
    /// On little more than it has to: somebody waits for what they have just changed.
    Little,
}

/// Why a folder is not that of a plugin.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// It cannot be looked at.
    #[error("failed to open the folder {}: {error}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// No file in it says which language it is in.
    #[error("{} is not the folder of a plugin: it has none of {}", .0.display(), marks())]
    NoPlugin(PathBuf),
}

fn marks() -> String {
    Language::ALL.map(Language::mark).join(", ")
}

impl Project {
    /// The plugin in a folder, which is named like it.
    ///
    /// # Errors
    /// The folder is none, or has no plugin.
    pub fn open(folder: &Path) -> Result<Self, ProjectError> {
        let found = folder
            .canonicalize()
            .map_err(|error| ProjectError::Folder { folder: folder.to_owned(), error })?;
        let language = Language::ALL.into_iter().find(|language| found.join(language.mark()).is_file());
        let name = found.file_name().map(|name| name.to_string_lossy().into_owned());
        let (Some(language), Some(name)) = (language, name) else {
            return Err(ProjectError::NoPlugin(folder.to_owned()));
        };
        let (main, sdk) = (language.main().into(), found.join("sdk"));
        Ok(Self { name, language, folder: found, main, sdk })
    }

    /// A plugin whose main file and SDK are elsewhere than `plugin new` puts them: the file in the folder, the SDK
    /// anywhere.
    pub fn laid_out(language: Language, folder: &Path, main: &Path, sdk: &Path) -> Self {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { name, language, folder: folder.to_owned(), main: main.to_owned(), sdk: sdk.to_owned() }
    }

    /// Its name: the folder's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The language that it is written in.
    pub fn language(&self) -> Language {
        self.language
    }

    /// Compiles it: gives the component, which nobody has looked at yet.
    ///
    /// # Errors
    /// A tool is missing and cannot be fetched, or the source does not compile.
    pub fn build(
        &self,
        effort: Effort,
        tools: &Tools,
        progress: Progress<'_>,
    ) -> Result<Vec<u8>, BuildError> {
        match self.language {
            Language::Rust => rust::build(self, effort, tools, progress),
            Language::JavaScript | Language::TypeScript => javascript::build(self, tools, progress),
            Language::Python => python::build(self, tools, progress),
            Language::Go => go::build(self, tools, progress),
            Language::C => c::build(self, tools, progress),
        }
    }

    /// Runs its tests in its own language.
    ///
    /// # Errors
    /// They fail, or cannot be run.
    pub fn test(&self, tools: &Tools, progress: Progress<'_>) -> Result<(), BuildError> {
        let said = match self.language {
            Language::Rust => rust::test(self, tools, progress)?,
            Language::JavaScript | Language::TypeScript => javascript::test(self, tools, progress)?,
            Language::Python => python::test(self, tools, progress)?,
            Language::Go => go::test(self, tools, progress)?,
            Language::C => c::test(self, tools, progress)?,
        };
        match said {
            Some(said) if !said.is_well => {
                Err(BuildError::Tests { language: self.language.title(), said: said.all() })
            }
            _ => Ok(()),
        }
    }

    /// Where its component is written, unless somebody says otherwise.
    pub fn component(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name))
    }

    /// Its sources with the times at which they were changed: the plugin has to be built again when they are others.
    /// Files of another kind, its tests, and what builds write themselves are none; what cannot be read is left out.
    pub fn sources(&self) -> Vec<(PathBuf, SystemTime)> {
        let mut sources = Vec::new();
        collect(&self.folder, self.language, &mut sources);
        sources.sort();
        sources
    }

    /// The files directly in the folder whose names end so.
    pub(crate) fn files(&self, ending: &str) -> Result<Vec<PathBuf>, BuildError> {
        let listed = fs::read_dir(&self.folder).map_err(BuildError::file("read", &self.folder))?;
        let names = listed.flatten().map(|entry| PathBuf::from(entry.file_name()));
        let mut files: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(ending)).collect();
        files.sort();
        Ok(files)
    }
}

fn collect(folder: &Path, language: Language, sources: &mut Vec<(PathBuf, SystemTime)>) {
    let Ok(listed) = fs::read_dir(folder) else { return };
    for entry in listed.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if name.starts_with('.') && name != ".cargo" {
            continue;
        }
        if metadata.is_dir() {
            if !NOT_SOURCES.contains(&&*name) {
                collect(&path, language, sources);
            }
        } else if language.is_source(&name)
            && let Ok(changed) = metadata.modified()
        {
            sources.push((path, changed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_of_the_plugin_are_what_it_is_built_of() {
        let folder = tempfile::tempdir().expect("there is room");
        let folder = folder.path().join("fee");
        for name in ["cases", "lib", "node_modules/x", "target", ".git"] {
            fs::create_dir_all(folder.join(name)).expect("it can be made");
        }
        let sources = ["lib/worth.js", "package.json", "plugin.js", "table.json"];
        let others = [
            "README.md",
            "plugin.js~",
            ".plugin.js.swp",
            ".#plugin.js",
            "#plugin.js#",
            "plugin.js.orig",
            "4913",
            "plugin.test.js",
            "package-lock.json",
            "fee.wasm",
            "out.jsonl",
            "cases/first.config.json",
            "target/a.js",
            "node_modules/x/index.js",
            ".git/a.json",
        ];
        for name in sources.iter().chain(&others) {
            fs::write(folder.join(name), "").expect("it can be written");
        }
        let project = Project::open(&folder).expect("it is a plugin's");
        let found: Vec<_> = project.sources().into_iter().map(|(path, _)| path).collect();
        let folder = folder.canonicalize().expect("it is there");
        assert_eq!(found, sources.map(|name| folder.join(name)));
    }
}
