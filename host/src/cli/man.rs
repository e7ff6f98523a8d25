//! `tidemill man` and `tidemill completions`: what the command line says of itself, for `man` and for shells.

use super::{Cli, Exit, answer, complain};
use clap::CommandFactory as _;
use std::fs;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Write the page of every command into this folder, instead of printing that of tidemill.
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(super) fn execute(self) -> Exit {
        let Some(folder) = &self.out else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command()).render(&mut page).expect("memory takes it");
            return answer(&String::from_utf8_lossy(&page), Exit::Success);
        };
        match fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command(), folder)) {
            Ok(()) => Exit::Success,
            Err(error) => {
                complain(format!("failed to write into {}: {error}", folder.display()));
                Exit::Failure
            }
        }
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
        answer(&String::from_utf8_lossy(&script), Exit::Success)
    }
}

/// The command line. Of the version, pages and scripts have the first line.
fn command() -> clap::Command {
    Cli::command().version(env!("CARGO_PKG_VERSION"))
}
