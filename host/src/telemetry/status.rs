//! Which pipelines there are, and what each does: for readiness, for the API and for people.
//!
//! One task writes it, at the moment it decides; anyone reads it, and asks nobody. The gauge of a
//! pipeline's state is moved here and nowhere else, so that it cannot disagree.

use super::Metrics;
use super::labels::{Labels, labels};
use crate::config;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// The state of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum PipelineState {
    /// The pipeline starts once plugins that are missing are there.
    Waiting {
        /// The names of the plugins that are missing.
        plugins: Vec<String>,
        /// Of those plugins, the ones whose file is there and cannot run here, with the reason.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        refused: BTreeMap<String, String>,
    },
    /// The instances of its plugins are being made, or its ends opened.
    Starting,
    /// The pipeline runs: messages flow as they come.
    Running,
    /// The pipeline was told to stop, and messages in flight are still on their way.
    Stopping,
    /// The source of the pipeline has ended, and everything was delivered.
    Finished,
    /// The pipeline was told to stop, and has.
    Stopped,
    /// The pipeline cannot start, or cannot go on.
    Failed {
        /// Why the pipeline cannot go on.
        error: String,
    },
}

/// The names of the states, as labels.
const STATES: [&str; 7] = ["waiting", "starting", "running", "stopping", "finished", "stopped", "failed"];

impl PipelineState {
    /// The state as the label `state` of metrics has it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A pipeline of a running host.
#[derive(Clone, Debug)]
pub struct Described {
    /// The configuration of the pipeline.
    pub config: Arc<config::Pipeline>,
    /// The state of the pipeline.
    pub state: PipelineState,
    /// When that state began, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What whoever started it should know.
    pub warnings: Vec<String>,
    /// The version of the plugin of each transform, while the pipeline runs.
    pub versions: Vec<Arc<str>>,
}

/// Every pipeline of a host and its state.
#[derive(Debug)]
pub struct Status {
    /// In the order in which they were added.
    rows: Mutex<Vec<Described>>,
    gauge: Family<Labels, Gauge>,
    is_stopping: AtomicBool,
}

impl Status {
    /// A table without pipelines, whose states these metrics show.
    pub fn new(metrics: &Metrics) -> Self {
        let gauge = metrics.pipelines().clone();
        Self { rows: Mutex::default(), gauge, is_stopping: AtomicBool::new(false) }
    }

    /// Adds a pipeline, whose name is new.
    pub fn add(&self, config: Arc<config::Pipeline>, state: PipelineState) {
        let mut rows = self.lock();
        self.show(&config.name, &state);
        let (warnings, versions) = (Vec::new(), Vec::new());
        rows.push(Described { config, state, since_ms: now_ms(), warnings, versions });
    }

    /// Notes the state of a pipeline.
    pub fn set(&self, pipeline: &str, state: PipelineState) {
        let mut rows = self.lock();
        if let Some(row) = rows.iter_mut().find(|row| row.config.name == pipeline) {
            self.show(pipeline, &state);
            if row.state.as_str() != state.as_str() {
                row.since_ms = now_ms();
            }
            row.state = state;
        }
    }

    /// Notes what whoever starts a pipeline should know, in the place of what was noted at the start before.
    pub fn warn(&self, pipeline: &str, warnings: Vec<String>) {
        if let Some(row) = self.lock().iter_mut().find(|row| row.config.name == pipeline) {
            row.warnings = warnings;
        }
    }

    /// Another configuration of a pipeline is in force.
    pub fn configure(&self, config: Arc<config::Pipeline>) {
        if let Some(row) = self.lock().iter_mut().find(|row| row.config.name == config.name) {
            row.config = config;
        }
    }

    /// Notes which versions of plugins the transforms of a pipeline run; none, where it does not run.
    pub fn runs(&self, pipeline: &str, versions: Vec<Arc<str>>) {
        if let Some(row) = self.lock().iter_mut().find(|row| row.config.name == pipeline) {
            row.versions = versions;
        }
    }

    /// Takes a pipeline out of the table, and its gauge out of the metrics.
    pub fn remove(&self, pipeline: &str) {
        let mut rows = self.lock();
        rows.retain(|row| row.config.name != pipeline);
        for state in STATES {
            self.gauge.remove(&of_state(pipeline, state));
        }
    }

    /// A pipeline, if there is one of this name.
    pub fn get(&self, pipeline: &str) -> Option<Described> {
        self.lock().iter().find(|row| row.config.name == pipeline).cloned()
    }

    /// Every pipeline, in the order in which they were added.
    pub fn all(&self) -> Vec<Described> {
        self.lock().clone()
    }

    /// The host was told to stop: it is not ready any more.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the host was told to stop, and finishes what is in flight.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Why the host is not ready while it runs: the pipelines that should run and do not. A pipeline that was
    /// stopped, or has finished, is no reason.
    pub fn not_ready(&self) -> BTreeMap<String, PipelineState> {
        use PipelineState::{Failed, Finished, Running, Starting, Stopped, Stopping, Waiting};
        let rows = self.lock();
        let hindered = rows.iter().filter(|row| match row.state {
            Waiting { .. } | Starting | Failed { .. } => true,
            Running | Finished | Stopping | Stopped => false,
        });
        hindered.map(|row| (row.config.name.clone(), row.state.clone())).collect()
    }

    fn show(&self, pipeline: &str, state: &PipelineState) {
        for each in STATES {
            let is_it = each == state.as_str();
            self.gauge.get_or_create_owned(&of_state(pipeline, each)).set(is_it.into());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Described>> {
        self.rows.lock().expect("nothing panics while it is held")
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn of_state(pipeline: &str, state: &str) -> Labels {
    labels([("pipeline", pipeline), ("state", state)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Endpoint, Pipeline};

    fn states(metrics: &Metrics, pipeline: &str) -> Vec<String> {
        let of_pipeline = format!("tidemill_pipelines{{pipeline=\"{pipeline}\",state=\"");
        let text = metrics.encode();
        let samples = text.lines().filter_map(|line| line.strip_prefix(&of_pipeline)?.split_once("\"} "));
        samples.filter(|(_, value)| *value == "1").map(|(state, _)| state.to_owned()).collect()
    }

    #[test]
    fn a_pipeline_is_in_one_state_of_the_metrics_and_in_none_once_it_is_removed() {
        let metrics = Metrics::default();
        let status = Status::new(&metrics);
        let pipeline = Arc::new(Pipeline::new("p", Endpoint::client("ws://127.0.0.1:1/")));
        status.add(pipeline, PipelineState::Starting);
        assert_eq!(states(&metrics, "p"), ["starting"]);
        let failed = PipelineState::Failed { error: "no".to_owned() };
        for state in [PipelineState::Running, failed, PipelineState::Stopped, PipelineState::Finished] {
            status.set("p", state.clone());
            assert_eq!(states(&metrics, "p"), [state.as_str()]);
        }
        status.remove("p");
        assert!(!metrics.encode().contains("tidemill_pipelines{"));
    }
}
