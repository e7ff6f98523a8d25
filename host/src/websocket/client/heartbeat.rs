//! The application's own heartbeat on a dialled connection: when it is due, and whether it was answered.
//!
//! Only the answer that was agreed on counts, not other life. Its time runs from when the beat was due: a
//! peer that does not read, so that nothing can be sent, is as dead as one that does not answer. Time in
//! which backpressure held reading back counts for nobody, as with pings.

use crate::config::{self, Packing};
use crate::message::Payload;
use crate::packing::Unpacker;
use crate::websocket::keepalive::LOOK_AGAIN;
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What a packed answer may be longer than the answer: headers, and a name of a file in them.
const PACKING_BYTES: usize = 256;

/// The answers to heartbeats, found among all that is received.
pub(super) struct ExpectedReply {
    expected: Bytes,
    unpacker: Option<Unpacker>,
    received: u64,
}

impl ExpectedReply {
    /// Answers that are equal to `expected`, once unpacked where messages are packed.
    pub(super) fn new(expected: impl Into<Bytes>, packing: Option<Packing>) -> Self {
        let expected = expected.into();
        let unpacker = packing.map(|packing| Unpacker::new(packing, expected.len()));
        Self { expected, unpacker, received: 0 }
    }

    /// How many there have been.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether this is one; it is counted.
    #[inline]
    pub(super) fn take(&mut self, received: &[u8]) -> bool {
        let is_reply =
            self.expected == received || self.unpacker.is_some() && self.unpacks_to_reply(received);
        self.received += u64::from(is_reply);
        is_reply
    }

    fn unpacks_to_reply(&mut self, received: &[u8]) -> bool {
        let Some(unpacker) = &mut self.unpacker else { return false };
        received.len() <= self.expected.len() + PACKING_BYTES
            && unpacker.unpack(received).is_ok_and(|unpacked| unpacked == self.expected)
    }
}

/// The heartbeat of one connection.
pub(super) struct HeartbeatTimer {
    message: Payload,
    interval: Duration,
    /// For the answer, if there is to be one.
    timeout: Option<Duration>,
    next: Instant,
    is_owed: bool,
    /// When the first one without an answer was due, and the answers there had been by then.
    unanswered: Option<(Instant, u64)>,
    held_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeartbeatAction {
    /// Send the message, and say so with [`HeartbeatTimer::sent`].
    Due,
    /// No answer came in time.
    NoReply,
}

impl HeartbeatTimer {
    /// For a connection that begins now; `message` is what is sent.
    pub(super) fn new(config: &config::Heartbeat, message: Payload) -> Self {
        let next = Instant::now() + config.interval;
        Self {
            message,
            interval: config.interval,
            timeout: config.reply.is_some().then_some(config.timeout),
            next,
            is_owed: false,
            unanswered: None,
            held_since: None,
            timer: Box::pin(tokio::time::sleep_until(next)),
        }
    }

    pub(super) fn message(&self) -> &Payload {
        &self.message
    }

    /// Reading is held back until [`Self::release`].
    pub(super) fn hold(&mut self) {
        self.held_since.get_or_insert_with(Instant::now);
    }

    /// Reading goes on.
    pub(super) fn release(&mut self) {
        let Some(held_since) = self.held_since.take() else { return };
        if let Some((due, _)) = &mut self.unanswered {
            let now = Instant::now();
            *due += now - (*due).max(held_since).min(now);
        }
        self.look_again();
    }

    /// Something was received that may be the answer: looks again when it is read.
    pub(super) fn look_soon(&mut self) {
        self.timer.as_mut().reset(Instant::now() + LOOK_AGAIN);
    }

