//! Messages that come in chunks, and go on in batches.

use super::{Fill, Room};
use crate::message::{Failed, Message};
use std::task::Poll;

/// What of the last chunk did not fit into the last batch.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// In reverse: the next message is the last.
    left: Vec<Message>,
}

/// Where messages go.
pub(super) struct Filling<'a> {
    pub(super) batch: &'a mut Vec<Message>,
    pub(super) room: Room,
    pub(super) failed: &'a mut Vec<Failed>,
}

/// What comes next.
pub(super) enum Next {
    /// Messages, and what could not be decoded between them.
    Chunk(Vec<Message>, Vec<Failed>),
    /// Nothing more.
    End(Fill),
}

impl Chunks {
    /// Fills the batch from `next`, each message as `decode` makes it, as far as there is room.
    pub(super) fn poll_fill(
        &mut self,
        filling: Filling<'_>,
        mut decode: impl FnMut(Message) -> Result<Message, Failed>,
        mut next: impl FnMut() -> Poll<Next>,
    ) -> Poll<Fill> {
        let Filling { batch, room, failed } = filling;
        let (before, failed_before) = (batch.len(), failed.len());
        let mut bytes = 0;
        loop {
            while let Some(message) = self.left.pop() {
                let is_full = batch.len() >= room.messages || bytes + message.payload.len() > room.bytes;
                if is_full && batch.len() > before {
                    self.left.push(message);
                    return Poll::Ready(Fill::More);
                }
                bytes += message.payload.len();
                match decode(message) {
                    Ok(message) => batch.push(message),
                    Err(undecoded) => failed.push(undecoded),
                }
            }
            match next() {
                Poll::Ready(Next::Chunk(messages, undecoded)) => {
                    self.left = messages;
                    self.left.reverse();
                    failed.extend(undecoded);
                }
                Poll::Ready(Next::End(fill)) => return Poll::Ready(fill),
                Poll::Pending if batch.len() > before || failed.len() > failed_before => {
                    return Poll::Ready(Fill::Drained);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
