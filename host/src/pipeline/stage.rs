//! A transform: the messages that wait for it, an instance of a plugin, and what happens when that fails.
//!
//! The messages go through in pieces, each one call. A piece that faults costs the instance; a new one
//! gets the last good snapshot, and the piece is tried in halves until the message at fault is alone. That
//! one goes where `on_error` says; the others go on. When state is saved, and when a plugin that fails
//! gets its next chance, says `recovery.rs`. A message that the plugin cannot decide on yet stays at the
//! front of the inbox until its time has come (`stage/retries.rs`).

mod retries;
mod room;
mod saving;

use super::dead_letters::Place;
use super::merge;
use super::outlets::Routed;
use super::recovery::{Circuit, LastGood, Persistence};
use crate::config::{self, OnError, StateStore};
use crate::message::{Failed, Message};
use crate::plugin::{Emissions, Fault, FaultKind, Instance, Plugin, Retry, Setup, StatePart};
use crate::reason::Reason;
use crate::telemetry::{Account, RateLimit, Settled, StageMetrics};
use retries::Retries;
use room::StageRoom;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A stage logs one fault in so much time, and how many there were between.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// One transform of a running pipeline.
#[derive(Debug)]
pub(super) struct Stage {
    setup: Setup,
    on_error: OnError,
    /// How often the timer is to be called, if the configuration says so.
    tick: Option<Duration>,
    /// How often the version that runs asked for it.
    asked_tick: Option<Duration>,
    room: StageRoom,
    plugin: Plugin,
    /// None after a fault, until the next call.
    instance: Option<Instance>,
    /// The named outputs of the version that runs.
    outputs: Vec<Arc<str>>,
    /// Messages that came in and were not dealt with.
    inbox: VecDeque<Message>,
    /// How long the pieces of the inbox are that were cut by a fault, the next one last.
    pieces: Vec<usize>,
    last_good: LastGood,
    /// Its state is written to the disk.
    is_durable: bool,
    /// There is state that no generation has.
    is_unsaved: bool,
    circuit: Circuit,
    retries: Retries,
    /// The pipeline stops, and has given up what waited here: what comes later is given up too.
    is_given_up: bool,
    next_tick: Option<Instant>,
    place: Place,
    metrics: StageMetrics,
    log: RateLimit,
}

/// How the state of the old version reached the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarriedState {
    /// As the old version was at the swap.
    Carried,
    /// As the last good snapshot of the old version has it: what came since is lost.
    Older,
    /// There was state, but it could not be had.
    Fresh,
    /// The plugin has no state.
    None,
}

/// Why a stage cannot go on.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

/// Whether a pipeline goes on after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkOutcome {
    GoOn,
    /// A message failed and `on_error` is `stop`.
    Stop,
}

/// What a stage does at a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Calls the plugin's timer.
    Tick,
    /// Saves the plugin's state.
    Snapshot,
}

/// What calls give: messages on their way on, and messages that failed.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) settled: Settled,
    pub(super) routed: Vec<Routed>,
    pub(super) failed: Vec<Failed>,
}

impl Stage {
    /// A stage that starts with this instance, made from `setup`.
    pub(super) fn new(
        transform: &config::Transform,
        setup: Setup,
        instance: Instance,
        persistence: Persistence,
        metrics: StageMetrics,
    ) -> Self {
        // What the instance goes on with.
        let last_good = LastGood::new(setup.state.snapshots().pop(), Instant::now());
        let mut this = Self {
            place: Place { stage: setup.transform.clone(), account: metrics.account.clone(), plugin: None },
            setup,
            on_error: transform.on_error,
            tick: transform.tick,
            asked_tick: None,
            room: StageRoom::new(transform.max_batch, transform.max_batch_bytes),
            plugin: instance.plugin().clone(),
            instance: None,
            outputs: instance.description().outputs.clone(),
            inbox: VecDeque::new(),
            pieces: Vec::new(),
            last_good,
            is_durable: transform.state == StateStore::Durable,
            is_unsaved: true,
            circuit: Circuit::new(persistence),
            retries: Retries::new(transform.retries),
            is_given_up: false,
            next_tick: None,
            metrics,
            log: RateLimit::new(LOG_INTERVAL),
        };
        this.metrics.paused.set(0);
        this.install(instance);
        this
    }

