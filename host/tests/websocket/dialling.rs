//! What a client endpoint does at each dial, and on the connection then: secrets from files, proxies,
//! first messages, the time between messages, heartbeats; and what a probe tells.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use crate::drive::{
    Metrics, Seen, accept, client_endpoint, client_of, close_code, dead_url, fill_until, listener, metric,
    next_text, push, sink_of, soon, source_of, with_sink, with_source,
};
use futures_util::SinkExt;
use std::time::Duration;
use tidemill::config::{Buffer, Endpoint, EndpointText, Environment, Heartbeat, Packing, Proxies, Server};
use tidemill::packing::Packer;
use tidemill::telemetry::ConnectOutcome;
use tidemill_tests::sockets::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// The head of a request, byte for byte.
async fn head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(tcp.read_u8()).await.expect("a request"));
    }
    String::from_utf8(head).expect("text")
}

#[tokio::test]
async fn a_secret_is_read_from_its_file_at_every_connect() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    endpoint.on_connect = vec![EndpointText::file(&file)];
    client_of(&mut endpoint).headers = vec![("X-Token".to_owned(), EndpointText::file(&file))];
    let metrics = Metrics::default();
    let mut source = source_of(endpoint, &metrics);
    let mut seen = Seen::default();
    // Without its file no dial is made, and the attempt counts as failed.
    let failed = until(|| metric(&metrics, &["tidemill_connects_total{", "handshake"]) != "0");
    with_source(&mut source, &mut seen, failed).await;
    for token in ["one", "two"] {
        std::fs::write(&file, format!("{token}\n")).unwrap();
        let asked = async {
            let (mut tcp, _) = listener.accept().await.expect("a connection");
            head(&mut tcp).await
        };
        let asked = with_source(&mut source, &mut seen, asked).await;
        assert!(asked.contains(&format!("X-Token: {token}\r\n")), "{asked}");
    }
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    assert_eq!(with_source(&mut source, &mut seen, next_text(&mut peer)).await, "two");
}

/// The names of the files of a folder that are opened, in order.
fn opened(folder: &std::path::Path) -> (notify::RecommendedWatcher, std::sync::mpsc::Receiver<String>) {
    use notify::event::{AccessKind, EventKind};
    use notify::{Event, RecursiveMode, Watcher};
    let (sender, names) = std::sync::mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if let Ok(Event { kind: EventKind::Access(AccessKind::Open(_)), paths, .. }) = event {
            let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
            names.for_each(|name| drop(sender.send(name.to_owned())));
        }
    })
    .unwrap();
    watcher.watch(folder, RecursiveMode::NonRecursive).unwrap();
    (watcher, names)
}

#[tokio::test]
async fn the_files_of_a_dial_are_read_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, url) = listener().await;
    let texts = [("url", &*url), ("header", "header-1"), ("first", "first-1"), ("beat", "beat-1")];
    let [url, header, first, beat] = texts.map(|(name, text)| {
        std::fs::write(folder.path().join(name), text).unwrap();
        EndpointText::file(folder.path().join(name))
    });
    std::fs::write(folder.path().join("last"), "").unwrap();
    let (_watcher, opened) = opened(folder.path());
    let mut endpoint = client_endpoint("ws://127.0.0.1:1");
    endpoint.on_connect = vec![first];
    let client = client_of(&mut endpoint);
    client.urls = vec![url];
    client.headers = vec![("X-Token".to_owned(), header)];
    let (interval, timeout) = (Duration::from_secs(3600), Duration::from_secs(10));
    client.heartbeat = Some(Heartbeat { interval, message: beat, reply: None, timeout });
    let mut source = source_of(endpoint, &Metrics::default());
    let mut peer = with_source(&mut source, &mut Seen::default(), accept(&listener)).await;
    assert_eq!(with_source(&mut source, &mut Seen::default(), next_text(&mut peer)).await, "first-1");
    // What was opened before this was told before it.
    std::fs::read(folder.path().join("last")).unwrap();
    let mut names: Vec<_> = opened.iter().take_while(|name| name != "last").collect();
    names.sort();
    assert_eq!(names, ["beat", "first", "header", "url"]);
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let (_listener, url) = listener().await;
    let mut endpoint = Endpoint::client(&*url);
    client_of(&mut endpoint).headers = vec![("X-Token".to_owned(), EndpointText::file("no/such/token"))];
    let error = soon(endpoint.probe()).await.expect_err("there is no token");
    let missing = "failed to read no/such/token: No such file or directory (os error 2)";
    assert_eq!(error.to_string(), format!("failed to connect to WebSocket {url}: {missing}"));
}

