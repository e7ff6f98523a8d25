//! The metrics of the host, and the counters that each part of a pipeline adds to.
//!
//! Parts get a handle of their own for their labels once, so that counting is one addition; what is
//! counted per message is added up and added once a batch. Where messages are is counted by
//! `accounts.rs`; everything else is here.

use super::accounts::{Account, Accounts, Counts, Ledger, LossCounts};
use super::guest_metrics::{GuestMetrics, GuestRegistry};
use super::handshakes::HandshakeMetrics;
use super::labels::{Labels, labels};
use super::pipeline_family::PipelineFamily;
use crate::config::SOURCE;
use crate::reason::Reason;
use crate::verdict::SwapOutcome;
use prometheus_client::encoding::{EncodeMetric, text};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// A counter of seconds.
pub type SecondsCounter = Counter<f64, AtomicU64>;

/// From 1 microsecond to 1 second, by tens and halves between: a call of a plugin, a swap.
const SECONDS_BUCKETS: [f64; 13] =
    [1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0];

/// The label of what a transform has counted.
const TRANSFORM: &str = "transform";
/// The label of what instances have each for themselves, where a transform has several.
const INSTANCE: &str = "instance";

/// Makes the histograms of a family.
#[derive(Clone)]
struct SecondsHistogram;

impl MetricConstructor<Histogram> for SecondsHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS_BUCKETS)
    }
}

type HistogramFamily = PipelineFamily<Histogram, SecondsHistogram>;

/// All metrics of one host.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    guests: GuestRegistry,
    accounts: Accounts,
    peer_dropped: PipelineFamily<Counter>,
    replayed: PipelineFamily<Counter>,
    calls: PipelineFamily<Counter>,
    call_duration: HistogramFamily,
    cpu: PipelineFamily<SecondsCounter>,
    memory: PipelineFamily<Gauge>,
    faults: PipelineFamily<Counter>,
    state_lost: PipelineFamily<Counter>,
    snapshot_bytes: PipelineFamily<Gauge>,
    plugin_paused: PipelineFamily<Gauge>,
    state_writes_failed: PipelineFamily<Counter>,
    state_unwritten: PipelineFamily<Gauge>,
    shadow_messages: PipelineFamily<Counter>,
    swaps: Family<Labels, Counter>,
    swap_duration: HistogramFamily,
    pipelines: Family<Labels, Gauge>,
    connections: PipelineFamily<Gauge>,
    connects: PipelineFamily<Counter>,
    handshakes: HandshakeMetrics,
    bytes_received: PipelineFamily<Counter>,
    bytes_sent: PipelineFamily<Counter>,
    paused: PipelineFamily<SecondsCounter>,
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

fn of_pipelines<M: EncodeMetric + TypedMetric + Metric + Clone + Default>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> PipelineFamily<M> {
    PipelineFamily::new(family(registry, name, help))
}

