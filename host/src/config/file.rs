//! Reads a configuration file: text, TOML with positions, tables as they are declared.
//!
//! Nothing but the file is read, though other files are looked at to tell whether two are one; the environment
//! is handed in. All errors of a file come at once, but for
//! errors of syntax, after which nobody can tell what the rest means.

use super::error::{ConfigError, ConfigErrors};
use super::read::TableReader;
use super::report::Report;
use super::root::{ConfigAt, home};
use super::{Config, Environment, Places, Server, written};
use std::path::Path;
use toml::Spanned;
use toml::de::DeTable;

/// What some editors put at the start of a file in UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A configuration that is right, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, with defaults filled in.
    pub config: Config,
    /// The warnings: what is odd, and may be wanted.
    pub warnings: Vec<ConfigError>,
    /// The places of the parts of the configuration in its file.
    pub places: Places,
}

/// Reads a configuration file. Paths in it are relative to its folder, and come out relative to what
/// `path` is relative to.
///
/// # Errors
/// All errors of the file, or that it cannot be read.
pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, ConfigErrors> {
    parse(path, &read(path)?, environment)
}

/// The bytes of a configuration file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ConfigErrors> {
    std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigErrors::whole(
            path,
            "there is no such configuration file",
            Some("`-c FILE` names another, and `tidemill init` writes a first one".into()),
        ),
        _ => ConfigErrors::whole(path, format!("failed to read the configuration file: {error}"), None),
    })
}

/// Reads a configuration that was read from `path`, or stands for what would be there.
///
/// # Errors
/// All errors of the configuration.
pub fn parse(path: &Path, bytes: &[u8], environment: &Environment) -> Result<Loaded, ConfigErrors> {
    parse_holding(None, path, bytes, environment)
}

/// The same for a host that runs: endpoints take what they leave out from this `[server]`, whatever the file says.
pub(super) fn parse_holding(
    server: Option<&Server>,
    path: &Path,
    bytes: &[u8],
    environment: &Environment,
) -> Result<Loaded, ConfigErrors> {
    // Columns are those of a text without a byte order mark, as editors count them.
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let mut report = Report::of_file(path, &text);
    if let Err(error) = std::str::from_utf8(bytes) {
        let at = error.valid_up_to();
        report.error(&(at..at + 1), "the file is not UTF-8 from here on");
        return Err(report.into_errors());
    }
    let Some(document) = syntax(&mut report, &text) else { return Err(report.into_errors()) };
    let (mut config, at): (Config, ConfigAt) = TableReader::new(&mut report, environment, home)
        .holding(server.map(Server::inherited))
        .table(document.get_ref(), &(0..0));
    if !report.errors.is_empty() {
        return Err(report.into_errors());
    }
    if let Some(server) = server {
        config.hold(server, &at, &mut report);
    }
    let written = document.get_ref().get("pipelines").and_then(|value| value.get_ref().as_array());
    for (pipeline, table) in config.pipelines.iter_mut().zip(written.into_iter().flat_map(|all| all.iter())) {
        pipeline.set_written(written::shown(&mut TableReader::new(&mut report, environment, home), table));
    }
    let places = Places::of(path, &text, &config, &at);
    Ok(Loaded { config, warnings: report.into_warnings(), places })
}

/// Reads TOML; `None` where it is none, which was reported.
pub(super) fn syntax<'t>(report: &mut Report<'_>, text: &'t str) -> Option<Spanned<DeTable<'t>>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let is_right = errors.is_empty();
    for error in errors {
        let at = error.span().unwrap_or_default();
        match (error.message(), text.get(at.clone())) {
            ("duplicate key", Some(key)) => report.error(&at, format!("duplicate key `{key}`")),
            (message, _) => report.error(&at, message),
        }
    }
    is_right.then_some(root)
}
