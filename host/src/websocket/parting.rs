//! The patience with a peer that is still owed something when its endpoints stop.

use super::connection::Connection;
use super::progress::Progress;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// A peer that has taken nothing for so long does not read: what it is owed is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far a peer was when it was looked at last.
pub(super) struct Parting {
    timer: Pin<Box<Sleep>>,
    sent_bytes: u64,
    progress: Option<Progress>,
}

impl Parting {
    /// Begins now.
    pub(super) fn new(connection: &Connection) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(PATIENCE)),
            sent_bytes: connection.traffic().sent_bytes,
            progress: connection.stream().progress(),
        }
    }

    /// Ready once the peer has taken nothing for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Self::new(connection);
            let reads = self.progress.zip(now.progress).is_some_and(|(then, now)| now.is_beyond(&then));
            if now.sent_bytes == self.sent_bytes && !reads {
                return Poll::Ready(());
            }
            *self = now;
        }
    }
}
