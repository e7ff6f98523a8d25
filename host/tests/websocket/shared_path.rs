//! Several endpoints on one path and one listener: who gets what, who holds whom, and who may go.

use crate::drive::{
    Metrics, Seen, close_code, dial, fill_until, flush, metric, next_text, push, server_endpoint,
    server_sink, server_source, soon, until_metric,
};
use futures_util::SinkExt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Waker};
use std::time::Duration;
use tidemill::config::{Endpoint, Mode, Peers, Ping, SlowPeer};
use tidemill::sink::Sink;
use tidemill::source::{Fill, Source};
use tidemill::websocket::Listeners;
use tokio_tungstenite::tungstenite::Message;

const CONNECTED: &[&str] = &["tidemill_connections{", "\"out\"", "\"connected\""];

/// Far more than the buffers of two sockets hold.
const FLOOD: usize = 400;

fn flood(index: usize) -> String {
    format!("{index:08} {}", "x".repeat(64 << 10))
}

async fn close_source(source: &mut Source) {
    soon(poll_fn(|cx| source.poll_close(cx, 1001))).await;
}

async fn status(address: SocketAddr, path: &str) -> u16 {
    let tcp = tokio::net::TcpStream::connect(address).await.expect("it listens");
    match soon(tokio_tungstenite::client_async(format!("ws://{address}{path}"), tcp)).await {
        Ok(_) => 101,
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn two_sources_of_a_path_each_get_every_message_and_the_slower_holds_the_socket() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut quick, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let (mut slow, _) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut peer = dial(address, "/").await;
    let sender = tokio::spawn(async move {
        for index in 0..FLOOD {
            peer.send(Message::text(flood(index))).await.expect("it is read in the end");
        }
        peer
    });
    // One alone is read until nothing more comes: the other holds the peer.
    let mut seen = Seen::default();
    loop {
        let before = seen.messages.len();
        let more = fill_until(&mut quick, &mut seen, |seen| seen.messages.len() > before);
        if tokio::time::timeout(Duration::from_millis(300), more).await.is_err() {
            break;
        }
    }
    assert!(!sender.is_finished() && seen.messages.len() < FLOOD, "{} came", seen.messages.len());
    let mut other = Seen::default();
    let (mut both_done, mut turns) = (false, 0);
    while !both_done {
        soon(poll_fn(|cx| {
            let one = quick.poll_fill(cx, &mut seen.messages, crate::drive::ROOM, &mut seen.failed);
            let two = slow.poll_fill(cx, &mut other.messages, crate::drive::ROOM, &mut other.failed);
            if one.is_ready() || two.is_ready() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        }))
        .await;
        both_done = seen.messages.len() == FLOOD && other.messages.len() == FLOOD;
        turns += 1;
        assert!(turns < 100 * FLOOD);
    }
    assert_eq!(seen.texts(), other.texts());
    assert!(seen.texts().iter().enumerate().all(|(index, text)| text.starts_with(&format!("{index:08} "))));
    drop(soon(sender).await.expect("it is done"));
}

#[tokio::test]
async fn a_path_without_a_source_reads_and_ignores() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), Peers::default(), &metrics).await;
    let mut peer = dial(address, "/").await;
    until_metric(&metrics, CONNECTED, "1").await;
    for index in 0..FLOOD {
        soon(peer.send(Message::text(flood(index)))).await.expect("it is read");
    }
    let mut failed = Vec::new();
    push(&mut sink, &mut failed, &["still here"]).await;
    flush(&mut sink, &mut failed).await;
    assert_eq!(next_text(&mut peer).await, "still here");
}

