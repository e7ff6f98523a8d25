//! Connections that are lost, in every way there is, and those that only look like it.

use crate::drive::{
    QUICK, accept, accounted_for, closed, connects, is_in, nobody, pipeline, server, soon, text,
};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tidemill_tests::host::Folder;
use tidemill_tests::peers::{Collector, Feed};
use tidemill_tests::proxy::{Fault, Proxy};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Seconds after which a peer that says nothing is given up: more than a busy machine makes a peer wait for its turn.
const SILENCE: u32 = 5;

/// A peer that reads on, and so answers pings, while the test sends.
fn answering(peer: WebSocketStream<TcpStream>) -> SplitSink<WebSocketStream<TcpStream>, Message> {
    let (write, mut read) = peer.split();
    tokio::spawn(async move { while let Some(Ok(_)) = read.next().await {} });
    write
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_absent_at_the_start_is_dialled_until_it_comes() {
    let folder = Folder::default();
    let address = nobody().await;
    let mut collector = Collector::open().await;
    let source = format!("url = \"ws://{address}/feed\", {QUICK}");
    let host = folder.run(&pipeline(&source, &format!("url = \"{}\"", collector.url())));
    host.says(&format!("failed to connect to WebSocket ws://{address}/feed: connection refused"));
    host.wait_until("attempts", |now| connects(now, "source", "refused") >= 3);
    assert!(!is_in(&host.metrics(), "source", "connected"));
    assert_eq!(host.get("/readyz").0, 200, "a peer that is away is no reason");
    let feed = Feed::on(TcpListener::bind(address).await.unwrap());
    feed.text("at last").await;
    assert_eq!(collector.text().await, "at last");
    assert!(is_in(&host.metrics(), "source", "connected"));
    accounted_for(&host, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_close_leads_to_a_new_connection() {
    let folder = Folder::default();
    let (listener, url) = server().await;
    let mut collector = Collector::open().await;
    let source = format!("url = \"{url}\", {QUICK}");
    let host = folder.run(&pipeline(&source, &format!("url = \"{}\"", collector.url())));
    let mut first = accept(&listener).await;
    first.send(Message::text("one")).await.unwrap();
    first.close(Some(CloseFrame { code: 1000.into(), reason: "maintenance".into() })).await.unwrap();
    assert_eq!(closed(&mut first).await.0, 1000, "the close frame is answered");
    host.says(&format!("connection to WebSocket {url} was closed by the peer: 1000 maintenance"));
    let mut second = accept(&listener).await;
    second.send(Message::text("two")).await.unwrap();
    assert_eq!(collector.text().await, "one");
    assert_eq!(collector.text().await, "two");
    let now = accounted_for(&host, 2);
    assert_eq!(connects(&now, "source", "connected"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_before_a_reset_is_no_message() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let proxy = Proxy::open(feed.address).await;
    let mut collector = Collector::open().await;
    proxy.set(Fault::ResetAfter(40_000));
    let source = format!("url = \"ws://{}/feed\", {QUICK}", proxy.address);
    let host = folder.run(&pipeline(&source, &format!("url = \"{}\"", collector.url())));
    feed.text("whole").await;
    assert_eq!(collector.text().await, "whole");
    feed.text("x".repeat(100_000)).await;
    host.says("was lost: ");
    proxy.set(Fault::None);
    feed.text("after").await;
    assert_eq!(collector.text().await, "after");
    accounted_for(&host, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_noticed_by_its_silence() {
    let folder = Folder::default();
    let (listener, _) = server().await;
    let proxy = Proxy::open(listener.local_addr().unwrap()).await;
    let mut collector = Collector::open().await;
    let source = format!(
        "url = \"ws://{}/feed\", ping = {{ interval = \"50ms\", timeout = \"{SILENCE}s\" }}, {QUICK}",
        proxy.address
    );
    let host = folder.run(&pipeline(&source, &format!("url = \"{}\"", collector.url())));
    let mut half_open = answering(accept(&listener).await);
    half_open.send(Message::text("one")).await.unwrap();
    assert_eq!(collector.text().await, "one");
    proxy.set(Fault::Swallow);
    half_open.send(Message::text("nobody hears this")).await.unwrap();
    host.says("was given up: no answer to a ping");
    // What was dialled meanwhile is half-open as well.
    proxy.set(Fault::Cut);
    host.wait_until("it is gone", |now| connects(now, "source", "closed") >= 1);
    proxy.set(Fault::None);
    let next = loop {
        let (tcp, _) = soon(listener.accept()).await.unwrap();
        if let Ok(peer) = tokio_tungstenite::accept_async(tcp).await {
            break peer;
        }
    };
    let mut next = answering(next);
    next.send(Message::text("two")).await.unwrap();
    assert_eq!(collector.text().await, "two");
    accounted_for(&host, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_used_up_by_a_peer_that_accepts_and_drops() {
    let folder = Folder::default();
    let (listener, url) = server().await;
    let connections = Arc::<AtomicU64>::default();
    let flapping = tokio::spawn({
        let connections = connections.clone();
        async move {
            while let Ok((tcp, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                drop(tokio_tungstenite::accept_async(tcp).await);
            }
        }
    });
    let source =
        format!("url = \"{url}\", reconnect = {{ delay = \"5ms\", max_delay = \"20ms\", max_attempts = 3 }}");
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{}\"", nobody().await)));
    host.says("pipeline failed");
    let connections = connections.load(Ordering::Relaxed);
    assert_eq!(connections, 4, "the first and three more: a handshake alone resets nothing");
    flapping.abort();
    let now = host.metrics();
    assert_eq!(connects(&now, "source", "connected"), 4);
    assert!(!is_in(&now, "source", "connected"));
    host.wait_until("it is not ready", |_| host.get("/readyz").0 == 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_nothing_but_pings_is_alive_but_idle() {
    let folder = Folder::default();
    let (listener, url) = server().await;
    let ping = "ping = { interval = \"20ms\", timeout = \"10s\" }";
    let source = format!("url = \"{url}\", {ping}, idle_timeout = \"400ms\", {QUICK}");
    let sink = format!("url = \"ws://{}\"", nobody().await);
    let host = folder.run(&pipeline(&source, &sink));
    // On a machine that stands still for a while, a connection may be idle before it is pinged: the next is as good.
    let mut pings = 0;
    while pings < 3 {
        let since = Instant::now();
        let mut peer = accept(&listener).await;
        pings = 0;
        let code = loop {
            match soon(peer.next()).await.unwrap().unwrap() {
                Message::Ping(_) => pings += 1,
                Message::Close(Some(frame)) => break u16::from(frame.code),
                other => panic!("unexpected: {other:?}"),
            }
        };
        assert_eq!(code, 1000);
        assert!(since.elapsed() >= Duration::from_millis(400), "{pings} in {:?}", since.elapsed());
    }
    host.says("was given up: idle");
    accept(&listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_nothing_but_pings_stays() {
    let folder = Folder::default();
    let (listener, url) = server().await;
    let source = format!("url = \"{url}\", ping = {{ interval = \"10ms\", timeout = \"10s\" }}, {QUICK}");
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{}\"", nobody().await)));
    let mut peer = accept(&listener).await;
    for _ in 0..30 {
        let next = soon(peer.next()).await.unwrap().unwrap();
        assert!(matches!(next, Message::Ping(_)), "unexpected: {next:?}");
    }
    assert_eq!(connects(&host.metrics(), "source", "connected"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_is_closed_with_1011() {
    let folder = Folder::default();
    let (listener, url) = server().await;
    let source = format!("url = \"{url}\", ping = {{ interval = \"50ms\", timeout = \"100ms\" }}, {QUICK}");
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{}\"", nobody().await)));
    // It does not read, so it does not answer.
    let mut silent = accept(&listener).await;
    host.says(&format!("connection to WebSocket {url} was given up: no answer to a ping"));
    // A peer that reads answers, and stays.
    let feed = Feed::on(listener);
    assert_eq!(closed(&mut silent).await, (1011, "no answer to a ping".to_owned()));
    feed.text("still there").await;
    host.wait_until("it is received", |now| now.count("tidemill_messages_received_total", &[]) == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_slowly_is_not_taken_for_dead() {
    const MESSAGES: u64 = 1000;
    let folder = Folder::default();
    let feed = Feed::open().await;
    let mut collector = Collector::open().await;
    let proxy = Proxy::open(collector.address).await;
    proxy.set(Fault::Delay(Duration::from_millis(4)));
    let source = format!("url = \"{}\", {QUICK}", feed.url());
    let sink = format!(
        "url = \"ws://{}/slow\", ping = {{ interval = \"100ms\", timeout = \"2s\" }}, {QUICK}",
        proxy.address
    );
    let host = folder.run(&pipeline(&source, &sink));
    let text = "x".repeat(16 << 10);
    let since = Instant::now();
    for n in 0..MESSAGES {
        feed.text(format!("{n} {text}")).await;
    }
    for n in 0..MESSAGES {
        assert!(collector.text().await.starts_with(&format!("{n} ")));
    }
    assert!(since.elapsed() > Duration::from_secs(3), "it was slow: {:?}", since.elapsed());
    let now = accounted_for(&host, MESSAGES);
    assert_eq!(connects(&now, "out", "connected"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_we_read_slowly_is_not_taken_for_dead() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let mut collector = Collector::open().await;
    let proxy = Proxy::open(collector.address).await;
    let source = format!(
        "url = \"{}\", ping = {{ interval = \"50ms\", timeout = \"{SILENCE}s\" }}, idle_timeout = \"{SILENCE}s\", \
         reconnect = {{ enabled = false }}",
        feed.url()
    );
    let sink = format!(
        "url = \"ws://{}/stalled\", buffer = {{ capacity = 1 }}, ping = {{ interval = \"0s\" }}",
        proxy.address
    );
    let host = folder.run(&pipeline(&source, &sink));
    feed.text("one").await;
    assert_eq!(collector.text().await, "one");
    proxy.set(Fault::Stall);
    let text = "x".repeat(1 << 20);
    for _ in 0..32 {
        feed.text(text.clone()).await;
    }
    let paused = |now: &tidemill_tests::host::Counted| now.sum("tidemill_source_paused_seconds_total", &[]);
    let longer = f64::from(SILENCE) + 1.0;
    host.wait_until("reading is held back for longer than any timeout", |now| paused(now) > longer);
    let now = host.metrics();
    assert_eq!(connects(&now, "source", "connected"), 1);
    assert!(is_in(&now, "source", "connected"), "{}", host.log());
    proxy.set(Fault::None);
    for _ in 0..32 {
        assert_eq!(collector.text().await.len(), text.len());
    }
    accounted_for(&host, 33);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_waits_to_dial_again_stops_at_once() {
    let folder = Folder::default();
    let url = format!("ws://{}/feed", nobody().await);
    let slow = "reconnect = { delay = \"30s\", max_delay = \"30s\" }";
    let config = pipeline(&format!("url = \"{url}\", {slow}"), &format!("url = \"{url}\", {slow}"));
    let host = folder.run(&config);
    host.wait_until("both wait", |now| is_in(now, "source", "waiting") && is_in(now, "out", "waiting"));
    let since = Instant::now();
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    // However busy the machine is, this is far from the time it would have to wait.
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_said_before_it_left_arrives_though_the_sink_was_away() {
    const MESSAGES: u64 = 5000;
    let folder = Folder::default();
    let (listener, url) = server().await;
    let address = nobody().await;
    let source = format!("url = \"{url}\", ping = {{ interval = \"50ms\", timeout = \"30s\" }}, {QUICK}");
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{address}/\", {QUICK}")));
    let mut upstream = accept(&listener).await;
    for index in 0..MESSAGES {
        upstream.feed(Message::text(index.to_string())).await.unwrap();
    }
    let restart = CloseFrame { code: 1001.into(), reason: "daily restart".into() };
    upstream.feed(Message::Close(Some(restart))).await.unwrap();
    upstream.flush().await.unwrap();
    drop(upstream);
    // Many pings are due meanwhile, and none of them can be written.
    host.wait_until("a long hold", |now| now.sum("tidemill_source_paused_seconds_total", &[]) > 1.0);
    let listener = TcpListener::bind(address).await.unwrap();
    let mut sink = accept(&listener).await;
    for index in 0..MESSAGES {
        assert_eq!(text(&mut sink).await, index.to_string());
    }
    host.says(&format!("connection to WebSocket {url} was closed by the peer: 1001 daily restart"));
    accounted_for(&host, MESSAGES);
}
