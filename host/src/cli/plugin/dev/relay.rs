//! The way of messages between the two pipelines of `tidemill dev`, and what came of some of them.
//!
//! All messages of the feed go on to the plugin, as a rule one by one: once the host has a message nowhere in flight any
//! more, what has come out since is what it became. Where the feed is too fast for that, others go between them unseen,
//! but for those that fail: all of them are handed on.

use crate::config::{self, DEAD_LETTER, Endpoint, SOURCE};
use crate::dead_letters::Letter;
use crate::message::Payload;
use crate::telemetry::Metrics;
use crate::websocket::{ConnectError, Connection, Dial, Received, connect};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// The pipeline with the plugin, and the path on which it takes messages.
pub(super) const PIPELINE: &str = "dev";
/// The sink that has the feed, and the two that have what becomes of it.
pub(super) const BEFORE: &str = "before";
pub(super) const AFTER: &str = "after";
pub(super) const FAILED: &str = "failed";

/// Between two messages that are shown.
const SHOWN_INTERVAL: Duration = Duration::from_millis(200);
/// The same before one that was filtered.
const FILTERED_INTERVAL: Duration = Duration::from_secs(1);
/// So many messages that were there at once say that the feed is too fast to follow each.
const TOO_MANY: u32 = 64;
/// Between two looks at whether a message is at its end.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// A message that is not at its end for so long is shown without.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to reach the host.
const DIAL_INTERVAL: Duration = Duration::from_millis(100);

/// A message, and what became of it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) cause: PairCause,
    pub(super) after: Vec<Payload>,
    /// Dead letters, as JSON.
    pub(super) failed: Vec<Payload>,
    /// Whether more may come of it.
    pub(super) is_waiting: bool,
}

/// What something has come of.
#[derive(Debug)]
pub(super) enum PairCause {
    Message(Payload),
    /// No message: a timer, or the start of a version.
    Timer,
    /// One of the messages before, which were still on their way when others followed.
    Earlier,
}

/// A connection has ended.
struct Gone;

/// Carries messages from the feed to the plugin.
pub(super) struct Relay {
    port: u16,
    transform: String,
    metrics: Arc<Metrics>,
}

/// The connections to the host, and what came on them.
struct RelayEnds {
    before: Connection,
    given: Connection,
    after: RelayEnd,
    failed: RelayEnd,
    /// Messages that the pipeline has when all that was given has reached it.
    given_count: u64,
}

/// What comes out of one sink.
struct RelayEnd {
    connection: Connection,
    received: VecDeque<Payload>,
    /// Messages that were delivered when all have come that were.
    count: u64,
}

/// The path of an end.
pub(super) fn path(end: &str) -> String {
    format!("/{end}")
}

impl Relay {
    pub(super) fn new(port: u16, transform: String, metrics: Arc<Metrics>) -> Self {
        Self { port, transform, metrics }
    }

    /// Carries messages until nobody wants to see any.
    pub(super) async fn run(self, pairs: mpsc::Sender<Pair>) {
        while !pairs.is_closed() {
            // The host may not be there yet, or its pipeline has failed.
            if let Ok(mut ends) = self.dial().await {
                // It comes back when a connection has ended, and is dialled anew.
                let _ = self.follow(&mut ends, &pairs).await;
            }
            sleep(DIAL_INTERVAL).await;
        }
    }

    async fn follow(&self, ends: &mut RelayEnds, pairs: &mpsc::Sender<Pair>) -> Result<(), Gone> {
        let (mut shown, mut at_once): (Option<Instant>, u32) = (None, 0);
        let mut is_waiting = false;
        loop {
            let is_there = poll_fn(|cx| Poll::Ready(ends.poll_before(cx))).await;
            let before = match is_there {
                Poll::Ready(before) => {
                    at_once += 1;
                    before?
                }
                Poll::Pending => {
                    at_once = 0;
                    poll_fn(|cx| ends.poll_before(cx)).await?
                }
            };
            // What is out before the next message is given came of a timer, if no message was on its way.
            let is_settled = self.settle(ends).await?;
            let of_others = ends.take(if is_waiting { PairCause::Earlier } else { PairCause::Timer }, false);
            ends.give(&before).await?;
            is_waiting = !self.settle(ends).await?;
            let cause = if is_settled { PairCause::Message(before) } else { PairCause::Earlier };
            let of_message = ends.take(cause, is_waiting);
            for mut pair in [of_others, of_message] {
                if !pair.failed.is_empty() {
                    hand_on_failed(std::mem::take(&mut pair.failed), pairs).await?;
                    if pair.after.is_empty() {
                        continue;
                    }
                }
                let is_filtered = pair.after.is_empty() && !pair.is_waiting;
                let interval = if is_filtered { FILTERED_INTERVAL } else { SHOWN_INTERVAL };
                let is_due = shown.is_none_or(|shown| shown.elapsed() >= interval);
                if is_due && (!is_filtered || matches!(pair.cause, PairCause::Message(_))) {
                    shown = Some(Instant::now());
                    pairs.send(pair).await.map_err(|_| Gone)?;
                }
            }
            if at_once >= TOO_MANY {
                at_once = 0;
                self.carry(ends, pairs, Instant::now() + SHOWN_INTERVAL).await?;
            }
        }
    }

