//! A peer that is let in, from before its 101 is sent until its own task takes it over.
//!
//! A client that has read its 101 is connected, and every message from there on is for it. It may read it before our
//! task runs again, so the peer is one of its route's first.

use super::request::Handshake;
use super::route::{ConnectionPermit, Route};
use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A peer that is let in.
pub(super) struct ArrivedPeer {
    pub(super) permit: ConnectionPermit,
    pub(super) handshake: Handshake,
    pub(super) entry: RouteEntry,
}

/// A peer's place among those of its route, until it is dropped.
#[derive(Debug)]
pub(super) struct RouteEntry {
    route: Arc<Route>,
    pub(super) peer: u64,
    /// Woken when the route changes.
    pub(super) waker: Arc<AtomicWaker>,
}

impl ArrivedPeer {
    pub(super) fn new(permit: ConnectionPermit, handshake: Handshake) -> Self {
        let entry = RouteEntry::new(permit.route());
        Self { permit, handshake, entry }
    }
}

impl RouteEntry {
    fn new(route: &Arc<Route>) -> Self {
        static PEERS: AtomicU64 = AtomicU64::new(0);
        let (peer, waker) = (PEERS.fetch_add(1, Ordering::Relaxed), Arc::new(AtomicWaker::new()));
        route.enter(peer, waker.clone());
        Self { route: route.clone(), peer, waker }
    }
}

impl Drop for RouteEntry {
    fn drop(&mut self) {
        self.route.exit(self.peer);
    }
}
