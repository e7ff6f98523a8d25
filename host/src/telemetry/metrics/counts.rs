//! Reading counters back, for the HTTP API. What was never counted is 0, and makes no series.

use super::{Labels, Metrics, labels};
use crate::reason::Reason;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// What a transform has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageCounts {
    /// Messages given to it.
    pub received: u64,
    /// Messages out, unchanged.
    pub forwarded: u64,
    /// Messages out, new.
    pub emitted: u64,
    /// Messages in that gave one or more outputs.
    pub passed: u64,
    /// Messages in that gave none.
    pub filtered: u64,
}

/// What was lost at a stage for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounts {
    /// Messages dropped.
    pub dropped: u64,
    /// Messages written to the dead letters.
    pub dead_lettered: u64,
}

impl Metrics {
    /// Messages the source of a pipeline has received.
    pub fn received_count(&self, pipeline: &str) -> u64 {
        count(&self.received, &labels([("pipeline", pipeline)]))
    }

    /// Messages a sink has delivered.
    pub fn delivered_count(&self, pipeline: &str, sink: &str) -> u64 {
        count(&self.delivered, &labels([("pipeline", pipeline), ("sink", sink)]))
    }

    /// What a transform has counted.
    pub fn stage_counts(&self, pipeline: &str, transform: &str) -> StageCounts {
        let of = labels([("pipeline", pipeline), ("transform", transform)]);
        StageCounts {
            received: count(&self.stage_in, &of),
            forwarded: count(&self.forwarded, &of),
            emitted: count(&self.emitted, &of),
            passed: count(&self.passed, &of),
            filtered: count(&self.filtered, &of),
        }
    }

    /// What was lost at a stage, the source, a transform or a sink, for one reason.
    pub fn loss_counts(&self, pipeline: &str, stage: &str, reason: Reason) -> LossCounts {
        let of = labels([("pipeline", pipeline), ("stage", stage), ("reason", reason.as_str())]);
        LossCounts { dropped: count(&self.dropped, &of), dead_lettered: count(&self.dead_lettered, &of) }
    }
}

fn count(family: &Family<Labels, Counter>, of: &Labels) -> u64 {
    family.get(of).map_or(0, |counter| counter.get())
}
