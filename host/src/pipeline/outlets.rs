//! The way out of a pipeline: messages of the last transform to the sinks that take their output.
//!
//! A message goes to each sink that takes it once that sink has room, and waits for it until then; so order is
//! kept for each sink, and one full sink holds the pipeline, not what the others are to get. At a stop it does
//! not hold the pipeline either, within a bound, and each sink closes as soon as it has got everything. An
//! output that no sink takes ends here, counted.

mod leaving;

use super::dead_letters::{DeadLetterSink, DeadLetters, Place};
use super::update::Departure;
use crate::config::{MAX_SINKS, Outputs};
use crate::message::{Failed, Message};
use crate::sink::Sink;
use crate::telemetry::{Account, Settled};
use crate::wait_budget::WaitingBytes;
use leaving::LeavingOutlet;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// After so many messages or bytes sinks flush, even if more are there: latency and memory under
/// full load stay bounded.
const FLUSH_MESSAGES: usize = 1024;
const FLUSH_BYTES: usize = 128 << 10;
/// A sink waits so long for the one whose place it takes to be through, so that what peers of both get is in order.
const ORDER_PATIENCE: Duration = Duration::from_secs(1);
/// Messages that are handed on in one go: other tasks on the thread run in between.
const HAND_ON_MESSAGES: usize = 4096;

/// A message, and the output by which it left its transform: 0 is "default".
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) output: u16,
    pub(super) message: Message,
}

/// A sink of a pipeline.
#[derive(Debug)]
pub(super) struct Outlet {
    sink: Sink,
    takes: Outputs,
    place: Place,
    /// What it had no room for when that came.
    waiting: VecDeque<Message>,
    /// It has got everything, and is closed.
    is_closed: bool,
    /// It takes the place of a sink that has not gone yet, and waits for that so long at most.
    behind: Option<Pin<Box<Sleep>>>,
}

/// A sink of an update.
#[derive(Debug)]
pub(super) struct NextOutlet {
    pub(super) place: Place,
    pub(super) takes: Outputs,
    /// `None` is the end of the sink of its name, which stays.
    pub(super) end: Option<Sink>,
}

/// All sinks of a pipeline, and what waits for them.
#[derive(Debug)]
pub(super) struct Outlets {
    outlets: Vec<Outlet>,
    /// Sinks that go.
    departing: Vec<LeavingOutlet>,
    /// Who is told once they have gone, and what is told.
    departure: Option<(oneshot::Sender<Departure>, Departure)>,
    /// What was not yet handed on.
    outbox: VecDeque<Routed>,
    /// What waits for the sinks, of all of them.
    backlog: WaitingBytes,
    /// For each output of the last transform, one bit for each sink that takes it.
    takers: Vec<u64>,
    /// How many of the messages that are taken leave by each output.
    leaving: Vec<u64>,
    pub(super) dead_letters: DeadLetters,
    failed: Vec<Failed>,
    flush: Flush,
}

/// What was given to the sinks since they last flushed.
#[derive(Debug, Default)]
struct Flush {
    messages: usize,
    bytes: usize,
    wanted: bool,
}

impl Flush {
    #[inline]
    fn count(&mut self, message: &Message) {
        self.messages += 1;
        self.bytes += message.payload.len();
    }
}

impl Outlets {
    pub(super) fn new(outlets: Vec<Outlet>, dead_letters: DeadLetters, outputs: &[Arc<str>]) -> Self {
        debug_assert!(outlets.len() <= MAX_SINKS, "the configuration has refused more");
        let mut this = Self {
            outlets,
            departing: Vec::new(),
            departure: None,
            outbox: VecDeque::new(),
            backlog: WaitingBytes::default(),
            takers: Vec::new(),
            leaving: Vec::new(),
            dead_letters,
            failed: Vec::new(),
            flush: Flush::default(),
        };
        this.set_outputs(outputs);
        this
    }

