//! The edge: WebSocket connections, dialled and accepted. The only door to tungstenite, hyper's
//! handshakes and rustls: none of their types leaves it.
//!
//! [`connect()`] dials once; [`Link`] keeps a dialled connection alive and dials again. [`Listeners`]
//! accept, and bring the peers of a path to the source and the sinks that share it. Ends
//! of a pipeline (`source`, `sink`) poll these; nothing here knows a pipeline.

mod client;
pub mod close_code;
mod connection;
mod drain;
mod keepalive;
mod reach;
mod reply_queue;
mod secret;
mod server;
mod tls;
mod upgrade;
mod wait_budget;

pub use client::connect::{Dial, connect};
pub use client::connect_error::ConnectError;
pub use client::probe::{ProbeError, Probed};
pub use client::session::{Change, Link, WhenExhausted};
pub use client::url::{check_url, shown};
pub use connection::{Connection, Ending, Received, TlsFacts, Traffic, WriteError};
pub use reach::{Unreachable, reach};
pub use reply_queue::{Account, Lane, LaneWriter, Pushed, Reply, Settled};
pub use server::accept::{Accepted, Admission, Refusal, Refused, Verdict, accept};
pub use server::broadcast::{Broadcast, Chance, Published};
pub use server::listen_error::ListenError;
pub use server::listeners::{Attachment, Listeners, Noted};
pub use server::request::Handshake;
pub use server::ring::Frame;
pub use server::route::Arrivals;
