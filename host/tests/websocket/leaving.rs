//! A peer that we accepted says all that it has to say, and leaves in order: everything arrives, whatever was
//! being written to it, plain or through TLS, held back by backpressure or not.
//!
//! A reset follows its close frame, so that whatever is written from then on fails; and it reads nothing, so
//! that what was being written before stands half done.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use crate::drive::{
    Metrics, Seen, fill_until, flush, message, metric, push, server_endpoint, server_sink, server_source,
    soon, until_metric,
};
use futures_util::SinkExt;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidemill::config::{FilePath, Identity, Mode, Peers, Pem, Ping, ServerTls};
use tidemill::message::reply::{Enqueued, OutgoingReply, ReplyTracker};
use tidemill::sink::Sink;
use tidemill::source::Source;
use tidemill::websocket::Listeners;
use tidemill_tests::authority::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, client_async};

const OUT: &[&str] = &["tidemill_connections{", "\"out\"", "\"connected\""];
const SOURCE: &[&str] = &["tidemill_connections{", "\"source\"", "\"connected\""];
/// They fit into what is read before a pipeline takes any.
const WORDS: usize = 500;
/// More than a socket takes whose peer does not read.
const FLOOD: usize = 90;
const INTERVAL: Duration = Duration::from_millis(40);
/// What is due at every interval is due after it, and a hold is a long one.
const LATER: Duration = Duration::from_millis(400);

/// What is being written when the peer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Nothing,
    Ping,
    Pong,
    Greeting,
    Replay,
    Broadcast,
    Flush,
    Reply,
}

const ALL: [Writing; 8] = [
    Writing::Nothing,
    Writing::Ping,
    Writing::Pong,
    Writing::Greeting,
    Writing::Replay,
    Writing::Broadcast,
    Writing::Flush,
    Writing::Reply,
];

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
type Peer = WebSocketStream<Box<dyn Stream>>;

/// A certificate in files, and who vouches for it.
struct Tls {
    folder: TempDir,
    authority: Authority,
}

impl Tls {
    fn new() -> Self {
        let (folder, authority) = (TempDir::new().unwrap(), Authority::default());
        let certified = authority.certify("127.0.0.1", |_| {});
        std::fs::write(folder.path().join("server.pem"), &certified.certificate).unwrap();
        std::fs::write(folder.path().join("server.key"), &certified.key).unwrap();
        Self { folder, authority }
    }

    fn server(&self) -> ServerTls {
        let pem = |name: &str| Pem::File(FilePath::plain(self.folder.path().join(name)));
        ServerTls { identity: Identity { cert: pem("server.pem"), key: pem("server.key") }, clients: None }
    }

    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

/// A source and a sink on one path.
struct Service {
    source: Source,
    sink: Sink,
    address: SocketAddr,
    metrics: Metrics,
}

impl Service {
    async fn open(tls: Option<&Tls>, writing: Writing) -> Self {
        let (listeners, metrics) = (Listeners::default(), Metrics::default());
        let mut endpoint = server_endpoint("/");
        if let Mode::Server(listen) = &mut endpoint.mode {
            listen.tls = tls.map(Tls::server);
        }
        if writing == Writing::Ping {
            endpoint.ping = Some(Ping { interval: INTERVAL, timeout: Duration::from_secs(60) });
        }
        let (source, address) = server_source(&listeners, endpoint.clone(), &metrics).await;
        if writing == Writing::Greeting {
            endpoint.on_connect = vec![flood(0).as_str().into(); FLOOD];
        }
        let replay = if writing == Writing::Replay { FLOOD } else { 0 };
        let peers = Peers { buffer: 1000, buffer_bytes: 64 << 20, replay, ..Peers::default() };
        let (sink, _) = server_sink(&listeners, endpoint, peers, &metrics).await;
        Self { source, sink, address, metrics }
    }

    /// More than a peer takes that does not read.
    async fn flood(&mut self) {
        let mut failed = Vec::new();
        for index in 0..FLOOD {
            push(&mut self.sink, &mut failed, &[&flood(index)]).await;
        }
        flush(&mut self.sink, &mut failed).await;
    }

