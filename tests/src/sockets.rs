//! Sockets of a test's own, held in its hand: servers that accept when they are told to, and what a peer is
//! sent. Every wait is bounded.

use crate::host::{Ended, Host, LOOK_INTERVAL, PATIENCE};
use futures_util::StreamExt;
use futures_util::future::join_all;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// What happens soon.
///
/// # Panics
/// If it does not happen in time.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens soon")
}

/// Looks again and again until something is so. Between two looks other tasks run; the clock of a test that
/// has paused it stands still.
///
/// # Panics
/// If it is not so in time.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "it is so soon");
        let pause = tokio::task::spawn_blocking(|| std::thread::sleep(LOOK_INTERVAL));
        pause.await.expect("sleeping does not panic");
    }
}

/// A server of our own making, which accepts when it is told to, and its url.
///
/// # Panics
/// If there is no free port.
pub async fn server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let url = format!("ws://{}/feed", listener.local_addr().expect("it is bound"));
    (listener, url)
}

/// An address where nobody listens.
///
/// # Panics
/// If there is no free port.
pub async fn nobody() -> SocketAddr {
    server().await.0.local_addr().expect("it is bound")
}

/// The next WebSocket connection that comes.
///
/// # Panics
/// If none comes in time, or something else than a handshake.
pub async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (tcp, _) = soon(listener.accept()).await.expect("a connection");
    tcp.set_nodelay(true).expect("TCP has this option");
    soon(accept_async(tcp)).await.expect("a handshake")
}

/// The next message that a peer gets, but for pings and pongs: a host pings who says nothing for long.
///
/// # Panics
/// If the connection ends, or nothing comes in time.
pub async fn received<S>(peer: &mut WebSocketStream<S>) -> Message
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match soon(peer.next()).await.expect("a message before the end").expect("sound frames") {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

/// The next text that a peer gets.
///
/// # Panics
/// If something else comes, or nothing in time.
pub async fn text<S>(peer: &mut WebSocketStream<S>) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match received(peer).await {
        Message::Text(text) => text.to_string(),
        other => panic!("not a text: {other:?}"),
    }
}

/// The answer to a ping of a peer's own, whatever comes before it.
///
/// # Panics
/// If the connection ends, or it does not come in time.
pub async fn pong<S>(peer: &mut WebSocketStream<S>) -> Message
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let next = soon(peer.next()).await.expect("a pong before the end").expect("sound frames");
        if next.is_pong() {
            return next;
        }
    }
}

/// Reads until a close frame comes: its code and its reason.
///
/// # Panics
/// If the connection ends without one, or it has no code.
pub async fn closed<S>(peer: &mut WebSocketStream<S>) -> (u16, String)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let next = soon(peer.next()).await.expect("a close frame before the end").expect("sound frames");
        if let Message::Close(frame) = next {
            let frame = frame.expect("a close frame with a code");
            return (frame.code.into(), frame.reason.to_string());
        }
    }
}

/// Reads to the end of the connection, so that a close frame is answered: its code, if it had one.
pub async fn close_code_at_the_end<S>(mut peer: WebSocketStream<S>) -> Option<u16>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut code = None;
    while let Some(Ok(message)) = peer.next().await {
        if let Message::Close(frame) = message {
            code = frame.map(|frame| frame.code.into());
        }
    }
    code
}

/// Stops a host whose peers answer its close frames.
///
/// # Panics
/// If it does not end in time.
pub async fn stopped<S>(host: Host, peers: impl IntoIterator<Item = WebSocketStream<S>>) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stopping = tokio::task::spawn_blocking(|| host.stop());
    join_all(peers.into_iter().map(close_code_at_the_end)).await;
    stopping.await.expect("stopping does not panic")
}
