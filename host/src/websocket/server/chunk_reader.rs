//! What is read of a peer and handed on to the sources of its route, a chunk at a time.

use super::membership::{Membership, SourceSender};
use super::route_member::ReceivedChunk;
use crate::message::metadata::{self, Metadata, Origin};
use crate::message::{Message, Payload};
use crate::websocket::connection::{Connection, ConnectionEnd, Received};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Most messages in a chunk.
const CHUNK_MESSAGES: usize = 256;
/// Most payload bytes in a chunk; one larger message goes alone.
const CHUNK_BYTES: usize = 1 << 20;

/// The chunk that is being read, or waits for the sources of a peer.
#[derive(Default)]
pub(super) struct ChunkReader {
    chunk: ReceivedChunk,
    bytes: usize,
    /// The origin of what is read: that of the first source.
    origin: Arc<Origin>,
    /// All that was received is in the chunk, or was.
    is_read_out: bool,
    /// A source that has stopped knows of a message that was too large.
    is_too_large_told: bool,
}

impl ChunkReader {
    /// Whether nothing waits for a source.
    pub(super) fn is_empty(&self) -> bool {
        self.chunk.is_empty()
    }

    /// Whether messages wait for a source.
    pub(super) fn has_messages(&self) -> bool {
        !self.chunk.messages.is_empty()
    }

    /// Whether all that was received of the connection is in the chunk, or was.
    pub(super) fn is_read_out(&self) -> bool {
        self.is_read_out
    }

    /// What is read has the origin that it has at the first source.
    pub(super) fn follow(&mut self, members: &[Membership]) {
        if let Some(first) = reading(members).next()
            && !Arc::ptr_eq(&first.origin, &self.origin)
        {
            self.chunk = self.chunk.from(&first.origin);
            self.origin = first.origin.clone();
        }
    }

    /// Reads until the chunk is full, or the connection has ended; pending if there is nothing more.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        members: &[Membership],
    ) -> Poll<Option<ConnectionEnd>> {
        let mut received_us = None;
        while self.chunk.messages.len() < CHUNK_MESSAGES && self.bytes < CHUNK_BYTES {
            match ready!(connection.poll_receive(cx)) {
                Received::Message(payload) => {
                    self.bytes += payload.len();
                    let received_us = *received_us.get_or_insert_with(metadata::now_us);
                    let metadata = Metadata::new(self.origin.clone(), received_us);
                    self.chunk.messages.push(Message { payload, metadata });
                }
                Received::Control => {}
                Received::Ended(ending) => {
                    self.is_read_out = true;
                    self.note_too_large(&ending, members);
                    return Poll::Ready(Some(ending));
                }
            }
        }
        Poll::Ready(None)
    }

    /// A message that was too large is a failed one of the sources, and else of the sinks that let it come.
    fn note_too_large(&mut self, ending: &ConnectionEnd, members: &[Membership]) {
        let Some(failed) = ending.failed(&self.origin) else { return };
        if reading(members).next().is_some() {
            self.chunk.failed.push(failed);
        } else if !self.is_too_large_told {
            let broadcasts = members.iter().filter_map(|membership| membership.broadcast.as_ref());
            broadcasts.for_each(|broadcast| broadcast.received_too_large());
        }
    }

    /// Tells the sources how many messages were read that they cannot have taken: of the chunk, and beyond it.
    pub(super) fn account(&self, members: &mut [Membership], beyond: usize) {
        for inlet in reading_mut(members) {
            let waiting = if inlet.has_chunk { beyond } else { beyond + self.chunk.len() };
            inlet.account(waiting as u64);
        }
    }

    /// All that a source which stops is still to get: the chunk, if it has not had it, and what was read beyond
    /// it.
    pub(super) fn rest(&mut self, source: &SourceSender, connection: &Connection) -> ReceivedChunk {
        let mut rest =
            if source.has_chunk { ReceivedChunk::default() } else { self.chunk.from(&source.origin) };
        let received_us = metadata::now_us();
        let message = |payload: &Payload| Message {
            payload: payload.clone(),
            metadata: Metadata::new(source.origin.clone(), received_us),
        };
        rest.messages.extend(connection.held().map(message));
        let ending = connection.ending().filter(|_| !self.is_read_out);
        if let Some(failed) = ending.and_then(|ending| ending.failed(&source.origin)) {
            rest.failed.push(failed);
            self.is_too_large_told = true;
        }
        rest
    }

    /// Forgets the chunk and what was read beyond it, where the last source to read has stopped, which has them: they are
    /// for none that comes later.
    pub(super) fn forget_rest(&mut self, connection: &mut Connection, members: &[Membership]) {
        if reading(members).next().is_none() {
            self.chunk = ReceivedChunk::default();
            self.bytes = 0;
            connection.clear_held();
        }
    }

    /// Hands the chunk to every source, each when it has room. Ready once all have it, and it is empty.
    pub(super) fn poll_deliver(&mut self, cx: &mut Context<'_>, members: &mut [Membership]) -> Poll<()> {
        let (mut ready, mut is_held) = (Vec::new(), false);
        for inlet in reading_mut(members) {
            if inlet.has_chunk {
                continue;
            }
            if inlet.poll_room(cx).is_ready() {
                ready.push(inlet);
            } else {
                is_held = true;
            }
        }
        // The last of all has the chunk itself.
        let last = if is_held { None } else { ready.pop() };
        for inlet in ready {
            inlet.give(self.chunk.from(&inlet.origin));
        }
        if is_held {
            return Poll::Pending;
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.bytes = 0;
        if let Some(last) = last {
            let chunk =
                if Arc::ptr_eq(&last.origin, &self.origin) { chunk } else { chunk.from(&last.origin) };
            last.give(chunk);
        }
        reading_mut(members).for_each(|inlet| inlet.has_chunk = false);
        Poll::Ready(())
    }
}

/// The ways to the sources that have not stopped.
fn reading(members: &[Membership]) -> impl Iterator<Item = &SourceSender> {
    members.iter().filter_map(|membership| membership.inlet.as_ref()).filter(|inlet| !inlet.is_stopped())
}

fn reading_mut(members: &mut [Membership]) -> impl Iterator<Item = &mut SourceSender> {
    let inlets = members.iter_mut().filter_map(|membership| membership.inlet.as_mut());
    inlets.filter(|inlet| !inlet.is_stopped())
}
