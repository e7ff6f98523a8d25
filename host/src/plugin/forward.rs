//! The messages that a guest lets go on, as indices of its batch.

/// Which messages of a batch go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// No message is forwarded.
    Nothing,
    /// All messages are forwarded.
    All,
    /// Those with these indices, strictly ascending, all in range.
    These(Vec<u32>),
}

impl Forward {
    /// The index of forwarded message number `place`.
    #[inline]
    pub(super) fn index(&self, place: usize) -> usize {
        match self {
            Self::These(these) => these[place] as usize,
            Self::All | Self::Nothing => place,
        }
    }
}
