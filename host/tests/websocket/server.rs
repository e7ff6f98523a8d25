//! Server endpoints: peers of one path, slow ones, and the end.

use crate::drive::{
    Metrics, Seen, close_code, dial, fill_until, flush, message, metric, next_text, push, server_endpoint,
    server_sink, server_source, soon, until_metric, until_sent,
};
use futures_util::SinkExt;
use std::fmt::Debug;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;
use tidemill::config::{Peers, Ping, SlowPeer, WhenNoPeers};
use tidemill::connections::EndpointState;
use tidemill::message::metadata::{PEER, SOURCE};
use tidemill::websocket::Listeners;
use tokio_tungstenite::tungstenite::Message;
use tracing::field::Field;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{self, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

const CONNECTED: &[&str] = &["tidemill_connections{", "\"out\"", "\"connected\""];

#[tokio::test]
async fn every_peer_gets_every_message() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = server_endpoint("/out");
    endpoint.on_connect = vec!["welcome".into()];
    let (mut sink, address) = server_sink(&listeners, endpoint, Peers::default(), &metrics).await;
    let mut failed = Vec::new();
    push(&mut sink, &mut failed, &["nobody"]).await;
    flush(&mut sink, &mut failed).await;
    assert_eq!(metric(&metrics, &["tidemill_messages_dropped_total{", "no_peers"]), "1");
    let (mut one, mut two) = (dial(address, "/out?a=b").await, dial(address, "/out").await);
    until_metric(&metrics, CONNECTED, "2").await;
    push(&mut sink, &mut failed, &["a", "b"]).await;
    flush(&mut sink, &mut failed).await;
    for peer in [&mut one, &mut two] {
        assert_eq!(next_text(peer).await, "welcome");
        assert_eq!((next_text(peer).await, next_text(peer).await), ("a".into(), "b".into()));
    }
    until_sent(&metrics, "out", &[3, 3]).await;
    assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), "2");
}

/// Looks at the state of an endpoint when a listener says that it listens.
struct Witness {
    metrics: Arc<Metrics>,
    seen: Arc<Mutex<Vec<EndpointState>>>,
}

impl<S: Subscriber> Layer<S> for Witness {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let mut listens = false;
        event.record(&mut |_: &Field, value: &dyn Debug| {
            listens |= format!("{value:?}") == "websocket listening";
        });
        if listens {
            let states = self.metrics.connections().list().into_iter().map(|row| row.state);
            self.seen.lock().expect("nobody panics").extend(states);
        }
    }
}

#[tokio::test]
async fn a_listener_says_that_it_listens_once_its_first_path_is_open() {
    let (listeners, metrics) = (Listeners::default(), Arc::new(Metrics::default()));
    let seen = Arc::default();
    let witness = Witness { metrics: metrics.clone(), seen: Arc::clone(&seen) };
    let guard = tracing_subscriber::registry().with(witness).set_default();
    let (_source, _) = server_source(&listeners, server_endpoint("/in"), &metrics).await;
    drop(guard);
    assert_eq!(*seen.lock().expect("nobody panics"), [EndpointState::Listening]);
}

#[tokio::test]
async fn without_peers_a_sink_can_wait() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { when_none: WhenNoPeers::Wait, buffer: 2, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let mut failed = Vec::new();
    push(&mut sink, &mut failed, &["a", "b"]).await;
    assert!(sink.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending());
    let mut peer = dial(address, "/").await;
    flush(&mut sink, &mut failed).await;
    assert_eq!((next_text(&mut peer).await, next_text(&mut peer).await), ("a".into(), "b".into()));
}

#[tokio::test]
async fn a_new_peer_gets_the_last_messages_first() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { replay: 2, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let mut failed = Vec::new();
    push(&mut sink, &mut failed, &["a", "b", "c"]).await;
    flush(&mut sink, &mut failed).await;
    let mut peer = dial(address, "/").await;
    assert_eq!((next_text(&mut peer).await, next_text(&mut peer).await), ("b".into(), "c".into()));
    assert_eq!(metric(&metrics, &["tidemill_replayed_total{"]), "2");
    until_sent(&metrics, "out", &[2]).await;
}

/// Far more than the buffers of two sockets hold.
const FLOOD: usize = 400;

fn flood(index: usize) -> String {
    format!("{index:08} {}", "x".repeat(64 << 10))
}

#[tokio::test]
async fn a_slow_peer_misses_the_oldest_and_costs_nobody_else() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: 16, slow: SlowPeer::DropOldest, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let mut failed = Vec::new();
    let (mut slow, mut quick) = (dial(address, "/").await, dial(address, "/").await);
    until_metric(&metrics, CONNECTED, "2").await;
    for index in 0..FLOOD {
        push(&mut sink, &mut failed, &[&flood(index)]).await;
        flush(&mut sink, &mut failed).await;
        assert!(next_text(&mut quick).await.starts_with(&format!("{index:08} ")));
    }
    let mut got = 0;
    loop {
        let text = next_text(&mut slow).await;
        got += 1;
        if text.starts_with(&format!("{:08} ", FLOOD - 1)) {
            break;
        }
    }
    assert!(got < FLOOD, "it cannot have had all");
    let missed = metric(&metrics, &["tidemill_peer_messages_dropped_total{", "slow_peer"]);
    assert_eq!(missed.parse::<usize>().expect("a number"), FLOOD - got);
    assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), FLOOD.to_string());
}

