//! `tidemill man` and `tidemill completions`: what the command line says of itself, for `man` and for shells.

use super::{Cli, Exit, complain};
use clap::CommandFactory as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Write the page of every command into this folder, instead of printing that of tidemill.
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(super) fn execute(self) -> Exit {
        let written = match &self.out {
            Some(folder) => fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(command(), folder))
                .map_err(|error| format!("failed to write into {}: {error}", folder.display())),
            None => {
                let mut page = Vec::new();
                let rendered = clap_mangen::Man::new(command()).render(&mut page);
                rendered.and_then(|()| io::stdout().write_all(&page)).map_err(|error| error.to_string())
            }
        };
        written.map_or_else(
            |error| {
                complain(error);
                Exit::Failure
            },
            |()| Exit::Success,
        )
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn execute(self) -> Exit {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "tidemill", &mut script);
        if io::stdout().write_all(&script).is_ok() { Exit::Success } else { Exit::Failure }
    }
}

/// The command line. Of the version, pages and scripts have the first line.
fn command() -> clap::Command {
    Cli::command().version(env!("CARGO_PKG_VERSION"))
}
