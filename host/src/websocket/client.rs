//! The dialling side: a connection that we make, and make again.
//!
//! [`connect::connect`] dials once; [`session::Session`] keeps a connection alive and dials again. Nothing here
//! knows the accepting side.

pub(super) mod before_connect;
pub(super) mod connect;
pub(super) mod connect_error;
pub(super) mod dialled_connection;
mod heartbeat;
mod pace;
pub(super) mod probe;
mod proxy;
mod request;
pub(super) mod session;
pub(super) mod tcp;
pub(super) mod url;
