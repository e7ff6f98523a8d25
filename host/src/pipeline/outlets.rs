//! The way out of a pipeline: messages of the last transform to the sinks that take their output.
//!
//! A message waits in the outbox until every sink that takes it has room, then goes to all of them
//! at once; so order is kept for each sink, and one full sink holds the pipeline, not the others'
//! messages already given. An output that no sink takes ends here, counted.

use super::dead_letters::{DeadLetters, Place};
use crate::config::{MAX_SINKS, Outputs};
use crate::message::{Failed, Message};
use crate::sink::Sink;
use crate::telemetry::{Account, Settled};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// After so many messages or bytes sinks flush, even if more are there: latency and memory under
/// full load stay bounded.
const FLUSH_MESSAGES: usize = 1024;
const FLUSH_BYTES: usize = 128 << 10;
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
    pub(super) sink: Sink,
    pub(super) takes: Outputs,
    pub(super) place: Place,
}

/// All sinks of a pipeline, and what waits for them.
#[derive(Debug)]
pub(super) struct Outlets {
    outlets: Vec<Outlet>,
    outbox: VecDeque<Routed>,
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

impl Outlets {
    pub(super) fn new(outlets: Vec<Outlet>, dead_letters: DeadLetters, outputs: &[Arc<str>]) -> Self {
        debug_assert!(outlets.len() <= MAX_SINKS, "the configuration has refused more");
        let mut this = Self {
            outlets,
            outbox: VecDeque::new(),
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
            let takers = before[usize::from(*output)];
            let known = self.takers.iter().position(|known| *known == takers);
            let number = known.unwrap_or_else(|| {
                self.takers.push(takers);
                self.takers.len() - 1
            });
            *output = u16::try_from(number).expect("outputs are far fewer");
        }
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

    /// Drives the sinks and hands on what waits. Ready if nothing waits any more, here or for the
    /// dead letters: then the pipeline may read on.
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for outlet in &mut self.outlets {
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
        if self.outbox.is_empty() { room } else { Poll::Pending }
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
        let mut flushed = self.outbox.is_empty();
        for outlet in &mut self.outlets {
            flushed &= outlet.sink.poll_flush(cx, &mut self.failed).is_ready();
            if !self.failed.is_empty() {
                self.dead_letters.take(&outlet.place, self.failed.drain(..));
            }
        }
        self.flush.wanted = !flushed;
        if flushed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The pipeline stops, and is given up after `grace` if that is known.
    pub(super) fn stop(&mut self, grace: Option<Duration>) {
        self.outlets.iter_mut().for_each(|outlet| outlet.sink.stop(grace));
        self.dead_letters.stop(grace);
    }

    /// Ready once every message has reached its end, dead letters too. Peers go with the close code as soon as
    /// each has what is for it.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        self.outlets.iter_mut().for_each(|outlet| outlet.sink.drain());
        let driven = self.poll_drive(cx);
        if self.outbox.is_empty() {
            self.outlets.iter_mut().for_each(|outlet| outlet.sink.finish(code));
        }
        let flushed = self.poll_flush(cx);
        let written = self.dead_letters.poll_flush(cx);
        if driven.is_ready() && flushed.is_ready() { written } else { Poll::Pending }
    }

    /// Closes all sinks with the close code. Ready once all are closed.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        let mut closed = true;
        for outlet in &mut self.outlets {
            closed &= outlet.sink.poll_close(cx, code, &mut self.failed).is_ready();
            self.dead_letters.take(&outlet.place, self.failed.drain(..));
        }
        closed &= self.dead_letters.poll_close(cx, code).is_ready();
        if closed { Poll::Ready(()) } else { Poll::Pending }
    }

    fn hand_on(&mut self, cx: &mut Context<'_>) {
        let mut left = HAND_ON_MESSAGES;
        while let Some(waiting) = self.outbox.front() {
            if left == 0 {
                cx.waker().wake_by_ref();
                return;
            }
            left -= 1;
            let takers = self.takers(waiting.output);
            for n in bits(takers) {
                if self.outlets[n].sink.poll_ready(cx).is_pending() {
                    return;
                }
            }
            let Some(Routed { message, .. }) = self.outbox.pop_front() else { return };
            self.flush.messages += 1;
            self.flush.bytes += message.payload.len();
            let mut others = bits(takers);
            let Some(first) = others.next() else { continue };
            for n in others {
                self.push(n, message.clone());
            }
            self.push(first, message);
        }
    }

    #[inline]
    fn push(&mut self, n: usize, message: Message) {
        let outlet = &mut self.outlets[n];
        outlet.sink.push(message, &mut self.failed);
        if !self.failed.is_empty() {
            self.dead_letters.take(&outlet.place, self.failed.drain(..));
        }
    }
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
