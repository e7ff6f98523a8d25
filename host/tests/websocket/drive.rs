//! What the tests drive ends and peers with. Every wait is for something observable, and bounded.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;
use tidemill::config::{Buffer, Client, Peers};
use tidemill::config::{Endpoint, Mode, Server, WebSocketSink, WebSocketSource};
use tidemill::connections::{Connections, OpenEndpoint};
use tidemill::message::metadata::Metadata;
use tidemill::message::{Failed, Message, Payload};
use tidemill::sink::Sink;
use tidemill::source::{Fill, Room, Source};
use tidemill::websocket::Listeners;
pub(crate) use tidemill_tests::sockets::{
    accept, pong, received, server as listener, soon, text as next_text,
};
use tidemill_tests::sockets::{closed, nobody, until};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async};

pub(crate) type Peer = WebSocketStream<TcpStream>;

/// Nobody listens here.
pub(crate) async fn dead_url() -> String {
    format!("ws://{}/feed", nobody().await)
}

/// Connects to a server endpoint.
pub(crate) async fn dial(address: std::net::SocketAddr, path: &str) -> Peer {
    let tcp = TcpStream::connect(address).await.expect("it listens");
    let url = format!("ws://{address}{path}");
    let (peer, _) = soon(async { client_async(url, tcp).await }).await.expect("a handshake");
    peer
}

/// The code of the close frame a peer gets.
pub(crate) async fn close_code(peer: &mut Peer) -> u16 {
    closed(peer).await.0
}

/// Polls a future and a peer's answer together.
pub(crate) async fn with_source<T>(
    source: &mut Source,
    seen: &mut Seen,
    other: impl Future<Output = T>,
) -> T {
    let mut other = std::pin::pin!(other);
    soon(poll_fn(|cx| {
        while let Poll::Ready(fill) = source.poll_fill(cx, &mut seen.messages, ROOM, &mut seen.failed) {
            if matches!(fill, Fill::Failed(_) | Fill::Ended) {
                seen.end = Some(fill);
                break;
            }
        }
        other.as_mut().poll(cx)
    }))
    .await
}

pub(crate) const ROOM: Room = Room { messages: usize::MAX, bytes: usize::MAX };

/// What came out of a source.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) messages: Vec<Message>,
    pub(crate) failed: Vec<Failed>,
    pub(crate) end: Option<Fill>,
}

impl Seen {
    pub(crate) fn texts(&self) -> Vec<String> {
        self.messages.iter().map(|m| String::from_utf8_lossy(m.payload.as_bytes()).into_owned()).collect()
    }
}