/// The proxies of an environment that names one for everything.
fn all_through(proxy: &str) -> Proxies {
    Proxies::of(&Environment::from([("all_proxy".to_owned(), proxy.to_owned())]))
}

/// A proxy that answers one CONNECT; what it was asked. A tunnel leads to `target`, whatever the name.
async fn proxy(listener: TcpListener, answer: &str, target: Option<TcpListener>) -> String {
    let (mut client, _) = listener.accept().await.expect("a connection");
    let asked = head(&mut client).await;
    client.write_all(format!("{answer}\r\n\r\n").as_bytes()).await.expect("it reads");
    if let Some(target) = target {
        let address = target.local_addr().expect("bound");
        let serve = async {
            let mut peer = accept(&target).await;
            peer.send(Message::text("through")).await.expect("it reads");
            close_code(&mut peer).await
        };
        let forward = async {
            let mut server = TcpStream::connect(address).await.expect("it listens");
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        };
        let (code, ()) = tokio::join!(serve, forward);
        assert_eq!(code, 1000);
    }
    asked
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel_with_its_own_credentials() {
    let ((at_proxy, proxy_url), (target, _)) = (listener().await, listener().await);
    let mut endpoint = Endpoint::client("ws://feed.invalid/x");
    let proxy_url = proxy_url.replace("ws://", "http://me:s3cr3t@").replace("/feed", "");
    client_of(&mut endpoint).proxies = all_through(&proxy_url);
    let served = tokio::spawn(async move { proxy(at_proxy, "HTTP/1.1 200 OK", Some(target)).await });
    let probed = soon(endpoint.probe()).await.expect("there is a way");
    assert_eq!((&*probed.url, probed.subprotocol), ("ws://feed.invalid/x", None));
    let asked = soon(served).await.unwrap();
    assert!(asked.starts_with("CONNECT feed.invalid:80 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("Proxy-Authorization: Basic bWU6czNjcjN0\r\n"), "{asked}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_apart_from_the_server() {
    let (at_proxy, proxy_url) = listener().await;
    let mut endpoint = Endpoint::client("wss://feed.invalid/x");
    let proxy_url = proxy_url.replace("ws://", "http://me:s3cr3t@").replace("/feed", "");
    client_of(&mut endpoint).proxies = all_through(&proxy_url);
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0";
    let served = tokio::spawn(async move { proxy(at_proxy, answer, None).await });
    let error = soon(endpoint.probe()).await.expect_err("it is refused");
    assert!(soon(served).await.unwrap().starts_with("CONNECT feed.invalid:443 "));
    let text = error.to_string();
    assert!(
        text.starts_with("failed to connect to WebSocket wss://feed.invalid/x: through the proxy http://127")
    );
    assert!(text.ends_with(": 407 Proxy Authentication Required"), "{text}");
    assert!(!text.contains("s3cr3t"), "{text}");
    assert_eq!(error.hint(), Some("check the user and the password in the proxy's url"));
    client_of(&mut endpoint).proxies = all_through("socks5://127.0.0.1:1");
    let error = soon(endpoint.probe()).await.expect_err("no such proxy is spoken to");
    assert!(error.to_string().ends_with(": only a proxy at http:// can be used"), "{error}");
}

#[tokio::test]
async fn a_probe_tells_what_it_found_and_says_goodbye() {
    let listeners = tidemill::websocket::Listeners::default();
    let mut endpoint = Endpoint::server("/", &Server { port: 0, ..Server::default() });
    endpoint.subprotocols = vec!["v1".into()];
    let metrics = Metrics::default();
    let (_sink, address) =
        crate::drive::server_sink(&listeners, endpoint, tidemill::config::Peers::default(), &metrics).await;
    let mut client = Endpoint::client(format!("ws://{address}/"));
    client.subprotocols = vec!["v1".into()];
    let probed = soon(client.probe()).await.expect("it is there");
    assert_eq!((probed.subprotocol.as_deref(), probed.peer, probed.tls), (Some("v1"), Some(address), None));
    crate::drive::until_metric(&metrics, &["tidemill_connections{", "\"connected\""], "0").await;
    let error = soon(Endpoint::server("/", &Server::default()).probe()).await.expect_err("no client");
    assert_eq!(error.to_string(), "a server endpoint is dialled by its peers");
}

#[tokio::test]
async fn a_probe_goes_on_to_the_next_url_and_tells_of_all_when_none_answers() {
    let (dead, (listener, url)) = (dead_url().await, listener().await);
    let mut endpoint = Endpoint::client(&*dead);
    client_of(&mut endpoint).urls.push(url.as_str().into());
    let serve = async {
        let mut peer = accept(&listener).await;
        close_code(&mut peer).await
    };
    let (probed, code) = soon(async { tokio::join!(endpoint.probe(), serve) }).await;
    assert_eq!((probed.expect("the second answers").url, code), (url, 1000));
    client_of(&mut endpoint).urls[1] = "ws://".into();
    let error = soon(endpoint.probe()).await.expect_err("there is nobody").to_string();
    let refused = format!("failed to connect to WebSocket {dead}: connection refused; ");
    assert!(error.starts_with(&refused) && error.len() > refused.len(), "{error}");
}

/// A listener whose queue is full: nobody accepts, and no further connection is made.
async fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(200);
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        waiting.push(stream.expect("queued"));
    }
    (listener, waiting)
}

#[tokio::test]
async fn tcp_tls_and_the_handshake_share_one_timeout() {
    let (full, _waiting) = full_listener().await;
    // They accept, and never say a word.
    let (silent, url) = listener().await;
    let urls = [format!("ws://{}/", full.local_addr().unwrap()), url.replace("ws://", "wss://"), url];
    for url in urls {
        let mut endpoint = Endpoint::client(&*url);
        client_of(&mut endpoint).connect_timeout = Duration::from_millis(50);
        client_of(&mut endpoint).tls.insecure_skip_verify = true;
        let error = soon(endpoint.probe()).await.expect_err("nobody answers");
        assert_eq!(error.to_string(), format!("connection to WebSocket {url} timed out after 50ms"));
        assert_eq!(error.errors()[0].outcome(), ConnectOutcome::Timeout);
    }
    drop(silent);
}

#[tokio::test]
async fn messages_keep_their_distance_first_ones_included() {
    const INTERVAL: Duration = Duration::from_millis(40);
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    endpoint.on_connect = vec!["first".into(), "second".into()];
    client_of(&mut endpoint).send_interval = INTERVAL;
    let mut sink = sink_of(endpoint, Buffer::default(), &Metrics::default());
    let mut failed = Vec::new();
    push(&mut sink, &mut failed, &["third", "fourth"]).await;
    let start = Instant::now();
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    for text in ["first", "second", "third", "fourth"] {
        assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, text);
    }
    assert!(start.elapsed() >= 3 * INTERVAL, "{:?}", start.elapsed());
}

fn heartbeat(reply: Option<&str>) -> Option<Heartbeat> {
    Some(Heartbeat {
        interval: Duration::from_millis(20),
        message: "are you there".into(),
        reply: reply.map(EndpointText::plain),
        timeout: Duration::from_millis(100),
    })
}

#[tokio::test]
async fn an_answered_heartbeat_is_swallowed_and_an_unanswered_one_reconnects() {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).heartbeat = heartbeat(Some("yes"));
    let metrics = Metrics::default();
    let mut source = source_of(endpoint, &metrics);
    let mut seen = Seen::default();
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    // Ten answers take longer than the timeout of one.
    for _ in 0..10 {
        assert_eq!(with_source(&mut source, &mut seen, next_text(&mut peer)).await, "are you there");
        soon(peer.send(Message::text("yes"))).await.expect("it is read");
    }
    soon(peer.send(Message::text("news"))).await.expect("it is read");
    fill_until(&mut source, &mut seen, |seen| !seen.messages.is_empty()).await;
    assert_eq!(seen.texts(), ["news"]);
    let closed = async { while next_or_code(&mut peer).await != Some(1011) {} };
    with_source(&mut source, &mut seen, closed).await;
    drop(peer);
    with_source(&mut source, &mut seen, accept(&listener)).await;
}

