//! The headers that the configuration adds to requests, and that their plugin must not learn.
//!
//! Their files are read for each request, so that a renewed token counts from the next one on. A server may say
//! them back: they are taken out of what it answers.

use crate::config::{EndpointText, Redacted};
use crate::plugin::{HttpError, HttpResponse};
use crate::websocket::{RememberedSecrets, Secrets, resolved};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Headers of the configuration as they are now.
pub(super) struct HeaderSecrets {
    headers: Vec<(HeaderName, HeaderValue)>,
    secrets: Secrets,
}

impl HeaderSecrets {
    /// Reads them. A server may also say back what it was sent before.
    ///
    /// # Errors
    /// A header cannot be had. Which file it would come from is not for the guest.
    pub(super) async fn read(
        configured: &[(String, EndpointText)],
        remembered: &RememberedSecrets,
    ) -> Result<Self, HttpError> {
        let mut read = Self { headers: Vec::new(), secrets: remembered.next() };
        for (name, text) in configured {
            let unusable = |why: String| {
                tracing::warn!(header = name, why, "a header of `http.headers` cannot be had");
                HttpError::Failed("a header that the host adds cannot be had".to_owned())
            };
            let value = resolved(text).await.map_err(unusable)?;
            read.secrets.add(&value);
            // Of `Bearer TOKEN`, the token is the secret by itself.
            if let Some((_, token)) = value.expose().rsplit_once(' ') {
                read.secrets.add(&Redacted::new(token, "***"));
            }
            let header_name = HeaderName::from_bytes(name.as_bytes());
            let header_name = header_name.map_err(|error| unusable(error.to_string()))?;
            let mut header = HeaderValue::from_str(value.expose())
                .or_else(|_| HeaderValue::from_bytes(value.expose().as_bytes()))
                .map_err(|error| unusable(error.to_string()))?;
            header.set_sensitive(true);
            read.headers.push((header_name, header));
        }
        remembered.remember(&read.secrets);
        Ok(read)
    }

    /// Sets the headers, in the place of those that the guest has set.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }

    /// Takes the headers away again: what comes is for another origin.
    pub(super) fn take_from(&self, headers: &mut HeaderMap) {
        for (name, _) in &self.headers {
            headers.remove(name);
        }
    }

    /// An answer without them.
    pub(super) fn conceal(&self, mut response: HttpResponse) -> HttpResponse {
        if self.headers.is_empty() {
            return response;
        }
        for (_, value) in &mut response.headers {
            *value = self.secrets.conceal(value);
        }
        // Bytes that are no text do not quote a header.
        if let Ok(text) = std::str::from_utf8(&response.body) {
            let concealed = self.secrets.conceal(text);
            if concealed != text {
                response.body = concealed.into_bytes();
            }
        }
        response
    }

    /// An error without them.
    pub(super) fn conceal_error(&self, error: HttpError) -> HttpError {
        match error {
            HttpError::Failed(why) => HttpError::Failed(self.secrets.conceal(&why)),
            other => other,
        }
    }
}
