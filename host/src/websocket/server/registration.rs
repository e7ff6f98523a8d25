//! An endpoint's part in a listener, from the moment it is open until it has left.

use super::listener_registry::{AddressKey, ListenerRegistry, OpenListener};
use super::route::Route;
use crate::websocket::close_code::GOING_AWAY;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// An endpoint's part in a listener: leave it with [`Registration::poll_close`].
pub struct Registration {
    pub(super) registry: Arc<ListenerRegistry>,
    pub(super) address: AddressKey,
    pub(super) listener: Arc<OpenListener>,
    pub(super) route: Arc<Route>,
    pub(super) member: u64,
    /// Whether it has left, and was the last of its route.
    pub(super) is_last_of_route: bool,
    /// How long a first peer is waited for, if it is.
    pub(super) check: Option<Duration>,
    pub(super) patience: Option<Pin<Box<Sleep>>>,
    pub(super) leaving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Registration {
    /// Where the listener really listens, for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.listener.local
    }

    /// The largest message that peers may send, as the endpoints of the route have agreed.
    pub fn max_message_size_bytes(&self) -> usize {
        self.route.endpoint.max_message_size_bytes
    }

    /// Waits for a first peer, if the endpoint is to be connected before its pipeline starts.
    ///
    /// # Errors
    /// None came in time.
    pub fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let Some(check) = self.check else { return Poll::Ready(Ok(())) };
        if self.route.poll_peer(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(check)));
        ready!(patience.as_mut().poll(cx));
        let why = format!("no peer connected to {} within {check:?}", self.route.address());
        self.route.fail(self.member, &why);
        Poll::Ready(Err(why))
    }

    /// Peers may join, and what they send is for this endpoint from here on: of a source, which is there for
    /// nobody before.
    pub fn start(&self) {
        self.route.start(self.member);
    }

    /// Has all peers look at what has changed for them.
    pub fn wake_peers(&self) {
        self.route.wake();
    }

    /// Leaves. Peers of its path that nobody else wants are closed with `code`, each once it has what it is
    /// owed, and waited for. If this was the last endpoint of its address, the address is free afterwards; the
    /// peers of other paths are waited for by the endpoints that were theirs.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        if self.leaving.is_none() {
            let is_last = self.leave(code);
            let is_last_of_route = self.is_last_of_route;
            let (route, listener) = (self.route.clone(), self.listener.clone());
            self.leaving = Some(Box::pin(async move {
                if is_last_of_route {
                    route.deserted().await;
                }
                if is_last {
                    listener.freed.cancelled().await;
                }
            }));
        }
        let Some(leaving) = &mut self.leaving else { return Poll::Ready(()) };
        ready!(leaving.as_mut().poll(cx));
        self.leaving = Some(Box::pin(std::future::ready(())));
        Poll::Ready(())
    }

    /// Leaves; says whether the listener stops now.
    fn leave(&mut self, code: u16) -> bool {
        let Self { registry, address, listener, route, member, .. } = self;
        let (is_last_of_route, is_last) = registry.leave(address, listener, route, *member, code);
        self.is_last_of_route = is_last_of_route;
        is_last
    }
}

impl Drop for Registration {
    /// One that was not closed in time still leaves, only nobody waits: peers are cut off from what they are
    /// still owed.
    fn drop(&mut self) {
        if self.leaving.is_none() {
            self.leave(GOING_AWAY);
        }
        if self.is_last_of_route {
            self.route.abandon();
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("address", &self.address).field("member", &self.member).finish()
    }
}