fn histograms(registry: &mut Registry, name: &str, help: &str) -> HistogramFamily {
    let family = Family::<Labels, Histogram, SecondsHistogram>::new_with_constructor(SecondsHistogram);
    PipelineFamily::new(register(registry, name, help, family))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tidemill");
        let r = &mut registry;
        let accounts = Accounts::default();
        r.register_collector(Box::new(accounts.clone()));
        Self {
            accounts,
            peer_dropped: of_pipelines(
                r,
                "peer_messages_dropped",
                "Messages single peers missed, messages times peers, and those they sent a sink that were too large",
            ),
            replayed: of_pipelines(r, "replayed", "Messages sent again to new peers, messages times peers"),
            calls: of_pipelines(r, "plugin_calls", "Calls of a plugin"),
            call_duration: histograms(r, "plugin_call_duration_seconds", "Time from call to return"),
            cpu: of_pipelines(r, "plugin_cpu_seconds", "Time a plugin ran"),
            memory: of_pipelines(r, "plugin_memory_bytes", "Linear memory of a plugin's instance"),
            faults: of_pipelines(r, "plugin_faults", "Faults of a plugin, and refused messages"),
            state_lost: of_pipelines(
                r,
                "plugin_state_lost",
                "Faults after which state since the last snapshot was lost",
            ),
            snapshot_bytes: of_pipelines(
                r,
                "plugin_snapshot_bytes",
                "Length of the last good snapshot of a plugin",
            ),
            plugin_paused: of_pipelines(
                r,
                "plugin_paused",
                "1 while messages wait since a plugin fails again and again",
            ),
            state_writes_failed: of_pipelines(
                r,
                "state_writes_failed",
                "Generations of durable state that the disk did not take",
            ),
            state_unwritten: of_pipelines(
                r,
                "state_unwritten",
                "1 while the disk lacks state, since it did not take the newest generation",
            ),
            shadow_messages: of_pipelines(
                r,
                "plugin_shadow_messages",
                "Messages that a new version of a plugin saw beside the one that runs",
            ),
            swaps: family(r, "plugin_swaps", "Swaps of a plugin"),
            swap_duration: histograms(r, "plugin_swap_duration_seconds", "Pause of a pipeline at a swap"),
            pipelines: family(r, "pipelines", "1 for the state that a pipeline is in"),
            connections: of_pipelines(r, "connections", "Connections of an endpoint, by state"),
            connects: of_pipelines(r, "connects", "Attempts to connect, and connections accepted or refused"),
            handshakes: HandshakeMetrics::register(r),
            bytes_received: of_pipelines(
                r,
                "bytes_received",
                "Bytes an endpoint received, frame headers included",
            ),
            bytes_sent: of_pipelines(r, "bytes_sent", "Bytes an endpoint sent, frame headers included"),
            paused: of_pipelines(r, "source_paused_seconds", "Time in which backpressure held reading back"),
            guests: GuestRegistry::register(r),
            registry: Mutex::new(registry),
        }
    }
}

