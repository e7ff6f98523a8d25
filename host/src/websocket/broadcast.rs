//! What the peers of a server sink are still to get: one ring for all, and a cursor for each.
//!
//! The pipeline appends a batch and wakes who waits; each peer's task takes from its cursor on, at
//! its own speed. A peer that falls out of the window it may lag behind has its cursor moved, is
//! closed, or holds the pipeline, as the policy says. Payloads in the ring share no memory with what
//! sockets were read into.

use crate::config::{Peers, SlowPeer};
use crate::message::Payload;
use crate::reason::Reason;
use crate::telemetry::SinkMetrics;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Payloads from here on are kept as they are: what they may pin beside themselves is no larger.
const WORTH_SHARING_BYTES: usize = 64 << 10;

/// The messages of one server sink on their way to its peers.
#[derive(Debug)]
pub struct Broadcast {
    peers: Peers,
    metrics: SinkMetrics,
    state: Mutex<State>,
}

/// What publishing a batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// At least one peer has them in its queue.
    pub delivered: u64,
    /// Nobody was connected.
    pub no_peers: u64,
    /// Every peer's queue was full.
    pub slow_peers: u64,
}

/// What a peer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Messages were appended.
    Messages,
    /// The peer reads too slowly, and is to be disconnected.
    TooSlow,
    /// It has had all there will be.
    Finished,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Number of the first entry; the first message ever has number 0.
    first: u64,
    /// Payload bytes published so far.
    bytes: u64,
    /// Peers may be no further behind than this.
    window_start: u64,
    slots: BTreeMap<u64, Slot>,
    publisher: Option<Waker>,
    is_finished: bool,
}

#[derive(Debug)]
struct Entry {
    payload: Payload,
    /// Payload bytes published before this one.
    bytes_before: u64,
}

#[derive(Debug)]
struct Slot {
    cursor: u64,
    /// What comes before the cursor: replayed messages, and with `drop_newest` what the peer had room
    /// for before it missed others.
    kept: VecDeque<Payload>,
    kept_bytes: u64,
    waker: Option<Waker>,
}

impl Broadcast {
    /// An empty ring.
    pub fn new(peers: Peers, metrics: SinkMetrics) -> Self {
        Self { peers, metrics, state: Mutex::default() }
    }

    /// Whether anybody is connected.
    pub fn has_peers(&self) -> bool {
        !self.lock().slots.is_empty()
    }

