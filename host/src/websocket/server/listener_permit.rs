//! How many connections a listener has, and may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The connections that a listener has, and may have. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ListenerConnections {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// One of the connections of a listener.
#[derive(Debug)]
pub(super) struct ListenerPermit(Arc<AtomicUsize>);

impl ListenerConnections {
    /// None yet, and `most` at most.
    pub(super) fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// One more, if there may be.
    pub(super) fn take(&self) -> Option<ListenerPermit> {
        let listener_permit = ListenerPermit(self.taken.clone());
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        (before < self.most).then_some(listener_permit)
    }
}

impl Drop for ListenerPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
