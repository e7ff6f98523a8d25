//! A transform: the messages that wait for it, the instances of a plugin that work on them, and what these give.
//!
//! Each instance has a worker (`stage/worker.rs`), which makes its calls and does what is to be done when it
//! fails. As a rule there is one; of several, each is called on a task of its own, and the stage goes on when
//! all that were called have returned (`stage/sharing.rs`). So no call is in progress when a stage is told
//! something, saved, swapped or handed over from, however many instances there are.

mod beside;
mod comparison;
mod keys;
mod parallel;
mod probation;
mod restarting;
mod retries;
mod room;
mod saving;
mod shadow;
mod sharing;
mod side_by_side;
mod swapping;
mod ticking;
mod updating;
mod worker;

pub use side_by_side::{Compared, ComparedInput, SideBySide};
pub(super) use updating::Carried;
pub use updating::share_out;

use super::dead_letters::Place;
use super::outlets::Routed;
use super::recovery::Persistence;
use crate::config::{self, StateStore};
use crate::message::{Failed, Message};
use crate::plugin::{Instance, Setup};
use crate::source::Room;
use crate::telemetry::{Account, Metrics, Settled, StageMetrics};
use parallel::{in_parallel, one_by_one};
use probation::{Probation, RunningVersion};
use shadow::StageShadow;
use sharing::{Sharing, is_worth_tasks};
use std::sync::Arc;
use ticking::Ticking;
use tokio::time::Instant;
use worker::Worker;

/// The number of no output: a plugin describes far fewer.
const NOT_AN_OUTPUT: u16 = u16::MAX;

/// One transform of a running pipeline.
#[derive(Debug)]
pub(super) struct Stage {
    /// What the instances were made with, whatever part of them each is.
    setup: Setup,
    /// One for each instance, in their order.
    #[expect(
        clippy::vec_box,
        reason = "a worker goes to a task and comes back: nothing of it is to be copied"
    )]
    workers: Vec<Box<Worker>>,
    sharing: Sharing,
    ticking: Ticking,
    /// The version that runs, in every worker.
    version: RunningVersion,
    /// The version that sees what this one gets, if there is one.
    shadow: Option<Box<StageShadow>>,
    /// The version before, while it can be put back.
    probation: Option<Box<Probation>>,
    /// Its state is written to the disk.
    is_durable: bool,
    place: Place,
    metrics: StageMetrics,
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
    /// A shadow or a probation has come to its end.
    Verdict,
}

/// What calls give: messages on their way on, and messages that failed.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) settled: Settled,
    pub(super) routed: Vec<Routed>,
    pub(super) failed: Vec<Failed>,
}

impl Stage {
    /// A stage that starts with these instances, each made from its part of `setup`.
    pub(super) fn new(
        transform: &config::Transform,
        setup: Setup,
        instances: Vec<Instance>,
        persistence: Persistence,
        metrics: &Metrics,
    ) -> Self {
        debug_assert_eq!(setup.part.of as usize, instances.len(), "there is an instance for each part");
        let worker = |(setup, instance): (Setup, Instance)| {
            let plugin = transform.plugin.shown();
            let metrics = metrics.stage(&setup.pipeline, &setup.transform, plugin, setup.instance());
            Box::new(Worker::new(transform, setup, instance, persistence, metrics))
        };
        let version = RunningVersion::of(&instances[0]);
        // A probation ends with its pipeline, however that does.
        setup.state.forget_mark();
        let workers: Vec<_> = setup.of_each().zip(instances).map(worker).collect();
        let metrics = workers[0].metrics.clone();
        let ticking = Ticking::new(transform.tick, setup.is_replay);
        let mut this = Self {
            place: Place { stage: setup.transform.clone(), account: metrics.account.clone(), plugin: None },
            setup,
            sharing: Sharing::new(transform, workers.len()),
            workers,
            ticking,
            version: version.clone(),
            shadow: None,
            probation: None,
            is_durable: transform.state == StateStore::Durable,
            metrics,
        };
        this.installed(version);
        this
    }

