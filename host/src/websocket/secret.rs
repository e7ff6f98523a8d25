//! Strings of an endpoint with their files read, away from the threads that serve sockets.

use crate::config::{EndpointText, Redacted, SecretError};

/// The string as it is now.
///
/// # Errors
/// A sentence that names the file that cannot be read.
pub(super) async fn resolved(text: &EndpointText) -> Result<Redacted, String> {
    read(text, EndpointText::resolve).await
}

/// The same for a credential, which has no empty file.
///
/// # Errors
/// A sentence that names the file that cannot be read, or is empty.
pub(super) async fn credential(text: &EndpointText) -> Result<Redacted, String> {
    read(text, EndpointText::resolve_credential).await
}

async fn read(
    text: &EndpointText,
    resolve: fn(&EndpointText) -> Result<Redacted, SecretError>,
) -> Result<Redacted, String> {
    if !text.has_files() {
        return resolve(text).map_err(|error| error.to_string());
    }
    let text = text.clone();
    let read = tokio::task::spawn_blocking(move || resolve(&text)).await;
    read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
