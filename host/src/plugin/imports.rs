//! What a guest may call: the host's side of `log`, `state`, `metrics`, `clock`, `random` and `http`.
//!
//! [`StoreData`] is the data of a store: all that one instance has of the host.

use super::bindings::tidemill::plugin::{clock, http, log, metrics, random, state};
use super::limits::Meter;
use super::log::GuestLog;
use super::memory::MemoryLimiter;
use super::notes::{CallNotes, Times, begin_anew};
use super::replay::InstanceReplay;
use super::requests::Requests;
use super::setup::Setup;
use super::state::{HostState, KeyChange, StateView};
use super::wasi::Wasi;
use crate::message::metadata;
use crate::telemetry::MetricChanges;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::sync::Arc;
use std::time::Duration;
use tracing::Level;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::{WasiCtxView, WasiView};

/// The interfaces whose names start so are the host's to offer.
const OFFERED: [&str; 13] = [
    "tidemill:plugin/types@0.1.",
    "tidemill:plugin/log@0.1.",
    "tidemill:plugin/state@0.1.",
    "tidemill:plugin/metrics@0.1.",
    "tidemill:plugin/clock@0.1.",
    "tidemill:plugin/random@0.1.",
    "tidemill:plugin/http@0.1.",
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
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<StoreData>> {
    let mut linker = Linker::new(engine);
    log::add_to_linker::<StoreData, HasSelf<StoreData>>(&mut linker, |host| host)?;
    state::add_to_linker::<StoreData, HasSelf<StoreData>>(&mut linker, |host| host)?;
    metrics::add_to_linker::<StoreData, HasSelf<StoreData>>(&mut linker, |host| host)?;
    clock::add_to_linker::<StoreData, HasSelf<StoreData>>(&mut linker, |host| host)?;
    random::add_to_linker::<StoreData, HasSelf<StoreData>>(&mut linker, |host| host)?;
    http::add_to_linker::<StoreData, HasSelf<StoreData>>(&mut linker, |host| host)?;
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    // In a replay nobody waits.
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<StoreData, HasSelf<StoreData>>(&mut linker, |host| host)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// What one instance has of the host.
pub(super) struct StoreData {
    pub(super) limiter: MemoryLimiter,
    /// The time that the guest is told, in microseconds since the Unix epoch, where it is not the wall's.
    time_us: Option<u64>,
    replay: Option<InstanceReplay>,
    pub(super) log: GuestLog,
    pub(super) requests: Requests,
    state: StateView,
    metrics: MetricChanges,
    /// What nobody can foresee, but in a replay: plugins make nonces of it.
    random: StdRng,
    /// What the import `clock` says.
    clock: Times,
    /// The seeds of the random numbers of the call that is noted, from its beginning: those of the import, and
    /// those of WASI.
    seeds: Option<([u8; 32], Option<[u8; 32]>)>,
    wasi: Wasi,
}

impl StoreData {
    pub(super) fn new(plugin: &Arc<str>, setup: &Setup, meter: Arc<Meter>) -> Self {
        let log = setup.log(plugin);
        let replay = InstanceReplay::of(setup);
        Self {
            limiter: MemoryLimiter::new(setup.limits.memory_bytes),
            // Before the first message of a recording there is no time yet.
            time_us: replay.is_some().then_some(0),
            state: StateView::new(setup.state.clone()),
            metrics: MetricChanges::new(setup.metrics.of_instance(setup.instance())),
            random: replay.as_ref().map_or_else(rand::make_rng, InstanceReplay::numbers),
            clock: Times::default(),
            seeds: None,
            wasi: Wasi::new(&log, replay.as_ref()),
            replay,
            requests: Requests::new(setup, meter),
            log,
        }
    }

    /// The time that the guest is told from now on; that of the wall if there is none. In a replay there is always
    /// one.
    #[inline]
    pub(super) fn set_time(&mut self, time_us: Option<u64>) {
        match (&self.replay, time_us) {
            (None, _) => self.time_us = time_us,
            (Some(replay), Some(now_us)) => {
                replay.set_time(now_us);
                self.time_us = time_us;
            }
            (Some(_), None) => {}
        }
    }

    /// What the next call is told is noted.
    pub(super) fn note(&mut self) {
        self.clock = Times::noting();
        self.seeds = Some((begin_anew(&mut self.random), self.wasi.note()));
        self.requests.note();
    }

    /// What was noted, if anything was.
    pub(super) fn take_notes(&mut self) -> Option<CallNotes> {
        let (seed, wasi_seed) = self.seeds.take()?;
        let times_us = std::mem::take(&mut self.clock);
        let (wall_ns, exchanges) = (self.wasi.take_notes(), self.requests.take_notes());
        Some(CallNotes { times_us, wall_ns, seed, wasi_seed, exchanges })
    }

    /// The next call is told what was noted of another.
    pub(super) fn follow(&mut self, notes: CallNotes) {
        let CallNotes { times_us, wall_ns, seed, wasi_seed, exchanges } = notes;
        self.clock = times_us.repeating();
        self.random = StdRng::from_seed(seed);
        self.wasi.follow(wall_ns, wasi_seed);
        self.requests.follow(exchanges);
    }

    /// A call begins.
    pub(super) fn begin(&mut self, is_carrying: bool) {
        self.limiter.begin(is_carrying);
        self.log.begin_call();
        self.requests.begin(is_carrying);
    }

    /// From now on it changes this state: what it has changed so far, too.
    pub(super) fn adopt_state(&mut self, state: HostState) {
        self.state.adopt(state);
    }

    /// The outcome of a call was accepted: what it changed counts.
    pub(super) fn commit(&mut self) {
        let time_us = self.time_us;
        self.state.commit(|| time_us.unwrap_or_else(metadata::now_us));
        for refused in self.metrics.commit() {
            self.log.write(Level::WARN, &refused);
        }
    }

    /// What the guest said in a call that failed, of why it did.
    pub(super) fn last_words(&self) -> Option<String> {
        self.wasi.end_lines();
        self.log.take_last_words()
    }

    /// The time that the guest is told.
    fn now_us(&self) -> u64 {
        self.time_us.unwrap_or_else(metadata::now_us)
    }

    /// A name of a metric, which must not be what the guest may not show.
    fn metric(&self, name: String) -> String {
        self.log.conceal(name)
    }
}

impl log::Host for StoreData {
    fn write(&mut self, level: log::Level, text: String) {
        let level = match level {
            log::Level::Trace => Level::TRACE,
            log::Level::Debug => Level::DEBUG,
            log::Level::Info => Level::INFO,
            log::Level::Warn => Level::WARN,
            log::Level::Error => Level::ERROR,
        };
        if level == Level::ERROR {
            self.log.note(|words| words.logged(&text));
        }
        self.log.write(level, &text);
    }
}

impl state::Host for StoreData {
    fn get(&mut self, key: String) -> Option<Vec<u8>> {
        self.state.get(&key, self.now_us())
    }

    fn get_many(&mut self, keys: Vec<String>) -> wasmtime::Result<Vec<Option<Vec<u8>>>> {
        let max_bytes = self.limiter.limit_bytes();
        self.state.get_many(&keys, self.now_us(), max_bytes).map_err(wasmtime::Error::msg)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), String> {
        let change = KeyChange { key, value: Some(value), ttl: Duration::ZERO };
        self.state.change(vec![change], self.now_us())
    }

    fn set_many(&mut self, changes: Vec<state::Change>) -> Result<(), String> {
        let changes = changes.into_iter().map(|state::Change { key, value, ttl_ms }| KeyChange {
            key,
            value,
            ttl: Duration::from_millis(ttl_ms),
        });
        self.state.change(changes.collect(), self.now_us())
    }

    fn delete(&mut self, key: String) {
        let change = KeyChange { key, value: None, ttl: Duration::ZERO };
        // What takes room away breaks no limit, and a key that is too long for one is not there.
        let _ = self.state.change(vec![change], self.now_us());
    }

    fn keys(&mut self, prefix: String, after: Option<String>, limit: u32) -> Vec<String> {
        self.state.keys(&prefix, after.as_deref(), limit, self.now_us())
    }
}

impl metrics::Host for StoreData {
    fn add(&mut self, counter: String, by: f64) {
        let name = self.metric(counter);
        self.metrics.add(name, by);
    }

    fn set(&mut self, gauge: String, value: f64) {
        let name = self.metric(gauge);
        self.metrics.set(name, value);
    }

    fn observe(&mut self, histogram: String, value: f64) {
        let name = self.metric(histogram);
        self.metrics.observe(name, value);
    }
}

impl clock::Host for StoreData {
    fn now_us(&mut self) -> u64 {
        let time_us = self.time_us;
        self.clock.say(|| time_us.unwrap_or_else(metadata::now_us))
    }
}

impl random::Host for StoreData {
    fn next(&mut self) -> f64 {
        // The 53 bits that an `f64` between 0 and 1 holds.
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl http::Host for StoreData {
    async fn send(&mut self, request: http::Request) -> Result<http::Response, http::Error> {
        let mut answers = self.send_all(vec![request]).await;
        answers.pop().expect("one request has one answer")
    }

    async fn send_all(&mut self, requests: Vec<http::Request>) -> Vec<Result<http::Response, http::Error>> {
        let answers = self.requests.ask(requests).await;
        for answer in &answers {
            if let Err(http::Error::Denied(why)) = answer {
                self.log.write(Level::WARN, &format!("a request was denied: {why}"));
            }
        }
        answers
    }
}

impl monotonic_clock::Host for StoreData {
    fn now(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        self.clocks().now()
    }

    fn resolution(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        self.clocks().resolution()
    }

    fn subscribe_instant(
        &mut self,
        when: monotonic_clock::Instant,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        match &self.replay {
            None => self.clocks().subscribe_instant(when),
            Some(replay) => {
                replay.sleep_until(when);
                self.clocks().subscribe_duration(0)
            }
        }
    }

    fn subscribe_duration(
        &mut self,
        duration: monotonic_clock::Duration,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        match &self.replay {
            None => self.clocks().subscribe_duration(duration),
            Some(replay) => {
                replay.sleep(duration);
                self.clocks().subscribe_duration(0)
            }
        }
    }
}

impl WasiView for StoreData {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi.context, table: &mut self.wasi.resources }
    }
}
