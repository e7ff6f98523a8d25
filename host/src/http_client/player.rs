//! Requests of plugins in a replay: answered from the recording, and never sent.
//!
//! A request is known again by its method, url and body. Equal requests get their answers in the order in which they
//! were recorded, and from then on the last one. What was not recorded is refused by name.

use super::recorder::asked;
use crate::config::{FilePath, HttpGrant, HttpUrl, Redacted, granted};
use crate::foreign_text;
use crate::plugin::{AnswerRoom, Http, HttpError, HttpRequest, HttpResponse};
use crate::recording::{RecordedAnswer, RecordedError, RecordedRequest, RecordedResponse, exchanges};
use flate2::read::MultiGzDecoder;
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// What the exchanges of one recording may take in memory.
const MAX_RECORDED_BYTES: usize = 256 << 20;
/// Nothing is waited for but the recording, once.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where a recording is.
#[derive(Clone, Debug)]
pub(crate) enum RecordingPlace {
    /// In a file, packed if it ends in `.gz`.
    File(FilePath),
    /// In standard input, where that is a file.
    Stdin,
}

/// RecordedAnswers the requests of one transform's plugin from a recording.
pub(crate) struct HttpPlayer {
    place: RecordingPlace,
    /// What may be asked for; `None` for everything that is recorded.
    grants: Option<Vec<HttpGrant>>,
    config: Redacted,
    /// What was recorded, or why that cannot be had; read when the first request is made.
    recorded: OnceCell<Result<Mutex<AnswersByRequest>, String>>,
}

type AnswersByRequest = HashMap<RecordedRequest, RecordedAnswers>;

/// The answers to equal requests.
#[derive(Debug, Default)]
struct RecordedAnswers {
    all: Vec<RecordedAnswer>,
    given: usize,
}

impl HttpPlayer {
    /// RecordedAnswers a plugin with this configuration.
    pub(crate) fn new(place: RecordingPlace, grants: Option<Vec<HttpGrant>>, config: Redacted) -> Self {
        Self { place, grants, config, recorded: OnceCell::new() }
    }

    async fn answer(&self, request: &HttpRequest, room: &AnswerRoom) -> Result<HttpResponse, HttpError> {
        if let Some(grants) = &self.grants {
            let url = HttpUrl::parse(&request.url);
            let url = url.map_err(|why| HttpError::Invalid(format!("the url {why}")))?;
            granted(grants, &url).map_err(|refusal| HttpError::Denied(refusal.to_string()))?;
        }
        let place = self.place.clone();
        let recorded = self.recorded.get_or_init(async || {
            let read = tokio::task::spawn_blocking(move || read(&place));
            read.await.unwrap_or_else(|error| Err(error.to_string())).map(Mutex::new)
        });
        let recorded = recorded.await.as_ref().map_err(|why| HttpError::Failed(why.clone()))?;
        let answer = {
            let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
            recorded.get_mut(&asked(request, &self.config)).and_then(RecordedAnswers::next)
        };
        match answer {
            None => Err(HttpError::Denied(foreign_text::shown(&format!(
                "{} {} is not in the recording {}, and a replay asks nobody else",
                request.method, request.url, self.place
            )))),
            Some(RecordedAnswer::Response(RecordedResponse { status, headers, body })) => {
                let head_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
                if room.take(head_bytes + body.0.len()) {
                    Ok(HttpResponse { status, headers, body: body.0 })
                } else {
                    Err(HttpError::TooLarge(body.0.len() as u64))
                }
            }
            Some(RecordedAnswer::Error(error)) => Err(match error {
                RecordedError::Invalid(why) => HttpError::Invalid(why),
                RecordedError::Denied(why) => HttpError::Denied(why),
                RecordedError::Timeout => HttpError::Timeout,
                RecordedError::TooLarge(bytes) => HttpError::TooLarge(bytes),
                RecordedError::Failed(why) => HttpError::Failed(why),
            }),
        }
    }
}

impl RecordedAnswers {
    fn next(&mut self) -> Option<RecordedAnswer> {
        let answer = self.all.get(self.given).or(self.all.last()).cloned();
        self.given += 1;
        answer
    }
}

impl Http for HttpPlayer {
    fn send<'a>(
        &'a self,
        request: HttpRequest,
        room: &'a AnswerRoom,
    ) -> BoxFuture<'a, Result<HttpResponse, HttpError>> {
        Box::pin(async move { self.answer(&request, room).await })
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

impl std::fmt::Display for RecordingPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{path}"),
            Self::Stdin => f.write_str("in standard input"),
        }
    }
}

fn read(place: &RecordingPlace) -> Result<AnswersByRequest, String> {
    let read = open(place)
        .map_err(|error| error.to_string())
        .and_then(|input| exchanges(input, MAX_RECORDED_BYTES).map_err(|error| error.to_string()));
    let exchanges =
        read.map_err(|why| format!("no request can be answered from the recording {place}: {why}"))?;
    let mut recorded = AnswersByRequest::new();
    for exchange in exchanges {
        recorded.entry(exchange.request).or_default().all.push(exchange.answer);
    }
    Ok(recorded)
}

/// Opens a recording beside who reads its messages.
fn open(place: &RecordingPlace) -> io::Result<Box<dyn Read>> {
    let file = match place {
        RecordingPlace::File(path) => File::open(&**path)?,
        RecordingPlace::Stdin => File::from(io::stdin().as_fd().try_clone_to_owned()?),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file, and can be read only once"));
    }
    let input = FromStart { file, offset: 0 };
    Ok(match place {
        RecordingPlace::File(path) if path.is_packed() => Box::new(MultiGzDecoder::new(input)),
        _ => Box::new(input),
    })
}

/// A file that is read from its start, wherever others are in it.
struct FromStart {
    file: File,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
