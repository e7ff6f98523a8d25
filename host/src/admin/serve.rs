//! Connections of the HTTP API: how many there may be, how long each may take, and how they end.
//!
//! A connection has a time for the headers of a request, one for its body, and one in which nothing
//! happens between requests; while a request is being answered its time is the host's matter. Half a
//! request keeps nothing from ending.

use axum::Router;
use hyper::body::Body as _;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Most connections; whoever comes then waits in the queue of the system.
const MAX_CONNECTIONS: usize = 256;
/// From a connection, or the first byte of a request, to the end of its headers.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// In which nothing is asked, or nothing of an answer is taken.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer that was refused may say nothing before it is left. One that still sends its body would not see the
/// answer if nobody read on: the system resets a connection that is closed with something unread.
const FAREWELL: Duration = Duration::from_secs(2);
/// What is read at once, and thrown away, at the end.
const UNREAD_BYTES: usize = 64 << 10;
/// For what is left of answers when the API ends.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// Between two attempts to accept when the system refuses: it has no more files, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until `stop`; then what is asked already, for a moment.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let seat = seats.clone().acquire_owned().await;
            (listener.accept().await, seat)
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of the http api is lost");
                }
            }
            (accepted, seat) = accepted => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, router.clone(), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the http api cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // No one else comes in.
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(LAST_WORDS, ended).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

/// Serves one connection until its end, or until it has taken too long.
async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let pace = BodyPace::default();
    let service = TowerToHyperService::new(router);
    let service = hyper::service::service_fn({
        let pace = pace.clone();
        move |request: hyper::Request<hyper::body::Incoming>| {
            pace.set(Doing::Answer);
            let has_body = !request.body().is_end_stream();
            let answered = service.call(request);
            let pace = pace.clone();
            async move {
                let answer = answered.await;
                pace.set(Doing::Nothing(Instant::now()));
                if has_body && answer.as_ref().is_ok_and(|answer| answer.status().is_client_error()) {
                    pace.leaves_unread.store(true, Ordering::Relaxed);
                }
                answer
            }
        }
    });
    let io = TokioIo::new(Paced { stream, pace: pace.clone(), farewell: None });
    let mut connection = pin!(http1::Builder::new().serve_connection(io, service));
    let mut is_stopping = false;
    loop {
        let due = pace.due();
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection of the http api broke");
                }
                return;
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            // The pace changes while it is slept: another look is due after the shortest of its times.
            () = sleep_until(due.unwrap_or_else(|| Instant::now() + HEADERS_TIMEOUT)) => {
                if pace.due().is_some_and(|due| due <= Instant::now()) {
                    return;
                }
            }
        }
    }
}

/// What a connection does, as far as its time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// No request has begun since; or its peer took something of an answer then.
    Nothing(Instant),
    /// The headers of a request have begun to come then, or the connection has.
    Headers(Instant),
    /// A request is being answered.
    Answer,
}

/// What a connection does now; clones are one and the same.
#[derive(Clone, Debug)]
struct BodyPace {
    doing: Arc<Mutex<Doing>>,
    /// A request was refused, maybe before its body was read.
    leaves_unread: Arc<AtomicBool>,
}

impl Default for BodyPace {
    fn default() -> Self {
        let doing = Arc::new(Mutex::new(Doing::Headers(Instant::now())));
        Self { doing, leaves_unread: Arc::default() }
    }
}

impl BodyPace {
    fn set(&self, doing: Doing) {
        *self.lock() = doing;
    }

    /// Bytes have come.
    fn received(&self) {
        let mut doing = self.lock();
        if let Doing::Nothing(_) = *doing {
            *doing = Doing::Headers(Instant::now());
        }
    }

    /// Bytes were taken.
    fn sent(&self) {
        let mut doing = self.lock();
        if let Doing::Nothing(since) = &mut *doing {
            *since = Instant::now();
        }
    }

    /// When the connection has taken too long.
    fn due(&self) -> Option<Instant> {
        match *self.lock() {
            Doing::Nothing(since) => Some(since + IDLE_TIMEOUT),
            Doing::Headers(since) => Some(since + HEADERS_TIMEOUT),
            Doing::Answer => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().expect("nothing panics while it is held")
    }
}

/// A connection whose bytes are noticed.
struct Paced {
    stream: TcpStream,
    pace: BodyPace,
    /// When a peer is left that was refused.
    farewell: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Paced {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.pace.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        this.pace.sent();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Says that no more comes, and reads what a peer that was refused still sends.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.farewell.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if !this.pace.leaves_unread.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let farewell = this.farewell.get_or_insert_with(|| Box::pin(sleep(FAREWELL)));
        let mut unread = vec![0; UNREAD_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut unread);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    farewell.as_mut().reset(Instant::now() + FAREWELL);
                }
                // It has left, or is left.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return farewell.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::body::{BODY_TIMEOUT, BodyRule, whole_body};
    use super::*;
    use axum::middleware;
    use axum::routing::{get, post};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;

