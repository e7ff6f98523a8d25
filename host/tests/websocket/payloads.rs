//! What is done with payloads at the edge: metadata added, packed and unpacked, with real frames.

use crate::drive::{
    Metrics, Peer, Seen, accept, client_endpoint, client_sink, client_source, dial, fill_until, flush,
    listener, metric, next_text, open_sink, open_source, push, received, server_endpoint, sink_config, soon,
    source_config, until_metric, with_sink, with_source,
};
use futures_util::SinkExt;
use std::future::poll_fn;
use tidemill::config::{Buffer, Codec, Packing, Peers};
use tidemill::message::Message;
use tidemill::message::metadata::{Metadata, Origin, SOURCE};
use tidemill::packing::{Packer, Unpacker};
use tidemill::reason::Reason;
use tidemill::source::{Fill, Room, Source};
use tidemill::websocket::Listeners;
use tokio_tungstenite::tungstenite;

const ALL: [Packing; 3] = [Packing::Gzip, Packing::Zlib, Packing::Zstd];

/// The next binary frame a peer gets, unpacked.
async fn next_packed(peer: &mut Peer, packing: Packing) -> String {
    let frame = received(peer).await;
    let tungstenite::Message::Binary(bytes) = frame else { panic!("unexpected: {frame:?}") };
    let unpacked = Unpacker::new(packing, 1 << 20).unpack(&bytes).expect("it is packed");
    String::from_utf8(unpacked.to_vec()).expect("text")
}

/// Sends what a source must lose alone, between two that it must not.
async fn send_bombs(peer: &mut Peer, packing: Packing) {
    let mut packer = Packer::new(packing);
    let frames = [&b"{\"a\":1}"[..], &[0; 2000], b"{\"b\":2}"].map(|text| packer.pack(text));
    let [first, bomb, last] = frames.map(tungstenite::Message::Binary);
    for frame in [first, bomb, tungstenite::Message::text("not packed"), last] {
        soon(peer.send(frame)).await.expect("it is read");
    }
}

fn assert_lost_alone(seen: &Seen, packing: Packing) {
    assert_eq!(seen.texts(), ["{\"a\":1}", "{\"b\":2}"]);
    assert!(seen.messages.iter().all(|message| !message.payload.is_text()), "as the frames came");
    let [bomb, broken] = &seen.failed[..] else { panic!("two are lost: {:?}", seen.failed) };
    assert_eq!((bomb.reason, broken.reason), (Reason::TooLarge, Reason::Decode));
    assert_eq!(bomb.detail, "unpacks to more than max_message_size (1000 bytes)");
    assert!(broken.detail.starts_with(&format!("not {packing}: ")), "{}", broken.detail);
    assert_eq!(broken.message.payload.as_bytes(), b"not packed", "as it came");
}

#[tokio::test]
async fn a_dialled_source_unpacks_and_loses_bombs_alone() {
    for packing in ALL {
        let (listener, url) = listener().await;
        let mut config = source_config(client_endpoint(&url));
        config.packing = Some(packing);
        config.endpoint.max_message_size_bytes = 1000;
        let (mut source, mut seen) = (client_source(config, &Metrics::default()), Seen::default());
        let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
        send_bombs(&mut peer, packing).await;
        fill_until(&mut source, &mut seen, |seen| seen.messages.len() == 2).await;
        assert_lost_alone(&seen, packing);
    }
}

#[tokio::test]
async fn a_server_source_unpacks_and_loses_bombs_alone() {
    for packing in ALL {
        let listeners = Listeners::default();
        let mut config = source_config(server_endpoint("/"));
        config.packing = Some(packing);
        config.endpoint.max_message_size_bytes = 1000;
        let (mut source, address) = open_source(&listeners, config, &Metrics::default()).await;
        let (mut peer, mut seen) = (dial(address, "/").await, Seen::default());
        send_bombs(&mut peer, packing).await;
        fill_until(&mut source, &mut seen, |seen| seen.messages.len() == 2).await;
        assert_lost_alone(&seen, packing);
    }
}

#[tokio::test]
async fn the_codec_looks_at_what_was_unpacked() {
    let (listener, url) = listener().await;
    let mut config = source_config(client_endpoint(&url));
    (config.packing, config.codec) = (Some(Packing::Zstd), Codec::Text);
    let (mut source, mut seen) = (client_source(config, &Metrics::default()), Seen::default());
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    let mut packer = Packer::new(Packing::Zstd);
    for bytes in [&b"\xff"[..], b"text"] {
        soon(peer.send(tungstenite::Message::Binary(packer.pack(bytes)))).await.expect("it is read");
    }
    fill_until(&mut source, &mut seen, |seen| !seen.messages.is_empty()).await;
    assert_eq!(seen.messages[0].payload.as_text(), Some("text"));
    assert_eq!(seen.failed[0].detail, "not UTF-8");
}