    /// Sets the named outputs of the last transform.
    pub(super) fn set_outputs(&mut self, outputs: &[Arc<str>]) {
        let names = std::iter::once("default").chain(outputs.iter().map(|name| &**name));
        let takers = names
            .map(|name| {
                let takes = |outlet: &Outlet| match &outlet.takes {
                    Outputs::All => true,
                    Outputs::Named(named) => named.iter().any(|taken| taken.expose() == name),
                };
                let bits = self.outlets.iter().enumerate().filter(|(_, outlet)| takes(outlet));
                bits.fold(0, |bits, (n, _)| bits | 1 << n)
            })
            .collect();
        let before = std::mem::replace(&mut self.takers, takers);
        // What waits goes where it was to go, whatever that output is called now.
        for Routed { output, .. } in &mut self.outbox {
            *output = output_to(&mut self.takers, before[usize::from(*output)]);
        }
    }

    /// The sinks that take what is not for a named output, one bit for each.
    pub(super) fn takers_of_default(&self) -> u64 {
        self.takers(0)
    }

    /// The number of the sink of this name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.outlets.iter().position(|outlet| *outlet.place.stage == *name)
    }

    /// Takes a dead letter in again, for these sinks: one bit for each.
    pub(super) fn retry(&mut self, sinks: u64, message: Message) {
        bits(sinks).for_each(|n| self.outlets[n].place.account.retried(1));
        let output = output_to(&mut self.takers, sinks);
        self.outbox.push_back(Routed { output, message });
    }

    /// Has these sinks take the place of those that are there, which go within `patience` unless they stay: what
    /// was for them they get. `outputs` are those of the last transform.
    pub(super) fn update(
        &mut self,
        sinks: Vec<NextOutlet>,
        outputs: &[Arc<str>],
        patience: Duration,
        departure: oneshot::Sender<Departure>,
    ) {
        while let Some(Routed { output, message }) = self.outbox.pop_front() {
            for n in bits(self.takers(output)) {
                self.backlog.add(message.payload.len());
                self.outlets[n].waiting.push_back(message.clone());
            }
        }
        let mut before = std::mem::take(&mut self.outlets);
        let successors: Vec<Arc<str>> = sinks.iter().map(|sink| sink.place.stage.clone()).collect();
        for NextOutlet { place, takes, end } in sinks {
            let old = before.iter().position(|outlet| outlet.place.stage == place.stage);
            let outlet = match (end, old) {
                (None, Some(old)) => Outlet { takes, ..before.remove(old) },
                (Some(sink), old) => {
                    let behind = old.map(|_| Box::pin(tokio::time::sleep(ORDER_PATIENCE)));
                    Outlet { behind, ..Outlet::new(sink, takes, place) }
                }
                // Who has put the update together has looked.
                (None, None) => continue,
            };
            self.outlets.push(outlet);
        }
        for outlet in before {
            outlet.waiting.iter().for_each(|message| self.backlog.remove(message.payload.len()));
            let has_successor = successors.contains(&outlet.place.stage);
            self.departing.push(LeavingOutlet::new(outlet, has_successor, patience));
        }
        self.takers.clear();
        self.set_outputs(outputs);
        self.departure = Some((departure, Departure::default()));
    }

    /// Has another sink take the dead letters from now on, or none.
    pub(super) fn exchange_dead_letters(&mut self, next: Option<DeadLetterSink>, patience: Duration) {
        let has_successor = next.is_some();
        if let Some((sink, place)) = self.dead_letters.exchange(next) {
            let outlet = Outlet::new(sink, Outputs::Named(Vec::new()), place);
            self.departing.push(LeavingOutlet::of_dead_letters(outlet, has_successor, patience));
        }
    }

    /// Adds what an update has given up already to what is told once its sinks have gone.
    pub(super) fn told_of(&mut self, given_up: Vec<(Arc<str>, u64)>) {
        if let Some((_, departure)) = &mut self.departure {
            departure.given_up.extend(given_up);
        }
    }

    /// Drives the sinks that go. Ready once none is left.
    fn poll_departing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { departing, departure, failed, dead_letters, .. } = self;
        departing.retain_mut(|each| {
            let Poll::Ready(lost) = each.poll(cx, failed, dead_letters) else { return true };
            if let (1.., Some((_, departure))) = (lost, departure.as_mut()) {
                departure.given_up.push((each.name().clone(), lost));
            }
            false
        });
        for outlet in self.outlets.iter_mut() {
            let Some(patience) = &mut outlet.behind else { continue };
            let is_there = self.departing.iter().any(|each| *each.name() == outlet.place.stage);
            if !is_there || patience.as_mut().poll(cx).is_ready() {
                outlet.behind = None;
            }
        }
        if !self.departing.is_empty() {
            return Poll::Pending;
        }
        if let Some((teller, departure)) = self.departure.take() {
            // Whoever asked may have gone.
            let _ = teller.send(departure);
        }
        Poll::Ready(())
    }

    fn takers(&self, output: u16) -> u64 {
        self.takers.get(usize::from(output)).copied().unwrap_or(0)
    }

    /// Takes what the last transform, or the source where there is none, has given: `from` is its account,
    /// `received` what came in there just now. What no sink takes ends here.
    pub(super) fn take(
        &mut self,
        from: &Account,
        received: u64,
        mut settled: Settled,
        routed: &mut Vec<Routed>,
    ) {
        self.leaving.clear();
        self.leaving.resize(self.takers.len(), 0);
        for Routed { output, .. } in &*routed {
            match self.leaving.get_mut(usize::from(*output)) {
                Some(leaving) => *leaving += 1,
                None => settled.untaken += 1,
            }
        }
        let leaving = || self.leaving.iter().zip(&self.takers);
        settled.untaken +=
            leaving().filter(|(_, takers)| **takers == 0).map(|(leaving, _)| leaving).sum::<u64>();
        if settled.untaken > 0 {
            routed.retain(|routed| self.takers(routed.output) != 0);
        }
        let onward = self.outlets.iter().enumerate().map(|(n, outlet)| {
            let taken = leaving().filter(|(_, takers)| **takers & (1 << n) != 0).map(|(leaving, _)| leaving);
            (&outlet.place.account, taken.sum())
        });
        from.received(received, settled, onward);
        if self.outbox.is_empty() {
            let spent = std::mem::take(&mut self.outbox);
            self.outbox = std::mem::replace(routed, spent.into()).into();
        } else {
            self.outbox.extend(routed.drain(..));
        }
    }

    /// Drives the sinks and hands on what waits. Ready if what still waits, here or for the dead letters, does
    /// not hold the pipeline: before a stop, nothing may wait.
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.departure.is_some() || !self.departing.is_empty() {
            let _ = self.poll_departing(cx);
        }
        for outlet in self.outlets.iter_mut().filter(|outlet| !outlet.is_closed) {
            outlet.sink.poll_drive(cx, &mut self.failed);
            if !self.failed.is_empty() {
                self.dead_letters.take(&outlet.place, self.failed.drain(..));
            }
        }
        self.hand_on(cx);
        if self.flush.messages >= FLUSH_MESSAGES || self.flush.bytes >= FLUSH_BYTES {
            self.flush.wanted = true;
        }
        if self.flush.wanted {
            let _ = self.poll_flush(cx);
        }
        let room = self.dead_letters.poll_drive(cx);
        if self.outbox.is_empty() && self.backlog.has_room() { room } else { Poll::Pending }
    }

    /// Why the pipeline cannot go on: one of its sinks has nobody who will ever read again.
    pub(super) fn failure(&self) -> Option<String> {
        let failure =
            |outlet: &Outlet| Some(format!("sink {}: {}", outlet.place.stage, outlet.sink.failure()?));
        self.outlets.iter().find_map(failure)
    }

    /// Drives the sinks; ready once all are connected that the pipeline is not to start without.
    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let _ = self.poll_drive(cx);
        let mut connected = self.dead_letters.poll_connected(cx)?;
        for outlet in &mut self.outlets {
            let this = outlet.sink.poll_connected(cx);
            let this = this.map_err(|error| format!("sink {}: {error}", outlet.place.stage))?;
            if this.is_pending() {
                connected = Poll::Pending;
            }
        }
        connected.map(Ok)
    }

    /// Asks the sinks to send what they have; ready once everything has reached its end.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.flush = Flush { wanted: true, ..Flush::default() };
        let mut flushed = self.outbox.is_empty() && self.backlog.is_empty();
        for outlet in self.outlets.iter_mut().filter(|outlet| !outlet.is_closed) {
            flushed &= outlet.sink.poll_flush(cx, &mut self.failed).is_ready();
            if !self.failed.is_empty() {
                self.dead_letters.take(&outlet.place, self.failed.drain(..));
            }
        }
        self.flush.wanted = !flushed;
        if flushed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Asks the sinks to send what they have; ready once everything has reached its end, dead letters too. Call after
    /// they were driven.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.poll_flush(cx));
        if self.dead_letters.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The pipeline stops, and is given up after `grace` if that is known.
    pub(super) fn stop(&mut self, grace: Option<Duration>) {
        self.backlog.stop();
        self.outlets.iter_mut().for_each(|outlet| outlet.sink.stop(grace));
        self.dead_letters.stop(grace);
    }

    /// No more will come. Ready once every message has reached its end, dead letters too. A sink that has got
    /// everything is closed with the close code, and its peers go as soon as each has what is for it, while
    /// other sinks are still waited for.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        self.outlets.iter_mut().for_each(|outlet| outlet.sink.drain());
        let driven = self.poll_drive(cx);
        if self.outbox.is_empty() {
            let got_all = |outlet: &&mut Outlet| outlet.waiting.is_empty() && !outlet.is_closed;
            for outlet in self.outlets.iter_mut().filter(got_all) {
                outlet.sink.finish(code);
                outlet.is_closed = outlet.sink.poll_flush(cx, &mut self.failed).is_ready()
                    && outlet.sink.poll_close(cx, code, &mut self.failed).is_ready();
                self.dead_letters.take(&outlet.place, self.failed.drain(..));
            }
        }
        let flushed = self.poll_flush(cx);
        let written = self.dead_letters.poll_flush(cx);
        let is_drained = driven.is_ready() && flushed.is_ready() && self.departing.is_empty();
        if is_drained { written } else { Poll::Pending }
    }

    /// Whether every reply is at its end, so that nobody needs the connections of the source any more.
    pub(super) fn have_replied(&self) -> bool {
        self.outlets.iter().all(|outlet| outlet.is_closed || !matches!(outlet.sink, Sink::Reply(_)))
    }

    /// The time of a stop is over: what no sink has sent is given up.
    pub(super) fn give_up(&mut self) {
        self.outbox.clear();
        self.departing.clear();
        for outlet in &mut self.outlets {
            outlet.waiting.clear();
            outlet.sink.give_up();
        }
    }

    /// Closes all sinks with the close code. Ready once all are closed.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        let mut closed = self.poll_departing(cx).is_ready();
        for outlet in self.outlets.iter_mut().filter(|outlet| !outlet.is_closed) {
            outlet.is_closed = outlet.sink.poll_close(cx, code, &mut self.failed).is_ready();
            closed &= outlet.is_closed;
            self.dead_letters.take(&outlet.place, self.failed.drain(..));
        }
        closed &= self.dead_letters.poll_close(cx, code).is_ready();
        if closed { Poll::Ready(()) } else { Poll::Pending }
    }

    fn hand_on(&mut self, cx: &mut Context<'_>) {
        if !self.backlog.is_empty() {
            (0..self.outlets.len()).for_each(|n| self.hand_on_waiting(cx, n));
        }
        let mut left = HAND_ON_MESSAGES;
        while let Some(Routed { output, .. }) = self.outbox.front() {
            if left == 0 {
                cx.waker().wake_by_ref();
                return;
            }
            let takers = self.takers(*output);
            if takers.is_power_of_two() {
                self.give_run(cx, takers.trailing_zeros() as usize, *output, &mut left);
            } else if let Some(Routed { message, .. }) = self.outbox.pop_front() {
                left -= 1;
                self.flush.count(&message);
                bits(takers).for_each(|n| self.give(cx, n, message.clone()));
            }
        }
    }

    /// Hands on what waits for a sink, as far as it has room now.
    fn hand_on_waiting(&mut self, cx: &mut Context<'_>, n: usize) {
        let outlet = &mut self.outlets[n];
        for _ in 0..HAND_ON_MESSAGES {
            if outlet.waiting.is_empty() || outlet.poll_ready(cx).is_pending() {
                return;
            }
            let Some(message) = outlet.waiting.pop_front() else { return };
            self.backlog.remove(message.payload.len());
            outlet.push(message, &mut self.failed, &mut self.dead_letters);
        }
        cx.waker().wake_by_ref();
    }

    /// Gives a sink the messages at the front that leave by this output, which nobody else takes.
    fn give_run(&mut self, cx: &mut Context<'_>, n: usize, output: u16, left: &mut usize) {
        let Self { outlets, outbox, backlog, flush, failed, dead_letters, .. } = self;
        let outlet = &mut outlets[n];
        let mut next = || {
            let Routed { message, .. } = outbox.pop_front_if(|next| *left > 0 && next.output == output)?;
            *left -= 1;
            flush.count(&message);
            Some(message)
        };
        if outlet.waiting.is_empty() && outlet.behind.is_none() {
            let _ = outlet.sink.poll_take(cx, failed, &mut next);
            if !failed.is_empty() {
                dead_letters.take(&outlet.place, failed.drain(..));
            }
        }
        while let Some(message) = next() {
            backlog.add(message.payload.len());
            outlet.waiting.push_back(message);
        }
    }

    /// Gives a message to a sink, behind what waits for that.
    fn give(&mut self, cx: &mut Context<'_>, n: usize, message: Message) {
        let outlet = &mut self.outlets[n];
        if outlet.waiting.is_empty() && outlet.poll_ready(cx).is_ready() {
            outlet.push(message, &mut self.failed, &mut self.dead_letters);
        } else {
            self.backlog.add(message.payload.len());
            outlet.waiting.push_back(message);
        }
    }
}

impl Outlet {
    pub(super) fn new(sink: Sink, takes: Outputs, place: Place) -> Self {
        Self { sink, takes, place, waiting: VecDeque::new(), is_closed: false, behind: None }
    }

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.behind.is_some() { Poll::Pending } else { self.sink.poll_ready(cx) }
    }

    #[inline]
    fn push(&mut self, message: Message, failed: &mut Vec<Failed>, dead_letters: &mut DeadLetters) {
        self.sink.push(message, failed);
        if !failed.is_empty() {
            dead_letters.take(&self.place, failed.drain(..));
        }
    }
}

/// The number of an output that these sinks take and no others.
fn output_to(takers: &mut Vec<u64>, sinks: u64) -> u16 {
    let known = takers.iter().position(|known| *known == sinks);
    let number = known.unwrap_or_else(|| {
        takers.push(sinks);
        takers.len() - 1
    });
    u16::try_from(number).expect("outputs are far fewer")
}

/// The numbers of the bits that are set, ascending.
#[inline]
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (lowest < u64::BITS).then_some(lowest as usize)
    })
}