#[tokio::test]
async fn the_first_of_two_endpoints_on_a_path_may_stop_and_the_peers_stay_with_the_other() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut first, address) = server_source(&listeners, server_endpoint("/in"), &metrics).await;
    let (mut second, _) = server_source(&listeners, server_endpoint("/in"), &metrics).await;
    let mut peer = dial(address, "/in").await;
    soon(peer.send(Message::text("to both"))).await.expect("it is read");
    let (mut seen, mut other) = (Seen::default(), Seen::default());
    fill_until(&mut first, &mut seen, |seen| seen.messages.len() == 1).await;
    fill_until(&mut second, &mut other, |seen| seen.messages.len() == 1).await;
    close_source(&mut first).await;
    soon(peer.send(Message::text("to one"))).await.expect("it is read");
    fill_until(&mut second, &mut other, |seen| seen.messages.len() == 2).await;
    assert_eq!(other.texts(), ["to both", "to one"]);
    let nothing = &mut Context::from_waker(Waker::noop());
    let filled = first.poll_fill(nothing, &mut seen.messages, crate::drive::ROOM, &mut seen.failed);
    assert!(filled == std::task::Poll::Ready(Fill::Ended) || filled.is_pending());
    assert_eq!(seen.messages.len(), 1);
    let close = close_source(&mut second);
    let reads = async {
        assert_eq!(close_code(&mut peer).await, 1001);
        drop(peer);
    };
    soon(async { tokio::join!(close, reads) }).await;
    tokio::net::TcpListener::bind(address).await.expect("the last has closed the listener");
}

#[tokio::test]
async fn a_path_whose_last_endpoint_has_stopped_is_not_found_while_the_listener_goes_on() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut one, address) = server_source(&listeners, server_endpoint("/one"), &metrics).await;
    let (_two, same) = server_source(&listeners, server_endpoint("/two"), &metrics).await;
    assert_eq!(address, same);
    close_source(&mut one).await;
    assert_eq!((status(address, "/one").await, status(address, "/two").await), (404, 101));
    let (_one, _) = server_source(&listeners, server_endpoint("/one"), &metrics).await;
    assert_eq!(status(address, "/one").await, 101);
}

#[tokio::test]
async fn one_path_on_two_addresses_is_two_endpoints() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let on = |host: &str| {
        let mut endpoint = server_endpoint("/in");
        if let Mode::Server(listen) = &mut endpoint.mode {
            listen.host = host.into();
        }
        endpoint
    };
    let (mut one, first) = server_source(&listeners, on("127.0.0.1"), &metrics).await;
    let (mut two, second) = server_source(&listeners, on("127.0.0.2"), &metrics).await;
    for (source, address) in [(&mut one, first), (&mut two, second)] {
        let mut peer = dial(address, "/in").await;
        soon(peer.send(Message::text(address.to_string()))).await.expect("it is read");
        let mut seen = Seen::default();
        fill_until(source, &mut seen, |seen| seen.messages.len() == 1).await;
        assert_eq!(seen.texts(), [address.to_string()]);
    }
}

async fn opened(listeners: &Listeners, endpoint: &Endpoint) -> Result<(), String> {
    let listen = endpoint.listen().expect("a server endpoint");
    let metrics = Metrics::default().endpoint("new", "source");
    listeners
        .open_source(endpoint, listen, false, metrics)
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn endpoints_that_come_later_must_agree_with_those_of_their_path() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = server_endpoint("/rooms/{room}");
    endpoint.ping = Some(Ping { interval: Duration::from_secs(5), ..Ping::default() });
    let (_source, _) = server_source(&listeners, endpoint.clone(), &metrics).await;
    endpoint.ping = Some(Ping { interval: Duration::from_secs(6), ..Ping::default() });
    let place = "which has the same path";
    assert_eq!(
        opened(&listeners, &endpoint).await,
        Err(format!(
            "failed to listen on 127.0.0.1:0: `ping` differs from the source of pipeline p, {place}"
        ))
    );
    endpoint.ping = Some(Ping::default());
    assert_eq!(opened(&listeners, &endpoint).await, Ok(()), "what is left out is taken from the other");
    let other_name =
        opened(&listeners, &server_endpoint("/rooms/{id}")).await.expect_err("one path, two names");
    assert!(other_name.contains("the source of pipeline p"), "{other_name}");
}

#[tokio::test]
async fn an_address_that_is_in_use_by_ourselves_is_told_with_who_uses_it() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (_source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut everywhere = server_endpoint("/");
    if let Mode::Server(listen) = &mut everywhere.mode {
        (listen.host, listen.port) = ("0.0.0.0".into(), address.port());
    }
    let error = opened(&listeners, &everywhere).await.expect_err("it is taken");
    let port = address.port();
    let owner = format!("address in use by the source of pipeline p, at {address}");
    assert_eq!(error, format!("failed to listen on 0.0.0.0:{port}: {owner}"));
    let listeners = Listeners::default().beside(address, "[admin]");
    let error = opened(&listeners, &everywhere).await.expect_err("it is taken");
    assert_eq!(error, format!("failed to listen on 0.0.0.0:{port}: address in use by [admin], at {address}"));
}

