//! Calls into a guest, one at a time, and the limits of each.
//!
//! Every call goes one way: its limits are set, the guest runs on a fiber and gives its thread away at every
//! epoch, and a call that does not end well leaves a guest that is never called again.

use super::Plugin;
use super::fault::{Fault, FaultKind};
use super::imports::StoreData;
use super::kind::PluginKind;
use super::limits::{CallTime, Meter, Stuck, metered};
use super::setup::Setup;
use crate::config::Limits;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::component::Instance;
use wasmtime::{Store, Trap};

/// How long instantiation and `init` together may run: nothing waits for them but the start or a
/// swap, and guests build their tables here.
const INIT_DEADLINE: Duration = Duration::from_secs(5);
/// How long `finish` may run, where a call may not run for longer: all that a plugin holds back may go out in it.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// How long `snapshot` and `restore` may run, each.
const STATE_DEADLINE: Duration = Duration::from_secs(1);

/// So many times as long a guest may run whose code is not optimised: it was measured to be 2.1 times as slow at most.
const UNOPTIMISED_FACTOR: u32 = 4;

/// How long a call may run that is given so long with optimised code.
fn allowed(plugin: &Plugin, deadline: Duration) -> Duration {
    if plugin.is_optimised() { deadline } else { deadline.saturating_mul(UNOPTIMISED_FACTOR) }
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Messages, or a timer.
    Ordinary,
    /// The end.
    Finishing,
    /// State, on its way out of an instance or into it.
    Carrying,
}

/// A guest that was started, and all that a call of it needs. `G` has the functions that it exports.
pub(super) struct Callee<G> {
    plugin: Plugin,
    store: Store<StoreData>,
    functions: G,
    meter: Arc<Meter>,
    limits: Limits,
    /// Set while a call is in progress, and for good after a fault or a call that was dropped.
    is_dead: bool,
}

impl<G> Callee<G> {
    /// Makes an instance of the plugin; `init` finds what it exports and calls its `init`. Gives what the guest
    /// described itself as.
    pub(super) async fn start<D>(
        plugin: &Plugin,
        setup: &Setup,
        init: impl AsyncFnOnce(&mut Store<StoreData>, &Instance) -> wasmtime::Result<(G, Result<D, String>)>,
    ) -> Result<(Self, D), Fault> {
        if let (Some(http), None) = (plugin.http_import(), &setup.http) {
            let place = match setup.kind {
                PluginKind::Transform => "at the transform",
                PluginKind::Connector => "in `before_connect`",
            };
            let detail = format!(
                "it imports {http}, and no requests are granted: `allow = [\"https://api.example.com\"]` {place} \
                 would grant them"
            );
            return Err(Fault { is_refusal: true, ..Fault::new(FaultKind::Init, detail) });
        }
        let runtime = plugin.runtime();
        let meter = Meter::new();
        let mut store = Store::new(runtime.engine(), StoreData::new(plugin.name(), setup, meter.clone()));
        store.limiter(|host| &mut host.limiter);
        store.set_hostcall_fuel(setup.limits.output_bytes);
        store.epoch_deadline_callback({
            let meter = meter.clone();
            move |_| Ok(meter.at_epoch())
        });
        store.set_epoch_deadline(1);

        let running = runtime.ticker().enter();
        let deadline = allowed(plugin, INIT_DEADLINE);
        meter.begin(deadline);
        let returned = metered(
            &meter,
            pin!(async {
                let instance = plugin.component().instantiate_async(&mut store).await?;
                init(&mut store, &instance).await
            }),
        )
        .await;
        drop(running);
        let (functions, answer) = settle("init", deadline, &mut store, returned)?;
        setup.first_answers.keep(store.data_mut().requests.take_notes());
        let description = answer.map_err(|text| {
            let detail = format!("init refused its configuration: {text}");
            Fault { is_refusal: true, ..Fault::new(FaultKind::Init, detail) }
        })?;
        let callee =
            Self { plugin: plugin.clone(), store, functions, meter, limits: setup.limits, is_dead: false };
        Ok((callee, description))
    }

    /// Calls a function of the guest. The guest is dead afterwards, until [`Self::revive`] says that what it
    /// returned was accepted.
    pub(super) async fn call<T>(
        &mut self,
        function: &str,
        purpose: Purpose,
        call: impl AsyncFnOnce(&G, &mut Store<StoreData>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Fault> {
        if std::mem::replace(&mut self.is_dead, true) {
            let detail = "the instance is dead: a call before this one did not end well";
            return Err(Fault::new(FaultKind::Trap, detail));
        }
        let Limits { deadline, output_bytes, memory_bytes } = self.limits;
        let (deadline, output_bytes) = match purpose {
            Purpose::Ordinary => (deadline, output_bytes),
            Purpose::Finishing => (deadline.max(END_DEADLINE), output_bytes),
            // What is too large is refused when it is there: to stop it on its way would end the instance. It
            // cannot be larger than the guest's memory.
            Purpose::Carrying => (STATE_DEADLINE, memory_bytes.max(output_bytes).saturating_mul(2)),
        };
        let deadline = allowed(&self.plugin, deadline);
        let running = self.plugin.runtime().ticker().enter();
        self.store.data_mut().begin(purpose == Purpose::Carrying);
        self.store.set_hostcall_fuel(output_bytes);
        self.store.set_epoch_deadline(1);
        self.meter.begin(deadline);
        let returned = metered(&self.meter, pin!(call(&self.functions, &mut self.store))).await;
        drop(running);
        let answered = settle(function, deadline, &mut self.store, returned)?;
        answered.map_err(|text| {
            let refusal = self.store.data_mut().limiter.take_refusal();
            Fault::answered(function, &text, refusal)
        })
    }

    /// The guest can be called again, after what a call returned was accepted, or refused without harm.
    pub(super) fn revive(&mut self) {
        self.is_dead = false;
    }

    /// The guest cannot be called again.
    pub(super) fn bury(&mut self) {
        self.is_dead = true;
    }

    pub(super) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the guest has of the host.
    #[inline]
    pub(super) fn host(&self) -> &StoreData {
        self.store.data()
    }

    /// What the guest has of the host.
    #[inline]
    pub(super) fn host_mut(&mut self) -> &mut StoreData {
        self.store.data_mut()
    }

    /// How long the last call took.
    pub(super) fn last_call(&self) -> CallTime {
        self.meter.last_call()
    }
}

/// What a call came to, or the fault that it ended with.
fn settle<T>(
    function: &str,
    deadline: Duration,
    store: &mut Store<StoreData>,
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
        return Err(Fault::late(function, deadline, &error));
    }
    let host = store.data_mut();
    Err(Fault::failed(function, &error, host.limiter.take_refusal(), host.last_words()))
}
