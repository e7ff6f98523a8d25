//! Jobs: what takes time, beside the task that decides.
//!
//! A job's result is a value that the task takes when it has nothing more urgent to do. How long a job may
//! take is in `bounded.rs`.

use super::CheckFinding;
use super::end_opener::OpenedEnds;
use super::instances::{MadeStages, Ready};
use super::keeping::FolderWritten;
use super::kept::Kept;
use super::reload::{PreparedReload, ReadAgain};
use super::start::StartError;
use super::swap::FinishedSwap;
use super::trial::RolledBackSwap;
use crate::control::{Answer, ControlError};
use crate::pipeline::{Departure, Updated};
use crate::plugin::Plugin;
use crate::plugin_folder::Candidate;
use crate::plugin_history::HistoryError;
use crate::verdict::{Verdict, VerdictId};
use std::sync::Arc;

/// What a job of a pipeline came to.
pub(super) enum PipelineJob {
    /// The files of a new pipeline were looked at.
    Checked {
        /// The name of the pipeline.
        pipeline: Arc<str>,
        /// Why the pipeline may not have them, if so.
        result: Result<(), StartError>,
    },
    /// The stages of a pipeline are made.
    Prepared {
        /// The name of the pipeline.
        pipeline: Arc<str>,
        /// The stages with what they go on with, or why they were not made.
        result: Result<(MadeStages, Kept), StartError>,
    },
    /// The ends of a pipeline are opened.
    Opened {
        /// The name of the pipeline.
        pipeline: Arc<str>,
        /// Its stages, made before.
        stages: Vec<Ready>,
        /// The ends of the pipeline, or why they were not opened.
        result: Result<Box<OpenedEnds>, StartError>,
    },
    /// What has no result, such as dropping instances.
    Other,
}

/// What a job of a reload came to.
pub(super) enum ReloadJob {
    /// The configuration was read.
    Read(Box<Result<ReadAgain, ControlError>>),
    /// Everything that can be refused is prepared, or something was refused.
    Prepared(Box<Result<PreparedReload, Vec<CheckFinding>>>),
    /// A pipeline was told what it is from now on.
    Updated {
        /// The name of the pipeline.
        pipeline: String,
        /// What became of it; `None` if the pipeline has ended, or is about to.
        result: Option<Updated>,
    },
    /// The sinks have gone that a pipeline does not have any more.
    Departed {
        /// The name of the pipeline.
        pipeline: String,
        /// What they had to give up.
        departure: Departure,
    },
}

/// What a job of a plugin came to.
pub(super) enum PluginJob {
    /// A plugin's content was looked at.
    Compiled {
        /// The name of the plugin.
        name: String,
        /// The digest of the content that was compiled.
        version: String,
        /// The plugin, or why it is none.
        result: Result<Plugin, String>,
    },
    /// There is optimised code for a plugin that runs without.
    Optimised {
        /// The name of the plugin.
        name: Arc<str>,
        /// The plugin, or why there is none.
        result: Result<Plugin, String>,
    },
    /// A version was offered to all that use its plugin, and was written into the plugin folder if it was to be.
    Swapped(Box<FinishedSwap>, FolderWritten),
    /// A content that ran was read, for whoever wants it back.
    Recalled {
        /// The content, or why it cannot be had.
        content: Result<Candidate, HistoryError>,
        /// Who is to be answered.
        answer: Answer<Verdict>,
    },
    /// A version has faulted too often in its probation, and the one before runs again.
    RolledBack {
        /// The version that is gone.
        plugin: Plugin,
        /// The verdict that is to be amended.
        verdict: VerdictId,
        /// The one before, and where it runs.
        rolled_back: Box<RolledBackSwap>,
    },
    /// What has no result, such as a compiler that is free again.
    Other,
}
