//! What endpoints in server mode take from `[server]` where they leave it out.

use super::Redacted;

/// The keys of `[server]` that its endpoints have, too. The default is that of `[server]`.
#[derive(Clone, Debug)]
pub(super) struct Inherited {
    pub(super) host: Redacted,
    pub(super) port: u16,
    /// Most connections of the listener, and of one of its endpoints.
    pub(super) max_connections: usize,
}

impl Default for Inherited {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 10081, max_connections: 10_000 }
    }
}
