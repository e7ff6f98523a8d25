//! Hundreds of connections through a hundred reloads: not one of them closes, and not one message is lost.

use crate::site::{Site, class};
use futures_util::{SinkExt, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemill_tests::guest;
use tidemill_tests::peers::{Dialled, dial};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

const PEERS: usize = 500;
const RELOADS: u32 = 100;

fn config(reload: u32) -> String {
    let mut config = format!(
        r#"
        [server]
        port = 0
        [[pipelines]]
        name = "chat"
        source = {{ type = "websocket", mode = "server", path = "/chat" }}
        transforms = [{{ plugin = "tally", config = {{ work = {reload} }} }}]
        sinks = [{{ type = "reply", slow_peer = "block" }}]
        "#
    );
    // A neighbour that comes with every other reload, and goes with the next.
    if reload % 2 == 1 {
        config.push_str(
            r#"
            [[pipelines]]
            name = "neighbour"
            source = { type = "websocket", mode = "server", path = "/neighbour" }
            sinks = [{ type = "websocket", mode = "server", path = "/neighbour" }]
            "#,
        );
    }
    config
}

/// Sends a message and takes its answer, over and over, until told to stop: how many that were.
async fn talk(mut peer: Dialled, key: usize, stop: Arc<AtomicBool>) -> u64 {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        peer.send(Message::text(format!(r#"{{"k":"k{key}","n":{sent}}}"#))).await.expect("it is open");
        sent += 1;
        let answer = timeout(Duration::from_secs(60), peer.next()).await.expect("an answer comes");
        let Some(Ok(Message::Text(text))) = answer else { panic!("peer {key} after {sent}: {answer:?}") };
        assert_eq!(
            text.as_str(),
            format!("k{key} {} {sent} 0/1", sent - 1),
            "nothing is lost, and nothing comes twice"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_close_none_of_five_hundred_connections_and_lose_no_message() {
    let site = Site::default();
    site.folder.install("tally", &guest("tally").expect("guests in Rust are built"));
    let site = site.run(&config(0));
    let address = site.host().listening("websocket");
    let stop = Arc::<AtomicBool>::default();
    let mut peers = Vec::with_capacity(PEERS);
    for key in 0..PEERS {
        let peer = dial(address, "/chat").await;
        peers.push(tokio::spawn(talk(peer, key, stop.clone())));
    }
    for reload in 1..=RELOADS {
        let told = site.change(&config(reload)).await;
        assert_eq!(class(&told, "chat"), "updated", "{told}");
        let neighbour = if reload % 2 == 1 { "added" } else { "removed" };
        assert_eq!(class(&told, "neighbour"), neighbour, "{told}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for peer in peers {
        sent += peer.await.expect("its connection was never closed");
    }
    assert!(sent >= PEERS as u64);
    assert_eq!(site.counted("tidemill_messages_received_total", &["pipeline=\"chat\""]).await, sent);
    assert_eq!(site.counted("tidemill_messages_delivered_total", &["pipeline=\"chat\""]).await, sent);
    assert_eq!(site.counted("tidemill_messages_dropped_total", &[]).await, 0);
    let accepted =
        site.counted("tidemill_connects_total", &["pipeline=\"chat\"", "endpoint=\"source\""]).await;
    assert_eq!(accepted, PEERS as u64, "each came once");
    site.stop().await;
}
