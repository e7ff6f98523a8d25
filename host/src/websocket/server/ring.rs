//! A stretch of an endless stream of frames, encoded once for all who get them.
//!
//! A server's frames are not masked (RFC 6455 section 5.3), so they are the same bytes for every peer.
//! They stand one after the other in chunks, and a peer is written from its mark to a chunk's end at
//! once. EncodedFrames share no memory with what sockets were read into.

use crate::message::Payload;
use crate::websocket::connection::{EncodedFrames, encode, encoded_bytes};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// EncodedFrames are put together up to here; one larger frame is a chunk of its own. It bounds what a peer
/// that stops reading keeps alive.
const CHUNK_BYTES: usize = 32 << 10;

/// What peers get as one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingFrame {
    /// Its payload.
    pub payload: Payload,
    /// How many messages it holds.
    pub messages: u64,
}

impl OutgoingFrame {
    /// How many bytes it has as it goes to a socket.
    pub fn encoded_bytes(&self) -> usize {
        encoded_bytes(&self.payload)
    }
}

/// A place between two frames of the stream: what came before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RingMark {
    pub(super) frames: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// EncodedFrames in a row, on their way to the ring.
#[derive(Debug, Default)]
pub(super) struct RingChunk {
    bytes: Bytes,
    /// Where each frame ends, seen from the chunk's start.
    ends: Vec<RingMark>,
}

/// The frames that somebody may still get.
#[derive(Debug, Default)]
pub(super) struct FrameRing {
    start: RingMark,
    /// Where each frame ends.
    ends: VecDeque<RingMark>,
    /// The bytes, and where they end.
    chunks: VecDeque<(Bytes, RingMark)>,
}

/// The frames, encoded and put together.
pub(super) fn chunks(frames: impl Iterator<Item = OutgoingFrame>) -> Vec<RingChunk> {
    let (mut chunks, mut ends) = (Vec::new(), Vec::new());
    let (mut bytes, mut at) = (BytesMut::new(), RingMark::default());
    for OutgoingFrame { payload, messages } in frames {
        if !bytes.is_empty() && bytes.len() + payload.len() > CHUNK_BYTES {
            chunks.push(RingChunk { bytes: bytes.split().freeze(), ends: std::mem::take(&mut ends) });
            at = RingMark::default();
        }
        encode(&payload, &mut bytes);
        at = RingMark { frames: at.frames + 1, messages: at.messages + messages, bytes: bytes.len() as u64 };
        ends.push(at);
    }
    if !ends.is_empty() {
        chunks.push(RingChunk { bytes: bytes.freeze(), ends });
    }
    chunks
}

impl RingMark {
    /// What is between an earlier mark and this one.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            frames: self.frames - earlier.frames,
            messages: self.messages - earlier.messages,
            bytes: self.bytes - earlier.bytes,
        }
    }

    pub(super) fn plus(self, more: Self) -> Self {
        Self {
            frames: self.frames + more.frames,
            messages: self.messages + more.messages,
            bytes: self.bytes + more.bytes,
        }
    }
}

impl FrameRing {
    /// Before the first frame that is there.
    pub(super) fn start(&self) -> RingMark {
        self.start
    }

    /// After the last.
    pub(super) fn end(&self) -> RingMark {
        self.ends.back().copied().unwrap_or(self.start)
    }

    pub(super) fn append(&mut self, chunk: RingChunk) {
        let base = self.end();
        self.ends.extend(chunk.ends.iter().map(|end| base.plus(*end)));
        self.chunks.push_back((chunk.bytes, self.end()));
    }

    /// One frame on from `mark`, which is in the ring; the end if there is none.
    pub(super) fn next(&self, mark: RingMark) -> RingMark {
        let index = usize::try_from(mark.frames - self.start.frames).unwrap_or(usize::MAX);
        self.ends.get(index).copied().unwrap_or_else(|| self.end())
    }

    /// The frames from `from` to `until`, or to the end of a chunk before; and the mark there.
    pub(super) fn slice(&self, from: RingMark, until: RingMark) -> (EncodedFrames, RingMark) {
        let index = self.chunks.partition_point(|(_, end)| end.bytes <= from.bytes);
        let Some((bytes, end)) = self.chunks.get(index).filter(|_| from < until) else {
            return (EncodedFrames::default(), from);
        };
        let start = end.bytes - bytes.len() as u64;
        let until = until.min(*end);
        let offset = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
        let bytes = bytes.slice(offset(from.bytes)..offset(until.bytes));
        (EncodedFrames { bytes, count: until.since(from).frames }, until)
    }

    /// Forgets what is before `mark`.
    pub(super) fn forget(&mut self, mark: RingMark) {
        while self.start < mark
            && let Some(end) = self.ends.pop_front()
        {
            self.start = end;
        }
        while self.chunks.front().is_some_and(|(_, end)| *end <= self.start) {
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_is_found_whatever_the_chunks() {
        let payloads: Vec<Payload> =
            (0..50).map(|n| Payload::text(format!("{n:04}").repeat((n % 7) * 600 + n % 3 * 9000))).collect();
        let mut ring = FrameRing::default();
        let mut all = BytesMut::new();
        let mut marks = vec![RingMark::default()];
        for payload in &payloads {
            let mut encoded = BytesMut::new();
            encode(payload, &mut encoded);
            assert_eq!(
                OutgoingFrame { payload: payload.clone(), messages: 1 }.encoded_bytes(),
                encoded.len()
            );
        }
        for some in payloads.chunks(9) {
            let frames = some.iter().map(|payload| OutgoingFrame { payload: payload.clone(), messages: 2 });
            chunks(frames).into_iter().for_each(|chunk| ring.append(chunk));
            for payload in some {
                encode(payload, &mut all);
                marks.push(ring.next(*marks.last().expect("one")));
                assert_eq!(marks.last().map(|mark| mark.bytes), Some(all.len() as u64));
            }
        }
        assert_eq!((ring.end().frames, ring.end().messages), (50, 100));
        ring.forget(marks[20]);
        assert_eq!(ring.start(), marks[20]);
        for from in 20..=50 {
            for until in from..=50 {
                let (mut at, mut found) = (marks[from], Vec::new());
                while at < marks[until] {
                    let (frames, next) = ring.slice(at, marks[until]);
                    assert_eq!(frames.count, next.since(at).frames);
                    assert!(frames.count > 0);
                    found.extend_from_slice(&frames.bytes);
                    at = next;
                }
                let wanted = &all[marks[from].bytes as usize..marks[until].bytes as usize];
                assert!(found == wanted, "{from}..{until}");
            }
        }
        ring.forget(ring.end());
        assert!(ring.chunks.is_empty() && ring.ends.is_empty());
    }
}
