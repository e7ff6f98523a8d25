//! The rhythm of what we send on a dialled connection: the first messages, and the time between two.

use crate::message::Payload;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What is to be sent before anything else, and when the next message may be.
pub(super) struct SendPace {
    first: VecDeque<Payload>,
    interval: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl SendPace {
    /// `None` where there is nothing to send first and no time to keep.
    pub(super) fn new(first: Vec<Payload>, interval: Duration) -> Option<Box<Self>> {
        let is_needed = !first.is_empty() || !interval.is_zero();
        let interval =
            (!interval.is_zero()).then(|| (interval, Box::pin(tokio::time::sleep(Duration::ZERO))));
        is_needed.then(|| Box::new(Self { first: first.into(), interval }))
    }

    /// Whether a message of the connection's owner may be sent now.
    pub(super) fn is_open(&self) -> bool {
        let is_due = self.interval.as_ref().is_none_or(|(_, next)| next.deadline() <= Instant::now());
        self.first.is_empty() && is_due
    }

    /// Whether each message is to be written at once, and not with others.
    pub(super) fn is_timed(&self) -> bool {
        self.interval.is_some()
    }

    pub(super) fn has_first(&self) -> bool {
        !self.first.is_empty()
    }

    pub(super) fn take_first(&mut self) -> Option<Payload> {
        self.first.pop_front()
    }

    /// Waits until the next message may be sent.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.interval {
            Some((_, next)) if next.deadline() > Instant::now() => next.as_mut().poll(cx),
            _ => Poll::Ready(()),
        }
    }

    /// A message was sent.
    pub(super) fn sent(&mut self) {
        if let Some((interval, next)) = &mut self.interval {
            next.as_mut().reset(Instant::now() + *interval);
        }
    }
}
