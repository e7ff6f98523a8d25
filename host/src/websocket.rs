//! The edge: WebSocket connections, dialled and accepted. The only door to tungstenite, hyper's
//! handshakes and rustls: none of their types leaves it.
//!
//! [`connect()`] dials once; [`Session`] keeps a dialled connection alive and dials again. [`Listeners`]
//! accept, and bring the peers of a route to the source and the sinks that share it. Ends
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

pub use crate::backoff::Advice;
pub use client::before_connect::{BeforeConnect, NoPlan};
/// What other requests than handshakes share with them: TCP, TLS, and the files of their headers.
pub(crate) use client::connect::secure;
pub use client::connect::{Dial, connect};
pub use client::connect_error::ConnectError;
pub use client::dialled_connection::DialledConnection;
pub use client::probe::{ProbeError, Probed};
pub use client::session::{Session, SessionEvent, WhenExhausted};
pub(crate) use client::tcp::connect_to;
pub use client::url::{check_url, shown};
pub(crate) use connection::Stream as ByteStream;
pub use connection::{Connection, ConnectionEnd, Received, TlsFacts, Traffic, WriteError};
pub(crate) use secret::{RememberedSecrets, Secrets, resolved};

pub use reach::{Unreachable, reach};
pub use reply_queue::{ReplyConnection, ReplyWriter};
pub use server::accept::{Accepted, Admission, AdmissionResult, HandshakeFailure, HandshakeRefusal, accept};
pub use server::broadcast::{Broadcast, Published, Readiness};
pub use server::listen_error::ListenError;
pub use server::listener_registry::{PendingAgreements, PendingReconfiguration};
pub use server::listeners::{Expecting, Listeners};
pub use server::registration::Registration;
pub use server::request::Handshake;
pub use server::ring::OutgoingFrame;
pub use server::route_member::ReceivedChunk;
pub use server::uptake::Uptake;
