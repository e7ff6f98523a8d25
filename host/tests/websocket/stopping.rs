//! How peers join and go: greeted first, closed one by one, and whoever does not read costs only itself.

use crate::drive::{
    Metrics, Seen, close_code, dial, fill_until, flush, message, metric, next_text, push, server_endpoint,
    server_sink, server_source, soon, until_metric,
};
use crate::running::{FLOOD, Running, close_source, dial_slow, flood, until_received};
use futures_util::{SinkExt, StreamExt};
use std::future::poll_fn;
use std::path::Path;
use std::time::Duration;
use tidemill::config::{
    Endpoint, EndpointText, FilePath, Identity, Mode, Peers, Pem, Server, ServerTls, SlowPeer,
};
use tidemill::message::Failed;
use tidemill::pipeline::Ending;
use tidemill::sink::Sink;
use tidemill::source::{self, Source, SourceChunk};
use tidemill::websocket::Listeners;
use tidemill_tests::sockets::until;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

const OUT: &[&str] = &["tidemill_connections{", "\"out\"", "\"connected\""];
const SOURCE: &[&str] = &["tidemill_connections{", "\"source\"", "\"connected\""];
async fn close(sink: &mut Sink, failed: &mut Vec<Failed>) {
    soon(poll_fn(|cx| sink.poll_close(cx, 1001, failed))).await;
}

fn mkfifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().expect("it can be run");
    assert!(made.success());
}

#[tokio::test]
async fn a_peer_that_cannot_be_greeted_never_joins_and_holds_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hello");
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = server_endpoint("/");
    endpoint.on_connect = vec![EndpointText::file(&file)];
    let peers = Peers { slow: SlowPeer::Block, buffer: 4, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, endpoint, peers, &metrics).await;
    let mut ghost = dial(address, "/").await;
    assert_eq!(close_code(&mut ghost).await, 1011);
    assert_eq!(metric(&metrics, OUT), "0");
    std::fs::write(&file, "hi").expect("it is ours");
    let mut peer = dial(address, "/").await;
    assert_eq!(next_text(&mut peer).await, "hi");
    let mut failed = Vec::new();
    for index in 0..100 {
        push(&mut sink, &mut failed, &[&index.to_string()]).await;
        flush(&mut sink, &mut failed).await;
        assert_eq!(next_text(&mut peer).await, index.to_string(), "nobody holds the sink");
    }
    assert_eq!(metric(&metrics, &["tidemill_peer_messages_dropped_total{"]), "0");
    // The ghost does not hang up.
    let reads = async {
        assert_eq!(close_code(&mut peer).await, 1001);
        drop((peer, ghost));
    };
    soon(async { tokio::join!(close(&mut sink, &mut failed), reads) }).await;
}

#[tokio::test]
async fn what_a_peer_sends_before_it_is_greeted_comes_once_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hello");
    std::fs::write(&file, "hi").expect("it is ours");
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut endpoint = server_endpoint("/");
    endpoint.on_connect = vec![EndpointText::file(&file)];
    let (mut source, address) = server_source(&listeners, endpoint, &metrics).await;
    let mut peer = dial(address, "/").await;
    // Nothing of ours runs before all is on its way.
    for text in ["a", "b"] {
        peer.feed(Message::text(text)).await.expect("it is read");
    }
    soon(peer.close(None)).await.expect("it is read");
    let mut seen = Seen::default();
    fill_until(&mut source, &mut seen, |seen| seen.messages.len() == 2).await;
    assert_eq!(seen.texts(), ["a", "b"]);
}

