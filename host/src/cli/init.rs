//! `tidemill init`: a first configuration, which runs as it is.

use super::arguments::ConfigFile;
use super::{Exit, answer, complain};
use crate::builtin;
use std::fs::OpenOptions;
use std::io::{self, Write as _};

/// A feed that is dialled.
const FEED: &str = include_str!("init/feed.toml");
/// A server that peers dial.
const SERVER: &str = include_str!("init/server.toml");

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    config: ConfigFile,
    /// For a server that others dial, instead of a feed that is dialled.
    #[arg(long)]
    server: bool,
}

impl Init {
    pub(super) fn execute(self) -> Exit {
        let file = self.config.file.display();
        let text = if self.server { SERVER } else { FEED };
        let opened = OpenOptions::new().write(true).create_new(true).open(&self.config.file);
        if let Err(error) = opened.and_then(|mut to| to.write_all(text.as_bytes())) {
            complain(match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    format!("there is a {file} already, and it stays as it is\nhint: `-c FILE` names another")
                }
                _ => format!("failed to write {file}: {error}"),
            });
            return Exit::Failure;
        }
        let option = if self.config.is_default() { String::new() } else { format!(" -c {file}") };
        let note = builtin::hint().map_or(String::new(), |hint| format!("note: {hint}\n"));
        let said = format!(
            "{file} is written: read it, then\n\n    tidemill check{option}\n    tidemill run{option}\n{note}"
        );
        answer(&said, Exit::Success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use std::path::Path;

    #[test]
    fn both_files_are_configurations_without_a_warning() {
        for text in [FEED, SERVER] {
            let loaded = config::parse(Path::new("tidemill.toml"), text.as_bytes(), &Environment::default());
            let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!((loaded.config.pipelines.len(), loaded.warnings.len()), (1, 0), "{text}");
        }
    }

    #[test]
    fn what_is_commented_out_is_right_too() {
        for text in [FEED, SERVER] {
            let lines = text.lines().map(|line| {
                let code = line.trim_start().strip_prefix("# ").filter(|code| {
                    code.starts_with("[[")
                        || code.split_once('=').is_some_and(|(key, _)| {
                            key.trim().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                        })
                });
                code.unwrap_or(line)
            });
            let text: String = lines.map(|line| format!("{line}\n")).collect();
            let environment = ["FEED_TOKEN", "DEVICE_TOKEN"].map(|name| (name.to_owned(), "t".to_owned()));
            let loaded =
                config::parse(Path::new("tidemill.toml"), text.as_bytes(), &Environment::from(environment));
            // The certificate is not there, and is not read by this.
            loaded.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        }
    }
}
