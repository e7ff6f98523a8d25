//! The edge against real peers, over real sockets on free ports: handshakes, frames, ends, and what
//! happens when peers are slow, silent, wrong or gone.

#[path = "websocket/admission.rs"]
mod admission;
#[path = "websocket/batches.rs"]
mod batches;
#[path = "websocket/bursts.rs"]
mod bursts;
#[path = "websocket/crowds.rs"]
mod crowds;
#[path = "websocket/dialling.rs"]
mod dialling;
#[path = "websocket/drive.rs"]
mod drive;
#[path = "websocket/endings.rs"]
mod endings;
#[path = "websocket/handshake.rs"]
mod handshake;
#[path = "websocket/held.rs"]
mod held;
#[path = "websocket/last_words.rs"]
mod last_words;
#[path = "websocket/leaving.rs"]
mod leaving;
#[path = "websocket/payloads.rs"]
mod payloads;
#[path = "websocket/refusals.rs"]
mod refusals;
#[path = "websocket/reply.rs"]
mod reply;
#[path = "websocket/running.rs"]
mod running;
#[path = "websocket/server.rs"]
mod server;
#[path = "websocket/server_tls.rs"]
mod server_tls;
#[path = "websocket/shared_path.rs"]
mod shared_path;
#[path = "websocket/side_by_side.rs"]
mod side_by_side;
#[path = "websocket/sink.rs"]
mod sink;
#[path = "websocket/slow_reader.rs"]
mod slow_reader;
#[path = "websocket/source.rs"]
mod source;
#[path = "websocket/stopping.rs"]
mod stopping;
#[path = "websocket/tls.rs"]
mod tls;
