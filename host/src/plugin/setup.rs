//! What every instance of a transform's plugin is made with, whichever version of the plugin it is.

use super::http::Http;
use super::log::GuestLog;
use super::part::StatePart;
use super::state::HostState;
use crate::config::{Limits, Redacted};
use crate::telemetry::GuestMetrics;
use std::sync::Arc;

/// What an instance is given by the stage that runs it.
#[derive(Clone)]
pub struct Setup {
    /// The name of the pipeline.
    pub pipeline: Arc<str>,
    /// The label of the stage.
    pub transform: Arc<str>,
    /// Which of the stage's instances it is.
    pub part: StatePart,
    /// The plugin's configuration, as JSON. What came from variables in it is taken out of every text of
    /// the plugin.
    pub config: Redacted,
    /// What it may use.
    pub limits: Limits,
    /// Whether the messages are those of a recording, so that what the plugin is told of chance is to repeat
    /// as their times do.
    pub is_replay: bool,
    /// What the host keeps for the stage.
    pub state: HostState,
    /// Who sends its HTTP requests; `None` where none are granted.
    pub http: Option<Arc<dyn Http>>,
    /// Where its own metrics go.
    pub metrics: GuestMetrics,
}

impl std::fmt::Debug for Setup {
    /// Without the configuration, which may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Setup");
        shown.field("pipeline", &self.pipeline).field("transform", &self.transform).field("part", &self.part);
        shown.field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Setup {
    /// The same for each of the stage's instances, in their order.
    pub fn of_each(&self) -> impl Iterator<Item = Self> {
        let of = self.part.of;
        (0..of).map(move |number| Self { part: StatePart { number, of }, ..self.clone() })
    }

    /// The number of the instance, where there are several.
    pub fn instance(&self) -> Option<u32> {
        (self.part.of > 1).then_some(self.part.number)
    }

    /// The log of an instance of this plugin.
    pub(super) fn log(&self, plugin: &Arc<str>) -> GuestLog {
        let (pipeline, transform) = (self.pipeline.clone(), self.transform.clone());
        GuestLog::new(pipeline, transform, plugin.clone(), self.config.clone(), self.state.log())
    }
}
