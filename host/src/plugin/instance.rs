//! One running instance of a plugin: its store, its description, and the calls into it.
//!
//! Every call follows one path: the limits are set, the guest runs on a fiber and gives its thread
//! away at every epoch, what it returned is checked, and only then does what it changed count. Any
//! fault ends the instance.

use super::bindings::exports::tidemill::plugin::transformer::Guest;
use super::bindings::tidemill::plugin::types as wit;
use super::columns::Columns;
use super::emissions::Emissions;
use super::fault::{Fault, FaultKind};
use super::imports::Host;
use super::limits::{CallTime, Meter, Stuck, metered};
use super::outcome::{Outcome, check, check_emissions};
use super::state::HostState;
use super::ticker::Running;
use super::{CONTRACT_VERSION, Plugin};
use crate::config::{Limits, Redacted};
use crate::foreign_text;
use crate::message::Message;
use crate::telemetry::GuestMetrics;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::{Store, Trap};

/// How long instantiation and `init` together may run: nothing waits for them but the start or a
/// swap, and guests build their tables here.
const INIT_DEADLINE: Duration = Duration::from_secs(5);
/// How long `snapshot` and `restore` may run, each.
const STATE_DEADLINE: Duration = Duration::from_secs(1);
/// Most named outputs.
const MAX_OUTPUTS: usize = 1024;
/// Most metadata keys in each direction: each is looked up for every message.
const MAX_KEYS: usize = 128;
/// Longest name of an output or of a metadata key.
const MAX_NAME_BYTES: usize = 256;

/// What an instance is given by the stage that runs it.
#[derive(Clone)]
pub struct Setup {
    /// The name of the pipeline.
    pub pipeline: Arc<str>,
    /// The label of the stage.
    pub transform: Arc<str>,
    /// The plugin's configuration, as JSON. What came from variables in it is taken out of every text of
    /// the plugin.
    pub config: Redacted,
    /// What it may use.
    pub limits: Limits,
    /// What the host keeps for the stage.
    pub state: HostState,
    /// Where its own metrics go.
    pub metrics: GuestMetrics,
}

impl std::fmt::Debug for Setup {
    /// Without the configuration, which may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Setup");
        shown.field("pipeline", &self.pipeline).field("transform", &self.transform);
        shown.field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// How a plugin wants its payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All bytes in a row.
    Packed,
    /// One value a message.
    Each,
}

/// What a plugin said of itself, given its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its named outputs beside "default", in the order of their numbers from 1.
    pub outputs: Vec<Arc<str>>,
    /// The metadata keys it sees.
    pub reads: Vec<Arc<str>>,
    /// The metadata keys its emissions may set.
    pub writes: Vec<Arc<str>>,
    /// How it wants its payloads.
    pub form: Form,
    /// Whether it sees when messages were received.
    pub times: bool,
    /// How often it wants its timer called.
    pub tick: Option<Duration>,
}

