//! What state each pipeline is in, for readiness and for people.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The state of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum PipelineState {
    /// It starts once these plugins are there.
    Waiting {
        /// The missing plugins.
        plugins: Vec<String>,
    },
    /// Its parts are being made.
    Starting,
    /// Messages flow, or would.
    Running,
    /// It was told to stop, and finishes what is in flight.
    Stopping,
    /// Its source has ended.
    Finished,
    /// It was told to stop.
    Stopped,
    /// It cannot go on.
    Failed {
        /// Why.
        error: String,
    },
}

/// The state of every pipeline.
#[derive(Debug, Default)]
pub struct Status {
    pipelines: Mutex<BTreeMap<String, PipelineState>>,
}

impl Status {
    /// Notes the state of a pipeline.
    pub fn set(&self, pipeline: &str, state: PipelineState) {
        let mut pipelines = self.pipelines.lock().expect("nothing panics while it is held");
        pipelines.insert(pipeline.to_owned(), state);
    }

    /// Forgets a pipeline.
    pub fn remove(&self, pipeline: &str) {
        self.pipelines.lock().expect("nothing panics while it is held").remove(pipeline);
    }

    /// The state of a pipeline.
    pub fn get(&self, pipeline: &str) -> Option<PipelineState> {
        self.pipelines.lock().expect("nothing panics while it is held").get(pipeline).cloned()
    }

    /// The state of every pipeline.
    pub fn all(&self) -> BTreeMap<String, PipelineState> {
        self.pipelines.lock().expect("nothing panics while it is held").clone()
    }

    /// Why the host is not ready: the pipelines that should run and do not. A pipeline that was
    /// stopped, or has finished, is no reason.
    pub fn not_ready(&self) -> BTreeMap<String, PipelineState> {
        let mut pipelines = self.all();
        pipelines.retain(|_, state| {
            use PipelineState::{Failed, Finished, Running, Starting, Stopped, Stopping, Waiting};
            match state {
                Waiting { .. } | Starting | Failed { .. } => true,
                Running | Finished | Stopping | Stopped => false,
            }
        });
        pipelines
    }
}
