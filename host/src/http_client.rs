//! The HTTP requests of plugins: what the configuration grants is sent, and nothing else.
//!
//! A request is checked as a whole before anything is done for it: its url against the grants, its method and
//! headers. Then the name of its host is resolved, and each of its addresses is looked at; the connection is made
//! to one of the addresses that were looked at, so that a name cannot mean something else a moment later. A
//! redirect is a new request that is checked again, without credentials where it leads to another origin. No
//! proxy is used, since a proxy would resolve names by itself. Headers of the configuration are added last; a guest
//! never sees them, and they are taken out of what it is answered.
//!
//! In a replay nothing is sent: requests are answered from the recording.

mod address;
mod exchange;
mod network;
mod player;
mod recorder;
mod request;
mod secrets;

pub(crate) use player::{HttpPlayer, RecordingPlace};
pub(crate) use recorder::HttpRecorder;

use crate::config::{
    FileSource, HttpGrant, HttpHost, HttpSettings, HttpUrl, Pipeline, SourceConfig, Transform, granted,
};
use crate::foreign_text;
use crate::plugin::{AnswerRoom, Http, HttpError, HttpRequest, HttpResponse};
use crate::websocket::RememberedSecrets;
use exchange::{ServerAnswer, exchange};
use futures_util::future::BoxFuture;
use network::{Internet, Network};
use request::{CheckedRequest, PROOFS};
use secrets::HeaderSecrets;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// What a request is led on at most. Browsers give up after 20; an API that needs more than a few is broken.
const MAX_REDIRECTS: usize = 5;

/// Sends the requests of the plugin of one transform or endpoint, whichever instance or version of it asks.
pub struct HttpClient {
    grants: Vec<HttpGrant>,
    settings: HttpSettings,
    turns: Semaphore,
    network: Box<dyn Network>,
    /// What servers were sent of what is never shown.
    secrets: RememberedSecrets,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("grants", &self.grants).finish_non_exhaustive()
    }
}

/// What answers the requests of a plugin in a pipeline, if its transform grants any: the recording that the pipeline
/// reads, or else whoever is asked.
pub(crate) fn http_of(pipeline: &Pipeline, transform: &Transform) -> Option<Arc<dyn Http>> {
    if !pipeline.source.is_recording() || transform.allow.is_empty() {
        return HttpClient::of(&transform.allow, &transform.http);
    }
    let place = match &pipeline.source {
        SourceConfig::File(FileSource { path, .. }) => RecordingPlace::File(path.clone()),
        _ => RecordingPlace::Stdin,
    };
    Some(Arc::new(HttpPlayer::new(place, Some(transform.allow.clone()), transform.config.json().clone())))
}

impl HttpClient {
    /// What a plugin may send requests with, if its configuration grants any.
    pub fn of(allow: &[HttpGrant], http: &HttpSettings) -> Option<Arc<dyn Http>> {
        if allow.is_empty() {
            return None;
        }
        Some(Arc::new(Self::new(allow.to_vec(), http.clone(), Box::new(Internet))))
    }

    fn new(grants: Vec<HttpGrant>, settings: HttpSettings, network: Box<dyn Network>) -> Self {
        let turns = Semaphore::new(settings.concurrency);
        Self { grants, settings, turns, network, secrets: RememberedSecrets::default() }
    }

    async fn answer(&self, request: HttpRequest, room: &AnswerRoom) -> Result<HttpResponse, HttpError> {
        let timeout = request.timeout.unwrap_or(self.settings.timeout).min(self.settings.timeout);
        let give_up = request.give_up;
        let request = CheckedRequest::of(request)?;
        let turn = timeout_at(give_up, self.turns.acquire()).await.map_err(|_| HttpError::Timeout)?;
        let _turn = turn.expect("the semaphore is never closed");
        let now = Instant::now();
        if now >= give_up {
            // What is given up already is not even begun.
            return Err(HttpError::Timeout);
        }
        let until = give_up.min(now + timeout);
        let answered = timeout_at(until, Box::pin(self.follow(request, room))).await;
        answered.unwrap_or(Err(HttpError::Timeout))
    }

