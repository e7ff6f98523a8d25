//! Strings of an endpoint with their files read, away from the threads that serve sockets.

use crate::config::{EndpointText, Redacted, SecretError};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Stands for a text that quotes a secret in another form.
const HIDDEN: &str = "***";

/// What a peer was given of what is never shown. It may quote it: in the reason of its close frame, or
/// where it redirects to.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Vec<Redacted>);

impl Secrets {
    /// The peer is given this text: what of it is not shown, it may quote.
    pub(crate) fn add(&mut self, text: &Redacted) {
        if !text.is_open() {
            self.0.push(text.clone());
        }
    }

    /// All of this text is secret.
    pub(crate) fn add_hidden(&mut self, text: &str) {
        if !text.is_empty() {
            self.0.push(Redacted::new(text, HIDDEN));
        }
    }

    /// All secrets together, for whoever else is to take them out of its texts.
    pub(crate) fn all(&self) -> Redacted {
        Redacted::secrets_of(&self.0)
    }

    /// A text of the peer, with `***` for each secret, or for all of it where one is percent-encoded.
    pub(crate) fn conceal(&self, text: &str) -> String {
        let conceal = |text: &str| {
            self.0.iter().fold(text.to_owned(), |text, secret| secret.conceal(&text).into_owned())
        };
        let decoded = percent_decode_str(text).decode_utf8_lossy();
        match decoded {
            Cow::Owned(decoded) if conceal(&decoded) != decoded => HIDDEN.to_owned(),
            _ => conceal(text),
        }
    }
}

/// The string as it is now.
///
/// # Errors
/// A sentence that names the file that cannot be read.
pub(crate) async fn resolved(text: &EndpointText) -> Result<Redacted, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_quotes_of_what_it_was_given_is_hidden_in_whatever_form() {
        let url = Redacted::new("ws://host/?token=s3cr3t value", "ws://host/?token=***");
        let secrets = Secrets(vec![url]);
        assert_eq!(secrets.conceal("bye, s3cr3t value"), "bye, ***");
        assert_eq!(secrets.conceal("GET /?token=s3cr3t%20value"), "***");
        assert_eq!(secrets.conceal("100%20 plain"), "100%20 plain");
    }
}
