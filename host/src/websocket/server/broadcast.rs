//! What the peers of a server sink are still to get: one ring of frames for all, and a mark for each.
//!
//! The pipeline appends a batch and wakes who waits; each peer's task takes from its mark on, at its
//! own speed. A peer that falls out of the window it may lag behind has its mark moved, is closed, or
//! holds the pipeline, as the policy says. Limits and counts are of messages, not of frames.
//!
//! A burst is no reason to lose anything: where a batch is more than a peer has room for, the pipeline waits
//! until that peer's task had its turn. A peer is slow once its connection takes nothing more, and has not
//! caught up for a while.

use super::ring::{self, FrameRing, OutgoingFrame, RingMark};
use crate::config::{Peers, SlowPeer};
use crate::reason::Reason;
use crate::telemetry::SinkMetrics;
use crate::wait_budget::{MESSAGE_BYTES, STOP_ROOM_BYTES, StallLimit, WaitBudget};
use crate::websocket::connection::EncodedFrames;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The messages of one server sink on their way to its peers.
#[derive(Debug)]
pub struct Broadcast {
    peers: Peers,
    metrics: SinkMetrics,
    /// Once the pipeline stops: how long it waits for a peer that takes nothing.
    stall_limit: OnceLock<StallLimit>,
    state: Mutex<BroadcastState>,
}

/// What publishing a batch came to, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// At least one peer has them in its queue.
    pub delivered: u64,
    /// Nobody was connected.
    pub no_peers: u64,
    /// Every peer's queue was full.
    pub slow_peers: u64,
}

/// Whether a batch may be published now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Every peer has room for it, or had the chance to make some.
    Given,
    /// Not before the waker is woken, or this moment has come.
    Due(Option<Instant>),
}

/// What a peer gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NextFrames {
    /// EncodedFrames, to be written as they are.
    Frames(EncodedFrames),
    /// The peer reads too slowly, and is to be disconnected.
    TooSlow,
    /// It has had all there will be.
    Finished,
}

#[derive(Debug, Default)]
struct BroadcastState {
    ring: FrameRing,
    /// Peers may be no further behind than this.
    window: RingMark,
    /// Where a new peer begins.
    replay: RingMark,
    cursors: BTreeMap<u64, PeerCursor>,
    /// The least of the peers' marks, and how many of them were there when it was looked for: once these
    /// have moved on it is looked for again. New peers begin at the end.
    slowest: Option<(RingMark, usize)>,
    publisher: Option<Waker>,
    /// With peers whose connections take nothing more.
    wait_budget: WaitBudget,
    is_finished: bool,
}

#[derive(Debug)]
struct PeerCursor {
    /// It has had, or missed, what is before this.
    mark: RingMark,
    /// What comes before the mark all the same: replayed messages, and with `drop_newest` what the peer
    /// had room for before it missed others.
    kept: VecDeque<(EncodedFrames, RingMark)>,
    /// How much that is.
    kept_size: RingMark,
    /// When its connection last took something, or else since when it has not had all there is.
    stalled_since: Option<Instant>,
    /// What the connection had taken when it was last blocked.
    sent_bytes: u64,
    /// Whether its connection takes nothing more now.
    is_blocked: bool,
    waker: Option<Waker>,
}

impl Broadcast {
    /// An empty ring.
    pub fn new(peers: Peers, metrics: SinkMetrics) -> Self {
        Self { peers, metrics, stall_limit: OnceLock::new(), state: Mutex::default() }
    }

