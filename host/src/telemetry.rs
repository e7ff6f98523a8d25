//! What the host says of itself: logs, metrics, and the states of its pipelines.
//!
//! Nothing here knows a pipeline; the layers above ask for the counters of their labels once, and
//! add to them once a batch.

mod accounts;
mod guest_metrics;
mod handshakes;
mod labels;
mod log;
mod log_stream;
mod metric_changes;
mod metrics;
mod pipeline_family;
mod rate_limit;
mod status;

pub use accounts::{Account, Counts, Ledger, LossCounts, Settled};
pub use guest_metrics::GuestMetrics;
pub use handshakes::HandshakeMetrics;
pub use log::{LogFormat, init as init_log};
pub use log_stream::{flush as flush_log, say};
pub use metric_changes::MetricChanges;
pub use metrics::{
    ConnectOutcome, EndpointMetrics, Metrics, SecondsCounter, SinkMetrics, SourceMetrics, StageMetrics,
    StateMetrics,
};
pub use rate_limit::RateLimit;
pub use status::{Described, PipelineState, Status};
