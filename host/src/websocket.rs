//! The edge: WebSocket connections, dialled and accepted. The only door to tungstenite, hyper's
//! handshakes and rustls: none of their types leaves it.
//!
//! [`connect()`] dials once; [`Link`] keeps a dialled connection alive and dials again. [`Listeners`]
//! accept, and bring the peers of a path to the source and the sinks that share it. Ends
//! of a pipeline (`source`, `sink`) poll these; nothing here knows a pipeline.

mod accept;
mod acceptor;
mod broadcast;
pub mod close_code;
mod closing;
mod connect;
mod connect_error;
mod connection;
mod ending;
mod exchange;
mod frame;
mod guard;
mod handshake;
mod heartbeat;
mod hold;
mod keepalive;
mod lane;
mod link;
mod listen_error;
mod listener;
mod membership;
mod pace;
mod parting;
mod path;
mod patience;
mod peer;
mod pem;
mod probe;
mod progress;
mod proxy;
mod reach;
mod read_ahead;
mod ring;
mod secret;
mod server_tls;
mod stream;
mod target;
mod tcp;
mod tls;

pub use accept::{Accepted, Admission, Refusal, Refused, Verdict, accept};
pub use broadcast::{Broadcast, Chance, Published};
pub use connect::{Dial, connect};
pub use connect_error::ConnectError;
pub use connection::{Connection, Received};
pub use ending::Ending;
pub use handshake::Handshake;
pub use lane::{Account, Lane, LaneWriter, Pushed, Reply, Settled};
pub use link::{Change, Link, WhenExhausted};
pub use listen_error::ListenError;
pub use listener::{Attachment, Listeners, Noted};
pub use path::Arrivals;
pub use probe::{ProbeError, Probed};
pub use reach::{Unreachable, reach};
pub use ring::Frame;
pub use stream::{TlsFacts, Traffic, WriteError};
pub use target::{check_url, shown};

use hyper::header::{HeaderMap, HeaderName};

/// Whether one of the comma-separated words of a header is `token`, in whatever case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// A name for a new connection, for `__meta_connection`.
fn connection_id() -> String {
    format!("{:016x}", fastrand::u64(..))
}
