//! The exit codes, which scripts and service managers rely on.

use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Success,
    /// It failed while running.
    Failure,
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong: `EX_CONFIG` of `sysexits.h`.
    Configuration,
    /// A second signal cut the shutdown short.
    Interrupted,
}

impl Exit {
    /// The exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Configuration => 78,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