/// A hundred peers, the last of which does not read, and what is written to them until it must have
/// been noticed.
async fn a_hundred_peers(slow_peer: SlowPeer) -> (Metrics, Sink, Vec<crate::drive::Peer>) {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: 16, slow: slow_peer, ..Peers::default() };
    // On a busy machine the slow one would not answer a ping in time.
    let endpoint = Endpoint { ping: None, ..server_endpoint("/") };
    let (sink, address) = server_sink(&listeners, endpoint, peers, &metrics).await;
    let mut connected = Vec::new();
    for _ in 0..100 {
        connected.push(dial(address, "/").await);
    }
    until_metric(&metrics, CONNECTED, "100").await;
    (metrics, sink, connected)
}

/// Reads until the message with this number.
async fn read_until(peer: &mut crate::drive::Peer, last: usize) -> usize {
    let mut got = 0;
    loop {
        let text = next_text(peer).await;
        got += 1;
        if text.starts_with(&format!("{last:08} ")) {
            return got;
        }
    }
}

#[tokio::test]
async fn one_slow_peer_of_a_hundred_costs_the_others_nothing() {
    const MESSAGES: usize = 150;
    for policy in [SlowPeer::DropOldest, SlowPeer::DropNewest, SlowPeer::Disconnect] {
        let (metrics, mut sink, mut peers) = a_hundred_peers(policy).await;
        let mut slow = peers.pop().expect("there are a hundred");
        let mut failed = Vec::new();
        for index in 0..MESSAGES {
            push(&mut sink, &mut failed, &[&flood(index)]).await;
            flush(&mut sink, &mut failed).await;
            for peer in &mut peers {
                assert!(next_text(peer).await.starts_with(&format!("{index:08} ")), "{policy:?}");
            }
        }
        let missed = || {
            let missed = metric(&metrics, &["tidemill_peer_messages_dropped_total{", "slow_peer"]);
            missed.parse::<usize>().expect("a number")
        };
        assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), MESSAGES.to_string());
        match policy {
            SlowPeer::DropOldest => {
                assert_eq!(read_until(&mut slow, MESSAGES - 1).await + missed(), MESSAGES);
                assert!(missed() > 0);
            }
            SlowPeer::Disconnect => {
                until_metric(&metrics, CONNECTED, "99").await;
                assert_eq!(close_code(&mut slow).await, 1013);
                assert!(missed() > 0);
            }
            _ => {
                // It has the oldest; what is written when it has read all reaches it again.
                assert!(missed() > 0);
                let kept = MESSAGES - missed();
                assert_eq!(read_until(&mut slow, kept - 1).await, kept);
                push(&mut sink, &mut failed, &[&flood(MESSAGES)]).await;
                flush(&mut sink, &mut failed).await;
                assert_eq!(read_until(&mut slow, MESSAGES).await, 1);
            }
        }
    }
}

#[tokio::test]
async fn one_slow_peer_of_a_hundred_can_hold_them_all_and_nothing_is_lost() {
    let (metrics, mut sink, mut peers) = a_hundred_peers(SlowPeer::Block).await;
    let mut slow = peers.pop().expect("there are a hundred");
    let mut writer = tokio::spawn(async move {
        let mut failed = Vec::new();
        for index in 0..FLOOD {
            push(&mut sink, &mut failed, &[&flood(index)]).await;
            flush(&mut sink, &mut failed).await;
        }
        sink
    });
    let readers: Vec<_> = peers
        .into_iter()
        .map(|mut peer| tokio::spawn(async move { (read_until(&mut peer, FLOOD - 1).await, peer) }))
        .collect();
    // The slow one alone has not read: the writer waits for it.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut writer).await.is_err());
    assert_eq!(read_until(&mut slow, FLOOD - 1).await, FLOOD);
    for reader in readers {
        assert_eq!(soon(reader).await.expect("it has read").0, FLOOD);
    }
    drop(soon(writer).await.expect("it is done"));
    assert_eq!(metric(&metrics, &["tidemill_peer_messages_dropped_total{"]), "0");
}
