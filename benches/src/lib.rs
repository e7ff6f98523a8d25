//! What the load generator and the reference relays share.
//!
//! The load generator speaks WebSocket by hand, without a library: it has one core for both ends of
//! a relay, so it must cost far less a message than the relay does. Nothing here is a general
//! implementation of anything; it is exact for the traffic that a relay under load makes.

pub mod document;
pub mod frame;
pub mod handshake;
pub mod machine;
