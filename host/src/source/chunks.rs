//! Messages that come in chunks, and go on in batches.

use super::{Fill, Room};
use crate::message::{Failed, Message};
use std::task::Poll;

/// What of the last chunk did not fit into the last batch.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// In reverse: the next message is the last.
    left: Vec<Message>,
    /// What came with them and could not be decoded, in reverse.
    undecoded: Vec<Failed>,
    /// What was decoded, and then turned out to be too large for what room the batch had left.
    decoded: Option<Result<Message, Failed>>,
    /// No batch has messages of two chunks.
    are_apart: bool,
    /// The next batch has none.
    is_next_apart: bool,
}

/// Where messages go.
pub(super) struct Filling<'a> {
    pub(super) batch: &'a mut Vec<Message>,
    pub(super) room: Room,
    pub(super) failed: &'a mut Vec<Failed>,
}

/// What comes next.
pub(super) enum NextChunk {
    /// Messages, and what could not be decoded between them.
    Chunk(Vec<Message>, Vec<Failed>),
    /// Nothing more.
    End(Fill),
}

impl Chunks {
    /// From now on, no batch has messages of two chunks: which messages go together does not depend on how fast
    /// they came.
    pub(super) fn keep_apart(&mut self) {
        self.are_apart = true;
    }

    /// The next batch has no messages of two chunks.
    pub(super) fn keep_next_apart(&mut self) {
        self.is_next_apart = true;
    }

    /// Fills the batch from `next`, each message as `decode` makes it, as far as there is room: what fails
    /// takes its part of the room, and a message counts with the bytes that it has once it is decoded.
    pub(super) fn poll_fill(
        &mut self,
        filling: Filling<'_>,
        mut decode: impl FnMut(Message) -> Result<Message, Failed>,
        mut next: impl FnMut() -> Poll<NextChunk>,
    ) -> Poll<Fill> {
        let Filling { batch, room, failed } = filling;
        let (mut messages, mut bytes) = (0, 0);
        let ends_with_chunk = std::mem::take(&mut self.is_next_apart) || self.are_apart;
        loop {
            while let Some(decoded) = self.pop(&mut decode) {
                let length = match &decoded {
                    Ok(message) | Err(Failed { message, .. }) => message.payload.len(),
                };
                let is_full = messages >= room.messages || bytes + length > room.bytes;
                if is_full && messages > 0 {
                    self.decoded = Some(decoded);
                    return Poll::Ready(Fill::More);
                }
                messages += 1;
                bytes += length;
                match decoded {
                    Ok(message) => batch.push(message),
                    Err(undecoded) => failed.push(undecoded),
                }
            }
            if ends_with_chunk && messages > 0 {
                return Poll::Ready(Fill::More);
            }
            match next() {
                Poll::Ready(NextChunk::Chunk(messages, undecoded)) => {
                    (self.left, self.undecoded) = (messages, undecoded);
                    self.left.reverse();
                    self.undecoded.reverse();
                }
                Poll::Ready(NextChunk::End(fill)) => return Poll::Ready(fill),
                Poll::Pending if messages > 0 => return Poll::Ready(Fill::Drained),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Messages that were taken from a chunk and not given to a batch.
    pub(super) fn remaining(&self) -> u64 {
        (self.left.len() + self.undecoded.len() + usize::from(self.decoded.is_some())) as u64
    }

    fn pop(
        &mut self,
        decode: &mut impl FnMut(Message) -> Result<Message, Failed>,
    ) -> Option<Result<Message, Failed>> {
        let before = self.decoded.take().or_else(|| self.undecoded.pop().map(Err));
        before.or_else(|| self.left.pop().map(decode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::message::metadata::Metadata;
    use crate::reason::Reason;

    const ROOM: Room = Room { messages: 4, bytes: 100 };

    fn message(text: impl Into<String>) -> Message {
        Message { payload: Payload::text(text), metadata: Metadata::without_origin(0) }
    }

    /// Fills batches until the chunk is used up; the messages and failures of each.
    fn fill(
        chunk: Vec<Message>,
        mut decode: impl FnMut(Message) -> Result<Message, Failed>,
    ) -> Vec<(usize, usize)> {
        let mut chunks = Chunks::default();
        let mut next = vec![NextChunk::End(Fill::Ended), NextChunk::Chunk(chunk, Vec::new())];
        let mut fills = Vec::new();
        loop {
            let (mut batch, mut failed) = (Vec::new(), Vec::new());
            let filling = Filling { batch: &mut batch, room: ROOM, failed: &mut failed };
            let filled = chunks.poll_fill(filling, &mut decode, || {
                Poll::Ready(next.pop().expect("nothing is asked for after the end"))
            });
            fills.push((batch.len(), failed.len()));
            if filled == Poll::Ready(Fill::Ended) {
                assert_eq!(chunks.remaining(), 0);
                return fills;
            }
            assert_eq!(filled, Poll::Ready(Fill::More));
        }
    }

    #[test]
    fn a_batch_is_bounded_by_what_its_messages_unpack_to() {
        let unpack = |packed: Message| Ok(message(packed.payload.as_text().unwrap_or_default().repeat(60)));
        let fills = fill(["a", "b", "cc", "d"].map(message).into(), unpack);
        assert_eq!(fills, [(1, 0), (1, 0), (1, 0), (1, 0)]);
    }

    #[test]
    fn chunks_that_are_apart_do_not_share_a_batch() {
        for (is_apart, expected) in [(false, vec![4, 2]), (true, vec![3, 1, 2])] {
            let chunk =
                |texts: &[&str]| NextChunk::Chunk(texts.iter().copied().map(message).collect(), vec![]);
            let mut next = vec![NextChunk::End(Fill::Ended), chunk(&["e", "f"]), chunk(&[]), chunk(&["d"])];
            next.push(chunk(&["a", "b", "c"]));
            let mut chunks = Chunks::default();
            if is_apart {
                chunks.keep_apart();
            }
            let mut batches = Vec::new();
            loop {
                let (mut batch, mut failed) = (Vec::new(), Vec::new());
                let filling = Filling { batch: &mut batch, room: ROOM, failed: &mut failed };
                let filled = chunks.poll_fill(filling, Ok, || {
                    Poll::Ready(next.pop().expect("nothing is asked for after the end"))
                });
                batches.extend(Some(batch.len()).filter(|length| *length > 0));
                if filled == Poll::Ready(Fill::Ended) {
                    break;
                }
            }
            assert_eq!(batches, expected);
        }
    }

    #[test]
    fn what_cannot_be_decoded_fills_a_batch_as_well() {
        let refuse = |message| Err(Failed { message, reason: Reason::Decode, detail: String::new() });
        let fills = fill((0..9).map(|n| message(n.to_string())).collect(), refuse);
        assert_eq!(fills, [(0, 4), (0, 4), (0, 1)]);
    }
}
