//! The one task of a pipeline: source, stages and sinks in a straight line, without a queue between.
//!
//! Each turn drives the sinks and hands on what waits for them; only when nothing waits does it look
//! at its control channel, its timers and its source. Not looking at the source is the
//! backpressure. A call of a plugin that gives its thread back halfway is polled together with the
//! sinks, so that sockets live on while a plugin takes its time.

use super::dead_letters::Place;
use super::outlets::{Outlets, Routed};
use super::stage::{Broken, CarriedState, Stage, Verdict};
use crate::message::{Failed, Message};
use crate::plugin::{Fault, Instance};
use crate::reason::Reason;
use crate::source::{Fill, Room, Source};
use crate::telemetry::SourceMetrics;
use crate::websocket::close_code::{GOING_AWAY, INTERNAL_ERROR};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

/// A batch of a pipeline without transforms.
const PLAIN_ROOM: Room = Room { messages: 256, bytes: 1 << 20 };
/// How often the time in which reading is held back is counted while it lasts.
const PAUSE_COUNTED: Duration = Duration::from_secs(1);
/// How long a timer that is not set is set to.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a pipeline is told while it runs.
#[derive(Debug)]
pub enum Control {
    /// Exchange the version of a plugin that a stage runs.
    Swap(Box<Swap>),
    /// Stop reading, finish what is in flight until the deadline, close.
    Stop {
        /// When what is still in flight is given up.
        deadline: tokio::time::Instant,
    },
}

/// A version of a plugin that is ready to take over.
#[derive(Debug)]
pub struct Swap {
    /// The number of the stage.
    pub stage: usize,
    /// The new version, initialised with the stage's configuration.
    pub next: Instance,
    /// Whether it starts without the state of the old one.
    pub fresh: bool,
    /// Where the verdict goes.
    pub verdict: oneshot::Sender<Swapped>,
}

/// How a swap went at one stage.
#[derive(Debug)]
pub struct Swapped {
    /// What became of the state, or why the old version runs on.
    pub outcome: Result<CarriedState, Fault>,
    /// How long the pipeline stood still.
    pub pause: Duration,
    /// The instance that is not needed any more; dropping it takes time.
    pub retired: Option<Instance>,
}

/// How a pipeline ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its source ended.
    Finished,
    /// It was told to.
    Stopped,
    /// It could not go on.
    Failed(String),
}

/// A running pipeline's account of its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub ending: Ending,
    /// Messages that were still in flight when the grace period ran out; `None` if it did not.
    pub given_up: Option<u64>,
}

/// A pipeline that is ready to run.
#[derive(Debug)]
pub struct Line {
    name: Arc<str>,
    source: Source,
    source_place: Place,
    source_metrics: SourceMetrics,
    stages: Vec<Stage>,
    outlets: Outlets,
    control: mpsc::Receiver<Control>,
    batch: Vec<Message>,
    routed: Vec<Routed>,
    failed: Vec<Failed>,
    /// The stage that works on the batch, or did last.
    at: usize,
    paused_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// The moment the timer is set to; `None` is far away.
    timer_due: Option<tokio::time::Instant>,
}

/// What a turn came to.
enum Turn {
    Filled(Fill),
    Tick(usize),
    Control(Option<Control>),
    Failed(String),
}

/// What waiting for the ends came to.
enum Connecting {
    Done(Result<(), String>),
    Control(Option<Control>),
}

/// How a pipeline comes to its end.
struct Close {
    ending: Ending,
    /// When what is in flight is given up; a stop sets it.
    deadline: Option<tokio::time::Instant>,
    /// Whether what the source received before is still put through.
    reads_rest: bool,
    /// Whether the plugins are told; not if one of them is why.
    finishes: bool,
}

impl Close {
    fn finished() -> Self {
        Self { ending: Ending::Finished, deadline: None, reads_rest: false, finishes: true }
    }

    fn stopped(deadline: tokio::time::Instant) -> Self {
        Self { ending: Ending::Stopped, deadline: Some(deadline), reads_rest: true, finishes: true }
    }

    fn failed(error: String) -> Self {
        Self { ending: Ending::Failed(error), ..Self::finished() }
    }

    fn unconnected(error: String) -> Self {
        Self { ending: Ending::Failed(error), finishes: false, ..Self::finished() }
    }

