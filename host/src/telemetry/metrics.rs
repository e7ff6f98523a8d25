//! The metrics of the host, and the counters that each part of a pipeline adds to.
//!
//! Every message ends in exactly one of these counters. Parts get a handle of their own for their
//! labels once, so that counting is one atomic addition; what is counted per message is added up
//! and added once a batch.

mod counts;

pub use counts::{LossCounts, StageCounts};

use super::connections::{Connected, Connections, Row};
use super::guest_metrics::{GuestMetrics, GuestRegistry};
use crate::config::SOURCE;
use crate::metadata::Origin;
use crate::reason::Reason;
use prometheus_client::encoding::{EncodeMetric, text};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

/// A counter of seconds.
type SecondsCounter = Counter<f64, AtomicU64>;

/// Label names and values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// From 1 microsecond to 1 second, by tens and halves between: a call of a plugin, a swap.
const SECONDS_BUCKETS: [f64; 13] =
    [1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0];

/// Makes the histograms of a family.
#[derive(Clone)]
struct SecondsHistogram;

impl MetricConstructor<Histogram> for SecondsHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS_BUCKETS)
    }
}

type HistogramFamily = Family<Labels, Histogram, SecondsHistogram>;

/// All metrics of one host.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    guests: GuestRegistry,
    received: Family<Labels, Counter>,
    stage_in: Family<Labels, Counter>,
    forwarded: Family<Labels, Counter>,
    emitted: Family<Labels, Counter>,
    passed: Family<Labels, Counter>,
    filtered: Family<Labels, Counter>,
    delivered: Family<Labels, Counter>,
    dropped: Family<Labels, Counter>,
    dead_lettered: Family<Labels, Counter>,
    in_flight: Family<Labels, Gauge>,
    peer_dropped: Family<Labels, Counter>,
    replayed: Family<Labels, Counter>,
    calls: Family<Labels, Counter>,
    call_duration: HistogramFamily,
    cpu: Family<Labels, SecondsCounter>,
    memory: Family<Labels, Gauge>,
    faults: Family<Labels, Counter>,
    state_lost: Family<Labels, Counter>,
    swaps: Family<Labels, Counter>,
    swap_duration: HistogramFamily,
    pipelines: Family<Labels, Gauge>,
    connections: Family<Labels, Gauge>,
    connects: Family<Labels, Counter>,
    bytes_received: Family<Labels, Counter>,
    bytes_sent: Family<Labels, Counter>,
    paused: Family<Labels, SecondsCounter>,
    table: Connections,
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn family<M: EncodeMetric + TypedMetric + Metric + Clone + Default>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> Family<Labels, M> {
    let family = Family::<Labels, M>::default();
    registry.register(name, help, family.clone());
    family
}

