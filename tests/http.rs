//! HTTP of plugins, as a user has it: a guest that asks, servers of this machine that are granted by their
//! addresses, and a host that runs the one on the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::FutureExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidemill::config::{HttpGrant, HttpSettings, Limits, Transform};
use tidemill::http_client::HttpClient;
use tidemill::plugin::{FaultKind, Instance, Setup};
use tidemill_tests::authority::Authority;
use tidemill_tests::host::{Folder, PATIENCE, binary};
use tidemill_tests::peers::{Collector, Feed};
use tidemill_tests::sockets::{soon, until};
use tidemill_tests::{guest, load, setup, texts};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::{TlsAcceptor, rustls};

/// What a call may run.
const DEADLINE: Duration = Duration::from_millis(100);
/// What it may wait for an answer, and longer.
const LONG_WAIT: Duration = Duration::from_millis(300);

/// A server of this machine, which answers with the first line of what it was asked for; on `/echo` with all of it,
/// on `/late` once it is released, on `/never` not at all.
struct Server {
    origin: String,
    asked: Arc<Mutex<Vec<String>>>,
    released: Arc<Semaphore>,
    _serving: JoinSet<()>,
}

impl Server {
    async fn plain() -> Self {
        Self::start(None).await
    }

    async fn tls(authority: &Authority) -> Self {
        let certified = authority.certify("127.0.0.1", |_| {});
        let chain = vec![CertificateDer::from_pem_slice(certified.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        Self::start(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (asked, released): (Arc<Mutex<Vec<String>>>, _) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let mut serving = JoinSet::new();
        serving.spawn({
            let (asked, released) = (asked.clone(), released.clone());
            async move {
                let mut peers = JoinSet::new();
                while let Ok((tcp, _)) = listener.accept().await {
                    let (asked, released, tls) = (asked.clone(), released.clone(), tls.clone());
                    peers.spawn(async move {
                        match tls {
                            None => serve(tcp, &asked, &released).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(tcp).await {
                                    serve(stream, &asked, &released).await;
                                }
                            }
                        }
                    });
                }
            }
        });
        Self { origin, asked, released, _serving: serving }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn has_been_asked(&self, times: usize) {
        until(|| self.asked().len() >= times).await;
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    asked: &Mutex<Vec<String>>,
    released: &Semaphore,
) {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let request = String::from_utf8(read).unwrap();
    asked.lock().unwrap().push(request.clone());
    let line = request.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let body = match line.split(' ').nth(1).unwrap_or_default() {
        "/never" => return std::future::pending().await,
        "/late" => {
            released.acquire().await.unwrap().forget();
            line
        }
        "/echo" => request.replace("\r\n", "|"),
        _ => line,
    };
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// What a guest is made with that may ask this server.
fn granted(server: &Server, config: &str, http: HttpSettings) -> Setup {
    let allow = vec![HttpGrant::parse(&server.origin).unwrap()];
    let transform = Transform { allow, http, ..Transform::new("asking") };
    let limits = Limits { deadline: DEADLINE, ..Limits::default() };
    Setup { http: HttpClient::of(&transform.allow, &transform.http), limits, ..setup(config) }
}

async fn start(setup: &Setup) -> Instance {
    load(&guest("asking").unwrap()).instantiate(setup).await.unwrap()
}

/// What a guest emits for one message.
async fn emitted(instance: &mut Instance, message: &str) -> String {
    let emissions = instance.process(&texts([message])).await.unwrap().emissions;
    assert_eq!(emissions.len(), 1);
    String::from_utf8(emissions.payload(0).as_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_call_that_waits_for_an_answer_does_not_run() {
    let server = Server::plain().await;
    let setup = granted(&server, "{}", HttpSettings::default());
    let mut instance = start(&setup).await;
    let message = format!("GET {}", server.url("/late"));
    let text = {
        let waiting = emitted(&mut instance, &message);
        tokio::pin!(waiting);
        tokio::select! {
            text = &mut waiting => panic!("nobody has answered yet: {text}"),
            () = server.has_been_asked(1) => {}
        }
        // Longer than its deadline.
        assert!(tokio::time::timeout(LONG_WAIT, &mut waiting).await.is_err());
        server.released.add_permits(1);
        soon(waiting).await
    };
    assert_eq!(text, "200 GET /late");
    let time = instance.last_call();
    assert!(time.running < DEADLINE && time.elapsed >= LONG_WAIT, "{time:?}");
    assert_eq!(soon(emitted(&mut instance, &format!("GET {}", server.url("/x")))).await, "200 GET /x");
}

#[tokio::test]
async fn requests_of_one_call_are_sent_side_by_side_and_answered_in_their_order() {
    let server = Server::plain().await;
    let mut instance = start(&granted(&server, "{}", HttpSettings::default())).await;
    let lines =
        [server.url("/late"), "ftp://x/".to_owned(), "https://evil.example/".to_owned(), server.url("/b")];
    let message = lines.map(|url| format!("GET {url}")).join("\n");
    let asking = emitted(&mut instance, &message);
    tokio::pin!(asking);
    // The last is asked while the first waits.
    while server.asked().len() < 2 {
        assert!(asking.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    server.released.add_permits(1);
    let expected = "200 GET /late\n\
        the request is invalid: the url must start with https:// or http://\n\
        the request is denied: https://evil.example is not granted\n\
        200 GET /b";
    assert_eq!(soon(asking).await, expected);
}

#[tokio::test]
async fn all_that_a_call_waits_has_an_end() {
    let server = Server::plain().await;
    let http = HttpSettings { timeout: Duration::from_millis(20), ..HttpSettings::default() };
    let mut instance = start(&granted(&server, "{}", http)).await;
    let message = format!("again 100\nGET {}", server.url("/never"));
    let told = soon(emitted(&mut instance, &message)).await;
    assert_eq!(told.lines().filter(|line| *line == "the answer took too long").count(), 100, "{told}");
    assert!(server.asked().len() <= 7, "{} of six waits", server.asked().len());
    // A guest may have less time, and never more.
    let mut hasty = start(&granted(&server, r#"{"timeout_ms":1}"#, HttpSettings::default())).await;
    let told = soon(emitted(&mut hasty, &format!("GET {}", server.url("/never")))).await;
    assert_eq!(told, "the answer took too long");
}

#[tokio::test]
async fn a_call_sends_so_many_requests_and_no_more() {
    let server = Server::plain().await;
    let mut instance = start(&granted(&server, "{}", HttpSettings::default())).await;
    let message = vec![format!("GET {}", server.url("/x")); 1030].join("\n");
    let told = soon(emitted(&mut instance, &message)).await;
    let refused = "the request is denied: one call may send 1024 requests";
    assert_eq!(told.lines().filter(|line| *line == "200 GET /x").count(), 1024);
    assert_eq!(told.lines().skip(1024).collect::<Vec<_>>(), [refused; 6]);
    assert_eq!(soon(emitted(&mut instance, &format!("GET {}", server.url("/x")))).await, "200 GET /x");
}

#[tokio::test]
async fn a_guest_may_ask_at_its_start_and_not_while_its_state_is_carried() {
    let server = Server::plain().await;
    let config = format!(r#"{{"init":"{0}","snapshot":"{0}"}}"#, server.url("/state"));
    let mut instance = start(&granted(&server, &config, HttpSettings::default())).await;
    let snapshot = instance.snapshot().await.unwrap().unwrap();
    assert_eq!(
        String::from_utf8(snapshot.into()).unwrap(),
        "the request is denied: state is carried without requests"
    );
    let told = soon(emitted(&mut instance, &format!("GET {}", server.url("/x")))).await;
    assert_eq!(told, "200 GET /state\n200 GET /x");
}

#[tokio::test]
async fn a_guest_that_asks_where_nothing_is_granted_does_not_start() {
    let refused = load(&guest("asking").unwrap()).instantiate(&setup("{}")).await.unwrap_err();
    assert!(refused.kind == FaultKind::Init && refused.is_refusal);
    assert!(
        refused.detail.contains("imports tidemill:plugin/http@0.1.") && refused.detail.contains("`allow = [")
    );

    let folder = Folder::default();
    folder.install("asking", &guest("asking").unwrap());
    let config = "[[pipelines]]\nname = \"p\"\nsource = { type = \"stdin\" }\ntransforms = [{ plugin = \"asking\" }]\n\
                  sinks = [{ type = \"stdout\" }]\n";
    std::fs::write(folder.path("tidemill.toml"), config).unwrap();
    let check = Command::new(binary()).arg("check").current_dir(folder.path("")).output().unwrap();
    let told = String::from_utf8(check.stderr).unwrap();
    assert_eq!(check.status.code(), Some(78), "{told}");
    assert!(told.contains("no requests are granted: `allow = [\"https://api.example.com\"]`"), "{told}");
}

/// A pipeline whose plugin may ask these servers.
fn pipeline(name: &str, feed: &Feed, sink: &Collector, allow: &[&Server], http: &str) -> String {
    let allow: Vec<_> = allow.iter().map(|server| &server.origin).collect();
    format!(
        r#"
        [[pipelines]]
        name = "{name}"
        source = {{ type = "websocket", url = "{}" }}
        sinks = [{{ type = "websocket", url = "{}" }}]
        transforms = [{{ plugin = "asking", allow = {allow:?}, http = {http} }}]
        "#,
        feed.url(),
        sink.url()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_asks_what_it_is_granted_and_shows_no_secret_anywhere() {
    let authority = Authority::default();
    let (plain, tls, other) = (Server::plain().await, Server::tls(&authority).await, Server::plain().await);
    let folder = Folder::default();
    folder.install("asking", &guest("asking").unwrap());
    std::fs::write(folder.path("roots.pem"), &authority.certificate).unwrap();
    std::fs::write(folder.path("token"), "t0ken-of-file\n").unwrap();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let http = r#"{ headers = { Authorization = "Bearer ${file:token}", X-Key = "plain-k3y" } }"#;
    let config = pipeline("p", &feed, &collector, &[&plain, &tls], http);
    let mut command = folder.command(PATIENCE / 2, &config);
    command.env("SSL_CERT_FILE", folder.path("roots.pem")).env_remove("SSL_CERT_DIR");
    let host = tokio::task::block_in_place(|| tidemill_tests::host::Host::start(&mut command).with_admin());

    let asks =
        [plain.url("/a"), tls.url("/b"), tls.url("/echo"), other.url("/c"), "http://127.0.0.1:1/".to_owned()];
    feed.text(asks.map(|url| format!("GET {url} authorization:guests")).join("\n")).await;
    let told = collector.text().await;
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[..2], ["200 GET /a", "200 GET /b"], "{told}");
    assert!(lines[2].contains("authorization: ***") && lines[2].contains("x-key: ***"), "{told}");
    assert_eq!(lines[3], format!("the request is denied: {} is not granted", other.origin));
    assert_eq!(lines[4], "the request is denied: http://127.0.0.1:1 is not granted");
    for asked in plain.asked().iter().chain(&tls.asked()) {
        assert!(asked.contains("authorization: Bearer t0ken-of-file\r\nx-key: plain-k3y\r\n"), "{asked}");
    }
    assert!(other.asked().is_empty());

    let shown = tokio::task::block_in_place(|| {
        ["/api/v1/pipelines", "/api/v1/pipelines/p", "/metrics", "/api/v1/connections"]
            .map(|path| host.get(path).1)
    });
    let ended = tokio::task::block_in_place(|| host.stop());
    assert!(ended.status.success(), "{}", ended.log);
    let everything = format!("{told}{}{}{}", shown.concat(), ended.log, ended.output);
    assert!(ended.log.contains("a request was denied: ") && shown[1].contains(&plain.origin), "{everything}");
    for secret in ["t0ken", "plain-k3y"] {
        assert!(!everything.contains(secret), "{secret} in {everything}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_plugin_waits_for_an_answer_others_go_on_and_a_stop_waits_no_longer_than_it_may() {
    let server = Server::plain().await;
    let folder = Folder::default();
    folder.install("asking", &guest("asking").unwrap());
    let (feed, other) = (Feed::open().await, Feed::open().await);
    let (collector, mut neighbour) = (Collector::open().await, Collector::open().await);
    let config = [
        pipeline("waits", &feed, &collector, &[&server], "{ timeout = \"1h\" }"),
        pipeline("goes_on", &other, &neighbour, &[&server], "{}"),
    ];
    let host =
        tokio::task::block_in_place(|| folder.run_with_grace(Duration::from_millis(500), &config.concat()));
    feed.text(format!("GET {}", server.url("/never"))).await;
    server.has_been_asked(1).await;
    for n in 0..20 {
        other.text(format!("GET {}", server.url(&format!("/{n}")))).await;
        assert_eq!(soon(neighbour.text()).await, format!("200 GET /{n}"));
    }
    let start = Instant::now();
    let ended = tokio::task::block_in_place(|| host.stop());
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("gave up") || ended.log.contains("given up"), "{}", ended.log);
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
}
