//! What the host says of itself: logs and metrics.
//!
//! Nothing here knows a pipeline; the layers above ask for the counters of their labels once, and
//! add to them once a batch.

mod guest_metrics;
mod log;
mod metrics;
mod rate_limit;
mod status;

pub use guest_metrics::GuestMetrics;
pub use log::{LogFormat, init as init_log};
pub use metrics::{
    ConnectOutcome, EndpointMetrics, EndpointState, Losses, Metrics, SinkMetrics, SourceMetrics,
    StageMetrics, SwapOutcome,
};
pub use rate_limit::RateLimit;
pub use status::{PipelineState, Status};
