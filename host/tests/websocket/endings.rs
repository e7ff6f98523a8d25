//! How connections to a server endpoint end, as the peer sees it: every close code, in a frame that is
//! not lost.

use crate::drive::{
    self, Metrics, Seen, accept, client_endpoint, close_code, dial, fill_until, listener, received,
    server_endpoint, server_sink, server_source, soon, with_source,
};
use futures_util::{SinkExt, StreamExt};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;
use tidemill::config::{Endpoint, Peers, Ping};
use tidemill::reason::Reason;
use tidemill::source::Source;
use tidemill::websocket::Listeners;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const HANDSHAKE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// Of a masked frame; with this mask the payload is as it is.
const NO_MASK: [u8; 4] = [0; 4];

/// A peer that sends bytes, whatever they mean.
async fn raw(address: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(address).await.expect("it listens");
    tcp.write_all(HANDSHAKE).await.expect("it reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(tcp.read_u8()).await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    tcp
}

/// A short frame: its first byte, and what it carries.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short frame") | 0x80;
    [&[first, length][..], &NO_MASK, payload].concat()
}

/// The head of a binary frame that says it is this long.
fn head_of_long_frame(length: u64) -> Vec<u8> {
    [&[0x82, 0xff][..], &length.to_be_bytes(), &NO_MASK].concat()
}

