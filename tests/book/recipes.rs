//! The recipes: each is right as it stands, and passes a message as its text says.

use futures_util::SinkExt as _;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use tidemill_tests::exchange::Door;
use tidemill_tests::host::{Folder, Host, PATIENCE, binary};
use tidemill_tests::pages::{Step, steps};
use tidemill_tests::peers::{Collector, Dialled, Feed, dial};
use tidemill_tests::plugin;
use tidemill_tests::sockets::{close_code_at_the_end, closed, soon, text, until};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

const PLUGINS: [&str; 5] = ["filter", "gap", "redact", "throttle", "vwap"];
/// What stands for each secret that a recipe takes from its environment.
const TOKENS: [&str; 4] = ["DEVICE_TOKEN", "WATCHER_TOKEN", "READER_TOKEN", "COLLECTOR_TOKEN"];

/// A recipe of the page: its folder, and its text.
struct Recipe {
    folder: Folder,
    config: String,
}

impl Recipe {
    /// The recipe of this name, which `check` finds nothing wrong with.
    fn new(name: &str) -> Self {
        let name = format!("{name}.toml");
        let config = steps("docs/recipes.md").into_iter().find_map(|step| match step {
            Step::File(file, text) if file == name => Some(text),
            _ => None,
        });
        let config = config.unwrap_or_else(|| panic!("docs/recipes.md has no {name}"));
        let folder = Folder::default();
        for name in PLUGINS {
            folder.install(name, &plugin(name));
        }
        fs::write(folder.path("token"), "t0ken\n").unwrap();
        fs::write(folder.path(&name), &config).unwrap();
        let mut check = Command::new(binary());
        check
            .current_dir(folder.path(""))
            .args(["check", "-c", &name])
            .envs(TOKENS.map(|token| (token, "t0ken")));
        let checked = check.output().unwrap();
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success() && !told.contains("warning"), "{told}");
        Self { folder, config }
    }

    /// Runs it, with another url in the place of one.
    fn run(&self, url: &str, instead: &str) -> Host {
        assert!(self.config.contains(url), "{}", self.config);
        let config = format!("[server]\nport = 0\n{}", self.config.replace(url, instead));
        let mut command = self.folder.command(PATIENCE / 2, &config);
        command.envs(TOKENS.map(|token| (token, "t0ken")));
        tokio::task::block_in_place(|| Host::start(&mut command).with_admin())
    }

    fn serve(&self) -> (Host, SocketAddr) {
        let host = self.run("", "");
        let address = tokio::task::block_in_place(|| host.listening("websocket"));
        (host, address)
    }
}

/// Dials with the token.
async fn admitted(address: SocketAddr, path: &str) -> Dialled {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    request.headers_mut().insert("Authorization", "Bearer t0ken".parse().unwrap());
    soon(connect_async(request)).await.unwrap().0
}

