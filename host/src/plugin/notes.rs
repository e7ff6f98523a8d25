//! What a call is told of the world, noted so that an instance of another version is told the same: the time, what
//! chance gives, and the answers to its requests.
//!
//! Of an instance that nobody is to follow nothing is noted.

use super::http::{HttpError, HttpRequest, HttpResponse};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most answers of a clock that are noted of one call. A guest that asks more often waits for a moment to come, and
/// whoever follows is told the time that it is then.
const MAX_TIMES: usize = 4096;
/// Most bytes of what `init` was answered that are kept for the `init` of a version in shadow.
const MAX_FIRST_BYTES: usize = 1 << 20;

/// What one call was told.
#[derive(Debug)]
pub struct CallNotes {
    pub(super) times_us: Times,
    pub(super) wall_ns: Times,
    pub(super) seed: [u8; 32],
    pub(super) wasi_seed: Option<[u8; 32]>,
    pub(super) exchanges: Vec<HttpExchange>,
}

/// A request, and what it was answered.
#[derive(Clone, Debug)]
pub(super) struct HttpExchange {
    pub(super) request: HttpRequest,
    pub(super) answer: Result<HttpResponse, HttpError>,
}

/// What a clock says: nothing is noted of it, or what it says is, or it says what another said.
#[derive(Debug, Default)]
pub(super) enum Times {
    #[default]
    Unnoted,
    Noted(VecDeque<u64>),
    Repeated(VecDeque<u64>),
}

impl Times {
    /// Begins to note.
    pub(super) fn noting() -> Self {
        Self::Noted(VecDeque::new())
    }

    /// Says again what was noted, from then on the time that it is.
    pub(super) fn repeating(self) -> Self {
        match self {
            Self::Noted(times) | Self::Repeated(times) => Self::Repeated(times),
            Self::Unnoted => Self::Unnoted,
        }
    }

    /// What the clock says, which would be `now`.
    pub(super) fn say(&mut self, now: impl FnOnce() -> u64) -> u64 {
        match self {
            Self::Unnoted => now(),
            Self::Noted(times) => {
                let now = now();
                if times.len() < MAX_TIMES {
                    times.push_back(now);
                }
                now
            }
            Self::Repeated(times) => times.pop_front().unwrap_or_else(now),
        }
    }
}

/// Lets random numbers go on from a seed that they give themselves. Who has the seed is given the same.
pub(super) fn begin_anew(numbers: &mut StdRng) -> [u8; 32] {
    let mut seed = [0; 32];
    numbers.fill_bytes(&mut seed);
    *numbers = StdRng::from_seed(seed);
    seed
}

/// What the instances of a stage were answered in `init`, for that of a version in shadow: of the newest that asked.
#[derive(Clone, Debug, Default)]
pub struct FirstAnswers(Arc<Mutex<Vec<HttpExchange>>>);

impl FirstAnswers {
    /// Keeps what an instance was answered, unless it is too much.
    pub(super) fn keep(&self, exchanges: Vec<HttpExchange>) {
        let bytes: usize = exchanges.iter().map(HttpExchange::bytes).sum();
        if !exchanges.is_empty() && bytes <= MAX_FIRST_BYTES {
            *self.kept() = exchanges;
        }
    }

    pub(super) fn all(&self) -> Vec<HttpExchange> {
        self.kept().clone()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<HttpExchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpExchange {
    /// Whether it answers this request.
    pub(super) fn answers(&self, request: &HttpRequest) -> bool {
        let HttpRequest { method, url, headers, body, timeout: _, give_up: _ } = request;
        let known = &self.request;
        (&known.method, &known.url, &known.headers, &known.body) == (method, url, headers, body)
    }

    fn bytes(&self) -> usize {
        let texts = |headers: &[(String, String)]| {
            headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        let answer = self.answer.as_ref().map_or(0, |answer| answer.body.len() + texts(&answer.headers));
        self.request.url.len() + self.request.body.len() + texts(&self.request.headers) + answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_clock_says_again_what_it_said_and_then_what_time_it_is() {
        let mut clock = Times::noting();
        assert_eq!([1, 2, 3].map(|now| clock.say(|| now)), [1, 2, 3]);
        let mut other = clock.repeating();
        assert_eq!([7, 8, 9, 10].map(|now| other.say(|| now)), [1, 2, 3, 10]);
        assert_eq!(Times::default().repeating().say(|| 5), 5);
        let mut often = Times::noting();
        (0..5000).for_each(|now| assert_eq!(often.say(|| now), now));
        let mut other = often.repeating();
        assert_eq!((0..4097).map(|_| other.say(|| 77)).last(), Some(77));
    }

    fn request(url: &str, body: &[u8]) -> HttpRequest {
        HttpRequest {
            method: "GET".into(),
            url: url.into(),
            headers: vec![("accept".into(), "text/plain".into())],
            body: body.to_vec(),
            timeout: None,
            give_up: Instant::now(),
        }
    }

    #[test]
    fn a_request_is_the_same_whenever_it_is_given_up() {
        let known = HttpExchange { request: request("https://a/", b"x"), answer: Err(HttpError::Timeout) };
        let patient = HttpRequest { timeout: Some(Duration::from_secs(9)), ..request("https://a/", b"x") };
        assert!(known.answers(&patient));
        assert!(!known.answers(&request("https://a/b", b"x")) && !known.answers(&request("https://a/", b"")));
        assert!(!known.answers(&HttpRequest { headers: Vec::new(), ..request("https://a/", b"x") }));
    }

    #[test]
    fn first_answers_are_those_of_the_newest_that_asked_and_bounded() {
        let exchange = |length: usize| HttpExchange {
            request: request("https://a/", &vec![0; length]),
            answer: Err(HttpError::Timeout),
        };
        let kept = FirstAnswers::default();
        kept.keep(vec![exchange(1)]);
        kept.keep(Vec::new());
        kept.keep(vec![exchange(MAX_FIRST_BYTES)]);
        assert_eq!(kept.all().iter().map(|kept| kept.request.body.len()).collect::<Vec<_>>(), [1]);
    }
}