    /// `replies` is how many answers have come on this connection.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, replies: u64) -> Poll<HeartbeatAction> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.see(replies);
            if self.held_since.is_none()
                && let (Some(timeout), Some((due, _))) = (self.timeout, self.unanswered)
                && now >= due + timeout
            {
                return Poll::Ready(HeartbeatAction::NoReply);
            }
            if now >= self.next {
                self.is_owed = true;
                self.next = now + self.interval;
                self.unanswered.get_or_insert((now, replies));
            }
            self.look_again();
        }
        if self.is_owed { Poll::Ready(HeartbeatAction::Due) } else { Poll::Pending }
    }

    /// The message was sent.
    pub(super) fn sent(&mut self) {
        self.is_owed = false;
    }

    fn see(&mut self, replies: u64) {
        self.unanswered = self.unanswered.filter(|(_, before)| replies == *before);
    }

    fn look_again(&mut self) {
        let answer = self.timeout.zip(self.unanswered).map(|(timeout, (due, _))| due + timeout);
        let answer = answer.filter(|_| self.held_since.is_none());
        self.timer.as_mut().reset(answer.map_or(self.next, |answer| answer.min(self.next)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EndpointText;
    use std::future::poll_fn;

    fn heartbeat(reply: Option<&str>) -> HeartbeatTimer {
        let config = config::Heartbeat {
            interval: Duration::from_secs(20),
            message: EndpointText::plain("ping"),
            reply: reply.map(EndpointText::plain),
            timeout: Duration::from_secs(10),
        };
        HeartbeatTimer::new(&config, Payload::text("ping"))
    }

    /// The next beat, and the seconds it took to come.
    async fn next(heartbeat: &mut HeartbeatTimer, replies: u64) -> (HeartbeatAction, u64) {
        let start = Instant::now();
        let beat = poll_fn(|cx| heartbeat.poll(cx, replies)).await;
        (beat, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_keeps_the_connection_and_none_ends_it() {
        let mut heartbeat = heartbeat(Some("pong"));
        assert_eq!(next(&mut heartbeat, 0).await, (HeartbeatAction::Due, 20));
        assert_eq!(next(&mut heartbeat, 0).await, (HeartbeatAction::Due, 0), "until it is sent");
        heartbeat.sent();
        assert_eq!(next(&mut heartbeat, 1).await, (HeartbeatAction::Due, 20));
        heartbeat.sent();
        assert_eq!(next(&mut heartbeat, 1).await, (HeartbeatAction::NoReply, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_to_expect_it_is_only_sent() {
        let mut heartbeat = heartbeat(None);
        for _ in 0..3 {
            assert_eq!(next(&mut heartbeat, 0).await, (HeartbeatAction::Due, 20));
            heartbeat.sent();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_that_cannot_be_sent_has_no_answer_either() {
        let mut heartbeat = heartbeat(Some("pong"));
        assert_eq!(next(&mut heartbeat, 0).await, (HeartbeatAction::Due, 20));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(next(&mut heartbeat, 0).await, (HeartbeatAction::NoReply, 0));
    }

    #[test]
    fn an_answer_is_compared_as_unpacked() {
        for packing in [Packing::Gzip, Packing::Zlib, Packing::Zstd] {
            let mut packer = crate::packing::Packer::new(packing);
            let mut replies = ExpectedReply::new("pong", Some(packing));
            assert!(replies.take(b"pong") && replies.take(&packer.pack(b"pong")));
            assert!(!replies.take(&packer.pack(b"ponk")) && !replies.take(&packer.pack(&[b'p'; 5000])));
            assert_eq!(replies.received(), 2);
        }
        assert!(
            !ExpectedReply::new("pong", None).take(&crate::packing::Packer::new(Packing::Gzip).pack(b"pong"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn held_time_does_not_count() {
        let mut heartbeat = heartbeat(Some("pong"));
        assert_eq!(next(&mut heartbeat, 0).await, (HeartbeatAction::Due, 20));
        heartbeat.sent();
        heartbeat.hold();
        assert_eq!(next(&mut heartbeat, 0).await, (HeartbeatAction::Due, 20));
        heartbeat.sent();
        tokio::time::advance(Duration::from_secs(5)).await;
        heartbeat.release();
        assert_eq!(next(&mut heartbeat, 0).await, (HeartbeatAction::NoReply, 10));
    }
}
