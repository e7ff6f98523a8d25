//! Tidemill: a host that owns all WebSocket input and output, and runs WebAssembly plugins on the
//! messages in between.
//!
//! The modules stand in layers; a lower one never names a higher one. `ARCHITECTURE.md` has the
//! map.

pub mod admin;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod control;
pub mod message;
pub mod metadata;
pub mod packing;
pub mod pipeline;
pub mod plugin;
pub mod reason;
pub mod recording;
pub mod reload;
pub mod shutdown;
pub mod sink;
pub mod source;
pub mod telemetry;
pub mod websocket;
