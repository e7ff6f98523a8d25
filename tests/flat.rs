//! A thousand connections come and go, dialled and accepted, in order and by reset: descriptors and
//! threads of the host stay as many as they were, and its memory is bounded.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::SinkExt;
use std::time::Duration;
use tidemill_tests::host::{Folder, Host};
use tidemill_tests::peers::{dial, plain};
use tidemill_tests::sockets::{accept, close_code_at_the_end, text};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const RECONNECTIONS: usize = 1000;
/// Until then, pools and caches fill.
const WARM_UP: usize = 200;
/// What the allocator keeps to itself varies.
const MOST_GROWTH_BYTES: u64 = 8 << 20;

/// What may come and go at any moment: a connection that is being made, a thread that reads a file.
const PASSING: usize = 4;

/// What the host holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    memory_bytes: u64,
}

fn held(host: &Host) -> Held {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", host.id())).unwrap().count();
    Held { descriptors: count("fd"), threads: count("task"), memory_bytes: host.resident_bytes() }
}

/// Compares what the host holds with what it held before, once what is on its way out is gone.
fn is_flat(host: &Host, before: &Held) {
    host.wait_until(&format!("it holds no more than {before:?}"), |_| {
        let now = held(host);
        now.descriptors <= before.descriptors + PASSING && now.threads <= before.threads + PASSING
    });
    let now = held(host);
    assert!(now.memory_bytes <= before.memory_bytes + MOST_GROWTH_BYTES, "{before:?} {now:?}");
}

/// Ends a connection in order, or by a reset.
async fn leave<S>(mut socket: WebSocketStream<S>, tcp: impl Fn(&S) -> &TcpStream, resets: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if resets {
        rustix::net::sockopt::set_socket_linger(tcp(socket.get_ref()), Some(Duration::ZERO)).unwrap();
        return;
    }
    socket.close(None).await.unwrap();
    close_code_at_the_end(socket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_peers_leave_nothing_behind() {
    let folder = Folder::default();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/echo" }
        sinks = [{ type = "reply" }]
        "#,
    );
    let address = host.listening("websocket");
    let mut before = held(&host);
    for n in 0..WARM_UP + RECONNECTIONS {
        if n == WARM_UP {
            before = held(&host);
        }
        let mut peer = dial(address, "/echo").await;
        peer.send(Message::text("one")).await.unwrap();
        assert_eq!(text(&mut peer).await, "one");
        leave(peer, plain, n % 2 == 1).await;
    }
    is_flat(&host, &before);
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_reconnections_leave_nothing_behind() {
    let folder = Folder::default();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "ws://{address}/", reconnect = {{ delay = "1ms", max_delay = "1ms" }} }}
        sinks = [{{ type = "reply" }}]
        "#,
    ));
    let mut before = held(&host);
    for n in 0..WARM_UP + RECONNECTIONS {
        if n == WARM_UP {
            before = held(&host);
        }
        let mut socket = accept(&server).await;
        socket.send(Message::text("one")).await.unwrap();
        assert_eq!(text(&mut socket).await, "one");
        leave(socket, |tcp| tcp, n % 2 == 1).await;
    }
    is_flat(&host, &before);
    assert!(host.stop().status.success());
}