/// An instance of a plugin, ready to be called. One call at a time.
pub struct Instance {
    plugin: Plugin,
    store: Store<Host>,
    guest: Guest,
    description: Description,
    columns: Columns,
    marks: Vec<bool>,
    meter: Arc<Meter>,
    limits: Limits,
    /// Set while a call is in progress, and for good after a fault or a call that was dropped.
    is_dead: bool,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Makes an instance, and gives it its configuration.
    ///
    /// # Errors
    /// A fault of kind `init`, also if the plugin refuses the configuration.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn instantiate(&self, setup: &Setup) -> Result<Instance, Fault> {
        let made = self.try_instantiate(setup).await;
        made.map_err(|fault| fault.shown(&setup.config).of_kind(FaultKind::Init))
    }

    async fn try_instantiate(&self, setup: &Setup) -> Result<Instance, Fault> {
        let engine = self.engine();
        let meter = Meter::new();
        let mut store = Store::new(engine.runtime(), Host::new(self, setup));
        store.limiter(|host| &mut host.limiter);
        store.set_hostcall_fuel(setup.limits.output_bytes);
        store.epoch_deadline_callback({
            let meter = meter.clone();
            move |_| Ok(meter.at_epoch())
        });
        store.set_epoch_deadline(1);

        let facts = [
            ("host", concat!("tidemill ", env!("CARGO_PKG_VERSION"))),
            ("contract", CONTRACT_VERSION),
            ("pipeline", &*setup.pipeline),
            ("transform", &*setup.transform),
        ];
        let running = engine.ticker().enter();
        meter.begin(INIT_DEADLINE);
        let returned = metered(
            &meter,
            pin!(async {
                let instance = self.component().instantiate_async(&mut store).await?;
                let guest = self.transformer().load(&mut store, &instance)?;
                let answer = guest.call_init(&mut store, setup.config.expose(), &facts).await?;
                wasmtime::Result::Ok((guest, answer))
            }),
        )
        .await;
        drop(running);
        let (guest, answer) = settle("init", INIT_DEADLINE, &mut store, returned)?;
        let description = match answer {
            Ok(description) => Description::try_new(description)?,
            Err(text) => {
                let detail = format!("init refused its configuration: {text}");
                return Err(Fault { is_refusal: true, ..Fault::new(FaultKind::Init, detail) });
            }
        };
        Ok(Instance {
            plugin: self.clone(),
            columns: Columns::new(&description),
            marks: Vec::new(),
            store,
            guest,
            description,
            meter,
            limits: setup.limits,
            is_dead: false,
        })
    }
}