impl Metrics {
    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().expect("encoding does not panic");
        text::encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }

    /// The accounts of a pipeline as a whole.
    pub fn ledger(&self, pipeline: &str) -> Ledger {
        self.accounts.ledger(pipeline)
    }

    /// The counters of a pipeline's source.
    pub fn source(&self, pipeline: &str) -> SourceMetrics {
        SourceMetrics {
            account: self.accounts.source(pipeline),
            paused: self.paused.get_or_create_owned(&labels([("pipeline", pipeline)])),
        }
    }

    /// The counters of a transform that runs `plugin`, or of one of its instances where there are several: what they
    /// count adds up, and their gauges are their own.
    pub fn stage(
        &self,
        pipeline: &str,
        transform: &str,
        plugin: &str,
        instance: Option<u32>,
    ) -> StageMetrics {
        let of_instance = |of: &Labels| {
            let mut of = of.clone();
            of.extend(instance.map(|instance| (INSTANCE, instance.to_string())));
            of
        };
        let of = of_instance(&labels([("pipeline", pipeline), ("transform", transform)]));
        let with_plugin = labels([("pipeline", pipeline), ("transform", transform), ("plugin", plugin)]);
        let outcome = |outcome: &str| {
            let mut of = with_plugin.clone();
            of.push(("outcome", outcome.to_owned()));
            self.calls.get_or_create_owned(&of)
        };
        StageMetrics {
            account: self.accounts.transform(pipeline, transform),
            calls_ok: outcome("ok"),
            calls_failed: outcome("fault"),
            call_duration: self.call_duration.get_or_create_owned(&with_plugin),
            cpu: self.cpu.get_or_create_owned(&with_plugin),
            memory_bytes: self.memory.get_or_create_owned(&of_instance(&with_plugin)),
            state_lost: self.state_lost.get_or_create_owned(&with_plugin),
            snapshot_bytes: self.snapshot_bytes.get_or_create_owned(&of_instance(&with_plugin)),
            paused: self.plugin_paused.get_or_create_owned(&of),
            swap_duration: self.swap_duration.get_or_create_owned(&with_plugin),
            faults: self.faults.clone(),
            of_faults: with_plugin,
            shadow_messages: self.shadow_messages.clone(),
            of_shadow: labels([("pipeline", pipeline), ("transform", transform)]),
        }
    }

    /// What is counted of the durable state of a pipeline.
    pub fn state(&self, pipeline: &str) -> StateMetrics {
        let of = labels([("pipeline", pipeline)]);
        StateMetrics {
            writes_failed: self.state_writes_failed.get_or_create_owned(&of),
            unwritten: self.state_unwritten.get_or_create_owned(&of),
        }
    }

    /// Whether the disk lacks state of a pipeline, since it did not take the newest generation.
    pub fn lacks_state(&self, pipeline: &str) -> bool {
        let unwritten = self.state_unwritten.get(&labels([("pipeline", pipeline)]));
        unwritten.is_some_and(|unwritten| unwritten.get() != 0)
    }

    /// The counters of a sink.
    pub fn sink(&self, pipeline: &str, sink: &str) -> SinkMetrics {
        let of = labels([("pipeline", pipeline), ("sink", sink)]);
        SinkMetrics {
            account: self.accounts.sink(pipeline, sink),
            replayed: self.replayed.get_or_create_owned(&of),
            peer_dropped: self.peer_dropped.clone(),
            of_peers: of,
        }
    }

    /// Messages the source of a pipeline has received.
    pub fn received_count(&self, pipeline: &str) -> u64 {
        self.accounts.counts(pipeline, SOURCE).entered
    }

    /// Messages a sink has delivered.
    pub fn delivered_count(&self, pipeline: &str, sink: &str) -> u64 {
        self.accounts.counts(pipeline, sink).delivered
    }

    /// The counts of a place: the source, a transform or a sink.
    pub fn stage_counts(&self, pipeline: &str, stage: &str) -> Counts {
        self.accounts.counts(pipeline, stage)
    }

    /// Whether messages of a transform wait, since its plugin fails again and again.
    pub fn is_paused(&self, pipeline: &str, transform: &str) -> bool {
        let of = labels([("pipeline", pipeline), ("transform", transform)]);
        let is_paused = |of: &Labels| self.plugin_paused.get(of).map(|paused| paused.get() != 0);
        let mut of_instances = (0_u32..).map_while(|instance| {
            let mut of = of.clone();
            of.push((INSTANCE, instance.to_string()));
            is_paused(&of)
        });
        is_paused(&of) == Some(true) || of_instances.any(|is_paused| is_paused)
    }

    /// The messages that were lost at a place (the source, a transform or a sink) for one reason.
    pub fn loss_counts(&self, pipeline: &str, place: &str, reason: Reason) -> LossCounts {
        self.accounts.losses(pipeline, place, reason)
    }

    /// The counters of an endpoint: `source`, or a sink's name.
    pub fn endpoint(&self, pipeline: &str, endpoint: &str) -> EndpointMetrics {
        let of = labels([("pipeline", pipeline), ("endpoint", endpoint)]);
        EndpointMetrics {
            bytes_received: self.bytes_received.get_or_create_owned(&of),
            bytes_sent: self.bytes_sent.get_or_create_owned(&of),
            connects: self.connects.clone(),
            states: self.connections.clone(),
            of,
        }
    }

    /// The counters of the handshakes that listeners refuse.
    pub fn handshakes(&self) -> HandshakeMetrics {
        self.handshakes.clone()
    }

    /// The metrics that the plugin of a transform keeps itself.
    pub fn guest(&self, pipeline: &str, transform: &str) -> GuestMetrics {
        self.guests.of(pipeline, transform)
    }

    /// A pipeline has stopped: its plugins have no memory any more.
    pub fn stopped(&self, pipeline: &str) {
        for memory in self.memory.all_of(pipeline) {
            memory.set(0);
        }
    }

    /// A pipeline is gone, and its series go with it: those of another of its name begin anew.
    pub fn forget(&self, pipeline: &str) {
        self.accounts.forget(pipeline);
        self.guests.forget(pipeline);
        let counters = [
            &self.peer_dropped,
            &self.replayed,
            &self.calls,
            &self.faults,
            &self.state_lost,
            &self.state_writes_failed,
            &self.shadow_messages,
            &self.connects,
            &self.bytes_received,
            &self.bytes_sent,
        ];
        counters.into_iter().for_each(|family| family.forget(pipeline));
        let gauges = [
            &self.memory,
            &self.snapshot_bytes,
            &self.plugin_paused,
            &self.state_unwritten,
            &self.connections,
        ];
        gauges.into_iter().for_each(|family| family.forget(pipeline));
        [&self.cpu, &self.paused].into_iter().for_each(|family| family.forget(pipeline));
        [&self.call_duration, &self.swap_duration].into_iter().for_each(|family| family.forget(pipeline));
    }

    /// Of a pipeline that is configured anew, the series go of transforms and sinks that it does not have any more.
    /// What one of them had to give up just now stays.
    pub fn keep_only(&self, pipeline: &str, transforms: &BTreeSet<&str>, sinks: &BTreeSet<&str>) {
        let known = self.accounts.places(pipeline);
        self.accounts.keep_only(pipeline, transforms, sinks);
        for place in known {
            if !transforms.contains(&*place) {
                self.forget_transform(pipeline, &place);
            }
            if !sinks.contains(&*place) {
                self.forget_sink(pipeline, &place);
            }
        }
    }

    /// A transform is gone, and its series go with it.
    pub fn forget_transform(&self, pipeline: &str, transform: &str) {
        self.guests.forget_transform(pipeline, transform);
        self.forget_instances(pipeline, transform);
        let counters = [&self.calls, &self.faults, &self.state_lost];
        counters.into_iter().for_each(|family| family.forget_place(pipeline, TRANSFORM, transform));
        self.cpu.forget_place(pipeline, TRANSFORM, transform);
        let histograms = [&self.call_duration, &self.swap_duration];
        histograms.into_iter().for_each(|family| family.forget_place(pipeline, TRANSFORM, transform));
    }

    /// The instances of a transform are gone, and what was shown of each.
    pub fn forget_instances(&self, pipeline: &str, transform: &str) {
        self.guests.forget_gauges(pipeline, transform);
        let gauges = [&self.memory, &self.snapshot_bytes, &self.plugin_paused];
        gauges.into_iter().for_each(|family| family.forget_place(pipeline, TRANSFORM, transform));
    }

    /// A sink is gone, and its series go with it.
    pub fn forget_sink(&self, pipeline: &str, sink: &str) {
        let of_peers = [&self.peer_dropped, &self.replayed];
        of_peers.into_iter().for_each(|family| family.forget_place(pipeline, "sink", sink));
        let of_endpoint = [&self.connects, &self.bytes_received, &self.bytes_sent];
        of_endpoint.into_iter().for_each(|family| family.forget_place(pipeline, "endpoint", sink));
        self.connections.forget_place(pipeline, "endpoint", sink);
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

/// The metrics of a source.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// The account of its messages.
    pub account: Account,
    /// Seconds in which backpressure held reading back.
    pub paused: SecondsCounter,
}