    async fn dial(&self) -> Result<RelayEnds, ConnectError> {
        let after = RelayEnd::new(self.connect(AFTER).await?, self.metrics.delivered_count(PIPELINE, AFTER));
        let failed =
            RelayEnd::new(self.connect(FAILED).await?, self.metrics.delivered_count(PIPELINE, DEAD_LETTER));
        let (given, given_count) = (self.connect(PIPELINE).await?, self.metrics.received_count(PIPELINE));
        Ok(RelayEnds { before: self.connect(BEFORE).await?, given, after, failed, given_count })
    }

    async fn connect(&self, end: &str) -> Result<Connection, ConnectError> {
        let endpoint = Endpoint::client(format!("ws://127.0.0.1:{}{}", self.port, path(end)));
        let config::Mode::Client(client) = &endpoint.mode else { unreachable!("a viewer dials") };
        connect(Dial::of(&endpoint, client, &client.urls[0])).await
    }

    /// Carries messages until then, of which only those that fail are seen.
    async fn carry(
        &self,
        ends: &mut RelayEnds,
        pairs: &mpsc::Sender<Pair>,
        until: Instant,
    ) -> Result<(), Gone> {
        loop {
            let before = tokio::select! {
                before = poll_fn(|cx| ends.poll_before(cx)) => before?,
                () = sleep_until(until) => break,
            };
            ends.give(&before).await?;
            hand_on_failed(ends.take(PairCause::Earlier, false).failed, pairs).await?;
        }
        // What is still on its way is nobody else's.
        self.settle(ends).await?;
        hand_on_failed(ends.take(PairCause::Earlier, false).failed, pairs).await
    }

    /// Waits until all that was given is at its end, and is here; not for ever. Says whether it is.
    async fn settle(&self, ends: &mut RelayEnds) -> Result<bool, Gone> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            poll_fn(|cx| Poll::Ready(ends.collect(cx))).await?;
            if self.is_settled(ends) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Messages only go downwards: what is not in flight above when that is looked at cannot be missed below.
    fn is_settled(&self, ends: &RelayEnds) -> bool {
        let of = |place: &str| self.metrics.stage_counts(PIPELINE, place);
        of(SOURCE).entered >= ends.given_count
            && [SOURCE, &self.transform, AFTER, DEAD_LETTER].into_iter().all(|place| of(place).in_flight == 0)
            && ends.after.count >= of(AFTER).delivered
            && ends.failed.count >= of(DEAD_LETTER).delivered
    }
}

impl RelayEnds {
    /// A message of the feed; what comes of others is taken in meanwhile.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<Result<Payload, Gone>> {
        self.collect(cx)?;
        receive(&mut self.before, cx)
    }

    /// What came out since this was asked last.
    fn take(&mut self, cause: PairCause, is_waiting: bool) -> Pair {
        let after = self.after.received.drain(..).collect();
        Pair { cause, after, failed: self.failed.received.drain(..).collect(), is_waiting }
    }

    /// Takes in what there is. The connection to the plugin brings nothing but pings.
    fn collect(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        self.after.collect(cx)?;
        self.failed.collect(cx)?;
        while let Poll::Ready(received) = receive(&mut self.given, cx) {
            received?;
        }
        Ok(())
    }

    /// Gives the plugin a message. A pipeline that waits for what comes of others is not held up by this one.
    async fn give(&mut self, payload: &Payload) -> Result<(), Gone> {
        poll_fn(|cx| {
            self.collect(cx)?;
            self.given.poll_ready(cx).map_err(|_| Gone)
        })
        .await?;
        self.given.send(payload).map_err(|_| Gone)?;
        self.given_count += 1;
        poll_fn(|cx| {
            self.collect(cx)?;
            self.given.poll_flush(cx).map_err(|_| Gone)
        })
        .await
    }
}

impl RelayEnd {
    fn new(connection: Connection, count: u64) -> Self {
        Self { connection, received: VecDeque::new(), count }
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        while let Poll::Ready(received) = receive(&mut self.connection, cx) {
            self.received.push_back(received?);
            self.count += 1;
        }
        Ok(())
    }
}

/// Hands on what has failed, each with the message that it was of, which is in the dead letter.
async fn hand_on_failed(letters: Vec<Payload>, pairs: &mpsc::Sender<Pair>) -> Result<(), Gone> {
    for letter in letters {
        let cause = payload_of(&letter).map_or(PairCause::Timer, PairCause::Message);
        let pair = Pair { cause, after: Vec::new(), failed: vec![letter], is_waiting: false };
        pairs.send(pair).await.map_err(|_| Gone)?;
    }
    Ok(())
}

/// The message of a dead letter.
fn payload_of(letter: &Payload) -> Option<Payload> {
    Some(Letter::parse(letter.as_text()?).ok()?.message.payload)
}

/// The next message of a connection. Pings are answered on the way.
fn receive(connection: &mut Connection, cx: &mut Context<'_>) -> Poll<Result<Payload, Gone>> {
    loop {
        match connection.poll_receive(cx) {
            Poll::Ready(Received::Message(payload)) => return Poll::Ready(Ok(payload)),
            Poll::Ready(Received::Control) => {}
            Poll::Ready(Received::Ended(_)) => return Poll::Ready(Err(Gone)),
            Poll::Pending => {
                if connection.is_dirty() {
                    // Where nothing can be written any more, reading finds out why.
                    let _ = connection.poll_flush(cx);
                }
                return Poll::Pending;
            }
        }
    }
}
