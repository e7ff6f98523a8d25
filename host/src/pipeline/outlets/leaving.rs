//! Sinks that go while their pipeline runs on: each gets what was for it and is closed, or runs out of time.

use super::Outlet;
use crate::message::Failed;
use crate::pipeline::dead_letters::DeadLetters;
use crate::reason::Reason;
use crate::websocket::close_code::GOING_AWAY;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// A sink that goes.
#[derive(Debug)]
pub(super) struct LeavingOutlet {
    pub(super) outlet: Outlet,
    /// Nothing of its account goes with it: the letters of a sink of dead letters are counted where they failed.
    is_counted_elsewhere: bool,
    /// Another sink of its name takes its place, and goes on with its account.
    has_successor: bool,
    patience: Pin<Box<Sleep>>,
}

impl LeavingOutlet {
    /// Has a sink go within this time.
    pub(super) fn new(mut outlet: Outlet, has_successor: bool, patience: Duration) -> Self {
        outlet.sink.stop(Some(patience));
        outlet.sink.drain();
        Self { outlet, is_counted_elsewhere: false, has_successor, patience: Box::pin(sleep(patience)) }
    }

    /// Likewise a sink of dead letters that has written all it is to write.
    pub(super) fn of_dead_letters(outlet: Outlet, has_successor: bool, patience: Duration) -> Self {
        Self { is_counted_elsewhere: true, ..Self::new(outlet, has_successor, patience) }
    }

    /// Ready once the sink is closed, with how many messages it had to give up.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        failed: &mut Vec<Failed>,
        dead_letters: &mut DeadLetters,
    ) -> Poll<u64> {
        let outlet = &mut self.outlet;
        outlet.sink.poll_drive(cx, failed);
        while !outlet.waiting.is_empty() && outlet.sink.poll_ready(cx).is_ready() {
            let Some(message) = outlet.waiting.pop_front() else { break };
            outlet.sink.push(message, failed);
        }
        if outlet.waiting.is_empty() {
            outlet.sink.finish(GOING_AWAY);
        }
        let is_closed = outlet.sink.poll_flush(cx, failed).is_ready()
            && outlet.waiting.is_empty()
            && outlet.sink.poll_close(cx, GOING_AWAY, failed).is_ready();
        if self.is_counted_elsewhere {
            failed.clear();
        } else if !failed.is_empty() {
            dead_letters.take(&outlet.place, failed.drain(..));
        }
        if is_closed {
            return Poll::Ready(self.gone(0));
        }
        if self.patience.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let lost = outlet.waiting.len() + outlet.sink.in_flight();
        let lost = if self.is_counted_elsewhere { 0 } else { lost as u64 };
        self.outlet.place.account.dropped(Reason::Shutdown, lost);
        Poll::Ready(self.gone(lost))
    }

    /// What it has counted is shown no more, unless it lost some of that just now.
    fn gone(&self, lost: u64) -> u64 {
        if lost == 0 && !self.has_successor {
            self.outlet.place.account.retire();
        }
        lost
    }

    /// The name of the sink.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.outlet.place.stage
    }
}