    /// Where messages fail here.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The account of what came in here.
    pub(super) fn account(&self) -> &Account {
        &self.metrics.account
    }

    /// The named outputs of the version that runs.
    pub(super) fn outputs(&self) -> &[Arc<str>] {
        &self.outputs
    }

    /// How much a source may put into a batch for this stage.
    pub(super) fn room(&self) -> crate::source::Room {
        self.room.of_batch()
    }

    /// Takes all messages of a batch.
    pub(super) fn take(&mut self, batch: &mut Vec<Message>) {
        if self.inbox.is_empty() {
            let spent = std::mem::take(&mut self.inbox);
            self.inbox = std::mem::replace(batch, spent.into()).into();
        } else {
            self.inbox.extend(batch.drain(..));
        }
    }

    /// What waits for this stage.
    pub(super) fn inbox(&mut self) -> &mut VecDeque<Message> {
        &mut self.inbox
    }

    /// Whether messages wait.
    pub(super) fn has_work(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Until when the messages wait: since the plugin fails again and again, or cannot decide yet.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.paused_until().max(self.retries.until())
    }

    /// Until when the messages wait since the plugin fails again and again.
    fn paused_until(&self) -> Option<Instant> {
        self.circuit.open_until().filter(|_| self.circuit.is_open())
    }

    /// Whether the plugin works: it may well be one that cannot decide yet.
    pub(super) fn is_working(&self) -> bool {
        !self.is_given_up && self.paused_until().is_none()
    }

    /// What it has to do next at a time of its own, and when.
    pub(super) fn due(&self, may_tick: bool) -> Option<(Instant, Due)> {
        let tick =
            self.next_tick.filter(|_| may_tick && !self.circuit.is_trial()).map(|due| (due, Due::Tick));
        let snapshot = self.last_good.due().filter(|_| self.instance.is_some());
        let snapshot = snapshot.map(|due| (due, Due::Snapshot));
        [tick, snapshot].into_iter().flatten().min_by_key(|(due, _)| *due)
    }

    /// Whether no message of the inbox may be given to the plugin now.
    pub(super) fn is_held(&self) -> bool {
        self.is_given_up || self.held_until().is_some()
    }

    /// The pipeline stops: what waits because the plugin could not decide is offered once more at once.
    pub(super) fn hurry(&mut self) {
        self.retries.hurry();
    }

    /// Drops what waits here: the pipeline stops, and the plugin fails again and again. From then on all that
    /// comes is to be dropped likewise, so that what goes through is what came before, without a gap.
    pub(super) fn abandon(&mut self) -> u64 {
        self.is_given_up = true;
        let waiting = self.inbox.drain(..).len() as u64;
        self.metrics.account.dropped(Reason::Shutdown, waiting);
        self.pieces.clear();
        self.retries.forget();
        waiting
    }

