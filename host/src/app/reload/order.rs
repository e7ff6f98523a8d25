//! Reloads that were asked for: one goes on, the others wait.

use super::Reload;
use crate::app::job::ReloadJob;
use crate::config::{Config, ReloadFile};
use crate::control::ReloadCommand;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Reloads that may wait for the one that goes on.
const MOST_WAITING: usize = 16;

/// The reloads of a host.
pub(in crate::app) struct Reloads {
    /// The file that the host was started with, if it was.
    pub(in crate::app) file: Option<ReloadFile>,
    /// The tables beside the pipelines, which stay as they are.
    pub(in crate::app) in_force: Arc<Config>,
    /// Rings where nobody waits for an answer: a signal, or a file that was written.
    pub(in crate::app) bell: Arc<Notify>,
    pub(in crate::app) jobs: JoinSet<ReloadJob>,
    pub(super) waiting: VecDeque<ReloadCommand>,
    pub(super) current: Option<Reload>,
}

/// Something that happened to a reload beside the task that decides.
pub(in crate::app) enum ReloadEvent {
    /// One was asked for, and nobody waits for what becomes of it.
    Rung,
    /// A job is done.
    Done(ReloadJob),
}

impl Reloads {
    pub(in crate::app) fn new(file: Option<ReloadFile>, in_force: Config, bell: Arc<Notify>) -> Self {
        Self {
            file,
            in_force: Arc::new(in_force),
            bell,
            jobs: JoinSet::new(),
            waiting: VecDeque::new(),
            current: None,
        }
    }

    /// Has a reload wait for its turn; gives it back where too many wait.
    pub(super) fn add(&mut self, order: ReloadCommand) -> Result<(), ReloadCommand> {
        // One that is rung for and has not begun reads what the next would read.
        let is_same = |waiting: &ReloadCommand| waiting.answer.is_none();
        if order.answer.is_none() && self.waiting.iter().any(is_same) {
            return Ok(());
        }
        if self.waiting.len() >= MOST_WAITING {
            return Err(order);
        }
        self.waiting.push_back(order);
        Ok(())
    }

    /// Whether one goes on, or is to.
    pub(in crate::app) fn goes_on(&self) -> bool {
        self.current.is_some() || !self.waiting.is_empty()
    }

    /// Gives up what is under way.
    pub(in crate::app) fn abort(&mut self) {
        self.jobs.abort_all();
        self.waiting.clear();
        self.current = None;
    }

    /// The next thing that happens.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(in crate::app) async fn next(&mut self) -> ReloadEvent {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => return ReloadEvent::Done(done),
                    // Jobs catch what can panic in them.
                    Err(error) => tracing::error!(%error, "a job of the host is lost"),
                },
                () = self.bell.notified() => return ReloadEvent::Rung,
            }
        }
    }
}
