//! A peer that says all it has to say, and leaves: everything that reached us arrives, and the peer's close
//! frame is what is told of its end, whatever we were writing to it meanwhile.
//!
//! A reset follows the peer's close frame, so that whatever we write from then on fails. Nothing of ours
//! runs between what the peer sends and its reset: the test does not wait there.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use crate::drive::{
    Metrics, Seen, client_endpoint, client_of, fill_until, listener, message, push, server_endpoint,
    server_sink, server_source, sink_of, soon, source_of, until_metric, with_sink, with_source,
};
use crate::tls::{ca, server_config};
use futures_util::SinkExt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tidemill::config::{Buffer, Endpoint, EndpointText, Heartbeat, Peers, Ping};
use tidemill::message::reply::{Enqueued, OutgoingReply, ReplyTracker};
use tidemill::reason::Reason;
use tidemill::source::{Fill, Source};
use tidemill::websocket::Listeners;
use tidemill_tests::authority::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

/// They fit into what a kernel takes at once, and into what is read while messages are held back.
const MESSAGES: usize = 500;
const INTERVAL: Duration = Duration::from_millis(40);
/// What is due at every interval is due after it, and a hold is a long one.
const LATER: Duration = Duration::from_millis(400);
const CLOSED: &str = "was closed by the peer: 1001 daily restart";

/// What we are about to write when the peer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Nothing,
    Ping,
    Pong,
    Heartbeat,
    FirstMessages,
    Reply,
}

const ALL: [Writing; 6] = [
    Writing::Nothing,
    Writing::Ping,
    Writing::Pong,
    Writing::Heartbeat,
    Writing::FirstMessages,
    Writing::Reply,
];

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
type Peer = WebSocketStream<Box<dyn Stream>>;

/// A peer that is dialled, plain or with TLS.
struct Upstream {
    listener: TcpListener,
    url: String,
    tls: Option<(TlsAcceptor, Authority)>,
}

impl Upstream {
    async fn new(is_tls: bool) -> Self {
        let (listener, url) = listener().await;
        if !is_tls {
            return Self { listener, url, tls: None };
        }
        let authority = Authority::default();
        let config = server_config(&authority.certify("127.0.0.1", |_| {}), None);
        let url = url.replace("ws://", "wss://");
        Self { listener, url, tls: Some((TlsAcceptor::from(config), authority)) }
    }

    /// An endpoint that dials it, once.
    fn endpoint(&self) -> Endpoint {
        let mut endpoint = client_endpoint(&self.url);
        let client = client_of(&mut endpoint);
        client.reconnect.enabled = false;
        client.tls.ca = self.tls.as_ref().map(|(_, authority)| ca(authority));
        endpoint
    }

    async fn accept(&self) -> Peer {
        let (tcp, _) = self.listener.accept().await.unwrap();
        abrupt(&tcp);
        let stream: Box<dyn Stream> = match &self.tls {
            Some((acceptor, _)) => Box::new(acceptor.accept(tcp).await.unwrap()),
            None => Box::new(tcp),
        };
        accept_async(stream).await.unwrap()
    }
}

/// What is sent on it reaches the other kernel at once, and when it is dropped, it is reset.
fn abrupt(tcp: &TcpStream) {
    tcp.set_nodelay(true).unwrap();
    tcp.set_zero_linger().unwrap();
}

fn words() -> Vec<String> {
    (0..MESSAGES).map(|index| format!("word {index}")).collect()
}

/// Says all, a close frame, and is gone.
async fn leave(mut peer: Peer, first: Option<Message>) {
    let words = words().into_iter().map(Message::from);
    for message in first.into_iter().chain(words) {
        peer.feed(message).await.unwrap();
    }
    let close = CloseFrame { code: 1001.into(), reason: "daily restart".into() };
    peer.feed(Message::Close(Some(close))).await.unwrap();
    peer.flush().await.unwrap();
}

/// Time passes, and whatever is done in it.
async fn later(done: impl Future<Output = ()>) {
    tokio::time::pause();
    let _ = tokio::time::timeout(LATER, done).await;
    tokio::time::resume();
}

fn ready_to(writing: Writing, endpoint: &mut Endpoint) {
    match writing {
        Writing::Ping => {
            endpoint.ping = Some(Ping { interval: INTERVAL, timeout: Duration::from_secs(60) });
        }
        Writing::Heartbeat => {
            client_of(endpoint).heartbeat = Some(Heartbeat {
                interval: INTERVAL,
                message: EndpointText::plain("beat"),
                reply: Some(EndpointText::plain("answer")),
                timeout: Duration::from_secs(60),
            });
        }
        Writing::FirstMessages => {
            endpoint.on_connect = vec!["subscribe".into(); 100];
            client_of(endpoint).send_interval = INTERVAL;
        }
        Writing::Nothing | Writing::Pong | Writing::Reply => {}
    }
}

