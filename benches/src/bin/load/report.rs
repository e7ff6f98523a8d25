//! What a measurement found, as one JSON object, and the readings it is computed from.

use crate::sink::Findings;
use crate::{Options, Tally};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tidemill_bench::machine::{self, MachineTime};

/// The counters of one moment.
pub(crate) struct Reading {
    at: Instant,
    received: u64,
    received_bytes: u64,
    relay_time: Duration,
    relay_switches: u64,
    own_time: Duration,
    machine: MachineTime,
}

impl Reading {
    /// Reads everything now; without a relay its counters are 0.
    pub(crate) fn take(tally: &Tally, relay: Option<u32>) -> io::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            received: tally.received.load(Relaxed),
            received_bytes: tally.received_bytes.load(Relaxed),
            relay_time: relay.map(machine::process_time).transpose()?.unwrap_or_default(),
            relay_switches: relay.map(machine::context_switches).transpose()?.unwrap_or_default(),
            own_time: machine::process_time(std::process::id())?,
            machine: machine::machine_time()?,
        })
    }
}

/// The figures of a measurement. Percentages are of one processor, times in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: String,
    size: usize,
    rate: Option<f64>,
    /// Messages a second that reached the sink.
    msgs_s: f64,
    /// Megabytes a second at the sink, headers of frames included.
    mb_s: f64,
    /// Processor time of the relay a message, user and system; 0 where there was none.
    cpu_us: f64,
    relay_pct: f64,
    load_pct: f64,
    /// Others' processor time, and the hypervisor's: noise.
    foreign_pct: f64,
    steal_pct: f64,
    /// Context switches of the relay a second.
    switches_s: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
    /// How late the source itself was, at a rate.
    late50: f64,
    late99: f64,
    sent: u64,
    recv: u64,
    bad: u64,
    out_of_order: u64,
    missing: u64,
    /// Memory of the relay at the end of the measurement.
    rss_kb: u64,
    /// From the start of the relay to the first message at the sink, in milliseconds.
    first_ms: Option<f64>,
}

impl Report {
    /// The figures between two readings.
    pub(crate) fn new(options: &Options, measured: &Measured) -> Self {
        let (from, to) = (&measured.from, &measured.to);
        let seconds = (to.at - from.at).as_secs_f64();
        let messages = (to.received - from.received) as f64;
        let relay_time = to.relay_time.saturating_sub(from.relay_time);
        let own_time = to.own_time.saturating_sub(from.own_time);
        let busy = to.machine.busy.saturating_sub(from.machine.busy);
        let percent = |time: Duration| round(time.as_secs_f64() / seconds * 100.0, 1);
        let Findings { latency, bad, out_of_order, missing } = &measured.findings;
        Self {
            name: options.name.clone(),
            size: options.size,
            rate: options.rate,
            msgs_s: round(messages / seconds, 0),
            mb_s: round((to.received_bytes - from.received_bytes) as f64 / seconds / 1e6, 1),
            cpu_us: if messages > 0.0 { round(relay_time.as_secs_f64() * 1e6 / messages, 4) } else { 0.0 },
            relay_pct: percent(relay_time),
            load_pct: percent(own_time),
            foreign_pct: percent(busy.saturating_sub(relay_time + own_time)),
            steal_pct: percent(to.machine.steal.saturating_sub(from.machine.steal)),
            switches_s: round((to.relay_switches.saturating_sub(from.relay_switches)) as f64 / seconds, 1),
            p50: quantile(latency, 0.5),
            p90: quantile(latency, 0.9),
            p99: quantile(latency, 0.99),
            p999: quantile(latency, 0.999),
            max: quantile(latency, 1.0),
            late50: quantile(&measured.lateness, 0.5),
            late99: quantile(&measured.lateness, 0.99),
            sent: measured.sent,
            recv: measured.received,
            bad: *bad,
            out_of_order: *out_of_order,
            missing: *missing,
            rss_kb: measured.relay_resident_kib,
            first_ms: measured.first_message.map(|time| round(time.as_secs_f64() * 1e3, 1)),
        }
    }
}

/// Everything a report is made of.
pub(crate) struct Measured {
    pub(crate) from: Reading,
    pub(crate) to: Reading,
    pub(crate) relay_resident_kib: u64,
    pub(crate) first_message: Option<Duration>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) findings: Findings,
    pub(crate) lateness: Histogram<u64>,
}

/// Microseconds.
fn quantile(nanoseconds: &Histogram<u64>, quantile: f64) -> f64 {
    round(nanoseconds.value_at_quantile(quantile) as f64 / 1e3, 1)
}

fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}
