//! Why a plugin is not built, or does not pass its tests.

use crate::mistake::Mistake;
use std::path::{Path, PathBuf};
use tidemill_component::ComponentError;

/// What went wrong. The text is one sentence; [`BuildError::said`] is what the tools said of it.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program that has to be installed by hand.
    #[error("{program} is needed for plugins in {language}, and is not there: {install}")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// The language that needs it.
        language: &'static str,
        /// How it is installed.
        install: &'static str,
    },
    /// A tool that would have to be fetched, where nothing is to be.
    #[error("{0} not installed")]
    NotFetched(String),
    /// A tool could not be fetched.
    #[error("failed to fetch {what}; is there a network?")]
    Fetch {
        /// What was to be fetched.
        what: String,
        /// What the tool said.
        said: String,
    },
    /// The plugin's source is not right.
    #[error("{0}")]
    Mistake(Mistake),
    /// The tests of the plugin in its own language fail.
    #[error("the tests in {language} fail")]
    Tests {
        /// The language.
        language: &'static str,
        /// What they said.
        said: String,
    },
    /// What the compiler made is no plugin.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// A tool failed otherwise than over the plugin's source.
    #[error("{program} failed")]
    Tool {
        /// The tool.
        program: String,
        /// What it said.
        said: String,
    },
    /// It was stopped by [`stop_programs`](crate::stop_programs).
    #[error("it was stopped")]
    Stopped,
    /// A file or folder.
    #[error("failed to {what} {}: {error}", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// With which one.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

impl BuildError {
    /// What the tools said, as they said it.
    pub fn said(&self) -> Option<&str> {
        match self {
            Self::Fetch { said, .. } | Self::Tests { said, .. } | Self::Tool { said, .. } => Some(said),
            Self::Mistake(mistake) => Some(&mistake.said),
            Self::NoProgram { .. }
            | Self::NotFetched(_)
            | Self::Component(_)
            | Self::Stopped
            | Self::File { .. } => None,
        }
    }

    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { what, path, error }
    }
}