    /// A peer with as small a buffer as there is, that is reset when it is dropped.
    async fn dial(&self, tls: Option<&Tls>) -> Peer {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let tcp = soon(socket.connect(self.address)).await.unwrap();
        tcp.set_zero_linger().unwrap();
        // What was said is on its way at once, and not lost with the reset.
        tcp.set_nodelay(true).unwrap();
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => {
                let name = ServerName::from(self.address.ip());
                Box::new(soon(tls.connector().connect(name, tcp)).await.unwrap())
            }
            None => Box::new(tcp),
        };
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let (peer, _) = soon(client_async(format!("{scheme}://{}/", self.address), stream)).await.unwrap();
        until_metric(&self.metrics, OUT, "1").await;
        peer
    }
}

fn flood(index: usize) -> String {
    format!("{index:08} {}", "x".repeat(64 << 10))
}

fn words() -> Vec<String> {
    (0..WORDS).map(|index| format!("word {index}")).collect()
}

/// Says all, a close frame, and is gone.
async fn leave(mut peer: Peer, writing: Writing) {
    let first = (writing == Writing::Pong).then(|| Message::Ping("are you there".into()));
    for message in first.into_iter().chain(words().into_iter().map(Message::from)) {
        soon(peer.feed(message)).await.unwrap();
    }
    let close = CloseFrame { code: 1001.into(), reason: "daily restart".into() };
    soon(peer.feed(Message::Close(Some(close)))).await.unwrap();
    soon(peer.flush()).await.unwrap();
}

async fn says_all_and_leaves(is_tls: bool, writing: Writing, is_held: bool) {
    let what = format!("tls {is_tls}, {writing:?}, held {is_held}");
    let tls = is_tls.then(Tls::new);
    let mut service = Service::open(tls.as_ref(), writing).await;
    if writing == Writing::Replay {
        service.flood().await;
    }
    let mut peer = service.dial(tls.as_ref()).await;
    let mut seen = Seen::default();
    let account = ReplyTracker::new(Peers::default());
    if writing == Writing::Reply {
        soon(peer.send(Message::from("hello"))).await.unwrap();
        fill_until(&mut service.source, &mut seen, |seen| !seen.messages.is_empty()).await;
    }
    if writing == Writing::Flush {
        service.flood().await;
    }
    leave(peer, writing).await;
    match writing {
        Writing::Broadcast => push(&mut service.sink, &mut Vec::new(), &["to all"]).await,
        Writing::Reply => {
            let hello = seen.messages.remove(0);
            let connection = hello.metadata.origin().reply_to().unwrap();
            let pushed = connection.try_send(
                OutgoingReply { frame: message("answer").payload, message: hello.clone(), closing: None },
                &account,
            );
            assert!(matches!(pushed, Enqueued::Taken { dropped: 0 }), "{what}");
        }
        _ => {}
    }
    if is_held {
        tokio::time::pause();
        let _ = tokio::time::timeout(LATER, std::future::pending::<()>()).await;
        tokio::time::resume();
    }
    fill_until(&mut service.source, &mut seen, |seen| seen.messages.len() == WORDS).await;
    assert_eq!(seen.texts(), words(), "{what}");
    until_metric(&service.metrics, OUT, "0").await;
    until_metric(&service.metrics, SOURCE, "0").await;
    assert_eq!(service.source.remaining(), 0, "{what}");
    assert_eq!(metric(&service.metrics, &["tidemill_messages_in_flight{"]), "0", "{what}");
}

#[tokio::test]
async fn what_a_peer_said_before_it_left_arrives_whatever_is_written() {
    for writing in ALL {
        says_all_and_leaves(false, writing, false).await;
    }
}

#[tokio::test]
async fn what_a_peer_said_before_it_left_arrives_through_tls() {
    for writing in ALL {
        says_all_and_leaves(true, writing, false).await;
    }
}

#[tokio::test]
async fn what_a_peer_said_before_it_left_arrives_after_backpressure() {
    for (is_tls, writing) in [false, true].into_iter().flat_map(|is_tls| ALL.map(|each| (is_tls, each))) {
        says_all_and_leaves(is_tls, writing, true).await;
    }
}
