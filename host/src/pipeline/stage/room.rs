//! How much goes into one call of a plugin.

use crate::message::Message;
use std::collections::VecDeque;

/// So many calls in a row within the deadline double the size of a batch again that was halved.
const CALLS_TO_RECOVER: u32 = 64;

/// How much goes into one call. A call that runs out of time halves it; many that do not, double it
/// again, up to what the configuration says.
#[derive(Debug)]
pub(super) struct StageRoom {
    messages: usize,
    max_messages: usize,
    max_bytes: usize,
    calls: u32,
}

impl StageRoom {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { messages: max_messages, max_messages, max_bytes, calls: 0 }
    }

    /// The same for a source that fills a batch.
    pub(super) fn of_batch(&self) -> crate::source::Room {
        crate::source::Room { messages: self.messages, bytes: self.max_bytes }
    }

    /// How many messages from the front go into the next call: at least one.
    pub(super) fn piece(&self, waiting: &VecDeque<Message>) -> usize {
        let mut bytes = 0;
        let fits = waiting.iter().take(self.messages).take_while(|message| {
            bytes += message.payload.len();
            bytes <= self.max_bytes
        });
        fits.count().max(1)
    }

    pub(super) fn halve(&mut self) {
        self.messages = (self.messages / 2).max(1);
        self.calls = 0;
    }

    #[inline]
    pub(super) fn recover(&mut self) {
        if self.messages < self.max_messages {
            self.calls += 1;
            if self.calls >= CALLS_TO_RECOVER {
                self.calls = 0;
                self.messages = (self.messages * 2).min(self.max_messages);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::message::metadata::Metadata;

    fn messages(lengths: &[usize]) -> VecDeque<Message> {
        let message = |length: &usize| Message {
            payload: Payload::text("x".repeat(*length)),
            metadata: Metadata::without_origin(0),
        };
        lengths.iter().map(message).collect()
    }

    #[test]
    fn a_piece_keeps_to_messages_and_bytes_but_one_larger_message_goes_alone() {
        let room = StageRoom::new(3, 10);
        assert_eq!(room.piece(&messages(&[1, 1, 1, 1])), 3);
        assert_eq!(room.piece(&messages(&[4, 6, 1])), 2);
        assert_eq!(room.piece(&messages(&[4, 7, 1])), 1);
        assert_eq!(room.piece(&messages(&[11, 1])), 1);
    }

    #[test]
    fn a_halved_room_recovers_after_many_calls_in_time() {
        let mut room = StageRoom::new(256, 1 << 20);
        room.halve();
        room.halve();
        assert_eq!(room.messages, 64);
        for _ in 0..CALLS_TO_RECOVER {
            room.recover();
        }
        assert_eq!(room.messages, 128);
        (0..9).for_each(|_| room.halve());
        assert_eq!(room.messages, 1);
    }
}
