//! Connectors against a stand-in for an exchange that cuts connections, refuses old tokens, goes away in the middle
//! of minting and leads elsewhere; and what plugins do to the connection that a message came from.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "connectors/checks.rs"]
mod checks;
#[path = "connectors/closing.rs"]
mod closing;
#[path = "connectors/examples.rs"]
mod examples;

use futures_util::SinkExt as _;
use std::time::Instant;
use tidemill_tests::exchange::Door;
use tidemill_tests::guest;
use tidemill_tests::host::{Folder, Host, PATIENCE};
use tidemill_tests::peers::Collector;
use tidemill_tests::sockets::{stopped, text, until};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

type Socket = WebSocketStream<TcpStream>;

/// What the source of every test is, but for its `before_connect`.
const RECONNECT: &str = r#"reconnect = { delay = "5ms", max_delay = "10ms" }"#;

/// An exchange with both of its doors, and what takes the messages in the end.
struct Exchange {
    tokens: Door,
    feed: Door,
    collector: Collector,
    folder: Folder,
}

impl Exchange {
    async fn open() -> Self {
        let folder = Folder::default();
        folder.install("minting", &guest("minting").unwrap());
        Self {
            tokens: Door::open().await,
            feed: Door::open().await,
            collector: Collector::open().await,
            folder,
        }
    }

    /// `before_connect` with more keys.
    fn before_connect(&self, config: &str, more: &str) -> String {
        let tokens = self.tokens.address;
        format!(
            r#"{{ plugin = "minting", config = {{ url = "http://{tokens}/mint"{config} }}, allow = ["http://{tokens}"]{more} }}"#
        )
    }

    fn pipeline(&self, before_connect: &str, source: &str) -> String {
        format!(
            r#"
            [[pipelines]]
            name = "p"
            sinks = [{{ type = "websocket", url = "{}" }}]
              [pipelines.source]
              type = "websocket"
              url = "ws://{}/feed?stream=btc"
              {RECONNECT}
              before_connect = {before_connect}
              {source}
            "#,
            self.collector.url(),
            self.feed.address,
        )
    }

    fn run(&self) -> Host {
        let config = self.pipeline(&self.before_connect("", ""), "");
        tokio::task::block_in_place(|| self.folder.run(&config))
    }

    /// Waits for the plugin to ask what to do, and tells it. Gives what it was told itself.
    async fn mint(&self, acts: &str) -> String {
        let caller = self.tokens.caller().await;
        let query = caller.target().split_once('?').unwrap().1.to_owned();
        caller.answer(acts).await;
        query
    }