    /// An API whose one path answers at once, and another after a while that no limit is as long as.
    async fn api() -> (SocketAddr, CancellationToken, JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let slow = || async {
            sleep(2 * IDLE_TIMEOUT).await;
            "late"
        };
        let router = Router::new().route("/", get(|| async { "at once" })).route("/slow", get(slow));
        let router = router.route("/", post(|body: String| async { body }));
        let router = router.layer(middleware::from_fn_with_state(BodyRule::json(), whole_body));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, stop.clone()));
        (address, stop, serving)
    }

    /// What comes until the end of the connection, and how long that took by the paused clock.
    async fn answer(stream: &mut TcpStream) -> (String, Duration) {
        let since = Instant::now();
        let mut text = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut text).await;
        (String::from_utf8(text).expect("text"), since.elapsed())
    }

    async fn sent(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        stream
    }

    fn is_about(is: Duration, wanted: Duration) -> bool {
        is >= wanted && is < wanted + HEADERS_TIMEOUT + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_request_half_a_body_and_an_idle_connection_are_ended_in_their_time() {
        let (address, _stop, _serving) = api().await;
        for half in ["", "GET / HTTP/1.1\r\nHos"] {
            let (text, took) = answer(&mut sent(address, half).await).await;
            assert!(text.is_empty() && is_about(took, HEADERS_TIMEOUT), "{half}: {text} after {took:?}");
        }
        let half =
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\nabc";
        let (text, took) = answer(&mut sent(address, half).await).await;
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
        assert!(took >= BODY_TIMEOUT, "{took:?}");
        let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let (text, took) = answer(&mut sent(address, whole).await).await;
        assert!(text.ends_with("at once") && is_about(took, IDLE_TIMEOUT), "{text} after {took:?}");
    }

    #[tokio::test]
    async fn whoever_sends_a_body_that_is_refused_can_send_all_of_it_and_sees_the_answer() {
        let (address, _stop, _serving) = api().await;
        let body = vec![b' '; 70 << 20];
        for (media_type, status) in [("application/json", 413), ("text/plain", 415)] {
            let length = body.len();
            let head = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
            );
            let mut stream = sent(address, &head).await;
            stream.write_all(&body).await.expect("it is read to its end");
            let (text, _) = answer(&mut stream).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_long_is_answered_and_the_connection_serves_on() {
        let (address, _stop, _serving) = api().await;
        let mut stream = sent(address, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut text = vec![0; 1000];
        let length = stream.read(&mut text).await.expect("it answers");
        assert!(text[..length].ends_with(b"late"));
        let again = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(again.as_bytes()).await.expect("it reads");
        assert!(answer(&mut stream).await.0.ends_with("at once"));
    }

    #[tokio::test]
    async fn more_connections_than_there_are_seats_wait_for_one() {
        let (address, _stop, _serving) = api().await;
        let mut seated = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            seated.push(sent(address, "GET / HTTP/1.1\r\nHos").await);
        }
        let whole = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let mut waits = sent(address, whole).await;
        let mut first = seated.remove(0);
        first.write_all(b"t: a\r\nConnection: close\r\n\r\n").await.expect("it reads");
        assert!(answer(&mut first).await.0.ends_with("at once"));
        assert!(answer(&mut waits).await.0.ends_with("at once"));
    }

    #[tokio::test]
    async fn half_a_request_does_not_hold_up_the_end() {
        let (address, stop, serving) = api().await;
        let mut half = sent(address, "GET / HTTP/1.1\r\nHos").await;
        // Behind it, so that the half is there.
        let whole = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert!(answer(&mut sent(address, whole).await).await.0.ends_with("at once"));
        stop.cancel();
        let ended =
            timeout(HEADERS_TIMEOUT / 2, serving).await.expect("it ends before the half runs out of time");
        ended.expect("no panic").expect("served well");
        assert_eq!(answer(&mut half).await.0, "");
    }
}
