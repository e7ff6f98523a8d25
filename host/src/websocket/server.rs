//! The accepting side: listeners, the routes that endpoints share on them, and the peers that come.
//!
//! [`listeners::Listeners`] bring the peers of a route to the source and the sinks that share it.
//! [`accept::accept`] takes one connection for whoever listens by itself. Nothing here knows the dialling side.

pub(super) mod accept;
mod arrival;
mod auth;
pub(super) mod broadcast;
mod chunk_reader;
mod expected;
pub(super) mod listen_error;
mod listener;
mod listener_permit;
pub(super) mod listener_registry;
pub(super) mod listeners;
mod membership;
mod peer;
pub(super) mod registration;
pub(super) mod request;
pub(super) mod ring;
mod route;
pub(super) mod route_member;
pub(super) mod uptake;
