//! The one task of a pipeline: source, stages and sinks in a straight line, without a queue between.
//!
//! Each turn drives the sinks and hands on what waits for them; only when nothing waits does it look at
//! its timers and its source. Not looking at the source is the backpressure. Messages go through the
//! stages call by call, the last stage that has any first; between two calls, and while one lasts, the
//! pipeline sees what it is told.

mod changing;
mod closing;
mod durable;
mod retrying;
mod updating;

use super::control::{Ended, Ending, Resume};
use super::ends::{Ends, GraceOver, Timer};
use super::generations::Generations;
use super::outlets::Routed;
use super::recovery::Persistence;
use super::stage::{Broken, Due, Given, Stage, WorkOutcome};
use crate::message::Message;
use crate::source::{Fill, Room};
use crate::telemetry::{Ledger, Settled};
use crate::websocket::close_code::{GOING_AWAY, INTERNAL_ERROR};
use closing::{Close, STOPPED_BY_A_FAILURE};
use durable::{GenerationTurn, poll_generation};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// A batch of a pipeline without transforms.
const PLAIN_ROOM: Room = Room { messages: 256, bytes: 1 << 20 };
/// How often the time in which reading is held back is counted while it lasts.
const PAUSE_COUNTED: Duration = Duration::from_secs(1);
/// How long ends may take to say goodbye once the grace period has run out.
pub const LAST_GOODBYE: Duration = Duration::from_millis(200);

/// A pipeline that is ready to run.
#[derive(Debug)]
pub struct Line {
    name: Arc<str>,
    /// How it takes it that something fails again and again.
    persistence: Persistence,
    ends: Ends,
    stages: Vec<Stage>,
    batch: Vec<Message>,
    given: Given,
    timer: Timer,
    /// Nothing that waits for the sinks held the pipeline when they were last looked at, and nothing was given
    /// since.
    is_clear: bool,
    /// A timer was called since the source last had its turn.
    is_sources_turn: bool,
    /// Dead letters are given a turn before the source has its next one.
    is_retries_turn: bool,
    /// The time that plugins are told: of the last message, where messages carry one of their own.
    time_us: Option<u64>,
    /// Writes what durable stages know, where there are such.
    generations: Option<Generations>,
    /// Where the next start goes on, as far as is known.
    resume: Resume,
    /// Messages that waited for a plugin which fails again and again when the stop came.
    abandoned: u64,
    /// A message failed whose stage stops the pipeline then.
    is_to_stop: bool,
    /// Nothing waits for a plugin any more, and the plugins have finished.
    has_worked_off: bool,
    /// Ends the accounts when everything else here is gone.
    ledger: OpenLedger,
}

/// The accounts of a running pipeline. Whatever is in flight when it goes, by a panic too, is counted as
/// given up.
#[derive(Debug)]
struct OpenLedger(Ledger);

impl Drop for OpenLedger {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// What a turn came to.
enum Turn {
    Filled(Fill),
    Due(usize, Due),
    /// A generation of what durable stages know is to be taken.
    Generation,
    /// Dead letters are to enter again.
    Retry,
    /// There is a swap or a stop, room for the next call, or the end of a pause.
    Look,
    /// A sink cannot go on.
    Failed(String),
}

/// Whether the source is still read. Then a stop is looked at before the next call; afterwards what waits
/// for the stages is worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    On,
    Over,
}

impl Line {
    pub(super) fn new(
        ledger: Ledger,
        ends: Ends,
        stages: Vec<Stage>,
        generations: Option<Generations>,
        (name, persistence): (Arc<str>, Persistence),
    ) -> Self {
        // Whatever ends it before its stages are sealed leaves what is of no one moment.
        let resume = if generations.is_some() { Resume::Newest } else { Resume::Here(None) };
        Self {
            generations,
            resume,
            name,
            persistence,
            ends,
            stages,
            batch: Vec::new(),
            given: Given::default(),
            timer: Timer::new(),
            is_clear: false,
            is_sources_turn: false,
            is_retries_turn: false,
            time_us: None,
            abandoned: 0,
            is_to_stop: false,
            has_worked_off: false,
            ledger: OpenLedger(ledger),
        }
    }