fn histograms(registry: &mut Registry, name: &str, help: &str) -> HistogramFamily {
    let family = Family::<Labels, Histogram, SecondsHistogram>::new_with_constructor(SecondsHistogram);
    register(registry, name, help, family)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tidemill");
        let r = &mut registry;
        Self {
            received: family(r, "messages_received", "Messages a source received"),
            stage_in: family(r, "stage_messages_in", "Messages given to a transform"),
            forwarded: family(r, "messages_forwarded", "Messages a transform passed on unchanged"),
            emitted: family(r, "messages_emitted", "New messages a transform sent out"),
            passed: family(r, "messages_passed", "Messages that gave one or more outputs"),
            filtered: family(r, "messages_filtered", "Messages that gave no output"),
            delivered: family(r, "messages_delivered", "Messages a sink delivered"),
            dropped: family(r, "messages_dropped", "Messages lost, and why"),
            dead_lettered: family(
                r,
                "messages_dead_lettered",
                "Messages written to the dead letters, and why",
            ),
            in_flight: family(r, "messages_in_flight", "Messages inside a stage"),
            peer_dropped: family(
                r,
                "peer_messages_dropped",
                "Messages single peers missed, messages times peers",
            ),
            replayed: family(r, "replayed", "Messages sent again to new peers, messages times peers"),
            calls: family(r, "plugin_calls", "Calls of a plugin"),
            call_duration: histograms(r, "plugin_call_duration_seconds", "Time from call to return"),
            cpu: family(r, "plugin_cpu_seconds", "Time a plugin ran"),
            memory: family(r, "plugin_memory_bytes", "Linear memory of a plugin's instance"),
            faults: family(r, "plugin_faults", "Faults of a plugin, and refused messages"),
            state_lost: family(
                r,
                "plugin_state_lost",
                "Faults after which state since the last snapshot was lost",
            ),
            swaps: family(r, "plugin_swaps", "Swaps of a plugin"),
            swap_duration: histograms(r, "plugin_swap_duration_seconds", "Pause of a pipeline at a swap"),
            pipelines: family(r, "pipelines", "1 for the state that a pipeline is in"),
            connections: family(r, "connections", "Connections of an endpoint, by state"),
            connects: family(r, "connects", "Attempts to connect, and connections accepted or refused"),
            bytes_received: family(r, "bytes_received", "Bytes an endpoint received, frame headers included"),
            bytes_sent: family(r, "bytes_sent", "Bytes an endpoint sent, frame headers included"),
            paused: family(r, "source_paused_seconds", "Time in which backpressure held reading back"),
            guests: GuestRegistry::register(r),
            table: Connections::default(),
            registry: Mutex::new(registry),
        }
    }
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

impl Metrics {
    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().expect("encoding does not panic");
        text::encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }

    /// The counters of a pipeline's source.
    pub fn source(&self, pipeline: &str) -> SourceMetrics {
        let of = labels([("pipeline", pipeline)]);
        SourceMetrics {
            received: self.received.get_or_create_owned(&of),
            paused: self.paused.get_or_create_owned(&of),
            in_flight: self
                .in_flight
                .get_or_create_owned(&labels([("pipeline", pipeline), ("stage", SOURCE)])),
            losses: self.losses(pipeline, SOURCE),
        }
    }

    /// The counters of a transform that runs `plugin`.
    pub fn stage(&self, pipeline: &str, transform: &str, plugin: &str) -> StageMetrics {
        let of = labels([("pipeline", pipeline), ("transform", transform)]);
        let with_plugin = labels([("pipeline", pipeline), ("transform", transform), ("plugin", plugin)]);
        let outcome = |outcome: &str| {
            let mut of = with_plugin.clone();
            of.push(("outcome", outcome.to_owned()));
            self.calls.get_or_create_owned(&of)
        };
        StageMetrics {
            received: self.stage_in.get_or_create_owned(&of),
            forwarded: self.forwarded.get_or_create_owned(&of),
            emitted: self.emitted.get_or_create_owned(&of),
            passed: self.passed.get_or_create_owned(&of),
            filtered: self.filtered.get_or_create_owned(&of),
            in_flight: self
                .in_flight
                .get_or_create_owned(&labels([("pipeline", pipeline), ("stage", transform)])),
            calls_ok: outcome("ok"),
            calls_failed: outcome("fault"),
            call_duration: self.call_duration.get_or_create_owned(&with_plugin),
            cpu: self.cpu.get_or_create_owned(&with_plugin),
            memory_bytes: self.memory.get_or_create_owned(&with_plugin),
            state_lost: self.state_lost.get_or_create_owned(&with_plugin),
            swap_duration: self.swap_duration.get_or_create_owned(&with_plugin),
            losses: self.losses(pipeline, transform),
            faults: self.faults.clone(),
            of_faults: with_plugin,
        }
    }

    /// The counters of a sink.
    pub fn sink(&self, pipeline: &str, sink: &str) -> SinkMetrics {
        let of = labels([("pipeline", pipeline), ("sink", sink)]);
        SinkMetrics {
            delivered: self.delivered.get_or_create_owned(&of),
            replayed: self.replayed.get_or_create_owned(&of),
            in_flight: self.in_flight.get_or_create_owned(&labels([("pipeline", pipeline), ("stage", sink)])),
            losses: self.losses(pipeline, sink),
            peer_dropped: self.peer_dropped.clone(),
            of_peers: of,
        }
    }

    /// The counters of what is lost at a stage: the source, a transform or a sink.
    pub fn losses(&self, pipeline: &str, stage: &str) -> Losses {
        Losses {
            dropped: self.dropped.clone(),
            dead_lettered: self.dead_lettered.clone(),
            of: labels([("pipeline", pipeline), ("stage", stage)]),
        }
    }

    /// The counters of an endpoint: `source`, or a sink's name.
    pub fn endpoint(&self, pipeline: &str, endpoint: &str) -> EndpointMetrics {
        let of = labels([("pipeline", pipeline), ("endpoint", endpoint)]);
        EndpointMetrics {
            bytes_received: self.bytes_received.get_or_create_owned(&of),
            bytes_sent: self.bytes_sent.get_or_create_owned(&of),
            connects: self.connects.clone(),
            row: self.table.row(pipeline, endpoint, self.connections.clone()),
            of,
        }
    }

    /// Who is connected.
    pub fn connections(&self) -> &Connections {
        &self.table
    }

    /// What the plugin of a transform counts itself.
    pub fn guest(&self, pipeline: &str, transform: &str) -> GuestMetrics {
        self.guests.of(pipeline, transform)
    }

    /// The states of pipelines.
    pub(super) fn pipelines(&self) -> &Family<Labels, Gauge> {
        &self.pipelines
    }

    /// Counts a swap of a plugin.
    pub fn swapped(&self, plugin: &str, outcome: SwapOutcome) {
        let of = labels([("plugin", plugin), ("outcome", outcome.as_str())]);
        self.swaps.get_or_create_owned(&of).inc();
    }
}

