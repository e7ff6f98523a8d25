//! A new folder of a plugin: the template of its language and kind, and the SDK beside it.

use crate::embedded::{self, File};
use crate::language::{Kind, Language};
use crate::manifest::written_out;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Names that are something else to one of the languages: crates and modules that the plugin uses, and words of Rust.
const TAKEN: [&str; 20] = [
    "alloc",
    "async",
    "await",
    "const",
    "core",
    "crate",
    "dyn",
    "fn",
    "loop",
    "main",
    "match",
    "mod",
    "proc-macro",
    "sdk",
    "self",
    "serde",
    "std",
    "test",
    "tidemill-json",
    "tidemill-plugin",
];

/// Why no folder was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is none for a plugin.
    #[error("a plugin cannot be called \"{name}\": {why}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// There is something of this name.
    #[error("there is a {} already, and it stays as it is", .0.display())]
    Exists(PathBuf),
    /// The folder cannot be written.
    #[error("failed to write {}: {error}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Makes the folder of a new plugin in `parent`, named like it. Gives its path.
///
/// # Errors
/// The name is no good, or the folder is there or cannot be written. Then nothing was made.
pub fn create(parent: &Path, name: &str, language: Language, kind: Kind) -> Result<PathBuf, CreateError> {
    check_name(name).map_err(|why| CreateError::Name { name: name.to_owned(), why })?;
    let folder = parent.join(name);
    match DirBuilder::new().create(&folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(CreateError::Exists(folder)),
        made => made.map_err(|error| CreateError::Write { path: folder.clone(), error })?,
    }
    let filled = fill(&folder, name, language, kind);
    if filled.is_err() {
        // Half a plugin is of no use; what cannot be removed is seen by whoever tries again.
        let _ = fs::remove_dir_all(&folder);
    }
    filled.map(|()| folder)
}

/// Whether a plugin can be called so, in every language.
///
/// # Errors
/// Why not.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err("a name has 1 to 64 characters");
    }
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err("a name starts with a lower-case letter, a to z");
    }
    let is_usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.chars().all(is_usual) || name.ends_with('-') || name.contains("--") {
        return Err("a name has lower-case letters, digits, and single hyphens between them");
    }
    if TAKEN.contains(&name) {
        return Err("that means something else to one of the languages");
    }
    Ok(())
}

fn fill(folder: &Path, name: &str, language: Language, kind: Kind) -> Result<(), CreateError> {
    for file in embedded::template(language, kind) {
        let text = std::str::from_utf8(file.content).expect("templates are text");
        let mut text = text.to_owned();
        for (key, value) in [
            ("name", name),
            ("language", language.title()),
            ("main", language.main()),
            ("tests", language.tests()),
            ("native", language.native()),
            ("readme", language.readme()),
        ] {
            text = text.replace(&format!("{{{{{key}}}}}"), value);
        }
        write(&folder.join(file.path), text.as_bytes())?;
    }
    for File { path, content } in embedded::sdk(language) {
        let path = folder.join("sdk").join(path);
        match (path.ends_with("Cargo.toml"), std::str::from_utf8(content)) {
            (true, Ok(manifest)) => write(&path, written_out(manifest).as_bytes())?,
            _ => write(&path, content)?,
        }
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<(), CreateError> {
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    folder
        .and_then(|()| fs::write(path, content))
        .map_err(|error| CreateError::Write { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_every_language_takes() {
        for name in ["fee", "a", "json-only", "v2"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let long = "a".repeat(65);
        for name in ["", "Fee", "2v", "-a", "a-", "a--b", "a_b", "a/b", "..", "żółw", "test", "serde", &long]
        {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_folder_has_everything_and_nothing_is_left_to_fill_in() {
        let parent = tempfile::tempdir().expect("there is room");
        for language in Language::ALL {
            for kind in [Kind::Transform, Kind::Connector] {
                let name = format!("{}-{}", language.name(), if kind == Kind::Transform { "t" } else { "c" });
                let folder = create(parent.path(), &name, language, kind).expect("it is made");
                let cases: &[&str] = match kind {
                    Kind::Transform => {
                        &["cases/first.in.jsonl", "cases/first.out.jsonl", "cases/first.config.json"]
                    }
                    Kind::Connector => &[],
                };
                let files = ["README.md", "AGENTS.md", ".gitignore", language.main(), language.tests()];
                let sdk = format!("sdk/{}", language.readme());
                for file in files.iter().chain(cases).chain(&[&*sdk]) {
                    let text = fs::read_to_string(folder.join(file))
                        .unwrap_or_else(|error| panic!("{file}: {error}"));
                    assert!(!text.contains("{{") || file.starts_with("sdk"), "{file}: {text}");
                }
                assert_eq!(crate::Project::open(&folder).expect("it is a plugin's").language(), language);
                let again = create(parent.path(), &name, language, kind).expect_err("it is there");
                assert!(matches!(again, CreateError::Exists(_)), "{again}");
            }
        }
    }
}