#[tokio::test]
async fn at_a_stop_peers_go_one_by_one_and_one_that_does_not_read_costs_only_itself() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: 1000, buffer_bytes: 64 << 20, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let stalled = dial_slow(address).await;
    let mut quick = Vec::new();
    for _ in 0..5 {
        quick.push(dial(address, "/").await);
    }
    until_metric(&metrics, OUT, "6").await;
    let mut failed = Vec::new();
    for index in 0..FLOOD {
        push(&mut sink, &mut failed, &[&flood(index)]).await;
        flush(&mut sink, &mut failed).await;
        for peer in &mut quick {
            assert!(next_text(peer).await.starts_with(&format!("{index:08} ")));
        }
    }
    let mut closing = std::pin::pin!(close(&mut sink, &mut failed));
    let all_quick = async {
        for mut peer in quick {
            assert_eq!(close_code(&mut peer).await, 1001);
        }
    };
    tokio::select! {
        () = &mut closing => panic!("the stalled peer is still owed something"),
        () = soon(all_quick) => {}
    }
    closing.await;
    assert_eq!(metric(&metrics, OUT), "0");
    let missed = metric(&metrics, &["tidemill_peer_messages_dropped_total{", "\"shutdown\""]);
    assert!(missed.parse::<usize>().expect("a number") > 0);
    drop(stalled);
}

#[tokio::test]
async fn at_a_stop_a_peer_that_reads_slowly_gets_all_it_is_owed() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: 1000, buffer_bytes: 64 << 20, ..Peers::default() };
    let (mut sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let mut slow = dial_slow(address).await;
    until_metric(&metrics, OUT, "1").await;
    let mut failed = Vec::new();
    for index in 0..FLOOD {
        push(&mut sink, &mut failed, &[&flood(index)]).await;
    }
    flush(&mut sink, &mut failed).await;
    let reads = async {
        for index in 0..FLOOD {
            assert!(next_text(&mut slow).await.starts_with(&format!("{index:08} ")));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(close_code(&mut slow).await, 1001);
        drop(slow);
    };
    soon(async { tokio::join!(close(&mut sink, &mut failed), reads) }).await;
    assert_eq!(metric(&metrics, &["tidemill_peer_messages_dropped_total{"]), "0");
}

#[tokio::test]
async fn at_a_stop_a_peer_that_does_not_read_its_replies_costs_only_itself() {
    const IN_FLIGHT: &[&str] = &["tidemill_messages_in_flight{"];
    let metrics = Metrics::default();
    let peers = Peers { buffer: 16, slow: SlowPeer::DropOldest, ..Peers::default() };
    let (running, address) = Running::answering(peers, &metrics).await;
    let (mut stalled, mut quick) = (dial_slow(address).await, dial(address, "/").await);
    for index in 0..FLOOD {
        soon(stalled.send(Message::text(flood(index)))).await.expect("it is read");
    }
    for text in ["a", "b", "c"] {
        soon(quick.send(Message::text(text))).await.expect("it is read");
    }
    until_metric(&metrics, &["tidemill_messages_received_total{"], &(FLOOD + 3).to_string()).await;
    assert_ne!(metric(&metrics, IN_FLIGHT), "0");
    let deadline = running.stop().await;
    for text in ["a", "b", "c"] {
        assert_eq!(next_text(&mut quick).await, text);
    }
    assert_eq!(close_code(&mut quick).await, 1001);
    assert_ne!(metric(&metrics, IN_FLIGHT), "0", "it goes while the other is still waited for");
    drop(quick);
    running.ended(deadline).await;
    assert_eq!(metric(&metrics, IN_FLIGHT), "0");
    let given_up = metric(&metrics, &["tidemill_messages_dropped_total{", "\"back\"", "\"shutdown\""]);
    assert!(given_up.parse::<usize>().expect("a number") > 0);
    drop(stalled);
}

#[tokio::test]
async fn at_a_stop_a_peer_that_does_not_read_no_longer_blocks_the_others() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: 4, slow: SlowPeer::Block, ..Peers::default() };
    let (sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let (stalled, mut quick) = (dial_slow(address).await, dial(address, "/").await);
    until_metric(&metrics, OUT, "2").await;
    let (feed, queue) = source::queue();
    let running = Running::new(Source::Queue(queue), vec![("out", sink)], &metrics);
    let messages = (0..FLOOD).map(|index| message(&flood(index))).collect();
    feed.push(SourceChunk { messages, ..SourceChunk::default() }).await.expect("it runs");
    assert!(next_text(&mut quick).await.starts_with("00000000 "));
    let deadline = running.stop().await;
    for index in 1..FLOOD {
        assert!(next_text(&mut quick).await.starts_with(&format!("{index:08} ")));
    }
    assert_eq!(close_code(&mut quick).await, 1001);
    drop(quick);
    let missed = || metric(&metrics, &["tidemill_peer_messages_dropped_total{", "\"shutdown\""]);
    assert_eq!(missed(), "0", "it goes while the other is still waited for");
    running.ended(deadline).await;
    assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), FLOOD.to_string());
    assert!(missed().parse::<usize>().expect("a number") > 0);
    drop((feed, stalled));
}

