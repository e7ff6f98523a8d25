//! An attempt to have a plugin run in some content, from when that came until it is decided what becomes of it.

use crate::verdict::{AskedBy, SwapOptions, now_ms};

/// Who asked for some content to run, and how; and what is known of it so far.
#[derive(Debug)]
pub(super) struct SwapAttempt {
    pub(super) asked_by: AskedBy,
    pub(super) options: SwapOptions,
    /// In milliseconds since the Unix epoch.
    pub(super) started_ms: u64,
    /// How long it took until there was code.
    pub(super) compile_ms: Option<u64>,
}

impl SwapAttempt {
    /// One that begins now, and takes over as the transforms say.
    pub(super) fn new(asked_by: AskedBy) -> Self {
        Self { asked_by, options: SwapOptions::default(), started_ms: now_ms(), compile_ms: None }
    }
}
