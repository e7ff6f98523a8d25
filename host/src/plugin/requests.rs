//! The host's side of the import `http`: the requests of one instance, call by call.
//!
//! While a guest waits for an answer it does not run: the wait has bounds of its own, and is no part of what
//! the call may run. Who may be asked is for the [`Http`] that the instance was made with.

use super::bindings::tidemill::plugin::http as wit;
use super::http::{AnswerRoom, Http, HttpError, HttpRequest, HttpResponse};
use super::limits::Meter;
use super::notes::HttpExchange;
use super::setup::Setup;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What one call may send; a full batch may need one request a message, and some of them two.
const MAX_REQUESTS: usize = 1024;
/// All waits of one call together, as a multiple of what one request may take: some may fail slowly, and still a
/// stop or a swap does not wait for a guest that asks one dead server again and again.
const MAX_WAITS: u32 = 6;

/// What the call in progress may still ask for.
pub(super) struct Requests {
    /// `None` where nothing is granted.
    http: Option<Arc<dyn Http>>,
    /// Who answers.
    answers: AnswerSource,
    meter: Arc<Meter>,
    max_bytes: usize,
    is_carrying: bool,
    sent: usize,
    waited: Duration,
    room: AnswerRoom,
}

/// Who answers the requests of an instance.
enum AnswerSource {
    /// Whoever is asked.
    Sent,
    /// The same, and it is noted.
    Noted(Vec<HttpExchange>),
    /// Nobody is asked: the answers are those that the version got which this one runs beside.
    Given {
        /// Each is given once.
        left: Vec<HttpExchange>,
        /// The first request that was not answered then.
        stranger: Option<String>,
    },
}

impl Requests {
    pub(super) fn new(setup: &Setup, meter: Arc<Meter>) -> Self {
        let max_bytes = setup.limits.memory_bytes;
        let answers = if setup.is_shadow {
            AnswerSource::Given { left: setup.first_answers.all(), stranger: None }
        } else if setup.http.is_some() {
            // Those of `init`.
            AnswerSource::Noted(Vec::new())
        } else {
            AnswerSource::Sent
        };
        Self {
            http: setup.http.clone(),
            answers,
            meter,
            max_bytes,
            is_carrying: false,
            sent: 0,
            waited: Duration::ZERO,
            room: AnswerRoom::new(max_bytes),
        }
    }

    /// A call begins.
    #[inline]
    pub(super) fn begin(&mut self, is_carrying: bool) {
        if self.http.is_some() {
            self.is_carrying = is_carrying;
            self.sent = 0;
            self.waited = Duration::ZERO;
            self.room = AnswerRoom::new(self.max_bytes);
        }
    }

    /// From now on what is answered is noted.
    pub(super) fn note(&mut self) {
        self.answers = AnswerSource::Noted(Vec::new());
    }

    /// What was noted.
    pub(super) fn take_notes(&mut self) -> Vec<HttpExchange> {
        match std::mem::replace(&mut self.answers, AnswerSource::Sent) {
            AnswerSource::Noted(noted) => noted,
            given @ AnswerSource::Given { .. } => {
                self.answers = given;
                Vec::new()
            }
            AnswerSource::Sent => Vec::new(),
        }
    }

    /// From now on these are the answers.
    pub(super) fn follow(&mut self, answers: Vec<HttpExchange>) {
        self.answers = AnswerSource::Given { left: answers, stranger: None };
    }

    /// The first request since then that has no answer among them.
    pub(super) fn take_stranger(&mut self) -> Option<String> {
        let AnswerSource::Given { stranger, .. } = &mut self.answers else { return None };
        stranger.take()
    }

    /// Sends requests side by side; the answers are in the order of the requests.
    pub(super) async fn ask(
        &mut self,
        requests: Vec<wit::Request>,
    ) -> Vec<Result<wit::Response, wit::Error>> {
        let answers = Box::pin(self.send(requests)).await;
        answers.into_iter().map(|answer| answer.map(for_guest).map_err(why_for_guest)).collect()
    }

    async fn send(&mut self, requests: Vec<wit::Request>) -> Vec<Result<HttpResponse, HttpError>> {
        let Some(http) = &self.http else {
            return requests.iter().map(|_| refused("nothing is granted")).collect();
        };
        if self.is_carrying {
            return requests.iter().map(|_| refused("state is carried without requests")).collect();
        }
        let start = Instant::now();
        let give_up = start + (http.timeout() * MAX_WAITS).saturating_sub(self.waited);
        let allowed = MAX_REQUESTS - self.sent;
        self.sent += requests.len().min(allowed);
        let requests: Vec<_> = requests.into_iter().map(|request| of_guest(request, give_up)).collect();
        if let AnswerSource::Given { left, stranger } = &mut self.answers {
            let answers = requests.iter().enumerate().map(|(index, request)| {
                if index >= allowed { too_many() } else { given(request, left, stranger) }
            });
            return answers.collect();
        }
        let noted =
            if matches!(self.answers, AnswerSource::Noted(_)) { requests.clone() } else { Vec::new() };
        let room = &self.room;
        let answers = requests.into_iter().enumerate().map(async |(index, request)| {
            if index >= allowed { too_many() } else { http.send(request, room).await }
        });
        self.meter.pause();
        let answers = join_all(answers).await;
        self.meter.resume();
        self.waited += start.elapsed();
        if let AnswerSource::Noted(notes) = &mut self.answers {
            let exchanges = noted.into_iter().zip(answers.iter().cloned()).take(allowed);
            notes.extend(exchanges.map(|(request, answer)| HttpExchange { request, answer }));
        }
        answers
    }
}

/// What was answered to the same request.
fn given(
    request: &HttpRequest,
    left: &mut Vec<HttpExchange>,
    stranger: &mut Option<String>,
) -> Result<HttpResponse, HttpError> {
    if let Some(known) = left.iter().position(|known| known.answers(request)) {
        return left.remove(known).answer;
    }
    stranger.get_or_insert_with(|| format!("{} {}", request.method, request.url));
    refused(
        "a version in shadow is answered what the version that runs was answered, and that one did not send this \
         request",
    )
}

fn too_many<T>() -> Result<T, HttpError> {
    refused(&format!("one call may send {MAX_REQUESTS} requests"))
}

fn refused<T>(why: &str) -> Result<T, HttpError> {
    Err(HttpError::Denied(why.to_owned()))
}

fn of_guest(request: wit::Request, give_up: Instant) -> HttpRequest {
    let wit::Request { method, url, headers, body, timeout_ms } = request;
    let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.into()));
    HttpRequest { method, url, headers, body, timeout, give_up }
}

fn for_guest(response: HttpResponse) -> wit::Response {
    let HttpResponse { status, headers, body } = response;
    wit::Response { status, headers, body }
}

fn why_for_guest(error: HttpError) -> wit::Error {
    match error {
        HttpError::Invalid(why) => wit::Error::Invalid(why),
        HttpError::Denied(why) => wit::Error::Denied(why),
        HttpError::Timeout => wit::Error::Timeout,
        HttpError::TooLarge(bytes) => wit::Error::TooLarge(bytes),
        HttpError::Failed(why) => wit::Error::Failed(why),
    }
}
