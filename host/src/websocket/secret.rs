//! Strings of an endpoint with their files read, away from the threads that serve sockets.

use crate::config::{EndpointText, Redacted};

/// The string as it is now.
///
/// # Errors
/// A sentence that names the file that cannot be read.
pub(super) async fn resolved(text: &EndpointText) -> Result<Redacted, String> {
    if !text.has_files() {
        return text.resolve().map_err(|error| error.to_string());
    }
    let text = text.clone();
    let read = tokio::task::spawn_blocking(move || text.resolve()).await;
    read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