/// The code of the close frame that comes next but for pings, and then the end of the stream.
async fn raw_close_code(tcp: &mut TcpStream) -> u16 {
    loop {
        let (first, length) =
            (soon(tcp.read_u8()).await.expect("a frame"), tcp.read_u8().await.expect("a frame"));
        let mut payload = vec![0; usize::from(length)];
        soon(tcp.read_exact(&mut payload)).await.expect("a frame");
        match first {
            0x89 => {}
            0x88 => {
                assert_eq!(soon(tcp.read(&mut [0])).await.expect("no reset"), 0, "nothing comes after it");
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
            other => panic!("unexpected: {other:#x}"),
        }
    }
}

async fn source_of(endpoint: Endpoint) -> (Source, SocketAddr) {
    server_source(&Listeners::default(), endpoint, &Metrics::default()).await
}

#[tokio::test]
async fn an_idle_peer_is_closed_with_1000() {
    let mut endpoint = server_endpoint("/");
    endpoint.idle_timeout = Some(Duration::from_millis(40));
    let (_source, address) = source_of(endpoint).await;
    assert_eq!(close_code(&mut dial(address, "/").await).await, 1000);
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_closed_with_1002() {
    let (_source, address) = source_of(server_endpoint("/")).await;
    let unmasked = vec![0x81, 1, b'x'];
    let reserved_bit = frame(0xc1, b"x");
    let reserved_opcode = frame(0x83, b"x");
    let continuation_of_nothing = frame(0x80, b"x");
    let fragmented_ping = frame(0x09, b"x");
    for bytes in [unmasked, reserved_bit, reserved_opcode, continuation_of_nothing, fragmented_ping] {
        let mut peer = raw(address).await;
        peer.write_all(&bytes).await.expect("it reads");
        assert_eq!(raw_close_code(&mut peer).await, 1002, "{bytes:x?}");
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_closed_with_1007() {
    let (_source, address) = source_of(server_endpoint("/")).await;
    let mut peer = raw(address).await;
    peer.write_all(&frame(0x81, b"\xff")).await.expect("it reads");
    assert_eq!(raw_close_code(&mut peer).await, 1007);
}

#[tokio::test]
async fn a_message_too_large_is_closed_with_1009_and_counted_and_what_comes_after_it_is_read() {
    let mut endpoint = server_endpoint("/");
    endpoint.max_message_size_bytes = 1 << 10;
    let (mut source, address) = source_of(endpoint).await;
    let mut peer = raw(address).await;
    let rest = 900 << 10;
    peer.write_all(&head_of_long_frame(rest)).await.expect("it reads");
    // All of it is on its way before the peer looks for an answer: a socket that were closed with it
    // unread would be reset, and the close frame lost.
    peer.write_all(&vec![0; usize::try_from(rest).expect("it fits")]).await.expect("it is read still");
    assert_eq!(raw_close_code(&mut peer).await, 1009);
    drop(peer);
    let mut seen = Seen::default();
    fill_until(&mut source, &mut seen, |seen| !seen.failed.is_empty()).await;
    assert_eq!(seen.failed[0].reason, Reason::TooLarge);
}

#[tokio::test]
async fn a_peer_that_goes_on_sending_after_our_close_frame_is_hung_up_on() {
    let mut endpoint = server_endpoint("/");
    endpoint.max_message_size_bytes = 1 << 10;
    let (_source, address) = source_of(endpoint).await;
    let mut peer = raw(address).await;
    peer.write_all(&head_of_long_frame(1 << 40)).await.expect("it reads");
    let chunk = vec![0; 64 << 10];
    let sent = async {
        let mut sent = 0_usize;
        while peer.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
        sent
    };
    // 1 MiB is read in vain, and sockets hold some more.
    assert!(soon(sent).await < 64 << 20);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_closed_with_1011() {
    let mut endpoint = server_endpoint("/");
    endpoint.ping = Some(Ping { interval: Duration::from_millis(20), timeout: Duration::from_millis(40) });
    let (_source, address) = source_of(endpoint).await;
    assert_eq!(raw_close_code(&mut raw(address).await).await, 1011);
}

#[tokio::test]
async fn the_code_that_an_endpoint_stops_with_is_what_its_peers_see() {
    for code in [1001, 1011] {
        let (mut source, address) = source_of(server_endpoint("/")).await;
        let mut peer = dial(address, "/").await;
        let close = poll_fn(|cx| source.poll_close(cx, code));
        let (_, seen) = soon(async {
            tokio::join!(close, async {
                let seen = close_code(&mut peer).await;
                drop(peer);
                seen
            })
        })
        .await;
        assert_eq!(seen, code);
    }
}

#[tokio::test]
async fn the_close_code_of_a_peer_is_answered_with_the_same() {
    let (_sink, address) =
        server_sink(&Listeners::default(), server_endpoint("/"), Peers::default(), &Metrics::default()).await;
    let mut peer = raw(address).await;
    peer.write_all(&frame(0x88, &4321_u16.to_be_bytes())).await.expect("it reads");
    assert_eq!(raw_close_code(&mut peer).await, 4321);
    let mut peer = dial(address, "/").await;
    soon(peer.send(Message::Close(None))).await.expect("it reads");
    // One without a code is answered by one without a code (RFC 6455, 5.5.1), and that is the end.
    let answer = received(&mut peer).await;
    assert_eq!(answer, Message::Close(None));
    assert!(soon(peer.next()).await.is_none(), "nothing comes after it");
}

#[tokio::test]
async fn a_peer_that_answers_a_close_frame_is_not_waited_for_to_hang_up() {
    let (mut source, address) = source_of(server_endpoint("/")).await;
    let mut peer = raw(address).await;
    peer.write_all(&frame(0x81, b"hello")).await.expect("it reads");
    fill_until(&mut source, &mut Seen::default(), |seen| !seen.messages.is_empty()).await;
    // From here on time passes whenever there is nothing left to wait for but time.
    tokio::time::pause();
    let closing = poll_fn(|cx| source.poll_close(cx, 1001));
    let answering = async {
        let code = raw_close_code(&mut peer).await;
        // Something was on its way still; then comes the answer, and the socket stays open.
        let last = [frame(0x81, b"late"), frame(0x88, &code.to_be_bytes())].concat();
        peer.write_all(&last).await.expect("it reads");
        tokio::time::Instant::now()
    };
    let (closed, answered) =
        soon(async { tokio::join!(async { (closing.await, tokio::time::Instant::now()).1 }, answering) })
            .await;
    // It would be five seconds for one that does not answer.
    assert!(closed - answered < Duration::from_secs(4), "{:?}", closed - answered);
    drop(peer);
}

#[tokio::test]
async fn a_peer_that_never_hangs_up_is_left_after_five_seconds() {
    let (mut accepting, address) = source_of(server_endpoint("/")).await;
    let (listener, url) = listener().await;
    let mut dialling = drive::source_of(client_endpoint(&url), &Metrics::default());
    let mut dialled = with_source(&mut dialling, &mut Seen::default(), accept(&listener)).await;
    let mut accepted = raw(address).await;
    // Both ends know that they are connected.
    soon(dialled.send(Message::text("hello"))).await.expect("it reads");
    accepted.write_all(&frame(0x81, b"hello")).await.expect("it reads");
    for source in [&mut accepting, &mut dialling] {
        fill_until(source, &mut Seen::default(), |seen| !seen.messages.is_empty()).await;
    }
    // From here on time passes whenever there is nothing left to wait for but time.
    tokio::time::pause();
    for source in [&mut accepting, &mut dialling] {
        let start = tokio::time::Instant::now();
        soon(poll_fn(|cx| source.poll_close(cx, 1001))).await;
        let waited = start.elapsed();
        assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6), "{waited:?}");
    }
    tokio::time::resume();
    assert_eq!(raw_close_code(&mut accepted).await, 1001);
    assert_eq!(close_code(&mut dialled).await, 1001);
}
