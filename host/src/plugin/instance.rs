//! One running instance of a plugin: its description, and the calls that a stage makes.
//!
//! What a call returned is checked, and only then does what it changed count. Any fault ends the
//! instance.

use super::bindings::exports::tidemill::plugin::transformer::Guest;
use super::bindings::tidemill::plugin::types as wit;
use super::call::{Callee, Purpose};
use super::columns::Columns;
use super::description::Description;
use super::edits::Edits;
use super::emissions::Emissions;
use super::exported::Exported;
use super::fault::{Fault, FaultKind};
use super::fields::{JsonFields, Search};
use super::json_places::JsonPlaces;
use super::limits::CallTime;
use super::notes::CallNotes;
use super::outcome::{Outcome, check, check_emissions};
use super::part::StatePart;
use super::process_export::ProcessExport;
use super::setup::Setup;
use super::{HostState, Plugin};
use crate::config::Redacted;
use crate::message::Message;
use bytes::Bytes;

/// An instance of a plugin, ready to be called. One call at a time.
pub struct Instance {
    callee: Callee<Functions>,
    description: Description,
    columns: Columns,
    fields: JsonFields,
    edits: Edits,
    marks: Vec<bool>,
}

/// What can be called of a guest.
struct Functions {
    /// All its functions.
    guest: Guest,
    /// The one that most calls are of.
    process: ProcessExport,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("plugin", self.plugin()).finish_non_exhaustive()
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
        let Exported::Transformer(transformer) = self.exported() else {
            let detail =
                "it is a connector, which an endpoint takes as `before_connect` and no transform does";
            return Err(Fault { is_refusal: true, ..Fault::new(FaultKind::Init, detail) });
        };
        let facts = setup.facts();
        let facts: Vec<_> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let started = Callee::start(self, setup, async |store, instance| {
            let guest = transformer.all.load(&mut *store, instance)?;
            let process = ProcessExport::try_new(&mut *store, instance, &transformer.process)?;
            let answer = guest.call_init(store, setup.config.expose(), &facts).await?;
            Ok((Functions { guest, process }, answer))
        });
        let made = started.await.and_then(|(callee, described)| {
            let description = Description::try_new(described)?;
            let columns = Columns::new(&description);
            let mut places = JsonPlaces::default();
            let fields = JsonFields::try_new(&description, &mut places)?;
            let edits = Edits::try_new(&description, places)?;
            Ok(Instance { callee, description, columns, fields, edits, marks: Vec::new() })
        });
        made.map_err(|fault| fault.shown(&setup.config).of_kind(FaultKind::Init))
    }
}

impl Instance {
    /// The description that the plugin gave of itself in `init`.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The plugin that the instance is of.
    pub fn plugin(&self) -> &Plugin {
        self.callee.plugin()
    }

    /// What the guest was told, some of which it must not tell.
    pub fn config(&self) -> &Redacted {
        self.callee.host().log.config()
    }

    /// Bytes of its memories and tables.
    pub fn memory_bytes(&self) -> usize {
        self.callee.host().limiter.used_bytes()
    }

    /// The time that the last call took.
    pub fn last_call(&self) -> CallTime {
        self.callee.last_call()
    }

    /// Sets the time that the guest is told from now on, in microseconds since the Unix epoch: that of the
    /// messages where they carry one, `None` for the wall's. An instance of a replay goes on with the time it has.
    #[inline]
    pub fn set_time(&mut self, time_us: Option<u64>) {
        self.callee.host_mut().set_time(time_us);
    }

    /// It takes over, having begun anew beside: what it has changed of a blank state counts for this one.
    pub fn adopt_state(&mut self, state: HostState) {
        self.callee.host_mut().adopt_state(state);
    }

    /// What the guest is told in the next call, of time, chance and over HTTP, is noted.
    pub fn note(&mut self) {
        self.callee.host_mut().note();
    }

    /// What was noted, if anything was; nothing is from now on.
    pub fn take_notes(&mut self) -> Option<CallNotes> {
        self.callee.host_mut().take_notes()
    }

    /// In the next call the guest is told what was noted of a call of another instance. It sends no request from now
    /// on, and is answered what the other was.
    pub fn follow(&mut self, notes: CallNotes) {
        self.callee.host_mut().follow(notes);
    }

    /// The first request since then that the other did not send.
    pub fn take_stranger(&mut self) -> Option<String> {
        self.callee.host_mut().requests.take_stranger()
    }

    /// A text about the guest as it may be told: without what is secret in its configuration.
    pub fn told(&self, text: &str) -> String {
        self.config().told(text)
    }