    /// Whether a message more may be published beside `batch` and `batch_bytes` that wait for it. Only
    /// `slow_peer = "block"` ever says no; the waker is woken when that may have changed.
    pub fn poll_room(&self, cx: &mut Context<'_>, batch: usize, batch_bytes: usize) -> Poll<()> {
        if self.peers.slow != SlowPeer::Block {
            return Poll::Ready(());
        }
        let mut state = self.lock();
        let end = state.end();
        let Some(cursor) = state.slots.values().map(|slot| slot.cursor).min() else { return Poll::Ready(()) };
        let messages = end - cursor + batch as u64;
        let bytes = state.bytes_from(cursor) + batch_bytes as u64;
        if messages < self.peers.buffer as u64 && bytes < self.peers.buffer_bytes as u64 {
            return Poll::Ready(());
        }
        state.publisher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits for a peer.
    pub fn poll_peers(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.slots.is_empty() {
            state.publisher = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Ready when every peer has taken all there is.
    pub fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let end = state.end();
        if state.slots.values().all(|slot| slot.cursor == end && slot.kept.is_empty()) {
            return Poll::Ready(());
        }
        state.publisher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Gives a batch to all peers; leaves it empty.
    pub fn publish(&self, batch: &mut Vec<Payload>) -> Published {
        let count = batch.len() as u64;
        if count == 0 {
            return Published::default();
        }
        detach(batch);
        let mut state = self.lock();
        let old_end = state.end();
        for payload in batch.drain(..) {
            let bytes_before = state.bytes;
            state.bytes += payload.len() as u64;
            state.entries.push_back(Entry { payload, bytes_before });
        }
        let mut published = Published { delivered: count, ..Published::default() };
        let mut missed = 0;
        if state.slots.is_empty() {
            published = Published { no_peers: count, ..Published::default() };
        } else if self.peers.slow == SlowPeer::DropNewest {
            let (taken, missed_by_peers) = state.shorten(old_end, &self.peers);
            published = Published { delivered: taken, slow_peers: count - taken, no_peers: 0 };
            missed = missed_by_peers;
        }
        state.move_window(&self.peers);
        let woken: Vec<Waker> = state.slots.values_mut().filter_map(|slot| slot.waker.take()).collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        if missed > 0 {
            self.metrics.peer_dropped(Reason::SlowPeer, missed);
        }
        published
    }

    /// A new peer; the last messages are its first, if `replay` says so.
    pub(super) fn join(&self, peer: u64) {
        let mut state = self.lock();
        let end = state.end();
        let replayed = state.entries.len().min(self.peers.replay);
        let last = state.entries.range(state.entries.len() - replayed..);
        let kept: VecDeque<Payload> = last.map(|entry| entry.payload.clone()).collect();
        let kept_bytes = kept.iter().map(|payload| payload.len() as u64).sum();
        state.slots.insert(peer, Slot { cursor: end, kept, kept_bytes, waker: None });
        state.wake_publisher();
        drop(state);
        self.metrics.replayed.inc_by(replayed as u64);
    }

    /// A peer is gone; what it has not taken is counted under `reason`.
    pub(super) fn leave(&self, peer: u64, reason: Reason) {
        let mut state = self.lock();
        let end = state.end();
        let Some(slot) = state.slots.remove(&peer) else { return };
        state.wake_publisher();
        drop(state);
        let missed = end - slot.cursor + slot.kept.len() as u64;
        if missed > 0 {
            self.metrics.peer_dropped(reason, missed);
        }
    }

    /// Appends up to `most` messages that `peer` is to get next.
    pub(super) fn poll_next(
        &self,
        cx: &mut Context<'_>,
        peer: u64,
        most: usize,
        payloads: &mut VecDeque<Payload>,
    ) -> Poll<Next> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (first, end, window_start) = (state.first, state.end(), state.window_start);
        let Some(slot) = state.slots.get_mut(&peer) else { return Poll::Ready(Next::Finished) };
        let mut missed = 0;
        if slot.cursor < window_start {
            if self.peers.slow == SlowPeer::Disconnect {
                return Poll::Ready(Next::TooSlow);
            }
            missed = window_start - slot.cursor;
            slot.cursor = window_start;
        }
        let before = payloads.len();
        while payloads.len() - before < most
            && let Some(payload) = slot.kept.pop_front()
        {
            slot.kept_bytes -= payload.len() as u64;
            payloads.push_back(payload);
        }
        let count = (end - slot.cursor).min((most - (payloads.len() - before)) as u64);
        let from = usize::try_from(slot.cursor - first).unwrap_or(usize::MAX);
        let entries = state.entries.iter().skip(from).take(usize::try_from(count).unwrap_or(usize::MAX));
        payloads.extend(entries.map(|entry| entry.payload.clone()));
        slot.cursor += count;
        let result = if payloads.len() > before {
            Poll::Ready(Next::Messages)
        } else if state.is_finished {
            Poll::Ready(Next::Finished)
        } else {
            slot.waker = Some(cx.waker().clone());
            Poll::Pending
        };
        if result == Poll::Ready(Next::Messages) {
            state.wake_publisher();
        }
        drop(guard);
        if missed > 0 {
            self.metrics.peer_dropped(Reason::SlowPeer, missed);
        }
        result
    }

    /// Whether `peer` is too slow to be kept; else its waker is woken when more is published.
    pub(super) fn poll_too_slow(&self, cx: &mut Context<'_>, peer: u64) -> Poll<()> {
        if self.peers.slow != SlowPeer::Disconnect {
            return Poll::Pending;
        }
        let mut state = self.lock();
        let window_start = state.window_start;
        let Some(slot) = state.slots.get_mut(&peer) else { return Poll::Pending };
        if slot.cursor < window_start {
            return Poll::Ready(());
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing more will be published.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.is_finished = true;
        let woken: Vec<Waker> = state.slots.values_mut().filter_map(|slot| slot.waker.take()).collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn bytes_from(&self, number: u64) -> u64 {
        let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        self.entries.get(index).map_or(0, |entry| self.bytes - entry.bytes_before)
    }

    fn wake_publisher(&mut self) {
        if let Some(waker) = self.publisher.take() {
            waker.wake();
        }
    }

    /// How far behind a peer may be, and what the ring can forget.
    fn move_window(&mut self, peers: &Peers) {
        let end = self.end();
        if peers.slow == SlowPeer::Block {
            self.window_start = self.slots.values().map(|slot| slot.cursor).min().unwrap_or(end);
        } else {
            let by_count = end.saturating_sub(peers.buffer as u64);
            self.window_start = self.window_start.max(by_count).max(self.first);
            // One larger message goes alone.
            while self.window_start + 1 < end
                && self.bytes_from(self.window_start) > peers.buffer_bytes as u64
            {
                self.window_start += 1;
            }
        }
        let kept_from = self.window_start.min(end.saturating_sub(peers.replay as u64));
        while self.first < kept_from {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// `drop_newest`: of what was published since `old_end` each peer keeps what it has room for.
    /// Answers how many at least one peer keeps, and how many are missed by peers in all.
    fn shorten(&mut self, old_end: u64, peers: &Peers) -> (u64, u64) {
        let (first, end, bytes) = (self.first, self.first + self.entries.len() as u64, self.bytes);
        let index = |number: u64| usize::try_from(number - first).unwrap_or(usize::MAX);
        let bytes_at =
            |number: u64| self.entries.get(index(number)).map_or(bytes, |entry| entry.bytes_before);
        let (mut most_taken, mut missed) = (0, 0);
        for slot in self.slots.values_mut() {
            let kept = slot.kept.len() as u64;
            let has_room_until = |number: u64| {
                let messages = kept + (number - slot.cursor);
                let waiting_bytes = slot.kept_bytes + (bytes_at(number) - bytes_at(slot.cursor));
                messages <= 1
                    || (messages <= peers.buffer as u64 && waiting_bytes <= peers.buffer_bytes as u64)
            };
            let mut until = end;
            if !has_room_until(end) {
                until = old_end;
                while has_room_until(until + 1) {
                    until += 1;
                }
                let entries = self.entries.range(index(slot.cursor)..index(until));
                slot.kept.extend(entries.map(|entry| entry.payload.clone()));
                slot.kept_bytes += bytes_at(until) - bytes_at(slot.cursor);
                slot.cursor = end;
                missed += end - until;
            }
            most_taken = most_taken.max(until - old_end);
        }
        (most_taken, missed)
    }
}

/// Copies small payloads into one piece of memory of their own.
fn detach(batch: &mut [Payload]) {
    let is_small = |payload: &Payload| payload.len() < WORTH_SHARING_BYTES;
    let total = batch.iter().filter(|payload| is_small(payload)).map(Payload::len).sum();
    let mut copies = BytesMut::with_capacity(total);
    batch.iter().filter(|payload| is_small(payload)).for_each(|p| copies.extend_from_slice(p.as_bytes()));
    let mut copies: Bytes = copies.freeze();
    for payload in batch.iter_mut().filter(|payload| is_small(payload)) {
        let copy = copies.split_to(payload.len());
        *payload = if payload.is_text() { Payload::checked_text(copy) } else { Payload::binary(copy) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn broadcast(slow: SlowPeer, buffer: usize, replay: usize) -> (Metrics, Broadcast) {
        let metrics = Metrics::default();
        let sink = metrics.sink("p", "s");
        (metrics, Broadcast::new(Peers { buffer, slow, replay, ..Peers::default() }, sink))
    }

    fn publish(broadcast: &Broadcast, texts: &[&str]) -> Published {
        broadcast.publish(&mut texts.iter().map(|text| Payload::text(*text)).collect())
    }

    fn take(broadcast: &Broadcast, peer: u64, most: usize) -> String {
        let mut payloads = VecDeque::new();
        match broadcast.poll_next(&mut Context::from_waker(Waker::noop()), peer, most, &mut payloads) {
            Poll::Pending => "nothing".to_owned(),
            Poll::Ready(Next::Messages) => {
                payloads.iter().filter_map(Payload::as_text).collect::<Vec<_>>().join(" ")
            }
            Poll::Ready(other) => format!("{other:?}"),
        }
    }

    fn missed(metrics: &Metrics) -> String {
        let text = metrics.encode();
        let mut lines = text.lines().filter(|line| line.starts_with("tidemill_peer_messages_dropped_total{"));
        lines.next().and_then(|line| line.rsplit(' ').next()).unwrap_or("0").to_owned()
    }

    #[test]
    fn every_peer_gets_every_message_from_its_arrival_on() {
        let (_, broadcast) = broadcast(SlowPeer::DropOldest, 8, 0);
        assert_eq!(publish(&broadcast, &["lost"]).no_peers, 1);
        broadcast.join(1);
        assert_eq!(publish(&broadcast, &["a", "b"]).delivered, 2);
        broadcast.join(2);
        assert_eq!(publish(&broadcast, &["c"]).delivered, 1);
        assert_eq!((take(&broadcast, 1, 9), take(&broadcast, 2, 9)), ("a b c".into(), "c".into()));
        assert_eq!(take(&broadcast, 1, 9), "nothing");
        broadcast.finish();
        assert_eq!(take(&broadcast, 1, 9), "Finished");
    }

    #[test]
    fn drop_oldest_moves_the_cursor_and_counts_the_jump() {
        let (metrics, broadcast) = broadcast(SlowPeer::DropOldest, 3, 0);
        broadcast.join(1);
        assert_eq!(publish(&broadcast, &["a", "b", "c", "d", "e"]).delivered, 5);
        assert_eq!(take(&broadcast, 1, 9), "c d e");
        assert_eq!(missed(&metrics), "2");
    }

    #[test]
    fn drop_newest_keeps_what_there_was_room_for_and_goes_on_when_there_is_again() {
        let (metrics, broadcast) = broadcast(SlowPeer::DropNewest, 3, 0);
        broadcast.join(1);
        let published = publish(&broadcast, &["a", "b", "c", "d", "e"]);
        assert_eq!((published.delivered, published.slow_peers), (3, 2));
        assert_eq!(publish(&broadcast, &["f"]).slow_peers, 1);
        assert_eq!(take(&broadcast, 1, 2), "a b");
        assert_eq!(publish(&broadcast, &["g", "h", "i"]).delivered, 2);
        assert_eq!(take(&broadcast, 1, 9), "c g h");
        assert_eq!(publish(&broadcast, &["j"]).delivered, 1);
        assert_eq!(take(&broadcast, 1, 9), "j");
        assert_eq!(missed(&metrics), "4");
    }

    #[test]
    fn a_message_larger_than_the_buffer_goes_alone() {
        for slow in [SlowPeer::DropOldest, SlowPeer::DropNewest] {
            let metrics = Metrics::default();
            let peers = Peers { buffer_bytes: 2, slow, ..Peers::default() };
            let broadcast = Broadcast::new(peers, metrics.sink("p", "s"));
            broadcast.join(1);
            publish(&broadcast, &["large"]);
            assert_eq!(take(&broadcast, 1, 9), "large", "{slow:?}");
        }
    }

    #[test]
    fn disconnect_tells_the_slow_peer_and_counts_what_it_leaves() {
        let (metrics, broadcast) = broadcast(SlowPeer::Disconnect, 2, 0);
        broadcast.join(1);
        publish(&broadcast, &["a", "b"]);
        assert_eq!(take(&broadcast, 1, 1), "a");
        publish(&broadcast, &["c", "d"]);
        assert_eq!(take(&broadcast, 1, 9), "TooSlow");
        broadcast.leave(1, Reason::SlowPeer);
        assert_eq!(missed(&metrics), "3");
    }

    #[test]
    fn block_says_when_there_is_no_room() {
        let (_, broadcast) = broadcast(SlowPeer::Block, 2, 0);
        let mut cx = Context::from_waker(Waker::noop());
        broadcast.join(1);
        publish(&broadcast, &["a"]);
        assert_eq!(broadcast.poll_room(&mut cx, 0, 0), Poll::Ready(()));
        assert_eq!(broadcast.poll_room(&mut cx, 1, 1), Poll::Pending);
        publish(&broadcast, &["b"]);
        assert_eq!(broadcast.poll_room(&mut cx, 0, 0), Poll::Pending);
        assert_eq!(take(&broadcast, 1, 1), "a");
        assert_eq!(broadcast.poll_room(&mut cx, 0, 0), Poll::Ready(()));
        assert_eq!(take(&broadcast, 1, 9), "b");
        assert_eq!(broadcast.poll_taken(&mut cx), Poll::Ready(()));
    }

    #[test]
    fn replay_gives_a_new_peer_the_last_messages() {
        let (_, broadcast) = broadcast(SlowPeer::DropOldest, 1, 2);
        publish(&broadcast, &["a", "b", "c"]);
        broadcast.join(1);
        publish(&broadcast, &["d"]);
        assert_eq!(take(&broadcast, 1, 9), "b c d");
    }
}
