//! A transform: an instance of a plugin, and what happens when it fails.
//!
//! A batch goes through in pieces, each one call. A piece that faults costs the instance; a new one
//! gets the last good snapshot, and the piece is tried in halves until the message at fault is
//! alone. That one goes where `on_error` says; the others go on.

use super::dead_letters::Place;
use super::merge::{self, Counted};
use super::outlets::Routed;
use crate::config::{self, OnError};
use crate::message::{Failed, Message};
use crate::metadata::now_us;
use crate::plugin::{Emissions, Fault, FaultKind, Instance, Plugin, Setup};
use crate::reason::Reason;
use crate::telemetry::StageMetrics;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A snapshot is at most so old while messages flow.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);
/// So many calls in a row within the deadline double the size of a batch again that was halved.
const CALLS_TO_RECOVER: u32 = 64;

/// One transform of a running pipeline.
#[derive(Debug)]
pub(super) struct Stage {
    setup: Setup,
    on_error: OnError,
    tick: Option<Duration>,
    room: Room,
    plugin: Plugin,
    /// None after a fault, until the next call.
    instance: Option<Instance>,
    last_good: LastGood,
    next_tick: Option<tokio::time::Instant>,
    place: Place,
    metrics: StageMetrics,
    /// How long the pieces of the current batch are that were cut by a fault, the next one last.
    pieces: Vec<usize>,
}

/// The state that a new instance starts with after a fault.
#[derive(Debug)]
struct LastGood {
    snapshot: Option<Vec<u8>>,
    taken: Instant,
    /// Whether a call was accepted since it was taken.
    is_stale: bool,
}

/// How the state of the old version reached the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarriedState {
    /// As the old version was at the swap, or as the last good snapshot has it.
    Carried,
    /// There was state, but it could not be had.
    Fresh,
    /// There was none.
    None,
}

/// Why a stage cannot go on.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

/// Whether a pipeline goes on after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    /// A message failed and `on_error` is `stop`.
    Stop,
}

impl Stage {
    /// A stage that starts with this instance, made from `setup`.
    pub(super) fn new(
        transform: &config::Transform,
        setup: Setup,
        instance: Instance,
        metrics: StageMetrics,
    ) -> Self {
        let plugin = instance.plugin().clone();
        let mut this = Self {
            place: Place { stage: setup.transform.clone(), losses: metrics.losses.clone(), plugin: None },
            setup,
            on_error: transform.on_error,
            tick: transform.tick,
            room: Room::new(transform.max_batch, transform.max_batch_bytes),
            plugin,
            instance: None,
            last_good: LastGood { snapshot: None, taken: Instant::now(), is_stale: false },
            next_tick: None,
            metrics,
            pieces: Vec::new(),
        };
        this.install(instance);
        this
    }

    /// Where messages fail here.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The named outputs of the version that runs.
    pub(super) fn outputs(&self) -> &[Arc<str>] {
        self.instance.as_ref().map_or(&[], |instance| &instance.description().outputs)
    }

    /// How much a source may put into a batch for this stage.
    pub(super) fn room(&self) -> crate::source::Room {
        crate::source::Room { messages: self.room.messages, bytes: self.room.max_bytes }
    }

    /// When the timer is due.
    pub(super) fn next_tick(&self) -> Option<tokio::time::Instant> {
        self.next_tick
    }