    /// Gives the plugin the next piece of what waits. `time_us` is the time it is told, if it is not the
    /// wall's.
    ///
    /// # Cancel safety
    /// The instance is gone if the future is dropped, no message is.
    pub(super) async fn work(&mut self, time_us: Option<u64>, given: &mut Given) -> WorkOutcome {
        let failed_before = given.failed.len();
        if let Err(no_start) = self.start_if_needed().await {
            if let Some(fault) = no_start
                && let Some(message) = self.inbox.pop_front()
            {
                self.pieces.clear();
                self.retries.forget();
                self.fail(message, fault, given);
            }
            return self.end(failed_before, given);
        }
        let piece = if self.circuit.is_trial() {
            1
        } else {
            self.pieces.pop().unwrap_or_else(|| self.room.piece(&self.inbox))
        };
        let Some(instance) = &mut self.instance else { return WorkOutcome::GoOn };
        instance.set_time(time_us);
        let result = instance.process(&self.inbox.make_contiguous()[..piece]).await;
        if !result.as_ref().is_ok_and(|outcome| !outcome.is_answer) {
            self.called(&result);
        }
        match result {
            Ok(mut outcome) => {
                self.room.recover();
                let retry = outcome.retry.take();
                let decided = retry.as_ref().map_or(piece, |retry| retry.message as usize);
                let (settled, mut rejected) = merge::outcome(
                    self.inbox.drain(..decided),
                    outcome,
                    self.on_error,
                    &mut given.routed,
                    &mut given.failed,
                );
                given.settled = settled;
                if retry.is_none() || decided > 0 {
                    self.retries.forget();
                }
                if let Some(retry) = retry {
                    let refused = self.put_off(retry, given);
                    rejected += refused;
                    let left = piece - decided - refused as usize;
                    if left > 0 && !self.pieces.is_empty() {
                        self.pieces.push(left);
                    }
                }
                if rejected > 0 {
                    self.metrics.faulted("rejected", rejected);
                }
                // The next piece of a batch that faulted may fault too: what was accepted is kept.
                if !self.pieces.is_empty() && self.last_good.is_worth_saving() {
                    self.save().await;
                }
            }
            Err(fault) => {
                self.faulted(&fault);
                // Time and output are what less to do needs less of.
                if matches!(fault.kind, FaultKind::Deadline | FaultKind::Output) {
                    self.room.halve();
                }
                if piece > 1 {
                    self.pieces.push(piece - piece / 2);
                    self.pieces.push(piece / 2);
                } else if let Some(message) = self.inbox.pop_front() {
                    self.retries.forget();
                    self.fail(message, fault, given);
                    self.count_against();
                }
            }
        }
        self.end(failed_before, given)
    }