#[tokio::test]
async fn a_packed_answer_to_a_heartbeat_is_swallowed_too() {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).heartbeat = heartbeat(Some("yes"));
    let mut config = crate::drive::source_config(endpoint);
    config.packing = Some(Packing::Gzip);
    let mut source = crate::drive::client_source(config, &Metrics::default());
    let mut seen = Seen::default();
    let mut packer = Packer::new(Packing::Gzip);
    let mut peer = with_source(&mut source, &mut seen, accept(&listener)).await;
    // Ten answers take longer than the timeout of one.
    for _ in 0..10 {
        assert_eq!(with_source(&mut source, &mut seen, next_text(&mut peer)).await, "are you there");
        soon(peer.send(Message::binary(packer.pack(b"yes")))).await.expect("it is read");
    }
    soon(peer.send(Message::binary(packer.pack(b"news")))).await.expect("it is read");
    fill_until(&mut source, &mut seen, |seen| !seen.messages.is_empty()).await;
    assert_eq!(seen.texts(), ["news"]);
}

#[tokio::test]
async fn a_peer_that_reads_nothing_misses_its_heartbeat_though_none_can_be_sent() {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    endpoint.ping = None;
    client_of(&mut endpoint).heartbeat = heartbeat(Some("yes"));
    let mut sink = sink_of(endpoint, Buffer::default(), &Metrics::default());
    let mut failed = Vec::new();
    let _blocked = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    // More than the kernels of both sides take.
    push(&mut sink, &mut failed, &[&"x".repeat(32 << 20)]).await;
    with_sink(&mut sink, &mut failed, accept(&listener)).await;
}

