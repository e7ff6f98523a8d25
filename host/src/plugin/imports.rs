//! What a guest may call: the host's side of `log`, `state`, `metrics`, `clock` and `random`.
//!
//! [`Host`] is the data of a store: all that one instance has of the host.

use super::bindings::tidemill::plugin::{clock, log, metrics, random, state};
use super::limits::MemoryLimiter;
use super::log::GuestLog;
use super::state::StateView;
use super::wasi::empty_context;
use super::{Plugin, Setup};
use crate::metadata;
use crate::telemetry::GuestMetrics;
use tracing::Level;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// Most changes of metrics that one call may make; those of one counter or gauge are one.
const MAX_METRIC_CHANGES: usize = 4096;
/// Longest name of a metric, as far as it is kept; whether it may be used is decided later.
const MAX_METRIC_NAME_BYTES: usize = 256;

/// The interfaces whose names start so are the host's to offer.
const OFFERED: [&str; 12] = [
    "tidemill:plugin/types@0.1.",
    "tidemill:plugin/log@0.1.",
    "tidemill:plugin/state@0.1.",
    "tidemill:plugin/metrics@0.1.",
    "tidemill:plugin/clock@0.1.",
    "tidemill:plugin/random@0.1.",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// Whether the host offers an interface of this name, in some version.
pub(super) fn is_offered(import: &str) -> bool {
    OFFERED.iter().any(|offered| import.starts_with(offered))
}

/// All that guests may import.
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    log::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    state::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    metrics::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    clock::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    random::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// What one instance has of the host.
pub(super) struct Host {
    pub(super) limiter: MemoryLimiter,
    log: GuestLog,
    state: StateView,
    metrics: MetricChanges,
    random: fastrand::Rng,
    wasi: WasiCtx,
    resources: ResourceTable,
}

impl Host {
    pub(super) fn new(plugin: &Plugin, setup: &Setup) -> Self {
        let log = GuestLog {
            pipeline: setup.pipeline.clone(),
            transform: setup.transform.clone(),
            plugin: plugin.name().clone(),
            budget: setup.state.log(),
        };
        Self {
            limiter: MemoryLimiter::new(setup.limits.memory_bytes),
            state: StateView::new(setup.state.clone()),
            metrics: MetricChanges { shared: setup.metrics.clone(), changes: Vec::new() },
            random: fastrand::Rng::new(),
            wasi: empty_context(&log),
            resources: ResourceTable::new(),
            log,
        }
    }

    /// The outcome of a call was accepted: what it changed counts.
    pub(super) fn commit(&mut self) {
        self.state.commit();
        self.metrics.commit(&self.log);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MetricKind {
    Add,
    Set,
    Observe,
}

/// Changes of metrics since the last accepted call.
struct MetricChanges {
    shared: GuestMetrics,
    changes: Vec<(MetricKind, String, f64)>,
}

impl MetricChanges {
    fn change(&mut self, kind: MetricKind, mut name: String, value: f64) {
        if kind != MetricKind::Observe
            && let Some((.., old)) = self.changes.iter_mut().find(|(k, n, _)| *k == kind && *n == name)
        {
            // What is not a positive number adds nothing.
            *old = if kind == MetricKind::Set { value } else { *old + value.max(0.0) };
            return;
        }
        if self.changes.len() >= MAX_METRIC_CHANGES {
            return;
        }
        if name.len() > MAX_METRIC_NAME_BYTES {
            name = name.chars().take(MAX_METRIC_NAME_BYTES).collect();
        }
        let value = if kind == MetricKind::Add { value.max(0.0) } else { value };
        self.changes.push((kind, name, value));
    }

    fn commit(&mut self, log: &GuestLog) {
        for (kind, name, value) in self.changes.drain(..) {
            let changed = match kind {
                MetricKind::Add => self.shared.add(&name, value),
                MetricKind::Set => self.shared.set(&name, value),
                MetricKind::Observe => self.shared.observe(&name, value),
            };
            if let Err(reason) = changed {
                log.write(Level::WARN, &format!("the metric {name:?} is not kept: {reason}"));
            }
        }
    }
}

impl log::Host for Host {
    fn write(&mut self, level: log::Level, text: String) {
        let level = match level {
            log::Level::Trace => Level::TRACE,
            log::Level::Debug => Level::DEBUG,
            log::Level::Info => Level::INFO,
            log::Level::Warn => Level::WARN,
            log::Level::Error => Level::ERROR,
        };
        self.log.write(level, &text);
    }
}

impl state::Host for Host {
    fn get(&mut self, key: String) -> Option<Vec<u8>> {
        self.state.get(&key)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), String> {
        self.state.set(key, value)
    }

    fn delete(&mut self, key: String) {
        self.state.delete(key);
    }

    fn keys(&mut self, prefix: String, after: Option<String>, limit: u32) -> Vec<String> {
        self.state.keys(&prefix, after.as_deref(), limit)
    }
}

impl metrics::Host for Host {
    fn add(&mut self, counter: String, by: f64) {
        self.metrics.change(MetricKind::Add, counter, by);
    }

    fn set(&mut self, gauge: String, value: f64) {
        self.metrics.change(MetricKind::Set, gauge, value);
    }

    fn observe(&mut self, histogram: String, value: f64) {
        self.metrics.change(MetricKind::Observe, histogram, value);
    }
}

impl clock::Host for Host {
    fn now_us(&mut self) -> u64 {
        metadata::now_us()
    }
}

impl random::Host for Host {
    fn next(&mut self) -> f64 {
        self.random.f64()
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}