    /// Gives a token, and makes the connection that is dialled with it.
    async fn connect(&self, token: &str) -> Socket {
        self.mint(&format!("token {token}")).await;
        let dialled = self.feed.caller().await;
        assert_eq!(dialled.header("authorization"), format!("Bearer {token}"), "{}", dialled.head);
        assert_eq!(dialled.target(), format!("/feed?stream=btc&token={token}"));
        let mut socket = dialled.accept().await;
        let first = text(&mut socket).await;
        assert_eq!(first, format!(r#"{{"op":"auth","token":"{token}"}}"#));
        socket
    }
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// Waits until so many dials of the source, and maybe more, have come to this.
fn wait_for_dials(host: &Host, outcome: &str, dials: u64) {
    let outcome = format!("outcome=\"{outcome}\"");
    let labels = ["endpoint=\"source\"", &outcome];
    blocking(|| {
        host.wait_until("dials", |now| now.count("tidemill_connects_total", &labels) >= dials);
    });
}

/// The last error that the API shows of the source.
fn last_error(host: &Host) -> String {
    let source = blocking(|| host.endpoint("p", "source")).unwrap();
    source["last_error"]["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_dial_has_fresh_credentials_whatever_the_exchange_does_and_nothing_received_is_lost() {
    let mut exchange = Exchange::open().await;
    let host = exchange.run();

    let mut socket = exchange.connect("t0ken-number-1").await;
    socket.send(Message::text("1")).await.unwrap();
    socket.send(Message::text("2")).await.unwrap();
    // It is cut.
    drop(socket);
    assert_eq!((&*exchange.collector.text().await, &*exchange.collector.text().await), ("1", "2"));

    let told = exchange.mint("token t0ken-number-2").await;
    assert_eq!(told, "number=1&calls=2&kept=2&outcome=closed");
    // The token is refused, with words that quote it.
    let dialled = exchange.feed.caller().await;
    assert_eq!(dialled.header("authorization"), "Bearer t0ken-number-2");
    dialled.respond("401 Unauthorized", &[], "t0ken-number-2 is too old").await;

    // It goes away in the middle of minting.
    let asked = exchange.tokens.caller().await;
    assert!(
        asked.target().ends_with("?number=2&calls=3&kept=3&outcome=handshake&status=401"),
        "{}",
        asked.head
    );
    drop(asked);

    // It leads elsewhere, and minting does too.
    let asked = exchange.tokens.caller().await;
    assert!(asked.target().ends_with("?number=3&calls=4&kept=4&outcome=plugin"), "{}", asked.head);
    asked.respond("302 Found", &[("Location", "/elsewhere?x=y")], "").await;
    assert_eq!(exchange.mint("token t0ken-number-3").await, "x=y");
    let dialled = exchange.feed.caller().await;
    let elsewhere = format!("ws://{}/feed?token=t0ken-number-3", exchange.feed.address);
    dialled.respond("302 Found", &[("Location", &elsewhere)], "").await;
    let told = exchange.mint("subprotocol t0ken-number-4").await;
    assert_eq!(told, "number=4&calls=5&kept=5&outcome=handshake&status=302");
    let dialled = exchange.feed.caller().await;
    assert_eq!(dialled.header("sec-websocket-protocol"), "t0ken-number-4");
    let mut socket = dialled.accept().await;
    socket.send(Message::text("3")).await.unwrap();
    assert_eq!(exchange.collector.text().await, "3");

    // It closes the connection with words that quote two tokens, one of an earlier dial and one in escapes.
    let reason = "t0ken-number-3 and t0ken\\u002dnumber-4 have expired".into();
    let close = tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 4001.into(), reason };
    socket.close(Some(close)).await.unwrap();
    let told = exchange.mint("token t0ken-number-5").await;
    assert_eq!(told, "number=1&calls=6&kept=6&outcome=closed&code=4001");
    let mut socket = exchange.feed.caller().await.accept().await;
    text(&mut socket).await;
    socket.send(Message::text("4")).await.unwrap();
    assert_eq!(exchange.collector.text().await, "4");

    let shown = blocking(|| {
        let counted = host.metrics();
        for (outcome, dials) in [("connected", 3), ("handshake", 2), ("plugin", 1)] {
            let outcome = format!("outcome=\"{outcome}\"");
            let labels = ["endpoint=\"source\"", &outcome];
            assert_eq!(counted.count("tidemill_connects_total", &labels), dials, "{}", counted.text);
        }
        assert_eq!(counted.count("tidemill_messages_received_total", &["pipeline=\"p\""]), 4);
        let paths = ["/api/v1/pipelines", "/api/v1/pipelines/p", "/metrics", "/api/v1/connections"];
        paths.map(|path| host.get(path).1).concat()
    });
    let ended = stopped(host, [socket]).await;
    assert!(ended.status.success(), "{}", ended.log);
    let everything = format!("{shown}{}{}", ended.log, ended.output);
    assert!(!everything.contains("t0ken"), "{everything}");
    assert!(ended.log.contains("closed by the peer: 4001 *** and *** have expired"), "{}", ended.log);
    assert!(
        ended.log.contains("before_connect: plugin minting refused: the request failed: "),
        "{}",
        ended.log
    );
    let address = exchange.feed.address;
    assert!(shown.contains(&format!("ws://{address}/feed?***")), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_connector_does_wrong_is_a_dial_that_failed_for_that_reason() {
    let mut exchange = Exchange::open().await;
    // One that spins has a second of a processor, which may take longer than a dial has where it gets few of it.
    let config = exchange.pipeline(&exchange.before_connect("", r#", timeout = "1m""#), "");
    let host = blocking(|| exchange.folder.run(&config));
    let faults = [
        ("refuse the market is closed", "refused: the market is closed"),
        ("later 20 not now", "refused: not now"),
        ("trap on purpose", "failed: trap: "),
        ("spin", "failed: deadline: before-connect ran longer than 1s"),
        (
            "url http://example.com/s3cr3t",
            "gave a url that cannot be dialled: websocket url must start with ws:// or wss://, got: http://***",
        ),
        (
            "url s3cr3t-and-more",
            "gave a url that cannot be dialled: websocket url must start with ws:// or wss://, got: ",
        ),
        ("header Host example.com", "gave the header \"Host\", which the handshake itself sets"),
        ("header X-Key s3cr3t\u{1}", "gave a header \"X-Key\" that is not a valid HTTP header"),
        ("subprotocol s3cr3t one", "gave a subprotocol that is none"),
        ("dance", "refused: what is dance?"),
    ];
    for (dials, (acts, why)) in (1..).zip(faults) {
        exchange.mint(acts).await;
        wait_for_dials(&host, "plugin", dials);
        let source = format!("ws://{}/feed?stream=btc", exchange.feed.address);
        let said = format!("{source}: before_connect: plugin minting {why}");
        // It is counted first.
        blocking(|| host.wait_until(&said, |_| last_error(&host).contains(&said)));
    }
    let mut socket = exchange.connect("at-last").await;
    socket.send(Message::text("1")).await.unwrap();
    assert_eq!(exchange.collector.text().await, "1");
    let ended = blocking(|| host.stop());
    assert!(ended.status.success() && !ended.log.contains("s3cr3t"), "{}", ended.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_may_take_its_time_and_no_more_and_a_stop_ends_it_at_once() {
    let exchange = Exchange::open().await;
    let before = exchange.before_connect("", r#", timeout = "100ms", http = { timeout = "1h" }"#);
    let config = exchange.pipeline(&before, "");
    let host = blocking(|| exchange.folder.run(&config));
    let asked = exchange.tokens.caller().await;
    wait_for_dials(&host, "plugin", 1);
    let said = "before_connect: plugin minting took longer than 100ms";
    until(|| last_error(&host).ends_with(said)).await;
    asked.left().await;
    drop(host);

    let before = exchange.before_connect("", r#", timeout = "1h", http = { timeout = "1h" }"#);
    let config = exchange.pipeline(&before, "");
    let host = blocking(|| exchange.folder.run(&config));
    // What the host before had asked for is over.
    let asked = loop {
        let asked = exchange.tokens.caller().await;
        if asked.target().ends_with("?number=1&calls=1&kept=1") {
            break asked;
        }
    };
    let start = Instant::now();
    let ended = blocking(|| host.stop());
    assert!(ended.status.success(), "{}", ended.log);
    assert!(start.elapsed() < PATIENCE / 4, "{:?}", start.elapsed());
    asked.left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_asked_from_the_next_dial_on_and_sockets_stay_open() {
    let mut exchange = Exchange::open().await;
    let host = exchange.run();
    let mut socket = exchange.connect("first").await;
    let swapped = |times| {
        blocking(|| {
            host.wait_until("the swap is counted", |now| {
                now.count("tidemill_plugin_swaps_total", &["plugin=\"minting\"", "outcome=\"swapped\""])
                    == times
            });
        });
    };
    exchange.folder.install_another_version("minting", &guest("minting").unwrap());
    swapped(1);
    socket.send(Message::text("1")).await.unwrap();
    assert_eq!(exchange.collector.text().await, "1", "the same socket");
    drop(socket);
    // A new instance, and what the host keeps for it is still there.
    assert_eq!(exchange.mint("token second").await, "number=1&calls=1&kept=2&outcome=closed");
    let mut socket = exchange.feed.caller().await.accept().await;
    text(&mut socket).await;

    // A plugin of another kind is none, and the version that is there goes on.
    exchange.folder.install("minting", &guest("asking").unwrap());
    blocking(|| {
        host.logged("the rejection", |fields| {
            let error = fields.get("error")?.as_str()?;
            let is_it = fields.get("message")? == "plugin rejected"
                && error.contains(
                    "pipeline p, source: plugin minting of before_connect does not start: it is a transform",
                );
            is_it.then_some(())
        });
    });
    drop(socket);
    assert_eq!(exchange.mint("refuse enough").await, "number=1&calls=2&kept=3&outcome=closed");
    assert!(blocking(|| host.stop()).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timer_of_a_connector_runs_while_the_connection_stands_and_its_faults_cost_nothing() {
    let mut exchange = Exchange::open().await;
    let config = exchange.pipeline(&exchange.before_connect(", tick_ms = 1", ""), "");
    let host = blocking(|| exchange.folder.run(&config));
    let mut socket = exchange.connect("first").await;
    for answer in ["ok", "fail", "trap", "ok"] {
        assert_eq!(exchange.mint(answer).await, "tick");
    }
    socket.send(Message::text("1")).await.unwrap();
    assert_eq!(exchange.collector.text().await, "1", "the same socket");
    drop(socket);
    let told = loop {
        let told = exchange.mint("refuse enough").await;
        if told != "tick" {
            break told;
        }
    };
    assert_eq!(told, "number=1&calls=1&kept=2&outcome=closed", "an instance that a timer was called of");
    let ended = blocking(|| host.stop());
    assert!(ended.status.success(), "{}", ended.log);
    assert_eq!(ended.log.matches("the timer of a connector failed").count(), 2, "{}", ended.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_asks_its_connector_and_sends_what_waited_once_it_may() {
    let exchange = Exchange::open().await;
    let input = exchange.folder.path("in.jsonl");
    std::fs::write(&input, "\"one\"\n\"two\"\n").unwrap();
    let config = format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "file", path = "in.jsonl" }}
          [[pipelines.sinks]]
          type = "websocket"
          name = "out"
          url = "ws://{}/orders"
          headers = {{ X-Account = "me" }}
          {RECONNECT}
          before_connect = {}
        "#,
        exchange.feed.address,
        exchange.before_connect("", ""),
    );
    let host = blocking(|| exchange.folder.run(&config));
    exchange.mint("refuse not yet").await;
    exchange.mint("header Authorization t0ken").await;
    let dialled = exchange.feed.caller().await;
    assert_eq!((dialled.target(), dialled.header("x-account")), ("/orders", "me"), "{}", dialled.head);
    assert_eq!(dialled.header("authorization"), "t0ken");
    let mut socket = dialled.accept().await;
    assert_eq!((&*text(&mut socket).await, &*text(&mut socket).await), ("\"one\"", "\"two\""));
    assert!(stopped(host, [socket]).await.status.success());
}