/// How a swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapOutcome {
    /// The new version runs.
    Swapped,
    /// The old version goes on.
    Rejected,
    /// The version before runs again.
    RolledBack,
}

impl SwapOutcome {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Swapped => "swapped",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// What a source counts.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// Messages received.
    pub received: Counter,
    /// Seconds in which backpressure held reading back.
    pub paused: SecondsCounter,
    /// Messages received and not yet handed on.
    pub in_flight: Gauge,
    /// Messages that failed.
    pub losses: Losses,
}

/// What a transform counts.
#[derive(Clone, Debug)]
pub struct StageMetrics {
    /// Messages given to it.
    pub received: Counter,
    /// Messages out, unchanged.
    pub forwarded: Counter,
    /// Messages out, new.
    pub emitted: Counter,
    /// Messages in that gave one or more outputs.
    pub passed: Counter,
    /// Messages in that gave none.
    pub filtered: Counter,
    /// Messages in whose end is not known yet.
    pub in_flight: Gauge,
    /// Calls that were accepted.
    pub calls_ok: Counter,
    /// Calls that ended in a fault.
    pub calls_failed: Counter,
    /// Time from call to return, in seconds.
    pub call_duration: Histogram,
    /// Time the guest ran, in seconds.
    pub cpu: SecondsCounter,
    /// Linear memory of the instance, in bytes.
    pub memory_bytes: Gauge,
    /// Faults after which state was lost.
    pub state_lost: Counter,
    /// Pause at a swap, in seconds.
    pub swap_duration: Histogram,
    /// Messages that failed.
    pub losses: Losses,
    faults: Family<Labels, Counter>,
    of_faults: Labels,
}

impl StageMetrics {
    /// Counts `count` faults of a kind.
    pub fn faulted(&self, kind: &str, count: u64) {
        let mut of = self.of_faults.clone();
        of.push(("kind", kind.to_owned()));
        self.faults.get_or_create_owned(&of).inc_by(count);
    }
}

/// What a sink counts.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    /// Messages delivered.
    pub delivered: Counter,
    /// Messages sent again to new peers, messages times peers.
    pub replayed: Counter,
    /// Messages taken whose end is not known yet.
    pub in_flight: Gauge,
    /// Messages that failed.
    pub losses: Losses,
    peer_dropped: Family<Labels, Counter>,
    of_peers: Labels,
}