/// The metrics of a transform.
#[derive(Clone, Debug)]
pub struct StageMetrics {
    /// The account of its messages.
    pub account: Account,
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
    /// Length of the last good snapshot, in bytes.
    pub snapshot_bytes: Gauge,
    /// 1 while its messages wait, since the plugin fails again and again.
    pub paused: Gauge,
    /// Pause at a swap, in seconds.
    pub swap_duration: Histogram,
    faults: PipelineFamily<Counter>,
    of_faults: Labels,
    shadow_messages: PipelineFamily<Counter>,
    of_shadow: Labels,
}

impl StageMetrics {
    /// Counts `count` faults of a kind.
    pub fn faulted(&self, kind: &str, count: u64) {
        let mut of = self.of_faults.clone();
        of.push(("kind", kind.to_owned()));
        self.faults.get_or_create_owned(&of).inc_by(count);
    }

    /// Counts messages that a version saw in shadow: `same`, `different` or `faulted`.
    pub fn shadowed(&self, outcome: &str, count: u64) {
        let mut of = self.of_shadow.clone();
        of.push(("outcome", outcome.to_owned()));
        self.shadow_messages.get_or_create_owned(&of).inc_by(count);
    }
}

/// The metrics of the durable state of a pipeline.
#[derive(Clone, Debug)]
pub struct StateMetrics {
    /// Generations that the disk did not take.
    pub writes_failed: Counter,
    /// 1 while the disk lacks what the newest one has.
    pub unwritten: Gauge,
}

