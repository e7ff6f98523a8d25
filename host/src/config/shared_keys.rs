//! The keys that server endpoints have in common: `tls` those of one address, the others those of one path.

use super::endpoint::EndpointAt;
use super::listen::ListenAt;
use super::report::Span;
use super::{Endpoint, Mode};

/// A key that the endpoints of one path have in common: one that leaves it out takes it from another.
pub(super) struct AgreedKey {
    pub(super) name: &'static str,
    /// Where it is written.
    pub(super) at: fn(&EndpointAt, &ListenAt) -> Option<Span>,
    pub(super) is_same: fn(&Endpoint, &Endpoint) -> bool,
    pub(super) take: fn(&Endpoint, &mut Endpoint),
}

/// The key that the endpoints of one address have in common.
pub(super) const TLS: AgreedKey = AgreedKey {
    name: "tls",
    at: |_, at| at.tls.as_ref().map(|at| at.header.clone()),
    is_same: |a, b| a.listen().map(|listen| &listen.tls) == b.listen().map(|listen| &listen.tls),
    take: |from, to| {
        if let (Mode::Server(from), Mode::Server(to)) = (&from.mode, &mut to.mode) {
            to.tls.clone_from(&from.tls);
        }
    },
};

pub(super) const SHARED: [AgreedKey; 6] = [
    AgreedKey {
        name: "subprotocols",
        at: |at, _| at.subprotocols.as_ref().map(|at| at.whole.clone()),
        is_same: |a, b| a.subprotocols == b.subprotocols,
        take: |from, to| to.subprotocols.clone_from(&from.subprotocols),
    },
    AgreedKey {
        name: "ping",
        at: |at, _| at.ping.as_ref().map(|at| at.header.clone()),
        is_same: |a, b| a.ping == b.ping,
        take: |from, to| to.ping = from.ping,
    },
    AgreedKey {
        name: "idle_timeout",
        at: |at, _| at.idle_timeout.clone(),
        is_same: |a, b| a.idle_timeout == b.idle_timeout,
        take: |from, to| to.idle_timeout = from.idle_timeout,
    },
    AgreedKey {
        name: "max_message_size",
        at: |at, _| at.max_message_size_bytes.clone(),
        is_same: |a, b| a.max_message_size_bytes == b.max_message_size_bytes,
        take: |from, to| to.max_message_size_bytes = from.max_message_size_bytes,
    },
    AgreedKey {
        name: "auth",
        at: |_, at| at.auth.as_ref().map(|at| at.header.clone()),
        is_same: |a, b| a.listen().map(|listen| &listen.auth) == b.listen().map(|listen| &listen.auth),
        take: |from, to| {
            if let (Mode::Server(from), Mode::Server(to)) = (&from.mode, &mut to.mode) {
                to.auth.clone_from(&from.auth);
            }
        },
    },
    AgreedKey {
        name: "allowed_origins",
        at: |_, at| at.allowed_origins.as_ref().map(|at| at.whole.clone()),
        is_same: |a, b| {
            a.listen().map(|listen| &listen.allowed_origins)
                == b.listen().map(|listen| &listen.allowed_origins)
        },
        take: |from, to| {
            if let (Mode::Server(from), Mode::Server(to)) = (&from.mode, &mut to.mode) {
                to.allowed_origins.clone_from(&from.allowed_origins);
            }
        },
    },
];