    /// Whether a message more may be published beside `messages` and `bytes` that wait for it. Only
    /// `slow_peer = "block"` ever says no; the waker is woken when that may have changed.
    pub fn poll_room(&self, cx: &mut Context<'_>, messages: u64, bytes: u64) -> Poll<()> {
        if self.peers.slow != SlowPeer::Block {
            return Poll::Ready(());
        }
        let mut state = self.lock();
        let Some(slowest) = state.slowest() else { return Poll::Ready(()) };
        let (behind, limits) = (state.ring.end().since(slowest), self.limits());
        if behind.messages + messages < limits.buffer as u64
            && behind.bytes + bytes < limits.buffer_bytes as u64
        {
            return Poll::Ready(());
        }
        state.publisher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether a batch of so many messages and bytes of frames may be published without a loss to a peer that
    /// had no chance yet to take more. A peer with nothing else waiting has room for a batch of any size.
    pub fn readiness(&self, cx: &mut Context<'_>, messages: u64, bytes: u64) -> Readiness {
        if self.peers.slow == SlowPeer::Block {
            return Readiness::Given;
        }
        let mut state = self.lock();
        let end = state.ring.end();
        let batch = RingMark { frames: 0, messages, bytes };
        let limits = self.limits();
        let has_room = |waiting: RingMark| waiting.frames == 0 || fits(waiting.plus(batch), &limits);
        // With `drop_newest` more may wait for a peer than the ring knows of.
        if self.peers.slow != SlowPeer::DropNewest
            && state.slowest().is_none_or(|mark| has_room(end.since(mark)))
        {
            state.wait_budget.go_on(Instant::now());
            return Readiness::Given;
        }
        let BroadcastState { cursors, wait_budget, .. } = &mut *state;
        let mut stalled_since = None;
        let mut waits_for_a_turn = false;
        for cursor in cursors.values() {
            let waiting = match self.peers.slow {
                SlowPeer::DropNewest => cursor.behind(end),
                _ => end.since(cursor.mark),
            };
            if has_room(waiting) {
                continue;
            }
            if cursor.is_blocked {
                // The one that took something last may take longest.
                stalled_since = stalled_since.max(cursor.stalled_since);
            } else {
                waits_for_a_turn = true;
            }
        }
        let now = Instant::now();
        let due = if waits_for_a_turn {
            wait_budget.go_on(now);
            None
        } else {
            let until = wait_budget.wait(stalled_since, now);
            if until.is_none() {
                wait_budget.go_on(now);
                return Readiness::Given;
            }
            until
        };
        state.publisher = Some(cx.waker().clone());
        Readiness::Due(due)
    }

    /// Waits for a peer.
    pub fn poll_peers(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.cursors.is_empty() {
            state.publisher = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Gives a batch to all peers, once [`Self::readiness`] says so.
    pub fn publish(&self, batch: impl Iterator<Item = OutgoingFrame>) -> Published {
        let chunks = ring::chunks(batch);
        let mut guard = self.lock();
        let state = &mut *guard;
        let old_end = state.ring.end();
        chunks.into_iter().for_each(|chunk| state.ring.append(chunk));
        let count = state.ring.end().since(old_end).messages;
        let mut published = Published { delivered: count, ..Published::default() };
        let mut missed = 0;
        if state.cursors.is_empty() {
            published = Published { no_peers: count, ..Published::default() };
        } else if self.peers.slow == SlowPeer::DropNewest {
            let (taken, missed_by_peers) = state.shorten(old_end, &self.limits());
            published = Published { delivered: taken, slow_peers: count - taken, no_peers: 0 };
            missed = missed_by_peers;
        }
        state.move_window(&self.limits());
        if self.peers.slow == SlowPeer::DropOldest {
            missed = state.leave_oldest();
        }
        let now = Instant::now();
        let mut woken = Vec::new();
        for cursor in state.cursors.values_mut() {
            cursor.stalled_since.get_or_insert(now);
            woken.extend(cursor.waker.take());
        }
        drop(guard);
        woken.into_iter().for_each(Waker::wake);
        if missed > 0 {
            self.metrics.peer_dropped(Reason::SlowPeer, missed);
        }
        published
    }

    /// A new peer, unless it has joined; the last messages are its first, if `replay` says so.
    pub(super) fn join(&self, peer: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.cursors.contains_key(&peer) {
            return;
        }
        let (start, end) = (state.replay.max(state.ring.start()), state.ring.end());
        let mut cursor = PeerCursor {
            mark: start,
            kept: VecDeque::new(),
            kept_size: RingMark::default(),
            stalled_since: None,
            sent_bytes: 0,
            is_blocked: false,
            waker: None,
        };
        cursor.keep(&state.ring, end);
        state.cursors.insert(peer, cursor);
        state.wake_publisher();
        drop(guard);
        self.metrics.replayed.inc_by(end.since(start).messages);
    }

    /// A peer is gone; what it has not taken is counted under `reason`.
    pub(super) fn leave(&self, peer: u64, reason: Reason) {
        let mut state = self.lock();
        let end = state.ring.end();
        let Some(cursor) = state.cursors.remove(&peer) else { return };
        state.moved_on(cursor.mark);
        state.wake_publisher();
        drop(state);
        let missed = cursor.behind(end).messages;
        if missed > 0 {
            self.metrics.peer_dropped(reason, missed);
        }
    }

    /// What `peer` is to get next. Its connection takes more.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>, peer: u64) -> Poll<NextFrames> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (window, end) = (state.window, state.ring.end());
        let Some(cursor) = state.cursors.get_mut(&peer) else { return Poll::Ready(NextFrames::Finished) };
        if std::mem::take(&mut cursor.is_blocked) {
            cursor.stalled_since = Some(Instant::now());
        }
        if cursor.mark < window {
            // Only `disconnect` leaves one there.
            return Poll::Ready(NextFrames::TooSlow);
        }
        let result = if let Some((frames, size)) = cursor.kept.pop_front() {
            cursor.kept_size = cursor.kept_size.since(size);
            Poll::Ready(NextFrames::Frames(frames))
        } else if cursor.mark < end {
            let (frames, mark) = state.ring.slice(cursor.mark, end);
            let before = std::mem::replace(&mut cursor.mark, mark);
            state.moved_on(before);
            Poll::Ready(NextFrames::Frames(frames))
        } else if state.is_finished {
            Poll::Ready(NextFrames::Finished)
        } else {
            cursor.stalled_since = None;
            cursor.waker = Some(cx.waker().clone());
            Poll::Pending
        };
        if matches!(result, Poll::Ready(NextFrames::Frames(_))) {
            state.wake_publisher();
        }
        result
    }

    /// The connection of `peer` takes nothing more now, of which so much was sent. Ready if the peer is too slow to be kept; else its
    /// waker is woken when that may have changed.
    pub(super) fn poll_blocked(&self, cx: &mut Context<'_>, peer: u64, sent_bytes: u64) -> Poll<()> {
        let mut state = self.lock();
        let window = state.window;
        let Some(cursor) = state.cursors.get_mut(&peer) else { return Poll::Pending };
        if self.peers.slow == SlowPeer::Disconnect {
            if cursor.mark < window {
                return Poll::Ready(());
            }
            cursor.waker = Some(cx.waker().clone());
        }
        if std::mem::replace(&mut cursor.sent_bytes, sent_bytes) != sent_bytes {
            cursor.stalled_since = Some(Instant::now());
        }
        if !std::mem::replace(&mut cursor.is_blocked, true) {
            // Whoever waited for its turn need not any more.
            state.wake_publisher();
        }
        Poll::Pending
    }

    /// A peer that only gets messages has sent one that is too large. No source tells of it.
    pub(super) fn received_too_large(&self) {
        self.metrics.peer_dropped(Reason::TooLarge, 1);
    }

    /// The pipeline stops, and is given up after `grace` if that is known. A peer that takes nothing for a
    /// part of that is given up alone; the peers are to be woken for it.
    pub fn stop(&self, grace: Option<Duration>) {
        let _ = self.stall_limit.set(StallLimit::new(grace));
    }

    /// How long a peer is waited for that takes nothing: for ever before the pipeline stops.
    pub(super) fn stall_limit(&self) -> Option<StallLimit> {
        self.stall_limit.get().copied()
    }

    /// What may wait for one peer: more once the pipeline stops, so that no peer gets less, or later, for
    /// another.
    fn limits(&self) -> Peers {
        let mut limits = self.peers;
        if self.stall_limit().is_some() {
            limits.buffer = limits.buffer.max(STOP_ROOM_BYTES / MESSAGE_BYTES);
            limits.buffer_bytes = limits.buffer_bytes.max(STOP_ROOM_BYTES);
        }
        limits
    }

    /// Nothing more will be published.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.is_finished = true;
        let woken: Vec<Waker> = state.cursors.values_mut().filter_map(|cursor| cursor.waker.take()).collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, BroadcastState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BroadcastState {
    /// Where the peer is that is furthest behind.
    fn slowest(&mut self) -> Option<RingMark> {
        if self.slowest.is_none() {
            let marks = self.cursors.values().map(|cursor| cursor.mark);
            let least = marks.clone().min()?;
            self.slowest = Some((least, marks.filter(|mark| *mark == least).count()));
        }
        self.slowest.map(|(mark, _)| mark)
    }

    /// A peer that was at `mark` is there no longer.
    fn moved_on(&mut self, mark: RingMark) {
        if let Some((least, count)) = &mut self.slowest
            && *least == mark
        {
            *count -= 1;
            self.slowest.take_if(|(_, count)| *count == 0);
        }
    }

    fn wake_publisher(&mut self) {
        if let Some(waker) = self.publisher.take() {
            waker.wake();
        }
    }

    /// How far behind a peer may be, and what the ring can forget.
    fn move_window(&mut self, peers: &Peers) {
        let end = self.ring.end();
        if peers.slow == SlowPeer::Block {
            self.window = self.slowest().unwrap_or(end);
        } else {
            // One larger frame goes alone.
            while self.window.frames + 1 < end.frames && !fits(end.since(self.window), peers) {
                self.window = self.ring.next(self.window);
            }
        }
        while self.replay < end {
            let next = self.ring.next(self.replay);
            if end.since(next).messages < peers.replay as u64 {
                break;
            }
            self.replay = next;
        }
        self.ring.forget(self.window.min(self.replay));
    }

    /// `drop_oldest`: peers that are further behind than they may be go on where the window begins. Answers how
    /// many messages they miss in all.
    fn leave_oldest(&mut self) -> u64 {
        let window = self.window;
        let mut missed = 0;
        for cursor in self.cursors.values_mut().filter(|cursor| cursor.mark < window) {
            missed += window.since(cursor.mark).messages;
            cursor.mark = window;
            self.slowest = None;
        }
        missed
    }

    /// `drop_newest`: of what was published since `old_end` each peer keeps what it has room for.
    /// Answers how many messages at least one peer keeps, and how many are missed by peers in all.
    fn shorten(&mut self, old_end: RingMark, peers: &Peers) -> (u64, u64) {
        let end = self.ring.end();
        let (mut most_taken, mut missed) = (0, 0);
        for cursor in self.cursors.values_mut() {
            let has_room_until = |cursor: &PeerCursor, until: RingMark| {
                let behind = cursor.behind(until);
                behind.frames <= 1 || fits(behind, peers)
            };
            let mut until = end;
            if !has_room_until(cursor, end) {
                until = old_end;
                while until < end && has_room_until(cursor, self.ring.next(until)) {
                    until = self.ring.next(until);
                }
                cursor.keep(&self.ring, until);
                cursor.mark = end;
                missed += end.since(until).messages;
            }
            most_taken = most_taken.max(until.since(old_end).messages);
        }
        (most_taken, missed)
    }
}

impl PeerCursor {
    /// What the peer has yet to take of what is before `end`.
    fn behind(&self, end: RingMark) -> RingMark {
        self.kept_size.plus(end.since(self.mark))
    }

    /// Puts what is between its mark and `until` aside.
    fn keep(&mut self, ring: &FrameRing, until: RingMark) {
        while self.mark < until {
            let (frames, mark) = ring.slice(self.mark, until);
            let size = mark.since(self.mark);
            self.kept.push_back((frames, size));
            self.kept_size = self.kept_size.plus(size);
            self.mark = mark;
        }
    }
}

fn fits(size: RingMark, peers: &Peers) -> bool {
    size.messages <= peers.buffer as u64 && size.bytes <= peers.buffer_bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::telemetry::Metrics;
    use crate::wait_budget::MAX_WAIT;
    use proptest::prelude::*;

    fn broadcast(slow: SlowPeer, buffer: usize, replay: usize) -> (Metrics, Broadcast) {
        let metrics = Metrics::default();
        let sink = metrics.sink("p", "s");
        (metrics, Broadcast::new(Peers { buffer, slow, replay, ..Peers::default() }, sink))
    }

    fn publish(broadcast: &Broadcast, texts: &[&str]) -> Published {
        frames(broadcast, texts, 1)
    }

    fn frames(broadcast: &Broadcast, texts: &[&str], messages: u64) -> Published {
        let frame = |text: &&str| OutgoingFrame { payload: Payload::text(*text), messages };
        broadcast.publish(texts.iter().map(frame))
    }

    /// The payloads of what a peer takes at once.
    fn take(broadcast: &Broadcast, peer: u64) -> String {
        match broadcast.poll_next(&mut Context::from_waker(Waker::noop()), peer) {
            Poll::Pending => "nothing".to_owned(),
            Poll::Ready(NextFrames::Frames(frames)) => {
                let (mut rest, mut texts) = (&frames.bytes[..], Vec::new());
                while let [0x81, length, after @ ..] = rest {
                    let (text, after) = after.split_at(usize::from(*length));
                    texts.push(std::str::from_utf8(text).expect("text"));
                    rest = after;
                }
                assert!(rest.is_empty(), "whole frames of text");
                assert_eq!(frames.count, texts.len() as u64);
                texts.join(" ")
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
        assert_eq!((take(&broadcast, 1), take(&broadcast, 2)), ("a b".into(), "c".into()));
        assert_eq!(take(&broadcast, 1), "c");
        assert_eq!(take(&broadcast, 1), "nothing");
        broadcast.finish();
        assert_eq!(take(&broadcast, 1), "Finished");
    }

    #[test]
    fn drop_oldest_moves_the_cursor_and_counts_the_jump() {
        let (metrics, broadcast) = broadcast(SlowPeer::DropOldest, 3, 0);
        broadcast.join(1);
        assert_eq!(publish(&broadcast, &["a", "b", "c", "d", "e"]).delivered, 5);
        assert_eq!(missed(&metrics), "2", "though the peer has not read again");
        assert_eq!(take(&broadcast, 1), "c d e");
        publish(&broadcast, &["f", "g", "h", "i"]);
        broadcast.leave(1, Reason::PeerClosed);
        assert_eq!(
            missed(&metrics),
            "3",
            "a peer that leaves has not been slow for what still waited for it"
        );
    }

    #[test]
    fn drop_newest_keeps_what_there_was_room_for_and_goes_on_when_there_is_again() {
        let (metrics, broadcast) = broadcast(SlowPeer::DropNewest, 3, 0);
        broadcast.join(1);
        let published = publish(&broadcast, &["a", "b", "c", "d", "e"]);
        assert_eq!((published.delivered, published.slow_peers), (3, 2));
        assert_eq!(publish(&broadcast, &["f"]).slow_peers, 1);
        assert_eq!(take(&broadcast, 1), "a b c");
        assert_eq!(publish(&broadcast, &["g", "h", "i", "j"]).delivered, 3);
        assert_eq!(take(&broadcast, 1), "g h i");
        assert_eq!(publish(&broadcast, &["k"]).delivered, 1);
        assert_eq!(take(&broadcast, 1), "k");
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
            assert_eq!(take(&broadcast, 1), "large", "{slow:?}");
        }
    }

    #[test]
    fn disconnect_tells_the_slow_peer_and_counts_what_it_leaves() {
        let (metrics, broadcast) = broadcast(SlowPeer::Disconnect, 2, 0);
        broadcast.join(1);
        publish(&broadcast, &["a", "b"]);
        assert_eq!(take(&broadcast, 1), "a b");
        publish(&broadcast, &["c", "d", "e"]);
        assert_eq!(take(&broadcast, 1), "TooSlow");
        broadcast.leave(1, Reason::SlowPeer);
        assert_eq!(missed(&metrics), "3");
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_peer_that_had_no_turn_yet_is_waited_for() {
        for slow in [SlowPeer::DropOldest, SlowPeer::DropNewest, SlowPeer::Disconnect] {
            let (_, broadcast) = broadcast(slow, 3, 0);
            assert_eq!(broadcast.readiness(&mut cx(), 9, 9), Readiness::Given, "nobody is there");
            broadcast.join(1);
            assert_eq!(broadcast.readiness(&mut cx(), 9, 9), Readiness::Given, "nothing waits");
            publish(&broadcast, &["a", "b"]);
            assert_eq!(broadcast.readiness(&mut cx(), 1, 3), Readiness::Given, "there is room");
            assert_eq!(broadcast.readiness(&mut cx(), 2, 6), Readiness::Due(None), "it had no turn");
            assert_eq!(take(&broadcast, 1), "a b");
            assert_eq!(broadcast.readiness(&mut cx(), 2, 6), Readiness::Given);
        }
    }

    #[test]
    fn a_peer_whose_connection_takes_nothing_is_slow_after_a_while() {
        let (metrics, broadcast) = broadcast(SlowPeer::DropOldest, 3, 0);
        broadcast.join(1);
        publish(&broadcast, &["a", "b"]);
        let since = broadcast.lock().cursors[&1].stalled_since.expect("it is behind");
        assert_eq!(broadcast.poll_blocked(&mut cx(), 1, 0), Poll::Pending);
        assert_eq!(broadcast.readiness(&mut cx(), 2, 6), Readiness::Due(Some(since + MAX_WAIT)));
        assert_eq!(broadcast.poll_blocked(&mut cx(), 1, 7), Poll::Pending);
        let later = broadcast.lock().cursors[&1].stalled_since.expect("it is behind");
        assert!(later > since, "it has taken something");
        assert_eq!(broadcast.poll_blocked(&mut cx(), 1, 7), Poll::Pending);
        assert_eq!(broadcast.lock().cursors[&1].stalled_since, Some(later));
        let long_ago = since.checked_sub(MAX_WAIT).expect("the machine runs for longer");
        broadcast.lock().cursors.get_mut(&1).expect("it is there").stalled_since = Some(long_ago);
        assert_eq!(broadcast.readiness(&mut cx(), 2, 6), Readiness::Given);
        publish(&broadcast, &["c", "d"]);
        assert_eq!((take(&broadcast, 1), take(&broadcast, 1)), ("b".into(), "c d".into()));
        assert_eq!(missed(&metrics), "1");
        assert_eq!(
            (take(&broadcast, 1), broadcast.lock().cursors[&1].stalled_since),
            ("nothing".into(), None)
        );
    }

    #[test]
    fn what_is_larger_than_the_bound_goes_to_a_peer_that_has_nothing_else_waiting() {
        let (_, broadcast) = broadcast(SlowPeer::DropOldest, 1, 0);
        broadcast.join(1);
        assert_eq!(broadcast.readiness(&mut cx(), 5, 500), Readiness::Given);
        frames(&broadcast, &["large"], 5);
        assert_eq!(broadcast.readiness(&mut cx(), 1, 1), Readiness::Due(None), "the large one waits");
        assert_eq!(take(&broadcast, 1), "large");
        assert_eq!(broadcast.readiness(&mut cx(), 1, 1), Readiness::Given);
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
        assert_eq!(take(&broadcast, 1), "a");
        assert_eq!(broadcast.poll_room(&mut cx, 0, 0), Poll::Ready(()));
        assert_eq!(take(&broadcast, 1), "b");
    }

    proptest! {
        #[test]
        fn the_slowest_peer_is_known_whoever_comes_takes_or_goes(
            steps in prop::collection::vec((0..4_u8, 0..4_u64), 0..80),
        ) {
            let (_, broadcast) = broadcast(SlowPeer::Block, 1000, 2);
            for (step, peer) in steps {
                let is_here = broadcast.lock().cursors.contains_key(&peer);
                match step {
                    0 if !is_here => broadcast.join(peer),
                    1 => broadcast.leave(peer, Reason::PeerClosed),
                    2 => drop(take(&broadcast, peer)),
                    _ => drop(publish(&broadcast, &["a", "b"])),
                }
                let mut state = broadcast.lock();
                let slowest = state.cursors.values().map(|cursor| cursor.mark).min();
                prop_assert_eq!(state.slowest(), slowest);
            }
        }
    }

    proptest! {
        #[test]
        fn a_peer_whose_connection_takes_what_comes_misses_nothing(
            buffer in 1..6_usize,
            slow in prop::sample::select(vec![SlowPeer::DropOldest, SlowPeer::DropNewest, SlowPeer::Disconnect]),
            steps in prop::collection::vec(1..9_u64, 1..60),
        ) {
            let (metrics, broadcast) = broadcast(slow, buffer, 0);
            broadcast.join(1);
            broadcast.join(2);
            let (mut sent, mut got) = (0, [0, 0]);
            for messages in steps {
                while broadcast.readiness(&mut cx(), messages, 3) != Readiness::Given {
                    for peer in [1, 2] {
                        while take(&broadcast, peer) != "nothing" {
                            got[peer as usize - 1] += 1;
                        }
                    }
                }
                frames(&broadcast, &["a"], messages);
                sent += 1;
                // One of the two takes all in its turns, a frame or more at once.
                got[0] += u64::from(take(&broadcast, 1) != "nothing");
            }
            prop_assert_eq!(missed(&metrics), "0");
            prop_assert!(got[0] <= sent && got[1] <= sent);
        }
    }

    #[test]
    fn replay_gives_a_new_peer_the_last_messages() {
        let (_, broadcast) = broadcast(SlowPeer::DropOldest, 1, 2);
        publish(&broadcast, &["a", "b", "c"]);
        broadcast.join(1);
        publish(&broadcast, &["d"]);
        assert_eq!((take(&broadcast, 1), take(&broadcast, 1)), ("b c".into(), "d".into()));
    }

    #[test]
    fn limits_and_counts_are_of_messages_not_of_frames() {
        let (metrics, broadcast) = broadcast(SlowPeer::DropOldest, 20, 15);
        broadcast.join(1);
        assert_eq!(frames(&broadcast, &["a", "b", "c"], 10).delivered, 30);
        assert_eq!(take(&broadcast, 1), "b c");
        assert_eq!(missed(&metrics), "10");
        broadcast.join(2);
        assert_eq!(take(&broadcast, 2), "b c", "two frames hold the last fifteen messages");
        frames(&broadcast, &["d"], 30);
        assert_eq!(take(&broadcast, 1), "d", "a larger frame goes alone");
    }
}
