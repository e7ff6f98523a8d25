//! `tidemill schema`: what the configuration file can have, for editors and for people.

use super::Exit;
use crate::{builtin, config};
use std::io::{self, Write as _};

#[derive(Debug, clap::Args)]
pub(super) struct Schema {
    /// Print the reference for people instead, in Markdown.
    #[arg(long)]
    markdown: bool,
}

impl Schema {
    pub(super) fn execute(self) -> Exit {
        let written = if !self.markdown {
            writeln!(io::stdout(), "{:#}", config::schema())
        } else if let Some(reference) = builtin::reference() {
            write!(io::stdout(), "{reference}")
        } else {
            // The page without its introduction.
            write!(io::stdout(), "# Configuration\n{}", config::reference())
        };
        if written.is_ok() { Exit::Success } else { Exit::Failure }
    }
}
