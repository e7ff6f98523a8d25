//! When messages that gather for one frame are due to be sent.

use crate::config::Batch;
use std::pin::Pin;
use std::task::Context;
use tokio::time::{Instant, Sleep};

/// The messages of a sink that puts several into a frame.
#[derive(Debug)]
pub(super) struct Gathering {
    batch: Batch,
    /// Runs from the first message on.
    linger: Pin<Box<Sleep>>,
}

impl Gathering {
    /// Outside of a runtime there is no timer: call it where the sink is polled.
    pub(super) fn new(batch: Batch) -> Self {
        Self { batch, linger: Box::pin(tokio::time::sleep(batch.linger)) }
    }

    /// Most messages of a frame.
    pub(super) fn max_messages(&self) -> usize {
        self.batch.max_messages
    }

    /// Most bytes of a frame, before it is packed.
    pub(super) fn max_bytes(&self) -> usize {
        self.batch.max_bytes
    }

    /// Whether messages wait for others longer than until the next flush.
    pub(super) fn lingers(&self) -> bool {
        !self.batch.linger.is_zero()
    }

    /// The first message of a frame has come.
    pub(super) fn begin(&mut self) {
        if self.lingers() {
            self.linger.as_mut().reset(Instant::now() + self.batch.linger);
        }
    }

    /// Whether a frame is as full as it may be.
    #[inline]
    pub(super) fn is_full(&self, messages: usize, bytes: usize) -> bool {
        messages >= self.batch.max_messages || bytes >= self.batch.max_bytes
    }

    /// Whether the first message has waited long enough; else the task is woken when it has.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>, is_flushing: bool) -> bool {
        if self.lingers() { self.linger.as_mut().poll(cx).is_ready() } else { is_flushing }
    }
}
