//! Strings of the configuration that files belong in, and the paths of files.

use super::redacted::{HIDDEN, Redacted};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Longer files are no secrets.
const MAX_SECRET_BYTES: u64 = 1 << 20;
/// As much as a plugin has room for, the configuration being there more than once while it is read.
const MAX_DATA_BYTES: u64 = 16 << 20;

/// A string of an endpoint, in which the trimmed texts of files may stand (`${file:PATH}`). They are read
/// whenever the string is needed, at every (re)connect, and never shown. In the configuration of a plugin they are data
/// (see [`super::PluginConfig`]).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EndpointText {
    known: Redacted,
    /// In the order of their places.
    insets: Vec<Inset>,
}

/// Where the text of a file belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inset {
    /// The place in the known value, in bytes.
    at: usize,
    path: FilePath,
    /// Whether it stands within a string of JSON.
    is_json: bool,
}

/// A file of a `${file:PATH}` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {path}: {source}")]
pub struct SecretError {
    path: FilePath,
    source: io::Error,
}

impl EndpointText {
    /// A string that may be shown as it is.
    pub fn plain(value: impl Into<String>) -> Self {
        Redacted::plain(value).into()
    }

    /// The trimmed text of a file, such as a token that another program renews.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let mut text = Self::from(Redacted::new("", ""));
        text.push_file(FilePath::plain(path), false);
        text
    }

    /// Whether files are to be read.
    pub fn has_files(&self) -> bool {
        !self.insets.is_empty()
    }

    /// The whole string, with its files read. Blocks for as long as that takes.
    ///
    /// # Errors
    /// The first of the files that cannot be read.
    pub fn resolve(&self) -> Result<Redacted, SecretError> {
        let mut texts = Vec::new();
        let value = self.filled(|path| {
            let text = secret(path)?;
            texts.push(text.clone());
            Ok(text)
        })?;
        let mut resolved = Redacted::new(value, self.known.shown());
        // In JSON they are escaped, and whoever reads that has them as they were.
        resolved.secrets.extend(self.known.secrets.iter().cloned());
        texts.iter().for_each(|text| resolved.keep_secret(text));
        Ok(resolved)
    }

    /// The whole text of a credential that peers must show. An empty file is an error, like a missing one.
    ///
    /// # Errors
    /// The first of the files that cannot be read, or are empty.
    pub fn resolve_credential(&self) -> Result<Redacted, SecretError> {
        let value = self.filled(|path| {
            let text = secret(path)?;
            if text.is_empty() { Err(io::Error::other("it is empty")) } else { Ok(text) }
        });
        Ok(Redacted::new(value?, self.known.shown()))
    }

    /// The whole string with its files read as data: not trimmed, and no secrets.
    pub(super) fn with_data(&self) -> Result<Redacted, SecretError> {
        let value = self.filled(|path| read(path, MAX_DATA_BYTES))?;
        Ok(Redacted { value, ..self.known.clone() })
    }

    fn filled(&self, mut read: impl FnMut(&Path) -> io::Result<String>) -> Result<String, SecretError> {
        let mut value = String::new();
        let mut rest = 0;
        for Inset { at, path, is_json } in &self.insets {
            value.push_str(&self.known.expose()[rest..*at]);
            rest = *at;
            let text = read(path).map_err(|source| SecretError { path: path.clone(), source })?;
            value.push_str(&if *is_json { quoted(&text) } else { text });
        }
        value.push_str(&self.known.expose()[rest..]);
        Ok(value)
    }

    /// The part of the text that may be shown; the rest is `***`.
    pub fn shown(&self) -> &str {
        self.known.shown()
    }

    /// The same, with nothing of it shown.
    pub(super) fn hidden(&self) -> Self {
        Self { known: Redacted::new(self.known.expose(), HIDDEN), insets: self.insets.clone() }
    }

    /// Whether all of it may be shown.
    pub fn is_open(&self) -> bool {
        !self.has_files() && self.known.is_open()
    }

    /// The part of the text that is known without its files; all of it where there are none.
    pub fn known(&self) -> &Redacted {
        &self.known
    }

    /// The string with `1` in the place of each file, for a look at its form; `None` where it begins with
    /// one.
    pub(super) fn sketch(&self) -> Option<String> {
        let mut sketch = self.known.expose().to_owned();
        for inset in self.insets.iter().rev() {
            sketch.insert(inset.at, '1');
        }
        self.insets.first().is_none_or(|first| first.at > 0).then_some(sketch)
    }

    pub(super) fn push(&mut self, text: &str) {
        self.known.push(text);
    }

    /// Adds what came from `${}`.
    pub(super) fn push_hidden(&mut self, value: &str) {
        self.known.push_hidden(value);
    }

    pub(super) fn push_file(&mut self, path: FilePath, is_json: bool) {
        self.insets.push(Inset { at: self.known.value.len(), path, is_json });
        self.known.shown.push_str(HIDDEN);
    }

    /// Adds a file of data, which is shown as it is written.
    pub(super) fn push_data(&mut self, path: FilePath, written: &str) {
        self.insets.push(Inset { at: self.known.value.len(), path, is_json: false });
        self.known.shown.push_str(written);
    }

    /// Adds `other` as a string of JSON.
    pub(super) fn push_quoted(&mut self, other: &Self) {
        let value = other.known.expose();
        let mut rest = 0;
        self.known.value.push('"');
        for inset in &other.insets {
            self.known.value.push_str(&quoted(&value[rest..inset.at]));
            rest = inset.at;
            let at = self.known.value.len();
            self.insets.push(Inset { at, path: inset.path.clone(), is_json: true });
        }
        self.known.value.push_str(&quoted(&value[rest..]));
        self.known.value.push('"');
        self.known.shown.push_str(&format!("\"{}\"", quoted(other.shown())));
        self.known.secrets.extend(other.known.secrets.iter().cloned());
    }
}

