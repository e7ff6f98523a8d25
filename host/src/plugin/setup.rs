//! What every instance of a plugin at one place is made with, whichever version of the plugin it is.

use super::CONTRACT_VERSION;
use super::http::Http;
use super::kind::PluginKind;
use super::log::{GuestLog, GuestPlace};
use super::notes::FirstAnswers;
use super::part::StatePart;
use super::state::HostState;
use crate::config::{Limits, Redacted};
use crate::telemetry::GuestMetrics;
use std::sync::Arc;

/// What an instance is given by the stage that runs it, or by the endpoint that asks it before it dials.
#[derive(Clone)]
pub struct Setup {
    /// The name of the pipeline.
    pub pipeline: Arc<str>,
    /// The label of the stage, or the name of the endpoint.
    pub transform: Arc<str>,
    /// What it is there for.
    pub kind: PluginKind,
    /// Which of the stage's instances it is.
    pub part: StatePart,
    /// The plugin's configuration, as JSON. What came from variables in it is taken out of every text of
    /// the plugin.
    pub config: Redacted,
    /// What it may use.
    pub limits: Limits,
    /// How often a message is offered again that it cannot decide on yet.
    pub retries: usize,
    /// Whether the messages are those of a recording, so that what the plugin is told of chance is to repeat
    /// as their times do.
    pub is_replay: bool,
    /// What the host keeps for the stage or the endpoint.
    pub state: HostState,
    /// Who sends its HTTP requests; `None` where none are granted.
    pub http: Option<Arc<dyn Http>>,
    /// Where its own metrics go.
    pub metrics: GuestMetrics,
    /// Whether it runs beside another version, is told what that one is told, and what it answers goes nowhere.
    pub is_shadow: bool,
    /// What `init` was answered to its requests.
    pub first_answers: FirstAnswers,
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

    /// The same for instances of another version that runs beside these: they see a copy of what the host keeps, and
    /// what they count is not told.
    #[must_use]
    pub fn beside(&self) -> Self {
        let (state, metrics) = (self.state.beside(), GuestMetrics::default());
        Self { state, metrics, is_shadow: true, ..self.clone() }
    }

    /// The number of the instance, where there are several.
    pub fn instance(&self) -> Option<u32> {
        (self.part.of > 1).then_some(self.part.number)
    }

    /// What `init` is told of where the plugin runs.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let host = concat!("tidemill ", env!("CARGO_PKG_VERSION"));
        let mut facts = vec![
            ("host", host.to_owned()),
            ("contract", CONTRACT_VERSION.to_owned()),
            ("pipeline", self.pipeline.to_string()),
            ("memory_bytes", self.limits.memory_bytes.to_string()),
            ("output_bytes", self.limits.output_bytes.to_string()),
        ];
        match self.kind {
            PluginKind::Transform => facts.extend([
                ("transform", self.transform.to_string()),
                ("instance", self.part.number.to_string()),
                ("instances", self.part.of.to_string()),
                ("shadow", self.is_shadow.to_string()),
                ("retries", self.retries.to_string()),
            ]),
            PluginKind::Connector => facts.push(("endpoint", self.transform.to_string())),
        }
        facts
    }

    /// The log of an instance of this plugin.
    pub(super) fn log(&self, plugin: &Arc<str>) -> GuestLog {
        let place = GuestPlace {
            pipeline: self.pipeline.clone(),
            kind: self.kind,
            name: self.transform.clone(),
            plugin: plugin.clone(),
            is_shadow: self.is_shadow,
        };
        GuestLog::new(place, self.config.clone(), self.state.log())
    }
}