/// The code of a close frame, if that is what comes next.
async fn next_or_code(peer: &mut crate::drive::Peer) -> Option<u16> {
    match futures_util::StreamExt::next(peer).await.expect("open").expect("sound") {
        Message::Close(frame) => Some(frame.expect("with a code").code.into()),
        _ => None,
    }
}

#[tokio::test]
async fn a_sink_has_a_heartbeat_too() {
    let (listener, url) = listener().await;
    let mut endpoint = client_endpoint(&url);
    client_of(&mut endpoint).heartbeat = heartbeat(None);
    let mut sink = sink_of(endpoint, Buffer::default(), &Metrics::default());
    let mut failed = Vec::new();
    let mut peer = with_sink(&mut sink, &mut failed, accept(&listener)).await;
    for _ in 0..3 {
        assert_eq!(with_sink(&mut sink, &mut failed, next_text(&mut peer)).await, "are you there");
    }
}

#[tokio::test]
async fn a_refused_dial_is_never_shown_as_connected() {
    let metrics = Metrics::default();
    let mut source = source_of(client_endpoint(&dead_url().await), &metrics);
    let mut seen = Seen::default();
    let watched = until(|| {
        assert_eq!(metric(&metrics, &["tidemill_connections{", "\"connected\""]), "0");
        metric(&metrics, &["tidemill_connects_total{", "refused"]).parse::<u32>().unwrap() >= 3
    });
    with_source(&mut source, &mut seen, watched).await;
}

/// The command line's answer: its exit code, standard output and standard error.
async fn tidemill(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = soon(output).await.unwrap().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn the_command_line_says_what_a_probe_found() {
    let (listener, url) = listener().await;
    let served = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a connection");
        let asked = head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.expect("it reads");
        let mut peer = accept(&listener).await;
        assert_eq!(close_code(&mut peer).await, 1000);
        asked
    });
    let (code, out, err) = tidemill(&["probe", &url, "--header", "X-Key: k-1"]).await;
    assert_eq!((code, &*out), (Some(1), ""));
    let text = format!("error: failed to connect to WebSocket {url}: 403 Forbidden\nhint: ");
    assert!(err.contains(&text), "{err}");
    let (code, out, _) = tidemill(&["probe", &url, "--json"]).await;
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, &answer["ok"], &answer["status"], &answer["url"]),
        (Some(0), &true.into(), &101.into(), &url.into())
    );
    assert!(soon(served).await.unwrap().contains("X-Key: k-1\r\n"));
    let (code, _, err) = tidemill(&["probe", "http://example.com/"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("websocket url must start with ws:// or wss://, got: http://example.com/"), "{err}");
}
