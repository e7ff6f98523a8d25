//! Whether an endpoint can be reached: a probe of its urls, or a look at its address.

use super::connect::Dial;
use super::listener::Listeners;
use super::probe::probe;
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

/// Dials an endpoint once, until one of its urls answers; or sees whether the address of one that
/// accepts is free, or ours already.
///
/// # Errors
/// Why it cannot be reached.
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub async fn reach(endpoint: &Endpoint, listeners: &Listeners) -> Result<(), Unreachable> {
    let client = match &endpoint.mode {
        Mode::Client(client) => client,
        Mode::Server(listen) => {
            let free = listeners.check(listen).await;
            return free.map_err(|error| Unreachable { error: error.to_string(), hint: None });
        }
    };
    let mut errors = Vec::new();
    let mut hint = None;
    for url in &client.urls {
        match probe(Dial::of(endpoint, client, url)).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                hint = hint.or_else(|| error.hint().map(|hint| hint.to_string()));
                errors.push(error.to_string());
            }
        }
    }
    Err(Unreachable { error: errors.join("; "), hint })
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Unreachable {}