    /// Calls the plugin's timer, which was due.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(super) async fn tick(&mut self, time_us: Option<u64>, now_us: u64, given: &mut Given) {
        if let Ok(()) = self.start_if_needed().await
            && let Some(instance) = &mut self.instance
        {
            instance.set_time(time_us);
            let result = instance.tick(now_us).await;
            self.called(&result);
            if let Err(fault) = self.emit(result, given) {
                self.faulted(&fault);
                self.count_against();
            }
        }
        self.next_tick = self.interval().map(|interval| Instant::now() + interval);
    }

    /// Tells the plugin that no message will follow; once more on a new instance if it faults.
    ///
    /// # Errors
    /// If it faults again. What it had gathered is lost.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(super) async fn finish(&mut self, time_us: Option<u64>, given: &mut Given) -> Result<(), Broken> {
        self.next_tick = None;
        let mut result = Ok(());
        for _ in 0..2 {
            result = match self.start().await {
                Ok(instance) => {
                    instance.set_time(time_us);
                    let finished = instance.finish().await;
                    self.called(&finished);
                    self.emit(finished, given)
                }
                Err(fault) => Err(fault),
            };
            match &result {
                Ok(()) => break,
                Err(fault) => self.faulted(fault),
            }
        }
        result.map_err(|fault| {
            let transform = &self.setup.transform;
            let plugin = self.plugin.name();
            Broken(format!(
                "plugin {plugin} failed at the end, what transform {transform} had gathered is lost: {fault}"
            ))
        })
    }

    /// Exchanges the running version for `next`, which is initialised. State is carried over unless
    /// `fresh` is asked for. Gives back the instance that runs no more, to be dropped elsewhere, and
    /// how the state fared; on an error, that is `next`, and the old version runs on.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(super) async fn swap(
        &mut self,
        mut next: Instance,
        fresh: bool,
    ) -> Result<(Option<Instance>, CarriedState), (Instance, Fault)> {
        let started = Instant::now();
        let state = if fresh {
            CarriedState::Fresh
        } else if self.instance.is_none() {
            self.older()
        } else {
            match self.take_snapshot().await {
                Ok(()) if self.last_good.snapshot().is_some() => CarriedState::Carried,
                Ok(()) => CarriedState::None,
                Err(fault) if fault.is_refusal => return Err((next, fault)),
                Err(_) => match self.older() {
                    CarriedState::None => CarriedState::Fresh,
                    older => older,
                },
            }
        };
        let snapshot = if fresh { None } else { self.last_good.snapshot().cloned() };
        if let Some(snapshot) = &snapshot
            && let Err(fault) = next.restore(std::slice::from_ref(snapshot), StatePart::WHOLE).await
        {
            return Err((next, fault));
        }
        let old = self.instance.take();
        self.plugin = next.plugin().clone();
        self.outputs.clone_from(&next.description().outputs);
        self.last_good = LastGood::new(snapshot, Instant::now());
        self.is_unsaved = true;
        self.keep();
        self.install(next);
        self.close_circuit();
        self.retries.forget();
        self.metrics.swap_duration.observe(started.elapsed().as_secs_f64());
        Ok((old, state))
    }

    /// How a new version fares that gets the last good snapshot.
    fn older(&self) -> CarriedState {
        if self.last_good.snapshot().is_some() { CarriedState::Older } else { CarriedState::None }
    }

    /// What is done after each call with what has failed in it.
    fn end(&self, failed_before: usize, given: &mut Given) -> WorkOutcome {
        let has_failed = given.failed.len() > failed_before;
        if self.on_error == OnError::Drop {
            for failed in given.failed.drain(failed_before..) {
                self.metrics.account.dropped(failed.reason, 1);
            }
        }
        if has_failed && self.on_error == OnError::Stop { WorkOutcome::Stop } else { WorkOutcome::GoOn }
    }

    fn install(&mut self, instance: Instance) {
        self.place.plugin = Some((instance.plugin().name().clone(), instance.plugin().version().clone()));
        self.metrics.memory_bytes.set(instance.memory_bytes() as i64);
        self.asked_tick = instance.description().tick;
        self.instance = Some(instance);
        let due = self.interval().map(|interval| Instant::now() + interval);
        self.next_tick = self.next_tick.min(due).or(due);
    }

    fn interval(&self) -> Option<Duration> {
        self.tick.or(self.asked_tick).filter(|interval| !interval.is_zero())
    }

    /// The same as [`Stage::start`]; where no instance starts, the messages wait, or there is a fault that the
    /// next of them fails with.
    async fn start_if_needed(&mut self) -> Result<(), Option<Fault>> {
        let Err(fault) = self.start().await.map(drop) else { return Ok(()) };
        let pause = self.circuit.does_not_start(Instant::now());
        self.metrics.faulted(fault.kind.as_str(), 1);
        let Some(pause) = pause else { return Err(Some(fault)) };
        self.show_pause(pause, Some(&fault));
        Err(None)
    }

    /// The running instance, or a new one after a fault, with the last good snapshot; if that is refused
    /// now, without.
    async fn start(&mut self) -> Result<&mut Instance, Fault> {
        if self.instance.is_none() {
            let mut instance = self.instantiate().await?;
            if let Some(snapshot) = self.last_good.snapshot()
                && let Err(fault) = instance.restore(std::slice::from_ref(snapshot), StatePart::WHOLE).await
            {
                tracing::error!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, %fault,
                    "the plugin refuses its own snapshot after a fault and starts without state");
                self.metrics.faulted(fault.kind.as_str(), 1);
                self.metrics.state_lost.inc();
                self.last_good.forget();
                self.is_unsaved = true;
                self.keep();
                instance = self.instantiate().await?;
            }
            self.install(instance);
        }
        Ok(self.instance.as_mut().expect("it was just installed"))
    }

    /// A new instance of the version that runs. The sinks were told its outputs: it must have the same.
    async fn instantiate(&mut self) -> Result<Instance, Fault> {
        let instance = self.plugin.instantiate(&self.setup).await?;
        if instance.description().outputs != self.outputs {
            let detail = "init described other outputs than it did before, with the same configuration";
            return Err(Fault::new(FaultKind::Init, detail));
        }
        Ok(instance)
    }

    #[inline]
    fn called<T>(&mut self, result: &Result<T, Fault>) {
        let Some(instance) = &self.instance else { return };
        let call = instance.last_call();
        self.metrics.call_duration.observe(call.elapsed.as_secs_f64());
        self.metrics.cpu.inc_by(call.running.as_secs_f64());
        self.metrics.memory_bytes.set(instance.memory_bytes() as i64);
        if result.is_ok() {
            self.metrics.calls_ok.inc();
            self.last_good.change();
            self.is_unsaved = true;
            if self.circuit.succeeded() {
                self.close_circuit();
                tracing::info!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform,
                    "the plugin works again");
            }
        } else {
            self.metrics.calls_failed.inc();
        }
    }

    /// Throws the instance away.
    fn faulted(&mut self, fault: &Fault) {
        self.metrics.faulted(fault.kind.as_str(), 1);
        let lost_state_ms = self.give_instance_up();
        if let Some(held_back) = self.log.allow() {
            tracing::warn!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, %fault,
                lost_state_ms, held_back, "plugin fault");
        }
    }

    /// The next instance starts with the last good snapshot. Says how old that is, if there was state
    /// since, which is lost.
    fn give_instance_up(&mut self) -> Option<u64> {
        self.instance = None;
        if !self.last_good.lost() {
            return None;
        }
        self.metrics.state_lost.inc();
        Some(u64::try_from(self.last_good.age().as_millis()).unwrap_or(u64::MAX))
    }

    /// A fault for which there is nothing smaller to try.
    fn count_against(&mut self) {
        if let Some(pause) = self.circuit.faulted(Instant::now()) {
            self.pieces.clear();
            self.show_pause(pause, None);
        }
    }

    fn show_pause(&self, pause: Duration, fault: Option<&Fault>) {
        self.metrics.paused.set(1);
        if !self.circuit.has_reopened() {
            let fault = fault.map(tracing::field::display);
            tracing::error!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, fault,
                pause_s = pause.as_secs(),
                "the plugin fails again and again; its messages wait, and one is tried from time to time");
        }
    }

    fn close_circuit(&mut self) {
        self.circuit.close();
        self.metrics.paused.set(0);
    }

    /// The plugin cannot decide yet on the message at the front, which is offered again, or after too many
    /// times counts as rejected. Says how many were rejected: this one or none.
    fn put_off(&mut self, retry: Retry, given: &mut Given) -> u64 {
        let Retry { reason, after, .. } = retry;
        if self.retries.put_off(Instant::now(), after) {
            tracing::debug!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, reason, after_ms = after.as_millis() as u64,
                "the plugin cannot decide yet; its messages wait");
            return 0;
        }
        self.retries.forget();
        let Some(message) = self.inbox.pop_front() else { return 0 };
        self.refuse(message, Reason::Rejected, reason, given);
        1
    }

    fn fail(&mut self, message: Message, fault: Fault, given: &mut Given) {
        self.refuse(message, reason(fault.kind), fault.detail, given);
    }

    /// A message goes where `on_error` says.
    fn refuse(&mut self, message: Message, reason: Reason, detail: String, given: &mut Given) {
        if self.on_error == OnError::Pass {
            given.settled.passed += 1;
            given.settled.forwarded += 1;
            given.routed.push(Routed { output: 0, message });
        } else {
            given.failed.push(Failed { message, reason, detail });
        }
    }

    fn emit(&mut self, result: Result<Emissions, Fault>, given: &mut Given) -> Result<(), Fault> {
        let emissions = result?;
        given.settled.emitted += emissions.len() as u64;
        merge::without_origin(&emissions, &mut given.routed);
        Ok(())
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
