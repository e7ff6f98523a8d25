//! An attempt to have a plugin run in some content, from when that came until it is decided what becomes of it.

use crate::control::Answer;
use crate::plugin_folder::Candidate;
use crate::verdict::{AskedBy, SwapOptions, Verdict, now_ms};

/// Who asked for some content to run, and how; and what is known of it so far.
#[derive(Debug)]
pub(super) struct SwapAttempt {
    pub(super) asked_by: AskedBy,
    pub(super) options: SwapOptions,
    /// In milliseconds since the Unix epoch.
    pub(super) started_ms: u64,
    /// How long it took until there was code.
    pub(super) compile_ms: Option<u64>,
    /// The content; none where the version is the one that is current.
    pub(super) content: Option<Candidate>,
    /// Who waits for the verdict. What somebody sent is written into the plugin folder once it runs.
    pub(super) answers: Vec<Answer<Verdict>>,
}

impl SwapAttempt {
    /// One that begins now, and takes over as the transforms say.
    pub(super) fn new(asked_by: AskedBy) -> Self {
        let (options, answers) = (SwapOptions::default(), Vec::new());
        Self { asked_by, options, started_ms: now_ms(), compile_ms: None, content: None, answers }
    }

    /// One that somebody waits for.
    pub(super) fn asked(asked_by: AskedBy, options: SwapOptions, answer: Answer<Verdict>) -> Self {
        Self { options, answers: vec![answer], ..Self::new(asked_by) }
    }

    /// Whether somebody asked for it, other than by a file.
    pub(super) fn is_asked(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether another attempt at the same content is to go the same way.
    pub(super) fn goes_as(&self, other: &Self) -> bool {
        !other.is_asked() || other.options == self.options
    }

    /// Takes in another attempt at the same content that goes the same way.
    pub(super) fn join(&mut self, other: Self) {
        self.answers.extend(other.answers);
    }
}
