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
    #[error("failed to fetch {what}{}", why_not_fetched(said))]
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

/// How a sentence ends that says that something was not fetched: with the cause that npm names, if it is in the files of
/// this machine, or else by asking for a network. Only of what failed over a file npm says the path.
fn why_not_fetched(said: &str) -> String {
    let lines = || {
        let of_npm = |line| str::strip_prefix(line, "npm error ").or(str::strip_prefix(line, "npm ERR! "));
        said.lines().filter_map(of_npm)
    };
    let code = lines().find_map(|line| line.strip_prefix("code "));
    let code = code.filter(|_| lines().any(|line| line.starts_with("path ")));
    let cause = code.map(|code| format!("{code}: "));
    let cause = cause.and_then(|start| lines().find_map(|line| Some(&line[line.find(&start)?..])));
    cause.map_or("; is there a network?".into(), |cause| format!(": {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &str) -> String {
        BuildError::Fetch { what: "x".into(), said: said.into() }.to_string()
    }

    #[test]
    fn what_npm_could_not_write_is_told_and_no_network_asked_for() {
        let said = "npm error code EACCES\n\
            npm error syscall mkdir\n\
            npm error path /srv/fee\n\
            npm error errno -13\n\
            npm error Error: EACCES: permission denied, mkdir '/srv/fee'\n\
            npm error     at async mkdir (node:internal/fs/promises:856:10)\n";
        let wanted = "failed to fetch x: EACCES: permission denied, mkdir '/srv/fee'";
        assert_eq!(told(said), wanted);
        assert_eq!(told(&said.replace("npm error", "npm ERR!")), wanted);
        let said = "npm error code ENOSPC\nnpm error path /srv/a\nnpm error nospc ENOSPC: no space left on device, write\n";
        assert_eq!(told(said), "failed to fetch x: ENOSPC: no space left on device, write");
    }

    #[test]
    fn where_nobody_answers_the_network_is_asked_for() {
        let said = "npm error code ECONNREFUSED\n\
            npm error syscall connect\n\
            npm error errno ECONNREFUSED\n\
            npm error FetchError: request to http://127.0.0.1:1/x failed, reason: connect ECONNREFUSED 127.0.0.1:1\n";
        for said in [said, "ERROR: No matching distribution found for x", ""] {
            assert_eq!(told(said), "failed to fetch x; is there a network?");
        }
    }
}