/// A url with `instead` for its user and password.
pub fn without_user_info(url: &str, instead: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{instead}{host}{path}"),
        None => url.to_owned(),
    }
}

/// What stands between the quotes of a string of JSON.
fn quoted(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The trimmed text of a file that is a secret.
fn secret(path: &Path) -> io::Result<String> {
    Ok(read(path, MAX_SECRET_BYTES)?.trim().to_owned())
}

/// The text of a file of at most so many bytes: no pipe or device, which might never end.
fn read(path: &Path, most: u64) -> io::Result<String> {
    // Opening a pipe would wait for its writer.
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(at_once).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {} MiB", most >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

impl From<Redacted> for EndpointText {
    fn from(known: Redacted) -> Self {
        Self { known, insets: Vec::new() }
    }
}

impl From<&str> for EndpointText {
    fn from(value: &str) -> Self {
        Self::plain(value)
    }
}

impl std::fmt::Debug for EndpointText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl std::fmt::Display for EndpointText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.shown())
    }
}

/// The path of a file of messages, some of which may have come from `${}` and is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
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

    /// Whether the file is packed, which its name says.
    pub fn is_packed(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
    }
}

impl<P: Into<PathBuf>> From<P> for FilePath {
    fn from(path: P) -> Self {
        Self::plain(path)
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
    Base64(EndpointText),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    #[test]
    fn files_are_read_each_time_and_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let mut text = EndpointText::plain("Bearer ");
        text.push_file(FilePath::plain(&path), false);
        text.push("!");
        for secret in ["one", "two"] {
            std::fs::write(&path, format!("  {secret}\n")).expect("it is ours");
            assert_eq!(text.resolve().expect("it is there").expose(), format!("Bearer {secret}!"));
        }
        assert_eq!(
            (text.shown(), &*format!("{text:?} {text}")),
            ("Bearer ***!", "\"Bearer ***!\" Bearer ***!")
        );
        std::fs::remove_file(&path).expect("it is there");
        let error = text.resolve().expect_err("it is gone").to_string();
        let missing = "No such file or directory (os error 2)";
        assert_eq!(error, format!("failed to read {}: {missing}", path.display()));
        std::fs::write(&path, " \n").expect("it is ours");
        assert_eq!(text.resolve().expect("it is there").expose(), "Bearer !");
        let error = text.resolve_credential().expect_err("it is empty").to_string();
        assert_eq!(error, format!("failed to read {}: it is empty", path.display()));
        for (content, why) in
            [(vec![b'x'; (1 << 20) + 1], "it has more than 1 MiB"), (vec![0xff], "it is not UTF-8")]
        {
            std::fs::write(&path, content).expect("it is ours");
            assert!(text.resolve().expect_err("no secret").to_string().ends_with(why));
        }
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("it runs").success());
        for none in [EndpointText::file(&pipe), EndpointText::file(folder.path())] {
            assert!(none.resolve().expect_err("no file").to_string().ends_with(": it is not a file"));
        }
    }

    #[test]
    fn files_within_json_are_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "a\"b").expect("it is ours");
        let mut inner = EndpointText::plain("\\");
        inner.push_file(FilePath::plain(&path), false);
        let mut text = EndpointText::plain("{\"k\":");
        text.push_quoted(&inner);
        text.push("}");
        assert_eq!(text.resolve().expect("it is there").expose(), r#"{"k":"\\a\"b"}"#);
        assert_eq!(text.shown(), r#"{"k":"\\***"}"#);
    }

    #[test]
    fn what_came_from_variables_is_concealed_in_the_texts_of_others() {
        let mut inner = EndpointText::plain("Bearer ");
        inner.push_hidden("pass\"word");
        let mut text = EndpointText::plain("{\"k\":");
        text.push_quoted(&inner);
        text.push("}");
        let config = text.known();
        assert_eq!(config.shown(), r#"{"k":"Bearer ***"}"#);
        assert_eq!(config.conceal(config.expose()), config.shown());
        assert_eq!(config.conceal("wrong: pass\"word, pass\"words"), "wrong: ***, ***s");
        assert!(matches!(config.conceal("Bearer pass"), Cow::Borrowed("Bearer pass")));
    }

    #[test]
    fn a_sketch_has_a_digit_for_each_file() {
        let mut text = EndpointText::plain("wss://h:");
        text.push_file(FilePath::plain("p"), false);
        text.push("/");
        assert_eq!(text.sketch().as_deref(), Some("wss://h:1/"));
        assert_eq!(EndpointText::file("p").sketch(), None);
    }
}
