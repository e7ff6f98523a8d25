//! `tidemill schema`: what the configuration file can have, for editors and for people.

use super::{Exit, answer};
use crate::{builtin, config};

#[derive(Debug, clap::Args)]
pub(super) struct Schema {
    /// Print the reference for people instead, in Markdown.
    #[arg(long)]
    markdown: bool,
}

impl Schema {
    pub(super) fn execute(self) -> Exit {
        let text = if !self.markdown {
            format!("{:#}\n", config::schema())
        } else if let Some(reference) = builtin::reference() {
            reference.to_owned()
        } else {
            // The page without its introduction.
            format!("# Configuration\n{}", config::reference())
        };
        answer(&text, Exit::Success)
    }
}