    /// Puts a batch through, which is empty afterwards.
    pub(super) async fn process(
        &mut self,
        batch: &mut Vec<Message>,
        routed: &mut Vec<Routed>,
        failed: &mut Vec<Failed>,
    ) -> Result<Verdict, Broken> {
        self.metrics.received.inc_by(batch.len() as u64);
        self.metrics.in_flight.set(batch.len() as i64);
        let failed_before = failed.len();
        while !batch.is_empty() {
            let piece = self.pieces.pop().unwrap_or_else(|| self.room.piece(batch));
            self.refresh_snapshot().await;
            let instance = match &mut self.instance {
                Some(instance) => instance,
                None => match self.restart().await {
                    Ok(instance) => instance,
                    Err(broken) => {
                        failed.extend(batch.drain(..).map(|message| Failed {
                            message,
                            reason: Reason::Trap,
                            detail: broken.0.clone(),
                        }));
                        self.metrics.in_flight.set(0);
                        return Err(broken);
                    }
                },
            };
            let result = instance.process(&batch[..piece]).await;
            self.called(&result);
            match result {
                Ok(outcome) => {
                    self.room.recover();
                    let counted =
                        merge::outcome(batch.drain(..piece), outcome, self.on_error, routed, failed);
                    self.count(&counted);
                }
                Err(fault) => {
                    self.faulted(&fault);
                    if piece > 1 {
                        self.pieces.push(piece - piece / 2);
                        self.pieces.push(piece / 2);
                    } else {
                        self.fail(batch.remove(0), fault, routed, failed);
                    }
                }
            }
        }
        self.pieces.clear();
        self.metrics.in_flight.set(0);
        let has_failed = failed.len() > failed_before;
        if self.on_error == OnError::Drop {
            for failed in failed.drain(failed_before..) {
                self.place.losses.dropped(failed.reason, 1);
            }
        }
        Ok(if has_failed && self.on_error == OnError::Stop { Verdict::Stop } else { Verdict::GoOn })
    }

    /// Calls the timer, which was due.
    pub(super) async fn tick(&mut self, routed: &mut Vec<Routed>) -> Result<(), Broken> {
        self.next_tick = self.interval().map(|interval| tokio::time::Instant::now() + interval);
        let instance = match &mut self.instance {
            Some(instance) => instance,
            None => self.restart().await?,
        };
        let result = instance.tick(now_us()).await;
        self.called(&result);
        self.emit(result, routed);
        Ok(())
    }

    /// Tells the plugin that no message will follow.
    pub(super) async fn finish(&mut self, routed: &mut Vec<Routed>) -> Result<(), Broken> {
        self.next_tick = None;
        let instance = match &mut self.instance {
            Some(instance) => instance,
            None => self.restart().await?,
        };
        let result = instance.finish().await;
        self.called(&result);
        self.emit(result, routed);
        Ok(())
    }

    /// Exchanges the running version for `next`, which is initialised. State is carried over unless
    /// `fresh` is asked for. Gives back the instance that runs no more, to be dropped elsewhere, and
    /// how the state fared; on an error, that is `next`, and the old version runs on.
    pub(super) async fn swap(
        &mut self,
        mut next: Instance,
        fresh: bool,
    ) -> Result<(Option<Instance>, CarriedState), (Instance, Fault)> {
        let started = Instant::now();
        let (state, snapshot) = if fresh {
            (CarriedState::Fresh, None)
        } else {
            match self.take_snapshot().await {
                Ok(snapshot) => {
                    let state = if snapshot.is_some() { CarriedState::Carried } else { CarriedState::None };
                    (state, snapshot)
                }
                Err(fault) if self.instance.is_some() => return Err((next, fault)),
                Err(_) => match self.last_good.snapshot.clone() {
                    Some(last_good) => (CarriedState::Carried, Some(last_good)),
                    None => (CarriedState::Fresh, None),
                },
            }
        };
        if let Some(snapshot) = &snapshot
            && let Err(fault) = next.restore(snapshot).await
        {
            return Err((next, fault));
        }
        let old = self.instance.take();
        self.plugin = next.plugin().clone();
        self.last_good = LastGood { snapshot, taken: Instant::now(), is_stale: false };
        self.install(next);
        self.metrics.swap_duration.observe(started.elapsed().as_secs_f64());
        Ok((old, state))
    }

