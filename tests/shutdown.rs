//! SIGTERM ends the host within its grace period, whatever hinders it: a peer that reads sees 1001, and
//! the exit code says whether all that was in flight has reached its end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::SinkExt;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tidemill_tests::guest;
use tidemill_tests::host::{Folder, Host};
use tidemill_tests::peers::{Feed, dial};
use tidemill_tests::sockets::{accept, close_code_at_the_end, nobody, server, soon, text};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

/// Where it runs out.
const GRACE: Duration = Duration::from_secs(2);
/// Where nothing is to be waited for: longer than a busy machine takes for the end of a process.
const LONG_GRACE: Duration = Duration::from_secs(10);
/// What the end of the process itself may take on a busy machine. What hinders it here lasts a minute, or for ever.
const MARGIN: Duration = Duration::from_secs(10);
/// Of a kilobyte each: far more than the buffers of a peer that does not read take.
const MANY_MESSAGES: u64 = 10_000;

/// The pipeline beside the one that is hindered; one peer reads what it sends.
const WITNESS: &str = r#"
    [server]
    port = 0

    [[pipelines]]
    name = "witness"
    source = { type = "websocket", mode = "server", path = "/witness" }
    sinks = [{ type = "websocket", mode = "server", path = "/witness" }]
    "#;

/// To where most of what is sent goes.
const TO_FILE: &str = r#"sinks = [{ type = "file", path = "out.jsonl", format = "jsonl" }]"#;

/// A host with two pipelines, one of them hindered, and a peer of the other.
struct Scene {
    host: Host,
    address: SocketAddr,
    witness: JoinHandle<Option<u16>>,
    grace: Duration,
}

/// How the host ended.
struct End {
    code: Option<i32>,
    took: Duration,
    log: String,
}

impl Scene {
    async fn start(folder: &Folder, grace: Duration, hindered: &str) -> Self {
        let config = format!("{WITNESS}\n{hindered}");
        Self::of(folder.run_with_grace(grace, &config), grace).await
    }

    async fn of(host: Host, grace: Duration) -> Self {
        let address = host.listening("websocket");
        let witness = tokio::spawn(close_code_at_the_end(dial(address, "/witness").await));
        Self { host, address, witness, grace }
    }

    /// Waits until so many messages went into a stage or were received.
    fn wait_for(&self, metric: &str, labels: &[&str], count: u64) {
        self.host.wait_until(metric, |now| now.count(metric, labels) >= count);
    }

    /// SIGTERM; checks what holds in every case.
    async fn end(self) -> End {
        let Self { host, witness, grace, .. } = self;
        let began = Instant::now();
        let ended = tokio::task::spawn_blocking(move || host.stop()).await.unwrap();
        let took = began.elapsed();
        assert!(took <= grace + MARGIN, "the host took {took:?} to end\n{}", ended.log);
        let code = soon(witness).await.unwrap();
        assert_eq!(code, Some(1001), "the peer that reads sees that the endpoint stops\n{}", ended.log);
        End { code: ended.status.code(), took, log: ended.log }
    }

    /// All that was in flight has reached its end, and nothing was waited for.
    async fn ends_at_once_with_0(self) {
        let grace = self.grace;
        let End { code, took, log } = self.end().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(took < grace, "the host waited {took:?} for nothing\n{log}");
    }

    /// The grace period ran out.
    async fn ends_late_with_1(self) {
        let grace = self.grace;
        let End { code, took, log } = self.end().await;
        assert_eq!(code, Some(1), "after {took:?}\n{log}");
        assert!(took >= grace, "the host gave up after {took:?}\n{log}");
    }

    /// As the one or as the other: the code says which.
    async fn ends_as_its_code_says(self) {
        let grace = self.grace;
        let End { code, took, log } = self.end().await;
        // What is read at the very end is delivered, however late that was.
        let is_late = took >= grace && code != Some(0);
        assert_eq!(code, Some(i32::from(is_late)), "after {took:?}\n{log}");
    }
}