#[tokio::test]
async fn at_a_stop_a_peer_that_reads_no_more_only_late_costs_the_pipeline_nothing() {
    const GRACE: Duration = Duration::from_secs(4);
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let peers = Peers { buffer: 4, slow: SlowPeer::Block, ..Peers::default() };
    let (sink, address) = server_sink(&listeners, server_endpoint("/"), peers, &metrics).await;
    let mut tired = dial_slow(address).await;
    until_metric(&metrics, OUT, "1").await;
    let (feed, queue) = source::queue();
    let running = Running::new(Source::Queue(queue), vec![("out", sink)], &metrics);
    let messages = (0..2 * FLOOD).map(|index| message(&flood(index))).collect();
    feed.push(SourceChunk { messages, ..SourceChunk::default() }).await.expect("it runs");
    let deadline = running.stop_within(GRACE).await;
    // It takes something all the time, and then nothing: half of the grace period would be too long by then.
    while Instant::now() < deadline - GRACE * 3 / 8 {
        let _ = next_text(&mut tired).await;
        tokio::time::sleep(GRACE / 80).await;
    }
    let ended = soon(running.line).await.expect("no panic");
    assert_eq!((ended.ending, ended.given_up), (Ending::Stopped, None));
    assert!(Instant::now() < deadline, "it took as long as it could");
    drop((feed, tired));
}

#[tokio::test]
async fn at_a_stop_what_peers_had_sent_is_put_through() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        let mut peer = dial(address, "/").await;
        for n in 0..2000 {
            peer.feed(Message::text(n.to_string())).await.expect("it is read");
        }
        soon(peer.flush()).await.expect("it is read");
        peers.push(peer);
    }
    // All that is read before somebody takes it: eight chunks, and one of each peer.
    until_received(&metrics, 11 * 256).await;
    let mut seen = Seen::default();
    let stopping = poll_fn(|cx| {
        source.poll_stop(cx, 1001);
        std::task::Poll::Ready(())
    });
    stopping.await;
    fill_until(&mut source, &mut seen, |_| false).await;
    assert!(seen.messages.len() >= 11 * 256, "{}", seen.messages.len());
    assert_eq!((source.remaining(), &seen.end), (0, &Some(tidemill::source::Fill::Ended)));
    for mut peer in peers {
        assert_eq!(close_code(&mut peer).await, 1001);
    }
    close_source(&mut source).await;
}

#[tokio::test]
async fn a_pipeline_that_gives_up_knows_how_many_messages_it_did_not_take() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut peer = dial(address, "/").await;
    for n in 0..100 {
        soon(peer.send(Message::text(n.to_string()))).await.expect("it is read");
    }
    until_received(&metrics, 100).await;
    let mut seen = Seen::default();
    let room = tidemill::source::Room { messages: 30, bytes: usize::MAX };
    soon(poll_fn(|cx| source.poll_fill(cx, &mut seen.messages, room, &mut seen.failed))).await;
    assert_eq!((seen.messages.len(), source.remaining()), (30, 70));
}