    /// Sends a request, and follows where it is led.
    async fn follow(
        &self,
        mut request: CheckedRequest,
        room: &AnswerRoom,
    ) -> Result<HttpResponse, HttpError> {
        // Whether the request may be refused is known before files are read for it.
        self.grant(&request.url)?;
        let secrets = HeaderSecrets::read(&self.settings.headers, &self.secrets).await?;
        secrets.add_to(&mut request.headers);
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.ask(&request, room).await.map_err(|error| secrets.conceal_error(error))?;
            let Some(location) = answer.redirection() else {
                return Ok(secrets.conceal(answer.into_response()));
            };
            let leads = request.url.join(location);
            let url = leads.map_err(|why| {
                HttpError::Failed(format!("{} redirects to a url that {why}", request.url.origin()))
            })?;
            if url.origin() != request.url.origin() {
                secrets.take_from(&mut request.headers);
                for proof in PROOFS {
                    request.headers.remove(proof);
                }
            }
            request.redirect(answer.status(), url);
        }
        Err(HttpError::Failed(format!("it was redirected more than {MAX_REDIRECTS} times")))
    }

    /// Makes one connection, and sends the request on it.
    async fn ask(&self, request: &CheckedRequest, room: &AnswerRoom) -> Result<ServerAnswer, HttpError> {
        let grant = self.grant(&request.url)?;
        let addresses = self.addresses(&request.url, grant).await?;
        let stream = self.network.connect(addresses).await;
        let stream = stream.map_err(|error| failed(&request.url, &error.to_string()))?;
        let max_bytes = self.settings.max_response_bytes;
        exchange(stream, request, max_bytes, room).await
    }

    fn grant(&self, url: &HttpUrl) -> Result<&HttpGrant, HttpError> {
        granted(&self.grants, url).map_err(|refusal| HttpError::Denied(refusal.to_string()))
    }

    /// The addresses of a url's host that may be reached.
    async fn addresses(&self, url: &HttpUrl, grant: &HttpGrant) -> Result<Vec<SocketAddr>, HttpError> {
        let name = match &url.host {
            HttpHost::Address(address) if grant.names_an_address() => {
                return Ok(vec![SocketAddr::new(*address, url.port)]);
            }
            HttpHost::Address(address) => return Err(denied(url, SocketAddr::new(*address, url.port))),
            HttpHost::Name(name) => name,
        };
        let found = self.network.resolve(name, url.port).await;
        let found = found.map_err(|error| failed(url, &format!("its name has no address: {error}")))?;
        let first = found.first().copied();
        let open: Vec<_> = found.into_iter().filter(|found| address::closed(found.ip()).is_none()).collect();
        match first {
            Some(first) if open.is_empty() => Err(denied(url, first)),
            _ => Ok(open),
        }
    }
}

impl Http for HttpClient {
    fn send<'a>(
        &'a self,
        request: HttpRequest,
        room: &'a AnswerRoom,
    ) -> BoxFuture<'a, Result<HttpResponse, HttpError>> {
        Box::pin(self.answer(request, room))
    }

    fn timeout(&self) -> Duration {
        self.settings.timeout
    }
}

fn denied(url: &HttpUrl, found: SocketAddr) -> HttpError {
    let kind = address::closed(found.ip()).unwrap_or("an address that no entry names");
    HttpError::Denied(format!("{} is at {}, {kind}", url.origin(), found.ip()))
}

/// Texts of resolvers, sockets and servers are for one line.
fn failed(url: &HttpUrl, why: &str) -> HttpError {
    HttpError::Failed(foreign_text::shown(&format!("{}: {why}", url.origin())))
}

#[cfg(test)]
mod tests;