impl Instance {
    /// What the plugin said of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The plugin.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Bytes of its memories and tables.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().limiter.used_bytes()
    }

    /// How long the last call took.
    pub fn last_call(&self) -> CallTime {
        self.meter.last_call()
    }

    /// Sets the time that the guest is told from now on, in microseconds since the Unix epoch: that of the
    /// messages where they carry one, `None` for the wall's.
    #[inline]
    pub fn set_time(&mut self, time_us: Option<u64>) {
        self.store.data_mut().time_us = time_us;
    }

    /// Gives the guest a batch.
    ///
    /// # Errors
    /// Any fault of the call or of what it returned. The instance is of no further use then.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn process(&mut self, batch: &[Message]) -> Result<Outcome, Fault> {
        let outcome = self.try_process(batch).await;
        outcome.map_err(|fault| fault.shown(self.config()))
    }

    async fn try_process(&mut self, batch: &[Message]) -> Result<Outcome, Fault> {
        let running = begin(
            Call::Ordinary,
            &self.plugin,
            &self.limits,
            &mut self.store,
            &self.meter,
            &mut self.is_dead,
        )?;
        let Some(columns) = self.columns.fill(batch, self.limits.memory_bytes) else {
            return Err(Fault::new(
                FaultKind::Memory,
                "the batch with its metadata is larger than limits.memory",
            ));
        };
        let metadata = columns.metadata();
        let call = self.guest.call_process(&mut self.store, columns.batch(metadata.as_deref()));
        let returned = metered(&self.meter, pin!(call)).await;
        drop(running);
        let outcome = answer("process", self.limits.deadline, &mut self.store, returned)?;
        let max_bytes = self.limits.output_bytes;
        let mut outcome = check(outcome, batch.len(), &self.description, max_bytes, &mut self.marks)?;
        for rejection in &mut outcome.rejections {
            rejection.reason = self.config().told(&rejection.reason);
        }
        self.accept();
        Ok(outcome)
    }

    /// Calls the guest's timer, at `now_us` microseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`Instance::process`].
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn tick(&mut self, now_us: u64) -> Result<Emissions, Fault> {
        let running = begin(
            Call::Ordinary,
            &self.plugin,
            &self.limits,
            &mut self.store,
            &self.meter,
            &mut self.is_dead,
        )?;
        let call = self.guest.call_tick(&mut self.store, now_us);
        let returned = metered(&self.meter, pin!(call)).await;
        drop(running);
        let emitted = answer("tick", self.limits.deadline, &mut self.store, returned);
        let emitted = emitted.and_then(|emissions| self.accept_emissions(emissions));
        emitted.map_err(|fault| fault.shown(self.config()))
    }

    /// Tells the guest that no message will follow.
    ///
    /// # Errors
    /// As [`Instance::process`].
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn finish(&mut self) -> Result<Emissions, Fault> {
        let running = begin(
            Call::Ordinary,
            &self.plugin,
            &self.limits,
            &mut self.store,
            &self.meter,
            &mut self.is_dead,
        )?;
        let call = self.guest.call_finish(&mut self.store);
        let returned = metered(&self.meter, pin!(call)).await;
        drop(running);
        let emitted = answer("finish", self.limits.deadline, &mut self.store, returned);
        let emitted = emitted.and_then(|emissions| self.accept_emissions(emissions));
        emitted.map_err(|fault| fault.shown(self.config()))
    }

    /// The guest's state as bytes of its own making, if it has any. Memory and output have head-room
    /// here, each as much again as the limits say, so that state can be had also when memory is nearly
    /// full.
    ///
    /// # Errors
    /// A fault of kind `snapshot`. A refusal leaves the instance as it was: the guest said no, or the
    /// snapshot is too large. After any other, running out of time among them, the instance is of no
    /// further use.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn snapshot(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let snapshot = self.try_snapshot().await;
        self.is_dead = snapshot.as_ref().is_err_and(|fault| !fault.is_refusal);
        snapshot.map_err(|fault| fault.shown(self.config()).of_kind(FaultKind::Snapshot))
    }

    async fn try_snapshot(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let running = begin(
            Call::Carrying,
            &self.plugin,
            &self.limits,
            &mut self.store,
            &self.meter,
            &mut self.is_dead,
        )?;
        let call = self.guest.call_snapshot(&mut self.store);
        let returned = metered(&self.meter, pin!(call)).await;
        drop(running);
        let snapshot = answer("snapshot", STATE_DEADLINE, &mut self.store, returned)?;
        let max_bytes = self.limits.output_bytes.saturating_mul(2);
        match &snapshot {
            Some(bytes) if bytes.len() > max_bytes => {
                let detail = format!(
                    "snapshot has {} bytes, and may have {max_bytes}: twice limits.output",
                    bytes.len()
                );
                Err(Fault { is_refusal: true, ..Fault::new(FaultKind::Output, detail) })
            }
            _ => Ok(snapshot),
        }
    }

    /// Gives the guest a snapshot of this or an earlier version of the plugin. Memory has the head-room
    /// of [`Instance::snapshot`].
    ///
    /// # Errors
    /// A fault of kind `restore`, also if the plugin refuses the state; the instance is of no
    /// further use then.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn restore(&mut self, snapshot: &[u8]) -> Result<(), Fault> {
        let restored = self.try_restore(snapshot).await;
        restored.map_err(|fault| fault.shown(self.config()).of_kind(FaultKind::Restore))
    }

    async fn try_restore(&mut self, snapshot: &[u8]) -> Result<(), Fault> {
        let running = begin(
            Call::Carrying,
            &self.plugin,
            &self.limits,
            &mut self.store,
            &self.meter,
            &mut self.is_dead,
        )?;
        let call = self.guest.call_restore(&mut self.store, snapshot);
        let returned = metered(&self.meter, pin!(call)).await;
        drop(running);
        answer("restore", STATE_DEADLINE, &mut self.store, returned)?;
        self.is_dead = false;
        Ok(())
    }

    /// What the guest was told, some of which it must not tell.
    fn config(&self) -> &Redacted {
        self.store.data().log.config()
    }

    fn accept_emissions(&mut self, emissions: Option<wit::Emissions>) -> Result<Emissions, Fault> {
        let emissions = match emissions {
            None => Emissions::none(),
            Some(emissions) => check_emissions(emissions, None, &self.description, self.limits.output_bytes)?,
        };
        self.accept();
        Ok(emissions)
    }

    fn accept(&mut self) {
        self.store.data_mut().commit();
        self.is_dead = false;
    }
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Messages, a timer, or the end.
    Ordinary,
    /// State, on its way out of an instance or into it.
    Carrying,
}