    fn install(&mut self, instance: Instance) {
        self.place.plugin = Some((instance.plugin().name().clone(), instance.plugin().version().clone()));
        self.metrics.memory_bytes.set(instance.memory_bytes() as i64);
        self.instance = Some(instance);
        let due = self.interval().map(|interval| tokio::time::Instant::now() + interval);
        self.next_tick = self.next_tick.min(due).or(due);
    }

    fn interval(&self) -> Option<Duration> {
        let asked = self.instance.as_ref().and_then(|instance| instance.description().tick);
        self.tick.or(asked).filter(|interval| !interval.is_zero())
    }

    /// A new instance after a fault, with the last good snapshot; if that is refused now, without.
    async fn restart(&mut self) -> Result<&mut Instance, Broken> {
        let broken =
            |fault: Fault| Broken(format!("plugin {} does not start again: {fault}", self.plugin.name()));
        let mut instance = self.plugin.instantiate(&self.setup).await.map_err(broken)?;
        if let Some(snapshot) = &self.last_good.snapshot
            && let Err(fault) = instance.restore(snapshot).await
        {
            tracing::error!(plugin = %self.plugin.name(), transform = %self.setup.transform, %fault,
                "the plugin refuses its own snapshot after a fault and starts without state");
            self.metrics.faulted(fault.kind.as_str(), 1);
            self.last_good.snapshot = None;
            instance = self.plugin.instantiate(&self.setup).await.map_err(broken)?;
        }
        self.install(instance);
        Ok(self.instance.as_mut().expect("it was just installed"))
    }

    async fn refresh_snapshot(&mut self) {
        // The end of the last call is near enough to now, and costs no look at the clock.
        let is_due =
            |instance: &Instance| instance.last_call().ended >= self.last_good.taken + SNAPSHOT_INTERVAL;
        if self.last_good.is_stale && self.instance.as_ref().is_some_and(is_due) {
            // A fault is counted and logged; the snapshot before remains the last good one.
            let _ = self.take_snapshot().await;
            self.last_good.taken = Instant::now();
        }
    }

    /// The state now. A fault costs the instance; a refusal does not.
    async fn take_snapshot(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let Some(instance) = &mut self.instance else {
            return Ok(self.last_good.snapshot.clone());
        };
        match instance.snapshot().await {
            Ok(snapshot) => {
                self.last_good =
                    LastGood { snapshot: snapshot.clone(), taken: Instant::now(), is_stale: false };
                Ok(snapshot)
            }
            Err(fault) => {
                if fault.is_refusal {
                    self.metrics.faulted(fault.kind.as_str(), 1);
                    tracing::warn!(plugin = %self.plugin.name(), transform = %self.setup.transform, %fault,
                        "the plugin gives no snapshot");
                } else {
                    self.faulted(&fault);
                }
                Err(fault)
            }
        }
    }

    fn called<T>(&mut self, result: &Result<T, Fault>) {
        let Some(instance) = &self.instance else { return };
        let call = instance.last_call();
        self.metrics.call_duration.observe(call.elapsed.as_secs_f64());
        self.metrics.cpu.inc_by(call.running.as_secs_f64());
        self.metrics.memory_bytes.set(instance.memory_bytes() as i64);
        if result.is_ok() {
            self.metrics.calls_ok.inc();
            self.last_good.is_stale = true;
        } else {
            self.metrics.calls_failed.inc();
        }
    }

    /// Throws the instance away.
    fn faulted(&mut self, fault: &Fault) {
        self.instance = None;
        self.metrics.faulted(fault.kind.as_str(), 1);
        tracing::warn!(plugin = %self.plugin.name(), transform = %self.setup.transform, %fault, "plugin fault");
        if self.last_good.is_stale {
            self.last_good.is_stale = false;
            if self.last_good.snapshot.is_some() {
                self.metrics.state_lost.inc();
                let age_ms = self.last_good.taken.elapsed().as_millis();
                tracing::warn!(plugin = %self.plugin.name(), transform = %self.setup.transform, age_ms,
                    "the plugin's state goes back to its last snapshot");
            }
        }
        if fault.kind == FaultKind::Deadline {
            self.room.halve();
        }
    }

