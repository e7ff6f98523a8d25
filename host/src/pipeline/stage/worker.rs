//! One instance of a stage's plugin: the messages that wait for it, and what happens when it fails.
//!
//! The messages go through in pieces, each one call. A piece that faults costs the instance; a new one
//! gets the last good snapshot, and the piece is tried in halves until the message at fault is alone. That
//! one goes where `on_error` says; the others go on. When state is saved, and when a plugin that fails
//! gets its next chance, says `recovery.rs`. A message that the plugin cannot decide on yet stays at the
//! front of the inbox until its time has come (`stage/retries.rs`).

use super::beside::{Beside, SeenCall};
use super::probation::{FaultCount, RunningVersion};
use super::retries::Retries;
use super::room::StageRoom;
use super::{Broken, Given, WorkOutcome};
use crate::config::{self, OnError};
use crate::message::metadata::now_us;
use crate::message::{Failed, Message};
use crate::pipeline::merge;
use crate::pipeline::outlets::Routed;
use crate::pipeline::recovery::{Circuit, LastGood, Persistence};
use crate::plugin::{Emissions, Fault, FaultKind, Instance, Outcome, Plugin, Retry, Setup};
use crate::reason::Reason;
use crate::telemetry::{RateLimit, StageMetrics};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A worker logs one fault in so much time, and how many there were between.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// One instance of the plugin of a stage, or what is to start the next, and the messages that are for it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) setup: Setup,
    on_error: OnError,
    room: StageRoom,
    pub(super) plugin: Plugin,
    /// None after a fault, until the next call.
    pub(super) instance: Option<Instance>,
    /// The named outputs of the version that runs.
    pub(super) outputs: Vec<Arc<str>>,
    /// Messages that came in and were not dealt with.
    pub(super) inbox: VecDeque<Message>,
    /// How long the pieces of the inbox are that were cut by a fault, the next one last.
    pub(super) pieces: Vec<usize>,
    /// What its calls gave and the stage did not, where there are other workers.
    pub(super) given: Given,
    /// What a message took in the last call, where there are other workers.
    pace: Option<Duration>,
    pub(super) last_good: LastGood,
    /// There is state that no generation has.
    pub(super) is_unsaved: bool,
    pub(super) circuit: Circuit,
    retries: Retries,
    /// The pipeline stops, and has given up what waited here: what comes later is given up too.
    is_given_up: bool,
    pub(super) metrics: StageMetrics,
    pub(super) log: RateLimit,
    /// How old the state was that faults have cost which were not told.
    pub(super) untold_loss_ms: Option<u64>,
    /// An instance of the version in shadow.
    pub(super) beside: Option<Box<Beside>>,
    /// The faults of the version in its probation.
    pub(super) probation: Option<Arc<FaultCount>>,
}

impl Worker {
    /// A worker that starts with this instance, made from `setup`.
    pub(super) fn new(
        transform: &config::Transform,
        setup: Setup,
        instance: Instance,
        persistence: Persistence,
        metrics: StageMetrics,
    ) -> Self {
        // What the instance goes on with.
        let snapshot = setup.state.snapshots().into_iter().nth(setup.part.number as usize).flatten();
        let mut this = Self {
            setup,
            on_error: transform.on_error,
            room: StageRoom::new(transform.max_batch, transform.max_batch_bytes),
            plugin: instance.plugin().clone(),
            instance: None,
            outputs: instance.description().outputs.clone(),
            inbox: VecDeque::new(),
            pieces: Vec::new(),
            given: Given::default(),
            pace: None,
            last_good: LastGood::new(snapshot, Instant::now()),
            is_unsaved: true,
            circuit: Circuit::new(persistence),
            retries: Retries::new(transform.retries),
            is_given_up: false,
            metrics,
            log: RateLimit::new(LOG_INTERVAL),
            untold_loss_ms: None,
            beside: None,
            probation: None,
        };
        this.metrics.paused.set(0);
        this.install(instance);
        this
    }

    /// Changes the keys that the host alone acts on.
    pub(super) fn adjust(&mut self, transform: &config::Transform) {
        self.on_error = transform.on_error;
        self.room = StageRoom::new(transform.max_batch, transform.max_batch_bytes);
    }

    /// Gives away the messages that wait here.
    pub(super) fn yield_messages(&mut self) -> VecDeque<Message> {
        self.pieces.clear();
        self.retries.forget();
        std::mem::take(&mut self.inbox)
    }

    /// How much goes into one call.
    pub(super) fn room(&self) -> &StageRoom {
        &self.room
    }

    /// Whether messages wait.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Whether messages wait that are not to wait for the plugin's timer, which in a replay is due then.
    pub(super) fn has_work_before(&self, due_us: u64) -> bool {
        self.inbox.front().is_some_and(|front| due_us == u64::MAX || front.metadata.received_us() < due_us)
    }

