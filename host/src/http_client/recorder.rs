//! Requests of plugins, kept while they are made: for a recording.
//!
//! What is kept is what the plugin saw: headers that the host adds are in no request that it makes, and are taken out
//! of answers before. What came from variables in its configuration is taken out of what it says and is told.

use crate::config::Redacted;
use crate::plugin::{AnswerRoom, Http, HttpError, HttpRequest, HttpResponse};
use crate::recording::{
    Exchange, RecordedAnswer, RecordedBody, RecordedError, RecordedRequest, RecordedResponse,
};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Sends the requests of one transform as another does, and keeps what came of each.
pub(crate) struct HttpRecorder {
    http: Arc<dyn Http>,
    config: Redacted,
    kept: mpsc::Sender<Exchange>,
}

impl HttpRecorder {
    /// Keeps what a plugin with this configuration asks and is answered.
    pub(crate) fn new(http: Arc<dyn Http>, config: Redacted, kept: mpsc::Sender<Exchange>) -> Self {
        Self { http, config, kept }
    }
}

impl Http for HttpRecorder {
    fn send<'a>(
        &'a self,
        request: HttpRequest,
        room: &'a AnswerRoom,
    ) -> BoxFuture<'a, Result<HttpResponse, HttpError>> {
        Box::pin(async move {
            let asked = asked(&request, &self.config);
            let answer = self.http.send(request, room).await;
            let exchange = Exchange { request: asked, answer: answered(&answer, &self.config) };
            if self.kept.send(exchange).await.is_err() {
                tracing::debug!("a request came after the end of the recording");
            }
            answer
        })
    }

    fn timeout(&self) -> Duration {
        self.http.timeout()
    }
}

/// What is known of a request again.
pub(super) fn asked(request: &HttpRequest, config: &Redacted) -> RecordedRequest {
    RecordedRequest {
        method: request.method.clone(),
        url: config.conceal(&request.url).into_owned(),
        body: body(&request.body, config),
    }
}

fn answered(answer: &Result<HttpResponse, HttpError>, config: &Redacted) -> RecordedAnswer {
    let text = |why: &str| config.conceal(why).into_owned();
    match answer {
        Ok(HttpResponse { status, headers, body: bytes }) => {
            let headers = headers.iter().map(|(name, value)| (name.clone(), text(value)));
            let (headers, body) = (headers.collect(), body(bytes, config));
            RecordedAnswer::Response(RecordedResponse { status: *status, headers, body })
        }
        Err(error) => RecordedAnswer::Error(match error {
            HttpError::Invalid(why) => RecordedError::Invalid(text(why)),
            HttpError::Denied(why) => RecordedError::Denied(text(why)),
            HttpError::Timeout => RecordedError::Timeout,
            HttpError::TooLarge(bytes) => RecordedError::TooLarge(*bytes),
            HttpError::Failed(why) => RecordedError::Failed(text(why)),
        }),
    }
}

fn body(bytes: &[u8], config: &Redacted) -> RecordedBody {
    RecordedBody(match std::str::from_utf8(bytes) {
        Ok(text) => config.conceal(text).into_owned().into_bytes(),
        Err(_) => bytes.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_client::{HttpPlayer, RecordingPlace};
    use crate::recording::write_exchange;
    use tokio::time::Instant;

    /// Says back what it was asked, as text and as bytes.
    struct Echo;

    impl Http for Echo {
        fn send<'a>(
            &'a self,
            request: HttpRequest,
            _: &'a AnswerRoom,
        ) -> BoxFuture<'a, Result<HttpResponse, HttpError>> {
            Box::pin(async move {
                if request.method == "FAIL" {
                    return Err(HttpError::Failed(request.url));
                }
                let headers = vec![("x-url".to_owned(), request.url)];
                Ok(HttpResponse { status: 200, headers, body: request.body })
            })
        }

        fn timeout(&self) -> Duration {
            Duration::from_secs(1)
        }
    }

    fn request(method: &str, token: &str, body: &[u8]) -> HttpRequest {
        HttpRequest {
            method: method.into(),
            url: format!("https://a.example/?token={token}"),
            headers: vec![("authorization".into(), token.into())],
            body: body.to_vec(),
            timeout: None,
            give_up: Instant::now(),
        }
    }

    fn config(token: &str) -> Redacted {
        Redacted::new(format!("{{\"token\":\"{token}\"}}"), "{\"token\":\"***\"}")
    }

    #[tokio::test]
    async fn what_is_kept_has_no_secrets_of_the_configuration() {
        let (kept, mut exchanges) = mpsc::channel(8);
        let recorder = HttpRecorder::new(Arc::new(Echo), config("s3cret"), kept);
        let room = AnswerRoom::new(1 << 20);
        let body = b"with s3cret inside";
        let seen = recorder.send(request("POST", "s3cret", body), &room).await.expect("it answers");
        assert_eq!((&*seen.body, &*seen.headers[0].1), (&body[..], "https://a.example/?token=s3cret"));
        let failed = recorder.send(request("FAIL", "s3cret", b"\xff"), &room).await;
        assert_eq!(failed, Err(HttpError::Failed("https://a.example/?token=s3cret".into())));
        drop(recorder);
        let mut lines = Vec::new();
        while let Some(exchange) = exchanges.recv().await {
            assert!(write_exchange(&exchange, 1, &mut lines));
        }
        let text = String::from_utf8(lines).expect("lines are text");
        assert!(!text.contains("s3cret") && text.matches("token=***").count() == 4, "{text}");

        // Where the secret is another one, it is the same request.
        let dir = tempfile::tempdir().expect("a folder can be made");
        let path = dir.path().join("a.recording");
        std::fs::write(&path, text).expect("it can be written");
        let player = HttpPlayer::new(RecordingPlace::File(path.into()), None, config("an0ther"));
        let played = player.send(request("POST", "an0ther", b"with an0ther inside"), &room).await;
        let played = played.expect("it was recorded");
        assert_eq!((played.status, &*played.body), (200, &b"with *** inside"[..]));
        assert_eq!(
            player.send(request("FAIL", "an0ther", b"\xff"), &room).await,
            Err(HttpError::Failed("https://a.example/?token=***".into()))
        );
        let other = player.send(request("GET", "an0ther", b""), &room).await;
        assert!(matches!(other, Err(HttpError::Denied(why)) if why.contains("is not in the recording")));
    }
}
