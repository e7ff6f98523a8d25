//! Handshakes that do not become connections: when the host tries again, and what it says.

use crate::drive::{QUICK, accept, connects, is_in, nobody, pipeline, server};
use std::time::{Duration, Instant};
use tidemill_tests::host::{Folder, Host};
use tidemill_tests::peers::Feed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Answers every request with this head, and says when it came.
fn answer(listener: TcpListener, head: &'static str) -> mpsc::Receiver<Instant> {
    let (sender, requests) = mpsc::channel(1024);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match tcp.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => break,
                }
            }
            if sender.send(Instant::now()).await.is_err() {
                return;
            }
            let _ = tcp.write_all(format!("{head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        }
    });
    requests
}

/// A host whose source is answered so, and the time between its first two requests.
async fn answered(head: &'static str, said: &str, reconnect: &str) -> (Host, Folder, Duration) {
    let folder = Folder::default();
    let (listener, url) = server().await;
    let mut requests = answer(listener, head);
    let source = format!("url = \"{url}\", reconnect = {{ delay = \"1ms\", jitter = 0, {reconnect} }}");
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{}\", {QUICK}", nobody().await)));
    let first = requests.recv().await.unwrap();
    let second = requests.recv().await.unwrap();
    host.says(&format!("failed to connect to WebSocket {url}: {said}"));
    host.wait_until("both are counted", |now| connects(now, "source", "handshake") >= 2);
    (host, folder, second - first)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_will_not_change_soon_wait_the_longest() {
    for (head, said) in [
        ("HTTP/1.1 401 Unauthorized", "401 Unauthorized"),
        ("HTTP/1.1 403 Forbidden", "403 Forbidden"),
        ("HTTP/1.1 404 Not Found", "404 Not Found"),
    ] {
        let (host, _folder, waited) = answered(head, said, "max_delay = \"300ms\"").await;
        assert!(waited >= Duration::from_millis(300), "{said}: {waited:?}");
        assert!(!is_in(&host.metrics(), "source", "connected"));
        if head.contains("401") {
            host.says("check `headers.Authorization`");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_servers_say_how_long_to_wait() {
    for (head, said) in [
        ("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1", "429 Too Many Requests"),
        ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1", "503 Service Unavailable"),
    ] {
        let (_host, _folder, waited) = answered(head, said, "max_delay = \"10ms\"").await;
        assert!(waited >= Duration::from_secs(1), "{said}: {waited:?}");
    }
    let head = "HTTP/1.1 503 Service Unavailable";
    let (_host, _folder, waited) = answered(head, "503 Service Unavailable", "max_delay = \"10ms\"").await;
    assert!(waited < Duration::from_secs(10), "nobody said how long: {waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_never_ends_times_out() {
    let folder = Folder::default();
    let (listener, url) = server().await;
    let source = format!("url = \"{url}\", connect_timeout = \"100ms\", {QUICK}");
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{}\", {QUICK}", nobody().await)));
    let (silent, _) = listener.accept().await.unwrap();
    host.says(&format!("connection to WebSocket {url} timed out after 100ms"));
    let now = host.wait_until("it is counted", |now| connects(now, "source", "timeout") >= 1);
    assert!(!is_in(&now, "source", "connected"));
    // What else was dialled meanwhile is silent as well.
    drop(silent);
    let feed = Feed::on(listener);
    host.wait_until("connected", |now| is_in(now, "source", "connected"));
    drop(feed);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_takes_the_next_url() {
    let folder = Folder::default();
    let (dead, (listener, url)) = (nobody().await, server().await);
    let source = format!("url = [\"ws://{dead}/a\", \"{url}\"], {QUICK}");
    let host = folder.run(&pipeline(&source, &format!("url = \"ws://{}\", {QUICK}", nobody().await)));
    for round in 1..=2 {
        drop(accept(&listener).await);
        host.wait_until("both are tried", |now| {
            connects(now, "source", "refused") >= round && connects(now, "source", "connected") >= round
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_wait_is_obeyed_whatever_the_refusal_and_told() {
    let folder = Folder::default();
    let (listener, url) = server().await;
    let mut requests = answer(listener, "HTTP/1.1 418 I'm a teapot\r\nRetry-After: 7200");
    let sink = format!("url = \"ws://{}\"", nobody().await);
    let host = folder.run(&pipeline(&format!("url = \"{url}\", {QUICK}"), &sink));
    requests.recv().await.unwrap();
    host.logged("the time to wait", |fields| (fields["retry_after"] == "3600s").then_some(()));
    host.wait_until("it waits", |now| is_in(now, "source", "waiting"));
    assert_eq!(connects(&host.metrics(), "source", "handshake"), 1);
    requests.try_recv().expect_err("there is no second request");
}