    /// Runs until the source ends, a stop, or an error; then drains and closes. `connected` is called
    /// once all ends are connected that are to be before anything flows.
    pub async fn run(mut self, connected: impl FnOnce() + Send) -> Ended {
        let dropped_before = self.ledger.0.dropped_at_shutdown();
        let mut ending = Ending::Stopped;
        let ended = self.live(connected, &mut ending).await;
        let mut is_late = false;
        if let Err(GraceOver) = ended {
            is_late = true;
            self.ends.outlets.give_up();
            let goodbye = std::future::poll_fn(|cx| self.ends.poll_close(cx, GOING_AWAY));
            // Who does not read it now does not get it.
            let _ = tokio::time::timeout(LAST_GOODBYE, goodbye).await;
        }
        let Self { name, mut ends, stages, ledger, abandoned, has_worked_off, resume, .. } = self;
        // Received, and never taken: of a source that was not read to its end.
        ends.source_place.account.entered(ends.source.remaining());
        drop((ends, stages));
        let owed = ledger.0.dropped_at_shutdown() - dropped_before;
        if owed > abandoned {
            let messages = owed - abandoned;
            tracing::warn!(pipeline = %name, messages, "peers took nothing of what was for them, which is given up");
        }
        let lost = ledger.0.give_up() + abandoned;
        // What was written last may have been read only while the peers were said goodbye to.
        let is_late = is_late && (lost > 0 || !has_worked_off);
        let given_up = (is_late || lost > 0).then_some(lost);
        if is_late {
            tracing::error!(pipeline = %name, lost, "the grace period ran out");
        } else if lost > 0 {
            tracing::error!(pipeline = %name, lost, "messages were given up");
        }
        Ended { ending, given_up, resume }
    }

    /// Everything from the first dial to the last close. `ending` is how it ends, as far as is known.
    async fn live(&mut self, connected: impl FnOnce() + Send, ending: &mut Ending) -> Result<(), GraceOver> {
        let close = match self.connect().await? {
            None => {
                self.ends.source.start();
                connected();
                self.flow().await?
            }
            Some(close) => close,
        };
        tracing::debug!(pipeline = %self.name, ending = ?close.ending, "draining");
        *ending = close.ending;
        self.ends.retries.close();
        // What comes now is for the end.
        self.stages.iter_mut().for_each(Stage::end_shadow);
        self.ends.begin_to_end();
        if matches!(ending, Ending::Failed(_)) {
            // A version that comes now is the chance of the next start.
            self.ends.pass_plugins();
        }
        let grace = self.ends.stop().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        self.ends.outlets.stop(grace);
        let code = if matches!(ending, Ending::Failed(_)) { INTERNAL_ERROR } else { GOING_AWAY };
        if close.reads_rest {
            self.read_rest(code, ending).await?;
        }
        self.work_off(ending).await?;
        let last = self.seal().await?;
        if close.finishes
            && let Err(Broken(error)) = self.finish(ending).await?
        {
            tracing::error!(pipeline = %self.name, error, "plugin failed at the end");
            *ending = Ending::Failed(error);
        }
        self.has_worked_off = true;
        self.ends.pass_plugins();
        self.ends.until(|ends, cx| ends.poll_drain(cx, code)).await?;
        self.write_last(last).await?;
        if let (Ending::Finished, Some(error)) = (&ending, self.ends.outlets.failure()) {
            // The source had ended before it was known.
            *ending = Ending::Failed(error);
        }
        let closed = self.ends.until(|ends, cx| ends.poll_close(cx, code)).await;
        if let Err(GraceOver) = closed {
            // Every message is at its end. A peer that does not take what it is owed costs only itself.
            tracing::warn!(pipeline = %self.name, "connections are cut off that did not close in time");
        }
        Ok(())
    }

    /// Waits for the ends that must be connected first.
    async fn connect(&mut self) -> Result<Option<Close>, GraceOver> {
        loop {
            let connected = self.ends.until(|ends, cx| {
                ends.poll_control(cx);
                if ends.is_told() {
                    return Poll::Ready(None);
                }
                // The source comes last: nothing is received that has nowhere to go.
                let connected = match ready!(ends.outlets.poll_connected(cx)) {
                    Ok(()) => ready!(ends.source.poll_connected(cx)).map_err(|why| format!("source: {why}")),
                    Err(why) => Err(why),
                };
                Poll::Ready(Some(connected))
            });
            match connected.await? {
                Some(Ok(())) => return Ok(None),
                Some(Err(error)) => return Ok(Some(Close::unconnected(error))),
                None => {}
            }
            self.take_over_all().await?;
            if self.ends.stop().is_some() {
                return Ok(Some(Close::stopped()));
            }
        }
    }