impl SinkMetrics {
    /// Counts what single peers missed, messages times peers.
    pub fn peer_dropped(&self, reason: Reason, count: u64) {
        let mut of = self.of_peers.clone();
        of.push(("reason", reason.as_str().to_owned()));
        self.peer_dropped.get_or_create_owned(&of).inc_by(count);
    }
}

/// What is lost at a stage, by reason.
#[derive(Clone, Debug)]
pub struct Losses {
    dropped: Family<Labels, Counter>,
    dead_lettered: Family<Labels, Counter>,
    of: Labels,
}

impl Losses {
    /// Counts messages that were dropped.
    pub fn dropped(&self, reason: Reason, count: u64) {
        self.count(&self.dropped, reason, count);
    }

    /// Counts messages that were written to the dead letters.
    pub fn dead_lettered(&self, reason: Reason, count: u64) {
        self.count(&self.dead_lettered, reason, count);
    }

    fn count(&self, family: &Family<Labels, Counter>, reason: Reason, count: u64) {
        if count > 0 {
            let mut of = self.of.clone();
            of.push(("reason", reason.as_str().to_owned()));
            family.get_or_create_owned(&of).inc_by(count);
        }
    }
}

/// What an endpoint counts, and its row in the table of connections. It is closed when the last clone
/// is dropped.
#[derive(Clone, Debug)]
pub struct EndpointMetrics {
    /// Bytes received: what TLS carries, so frame headers included and the handshake not.
    pub bytes_received: Counter,
    /// Bytes sent, likewise.
    pub bytes_sent: Counter,
    connects: Family<Labels, Counter>,
    row: Arc<Row>,
    of: Labels,
}

impl EndpointMetrics {
    /// The endpoint in words: "the source of pipeline p", "sink out of pipeline p".
    pub fn owner(&self) -> String {
        let label = |name| self.of.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        match label("endpoint") {
            SOURCE => format!("the source of pipeline {}", label("pipeline")),
            sink => format!("sink {sink} of pipeline {}", label("pipeline")),
        }
    }

    /// Counts an attempt to connect, or a connection that came in.
    pub fn connect(&self, outcome: ConnectOutcome) {
        let mut of = self.of.clone();
        of.push(("outcome", outcome.as_str().to_owned()));
        self.connects.get_or_create_owned(&of).inc();
    }

    /// Shows what it does now.
    pub fn show(&self, state: EndpointState) {
        self.row.show(state);
    }

    /// Shows what it dials, or where peers connect; without what is secret.
    pub fn show_address(&self, address: &str) {
        self.row.set_address(address);
    }

    /// Shows what went wrong last.
    pub fn show_error(&self, error: &str) {
        self.row.set_error(error);
    }

    /// It has dialled, and has a connection whose messages have this origin.
    pub fn attach(&self, connected: &Arc<Connected>, origin: &Arc<Origin>) {
        self.row.attach(connected, origin);
    }

    /// The connection that it had dialled is gone.
    pub fn detach(&self, connected: &Connected) {
        self.row.detach(connected);
    }

    /// A peer has come, whose messages have this origin here.
    pub fn welcome(&self, connected: &Arc<Connected>, origin: &Arc<Origin>) {
        self.row.welcome(connected, origin);
    }

    /// A peer has gone.
    pub fn farewell(&self, connected: &Connected) {
        self.row.farewell(connected);
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// An attempt is being made.
    Connecting,
    /// Messages can flow.
    Connected,
    /// Between two attempts.
    Waiting,
    /// Peers can connect.
    Listening,
    /// Attempts are used up.
    Failed,
    /// It was stopped.
    Closed,
}

impl EndpointState {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Waiting => "waiting",
            Self::Listening => "listening",
            Self::Failed => "failed",
            Self::Closed => "closed",
        }
    }
}

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// With a connection.
    Connected,
    /// No TCP connection.
    Refused,
    /// It took too long.
    Timeout,
    /// TLS failed.
    Tls,
    /// Any HTTP answer but 101.
    Handshake,
    /// The connection closed during the handshake.
    Closed,
}

impl ConnectOutcome {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Closed => "closed",
        }
    }
}
