//! Frames that are wrong or too large: the peer is told why, the user too, and what follows goes on.

use crate::drive::{QUICK, accept, accounted_for, closed, connects, pipeline, received, server, text};
use futures_util::SinkExt;
use tidemill_tests::host::{Folder, Host};
use tidemill_tests::peers::{Collector, Feed, Received, dial};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// A host that dials a peer, and a collector of what comes through.
struct Flow {
    host: Host,
    listener: TcpListener,
    peer: WebSocketStream<TcpStream>,
    collector: Collector,
    url: String,
    _folder: Folder,
}

async fn flow(keys: &str) -> Flow {
    let folder = Folder::default();
    let (listener, url) = server().await;
    let collector = Collector::open().await;
    let source = format!("url = \"{url}\", {QUICK}, {keys}");
    let host = folder.run(&pipeline(&source, &format!("url = \"{}\"", collector.url())));
    let peer = accept(&listener).await;
    Flow { host, listener, peer, collector, url, _folder: folder }
}

impl Flow {
    /// Sends on a new connection, which must be there.
    async fn goes_on(&mut self) {
        self.peer = accept(&self.listener).await;
        self.peer.send(Message::text("and on")).await.unwrap();
        assert_eq!(self.collector.text().await, "and on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_counted_and_closes_with_1009() {
    let mut flow = flow("max_message_size = \"1KiB\"").await;
    flow.peer.send(Message::text("x".repeat(1024))).await.unwrap();
    assert_eq!(flow.collector.text().await.len(), 1024, "the limit itself is allowed");
    flow.peer.send(Message::text("x".repeat(1025))).await.unwrap();
    assert_eq!(closed(&mut flow.peer).await, (1009, "larger than 1024 bytes".to_owned()));
    flow.host.says("a message of 1025 bytes is larger than max_message_size (1024 bytes)");
    flow.goes_on().await;
    let now = accounted_for(&flow.host, 3);
    let labels = ["stage=\"source\"", "reason=\"too_large\""];
    assert_eq!(now.count("tidemill_messages_dropped_total", &labels), 1);
}

/// Gets a message, then sends one of more than a sink's peers may send.
async fn says_too_much<S: AsyncRead + AsyncWrite + Unpin>(feed: &Feed, peer: &mut WebSocketStream<S>) {
    feed.text("before").await;
    assert_eq!(text(peer).await, "before");
    peer.send(Message::text("x".repeat(1025))).await.unwrap();
    assert_eq!(closed(peer).await, (1009, "larger than 1024 bytes".to_owned()));
}

/// The sink was given this message alone, and what its peer has said is counted beside.
fn counts_what_its_peer_has_said_apart(host: &Host) {
    let now = accounted_for(host, 1);
    assert_eq!(now.count("tidemill_messages_delivered_total", &["sink=\"out\""]), 1);
    assert_eq!(now.count("tidemill_messages_dropped_total", &[]), 0);
    // The peer may know of its close frame first.
    let of_peers = ["sink=\"out\"", "reason=\"too_large\""];
    host.wait_until("it is counted and shown", |now| {
        let (_, connections) = host.get("/api/v1/connections");
        now.count("tidemill_peer_messages_dropped_total", &of_peers) == 1
            && connections.contains("a message of 1025 bytes is larger than max_message_size")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_sends_to_a_sink_is_none_of_the_sinks_messages_and_too_much_of_it_closes_with_1009() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let (listener, url) = server().await;
    let source = format!("url = \"{}\", {QUICK}", feed.url());
    let host =
        folder.run(&pipeline(&source, &format!("url = \"{url}\", max_message_size = \"1KiB\", {QUICK}")));
    says_too_much(&feed, &mut accept(&listener).await).await;
    counts_what_its_peer_has_said_apart(&host);

    let folder = Folder::default();
    let feed = Feed::open().await;
    let source = format!("url = \"{}\", {QUICK}", feed.url());
    let sink = "mode = \"server\", path = \"/out\", max_message_size = \"1KiB\"";
    let host = folder.run(&format!("[server]\nport = 0\n\n{}", pipeline(&source, sink)));
    let mut reader = dial(host.listening("websocket"), "/out").await;
    says_too_much(&feed, &mut reader).await;
    counts_what_its_peer_has_said_apart(&host);
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_that_add_up_to_too_much_close_with_1009() {
    let mut flow = flow("max_message_size = \"1KiB\"").await;
    for n in 0..3 {
        let kind = if n == 0 { Data::Binary } else { Data::Continue };
        let frame = Frame::message(vec![0; 500], OpCode::Data(kind), false);
        flow.peer.send(Message::Frame(frame)).await.unwrap();
    }
    assert_eq!(closed(&mut flow.peer).await.0, 1009);
    flow.goes_on().await;
    let now = accounted_for(&flow.host, 2);
    assert_eq!(now.count("tidemill_messages_dropped_total", &["reason=\"too_large\""]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf_8_closes_with_1007() {
    let mut flow = flow("codec = \"auto\"").await;
    let frame = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    flow.peer.send(Message::Frame(frame)).await.unwrap();
    assert_eq!(closed(&mut flow.peer).await.0, 1007);
    flow.host
        .says(&format!("connection to WebSocket {} was given up: the peer broke the protocol", flow.url));
    flow.goes_on().await;
    let now = accounted_for(&flow.host, 1);
    assert_eq!(connects(&now, "source", "connected"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_against_the_protocol_closes_with_1002() {
    let mut flow = flow("codec = \"auto\"").await;
    // Opcode 11 is reserved (RFC 6455, 5.2).
    flow.peer.get_mut().write_all(&[0x8b, 0]).await.unwrap();
    assert_eq!(closed(&mut flow.peer).await.0, 1002);
    flow.goes_on().await;
    accounted_for(&flow.host, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_stays_binary_and_text_text_in_both_roles() {
    let folder = Folder::default();
    let host = folder.run(&format!(
        "[server]\nport = 0\n\n{}",
        pipeline("mode = \"server\", path = \"/in\"", "mode = \"server\", path = \"/out\"")
    ));
    let address = host.listening("websocket");
    let mut reader = dial(address, "/out").await;
    let mut writer = dial(address, "/in").await;
    let sent = [Message::binary(vec![0xff, 0, 1]), Message::text("\u{2192}"), Message::binary(Vec::new())];
    for message in &sent {
        writer.send(message.clone()).await.unwrap();
    }
    for message in &sent {
        assert_eq!(received(&mut reader).await, *message);
    }

    let mut flow = flow("codec = \"auto\"").await;
    for message in sent {
        flow.peer.send(message).await.unwrap();
    }
    assert_eq!(flow.collector.received.recv().await, Some(Received::Binary(vec![0xff, 0, 1])));
    assert_eq!(flow.collector.received.recv().await, Some(Received::Text("\u{2192}".to_owned())));
    assert_eq!(flow.collector.received.recv().await, Some(Received::Binary(Vec::new())));
}