    /// Messages flow until there is a reason to end.
    async fn flow(&mut self) -> Result<Close, GraceOver> {
        loop {
            match self.turn().await? {
                Turn::Filled(fill) => {
                    self.take_batch();
                    match fill {
                        Fill::More | Fill::Drained => {}
                        Fill::Ended => return Ok(Close::finished()),
                        Fill::Failed(error) => return Ok(Close::failed(error)),
                    }
                }
                Turn::Due(stage, due) => self.do_due(stage, due).await?,
                Turn::Generation => self.write_generation().await?,
                Turn::Retry => self.take_retries(),
                Turn::Look => {}
                Turn::Failed(error) => return Ok(Close::failed(error)),
            }
            if self.work(Reading::On).await? == WorkOutcome::Stop {
                return Ok(Close::told_to_stop_by_a_failure());
            }
            if self.ends.stop().is_some() {
                return Ok(Close::stopped());
            }
        }
    }

    /// Ready with the next thing to do; until then it drives the ends.
    async fn turn(&mut self) -> Result<Turn, GraceOver> {
        let Self {
            ends,
            stages,
            batch,
            given,
            timer,
            is_clear,
            is_sources_turn,
            is_retries_turn,
            time_us,
            generations,
            ..
        } = self;
        // By move: the stages are borrowed for this alone, since instances are not to be shared.
        ends.until(move |ends, cx| {
            *is_clear = ends.outlets.poll_drive(cx).is_ready();
            ends.poll_control(cx);
            if ends.is_told() {
                return Poll::Ready(Turn::Look);
            }
            if let Some(error) = ends.outlets.failure() {
                return Poll::Ready(Turn::Failed(error));
            }
            // The last stage that has messages is the next to work, once there is room behind it.
            let waiting = stages.iter().rposition(Stage::is_next);
            let pause = waiting.and_then(|number| stages[number].held_until());
            let has_missed = time_us.is_some_and(|read_us| Stage::missed_tick(stages, read_us).is_some());
            if *is_clear && (has_missed || waiting.is_some() && pause.is_none()) {
                return Poll::Ready(Turn::Look);
            }
            let (awaits_rest, generation) = match poll_generation(generations.as_mut(), ends, stages, cx) {
                GenerationTurn::Now => return Poll::Ready(Turn::Generation),
                GenerationTurn::Failed(error) => return Poll::Ready(Turn::Failed(error)),
                GenerationTurn::Hold => (true, None),
                GenerationTurn::Later(due) => (false, due),
            };
            let is_held = !*is_clear || waiting.is_some() || has_missed || awaits_rest;
            ends.count_pause(is_held);
            // A timer may be what a plugin that cannot decide yet waits for; what the stages before it emitted
            // would only wait behind it.
            let ticking = match waiting {
                _ if !*is_clear => stages.len(),
                None => 0,
                Some(number) if stages[number].is_working() => number,
                Some(_) => stages.len(),
            };
            let due = stages.iter().enumerate();
            let due = due.filter_map(|(n, stage)| Some((stage.due(n >= ticking)?, n)));
            let due = due.min_by_key(|((at, _), _)| *at);
            let retry = ends.retries.due();
            let has_retry = retry.is_some_and(|due| due <= Instant::now());
            let later = retry.filter(|_| !has_retry && !is_held);
            let next = [due.map(|((at, _), _)| at), generation, later].into_iter().flatten().min();
            let due_now = |timer: &mut Timer, cx: &mut Context<'_>| {
                if timer.poll(cx, Some(next?)).is_pending() {
                    return None;
                }
                match due {
                    Some(((at, due), stage)) if Some(at) == next => Some(Turn::Due(stage, due)),
                    _ => Some(Turn::Look),
                }
            };
            if is_held {
                ends.poll_held(cx);
                if let Some(due) = due_now(timer, cx) {
                    return Poll::Ready(due);
                }
                let next = [Some(Instant::now() + PAUSE_COUNTED), pause, next];
                return timer.poll(cx, next.into_iter().flatten().min()).map(|()| Turn::Look);
            }
            if std::mem::take(is_retries_turn) && has_retry {
                return Poll::Ready(Turn::Retry);
            }
            let mut due_now = due_now(timer, cx);
            if !*is_sources_turn && let Some(due) = due_now.take() {
                *is_sources_turn = true;
                return Poll::Ready(due);
            }
            *is_sources_turn = false;
            let room = stages.first().map_or(PLAIN_ROOM, Stage::room);
            let filled = ends.source.poll_fill(cx, batch, room, &mut given.failed);
            if !matches!(filled, Poll::Ready(Fill::More)) {
                // Nothing more is there to write with it. What this batch gives is flushed when the
                // next turn finds the source empty.
                let _ = ends.outlets.poll_flush(cx);
            }
            match (filled, due_now) {
                (Poll::Ready(fill), _) => {
                    *is_retries_turn = true;
                    Poll::Ready(Turn::Filled(fill))
                }
                (Poll::Pending, Some(due)) => {
                    *is_sources_turn = true;
                    Poll::Ready(due)
                }
                (Poll::Pending, None) if has_retry => Poll::Ready(Turn::Retry),
                (Poll::Pending, None) => Poll::Pending,
            }
        })
        .await
    }

    /// Gives what the source has received to the first stage, or to the sinks.
    fn take_batch(&mut self) {
        let Self { ends, stages, batch, given, time_us, .. } = self;
        if ends.source.carries_time()
            && let [first, ..] = &batch[..]
            && let Some(last) = batch.last()
        {
            stages.iter_mut().for_each(|stage| stage.see_time(first.metadata.received_us()));
            *time_us = Some(last.metadata.received_us());
        }
        let taken = batch.len() as u64;
        let received = taken + given.failed.len() as u64;
        let settled = Settled { passed: taken, ..Settled::default() };
        let account = &ends.source_place.account;
        match stages.first_mut() {
            Some(first) => {
                account.received(received, settled, [(first.account(), taken)]);
                first.take(batch);
            }
            None => {
                given.routed.extend(batch.drain(..).map(|message| Routed { output: 0, message }));
                ends.outlets.take(account, received, settled, &mut given.routed);
                self.is_clear = false;
            }
        }
        ends.outlets.dead_letters.take(&ends.source_place, given.failed.drain(..));
    }

    /// Works off what waits for the stages, call by call, while nothing waits behind them. Ends early for a
    /// swap it has made, a stop, or a stage whose plugin fails again and again.
    async fn work(&mut self, reading: Reading) -> Result<WorkOutcome, GraceOver> {
        loop {
            self.take_over_all().await?;
            if !self.call_next(reading).await? {
                break;
            }
        }
        Ok(if std::mem::take(&mut self.is_to_stop) { WorkOutcome::Stop } else { WorkOutcome::GoOn })
    }

    /// Makes the next call: of a timer that a replay has missed, or of messages. Says whether there was one to make.
    async fn call_next(&mut self, reading: Reading) -> Result<bool, GraceOver> {
        let is_stopping = reading == Reading::On && self.ends.stop().is_some();
        if !self.is_clear || is_stopping {
            return Ok(false);
        }
        if let Some((number, at_us)) = self.missed_tick() {
            self.tick(number, Some(at_us)).await?;
            return Ok(true);
        }
        let Some(number) = self.stages.iter().rposition(Stage::is_next) else { return Ok(false) };
        let stage = &mut self.stages[number];
        if stage.is_held() {
            return Ok(false);
        }
        let outcome = self.ends.during(stage.work(&mut self.given)).await?;
        self.is_to_stop |= outcome == WorkOutcome::Stop;
        self.hand_over(number);
        if self.stages[number].is_to_go_back() {
            self.roll_back(number);
        }
        // Calls that return at once never wait: other tasks on the thread run in between.
        tokio::task::consume_budget().await;
        Ok(true)
    }

    async fn do_due(&mut self, number: usize, due: Due) -> Result<(), GraceOver> {
        let stage = &mut self.stages[number];
        match due {
            Due::Snapshot => self.ends.during(stage.save()).await,
            Due::Tick => self.tick(number, None).await,
            Due::Verdict => {
                stage.decide_what_is_due();
                Ok(())
            }
        }
    }

    /// The stage whose timer is to be called before anything else, and when: in a replay alone.
    fn missed_tick(&self) -> Option<(usize, u64)> {
        Stage::missed_tick(&self.stages, self.time_us?)
    }

    /// Calls the timer of a stage: in a replay, at this moment.
    async fn tick(&mut self, number: usize, at_us: Option<u64>) -> Result<(), GraceOver> {
        self.ends.during(self.stages[number].tick(at_us, &mut self.given)).await?;
        self.hand_over(number);
        if self.stages[number].is_to_go_back() {
            self.roll_back(number);
        }
        Ok(())
    }

    /// Gives the output of a stage to the next one, or to the sinks.
    fn hand_over(&mut self, number: usize) {
        let Self { ends, stages, given, is_clear, .. } = self;
        let mut settled = std::mem::take(&mut given.settled);
        if number + 1 == stages.len() {
            if !given.routed.is_empty() {
                *is_clear = false;
            }
            ends.outlets.take(stages[number].account(), 0, settled, &mut given.routed);
        } else {
            let [.., stage, next] = &mut stages[..number + 2] else { return };
            let mut onward = 0;
            for Routed { output, message } in given.routed.drain(..) {
                // Only the last transform has sinks for its named outputs.
                if output == 0 {
                    next.give(message);
                    onward += 1;
                } else {
                    settled.untaken += 1;
                }
            }
            stage.account().hand_on(settled, [(next.account(), onward)]);
        }
        if !given.failed.is_empty() {
            *is_clear = false;
            ends.outlets.dead_letters.take(stages[number].place(), given.failed.drain(..));
        }
    }

    /// Lets what was offered take over: other versions of plugins, and other configurations.
    async fn take_over_all(&mut self) -> Result<(), GraceOver> {
        while let Some(update) = self.ends.updates.pop_front() {
            self.change_all().await?;
            // It is far larger than what is done at each turn.
            Box::pin(self.update(update)).await?;
        }
        self.change_all().await
    }

    /// Stops the source and puts through what it had received before.
    async fn read_rest(&mut self, code: u16, ending: &mut Ending) -> Result<(), GraceOver> {
        loop {
            self.work_off(ending).await?;
            let room = self.stages.first().map_or(PLAIN_ROOM, Stage::room);
            let Self { ends, batch, given, .. } = self;
            let fill = ends.until(|ends, cx| {
                let clear = ends.outlets.poll_drive(cx).is_ready();
                ends.source.poll_stop(cx, code);
                ends.poll_control(cx);
                if !ends.changes.is_empty() {
                    return Poll::Ready(None);
                }
                if !clear {
                    return Poll::Pending;
                }
                ends.source.poll_fill(cx, batch, room, &mut given.failed).map(Some)
            });
            let Some(fill) = fill.await? else {
                self.change_all().await?;
                continue;
            };
            self.take_batch();
            if matches!(fill, Fill::Ended | Fill::Failed(_)) {
                return Ok(());
            }
        }
    }

    /// Waits until no stage has messages. Nothing is read meanwhile, and no timer called but what a replay has missed.
    /// Once a stop was asked for, what waits for a plugin which fails again and again is given up.
    async fn work_off(&mut self, ending: &mut Ending) -> Result<(), GraceOver> {
        while self.has_work() {
            if self.work(Reading::Over).await? == WorkOutcome::Stop && !matches!(ending, Ending::Failed(_)) {
                *ending = Ending::Failed(STOPPED_BY_A_FAILURE.into());
            }
            if self.ends.stop().is_some() {
                self.abandoned += self.stages.iter_mut().map(Stage::hurry).sum::<u64>();
            }
            if self.has_work() {
                self.wait_for_room().await?;
            }
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        self.stages.iter().any(Stage::has_work) || self.missed_tick().is_some()
    }

    /// Waits until the sinks have taken what waits for them, a pause is over, or something is told.
    async fn wait_for_room(&mut self) -> Result<(), GraceOver> {
        let Self { ends, stages, timer, is_clear, .. } = self;
        let was_stopped = ends.stop().is_some();
        let pause = stages.iter().rev().find(|stage| stage.is_next()).and_then(Stage::held_until);
        ends.until(|ends, cx| {
            *is_clear = ends.outlets.poll_drive(cx).is_ready();
            ends.poll_held(cx);
            ends.poll_control(cx);
            let is_told =
                !ends.changes.is_empty() || !ends.updates.is_empty() || ends.stop().is_some() != was_stopped;
            let is_over = pause.is_none_or(|pause| timer.poll(cx, Some(pause)).is_ready());
            if is_told || (*is_clear && is_over) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await
    }

    /// Tells each plugin in turn that no message will follow. The first one that fails at it ends that.
    async fn finish(&mut self, ending: &mut Ending) -> Result<Result<(), Broken>, GraceOver> {
        let mut result = Ok(());
        for number in 0..self.stages.len() {
            let finished =
                self.ends.during(self.stages[number].finish(self.time_us, &mut self.given)).await?;
            self.hand_over(number);
            self.work_off(ending).await?;
            if finished.is_err() && result.is_ok() {
                result = finished;
            }
        }
        Ok(result)
    }
}
