//! Strings of an endpoint with their files read, away from the threads that serve sockets.

use crate::config::{EndpointText, Redacted, SecretError};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many dials of an endpoint, or requests of a plugin, are remembered, of those that gave something new: a
/// server may name the token of the one before, to say that it is not taken any more.
const REMEMBERED_TIMES: usize = 4;

/// What a peer was given of what is never shown. It may quote it: in the reason of its close frame, or
/// where it redirects to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    given: Vec<Redacted>,
    /// What was given before.
    earlier: Vec<Redacted>,
}

impl Secrets {
    /// The peer is given this text: what of it is not shown, it may quote.
    pub(crate) fn add(&mut self, text: &Redacted) {
        if !text.is_open() {
            self.given.push(text.clone());
        }
    }

    /// All of this text is secret.
    pub(crate) fn add_hidden(&mut self, text: &str) {
        if !text.is_empty() {
            self.given.push(Redacted::new(text, "***"));
        }
    }

    /// All secrets together, for whoever else is to take them out of its texts.
    pub(crate) fn all(&self) -> Redacted {
        Redacted::secrets_of(self.given.iter().chain(&self.earlier))
    }

    /// A text of the peer, with `***` for each secret.
    pub(crate) fn conceal(&self, text: &str) -> String {
        self.all().conceal(text).into_owned()
    }
}

/// What peers were given the last times.
#[derive(Debug, Default)]
pub(crate) struct RememberedSecrets(Mutex<VecDeque<Vec<Redacted>>>);

impl RememberedSecrets {
    /// For the next time, where nothing is given yet.
    pub(crate) fn next(&self) -> Secrets {
        Secrets { given: Vec::new(), earlier: self.lock().iter().flatten().cloned().collect() }
    }

    /// This was given.
    pub(crate) fn remember(&self, secrets: &Secrets) {
        let mut times = self.lock();
        if secrets.given.is_empty() || times.back() == Some(&secrets.given) {
            return;
        }
        if times.len() == REMEMBERED_TIMES {
            times.pop_front();
        }
        times.push_back(secrets.given.clone());
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Vec<Redacted>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn given(text: &str, mut secrets: Secrets) -> Secrets {
        secrets.add(&Redacted::new(text, "***"));
        secrets
    }

    #[test]
    fn what_a_peer_quotes_of_what_it_was_given_is_hidden_in_whatever_form() {
        let mut secrets = Secrets::default();
        secrets.add(&Redacted::new("ws://host/?token=s3cr3t value", "ws://host/?token=***"));
        assert_eq!(secrets.conceal("bye, s3cr3t value"), "bye, ***");
        assert_eq!(secrets.conceal("GET /?token=s3cr3t%20value"), "GET /?token=***");
        assert_eq!(secrets.conceal("100%20 plain"), "100%20 plain");
    }

    #[test]
    fn what_was_given_the_last_times_is_remembered() {
        let remembered = RememberedSecrets::default();
        for dial in 0..10 {
            let secrets = given(&format!("token-{dial}"), given("always", remembered.next()));
            remembered.remember(&secrets);
            remembered.remember(&secrets);
        }
        let secrets = remembered.next();
        let told = secrets.conceal("token-9 replaces token-8, token-6 and token-5");
        assert_eq!(told, "*** replaces ***, *** and token-5");
        assert_eq!(secrets.earlier.len(), REMEMBERED_TIMES * 2);
    }
}