#[tokio::test]
async fn a_slow_peer_can_be_disconnected() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: 16, slow: SlowPeer::Disconnect, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let mut failed = Vec::new();
    let mut slow = dial(address, "/").await;
    until_metric(&metrics, CONNECTED, "1").await;
    for index in 0..FLOOD {
        push(&mut sink, &mut failed, &[&flood(index)]).await;
        flush(&mut sink, &mut failed).await;
        tokio::task::yield_now().await;
    }
    until_metric(&metrics, CONNECTED, "0").await;
    assert_eq!(close_code(&mut slow).await, 1013);
}

#[tokio::test]
async fn a_peer_that_is_waited_for_gets_every_message() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: 4, slow: SlowPeer::Block, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let mut failed = Vec::new();
    let mut slow = dial(address, "/").await;
    until_metric(&metrics, CONNECTED, "1").await;
    let writer = tokio::spawn(async move {
        for index in 0..FLOOD {
            push(&mut sink, &mut failed, &[&flood(index)]).await;
            flush(&mut sink, &mut failed).await;
        }
        sink
    });
    for index in 0..FLOOD {
        assert!(next_text(&mut slow).await.starts_with(&format!("{index:08} ")));
    }
    drop(soon(writer).await.expect("it is done"));
    assert_eq!(metric(&metrics, &["tidemill_peer_messages_dropped_total{"]), "0");
}

#[tokio::test]
async fn a_source_and_a_sink_on_one_path_share_its_peers() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut source, address) = server_source(&listeners, server_endpoint("/both"), &metrics).await;
    let (mut sink, same) =
        server_sink(&listeners, server_endpoint("/both"), Peers::default(), &metrics).await;
    assert_eq!(address, same);
    let mut peer = dial(address, "/both").await;
    until_metric(&metrics, CONNECTED, "1").await;
    for text in ["x", "y"] {
        soon(peer.send(Message::text(text))).await.expect("it is read");
    }
    let mut seen = Seen::default();
    fill_until(&mut source, &mut seen, |seen| seen.messages.len() == 2).await;
    assert_eq!(seen.texts(), ["x", "y"]);
    let metadata = &seen.messages[0].metadata;
    assert_eq!(metadata.get(SOURCE), format!("ws://127.0.0.1:{}/both", address.port()));
    assert_eq!(metadata.get(PEER), peer.get_ref().local_addr().expect("bound").to_string());
    let mut failed = Vec::new();
    push(&mut sink, &mut failed, &["back"]).await;
    flush(&mut sink, &mut failed).await;
    assert_eq!(next_text(&mut peer).await, "back");
}

#[tokio::test]
async fn a_source_that_is_not_read_holds_its_peers() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut peer = dial(address, "/").await;
    let mut sent = 0;
    // Until the socket's buffers are full, and the send waits.
    let blocked = async {
        loop {
            let send = peer.send(Message::text(flood(sent)));
            if tokio::time::timeout(std::time::Duration::from_millis(300), send).await.is_err() {
                break;
            }
            sent += 1;
        }
    };
    soon(blocked).await;
    let mut seen = Seen::default();
    fill_until(&mut source, &mut seen, |seen| seen.messages.len() >= sent).await;
    for (index, text) in seen.texts().iter().take(sent).enumerate() {
        assert!(text.starts_with(&format!("{index:08} ")));
    }
}

#[tokio::test]
async fn closing_the_last_endpoint_tells_the_peers_and_frees_the_address() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), Peers::default(), &metrics).await;
    let mut peer = dial(address, "/").await;
    until_metric(&metrics, CONNECTED, "1").await;
    let mut failed = Vec::new();
    sink.push(message("last"), &mut failed);
    let close = poll_fn(|cx| sink.poll_close(cx, 1001, &mut failed));
    let reads = async {
        assert_eq!(next_text(&mut peer).await, "last");
        assert_eq!(close_code(&mut peer).await, 1001);
        drop(peer);
    };
    soon(async { tokio::join!(close, reads) }).await;
    tokio::net::TcpListener::bind(address).await.expect("the address is free");
    assert_eq!(metric(&metrics, CONNECTED), "0");
}

#[tokio::test]
async fn held_reading_does_not_make_a_peer_silent_or_idle() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = server_endpoint("/");
    endpoint.ping = Some(Ping { interval: Duration::from_millis(20), timeout: Duration::from_millis(20) });
    endpoint.idle_timeout = Some(Duration::from_millis(40));
    let (mut source, address) = server_source(&listeners, endpoint, &metrics).await;
    let mut peer = dial(address, "/").await;
    let mut sent = 0;
    // Until all that is between us is full, and a send has waited for many timeouts.
    loop {
        let send = peer.send(Message::text(flood(sent)));
        if tokio::time::timeout(Duration::from_millis(300), send).await.is_err() {
            break;
        }
        sent += 1;
    }
    let mut seen = Seen::default();
    fill_until(&mut source, &mut seen, |seen| seen.messages.len() >= sent).await;
    assert_eq!(metric(&metrics, &["tidemill_connections{", "\"source\"", "\"connected\""]), "1");
}
