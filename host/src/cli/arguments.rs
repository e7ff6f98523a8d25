//! What several commands take: the kinds of values that can be typed, and the configuration file.

use super::load;
use crate::config::{self, Config, ConfigErrors};
use crate::websocket;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration file, if none is named.
pub(super) const CONFIG_FILE: &str = "tidemill.toml";

/// The configuration file that a command reads.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// The configuration file.
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = CONFIG_FILE)]
    pub(super) file: PathBuf,
}

impl ConfigFile {
    /// Whether it is the file that is read if none is named.
    pub(super) fn is_default(&self) -> bool {
        self.file == Path::new(CONFIG_FILE)
    }

    /// The configuration; where none is named and there is none, what holds without one.
    pub(super) fn load_or_default(&self) -> Result<Config, ConfigErrors> {
        if self.is_default() && !self.file.exists() {
            return Ok(Config::default());
        }
        load(&self.file).map(|loaded| loaded.config)
    }
}

/// The name of something, which has at least one character.
pub(super) fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(text.to_owned()) }
}

/// A url that can be dialled.
pub(super) fn url(text: &str) -> Result<String, String> {
    websocket::check_url(text)?;
    Ok(text.to_owned())
}

/// A duration, written as in the configuration.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    config::units::parse_duration(text).ok_or_else(|| "write it as \"250ms\", \"10s\" or \"1m\"".into())
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write it as \"127.0.0.1:9001\", or \"[::1]:9001\"".into())
}

/// The address of a running host's HTTP API, which may have a name.
pub(super) fn admin_address(text: &str) -> Result<String, String> {
    let is_one = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok());
    if is_one { Ok(text.to_owned()) } else { Err("write it as \"127.0.0.1:10080\"".into()) }
}