/// The pipeline that is hindered, from a feed; the rest of it.
fn from_feed(feed: &Feed, rest: &str) -> String {
    format!(
        r#"
        [[pipelines]]
        name = "hindered"
        source = {{ type = "websocket", url = "{}" }}
        {rest}
        "#,
        feed.url(),
    )
}

/// The same with a plugin, to a file.
fn with_plugin(feed: &Feed, transform: &str) -> String {
    from_feed(feed, &format!("transforms = [{{ {transform} }}]\n{TO_FILE}"))
}

/// A scene whose pipeline runs a guest that has a minute for each call; its feed; and the folder, which is to stay.
async fn with_guest(name: &str, config: &str, grace: Duration) -> (Scene, Feed, Folder) {
    let folder = Folder::default();
    install(&folder, name);
    let feed = Feed::open().await;
    let transform = format!("plugin = \"{name}\", config = {{ {config} }}, limits = {{ deadline = \"1m\" }}");
    let scene = Scene::start(&folder, grace, &with_plugin(&feed, &transform)).await;
    (scene, feed, folder)
}

fn install(folder: &Folder, name: &str) {
    folder.install(name, &guest(name).expect("guests in Rust are built"));
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_hinders_it() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let hindered = from_feed(&feed, TO_FILE);
    let scene = Scene::start(&folder, LONG_GRACE, &hindered).await;
    feed.text("one").await;
    scene.wait_for("tidemill_messages_delivered_total", &["sink=\"sink0\""], 1);
    scene.ends_at_once_with_0().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_spins() {
    let (scene, feed, _folder) = with_guest("hostile", r#"behaviour = "endless_loop""#, GRACE).await;
    feed.text("poison").await;
    scene.wait_for("tidemill_stage_messages_in_total", &["pipeline=\"hindered\""], 1);
    scene.ends_late_with_1().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_spins_does_not_keep_the_peers_that_send_to_it() {
    let folder = Folder::default();
    install(&folder, "hostile");
    let hindered = r#"
        [[pipelines]]
        name = "hindered"
        source = { type = "websocket", mode = "server", path = "/in" }
        transforms = [{ plugin = "hostile", config = { behaviour = "endless_loop" }, limits = { deadline = "1m" } }]
        sinks = [{ type = "file", path = "out.jsonl", format = "jsonl" }]
        "#;
    let scene = Scene::start(&folder, 4 * GRACE, hindered).await;
    let mut peer = dial(scene.address, "/in").await;
    peer.send(Message::text("poison")).await.unwrap();
    scene.wait_for("tidemill_stage_messages_in_total", &["pipeline=\"hindered\""], 1);
    let told = tokio::spawn(async move {
        let code = close_code_at_the_end(peer).await;
        (code, Instant::now())
    });
    scene.ends_late_with_1().await;
    let ended = Instant::now();
    let (code, at) = told.await.unwrap();
    assert_eq!(code, Some(1001));
    assert!(ended - at > GRACE, "it was told only when the grace period had run out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_runs_into_its_deadline_at_every_message() {
    let folder = Folder::default();
    install(&folder, "hostile");
    let feed = Feed::open().await;
    let spins = "plugin = \"hostile\", config = { behaviour = \"endless_loop\" }";
    // They wait for the host, and come as one batch: of a few the host would be through in time.
    for _ in 0..256 {
        feed.text("poison").await;
    }
    let scene = Scene::start(&folder, GRACE, &with_plugin(&feed, spins)).await;
    scene.wait_for("tidemill_stage_messages_in_total", &["pipeline=\"hindered\""], 1);
    scene.ends_late_with_1().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_sleeps() {
    let (scene, feed, _folder) = with_guest("sleeper", r#"where = "process""#, GRACE).await;
    feed.text("one").await;
    scene.wait_for("tidemill_stage_messages_in_total", &["pipeline=\"hindered\""], 1);
    scene.ends_as_its_code_says().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_never_returns() {
    let (scene, feed, _folder) =
        with_guest("hostile", r#"behaviour = "endless_loop", where = "tick""#, GRACE).await;
    feed.text("one").await;
    // It ticks every 10 ms, and has long begun.
    scene.ends_as_its_code_says().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_never_finishes() {
    let (scene, feed, _folder) =
        with_guest("hostile", r#"behaviour = "endless_loop", where = "finish""#, GRACE).await;
    feed.text("one").await;
    scene.wait_for("tidemill_messages_delivered_total", &["sink=\"sink0\""], 1);
    scene.ends_late_with_1().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_never_starts() {
    for (name, config) in
        [("hostile", r#"behaviour = "endless_loop", where = "init""#), ("sleeper", r#"where = "init""#)]
    {
        let (scene, _feed, _folder) = with_guest(name, config, LONG_GRACE).await;
        scene.ends_at_once_with_0().await;
    }
}

/// A pipeline from a feed to peers, one of which has stopped reading until no more fits.
async fn with_a_peer_that_does_not_read(slow_peer: &str, is_full: (&str, u64)) -> End {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let hindered = from_feed(
        &feed,
        &format!(
            r#"sinks = [{{ type = "websocket", mode = "server", path = "/out", peer_buffer = 16, slow_peer = "{slow_peer}" }}]"#
        ),
    );
    let scene = Scene::start(&folder, LONG_GRACE, &hindered).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let tcp = socket.connect(scene.address).await.unwrap();
    let (_deaf, _) = client_async(format!("ws://{}/out", scene.address), tcp).await.unwrap();
    for _ in 0..MANY_MESSAGES {
        feed.text("x".repeat(1000)).await;
    }
    scene.wait_for(is_full.0, &["pipeline=\"hindered\""], is_full.1);
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read() {
    let is_full = ("tidemill_messages_delivered_total", MANY_MESSAGES);
    let end = with_a_peer_that_does_not_read("drop_oldest", is_full).await;
    assert_eq!(end.code, Some(0), "a peer that does not read costs only itself\n{}", end.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_and_holds_the_pipeline() {
    let end = with_a_peer_that_does_not_read("block", ("tidemill_source_paused_seconds_total", 1)).await;
    assert!(matches!(end.code, Some(0 | 1)), "{:?}\n{}", end.code, end.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing() {
    let folder = Folder::default();
    let scene = Scene::start(&folder, LONG_GRACE, "").await;
    let _idle = std::net::TcpStream::connect(scene.address).unwrap();
    let mut half = std::net::TcpStream::connect(scene.address).unwrap();
    half.write_all(b"GET /witness HTTP/1.1\r\nHost: ").unwrap();
    // This one came later, and is served: so are they.
    let mut later = dial(scene.address, "/witness").await;
    later.send(Message::text("one")).await.unwrap();
    assert_eq!(text(&mut later).await, "one");
    drop(later);
    scene.ends_at_once_with_0().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_to_the_api() {
    let folder = Folder::default();
    let scene = Scene::start(&folder, LONG_GRACE, "").await;
    let admin = scene.host.listening("http api");
    let _idle = std::net::TcpStream::connect(admin).unwrap();
    let mut head = std::net::TcpStream::connect(admin).unwrap();
    head.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").unwrap();
    let mut body = std::net::TcpStream::connect(admin).unwrap();
    let request = format!(
        "POST /api/v1/pipelines HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{"
    );
    body.write_all(request.as_bytes()).unwrap();
    // What came later is answered.
    assert_eq!(scene.host.get("/healthz").0, 200);
    scene.ends_at_once_with_0().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_that_nobody_writes() {
    let folder = Folder::default();
    fifo(&folder.path("in.jsonl"));
    let hindered = r#"
        [[pipelines]]
        name = "hindered"
        source = { type = "file", path = "in.jsonl", format = "jsonl" }
        sinks = [{ type = "file", path = "out.jsonl", format = "jsonl" }]
        "#;
    Scene::start(&folder, LONG_GRACE, hindered).await.ends_at_once_with_0().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_that_nobody_reads() {
    let folder = Folder::default();
    fifo(&folder.path("out.jsonl"));
    let feed = Feed::open().await;
    let hindered = from_feed(&feed, TO_FILE);
    Scene::start(&folder, LONG_GRACE, &hindered).await.ends_at_once_with_0().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_away() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let hindered = from_feed(
        &feed,
        &format!(r#"sinks = [{{ type = "websocket", url = "ws://{}/away" }}]"#, nobody().await),
    );
    let scene = Scene::start(&folder, GRACE, &hindered).await;
    for n in 0..10 {
        feed.text(n.to_string()).await;
    }
    scene.wait_for("tidemill_messages_received_total", &["pipeline=\"hindered\""], 10);
    scene.ends_late_with_1().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_wait_for_their_turn_do_not_stand_before_the_close_frame() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let (listener, upstream) = server().await;
    let hindered = from_feed(
        &feed,
        &format!(r#"sinks = [{{ type = "websocket", url = "{upstream}", send_interval = "100ms" }}]"#),
    );
    let scene = Scene::start(&folder, GRACE, &hindered).await;
    let reader = tokio::spawn(close_code_at_the_end(accept(&listener).await));
    for n in 0..1000 {
        feed.text(n.to_string()).await;
    }
    scene.wait_for("tidemill_messages_received_total", &["pipeline=\"hindered\""], 1000);
    scene.ends_late_with_1().await;
    assert_eq!(soon(reader).await.unwrap(), Some(1001));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_of_dead_letters_that_is_away() {
    let folder = Folder::default();
    install(&folder, "steered");
    let feed = Feed::open().await;
    let hindered = format!(
        "{}\ndead_letter = {{ type = \"websocket\", url = \"ws://{}/away\" }}\n",
        with_plugin(&feed, "plugin = \"steered\", config = { word = 1 }"),
        nobody().await,
    );
    let scene = Scene::start(&folder, GRACE, &hindered).await;
    for n in 0..10 {
        feed.text(format!("{n} reject")).await;
    }
    scene.wait_for("tidemill_plugin_faults_total", &["kind=\"rejected\""], 10);
    scene.ends_late_with_1().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let hindered = from_feed(
        &feed,
        r#"
        sinks = [{ type = "file", path = "/dev/full", format = "jsonl" }]
        dead_letter = { type = "file", path = "/dev/full", format = "jsonl" }
        "#,
    );
    let scene = Scene::start(&folder, LONG_GRACE, &hindered).await;
    for n in 0..100 {
        feed.text(n.to_string()).await;
    }
    let lost = ["pipeline=\"hindered\"", "stage=\"sink0\"", "reason=\"sink_unavailable\""];
    scene.wait_for("tidemill_messages_dropped_total", &lost, 100);
    scene.ends_at_once_with_0().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_output_that_is_gone() {
    let folder = Folder::default();
    let feed = Feed::open().await;
    let hindered = from_feed(&feed, r#"sinks = [{ type = "stdout", format = "jsonl" }]"#);
    let scene = Scene::of(folder.run_unread(LONG_GRACE, &format!("{WITNESS}\n{hindered}")), LONG_GRACE).await;
    for n in 0..100 {
        feed.text(n.to_string()).await;
    }
    scene.wait_for("tidemill_messages_dropped_total", &["stage=\"sink0\"", "reason=\"sink_unavailable\""], 1);
    // Its pipeline has failed, and the host says so at its end; the other pipeline has not noticed.
    let End { code, took, log } = scene.end().await;
    assert_eq!(code, Some(1), "after {took:?}\n{log}");
    assert!(took < LONG_GRACE, "the host waited {took:?} for nothing\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads() {
    let folder = Folder::default();
    let mut command = folder.command(LONG_GRACE, WITNESS);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let address = log.lines().map_while(Result::ok).find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line).ok()?;
        let fields = line.get("fields")?;
        let is_it = fields.get("message")?.as_str()? == "websocket listening";
        if is_it { fields.get("address")?.as_str()?.parse().ok() } else { None }
    });
    // The reader is gone now. What is logged has nowhere to go.
    let address: SocketAddr = address.expect("it says where it listens");
    let witness = tokio::spawn(close_code_at_the_end(dial(address, "/witness").await));
    let began = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert!(began.elapsed() < LONG_GRACE, "the host took {:?}", began.elapsed());
    assert_eq!(status.code(), Some(0));
    assert_eq!(witness.await.unwrap(), Some(1001));
}