/// The metrics of a sink.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    /// The account of its messages.
    pub account: Account,
    /// Messages sent again to new peers, messages times peers.
    pub replayed: Counter,
    peer_dropped: PipelineFamily<Counter>,
    of_peers: Labels,
}

impl SinkMetrics {
    /// The pipeline that it is of.
    pub fn pipeline(&self) -> &str {
        &self.of_peers[0].1
    }

    /// Counts what single peers missed, messages times peers; under [`Reason::TooLarge`], what a peer sent that
    /// ended its connection. What peers send to a sink is none of the messages in its account.
    pub fn peer_dropped(&self, reason: Reason, count: u64) {
        let mut of = self.of_peers.clone();
        of.push(("reason", reason.as_str().to_owned()));
        self.peer_dropped.get_or_create_owned(&of).inc_by(count);
    }
}

/// The metrics of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointMetrics {
    /// Bytes received: what TLS carries, so frame headers included and the handshake not.
    pub bytes_received: Counter,
    /// Bytes sent: what TLS carries, so frame headers included and the handshake not.
    pub bytes_sent: Counter,
    connects: PipelineFamily<Counter>,
    states: PipelineFamily<Gauge>,
    of: Labels,
}

impl EndpointMetrics {
    /// The pipeline and the end that it is of.
    pub fn place(&self) -> (&str, &str) {
        let label = |name| self.of.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| &**value);
        (label("pipeline"), label("endpoint"))
    }

    /// The endpoint in words: "the source of pipeline p", "sink out of pipeline p".
    pub fn owner(&self) -> String {
        match self.place() {
            (pipeline, SOURCE) => format!("the source of pipeline {pipeline}"),
            (pipeline, sink) => format!("sink {sink} of pipeline {pipeline}"),
        }
    }

    /// Counts an attempt to connect, or a connection that came in.
    pub fn connect(&self, outcome: ConnectOutcome) {
        let mut of = self.of.clone();
        of.push(("outcome", outcome.as_str().to_owned()));
        self.connects.get_or_create_owned(&of).inc();
    }

    /// The number of its connections in a state; of itself, where it has none.
    pub fn state(&self, state: &str) -> Gauge {
        self.states.get_or_create_owned(&self.of_state(state))
    }

    /// One of its connections, or itself, is in this state no more. Where the endpoint is gone, nobody counts.
    pub fn left(&self, state: &str) {
        if let Some(gauge) = self.states.get(&self.of_state(state)) {
            gauge.dec();
        }
    }

    fn of_state(&self, state: &str) -> Labels {
        let mut of = self.of.clone();
        of.push(("state", state.to_owned()));
        of
    }
}

/// The outcome of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// A connection was made.
    Connected,
    /// There was no TCP connection.
    Refused,
    /// The attempt took longer than its timeout.
    Timeout,
    /// The TLS handshake failed.
    Tls,
    /// The answer to the handshake was not 101.
    Handshake,
    /// The connection closed during the handshake.
    Closed,
    /// The plugin of `before_connect` failed, refused, or gave what cannot be dialled.
    Plugin,
}

impl ConnectOutcome {
    /// The outcome as the label `outcome` of metrics has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Closed => "closed",
            Self::Plugin => "plugin",
        }
    }
}
