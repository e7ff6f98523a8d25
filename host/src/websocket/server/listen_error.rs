//! Why a server endpoint cannot be opened.

use crate::config::{Disagreement, Listen, Redacted};
use std::fmt;
use std::io;

/// A server endpoint that cannot be opened.
#[derive(Debug)]
pub struct ListenError {
    address: String,
    cause: Cause,
}

#[derive(Debug)]
pub(super) enum Cause {
    /// The path is none.
    Path(String),
    /// An endpoint that shares the path, or the address, says otherwise.
    Differs { key: &'static str, owner: String, share: &'static str },
    /// The certificate cannot be used.
    Certificate(String),
    /// Another part of this process has the address.
    Ours { owner: String, at: String },
    /// The address cannot be listened on.
    Address(io::Error),
}

impl ListenError {
    pub(super) fn new(listen: &Listen, cause: Cause) -> Self {
        Self { address: shown(&listen.host, listen.port), cause }
    }

    /// The address, as it may be shown.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the configuration has to be changed before it is worth another try. `of_system` says it of an
    /// address that the system refuses.
    pub fn is_configuration(&self, of_system: impl FnOnce(&io::Error) -> bool) -> bool {
        match &self.cause {
            Cause::Path(_) | Cause::Certificate(_) | Cause::Differs { .. } => true,
            Cause::Ours { .. } => false,
            Cause::Address(error) => of_system(error),
        }
    }

    /// Of an endpoint that says otherwise than one that is configured.
    pub(super) fn differs(listen: &Listen, Disagreement { key, owner, share, .. }: Disagreement) -> Self {
        Self::new(listen, Cause::Differs { key, owner, share })
    }
}

/// An address as it may be shown.
pub(super) fn shown(host: &Redacted, port: u16) -> String {
    let host = host.shown();
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to listen on {}: ", self.address)?;
        match &self.cause {
            Cause::Path(message) | Cause::Certificate(message) => f.write_str(message),
            Cause::Differs { key, owner, share } => {
                write!(f, "`{key}` differs from {owner}, which has the same {share}")
            }
            Cause::Ours { owner, at } => write!(f, "address in use by {owner}, at {at}"),
            Cause::Address(error) if error.kind() == io::ErrorKind::AddrInUse => {
                f.write_str("address in use")
            }
            Cause::Address(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Path(_) | Cause::Certificate(_) | Cause::Differs { .. } | Cause::Ours { .. } => None,
            Cause::Address(error) => Some(error),
        }
    }
}
