//! The timeout with a peer that is still owed something when its endpoints stop.

use super::connection::{Connection, TcpProgress};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How long the close frame of a peer that nobody waits for any more may take.
pub(super) const CUT_TIMEOUT: Duration = Duration::from_millis(300);
/// A peer that has taken nothing for so long does not read: what it is owed is given up.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The same where a pipeline stops that is given up itself after `grace`: there is to be time left for what
/// goes to others.
pub fn stall_timeout(grace: Option<Duration>) -> Duration {
    grace.map_or(STALL_TIMEOUT, |grace| STALL_TIMEOUT.min(grace / 2))
}

/// How often a peer is looked at meanwhile.
const LOOKS: u32 = 10;

/// How far a peer was when it was last seen to take something.
#[derive(Debug)]
pub(super) struct StallTimer {
    timer: Pin<Box<Sleep>>,
    since: Instant,
    timeout: Duration,
    sent_bytes: u64,
    progress: Option<TcpProgress>,
}

impl StallTimer {
    /// Begins now.
    pub(super) fn new(connection: &Connection, timeout: Duration) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(timeout / LOOKS)),
            since: Instant::now(),
            timeout,
            sent_bytes: connection.traffic().sent_bytes,
            progress: connection.stream().progress(),
        }
    }

    /// Ready once the peer has taken nothing for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Self::new(connection, self.timeout);
            let reads = self.progress.zip(now.progress).is_some_and(|(then, now)| now.is_beyond(&then));
            if now.sent_bytes != self.sent_bytes || reads {
                *self = now;
            } else if now.since >= self.since + self.timeout {
                return Poll::Ready(());
            } else {
                self.timer = now.timer;
            }
        }
    }
}
