//! A generation: all that a pipeline's plugins know at one moment, and how far its source was read then.
//!
//! Plain data. Plugins and sources make it, a pipeline puts it together, and the store keeps it as one piece,
//! so that what is read back is always of one moment.

use bytes::Bytes;
use std::sync::Arc;

/// A generation of one pipeline, or what has changed since the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// How far the source was read; `None` if it cannot go on from where it was.
    pub position: Option<Position>,
    /// The transforms whose state is kept.
    pub transforms: Vec<TransformState>,
}

/// The state of one transform, or what has changed of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransformState {
    /// The label of the stage.
    pub name: Arc<str>,
    /// What the plugin keeps with the host, by key; a change to `None` removes the key.
    pub values: Vec<(Arc<str>, Option<StateValue>)>,
    /// What its instances know themselves, of each one snapshot if it has any; `None` where that has not changed.
    pub snapshots: Option<Vec<Option<Bytes>>>,
}

impl TransformState {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.snapshots.iter().flatten().flatten().next().is_none()
    }
}

/// A value of a key, and when it is over, in microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateValue {
    /// The value.
    pub bytes: Bytes,
    /// `None` for a value that stays until it is changed.
    pub expires_us: Option<u64>,
}

/// How far a source was read, and by what it is known that it is still the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The bytes that were read, unpacked.
    pub offset: u64,
    /// So many bytes of the source's beginning were looked at.
    pub head_bytes: u64,
    /// The SHA-256 digest of those.
    pub head: [u8; 32],
}