    /// How long the plugin takes for so many messages, as far as is known.
    pub(super) fn time_of(&self, messages: usize) -> Option<Duration> {
        Some(self.pace?.saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX)))
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

    /// Whether the next call is a trial, with one message alone.
    pub(super) fn is_trial(&self) -> bool {
        self.circuit.is_trial()
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

    /// Takes back what is held back here. Says of how many messages that was.
    pub(super) fn withdraw(&mut self) -> u64 {
        let Given { settled, failed, .. } = std::mem::take(&mut self.given);
        settled.passed + settled.filtered + failed.len() as u64
    }

    /// Gives on what the calls gave.
    pub(super) fn hand_in(&mut self, given: &mut Given) {
        given.settled += std::mem::take(&mut self.given.settled);
        given.routed.append(&mut self.given.routed);
        given.failed.append(&mut self.given.failed);
    }

    /// The same as [`Worker::work`], for a worker among others: what the call gives stays here.
    pub(super) async fn work_apart(&mut self, due_us: u64) -> WorkOutcome {
        let mut given = std::mem::take(&mut self.given);
        let outcome = self.work(due_us, &mut given).await;
        self.given = given;
        outcome
    }

    /// Gives the plugin the next piece of what waits. In a replay the plugin's timer is due at `due_us`, and it is told
    /// the time of the last message.
    ///
    /// # Cancel safety
    /// The instance is gone if the future is dropped, no message is.
    pub(super) async fn work(&mut self, due_us: u64, given: &mut Given) -> WorkOutcome {
        let failed_before = given.failed.len();
        if let Err(no_start) = self.start_if_needed().await {
            if let Some(fault) = no_start
                && !self.is_condemned()
                && let Some(message) = self.inbox.pop_front()
            {
                self.pieces.clear();
                self.retries.forget();
                self.fail(message, fault, given);
            }
            return self.end(failed_before, given);
        }
        let piece = self.next_piece(due_us);
        let time_us = self.setup.is_replay.then(|| self.inbox[piece - 1].metadata.received_us());
        let Some(instance) = &mut self.instance else { return WorkOutcome::GoOn };
        instance.set_time(time_us);
        if self.beside.is_some() {
            instance.note();
        }
        let result = instance.process(&self.inbox.make_contiguous()[..piece]).await;
        if self.beside.is_some() {
            self.show(&result, piece, time_us).await;
        }
        if !result.as_ref().is_ok_and(|outcome| !outcome.is_answer) {
            self.called(&result, piece);
        }
        match result {
            Ok(mut outcome) => {
                self.room.recover();
                let retry = outcome.retry.take();
                let decided = retry.as_ref().map_or(piece, |retry| retry.message as usize);
                let (settled, mut rejected) = merge::outcome(
                    self.inbox.drain(..decided),
                    &outcome,
                    self.on_error,
                    &mut given.routed,
                    &mut given.failed,
                );
                given.settled += settled;
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
                } else if self.is_condemned_by(&fault) {
                    // The version before gets the message.
                    self.pieces.clear();
                } else if let Some(message) = self.inbox.pop_front() {
                    self.retries.forget();
                    self.fail(message, fault, given);
                    self.count_against();
                }
            }
        }
        self.end(failed_before, given)
    }

    /// How many messages go into the next call.
    fn next_piece(&mut self, due_us: u64) -> usize {
        if self.circuit.is_trial() {
            return 1;
        }
        let piece = self.pieces.pop().unwrap_or_else(|| self.room.piece(&self.inbox));
        if due_us == u64::MAX {
            return piece;
        }
        let before =
            self.inbox.iter().take(piece).take_while(|message| message.metadata.received_us() < due_us);
        let before = before.count().max(1);
        if before < piece && !self.pieces.is_empty() {
            self.pieces.push(piece - before);
        }
        before
    }

    /// Calls the plugin's timer, which was due: in a replay, at this moment.
    ///
    /// # Cancel safety
    /// As [`Worker::work`].
    pub(super) async fn tick(&mut self, time_us: Option<u64>) {
        let now_us = time_us.unwrap_or_else(now_us);
        if let Ok(()) = self.start_if_needed().await
            && let Some(instance) = &mut self.instance
        {
            instance.set_time(time_us);
            if self.beside.is_some() {
                instance.note();
            }
            let result = instance.tick(now_us).await;
            if let Some(beside) = &mut self.beside {
                let call = SeenCall { outputs: &self.outputs, notes: instance.take_notes(), time_us };
                Box::pin(beside.see_tick(now_us, &result, call)).await;
            }
            self.called(&result, 0);
            if let Err(fault) = self.emit(result, now_us) {
                self.faulted(&fault);
                if !self.is_condemned_by(&fault) {
                    self.count_against();
                }
            }
        }
    }

    /// Tells the plugin that no message will follow; once more on a new instance if it faults.
    ///
    /// # Errors
    /// If it faults again. What it had gathered is lost.
    ///
    /// # Cancel safety
    /// As [`Worker::work`].
    pub(super) async fn finish(&mut self, time_us: Option<u64>) -> Result<(), Broken> {
        // No message waits for it any more.
        self.close_circuit();
        let mut result = Ok(());
        for _ in 0..2 {
            result = match self.start().await {
                Ok(instance) => {
                    instance.set_time(time_us);
                    let finished = instance.finish().await;
                    self.called(&finished, 0);
                    self.emit(finished, time_us.unwrap_or_else(now_us))
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

    /// Puts `next` into the place of the version before, with this state, and gives that back.
    pub(super) fn exchange(&mut self, next: Instance, last_good: LastGood) -> Option<Instance> {
        let old = self.instance.take();
        self.plugin = next.plugin().clone();
        self.setup.config = next.config().clone();
        self.outputs.clone_from(&next.description().outputs);
        self.last_good = last_good;
        self.is_unsaved = true;
        self.keep();
        self.install(next);
        old
    }

    /// Whether an instance is of the version that runs, with its configuration: only its code is another.
    pub(super) fn has_the_same(&self, next: &Instance) -> bool {
        next.plugin().version() == self.plugin.version() && *next.config() == self.setup.config
    }

    /// Forgets how often the plugin has failed: something is different from here on. A message that was put off is offered
    /// at once.
    pub(super) fn forgive(&mut self) {
        self.close_circuit();
        self.retries.offer_now();
    }

    /// The message at the front will be the one that is at the front there, which may have been put off.
    pub(super) fn go_on_offering(&mut self, before: &Self) {
        self.retries.go_on(&before.retries);
    }

    /// Goes on with the version before, which has this state; an instance starts with the next call.
    pub(super) fn return_to(&mut self, previous: &RunningVersion, snapshot: Option<Bytes>) {
        self.instance = None;
        self.plugin = previous.plugin.clone();
        self.setup.config = previous.config.clone();
        self.outputs.clone_from(&previous.outputs);
        self.last_good = LastGood::new(snapshot, Instant::now());
        self.is_unsaved = true;
        self.keep();
        self.forgive();
        self.pieces.clear();
    }

    /// Lets the version in shadow see a call, which had the first so many messages.
    async fn show(&mut self, result: &Result<Outcome, Fault>, piece: usize, time_us: Option<u64>) {
        let (Some(instance), Some(beside)) = (&mut self.instance, &mut self.beside) else { return };
        let call = SeenCall { outputs: &self.outputs, notes: instance.take_notes(), time_us };
        let batch = &self.inbox.make_contiguous()[..piece];
        match (result, batch) {
            (Ok(outcome), batch) => Box::pin(beside.see(batch, outcome, call)).await,
            (Err(fault), [message]) => Box::pin(beside.see_fault(message, fault, call)).await,
            // It is tried again in halves.
            (Err(_), _) => {}
        }
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

    /// Counts a call, which had so many messages.
    #[inline]
    fn called<T>(&mut self, result: &Result<T, Fault>, messages: usize) {
        let Some(instance) = &self.instance else { return };
        let call = instance.last_call();
        self.metrics.call_duration.observe(call.elapsed.as_secs_f64());
        self.metrics.cpu.inc_by(call.running.as_secs_f64());
        self.metrics.memory_bytes.set(instance.memory_bytes() as i64);
        if self.setup.part.of > 1 && messages > 0 {
            self.pace = Some(call.running / u32::try_from(messages).unwrap_or(u32::MAX));
        }
        if result.is_ok() {
            self.metrics.calls_ok.inc();
            self.last_good.change();
            self.is_unsaved = true;
            if self.circuit.succeeded() {
                self.close_circuit();
                tracing::info!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, instance = self.setup.instance(),
                    "the plugin works again");
            }
        } else {
            self.metrics.calls_failed.inc();
        }
    }

    /// The plugin cannot decide yet on the message at the front, which is offered again, or after too many
    /// times counts as rejected. Says how many were rejected: this one or none.
    fn put_off(&mut self, retry: Retry, given: &mut Given) -> u64 {
        let Retry { reason, after, .. } = retry;
        if self.retries.put_off(Instant::now(), after) {
            tracing::debug!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, instance = self.setup.instance(), reason,
                after_ms = after.as_millis() as u64,
                "the plugin cannot decide yet; its messages wait");
            return 0;
        }
        self.retries.forget();
        let Some(message) = self.inbox.pop_front() else { return 0 };
        if let Some(beside) = &mut self.beside {
            beside.see_given_up(&message, &reason);
        }
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

    fn emit(&mut self, result: Result<Emissions, Fault>, at_us: u64) -> Result<(), Fault> {
        let emissions = result?;
        self.given.settled.emitted += emissions.len() as u64;
        merge::without_origin(&emissions, at_us, &mut self.given.routed);
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
