//! The first start of all pipelines of a configuration.
//!
//! All of them are prepared side by side, and what can be refused is looked at before anything is
//! opened. A plugin that takes its time holds the others up for a moment only: then what is prepared
//! is opened, and that one follows alone. What is opened then is opened together: sources that share a path get
//! the same messages from the first one on, unless one of them takes its time.

use super::Pipelines;
use super::managed::{ManagedPipeline, PipelinePhase};
use crate::app::start::StartError;
use crate::app::{AppError, NotStarted};
use std::time::Duration;
use tokio::time::Instant;

/// Longest that pipelines which are prepared wait for others that are not, and those that are open for others
/// on their paths.
const PATIENCE: Duration = Duration::from_secs(2);

/// A first start that is not over.
#[derive(Debug)]
pub(super) struct Boot {
    /// When what is prepared is opened, whatever else is not.
    gate: Instant,
    is_open: bool,
    /// Until when what was opened waits for what is opened together with it.
    together: Option<Instant>,
    pipelines: usize,
    /// Those that do not start.
    failed: Vec<NotStarted>,
}

impl Boot {
    pub(super) fn new(pipelines: usize) -> Self {
        Self {
            gate: Instant::now() + PATIENCE,
            is_open: false,
            together: None,
            pipelines,
            failed: Vec::new(),
        }
    }
}

impl Pipelines {
    /// Opens what is prepared once everything that can be refused has been looked at, and ends the first
    /// start once all is decided. Answers with the moment at which to ask again, if nothing happens before.
    ///
    /// # Errors
    /// If no pipeline can start.
    pub(in crate::app) fn advance_boot(&mut self) -> Result<Option<Instant>, AppError> {
        let Some(boot) = &mut self.boot else { return Ok(None) };
        let is_undecided =
            |phase: &PipelinePhase| matches!(phase, PipelinePhase::Waiting | PipelinePhase::Preparing { .. });
        let is_looked_at = !self.all.iter().any(|managed| managed.is_booting && is_undecided(&managed.phase));
        if !boot.is_open && (is_looked_at || Instant::now() >= boot.gate) {
            boot.is_open = true;
            boot.together = Some(Instant::now() + PATIENCE);
            let is_prepared =
                |managed: &&ManagedPipeline| matches!(managed.phase, PipelinePhase::Prepared(_));
            let prepared = self.all.iter().filter(is_prepared).map(|managed| managed.config.name.as_str());
            self.ends.listeners().open_together(&prepared.collect::<Vec<_>>());
            for index in 0..self.all.len() {
                self.open(index);
            }
        }
        let Some(boot) = &mut self.boot else { return Ok(None) };
        if boot.together.take_if(|until| Instant::now() >= *until).is_some() {
            self.ends.listeners().open_together(&[]);
        }
        if self.all.iter().any(|managed| managed.is_booting) {
            return Ok(if boot.is_open { boot.together } else { Some(boot.gate) });
        }
        let failed = std::mem::take(&mut boot.failed);
        let none_starts = boot.pipelines > 0 && failed.len() == boot.pipelines;
        self.boot = None;
        if none_starts { Err(AppError::NoneStarts(failed)) } else { Ok(None) }
    }

    /// Whether nothing may be opened yet.
    pub(super) fn is_gate_closed(&self) -> bool {
        self.boot.as_ref().is_some_and(|boot| !boot.is_open)
    }

    /// A pipeline of the configuration does not start.
    pub(super) fn not_booted(&mut self, pipeline: String, error: StartError) {
        if let Some(boot) = &mut self.boot {
            boot.failed.push(NotStarted { pipeline, error });
        }
    }
}