#[tokio::test]
async fn an_endpoint_that_is_dropped_closes_its_listener_whatever_else_is_being_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("server.pem");
    mkfifo(&fifo);
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let mut peer = dial(address, "/").await;
    until_metric(&metrics, SOURCE, "1").await;
    let mut other = Endpoint::server("/", &Server { port: 1, ..Server::default() });
    if let Mode::Server(listen) = &mut other.mode {
        let pem = || Pem::File(FilePath::plain(&fifo));
        listen.tls = Some(ServerTls { identity: Identity { cert: pem(), key: pem() }, clients: None });
    }
    let of_other = metrics.endpoint("q", "source");
    let opening = {
        let listeners = listeners.clone();
        tokio::spawn(async move {
            let listen = other.listen().expect("a server endpoint").clone();
            listeners.open_source(&other, &listen, false, of_other).await.map(|_| ()).map_err(|_| ())
        })
    };
    // It reads its certificate, and so waits for somebody who writes one.
    let mut writer = tokio::fs::OpenOptions::new();
    let writer = soon(writer.write(true).open(&fifo)).await.expect("it is read");
    drop(source);
    assert_eq!(close_code(&mut peer).await, 1001);
    drop(peer);
    until(|| std::net::TcpListener::bind(address).is_ok()).await;
    drop(writer);
    std::fs::remove_file(&fifo).expect("it is there");
    soon(opening).await.expect("no panic").expect_err("it is no certificate");
}

/// The descriptors that this process has open.
#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("this is Linux").count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_endpoint_that_stops_waits_for_no_peer_of_another_path() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut one, address) = server_source(&listeners, server_endpoint("/one"), &metrics).await;
    let (mut two, same) = server_source(&listeners, server_endpoint("/two"), &metrics).await;
    assert_eq!(address, same);
    // It never answers a close frame.
    let _silent = dial(address, "/one").await;
    until_metric(&metrics, SOURCE, "1").await;
    let first = std::pin::pin!(poll_fn(|cx| one.poll_close(cx, 1001)));
    let second = std::pin::pin!(poll_fn(|cx| two.poll_close(cx, 1001)));
    match futures_util::future::select(first, second).await {
        futures_util::future::Either::Right(_) => {}
        futures_util::future::Either::Left(_) => panic!("a path without peers waited for those of another"),
    }
    std::net::TcpListener::bind(address).expect("the address is free");
}

#[tokio::test]
async fn a_thousand_peers_that_come_and_go_leave_nothing_open() {
    const PEERS: usize = 1000;
    /// Other tests of this process open and close theirs.
    const OTHERS: usize = 400;
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let (mut source, address) = server_source(&listeners, server_endpoint("/"), &metrics).await;
    let (mut sink, _) = server_sink(&listeners, server_endpoint("/"), Peers::default(), &metrics).await;
    let before = descriptors();
    let (mut seen, mut failed) = (Seen::default(), Vec::new());
    for n in 0..PEERS {
        let mut peer = dial(address, "/").await;
        soon(peer.send(Message::text(n.to_string()))).await.expect("it is read");
        fill_until(&mut source, &mut seen, |seen| seen.messages.len() == n + 1).await;
        sink.push(message("to all"), &mut failed);
        flush(&mut sink, &mut failed).await;
        match n % 3 {
            0 => peer.get_ref().set_zero_linger().expect("it is open"),
            1 => drop(soon(peer.close(None)).await),
            _ => {}
        }
        if n % 3 == 1 {
            while soon(peer.next()).await.is_some_and(|next| next.is_ok()) {}
        }
    }
    until_metric(&metrics, OUT, "0").await;
    until_metric(&metrics, SOURCE, "0").await;
    let after = descriptors();
    assert!(after < before + OTHERS, "{before} before, {after} after");
    assert_eq!(seen.messages.len(), PEERS);
}