/// Fills batches until so many messages have failed; none has more than there is room for.
async fn fail_until(source: &mut Source, room: Room, failures: usize) {
    let mut seen = 0;
    while seen < failures {
        let (mut messages, mut failed) = (Vec::new(), Vec::new());
        let fill = soon(poll_fn(|cx| source.poll_fill(cx, &mut messages, room, &mut failed))).await;
        assert!(matches!(fill, Fill::More | Fill::Drained), "{fill:?}");
        assert!(messages.is_empty() && failed.len() <= room.messages, "{} in one batch", failed.len());
        assert!(failed.iter().all(|failed| failed.reason == Reason::Decode), "{failed:?}");
        seen += failed.len();
    }
}

#[tokio::test]
async fn what_is_no_json_or_no_utf8_fails_and_a_flood_of_it_fills_batches_like_messages() {
    const FLOOD: usize = 5_000;
    let room = Room { messages: 64, bytes: 1 << 20 };
    let rubbish = |n| match n % 2 {
        0 => tungstenite::Message::text("{"),
        _ => tungstenite::Message::binary(&b"{\"name\":\"caf\xe9\"}"[..]),
    };
    let (listener, url) = listener().await;
    let mut config = source_config(client_endpoint(&url));
    config.codec = Codec::Json;
    let (mut source, mut seen) = (client_source(config, &Metrics::default()), Seen::default());
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    let sending = tokio::spawn(async move {
        for n in 0..FLOOD {
            peer.feed(rubbish(n)).await.expect("it is read");
        }
        peer.flush().await.expect("it is read");
        peer
    });
    fail_until(&mut source, room, FLOOD).await;
    sending.await.expect("it does not panic");

    let listeners = Listeners::default();
    let mut config = source_config(server_endpoint("/"));
    config.codec = Codec::Json;
    let (mut source, address) = open_source(&listeners, config, &Metrics::default()).await;
    let mut peer = dial(address, "/").await;
    let sending = tokio::spawn(async move {
        for n in 0..FLOOD {
            peer.feed(rubbish(n)).await.expect("it is read");
        }
        peer.flush().await.expect("it is read");
        peer
    });
    fail_until(&mut source, room, FLOOD).await;
    sending.await.expect("it does not panic");
}

fn from_somewhere(text: &str) -> Message {
    let metadata = Metadata::new(Origin::new([(SOURCE, "ws://a/")]), 5_000_000);
    Message { metadata, ..crate::drive::message(text) }
}

const FORGED: &str = r#"{"__meta_source":"ws://trusted/","a":1}"#;
const TOLD: &str = r#"{"a":1,"__meta_source":"ws://a/","__meta_ingest_time":5000}"#;

#[tokio::test]
async fn a_dialled_sink_adds_metadata_and_packs() {
    for packing in [None, Some(Packing::Gzip), Some(Packing::Zlib), Some(Packing::Zstd)] {
        let (listener, url) = listener().await;
        let mut config = sink_config(client_endpoint(&url), Buffer::default(), Peers::default());
        (config.include_metadata, config.packing) = (true, packing);
        let metrics = Metrics::default();
        let (mut sink, mut failed) = (client_sink(config, &metrics), Vec::new());
        // One that waits for the connection, and one that is sent at once.
        sink.push(from_somewhere(FORGED), &mut failed);
        let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
        flush(&mut sink, &mut failed).await;
        sink.push(from_somewhere("no object"), &mut failed);
        flush(&mut sink, &mut failed).await;
        for wanted in [TOLD, "no object"] {
            let told = match packing {
                None => next_text(&mut peer).await,
                Some(packing) => next_packed(&mut peer, packing).await,
            };
            assert_eq!(told, wanted);
        }
        assert_eq!(metric(&metrics, &["tidemill_messages_delivered_total{"]), "2");
    }
}

#[tokio::test]
async fn a_server_sink_packs_what_every_peer_gets() {
    let (listeners, metrics) = (Listeners::default(), Metrics::default());
    let mut config = sink_config(server_endpoint("/"), Buffer::default(), Peers::default());
    (config.include_metadata, config.packing) = (true, Some(Packing::Zstd));
    let (mut sink, address) = open_sink(&listeners, config, &metrics).await;
    let (mut one, mut two) = (dial(address, "/").await, dial(address, "/").await);
    until_metric(&metrics, &["tidemill_connections{", "\"connected\""], "2").await;
    let mut failed = Vec::new();
    sink.push(from_somewhere(FORGED), &mut failed);
    push(&mut sink, &mut failed, &["plain"]).await;
    flush(&mut sink, &mut failed).await;
    for peer in [&mut one, &mut two] {
        assert_eq!(next_packed(peer, Packing::Zstd).await, TOLD);
        assert_eq!(next_packed(peer, Packing::Zstd).await, "plain");
    }
}
