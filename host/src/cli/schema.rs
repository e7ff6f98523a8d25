//! `tidemill schema`: the JSON Schema of the configuration file.

use super::Exit;
use crate::config;
use std::io::{self, Write as _};

#[derive(Debug, clap::Args)]
pub(super) struct Schema {}

impl Schema {
    pub(super) fn execute(self) -> Exit {
        let written = writeln!(io::stdout(), "{:#}", config::schema());
        if written.is_ok() { Exit::Success } else { Exit::Failure }
    }
}
