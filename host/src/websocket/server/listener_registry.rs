//! Which addresses are listened on, and by which listener.
//!
//! An address is free, open, or busy: being opened or closed. Whoever comes while it is busy waits. What is
//! decided about an address is decided under one lock, which is never held while anything is waited for, so
//! that an endpoint that is merely dropped leaves as surely as one that is closed.

use super::expected::Expected;
use super::listener::Listener;
use super::route::Route;
use super::route_member::{MemberRole, RouteMember};
use crate::config::{Agreements, Before, BeforeAll, Endpoint, Redacted};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub(super) type AddressKey = (String, u16);

#[derive(Debug, Default)]
pub(super) struct ListenerRegistry {
    pub(super) table: Mutex<RegistryState>,
    /// The endpoints that are to be opened.
    pub(super) expected: Expected,
    /// Told when an address is busy no longer, and when a listener is done.
    pub(super) settled: Notify,
}

#[derive(Debug, Default)]
pub(super) struct RegistryState {
    pub(super) slots: HashMap<AddressKey, AddressState>,
    /// The task of each listener, open or seeing its peers through.
    pub(super) tasks: JoinSet<()>,
    pub(super) running: usize,
    pub(super) agreements: Agreements,
}

/// An address that is not free.
#[derive(Debug)]
pub(super) enum AddressState {
    /// It is being opened or closed.
    Busy,
    Open(Arc<OpenListener>),
}

impl AddressState {
    pub(super) fn open(&self) -> Option<&Arc<OpenListener>> {
        match self {
            Self::Open(listener) => Some(listener),
            Self::Busy => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct OpenListener {
    pub(super) host: Redacted,
    pub(super) local: SocketAddr,
    pub(super) listening: Arc<Listener>,
    pub(super) stop: CancellationToken,
    /// It does not listen any more; peers may still be seen through.
    pub(super) freed: CancellationToken,
}

/// What was noted of a pipeline that is about to be opened. It is taken back where that does not come to be:
/// when this is dropped without [`PendingAgreements::keep`].
#[derive(Debug)]
pub struct PendingAgreements {
    pub(super) registry: Arc<ListenerRegistry>,
    pub(super) pipeline: String,
    /// What was noted before.
    pub(super) before: Option<Before>,
}

impl PendingAgreements {
    /// The pipeline is open.
    pub fn keep(mut self) {
        self.before = None;
    }
}

/// What was noted of several pipelines that are about to be configured anew. It is taken back where that does not come
/// to be: when this is dropped without [`PendingReconfiguration::keep`].
#[derive(Debug)]
pub struct PendingReconfiguration {
    pub(super) registry: Arc<ListenerRegistry>,
    /// What was noted before.
    pub(super) before: Option<BeforeAll>,
    /// The endpoints, each with its pipeline, that cannot be open while those before are.
    pub clashing: Vec<(String, String)>,
}

impl PendingReconfiguration {
    /// The pipelines are configured so from now on.
    pub fn keep(mut self) {
        self.before = None;
    }
}

impl Drop for PendingReconfiguration {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.registry.table().agreements.restore_all(before);
        }
    }
}

impl Drop for PendingAgreements {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.registry.table().agreements.restore(&self.pipeline, before);
        }
    }
}

impl ListenerRegistry {
    pub(super) fn table(&self) -> MutexGuard<'_, RegistryState> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint as it was agreed on, if that is known. A reply has what its source has.
    pub(super) fn agreed(&self, member: &RouteMember) -> Option<Endpoint> {
        if matches!(member.end, MemberRole::Reply) {
            return None;
        }
        let (pipeline, end) = member.metrics.place();
        self.table().agreements.agreed(pipeline, end).cloned()
    }

    /// An endpoint leaves: its route if it was the last there, and the address if that was the last route.
    /// Answers whether it was, in this order.
    pub(super) fn leave(
        &self,
        address: &AddressKey,
        listener: &OpenListener,
        route: &Arc<Route>,
        member: u64,
        code: u16,
    ) -> (bool, bool) {
        let mut table = self.table();
        let is_last_of_route = route.leave(member, code);
        if is_last_of_route {
            listener.listening.forget(route);
        }
        let is_last = listener.listening.routes().is_empty() && !listener.stop.is_cancelled();
        if is_last {
            table.slots.insert(address.clone(), AddressState::Busy);
            listener.stop.cancel();
        }
        (is_last_of_route, is_last)
    }
}

/// An address that nobody else may open; it is free again when this is dropped.
pub(super) struct AddressClaim {
    pub(super) registry: Arc<ListenerRegistry>,
    pub(super) address: AddressKey,
}

impl AddressClaim {
    /// Starts the listener. The address is busy again once it stops, and free once it does not listen.
    pub(super) fn open(self, listener: &Arc<OpenListener>, tcp: TcpListener) {
        let address = &listener.listening.address;
        info!(%address, "websocket listening");
        let registry = self.registry.clone();
        let running = RunningListener { registry: registry.clone() };
        let (slot, stop) = (self.address.clone(), listener.stop.clone());
        let freed = listener.freed.clone().drop_guard();
        let run = listener.listening.clone().run(tcp, stop, (self, freed));
        let mut table = registry.table();
        table.running += 1;
        // What has ended is not kept.
        while table.tasks.try_join_next().is_some() {}
        table.slots.insert(slot, AddressState::Open(listener.clone()));
        table.tasks.spawn(async move {
            let _running = running;
            run.await;
        });
        drop(table);
        registry.settled.notify_waiters();
    }
}

/// A listener's task: it is done when this is dropped.
struct RunningListener {
    registry: Arc<ListenerRegistry>,
}

impl Drop for RunningListener {
    fn drop(&mut self) {
        self.registry.table().running -= 1;
        self.registry.settled.notify_waiters();
    }
}

impl Drop for AddressClaim {
    fn drop(&mut self) {
        self.registry.table().slots.remove(&self.address);
        self.registry.settled.notify_waiters();
    }
}
