//! Sinks that dial, when the one they dial goes away: what waits, what is repeated, what is given up.

use crate::drive::{QUICK, accept, accounted_for, connects, is_in, nobody, pipeline, server, soon};
use futures_util::StreamExt;
use tidemill_tests::host::Folder;
use tidemill_tests::peers::{Collector, Feed, Received};
use tidemill_tests::proxy::{Fault, Proxy};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;

/// Collects from the connections of a listener until this text comes.
async fn collect_until(listener: &TcpListener, last: &str) -> Vec<String> {
    let mut collected = Vec::new();
    loop {
        let (tcp, _) = soon(listener.accept()).await.unwrap();
        let Ok(mut socket) = accept_async(tcp).await else { continue };
        while let Some(Ok(message)) = soon(socket.next()).await {
            if let Ok(text) = message.to_text()
                && message.is_text()
            {
                collected.push(text.to_owned());
                if text == last {
                    return collected;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_the_peer_is_away_waits_for_it() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let address = nobody().await;
    let source = format!("url = \"{}\", {QUICK}", feed.url());
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{address}/out\", {QUICK}")));
    for n in 0..500 {
        feed.text(n.to_string()).await;
    }
    host.wait_until("all wait", |now| now.count("tidemill_messages_in_flight", &["stage=\"out\""]) == 500);
    let now = host.metrics();
    assert_eq!(now.count("tidemill_messages_delivered_total", &[]), 0, "nothing is sent that is not");
    assert!(!is_in(&now, "out", "connected"));
    let listener = TcpListener::bind(address).await.unwrap();
    let expected: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(collect_until(&listener, "499").await, expected);
    let now = accounted_for(&host, 500);
    assert_eq!(now.count("tidemill_messages_delivered_total", &["sink=\"out\""]), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_connection_had_not_taken_is_sent_again() {
    const MESSAGES: usize = 300;
    let folder = Folder::default();
    let feed = Feed::open().await;
    let (listener, _) = server().await;
    let proxy = Proxy::open(listener.local_addr().unwrap()).await;
    let source = format!("url = \"{}\", {QUICK}", feed.url());
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{}/out\", {QUICK}", proxy.address)));
    let text = "x".repeat(64 << 10);
    let first = accept(&listener).await;
    proxy.set(Fault::Stall);
    for n in 0..MESSAGES {
        feed.text(format!("{n} {text}")).await;
    }
    host.wait_until("all are received", |now| {
        now.count("tidemill_messages_received_total", &[]) == MESSAGES as u64
    });
    proxy.set(Fault::Reset);
    drop(first);
    let now = host.wait_until("the loss is seen", |now| connects(now, "out", "closed") >= 1);
    let before = now.count("tidemill_messages_delivered_total", &[]) as usize;
    assert!(before < MESSAGES, "the sockets hold less");
    proxy.set(Fault::None);
    let last = format!("{} {text}", MESSAGES - 1);
    let collected = collect_until(&listener, &last).await;
    let numbers: Vec<usize> =
        collected.iter().map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "in order, without a gap: {numbers:?}");
    assert!(numbers[0] <= before, "{before} was not delivered before, and does not come now");
    accounted_for(&host, MESSAGES as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_sees_at_once_that_its_peer_has_gone() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let mut collector = Collector::open().await;
    let proxy = Proxy::open(collector.address).await;
    let source = format!("url = \"{}\", {QUICK}", feed.url());
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{}/out\", {QUICK}", proxy.address)));
    host.wait_until("connected", |now| is_in(now, "out", "connected"));
    proxy.set(Fault::Cut);
    // Nothing is being sent.
    host.says("was lost: the stream ended without a close frame");
    proxy.set(Fault::None);
    host.wait_until("connected again", |now| is_in(now, "out", "connected"));
    feed.text("after").await;
    while collector.received.recv().await.unwrap() != Received::Text("after".to_owned()) {}
    accounted_for(&host, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_without_a_peer_gives_its_messages_to_the_dead_letters_and_goes_on_trying() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let address = nobody().await;
    let sink = format!(
        "url = \"ws://{address}/out\", reconnect = {{ delay = \"5ms\", max_delay = \"50ms\", max_attempts = 2 }}"
    );
    let mut config = pipeline(&format!("url = \"{}\", {QUICK}", feed.url()), &sink);
    config += "[pipelines.dead_letter]\ntype = \"file\"\npath = \"dead.jsonl\"\n";
    let host = folder.run(&config);
    for n in 0..10 {
        feed.text(n.to_string()).await;
    }
    let now = accounted_for(&host, 10);
    let labels = ["stage=\"out\"", "reason=\"sink_unavailable\""];
    assert_eq!(now.count("tidemill_messages_dead_lettered_total", &labels), 10);
    let listener = TcpListener::bind(address).await.unwrap();
    host.wait_until("it tries on", |now| connects(now, "out", "refused") >= 3);
    let collecting = tokio::spawn(async move { collect_until(&listener, "after").await });
    host.wait_until("connected", |now| is_in(now, "out", "connected"));
    feed.text("after").await;
    assert_eq!(collecting.await.unwrap(), ["after"]);
    accounted_for(&host, 11);
    let dead = std::fs::read_to_string(folder.path("dead.jsonl")).unwrap();
    assert_eq!(dead.lines().count(), 10);
    assert!(dead.contains("connection refused"), "{dead}");
}
