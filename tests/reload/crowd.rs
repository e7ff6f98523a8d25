//! The example `reload` with hundreds of connections and a hundred reloads: not one of them closes, and not one message
//! is lost.

use crate::site::{Site, class};
use futures_util::SinkExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemill_tests::host::Counted;
use tidemill_tests::peers::{Dialled, dial};
use tidemill_tests::root;
use tidemill_tests::sockets::text;
use tokio_tungstenite::tungstenite::Message;

const PEERS: usize = 500;
const RELOADS: usize = 100;
/// Of one device.
const BETWEEN_READINGS: Duration = Duration::from_millis(150);

/// A configuration file of the example.
fn example(file: &str) -> String {
    std::fs::read_to_string(root().join("examples/reload").join(file)).expect("it is there")
}

/// Sends readings, of which each third is in range before and after, the next only after, and the last never, until
/// told to stop: how many that were.
async fn talk(mut peer: Dialled, device: usize, stop: Arc<AtomicBool>) -> u64 {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let reading = |celsius: u32| format!(r#"{{"device":{device},"n":{sent},"celsius":{celsius}}}"#);
        let (always, sometimes, never) = (reading(20), reading(150), reading(300));
        for reading in [&never, &sometimes, &always] {
            peer.send(Message::text(reading.as_str())).await.expect("it is open");
        }
        sent += 3;
        loop {
            let text = text(&mut peer).await;
            // Nothing is lost, and nothing comes twice.
            if text == always {
                break;
            }
            assert_eq!(text, sometimes, "{device} after {sent}");
        }
        tokio::time::sleep(BETWEEN_READINGS).await;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_close_none_of_five_hundred_connections_and_lose_no_message() {
    let site = Site::default();
    site.install("filter", "filter");
    let files = [example("tidemill.toml"), example("next.toml")];
    let plugins = site.path("plugins");
    let plugins = plugins.to_str().expect("it is text");
    let variables = [("PORT", "0"), ("ADMIN", "127.0.0.1:0"), ("PLUGINS", plugins)];
    let site = site.run_file(&variables, &files[0]);
    let address = site.host().listening("websocket");
    let stop = Arc::<AtomicBool>::default();
    let mut peers = Vec::with_capacity(PEERS);
    for device in 0..PEERS {
        let peer = dial(address, "/readings").await;
        peers.push(tokio::spawn(talk(peer, device, stop.clone())));
    }
    for reload in 1..=RELOADS {
        site.write_file(&files[reload % 2]);
        let (status, told) = site.reload("").await;
        assert_eq!(status, 200, "{told}");
        assert_eq!(class(&told, "readings"), "updated", "{told}");
        let notices = if reload % 2 == 1 { "added" } else { "removed" };
        assert_eq!(class(&told, "notices"), notices, "{told}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for peer in peers {
        sent += peer.await.expect("its connection was never closed");
    }
    assert!(sent >= PEERS as u64);
    let ends = |now: &Counted| {
        ["tidemill_messages_delivered_total", "tidemill_messages_filtered_total"]
            .map(|metric| now.count(metric, &["pipeline=\"readings\""]))
    };
    let now = tokio::task::block_in_place(|| {
        site.host().wait_until("all are at their ends", |now| ends(now).iter().sum::<u64>() >= sent)
    });
    let [back, out_of_range] = ends(&now);
    assert_eq!(back + out_of_range, sent);
    assert_eq!(now.count("tidemill_messages_received_total", &["pipeline=\"readings\""]), sent);
    assert!(
        back > sent / 3 && out_of_range > sent / 3,
        "both ranges were in force: {back} of {sent} came back"
    );
    assert_eq!(site.counted("tidemill_messages_dropped_total", &[]).await, 0);
    let accepted =
        site.counted("tidemill_connects_total", &["pipeline=\"readings\"", "endpoint=\"source\""]).await;
    assert_eq!(accepted, PEERS as u64, "each came once");
    site.stop().await;
}