async fn say(peer: &mut Dialled, text: &str) {
    peer.send(Message::text(text)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_are_shown_to_whoever_comes_later() {
    let (recipe, feed) = (Recipe::new("vwap"), Feed::open().await);
    let url = "wss://stream.binance.com:9443/stream?streams=btcusdt@trade/ethusdt@trade";
    let host = recipe.run(url, &feed.url());
    for (price, time) in [("10", 1), ("20", 2), ("30", 61_000)] {
        feed.text(format!(r#"{{"data":{{"e":"trade","s":"A","p":"{price}","q":"1","T":{time}}}}}"#)).await;
    }
    let delivered = |host: &Host| {
        host.wait_until("the window is out", |now| {
            now.count("tidemill_messages_delivered_total", &["sink=\"sink1\""]) == 1
        });
    };
    tokio::task::block_in_place(|| delivered(&host));
    let address = tokio::task::block_in_place(|| host.listening("websocket"));
    let window = text(&mut dial(address, "/vwap").await).await;
    assert!(window.contains(r#""vwap":15.0"#) && window.contains(r#""final":true"#), "{window}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gives_one_alert_a_minute() {
    let recipe = Recipe::new("alerts");
    let (host, address) = recipe.serve();
    assert!(
        matches!(connect_async(format!("ws://{address}/alerts")).await, Err(Error::Http(no)) if no.status() == 401)
    );
    let mut watcher = admitted(address, "/alerts").await;
    let mut device = admitted(address, "/devices/a").await;
    for reading in [29, 31, 32] {
        say(&mut device, &format!("{{\"temperature\":{reading}}}")).await;
    }
    let alert = text(&mut watcher).await;
    assert!(alert.contains(r#""temperature":31"#) && alert.contains(r#""device":"a""#), "{alert}");
    let mut other = admitted(address, "/devices/b").await;
    say(&mut other, r#"{"temperature":33}"#).await;
    let alert = text(&mut watcher).await;
    assert!(alert.contains(r#""temperature":33"#) && alert.contains(r#""device":"b""#), "{alert}");
    drop(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_moderated() {
    let recipe = Recipe::new("chat");
    let (host, address) = recipe.serve();
    let mut ann = dial(address, "/chat?name=ann").await;
    let mut bob = dial(address, "/chat?name=bob").await;
    for number in 0..6 {
        say(&mut ann, &format!(r#"{{"n":{number},"text":"1234-5678-9012-3456 or a@example.com"}}"#)).await;
    }
    for number in 0..5 {
        let said = text(&mut bob).await;
        assert!(said.starts_with(&format!(r#"{{"n":{number},"text":"*** or ***""#)), "{said}");
        assert!(said.contains(r#""name":"ann""#), "{said}");
    }
    say(&mut bob, r#"{"text":"enough"}"#).await;
    assert!(text(&mut bob).await.starts_with(r#"{"text":"enough""#), "the sixth was too many");
    drop(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_everybody_who_has_a_token() {
    let (recipe, feed) = (Recipe::new("fan-out"), Feed::open().await);
    let host = recipe.run("wss://feed.example.com/quotes", &feed.url());
    let address = tokio::task::block_in_place(|| host.listening("websocket"));
    feed.text("1").await;
    let mut readers = [admitted(address, "/quotes").await, dial(address, "/quotes?token=t0ken").await];
    assert!(
        matches!(connect_async(format!("ws://{address}/quotes")).await, Err(Error::Http(no)) if no.status() == 401)
    );
    feed.text("2").await;
    for reader in &mut readers {
        while text(reader).await != "2" {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_that_must_not() {
    let (recipe, mut collector) = (Recipe::new("redaction"), Collector::open().await);
    let host = recipe.run("wss://collector.example.com/events", &collector.url());
    let address = tokio::task::block_in_place(|| host.listening("websocket"));
    let mut program = dial(address, "/events").await;
    say(&mut program, "a@example.com is no JSON").await;
    say(&mut program, r#"{"user":{"mail":"a@example.com","id":1},"text":"1234567890123456"}"#).await;
    assert_eq!(collector.text().await, r#"{"user":{"mail":"***","id":1},"text":"***"}"#);
    let dropped = ["reason=\"rejected\""];
    assert_eq!(
        tokio::task::block_in_place(|| host.metrics()).count("tidemill_messages_dropped_total", &dropped),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_of_a_private_feed_leads_to_a_new_connection() {
    let (recipe, feed) = (Recipe::new("private"), Door::open().await);
    let host = recipe.run("wss://feed.example.com/orders", &format!("ws://{}/orders", feed.address));
    let caller = feed.caller().await;
    assert_eq!(caller.header("authorization"), "Bearer t0ken");
    let mut socket = caller.accept().await;
    assert_eq!(text(&mut socket).await, r#"{"op":"subscribe","channel":"orders"}"#);
    for number in [1, 2, 5] {
        socket.send(Message::text(format!("{{\"seq\":{number}}}"))).await.unwrap();
    }
    assert_eq!(closed(&mut socket).await, (4000, "2 missing before 5".to_owned()));
    close_code_at_the_end(socket).await;
    feed.caller().await;
    let expected = "{\"seq\":1}\n{\"seq\":2}\n{\"seq\":5,\"missing\":2}\n";
    until(|| fs::read_to_string(recipe.folder.path("orders.jsonl")).is_ok_and(|text| text == expected)).await;
    drop(host);
}