    fn broken(Broken(error): Broken) -> Self {
        Self { ending: Ending::Failed(error), finishes: false, ..Self::finished() }
    }
}

impl Line {
    pub(super) fn new(
        name: Arc<str>,
        source: Source,
        source_place: Place,
        source_metrics: SourceMetrics,
        stages: Vec<Stage>,
        outlets: Outlets,
        control: mpsc::Receiver<Control>,
    ) -> Self {
        Self {
            name,
            source,
            source_place,
            source_metrics,
            stages,
            outlets,
            control,
            batch: Vec::new(),
            routed: Vec::new(),
            failed: Vec::new(),
            at: 0,
            paused_since: None,
            timer: Box::pin(tokio::time::sleep(FAR)),
            timer_due: None,
        }
    }

    /// Runs until the source ends, a stop, or an error; then drains and closes. `connected` is called
    /// once all ends are connected that are to be before anything flows.
    pub async fn run(mut self, connected: impl FnOnce() + Send) -> Ended {
        let close = match self.connect().await {
            None => {
                connected();
                self.flow().await
            }
            Some(close) => close,
        };
        self.drain(close).await
    }

    /// Waits for the ends that must be connected first.
    async fn connect(&mut self) -> Option<Close> {
        loop {
            match poll_fn(|cx| self.poll_connect(cx)).await {
                Connecting::Done(Ok(())) => return None,
                Connecting::Done(Err(error)) => return Some(Close::unconnected(error)),
                Connecting::Control(Some(Control::Swap(swap))) => self.swap(*swap).await,
                Connecting::Control(Some(Control::Stop { deadline })) => {
                    return Some(Close::stopped(deadline));
                }
                Connecting::Control(None) => return Some(Close::stopped(tokio::time::Instant::now())),
            }
        }
    }

