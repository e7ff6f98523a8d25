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
use crate::config::Limits;
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
/// Most named outputs, and most metadata keys in each direction.
const MAX_NAMES: usize = 1024;

/// What an instance is given by the stage that runs it.
#[derive(Clone)]
pub struct Setup {
    /// The name of the pipeline.
    pub pipeline: Arc<str>,
    /// The label of the stage.
    pub transform: Arc<str>,
    /// The plugin's configuration, as JSON.
    pub config: String,
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
        self.try_instantiate(setup).await.map_err(|fault| fault.of_kind(FaultKind::Init))
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
        let returned = metered(&meter, INIT_DEADLINE, async {
            let instance = self.component().instantiate_async(&mut store).await?;
            let guest = self.transformer().load(&mut store, &instance)?;
            let answer = guest.call_init(&mut store, &setup.config, &facts).await?;
            wasmtime::Result::Ok((guest, answer))
        })
        .await;
        drop(running);
        let (guest, answer) = settle("init", INIT_DEADLINE, &mut store, returned)?;
        let description = match answer {
            Ok(description) => Description::try_new(description)?,
            Err(text) => {
                let detail = format!("init refused its configuration: {}", foreign_text::shown(&text));
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

    /// Gives the guest a batch.
    ///
    /// # Errors
    /// Any fault of the call or of what it returned. The instance is of no further use then.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn process(&mut self, batch: &[Message]) -> Result<Outcome, Fault> {
        const FUNCTION: &str = "process";
        let deadline = self.limits.deadline;
        let running = begin(&self.plugin, &mut self.store, &self.meter, deadline, &mut self.is_dead)?;
        let Some(columns) = self.columns.fill(batch) else {
            return Err(Fault::new(FaultKind::Memory, "the batch is larger than 4 GiB"));
        };
        let metadata = columns.metadata();
        let call = self.guest.call_process(&mut self.store, columns.batch(metadata.as_deref()));
        let returned = metered(&self.meter, deadline, pin!(call)).await;
        drop(running);
        let outcome = answer(FUNCTION, deadline, &mut self.store, returned)?;
        let outcome = check(outcome, batch.len(), &self.description, &mut self.marks)?;
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
        let deadline = self.limits.deadline;
        let running = begin(&self.plugin, &mut self.store, &self.meter, deadline, &mut self.is_dead)?;
        let call = self.guest.call_tick(&mut self.store, now_us);
        let returned = metered(&self.meter, deadline, pin!(call)).await;
        drop(running);
        let emissions = answer("tick", deadline, &mut self.store, returned)?;
        self.accept_emissions(emissions)
    }

    /// Tells the guest that no message will follow.
    ///
    /// # Errors
    /// As [`Instance::process`].
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn finish(&mut self) -> Result<Emissions, Fault> {
        let deadline = self.limits.deadline;
        let running = begin(&self.plugin, &mut self.store, &self.meter, deadline, &mut self.is_dead)?;
        let call = self.guest.call_finish(&mut self.store);
        let returned = metered(&self.meter, deadline, pin!(call)).await;
        drop(running);
        let emissions = answer("finish", deadline, &mut self.store, returned)?;
        self.accept_emissions(emissions)
    }

    /// The guest's state as bytes of its own making, if it has any.
    ///
    /// # Errors
    /// A fault of kind `snapshot`; unless it is a refusal, the instance is of no further use then.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn snapshot(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let running = begin(&self.plugin, &mut self.store, &self.meter, STATE_DEADLINE, &mut self.is_dead)?;
        let call = self.guest.call_snapshot(&mut self.store);
        let returned = metered(&self.meter, STATE_DEADLINE, pin!(call)).await;
        drop(running);
        let snapshot = answer("snapshot", STATE_DEADLINE, &mut self.store, returned)
            .map_err(|fault| fault.of_kind(FaultKind::Snapshot));
        self.is_dead = snapshot.as_ref().is_err_and(|fault| !fault.is_refusal);
        snapshot
    }

    /// Gives the guest a snapshot of this or an earlier version of the plugin.
    ///
    /// # Errors
    /// A fault of kind `restore`, also if the plugin refuses the state; the instance is of no
    /// further use then.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn restore(&mut self, snapshot: &[u8]) -> Result<(), Fault> {
        let running = begin(&self.plugin, &mut self.store, &self.meter, STATE_DEADLINE, &mut self.is_dead)?;
        let call = self.guest.call_restore(&mut self.store, snapshot);
        let returned = metered(&self.meter, STATE_DEADLINE, pin!(call)).await;
        drop(running);
        answer("restore", STATE_DEADLINE, &mut self.store, returned)
            .map_err(|fault| fault.of_kind(FaultKind::Restore))?;
        self.is_dead = false;
        Ok(())
    }

    fn accept_emissions(&mut self, emissions: Option<wit::Emissions>) -> Result<Emissions, Fault> {
        let emissions = match emissions {
            None => Emissions::none(),
            Some(emissions) => check_emissions(emissions, None, &self.description)?,
        };
        self.accept();
        Ok(emissions)
    }

    fn accept(&mut self) {
        self.store.data_mut().commit();
        self.is_dead = false;
    }
}

/// Sets the limits of a call that is about to be made.
fn begin<'a>(
    plugin: &'a Plugin,
    store: &mut Store<Host>,
    meter: &Meter,
    deadline: Duration,
    is_dead: &mut bool,
) -> Result<Running<'a>, Fault> {
    if std::mem::replace(is_dead, true) {
        return Err(Fault::new(
            FaultKind::Trap,
            "the instance is dead: a call before this one did not end well",
        ));
    }
    let running = plugin.engine().ticker().enter();
    store.data_mut().limiter.take_refusal();
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
    match returned {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) => {
            Err(Fault::new(FaultKind::Deadline, format!("{function} ran longer than {deadline:?}")))
        }
        Ok(Err(error)) => Err(Fault::failed(function, &error, store.data_mut().limiter.take_refusal())),
        Err(Stuck) => Err(Fault::new(
            FaultKind::Deadline,
            format!("{function} waited for something outside of it for longer than {deadline:?}"),
        )),
    }
}

impl Description {
    fn try_new(described: wit::Description) -> Result<Self, Fault> {
        let wit::Description { outputs, reads, writes, payloads, times, tick_ms, options: _ } = described;
        if let Some(name) = outputs.iter().find(|name| matches!(name.as_str(), "default" | "*")) {
            return Err(Fault::invalid(format!("init described an output {name:?}, a name the host uses")));
        }
        Ok(Self {
            outputs: names("outputs", outputs)?,
            reads: names("reads", reads)?,
            writes: names("writes", writes)?,
            form: match payloads {
                wit::Form::Packed => Form::Packed,
                wit::Form::Each => Form::Each,
            },
            times,
            tick: (tick_ms > 0).then(|| Duration::from_millis(tick_ms.into())),
        })
    }
}

/// Checks that names are there, differ, and can be shown.
fn names(list: &str, names: Vec<String>) -> Result<Vec<Arc<str>>, Fault> {
    if names.len() > MAX_NAMES {
        return Err(Fault::invalid(format!("init described {} {list}, more than {MAX_NAMES}", names.len())));
    }
    let mut known = BTreeSet::new();
    for name in &names {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(Fault::invalid(format!("init described {name:?} in {list}, which is no name")));
        }
        if !known.insert(name) {
            return Err(Fault::invalid(format!("init described {name:?} twice in {list}")));
        }
    }
    Ok(names.into_iter().map(Arc::from).collect())
}
