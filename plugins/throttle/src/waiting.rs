//! The newest message of each key that is over, until it may go on.

use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use tidemill_plugin::{Part, keyed};

/// Most bytes that wait, with their keys, so that a snapshot of them is no larger than snapshots may be.
const MAX_BYTES: usize = 4 << 20;
/// What a message that waits costs beside its text and its key.
const OWN_BYTES: usize = 64;

/// What waits, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, Held>")]
pub(crate) struct Waiting {
    messages: BTreeMap<String, Held>,
    bytes: usize,
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) time_us: i64,
    pub(crate) text: String,
    pub(crate) is_binary: bool,
}

impl Waiting {
    /// Lets a message wait in the place of an older one. False if there is no room for it.
    pub(crate) fn hold(&mut self, key: &str, held: Held) -> bool {
        let other = self.messages.get(key);
        if other.is_some_and(|other| other.time_us > held.time_us) {
            return true;
        }
        let freed = other.map_or(0, |other| bytes(key, other));
        let fits = self.bytes - freed + bytes(key, &held) <= MAX_BYTES;
        if fits {
            self.bytes = self.bytes - freed + bytes(key, &held);
            self.messages.insert(key.to_owned(), held);
        }
        fits
    }

    /// A message of this time goes on: what waits and is older does not wait any more.
    pub(crate) fn pass(&mut self, key: &str, time_us: i64) {
        if self.messages.get(key).is_some_and(|held| held.time_us <= time_us) {
            let held = self.messages.remove(key).expect("it was there");
            self.bytes -= bytes(key, &held);
        }
    }

    /// Gives up the messages of the keys that are due, in the order of their times.
    pub(crate) fn release(&mut self, mut is_due: impl FnMut(&str, &Held) -> bool) -> Vec<Held> {
        let mut released = Vec::new();
        for (key, held) in self.messages.extract_if(.., |key, held| is_due(key, held)) {
            self.bytes -= bytes(&key, &held);
            released.push(held);
        }
        released.sort_by_key(|held| held.time_us);
        released
    }

    /// Takes over what waits for the keys of this part, which may be more than else has room.
    pub(crate) fn take_over(&mut self, other: Self, part: Part) {
        let own = other.messages.into_iter().filter(|(key, _)| part.has(&keyed::shared_by(key)));
        self.messages.extend(own);
        *self = std::mem::take(&mut self.messages).into();
    }
}

impl Serialize for Waiting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.messages.serialize(serializer)
    }
}

impl From<BTreeMap<String, Held>> for Waiting {
    fn from(messages: BTreeMap<String, Held>) -> Self {
        let bytes = messages.iter().map(|(key, held)| bytes(key, held)).sum();
        Self { messages, bytes }
    }
}

fn bytes(key: &str, held: &Held) -> usize {
    key.len() + held.text.len() + OWN_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(time_us: i64, text: &str) -> Held {
        Held { time_us, text: text.to_owned(), is_binary: false }
    }

    #[test]
    fn the_newest_waits_by_its_time() {
        let mut waiting = Waiting::default();
        for (time_us, text) in [(5, "old"), (7, "new"), (6, "late"), (7, "newest")] {
            assert!(waiting.hold("a", held(time_us, text)));
        }
        waiting.pass("a", 6);
        assert_eq!(waiting.release(|_, _| true), [held(7, "newest")]);
        assert_eq!(waiting, Waiting::default());
    }

    #[test]
    fn what_is_due_is_released_in_the_order_of_time() {
        let mut waiting = Waiting::default();
        for (key, time_us) in [("a", 3), ("b", 2), ("c", 1)] {
            assert!(waiting.hold(key, held(time_us, key)));
        }
        assert_eq!(waiting.release(|key, _| key != "b"), [held(1, "c"), held(3, "a")]);
        waiting.pass("b", 2);
        assert_eq!(waiting, Waiting::default());
    }

    #[test]
    fn bytes_that_wait_have_a_bound() {
        let mut waiting = Waiting::default();
        let large = "x".repeat(MAX_BYTES / 2);
        assert!(waiting.hold("a", held(1, &large)));
        assert!(!waiting.hold("b", held(1, &large)));
        assert!(waiting.hold("a", held(2, &large)), "in the place of its own");
        assert!(waiting.hold("b", held(1, "small")));
        assert!(!waiting.hold("a", held(3, &(large.clone() + &large))));
        let released = waiting.release(|_, _| true);
        assert_eq!((released.len(), waiting.bytes), (2, 0));
        assert!(waiting.hold("b", held(1, &large)));
    }
}
