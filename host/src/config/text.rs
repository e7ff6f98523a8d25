//! Strings of the configuration that must not be shown as they are.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::path::{Path, PathBuf};

/// A string of the configuration, some of which may have come from `${}` and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted {
    value: String,
    shown: String,
}

impl Redacted {
    /// A string that may be shown as it is.
    pub fn plain(value: impl Into<String>) -> Self {
        let value = value.into();
        Self { shown: value.clone(), value }
    }

    /// A string and how it is shown, with `***` for what came from `${}`.
    pub fn new(value: impl Into<String>, shown: impl Into<String>) -> Self {
        Self { value: value.into(), shown: shown.into() }
    }

    /// The real value: for the wire, never for a log or an error.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// What may be shown of it.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl std::fmt::Debug for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shown)
    }
}

impl std::fmt::Display for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// The path of a file of messages, some of which may have come from `${}` and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct FilePath {
    path: PathBuf,
    shown: String,
}

impl FilePath {
    /// A path that may be shown as it is.
    pub fn plain(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { shown: path.display().to_string(), path }
    }

    /// A path of a configuration file in `folder`.
    pub fn relative_to(folder: &Path, text: &Redacted) -> Self {
        Self { path: folder.join(text.expose()), shown: folder.join(text.shown()).display().to_string() }
    }
}

impl std::ops::Deref for FilePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl std::fmt::Debug for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shown)
    }
}

impl std::fmt::Display for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Certificates or a private key in PEM form.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file, read whenever it is needed.
    File(FilePath),
    /// The base64 of a file's content; never shown.
    Base64(Redacted),
}

impl Pem {
    /// The PEM text in a base64 text, which may be broken into lines.
    ///
    /// # Errors
    /// What it is instead, as an end of "it is ...".
    pub fn decode(base64: &str) -> Result<Vec<u8>, &'static str> {
        let base64: String = base64.split_whitespace().collect();
        let pem = BASE64_STANDARD.decode(base64).map_err(|_| "not base64")?;
        let is_pem = pem.windows(10).any(|window| window == b"-----BEGIN");
        if is_pem { Ok(pem) } else { Err("not the base64 of PEM") }
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Base64(_) => f.write_str("Base64(***)"),
        }
    }
}