/// Polls a source until what it gave meets a condition.
pub(crate) async fn fill_until(source: &mut Source, seen: &mut Seen, done: impl Fn(&Seen) -> bool) {
    soon(poll_fn(|cx| {
        loop {
            if done(seen) {
                return Poll::Ready(());
            }
            match source.poll_fill(cx, &mut seen.messages, ROOM, &mut seen.failed) {
                Poll::Ready(end @ (Fill::Failed(_) | Fill::Ended)) => {
                    seen.end = Some(end);
                    return Poll::Ready(());
                }
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }))
    .await;
}

/// Polls a sink while something else happens.
pub(crate) async fn with_sink<T>(
    sink: &mut Sink,
    failed: &mut Vec<Failed>,
    other: impl Future<Output = T>,
) -> T {
    let mut other = std::pin::pin!(other);
    soon(poll_fn(|cx| {
        let _ = sink.poll_flush(cx, failed);
        other.as_mut().poll(cx)
    }))
    .await
}

/// Pushes texts as the pipeline does: when there is room.
pub(crate) async fn push(sink: &mut Sink, failed: &mut Vec<Failed>, texts: &[&str]) {
    for text in texts {
        soon(poll_fn(|cx| {
            sink.poll_drive(cx, failed);
            sink.poll_ready(cx)
        }))
        .await;
        sink.push(message(text), failed);
    }
}

pub(crate) async fn flush(sink: &mut Sink, failed: &mut Vec<Failed>) {
    soon(poll_fn(|cx| sink.poll_flush(cx, failed))).await;
}

pub(crate) fn message(text: &str) -> Message {
    Message { payload: Payload::text(text), metadata: Metadata::without_origin(0) }
}

/// The value of a metric's line that contains all of `parts`; "0" if there is none.
pub(crate) fn metric(metrics: &Metrics, parts: &[&str]) -> String {
    let text = metrics.encode();
    let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
    line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0").to_owned()
}

/// A client endpoint that reconnects quickly.
pub(crate) fn client_endpoint(url: &str) -> Endpoint {
    let mut endpoint = Endpoint::client(url);
    let client = client_of(&mut endpoint);
    client.reconnect.delay = Duration::from_millis(5);
    client.reconnect.max_delay = Duration::from_millis(20);
    endpoint
}

pub(crate) fn client_of(endpoint: &mut Endpoint) -> &mut Client {
    match &mut endpoint.mode {
        Mode::Client(client) => client,
        Mode::Server(_) => panic!("a client endpoint"),
    }
}

pub(crate) fn server_endpoint(path: &str) -> Endpoint {
    Endpoint::server(path, &Server { port: 0, ..Server::default() })
}

pub(crate) fn source_of(endpoint: Endpoint, metrics: &Metrics) -> Source {
    client_source(source_config(endpoint), metrics)
}

pub(crate) fn source_config(endpoint: Endpoint) -> WebSocketSource {
    WebSocketSource::new(endpoint)
}

pub(crate) fn client_source(mut config: WebSocketSource, metrics: &Metrics) -> Source {
    let client = client_of(&mut config.endpoint).clone();
    let metrics = metrics.endpoint("p", "source");
    Source::Dialled(Box::new(tidemill::source::DialledSource::new(&config, &client, None, true, metrics)))
}

pub(crate) fn sink_of(endpoint: Endpoint, buffer: Buffer, metrics: &Metrics) -> Sink {
    client_sink(sink_config(endpoint, buffer, Peers::default()), metrics)
}

pub(crate) fn client_sink(mut config: WebSocketSink, metrics: &Metrics) -> Sink {
    let client = client_of(&mut config.endpoint).clone();
    let (sink, endpoint) = (metrics.sink("p", "out"), metrics.endpoint("p", "out"));
    Sink::Dialled(Box::new(tidemill::sink::DialledSink::new(&config, &client, None, sink, endpoint)))
}

pub(crate) fn sink_config(endpoint: Endpoint, buffer: Buffer, peers: Peers) -> WebSocketSink {
    WebSocketSink { buffer, peers, ..WebSocketSink::new(endpoint) }
}

/// A server sink on a free port, and its address.
pub(crate) async fn server_sink(
    listeners: &Listeners,
    endpoint: Endpoint,
    peers: Peers,
    metrics: &Metrics,
) -> (Sink, std::net::SocketAddr) {
    open_sink(listeners, sink_config(endpoint, Buffer::default(), peers), metrics).await
}

pub(crate) async fn open_sink(
    listeners: &Listeners,
    config: WebSocketSink,
    metrics: &Metrics,
) -> (Sink, std::net::SocketAddr) {
    let Mode::Server(listen) = config.endpoint.mode.clone() else { panic!("a server endpoint") };
    let (sink, endpoint) = (metrics.sink("p", "out"), metrics.endpoint("p", "out"));
    let server = tidemill::sink::AcceptedSink::open(&config, &listen, listeners, sink, endpoint);
    let server = server.await.expect("a free port");
    let address = server.local_address();
    (Sink::Accepted(server), address)
}

/// A server source on a free port, and its address.
pub(crate) async fn server_source(
    listeners: &Listeners,
    endpoint: Endpoint,
    metrics: &Metrics,
) -> (Source, std::net::SocketAddr) {
    open_source(listeners, source_config(endpoint), metrics).await
}

pub(crate) async fn open_source(
    listeners: &Listeners,
    config: WebSocketSource,
    metrics: &Metrics,
) -> (Source, std::net::SocketAddr) {
    let Mode::Server(listen) = config.endpoint.mode.clone() else { panic!("a server endpoint") };
    let endpoint = metrics.endpoint("p", "source");
    let server = tidemill::source::AcceptedSource::open(&config, &listen, listeners, true, endpoint);
    let server = server.await.expect("a free port");
    let address = server.local_address();
    let source = Source::Accepted(Box::new(server));
    source.start();
    (source, address)
}

/// The metrics and the table of connections of a host, without the host.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counters: tidemill::telemetry::Metrics,
    connections: Connections,
}

impl Metrics {
    /// An endpoint that is shown in the table and counts.
    pub(crate) fn endpoint(&self, pipeline: &str, endpoint: &str) -> OpenEndpoint {
        self.connections.open(self.counters.endpoint(pipeline, endpoint))
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }
}

impl std::ops::Deref for Metrics {
    type Target = tidemill::telemetry::Metrics;

    fn deref(&self) -> &Self::Target {
        &self.counters
    }
}

/// Waits until a line of the metrics that contains all of `parts` has a value.
pub(crate) async fn until_metric(metrics: &Metrics, parts: &[&str], value: &str) {
    until(|| metric(metrics, parts) == value).await;
}

/// Waits until the table of connections says that so many messages were sent on each of an endpoint.
pub(crate) async fn until_sent(metrics: &Metrics, endpoint: &str, wanted: &[u64]) {
    let sent = || -> Vec<u64> {
        let rows = metrics.connections().list();
        let row = rows.iter().find(|row| row.endpoint == endpoint).expect("an endpoint");
        row.connections.iter().map(|each| each.connected.totals().sent_messages).collect()
    };
    until(|| sent() == wanted).await;
}
