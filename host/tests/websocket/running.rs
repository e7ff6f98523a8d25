//! A pipeline without plugins that runs, and peers that hinder it at its stop.

use crate::drive::{Metrics, Peer, server_endpoint, server_source, soon};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;
use tidemill::config::{Outputs, Peers, ReplySink};
use tidemill::pipeline::{self, Control, Ended, Ending, Parts, Persistence};
use tidemill::sink::{Replies, Sink};
use tidemill::source::Source;
use tidemill::websocket::Listeners;
use tidemill_tests::sockets::until;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::client_async;

/// More than a socket takes whose peer has hardly a buffer.
pub(crate) const FLOOD: usize = 90;

pub(crate) fn flood(index: usize) -> String {
    format!("{index:08} {}", "x".repeat(64 << 10))
}

/// A peer with as small a buffer as there is.
pub(crate) async fn dial_slow(address: SocketAddr) -> Peer {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it is not connected");
    let tcp = soon(socket.connect(address)).await.expect("it listens");
    soon(client_async(format!("ws://{address}/"), tcp)).await.expect("a handshake").0
}

/// A pipeline that runs.
pub(crate) struct Running {
    control: mpsc::Sender<Control>,
    pub(crate) line: JoinHandle<Ended>,
}

impl Running {
    /// Each sink takes everything.
    pub(crate) fn new(source: Source, sinks: Vec<(&str, Sink)>, metrics: &Metrics) -> Self {
        let sinks = sinks.into_iter().map(|(name, sink)| (name.into(), Outputs::All, sink)).collect();
        let persistence = Persistence::KeepsGoing;
        let parts = Parts {
            name: "p".into(),
            source,
            transforms: Vec::new(),
            sinks,
            dead_letter: None,
            kept: None,
            persistence,
            durable: None,
        };
        let (line, control) = pipeline::build(parts, metrics);
        Self { control, line: tokio::spawn(line.run(|| ())) }
    }

    /// Peers get back what they send.
    pub(crate) async fn answering(peers: Peers, metrics: &Metrics) -> (Self, SocketAddr) {
        let listeners = Listeners::default();
        let (source, address) = server_source(&listeners, server_endpoint("/"), metrics).await;
        let endpoint = server_endpoint("/");
        let listen = endpoint.listen().expect("a server endpoint");
        let (of_sink, of_endpoint) = (metrics.sink("p", "back"), metrics.endpoint("p", "back"));
        let config = ReplySink { peers, ..ReplySink::default() };
        let sink = Replies::accepted(&config, &endpoint, listen, &listeners, of_sink, of_endpoint).await;
        let sink = Sink::Reply(sink.expect("it listens"));
        (Self::new(source, vec![("back", sink)], metrics), address)
    }

    /// Begins to stop; answers when it would be too late.
    pub(crate) async fn stop(&self) -> Instant {
        self.stop_within(Duration::from_secs(16)).await
    }

    pub(crate) async fn stop_within(&self, grace: Duration) -> Instant {
        let deadline = Instant::now() + grace;
        self.control.send(Control::Stop { deadline }).await.expect("it runs");
        deadline
    }

    /// It has ended before it would be too late: a third of the time is left for a machine that stands still.
    pub(crate) async fn ended(self, deadline: Instant) {
        let ended = soon(self.line).await.expect("no panic");
        assert_eq!((ended.ending, ended.given_up), (Ending::Stopped, None));
        assert!(Instant::now() < deadline, "it took as long as it could");
    }
}

/// How many messages were read of each peer of a pipeline's source that is still there.
pub(crate) fn received(metrics: &Metrics, pipeline: &str) -> Vec<u64> {
    let rows = metrics.connections().list();
    let of_source = rows.iter().filter(|row| row.endpoint == "source" && row.pipeline == pipeline);
    let connections = of_source.flat_map(|row| &row.connections);
    connections.map(|each| each.connected.totals().received_messages).collect()
}

/// Waits until so many messages were read of the peers of the source.
pub(crate) async fn until_received(metrics: &Metrics, wanted: u64) {
    until(|| received(metrics, "p").iter().sum::<u64>() >= wanted).await;
}

pub(crate) async fn close_source(source: &mut Source) {
    soon(poll_fn(|cx| source.poll_close(cx, 1001))).await;
}