    /// Gives the guest a batch.
    ///
    /// # Errors
    /// Any fault of the call or of what it returned. The instance is of no further use then.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn process(&mut self, batch: &[Message]) -> Result<Outcome, Fault> {
        let max_bytes = self.callee.limits().memory_bytes;
        let Some(Search { bytes, refused }) = self.fields.find(self.edits.places(), batch, max_bytes) else {
            return Err(self.too_large());
        };
        // What is not JSON is not for this guest: it sees the others, and their indices are put right again.
        let kept = (!refused.is_empty()).then(|| without(batch, &refused));
        let messages = kept.as_ref().map_or(batch, |(_, messages)| messages);
        if messages.is_empty() {
            return Ok(Outcome::uncalled().among(&[], refused));
        }
        let Some(columns) = self.columns.fill(messages, max_bytes - bytes) else {
            return Err(self.too_large());
        };
        let texts = self.fields.each();
        let all = columns.columns(self.fields.values(&texts));
        let crossing = columns.batch(all.as_deref());
        let outcome = self.callee.call("process", Purpose::Ordinary, async |functions, store| {
            functions.process.call(store, &crossing).await
        });
        let outcome = match outcome.await {
            Ok(outcome) => self.accept_outcome(outcome, messages),
            Err(fault) => Err(fault),
        };
        match (outcome, kept) {
            (Ok(outcome), None) => Ok(outcome),
            (Ok(outcome), Some((indices, _))) => Ok(outcome.among(&indices, refused)),
            (Err(fault), _) => Err(fault.shown(self.config())),
        }
    }

    fn accept_outcome(&mut self, outcome: Box<wit::Outcome>, batch: &[Message]) -> Result<Outcome, Fault> {
        let max_bytes = self.callee.limits().output_bytes;
        let mut outcome =
            check(outcome, batch, &self.description, &mut self.edits, max_bytes, &mut self.marks)?;
        let config = self.callee.host().log.config();
        for rejection in &mut outcome.rejections {
            rejection.reason = config.told(&rejection.reason);
        }
        outcome.edited.tell_reasons(|reason| config.told(reason));
        if let Some(retry) = &mut outcome.retry {
            retry.reason = config.told(&retry.reason);
        }
        self.accept();
        Ok(outcome)
    }

    fn too_large(&mut self) -> Fault {
        self.callee.bury();
        let detail = "the batch with its metadata and fields is larger than limits.memory";
        Fault::new(FaultKind::Memory, detail)
    }

    /// Calls the guest's timer, at `now_us` microseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`Instance::process`].
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn tick(&mut self, now_us: u64) -> Result<Emissions, Fault> {
        let emitted = self.callee.call("tick", Purpose::Ordinary, async |functions, store| {
            functions.guest.call_tick(store, now_us).await
        });
        let emitted = emitted.await.and_then(|emissions| self.accept_emissions(emissions));
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
        let emitted = self.callee.call("finish", Purpose::Finishing, async |functions, store| {
            functions.guest.call_finish(store).await
        });
        let emitted = emitted.await.and_then(|emissions| self.accept_emissions(emissions));
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
    pub async fn snapshot(&mut self) -> Result<Option<Bytes>, Fault> {
        let snapshot = self.try_snapshot().await;
        if snapshot.as_ref().err().is_none_or(|fault| fault.is_refusal) {
            self.callee.revive();
        }
        snapshot.map_err(|fault| fault.shown(self.config()).of_kind(FaultKind::Snapshot))
    }

    async fn try_snapshot(&mut self) -> Result<Option<Bytes>, Fault> {
        let snapshot = self.callee.call("snapshot", Purpose::Carrying, async |functions, store| {
            functions.guest.call_snapshot(store).await
        });
        let snapshot = snapshot.await?;
        let max_bytes = self.callee.limits().output_bytes.saturating_mul(2);
        match &snapshot {
            Some(bytes) if bytes.len() > max_bytes => {
                let detail = format!(
                    "snapshot has {} bytes, and may have {max_bytes}: twice limits.output",
                    bytes.len()
                );
                Err(Fault { is_refusal: true, ..Fault::new(FaultKind::Output, detail) })
            }
            _ => Ok(snapshot.map(Bytes::from)),
        }
    }

    /// Gives the guest snapshots of this or an earlier version of the plugin, of which it is to keep what
    /// belongs to this part: as a rule one, and all of it. Memory has the head-room of
    /// [`Instance::snapshot`].
    ///
    /// # Errors
    /// A fault of kind `restore`, also if the plugin refuses the state; the instance is of no
    /// further use then.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn restore(&mut self, snapshots: &[impl AsRef<[u8]>], part: StatePart) -> Result<(), Fault> {
        let StatePart { number, of } = part;
        let restored = self.callee.call("restore", Purpose::Carrying, async |functions, store| {
            let snapshots: Vec<&[u8]> = snapshots.iter().map(AsRef::as_ref).collect();
            functions.guest.call_restore(store, &snapshots, number, of).await
        });
        restored.await.map_err(|fault| fault.shown(self.config()).of_kind(FaultKind::Restore))?;
        self.callee.revive();
        Ok(())
    }

    fn accept_emissions(&mut self, emissions: Option<wit::Emissions>) -> Result<Emissions, Fault> {
        let max_bytes = self.callee.limits().output_bytes;
        let emissions = match emissions {
            None => Emissions::none(),
            Some(emissions) => check_emissions(emissions, None, &self.description, max_bytes)?,
        };
        self.accept();
        Ok(emissions)
    }

    fn accept(&mut self) {
        self.callee.host_mut().commit();
        self.callee.revive();
    }
}

/// The messages of a batch that were not refused, and their indices.
fn without(batch: &[Message], refused: &[(u32, String)]) -> (Vec<u32>, Vec<Message>) {
    let mut refused = refused.iter().map(|(index, _)| *index).peekable();
    let kept = (0..).zip(batch).filter(|(index, _)| refused.next_if_eq(index).is_none());
    kept.map(|(index, message)| (index, message.clone())).unzip()
}