/// A source whose peer leaves, and whether it is held back for a while before what the peer said is read.
async fn dialled_source(is_tls: bool, writing: Writing, is_held: bool) {
    let what = format!("tls {is_tls}, {writing:?}, held {is_held}");
    let upstream = Upstream::new(is_tls).await;
    let mut endpoint = upstream.endpoint();
    ready_to(writing, &mut endpoint);
    let mut source = source_of(endpoint, &Metrics::default());
    let mut seen = Seen::default();
    let mut peer = with_source(&mut source, &mut seen, upstream.accept()).await;
    peer.send(Message::from("hello")).await.unwrap();
    fill_until(&mut source, &mut seen, |seen| !seen.messages.is_empty()).await;

    leave(peer, (writing == Writing::Pong).then(|| Message::Ping("are you there".into()))).await;
    let account = ReplyTracker::new(Peers::default());
    if writing == Writing::Reply {
        let (frame, hello) = (message("answer").payload, seen.messages[0].clone());
        let connection = seen.messages[0].metadata.origin().reply_to().unwrap();
        let pushed = connection.try_send(OutgoingReply { frame, message: hello, closing: None }, &account);
        assert!(matches!(pushed, Enqueued::Taken { dropped: 0 }));
    }
    if is_held {
        later(poll_fn(|cx| {
            source.poll_hold(cx);
            Poll::Pending
        }))
        .await;
        assert_eq!(source.remaining(), MESSAGES as u64, "{what}");
    } else {
        later(std::future::pending()).await;
    }
    seen.messages.clear();
    fill_until(&mut source, &mut seen, |_| false).await;
    assert_eq!(seen.texts(), words(), "{what}");
    assert!(matches!(&seen.end, Some(Fill::Failed(why)) if why.ends_with(CLOSED)), "{what}: {:?}", seen.end);
    if writing == Writing::Reply {
        let settled = account.news(&mut Context::from_waker(Waker::noop())).unwrap();
        let failed: Vec<_> = settled.failed.iter().map(|failed| failed.reason).collect();
        assert_eq!((settled.delivered, failed), (0, vec![Reason::SinkUnavailable]), "{what}");
    }
}

#[tokio::test]
async fn what_a_dialled_peer_said_before_it_left_arrives_whatever_is_written() {
    for writing in ALL {
        dialled_source(false, writing, false).await;
    }
}

#[tokio::test]
async fn what_a_dialled_peer_said_before_it_left_arrives_through_tls() {
    for writing in ALL {
        dialled_source(true, writing, false).await;
    }
}

#[tokio::test]
async fn what_a_dialled_peer_said_before_it_left_arrives_after_backpressure() {
    for (is_tls, writing) in [false, true].into_iter().flat_map(|is_tls| ALL.map(|each| (is_tls, each))) {
        dialled_source(is_tls, writing, true).await;
    }
}

#[tokio::test]
async fn a_sink_whose_write_fails_tells_why_its_peer_left() {
    // A message that is handed over at once, and one so large that its flush stands when the peer leaves.
    for (is_tls, text) in [false, true].into_iter().flat_map(|tls| [(tls, 5), (tls, 20 << 20)]) {
        let what = format!("tls {is_tls}, {text} bytes");
        let upstream = Upstream::new(is_tls).await;
        let mut sink = sink_of(upstream.endpoint(), Buffer::default(), &Metrics::default());
        let mut failed = Vec::new();
        let peer = with_sink(&mut sink, &mut failed, upstream.accept()).await;
        let text = "x".repeat(text);
        let is_large = text.len() > 5;
        if is_large {
            push(&mut sink, &mut failed, &[&text]).await;
            let _ = sink.poll_flush(&mut Context::from_waker(Waker::noop()), &mut failed);
        }
        leave(peer, None).await;
        if !is_large {
            sink.push(message(&text), &mut failed);
        }
        soon(poll_fn(|cx| sink.poll_flush(cx, &mut failed))).await;
        let [failed] = &failed[..] else { panic!("{what}: {} failed", failed.len()) };
        assert_eq!(failed.reason, Reason::SinkUnavailable, "{what}");
        assert!(failed.detail.ends_with(CLOSED), "{what}: {}", failed.detail);
    }
}

/// A source and a sink on one path, and a peer of both.
async fn accepted(metrics: &Metrics) -> (Source, tidemill::sink::Sink, Peer, Listeners) {
    let listeners = Listeners::default();
    let (source, address) = server_source(&listeners, server_endpoint("/"), metrics).await;
    let (sink, _) = server_sink(&listeners, server_endpoint("/"), Peers::default(), metrics).await;
    let tcp = TcpStream::connect(address).await.unwrap();
    abrupt(&tcp);
    let stream: Box<dyn Stream> = Box::new(tcp);
    let (peer, _) = soon(client_async(format!("ws://{address}/"), stream)).await.unwrap();
    until_metric(metrics, &["tidemill_connections{", "\"out\"", "\"connected\""], "1").await;
    (source, sink, peer, listeners)
}

#[tokio::test]
async fn what_an_accepted_peer_said_before_it_left_arrives_whatever_is_written() {
    for writing in [Writing::Nothing, Writing::Pong, Writing::Reply] {
        let metrics = Metrics::default();
        let (mut source, mut sink, mut peer, _listeners) = accepted(&metrics).await;
        let mut seen = Seen::default();
        peer.send(Message::from("hello")).await.unwrap();
        fill_until(&mut source, &mut seen, |seen| !seen.messages.is_empty()).await;
        let hello = seen.messages.remove(0);
        leave(peer, (writing == Writing::Pong).then(|| Message::Ping("are you there".into()))).await;
        if writing == Writing::Reply {
            let (frame, account) = (message("answer").payload, ReplyTracker::new(Peers::default()));
            let connection = hello.metadata.origin().reply_to().unwrap();
            let pushed =
                connection.try_send(OutgoingReply { frame, message: hello.clone(), closing: None }, &account);
            assert!(matches!(pushed, Enqueued::Taken { dropped: 0 }));
        } else {
            // What everybody gets is written to the peer first, and then the peer is read.
            sink.push(message("to all"), &mut Vec::new());
            sink.poll_drive(&mut Context::from_waker(Waker::noop()), &mut Vec::new());
        }
        fill_until(&mut source, &mut seen, |seen| seen.messages.len() == MESSAGES).await;
        assert_eq!(seen.texts(), words(), "{writing:?}");
        until_metric(&metrics, &["tidemill_connections{", "\"out\"", "\"connected\""], "0").await;
    }
}
