//! What the windows of all keys take of the plugin's memory, and how much they may take.
//!
//! The host ends an instance whose memory is full, and what it knew since its last snapshot is lost; so windows have a
//! bound of their own, which is reached before. What is counted is what the allocator is asked for, a little rounded up.

use crate::{Description, Result};

/// What the plugin needs beside its windows: its code's own memory, and a batch.
const OWN_BYTES: u64 = 2 << 20;
/// What a key takes beside its bytes and its pieces: its entry, and the room that a longer list and table of keys has.
const KEY_BYTES: u64 = 160;
/// What an allocation takes beside what was asked for.
const ALLOCATION_BYTES: u64 = 8;
/// What a key takes in a snapshot beside its bytes and its pieces.
const SAVED_KEY_BYTES: u64 = 32;
/// The bytes of a key where it is not known yet what keys there will be.
const USUAL_KEY_BYTES: u64 = 16;

/// What there is of windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) keys: u64,
    /// All keys in a row.
    pub(super) key_bytes: u64,
    /// The pieces of open windows.
    pub(super) pieces: u64,
    /// The pieces that there is room for: lists grow ahead of what is in them.
    pub(super) places: u64,
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    memory_bytes: u64,
    snapshot_bytes: u64,
    /// What a piece takes in its list, and what its contents have elsewhere.
    place_bytes: u64,
    elsewhere_bytes: u64,
    saved_piece_bytes: u64,
}

impl Size {
    pub(super) fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.key_bytes += other.key_bytes;
        self.pieces += other.pieces;
        self.places += other.places;
    }

    pub(super) fn take(&mut self, other: Self) {
        self.keys -= other.keys;
        self.key_bytes -= other.key_bytes;
        self.pieces -= other.pieces;
        self.places -= other.places;
    }
}

impl Allowance {
    /// Of a plugin with these limits, whose pieces are of the type `P`, which has `elsewhere_bytes` on the heap.
    pub(super) fn of<P>(description: &Description, elsewhere_bytes: usize) -> Self {
        let (place_bytes, elsewhere_bytes) = (size_of::<P>() as u64, elsewhere_bytes as u64);
        let allocated_bytes = match elsewhere_bytes {
            0 => 0,
            bytes => (bytes + ALLOCATION_BYTES).next_multiple_of(ALLOCATION_BYTES),
        };
        Self {
            // What lists and tables leave behind when they grow is not counted.
            memory_bytes: description.memory_bytes().saturating_sub(OWN_BYTES) / 4 * 3,
            snapshot_bytes: description.output_bytes().saturating_mul(2),
            place_bytes,
            elsewhere_bytes: allocated_bytes,
            // Numbers are shorter there, as a rule.
            saved_piece_bytes: place_bytes + elsewhere_bytes,
        }
    }

    /// Whether there is room for all of it, in memory and in a snapshot.
    #[inline]
    pub(super) fn covers(&self, size: &Size) -> bool {
        self.memory(size) <= self.memory_bytes && self.snapshot(size) <= self.snapshot_bytes
    }

    /// Refuses what there would be no room for if each key had as many pieces as it may. `name` is the key of the
    /// configuration that says how many keys there are.
    ///
    /// # Errors
    /// There is no room for so many keys, or for a single one.
    pub(super) fn check(&self, name: &str, keys: Option<usize>, pieces: u64) -> Result {
        let one = Size {
            keys: 1,
            key_bytes: USUAL_KEY_BYTES,
            pieces,
            // A list that grows has twice the room that it had.
            places: pieces.next_power_of_two(),
        };
        let of_memory = (self.memory_bytes / self.memory(&one), "memory");
        let of_output = (self.snapshot_bytes / self.snapshot(&one), "output");
        let (most, limit) = of_memory.min(of_output);
        let pieces = if pieces == 1 { "a piece".to_owned() } else { format!("{pieces} pieces") };
        match keys.map(|keys| keys as u64) {
            _ if most == 0 => Err(format!(
                "the windows of one key may have {pieces}, for which `limits.{limit}` has no room: let it be larger, \
                 or windows have fewer pieces"
            )
            .into()),
            Some(keys) if keys > most => Err(format!(
                "`{name}`: {keys} keys of {pieces} of windows each are too many: `limits.{limit}` has room for {most}. \
                 Take fewer, let it be larger, or leave `{name}` out: then there are as many as there is room for"
            )
            .into()),
            _ => Ok(()),
        }
    }

    fn memory(&self, size: &Size) -> u64 {
        let keys = size.keys * KEY_BYTES + size.key_bytes;
        keys + size.places * self.place_bytes + size.pieces * self.elsewhere_bytes
    }

    fn snapshot(&self, size: &Size) -> u64 {
        size.keys * SAVED_KEY_BYTES + size.key_bytes + size.pieces * self.saved_piece_bytes
    }
}

/// Refuses windows of a single key of which one message can close more than one call may send: no later message of such a
/// key would be taken. Of each window so many bytes are sent at least.
///
/// # Errors
/// There is no room for so many.
pub(super) fn check_output(description: &Description, windows: u64, bytes: u64) -> Result {
    let (least, most) = (windows.saturating_mul(bytes), description.output_bytes());
    if least <= most {
        return Ok(());
    }
    Err(format!(
        "one message may close {windows} windows of its key at once, of {bytes} bytes each at least, and of these {least} \
         bytes `limits.output` has room for {most}: let it be larger, or fewer windows be open at a time"
    )
    .into())
}
