//! How long a peer is waited for that is still owed something when its endpoints stop, and takes nothing.

use super::connection::{Connection, TcpProgress};
use crate::wait_budget::StallLimit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How long the close frame of a peer that nobody waits for any more may take.
pub(super) const CUT_TIMEOUT: Duration = Duration::from_millis(300);
/// How often a peer is looked at meanwhile.
const LOOKS: u32 = 10;

/// How far a peer was when it was last seen to take something.
#[derive(Debug)]
pub(super) struct StallTimer {
    timer: Pin<Box<Sleep>>,
    since: Instant,
    limit: StallLimit,
    sent_bytes: u64,
    progress: Option<TcpProgress>,
}

impl StallTimer {
    /// Begins now.
    pub(super) fn new(connection: &Connection, limit: StallLimit) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(limit.timeout / LOOKS)),
            since: Instant::now(),
            limit,
            sent_bytes: connection.traffic().sent_bytes,
            progress: connection.stream().progress(),
        }
    }

    /// Ready once the peer has taken nothing for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Self::new(connection, self.limit);
            let reads = self.progress.zip(now.progress).is_some_and(|(then, now)| now.is_beyond(&then));
            if now.sent_bytes != self.sent_bytes || reads {
                *self = now;
            } else if now.since >= self.limit.end(self.since) {
                return Poll::Ready(());
            } else {
                self.timer = now.timer;
            }
        }
    }
}