    fn poll_connect(&mut self, cx: &mut Context<'_>) -> Poll<Connecting> {
        if let Poll::Ready(control) = self.control.poll_recv(cx) {
            return Poll::Ready(Connecting::Control(control));
        }
        let sinks = self.outlets.poll_connected(cx);
        let source = self.source.poll_connected(cx).map_err(|error| format!("source: {error}"));
        match (sinks, source) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                Poll::Ready(Connecting::Done(Err(error)))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Connecting::Done(Ok(()))),
            _ => Poll::Pending,
        }
    }

    async fn flow(&mut self) -> Close {
        loop {
            let (result, fill) = match poll_fn(|cx| self.poll_turn(cx)).await {
                Turn::Filled(fill) => {
                    self.count_filled();
                    (self.advance(0).await, fill)
                }
                Turn::Tick(stage) => (self.tick(stage).await, Fill::More),
                Turn::Control(Some(Control::Swap(swap))) => {
                    self.swap(*swap).await;
                    continue;
                }
                Turn::Control(Some(Control::Stop { deadline })) => return Close::stopped(deadline),
                Turn::Control(None) => return Close::stopped(tokio::time::Instant::now()),
                Turn::Failed(error) => return Close::failed(error),
            };
            match (result, fill) {
                (Err(broken), _) => return Close::broken(broken),
                (Ok(Verdict::Stop), _) => {
                    return Close::failed("a message failed where on_error is \"stop\"".into());
                }
                (Ok(Verdict::GoOn), Fill::Ended) => return Close::finished(),
                (Ok(Verdict::GoOn), Fill::Failed(error)) => return Close::failed(error),
                (Ok(Verdict::GoOn), Fill::More | Fill::Drained) => {}
            }
        }
    }

    /// Ready with the next thing to do; until then it drives the ends.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let clear = self.outlets.poll_drive(cx).is_ready();
        // A swap waits for a batch boundary, not for room: here no message is inside a stage.
        if let Poll::Ready(control) = self.control.poll_recv(cx) {
            return Poll::Ready(Turn::Control(control));
        }
        if let Some(error) = self.outlets.failure() {
            return Poll::Ready(Turn::Failed(error));
        }
        self.count_pause(!clear);
        if !clear {
            self.source.poll_hold(cx);
            let _ = self.poll_timer(cx, Some(tokio::time::Instant::now() + PAUSE_COUNTED));
            return Poll::Pending;
        }
        let due = self.stages.iter().enumerate().filter_map(|(n, stage)| Some((stage.next_tick()?, n))).min();
        if let Some((due, stage)) = due
            && self.poll_timer(cx, Some(due)).is_ready()
        {
            return Poll::Ready(Turn::Tick(stage));
        }
        let room = self.stages.first().map_or(PLAIN_ROOM, Stage::room);
        let filled = self.source.poll_fill(cx, &mut self.batch, room, &mut self.failed);
        if !matches!(filled, Poll::Ready(Fill::More)) {
            // Nothing more is there to write with it. What this batch gives is flushed when the
            // next turn finds the source empty.
            let _ = self.outlets.poll_flush(cx);
        }
        filled.map(Turn::Filled)
    }

    /// Sets the timer and polls it. It is the only one of the line: what is due later is set later.
    fn poll_timer(&mut self, cx: &mut Context<'_>, due: Option<tokio::time::Instant>) -> Poll<()> {
        if self.timer_due != due {
            self.timer_due = due;
            self.timer.as_mut().reset(due.unwrap_or_else(|| tokio::time::Instant::now() + FAR));
        }
        self.timer.as_mut().poll(cx)
    }

    fn count_filled(&mut self) {
        let received = self.batch.len() + self.failed.len();
        self.source_metrics.received.inc_by(received as u64);
        self.outlets.dead_letters.take(&self.source_place, self.failed.drain(..));
    }

    fn count_pause(&mut self, is_paused: bool) {
        if !is_paused && self.paused_since.is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(since) = self.paused_since {
            self.source_metrics.paused.inc_by((now - since).as_secs_f64());
        }
        self.paused_since = is_paused.then_some(now);
    }

    /// Puts the batch through the stages from number `first`, and what comes out into the outbox.
    async fn advance(&mut self, first: usize) -> Result<Verdict, Broken> {
        let mut verdict = Verdict::GoOn;
        for number in first..self.stages.len() {
            self.at = number;
            let stage = &mut self.stages[number];
            let work = stage.process(&mut self.batch, &mut self.routed, &mut self.failed);
            let done = driving(&mut self.outlets, &mut self.source, work).await;
            self.hand_over(number);
            if done? == Verdict::Stop {
                verdict = Verdict::Stop;
            }
        }
        if self.stages.is_empty() {
            self.routed.extend(self.batch.drain(..).map(|message| Routed { output: 0, message }));
            self.outlets.take(&mut self.routed, &self.source_place.losses);
        }
        Ok(verdict)
    }

    /// Gives the output of a stage to the next one, or to the sinks.
    fn hand_over(&mut self, number: usize) {
        let place = self.stages[number].place();
        self.outlets.dead_letters.take(place, self.failed.drain(..));
        if number + 1 == self.stages.len() {
            self.outlets.take(&mut self.routed, &place.losses);
            return;
        }
        let mut untaken = 0;
        for Routed { output, message } in self.routed.drain(..) {
            // Only the last transform has sinks for its named outputs.
            if output == 0 {
                self.batch.push(message);
            } else {
                untaken += 1;
            }
        }
        place.losses.dropped(Reason::NoOutput, untaken);
    }

    async fn tick(&mut self, number: usize) -> Result<Verdict, Broken> {
        let work = self.stages[number].tick(&mut self.routed);
        driving(&mut self.outlets, &mut self.source, work).await?;
        self.hand_over(number);
        self.advance_rest(number + 1).await
    }

    async fn finish(&mut self) -> Result<(), Broken> {
        for number in 0..self.stages.len() {
            let work = self.stages[number].finish(&mut self.routed);
            driving(&mut self.outlets, &mut self.source, work).await?;
            self.hand_over(number);
            self.advance_rest(number + 1).await?;
        }
        Ok(())
    }

    async fn advance_rest(&mut self, first: usize) -> Result<Verdict, Broken> {
        if first < self.stages.len() { self.advance(first).await } else { Ok(Verdict::GoOn) }
    }

    async fn swap(&mut self, swap: Swap) {
        let Swap { stage: number, next, fresh, verdict } = swap;
        let started = Instant::now();
        let work = self.stages[number].swap(next, fresh);
        let result = driving(&mut self.outlets, &mut self.source, work).await;
        let pause = started.elapsed();
        let swapped = match result {
            Ok((retired, state)) => {
                if number + 1 == self.stages.len() {
                    self.outlets.set_outputs(self.stages[number].outputs());
                }
                Swapped { outcome: Ok(state), pause, retired }
            }
            Err((refused, fault)) => Swapped { outcome: Err(fault), pause, retired: Some(refused) },
        };
        // Whoever asked may have given up; the swap stands all the same.
        let _ = verdict.send(swapped);
    }

    /// Finishes what is in flight, closes the ends, and accounts for what could not be finished.
    async fn drain(mut self, close: Close) -> Ended {
        let Close { mut ending, deadline, reads_rest, finishes } = close;
        tracing::debug!(pipeline = %self.name, ?ending, "draining");
        let mut control = std::mem::replace(&mut self.control, mpsc::channel(1).1);
        let code = if matches!(ending, Ending::Failed(_)) { INTERNAL_ERROR } else { GOING_AWAY };
        let drained = {
            let work = pin!(self.finish_all(reads_rest, finishes, code));
            until(work, deadline, &mut control).await
        };
        let mut given_up = None;
        match drained {
            Some(Ok(())) => {}
            Some(Err(Broken(error))) => ending = Ending::Failed(error),
            None => {
                let unread = self.source.remaining();
                self.source_metrics.received.inc_by(unread);
                self.source_place.losses.dropped(Reason::Shutdown, unread);
                let inside = self.batch.len() + self.routed.len();
                let at = self.stages.get(self.at).map_or(&self.source_place, Stage::place);
                at.losses.dropped(Reason::Shutdown, inside as u64);
                let lost = self.outlets.give_up() + inside as u64 + unread;
                tracing::error!(pipeline = %self.name, lost, "the grace period ran out");
                given_up = Some(lost);
            }
        }
        Ended { ending, given_up }
    }

    async fn finish_all(&mut self, reads_rest: bool, finishes: bool, code: u16) -> Result<(), Broken> {
        let mut result = Ok(());
        if reads_rest {
            result = self.read_rest(code).await;
        }
        if finishes && result.is_ok() {
            result = self.finish().await;
        }
        poll_fn(|cx| {
            // Replies go out on the source's connection.
            self.source.poll_hold(cx);
            self.outlets.poll_drain(cx)
        })
        .await;
        let mut source_closed = false;
        poll_fn(|cx| {
            source_closed = source_closed || self.source.poll_close(cx, code).is_ready();
            let sinks_closed = self.outlets.poll_close(cx, code).is_ready();
            if source_closed && sinks_closed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        result
    }

    /// Stops the source and puts through what it had received before.
    async fn read_rest(&mut self, code: u16) -> Result<(), Broken> {
        let room = self.stages.first().map_or(PLAIN_ROOM, Stage::room);
        loop {
            let fill = poll_fn(|cx| {
                let clear = self.outlets.poll_drive(cx).is_ready();
                self.source.poll_stop(cx, code);
                if !clear {
                    return Poll::Pending;
                }
                self.source.poll_fill(cx, &mut self.batch, room, &mut self.failed)
            })
            .await;
            self.count_filled();
            self.advance(0).await?;
            if matches!(fill, Fill::Ended | Fill::Failed(_)) {
                return Ok(());
            }
        }
    }
}

/// Polls the call of a plugin, and while it has given its thread back, the ends.
async fn driving<F: Future>(outlets: &mut Outlets, source: &mut Source, call: F) -> F::Output {
    let mut call = pin!(call);
    poll_fn(|cx| {
        let called = call.as_mut().poll(cx);
        if called.is_pending() {
            let _ = outlets.poll_drive(cx);
            source.poll_hold(cx);
        }
        called
    })
    .await
}

/// Awaits the work until the deadline, which a stop may set while it lasts.
async fn until<F: Future>(
    mut work: Pin<&mut F>,
    mut deadline: Option<tokio::time::Instant>,
    control: &mut mpsc::Receiver<Control>,
) -> Option<F::Output> {
    loop {
        let due = deadline.unwrap_or_else(|| tokio::time::Instant::now() + FAR);
        tokio::select! {
            biased;
            output = &mut work => return Some(output),
            () = tokio::time::sleep_until(due) => return None,
            told = control.recv(), if deadline.is_none() => match told {
                Some(Control::Stop { deadline: given }) => deadline = Some(given),
                Some(Control::Swap(_)) => {}
                None => deadline = Some(tokio::time::Instant::now()),
            },
        }
    }
}
