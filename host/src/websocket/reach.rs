//! Whether an endpoint can be reached: a probe of its urls, or a look at its address.

use super::client::before_connect::BeforeConnect;
use super::server::listeners::Listeners;
use crate::config::{Endpoint, Mode};
use std::fmt;

/// Why an endpoint cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// What went wrong, at each url that was tried.
    pub error: String,
    /// Where to look, if that is known.
    pub hint: Option<String>,
}

/// Dials an endpoint once, until one of its urls answers, and asks `connector` before; or sees whether the address of one that
/// accepts is free, or ours already.
///
/// # Errors
/// Why it cannot be reached.
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub async fn reach(
    endpoint: &Endpoint,
    connector: Option<&dyn BeforeConnect>,
    listeners: &Listeners,
) -> Result<(), Unreachable> {
    match &endpoint.mode {
        Mode::Client(_) => {
            let probed = endpoint.probe_asking(connector).await.map(drop);
            probed.map_err(|error| Unreachable {
                error: error.to_string(),
                hint: error.hint().map(str::to_owned),
            })
        }
        Mode::Server(listen) => {
            let free = listeners.check(listen).await;
            free.map_err(|error| Unreachable { error: error.to_string(), hint: None })
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Unreachable {}