/// Sets the limits of a call that is about to be made.
fn begin<'a>(
    call: Call,
    plugin: &'a Plugin,
    limits: &Limits,
    store: &mut Store<Host>,
    meter: &Meter,
    is_dead: &mut bool,
) -> Result<Running<'a>, Fault> {
    if std::mem::replace(is_dead, true) {
        return Err(Fault::new(
            FaultKind::Trap,
            "the instance is dead: a call before this one did not end well",
        ));
    }
    let running = plugin.engine().ticker().enter();
    let (deadline, output_bytes) = match call {
        Call::Ordinary => (limits.deadline, limits.output_bytes),
        // What is too large is refused when it is there: to stop it on its way would end the instance. It
        // cannot be larger than the guest's memory.
        Call::Carrying => (STATE_DEADLINE, limits.memory_bytes.max(limits.output_bytes).saturating_mul(2)),
    };
    store.data_mut().begin(call == Call::Carrying);
    store.set_hostcall_fuel(output_bytes);
    store.set_epoch_deadline(1);
    meter.begin(deadline);
    Ok(running)
}

/// What the guest answered, or the fault that the call ended with.
fn answer<T>(
    function: &str,
    deadline: Duration,
    store: &mut Store<Host>,
    returned: Result<wasmtime::Result<Result<T, String>>, Stuck>,
) -> Result<T, Fault> {
    let answered = settle(function, deadline, store, returned)?;
    answered.map_err(|text| Fault::answered(function, &text, store.data_mut().limiter.take_refusal()))
}

fn settle<T>(
    function: &str,
    deadline: Duration,
    store: &mut Store<Host>,
    returned: Result<wasmtime::Result<T>, Stuck>,
) -> Result<T, Fault> {
    let error = match returned {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(Stuck) => {
            let detail = format!("{function} ran and waited, mostly waited, for longer than {deadline:?}");
            return Err(Fault::new(FaultKind::Deadline, detail));
        }
    };
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return Err(Fault::new(FaultKind::Deadline, format!("{function} ran longer than {deadline:?}")));
    }
    let host = store.data_mut();
    Err(Fault::failed(function, &error, host.limiter.take_refusal(), host.last_words()))
}

impl Description {
    fn try_new(described: wit::Description) -> Result<Self, Fault> {
        let wit::Description { outputs, reads, writes, payloads, times, tick_ms, options: _ } = described;
        if let Some(name) = outputs.iter().find(|name| matches!(name.as_str(), "default" | "*")) {
            return Err(Fault::invalid(format!("init described an output {name:?}, a name the host uses")));
        }
        Ok(Self {
            outputs: names("outputs", outputs, MAX_OUTPUTS)?,
            reads: names("reads", reads, MAX_KEYS)?,
            writes: names("writes", writes, MAX_KEYS)?,
            form: match payloads {
                wit::Form::Packed => Form::Packed,
                wit::Form::Each => Form::Each,
            },
            times,
            tick: (tick_ms > 0).then(|| Duration::from_millis(tick_ms.into())),
        })
    }
}

/// Checks that names are there, differ, can be shown, and are no more and no longer than they may be.
fn names(list: &str, names: Vec<String>, most: usize) -> Result<Vec<Arc<str>>, Fault> {
    if names.len() > most {
        return Err(Fault::invalid(format!("init described {} {list}, more than {most}", names.len())));
    }
    if let Some(name) = names.iter().find(|name| name.len() > MAX_NAME_BYTES) {
        let length = name.len();
        return Err(Fault::invalid(format!(
            "init described a name of {length} bytes in {list}, more than {MAX_NAME_BYTES}"
        )));
    }
    let mut known = BTreeSet::new();
    for name in &names {
        if name.is_empty() || !foreign_text::is_plain(name) {
            return Err(Fault::invalid(format!("init described {name:?} in {list}, which is no name")));
        }
        if !known.insert(name) {
            return Err(Fault::invalid(format!("init described {name:?} twice in {list}")));
        }
    }
    Ok(names.into_iter().map(Arc::from).collect())
}
