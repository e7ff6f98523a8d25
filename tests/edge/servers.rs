//! Endpoints that accept: paths, addresses, pipelines that share them, and how peers learn of an end.

use crate::drive::{QUICK, accept, accounted_for, closed, nobody, pipeline, received, server, text};
use futures_util::SinkExt;
use std::process::Command;
use tidemill_tests::host::{Folder, Host, binary};
use tidemill_tests::peers::{Collector, Feed, dial};
use tidemill_tests::plugin;
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::test(flavor = "multi_thread")]
async fn one_path_on_two_addresses_is_two_endpoints() {
    let folder = Folder::default();
    let listeners =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.2:0").await.unwrap()];
    let addresses = listeners.map(|listener| listener.local_addr().unwrap());
    let mut config = String::new();
    for (name, address) in ["p", "q"].iter().zip(addresses) {
        let at = format!("mode = \"server\", host = \"{}\", port = {}", address.ip(), address.port());
        let of = pipeline(&format!("{at}, path = \"/same\""), &format!("{at}, path = \"/same\""));
        config += &of.replace("name = \"p\"", &format!("name = \"{name}\""));
    }
    let host = folder.run(&config);
    host.wait_until("all listen", |now| now.count("tidemill_connections", &["state=\"listening\""]) == 4);
    let mut first = dial(addresses[0], "/same").await;
    let mut second = dial(addresses[1], "/same").await;
    first.send(Message::text("first")).await.unwrap();
    second.send(Message::text("second")).await.unwrap();
    assert_eq!((text(&mut first).await, text(&mut second).await), ("first".to_owned(), "second".to_owned()));
    let now = accounted_for(&host, 2);
    for name in ["pipeline=\"p\"", "pipeline=\"q\""] {
        assert_eq!(now.count("tidemill_messages_received_total", &[name]), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_path_at_two_servers_is_two_feeds() {
    let folder = Folder::default();
    let (first, second) = (Feed::open().await, Feed::open().await);
    let (mut to_first, mut to_second) = (Collector::open().await, Collector::open().await);
    let config = [("p", &first, &to_first), ("q", &second, &to_second)].map(|(name, feed, collector)| {
        let of = pipeline(&format!("url = \"{}\"", feed.url()), &format!("url = \"{}\"", collector.url()));
        of.replace("name = \"p\"", &format!("name = \"{name}\""))
    });
    let _host = folder.run(&config.concat());
    for n in 0..10 {
        first.text(format!("first {n}")).await;
        second.text(format!("second {n}")).await;
    }
    for n in 0..10 {
        assert_eq!(to_first.text().await, format!("first {n}"));
        assert_eq!(to_second.text().await, format!("second {n}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_pipelines_on_one_endpoint_the_first_stops_alone() {
    let folder = Folder::default();
    folder.install("filter", &plugin("filter"));
    let (mut to_first, mut to_second) = (Collector::open().await, Collector::open().await);
    let host = folder.run(&format!(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "first"
        source = {{ type = "websocket", mode = "server", path = "/in" }}
        transforms = [{{ plugin = "filter", on_error = "stop", config = {{ where = [{{ field = "/n", op = "exists" }}] }} }}]
        sinks = [{{ type = "websocket", url = "{}" }}]

        [[pipelines]]
        name = "second"
        source = {{ type = "websocket", mode = "server", path = "/in" }}
        sinks = [{{ type = "websocket", url = "{}" }}]
        "#,
        to_first.url(),
        to_second.url()
    ));
    let address = host.listening("websocket");
    host.wait_until("both read", |now| now.count("tidemill_pipelines", &["state=\"running\""]) == 2);
    let mut peer = dial(address, "/in").await;
    peer.send(Message::text("{\"n\":1}")).await.unwrap();
    assert_eq!(to_first.text().await, "{\"n\":1}");
    assert_eq!(to_second.text().await, "{\"n\":1}");
    peer.send(Message::text("not JSON")).await.unwrap();
    assert_eq!(to_second.text().await, "not JSON");
    host.says("pipeline failed");
    for n in 0..100 {
        peer.send(Message::text(n.to_string())).await.unwrap();
        assert_eq!(to_second.text().await, n.to_string());
    }
    host.wait_until("all are counted", |now| {
        ["tidemill_messages_received_total", "tidemill_messages_delivered_total"]
            .iter()
            .all(|metric| now.count(metric, &["pipeline=\"second\""]) == 102)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_a_pipeline_that_fails_are_closed_with_1011() {
    let folder = Folder::default();
    folder.install("filter", &plugin("filter"));
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/in" }
        transforms = [{ plugin = "filter", on_error = "stop", config = { where = [{ field = "/n", op = "exists" }] } }]
        sinks = [{ type = "websocket", mode = "server", path = "/out" }]
        "#,
    );
    let address = host.listening("websocket");
    let (mut writer, mut reader) = (dial(address, "/in").await, dial(address, "/out").await);
    writer.send(Message::text("not JSON")).await.unwrap();
    assert_eq!(closed(&mut writer).await.0, 1011);
    assert_eq!(closed(&mut reader).await.0, 1011);
    host.says("pipeline failed");
    host.wait_until("it is not ready", |_| host.get("/readyz").0 == 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_a_host_that_stops_are_closed_with_1001() {
    let folder = Folder::default();
    let config = pipeline("mode = \"server\", path = \"/in\"", "mode = \"server\", path = \"/out\"");
    let host = folder.run(&format!("[server]\nport = 0\n\n{config}"));
    let address = host.listening("websocket");
    let (mut writer, mut reader) = (dial(address, "/in").await, dial(address, "/out").await);
    let stopping = tokio::task::spawn_blocking(move || host.stop());
    assert_eq!(closed(&mut writer).await.0, 1001);
    assert_eq!(closed(&mut reader).await.0, 1001);
    drop((writer, reader));
    assert!(stopping.await.unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_ends_the_start_with_its_address() {
    let (taken, _) = server().await;
    let port = taken.local_addr().unwrap().port();
    let folder = Folder::default();
    let config = pipeline("mode = \"server\"", &format!("url = \"ws://{}\", {QUICK}", nobody().await));
    let ended = folder.run(&format!("[server]\nport = {port}\n\n{config}")).wait();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    let text = format!("failed to listen on 127.0.0.1:{port}: address in use");
    assert!(ended.log.contains(&text), "{}", ended.log);
}

/// A host with this whole file, and no more open files than this.
fn limited(folder: &Folder, config: &str, files: u32) -> Host {
    std::fs::write(folder.path("tidemill.toml"), config).unwrap();
    let script = format!("ulimit -n {files} && exec \"$0\" run --log-format json");
    let mut command = Command::new("sh");
    Host::start(command.args(["-c", &script]).arg(binary()).current_dir(folder.path(".")))
}

#[test]
fn a_port_that_the_host_itself_has_ends_the_start_with_whose_it_is() {
    let folder = Folder::default();
    // Nothing else is at this address, so the port stays free.
    let address = std::net::TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap();
    let config = pipeline("mode = \"server\"", &format!("url = \"ws://127.0.0.1:1\", {QUICK}"));
    let server = format!("[server]\nhost = \"{}\"\nport = {}\n", address.ip(), address.port());
    let ended = limited(&folder, &format!("[admin]\nlisten = \"{address}\"\n{server}{config}"), 512).wait();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    let text = format!("failed to listen on {address}: address in use by [admin], at {address}");
    assert!(ended.log.contains(&text), "{}", ended.log);
}

#[test]
fn fewer_open_files_than_the_listeners_may_need_are_warned_about() {
    let folder = Folder::default();
    let client = format!("url = \"ws://127.0.0.1:1\", {QUICK}");
    for (connections, is_warned) in [(1000, true), (100, false)] {
        let server = format!("[server]\nport = 0\nmax_connections = {connections}\n");
        let config = server + &pipeline("mode = \"server\"", &client);
        let host = limited(&folder, &config, 512);
        // It is warned about before anything is opened.
        host.listening("websocket");
        let ended = host.stop();
        let warning = "max_connections does not fit the limit of open files";
        let line = ended.log.lines().find(|line| line.contains(warning)).unwrap_or_default();
        assert_eq!(line.contains("\"connections\":1000,\"files\":512,"), is_warned, "{}", ended.log);
        assert_eq!(line.contains("raise the limit of open files, or lower max_connections"), is_warned);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_no_handshake_can_have_is_warned_of_at_the_start() {
    let folder = Folder::default();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/in", metadata = { who = "auth:user", device = "tls:cn" } }
        sinks = [{ type = "reply" }]

        [[pipelines]]
        name = "q"
        source = { type = "websocket", mode = "server", path = "/q", metadata = { known = "auth:user", room = "query:room" }, auth = { basic = { ann = "pass" } } }
        sinks = [{ type = "stdout" }]
        "#,
    );
    host.wait_until("both listen", |now| {
        ["p", "q"].iter().all(|name| {
            let of = format!("pipeline=\"{name}\"");
            now.count("tidemill_connections", &["endpoint=\"source\"", &of, "state=\"listening\""]) == 1
        })
    });
    for (key, why) in [
        ("who", "metadata from `auth:user` will be absent: `auth` has no `basic`"),
        ("device", "metadata from `tls:` will be absent: `tls` has no `client_ca`"),
    ] {
        host.logged(why, |fields| {
            (fields["message"] == why
                && fields["key"] == key
                && fields["endpoint"] == "the source of pipeline p")
                .then_some(())
        });
    }
    assert_eq!(host.log().matches("will be absent").count(), 2, "{}", host.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_whose_file_cannot_be_read_is_named_in_the_log() {
    let folder = Folder::default();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/in", auth = { bearer = ["${file:token}", "other"], bearer_from = ["query:t"] } }
        sinks = [{ type = "stdout" }]
        "#,
    );
    let address = host.listening("websocket");
    let refused = connect_async(format!("ws://{address}/in?t=secret")).await;
    assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 401));
    host.says("token: No such file or directory");
    dial(address, "/in?t=other").await;
    std::fs::write(folder.path("token"), "secret").unwrap();
    dial(address, "/in?t=secret").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_messages_wait_for_a_sink_is_not_idle_until_they_are_taken() {
    /// More than the sockets to the reader take.
    const LARGE_BYTES: usize = 8 << 20;
    /// More than the sink takes: one is written, one is in its buffer.
    const LARGE: usize = 4;
    let folder = Folder::default();
    let (listener, url) = server().await;
    let source = "mode = \"server\", path = \"/in\", idle_timeout = \"3s\", max_message_size = \"16MiB\"";
    let sink = format!("url = \"{url}\", buffer = {{ capacity = 1 }}");
    let host = folder.run(&format!("[server]\nport = 0\n\n{}", pipeline(source, &sink)));
    // It is there, and does not read.
    let mut reader = accept(&listener).await;
    let address = host.listening("websocket");
    let held_back = |seconds: f64| {
        host.wait_until("the source is held back", |now| {
            now.sum("tidemill_source_paused_seconds_total", &[]) >= seconds
        })
    };
    let mut loud = dial(address, "/in").await;
    for _ in 0..LARGE {
        loud.send(Message::binary(vec![0; LARGE_BYTES])).await.unwrap();
    }
    held_back(0.01);
    let mut quiet = dial(address, "/in").await;
    for n in 0..3 {
        quiet.send(Message::text(n.to_string())).await.unwrap();
    }
    let now = held_back(5.0);
    assert_eq!(now.count("tidemill_connections", &["endpoint=\"source\"", "state=\"connected\""]), 2);
    for _ in 0..LARGE {
        assert_eq!(received(&mut reader).await.len(), LARGE_BYTES);
    }
    for n in 0..3 {
        assert_eq!(text(&mut reader).await, n.to_string());
    }
    for peer in [&mut loud, &mut quiet] {
        assert_eq!(closed(peer).await, (1000, "idle".to_owned()), "nothing of theirs waits any more");
    }
    accounted_for(&host, LARGE as u64 + 3);
}
