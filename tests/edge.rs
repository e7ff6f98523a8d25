//! The WebSocket edge and everything that goes wrong there, over real sockets: what users see of it in
//! the log and the metrics, and that no message disappears uncounted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "edge/doors.rs"]
mod doors;
#[path = "edge/drive.rs"]
mod drive;
#[path = "edge/frames.rs"]
mod frames;
#[path = "edge/handshakes.rs"]
mod handshakes;
#[path = "edge/losses.rs"]
mod losses;
#[path = "edge/servers.rs"]
mod servers;
#[path = "edge/sinks.rs"]
mod sinks;