    fn fail(&mut self, message: Message, fault: Fault, routed: &mut Vec<Routed>, failed: &mut Vec<Failed>) {
        if self.on_error == OnError::Pass {
            self.metrics.passed.inc();
            self.metrics.forwarded.inc();
            routed.push(Routed { output: 0, message });
        } else {
            failed.push(Failed { message, reason: reason(fault.kind), detail: fault.detail });
        }
    }

    fn emit(&mut self, result: Result<Emissions, Fault>, routed: &mut Vec<Routed>) {
        match result {
            Ok(emissions) => {
                self.metrics.emitted.inc_by(emissions.len() as u64);
                merge::without_origin(&emissions, routed);
            }
            Err(fault) => self.faulted(&fault),
        }
    }

    fn count(&self, counted: &Counted) {
        self.metrics.forwarded.inc_by(counted.forwarded);
        self.metrics.emitted.inc_by(counted.emitted);
        self.metrics.passed.inc_by(counted.passed);
        self.metrics.filtered.inc_by(counted.filtered);
        if counted.rejected > 0 {
            self.metrics.faulted("rejected", counted.rejected);
        }
    }
}

fn reason(kind: FaultKind) -> Reason {
    match kind {
        FaultKind::Deadline => Reason::Deadline,
        FaultKind::Memory => Reason::Memory,
        FaultKind::Output => Reason::Output,
        FaultKind::Invalid => Reason::Invalid,
        FaultKind::Trap | FaultKind::Init | FaultKind::Snapshot | FaultKind::Restore => Reason::Trap,
    }
}

/// How much goes into one call. A call that runs out of time halves it; many that do not, double it
/// again, up to what the configuration says.
#[derive(Debug)]
struct Room {
    messages: usize,
    max_messages: usize,
    max_bytes: usize,
    calls: u32,
}

impl Room {
    fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { messages: max_messages, max_messages, max_bytes, calls: 0 }
    }

    /// How many messages from the front go into the next call: at least one.
    fn piece(&self, batch: &[Message]) -> usize {
        let mut bytes = 0;
        let fits = batch.iter().take(self.messages).take_while(|message| {
            bytes += message.payload.len();
            bytes <= self.max_bytes
        });
        fits.count().max(1)
    }

    fn halve(&mut self) {
        self.messages = (self.messages / 2).max(1);
        self.calls = 0;
    }

    fn recover(&mut self) {
        if self.messages < self.max_messages {
            self.calls += 1;
            if self.calls >= CALLS_TO_RECOVER {
                self.calls = 0;
                self.messages = (self.messages * 2).min(self.max_messages);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::metadata::Metadata;

    fn messages(lengths: &[usize]) -> Vec<Message> {
        let message = |length: &usize| Message {
            payload: Payload::text("x".repeat(*length)),
            metadata: Metadata::without_origin(0),
        };
        lengths.iter().map(message).collect()
    }

    #[test]
    fn a_piece_keeps_to_messages_and_bytes_but_one_larger_message_goes_alone() {
        let room = Room::new(3, 10);
        assert_eq!(room.piece(&messages(&[1, 1, 1, 1])), 3);
        assert_eq!(room.piece(&messages(&[4, 6, 1])), 2);
        assert_eq!(room.piece(&messages(&[4, 7, 1])), 1);
        assert_eq!(room.piece(&messages(&[11, 1])), 1);
    }

    #[test]
    fn a_halved_room_recovers_after_many_calls_in_time() {
        let mut room = Room::new(256, 1 << 20);
        room.halve();
        room.halve();
        assert_eq!(room.messages, 64);
        for _ in 0..CALLS_TO_RECOVER {
            room.recover();
        }
        assert_eq!(room.messages, 128);
        (0..9).for_each(|_| room.halve());
        assert_eq!(room.messages, 1);
    }
}