    /// All workers run this version.
    fn installed(&mut self, version: RunningVersion) {
        self.place.plugin = Some((version.plugin.name().clone(), version.plugin.version().clone()));
        self.ticking.ask(version.tick);
        self.setup.config.clone_from(&version.config);
        self.version = version;
    }

    /// The label of the stage.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.setup.transform
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
        &self.version.outputs
    }

    /// How much a source may put into a batch for this stage.
    pub(super) fn room(&self) -> Room {
        let rooms = self.workers.iter().map(|worker| worker.room().of_batch());
        rooms.fold(Room { messages: 0, bytes: 0 }, |all, one| Room {
            messages: all.messages + one.messages,
            bytes: all.bytes + one.bytes,
        })
    }

    /// Takes all messages of a batch.
    pub(super) fn take(&mut self, batch: &mut Vec<Message>) {
        self.sharing.take(&mut self.workers, batch);
    }

    /// Takes one message.
    #[inline]
    pub(super) fn give(&mut self, message: Message) {
        self.sharing.give(&mut self.workers, message);
    }

    /// Takes a dead letter in again.
    pub(super) fn retry(&mut self, message: Message) {
        self.metrics.account.retried(1);
        self.give(message);
    }

    /// Whether messages wait.
    pub(super) fn has_work(&self) -> bool {
        self.workers.iter().any(|worker| worker.has_work()) || self.sharing.is_for_any()
    }

    /// Whether messages wait that are not to wait for the plugin's timer, as in a replay they may.
    pub(super) fn is_next(&self) -> bool {
        self.next_workers().next().is_some()
    }

    /// The workers that the next messages are for.
    fn next_workers(&self) -> impl Iterator<Item = &Worker> {
        let (is_any, due_us) = (self.sharing.is_for_any(), self.ticking.due_us());
        let workers = self.workers.iter().map(|worker| &**worker);
        workers.filter(move |worker| is_any || worker.has_work_before(due_us))
    }

    /// When the first of the messages that wait was received.
    fn front_us(&self) -> Option<u64> {
        let fronts = self.workers.iter().filter_map(|worker| worker.inbox.front());
        let fronts = fronts.chain(self.sharing.front());
        fronts.map(|message| message.metadata.received_us()).min()
    }

    /// A message of a replay was received then.
    pub(super) fn see_time(&mut self, received_us: u64) {
        self.ticking.see(received_us);
    }

    /// The stage of a replay whose timer is to be called before anything else, and at which moment: all that was
    /// received before it is through. `read_us` is when the last message was received that was read.
    pub(super) fn missed_tick(stages: &[Self], read_us: u64) -> Option<(usize, u64)> {
        let reached_us = stages.iter().filter_map(Self::front_us).min().unwrap_or(read_us);
        let missed = stages.iter().enumerate();
        let missed = missed.filter_map(|(number, stage)| Some((stage.ticking.missed(reached_us)?, number)));
        missed.min().map(|(at_us, number)| (number, at_us))
    }

    /// Until when all messages wait that do: since the plugin fails again and again, or cannot decide yet.
    pub(super) fn held_until(&self) -> Option<Instant> {
        let mut earliest: Option<Instant> = None;
        for worker in self.next_workers() {
            let until = worker.held_until()?;
            earliest = Some(earliest.map_or(until, |earliest| earliest.min(until)));
        }
        earliest
    }

    /// Whether no message may be given to the plugin now.
    pub(super) fn is_held(&self) -> bool {
        self.next_workers().all(Worker::is_held)
    }

    /// Whether the plugin works for messages that wait: it may well be one that cannot decide yet.
    pub(super) fn is_working(&self) -> bool {
        self.next_workers().any(Worker::is_working)
    }

    /// What it has to do next at a time of its own, and when.
    pub(super) fn due(&self, may_tick: bool) -> Option<(Instant, Due)> {
        let ticks = |_: &Instant| may_tick && self.workers.iter().any(|worker| !worker.is_trial());
        let tick = self.ticking.due().filter(ticks).map(|due| (due, Due::Tick));
        let snapshot = self.workers.iter().filter_map(|worker| worker.save_due()).min();
        let snapshot = snapshot.map(|due| (due, Due::Snapshot));
        let silence = self.shadow.as_ref().map(|shadow| shadow.due());
        let verdict = silence.into_iter().chain(self.probation_due()).min().map(|due| (due, Due::Verdict));
        [tick, snapshot, verdict].into_iter().flatten().min_by_key(|(due, _)| *due)
    }

    /// Ends the shadow or the probation whose time has come.
    pub(super) fn decide_what_is_due(&mut self) {
        self.look_at_shadow();
        if self.probation_due().is_some_and(|due| due <= Instant::now()) {
            self.end_probation();
        }
    }

    /// The pipeline stops. What waits because the plugin could not decide is offered once more at once; what
    /// waits for a plugin that fails again and again is dropped, and so is all that comes for it later. Says how
    /// many messages were dropped.
    pub(super) fn hurry(&mut self) -> u64 {
        self.sharing.hurry(&mut self.workers, &self.metrics.account)
    }

    /// Gives the plugin the next of what waits, each instance one piece.
    ///
    /// # Cancel safety
    /// Nothing is to be asked of the stage any more if the future is dropped.
    pub(super) async fn work(&mut self, given: &mut Given) -> WorkOutcome {
        let due_us = self.ticking.due_us();
        let outcome = match &mut self.workers[..] {
            [worker] => worker.work(due_us, given).await,
            _ => Box::pin(self.work_in_parallel(due_us, given)).await,
        };
        if self.shadow.is_some() {
            self.look_at_shadow();
        }
        outcome
    }

    async fn work_in_parallel(&mut self, due_us: u64, given: &mut Given) -> WorkOutcome {
        self.sharing.share_out(&mut self.workers);
        let can_work = |worker: &Worker| worker.has_work_before(due_us) && !worker.is_held();
        let able = self.workers.iter().map(|worker| &**worker).filter(|worker| can_work(worker));
        let has_tasks = is_worth_tasks(able);
        let job = move |mut worker: Box<Worker>| async move {
            let outcome = worker.work_apart(due_us).await;
            (worker, outcome)
        };
        let outcomes = self.each(can_work, has_tasks, job).await;
        self.sharing.collect(&mut self.workers, given);
        if outcomes.contains(&WorkOutcome::Stop) { WorkOutcome::Stop } else { WorkOutcome::GoOn }
    }

    /// Lets all workers that are meant do a job, each on a task of its own or one after the other, and gives what they
    /// came to in their order.
    async fn each<T, F>(
        &mut self,
        is_meant: impl Fn(&Worker) -> bool,
        has_tasks: bool,
        job: impl Fn(Box<Worker>) -> F,
    ) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = (Box<Worker>, T)> + Send + 'static,
    {
        let all = std::mem::take(&mut self.workers);
        let (meant, mut workers): (Vec<_>, Vec<_>) = all.into_iter().partition(|worker| is_meant(worker));
        let jobs = meant.into_iter().map(job).collect();
        let done = if has_tasks { in_parallel(jobs).await } else { one_by_one(jobs).await };
        let (meant, results): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        workers.extend(meant);
        workers.sort_unstable_by_key(|worker| worker.setup.part.number);
        self.workers = workers;
        results
    }

    /// Calls the plugin's timer, which was due, in each instance: in a replay, at this moment.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(super) async fn tick(&mut self, at_us: Option<u64>, given: &mut Given) {
        let job = move |mut worker: Box<Worker>| async move {
            worker.tick(at_us).await;
            (worker, ())
        };
        self.each(|worker| !worker.is_trial(), true, job).await;
        self.sharing.collect(&mut self.workers, given);
        self.look_at_shadow();
        self.ticking.ticked(at_us);
    }

    /// Tells each instance that no message will follow; one that faults once more anew.
    ///
    /// # Errors
    /// If one faults again. What it had gathered is lost.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(super) async fn finish(&mut self, time_us: Option<u64>, given: &mut Given) -> Result<(), Broken> {
        self.ticking.stop();
        let job = move |mut worker: Box<Worker>| async move {
            let finished = worker.finish(time_us).await;
            (worker, finished)
        };
        let finished = self.each(|_| true, true, job).await;
        self.sharing.collect(&mut self.workers, given);
        finished.into_iter().collect()
    }
}
