//! What the tests here share: a pipeline from one socket to another, a server that does as it is told,
//! and the rule that every message is accounted for.

use futures_util::StreamExt;
use std::net::SocketAddr;
use tidemill_tests::host::{Counted, Host, PATIENCE};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// Dial again at once.
pub(crate) const QUICK: &str = "reconnect = { delay = \"5ms\", max_delay = \"20ms\" }";

/// A pipeline without transforms; the keys of its source and of its sink, but for their type.
pub(crate) fn pipeline(source: &str, sink: &str) -> String {
    format!(
        "[[pipelines]]\nname = \"p\"\nsource = {{ type = \"websocket\", {source} }}\n\
         sinks = [{{ type = \"websocket\", name = \"out\", {sink} }}]\n"
    )
}

/// A server of our own making, which accepts when it is told to.
pub(crate) async fn server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/feed", listener.local_addr().unwrap());
    (listener, url)
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// The next WebSocket connection that comes.
pub(crate) async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (tcp, _) = soon(listener.accept()).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    soon(accept_async(tcp)).await.unwrap()
}

/// What happens soon, or the test fails.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens soon")
}

/// The close frame that a peer gets: its code and its reason.
pub(crate) async fn closed<S>(peer: &mut WebSocketStream<S>) -> (u16, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        let next = soon(peer.next()).await.expect("a close frame before the end").expect("sound frames");
        if let Message::Close(frame) = next {
            let frame = frame.expect("with a code");
            return (frame.code.into(), frame.reason.to_string());
        }
    }
}

/// Waits for a line of the log that contains this text, in whatever field.
pub(crate) fn says(host: &Host, text: &str) {
    host.logged(text, |fields| {
        let mut values = fields.as_object()?.values();
        values.any(|value| value.as_str().is_some_and(|value| value.contains(text))).then_some(())
    });
}

/// How often an endpoint tried to connect, with this outcome.
pub(crate) fn connects(now: &Counted, endpoint: &str, outcome: &str) -> u64 {
    let (endpoint, outcome) = (format!("endpoint=\"{endpoint}\""), format!("outcome=\"{outcome}\""));
    now.count("tidemill_connects_total", &[&endpoint, &outcome])
}

/// Whether an endpoint is in a state.
pub(crate) fn is_in(now: &Counted, endpoint: &str, state: &str) -> bool {
    let (endpoint, state) = (format!("endpoint=\"{endpoint}\""), format!("state=\"{state}\""));
    now.count("tidemill_connections", &[&endpoint, &state]) == 1
}

/// Waits until so many messages were received and every one of them has come to a named end.
pub(crate) fn accounted_for(host: &Host, received: u64) -> Counted {
    host.wait_until(&format!("{received} messages are accounted for"), |now| {
        let dead_lettered = now.count("tidemill_messages_dead_lettered_total", &[]);
        // The sink of the dead letters delivers, and does not deliver a message of the source.
        let of_dead_letters = now.count("tidemill_messages_delivered_total", &["sink=\"dead_letter\""]);
        let delivered = now.count("tidemill_messages_delivered_total", &[]) - of_dead_letters;
        let ended = delivered + dead_lettered + now.count("tidemill_messages_dropped_total", &[]);
        now.count("tidemill_messages_received_total", &[]) == received
            && now.count("tidemill_messages_in_flight", &[]) == 0
            && ended == received
    })
}
