//! A peer that is let in, from before its 101 is sent until its own task takes it over.
//!
//! A client that has read its 101 is connected, and every message from there on is for it. It may read it before our
//! task runs again, so the peer joins the sinks' broadcasts first.

use super::broadcast::Broadcast;
use super::request::Handshake;
use super::route::ConnectionPermit;
use crate::reason::Reason;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A peer that is let in.
pub(super) struct Arrival {
    pub(super) permit: ConnectionPermit,
    pub(super) handshake: Handshake,
    pub(super) places: EarlyPlaces,
}

/// The broadcasts that a peer has joined before its task runs. It leaves those that it does not take up when this
/// is dropped.
#[derive(Debug)]
pub(super) struct EarlyPlaces {
    peer: u64,
    broadcasts: Vec<Arc<Broadcast>>,
}

impl Arrival {
    pub(super) fn new(permit: ConnectionPermit, handshake: Handshake) -> Self {
        let places = EarlyPlaces::take(permit.route().ungreeted_sinks());
        Self { permit, handshake, places }
    }
}

impl EarlyPlaces {
    /// Places for a new peer, which gets its number here.
    fn take(broadcasts: Vec<Arc<Broadcast>>) -> Self {
        static PEERS: AtomicU64 = AtomicU64::new(0);
        let peer = PEERS.fetch_add(1, Ordering::Relaxed);
        broadcasts.iter().for_each(|broadcast| broadcast.join(peer));
        Self { peer, broadcasts }
    }

    /// The number of the peer.
    pub(super) fn peer(&self) -> u64 {
        self.peer
    }

    /// Joins a broadcast, or takes up the place that the peer has there.
    pub(super) fn join(&mut self, broadcast: &Arc<Broadcast>) {
        match self.broadcasts.iter().position(|other| Arc::ptr_eq(other, broadcast)) {
            Some(index) => drop(self.broadcasts.swap_remove(index)),
            None => broadcast.join(self.peer),
        }
    }

    /// Leaves the broadcasts whose endpoints have gone in the meantime.
    pub(super) fn leave(&mut self) {
        for broadcast in self.broadcasts.drain(..) {
            broadcast.leave(self.peer, Reason::PeerClosed);
        }
    }
}

impl Drop for EarlyPlaces {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Peers;
    use crate::message::Payload;
    use crate::telemetry::Metrics;
    use crate::websocket::server::broadcast::{NextFrames, Published};
    use crate::websocket::server::ring::OutgoingFrame;
    use std::task::{Context, Poll, Waker};

    fn publish(broadcast: &Broadcast) -> Published {
        broadcast.publish([OutgoingFrame { payload: Payload::text("a"), messages: 1 }].into_iter())
    }

    #[test]
    fn what_is_published_before_the_task_runs_is_for_the_peer() {
        let metrics = Metrics::default();
        let [stays, goes] =
            ["stays", "goes"].map(|name| Arc::new(Broadcast::new(Peers::default(), metrics.sink("p", name))));
        let mut places = EarlyPlaces::take(vec![stays.clone(), goes.clone()]);
        assert_eq!((publish(&stays).delivered, publish(&goes).delivered), (1, 1));
        places.join(&stays);
        places.leave();
        assert_eq!(publish(&goes).no_peers, 1, "its endpoint has gone");
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(NextFrames::Frames(frames)) = stays.poll_next(&mut cx, places.peer()) else {
            panic!("something waits for the peer");
        };
        assert_eq!(frames.count, 1, "joined once");
    }

    #[test]
    fn a_peer_whose_handshake_fails_leaves() {
        let metrics = Metrics::default();
        let broadcast = Arc::new(Broadcast::new(Peers::default(), metrics.sink("p", "s")));
        drop(EarlyPlaces::take(vec![broadcast.clone()]));
        assert_eq!(publish(&broadcast).no_peers, 1);
    }
}
