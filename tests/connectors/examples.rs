//! The examples with connectors, each against an exchange of ours that wants what the real one wants: nobody gets in
//! with an old token, a key that was not kept alive, a wrong signature, or without answering pings.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::write::GzEncoder;
use futures_util::SinkExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use tidemill_tests::exchange::{Caller, Door};
use tidemill_tests::host::{Folder, Host, PATIENCE};
use tidemill_tests::sockets::{close_code_at_the_end, closed, pong, stopped, text, until};
use tidemill_tests::{guest, root};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

type Socket = WebSocketStream<TcpStream>;

/// A folder with the plugin of an example and its configuration, which dials again without waiting.
fn folder(name: &str) -> Option<(Folder, String)> {
    let folder = Folder::default();
    folder.install(name, &guest(name)?);
    let config = fs::read_to_string(root().join("examples").join(name).join("tidemill.toml")).unwrap();
    let (source, quickly) =
        ("  [pipelines.source]\n", r#"reconnect = { delay = "5ms", max_delay = "10ms" }"#);
    assert!(config.contains(source), "{config}");
    Some((folder, config.replace(source, &format!("{source}  {quickly}\n"))))
}

/// Runs the example, with an exchange in the place of the real one: `api` answers requests, `feed` is dialled.
fn run(folder: &Folder, config: &str, api: SocketAddr, feed: SocketAddr) -> Host {
    let mut command = folder.command(PATIENCE / 2, config);
    command.env("PLUGINS", "plugins").env("KEEP_ALIVE", "100ms");
    command.env("API", format!("http://{api}")).env("FEED", format!("ws://{feed}"));
    tokio::task::block_in_place(|| Host::start(&mut command).with_admin())
}

/// Ends a host, whose connection this is, and gives its log and what it printed.
async fn stop(host: Host, socket: Socket) -> (String, String) {
    let ended = stopped(host, [socket]).await;
    assert!(ended.status.success(), "{}", ended.log);
    (ended.log, ended.output)
}

#[tokio::test(flavor = "multi_thread")]
async fn connector_token_has_a_new_token_for_each_dial() {
    let Some((folder, config)) = folder("connector-token") else { return };
    let (tokens, feed) = (Door::open().await, Door::open().await);
    let host = run(&folder, &config, tokens.address, feed.address);
    let give = async |token: &str| {
        let asked = tokens.caller().await;
        assert!(asked.head.starts_with("POST /api/v1/bullet-public HTTP/1.1"), "{}", asked.head);
        let server = json!({ "endpoint": format!("ws://{}/endpoint", feed.address) });
        let data = json!({ "token": token, "instanceServers": [server] });
        asked.answer(&json!({ "code": "200000", "data": data }).to_string()).await;
        feed.caller().await
    };
    let dialled_with = |dialled: &Caller, token: &str| {
        let target = dialled.target();
        assert!(target.starts_with(&format!("/endpoint?token={token}&connectId=")), "{target}");
    };
    let dialled = give("t0ken-1").await;
    dialled_with(&dialled, "t0ken-1");
    let mut socket = dialled.accept().await;
    assert!(text(&mut socket).await.contains(r#""topic":"/market/match:BTC-USDT""#));
    socket.send(Message::text(r#"{"price":"1"}"#)).await.unwrap();
    drop(socket);

    // A token that was used before is refused, and the next dial has another.
    let dialled = give("t0ken-1").await;
    dialled_with(&dialled, "t0ken-1");
    dialled.respond("401 Unauthorized", &[], "t0ken-1 was used before").await;
    // There may be none at all for a while.
    tokens.caller().await.answer(r#"{"code":"429000","msg":"too many requests"}"#).await;
    let dialled = give("t0ken-2").await;
    dialled_with(&dialled, "t0ken-2");
    let mut socket = dialled.accept().await;
    text(&mut socket).await;
    socket.send(Message::text(r#"{"price":"2"}"#)).await.unwrap();
    // What is still in the socket at a stop is not read any more.
    tokio::task::block_in_place(|| {
        host.wait_until("both are read", |now| now.count("tidemill_messages_received_total", &[]) == 2);
    });
    let (log, output) = stop(host, socket).await;
    assert!(log.contains("refused: there is no token: too many requests"), "{log}");
    assert_eq!(output, "{\"price\":\"1\"}\n{\"price\":\"2\"}\n");
    assert!(!log.contains("t0ken"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connector_listen_key_keeps_its_key_alive() {
    let Some((folder, config)) = folder("connector-listen-key") else { return };
    fs::write(folder.path("api-key"), "s3cr3t-of-mine\n").unwrap();
    let (keys, feed) = (Door::open().await, Door::open().await);
    let host = run(&folder, &config, keys.address, feed.address);
    // The next request for a key, or to keep one alive: its method and target.
    let asked = async || {
        let asked = keys.caller().await;
        assert_eq!(asked.header("x-mbx-apikey"), "s3cr3t-of-mine", "{}", asked.head);
        (format!("{} {}", asked.head.split(' ').next().unwrap(), asked.target()), asked)
    };
    let give = async |key: &str| {
        loop {
            let (what, asked) = asked().await;
            asked.answer(&json!({ "listenKey": key }).to_string()).await;
            if what == "POST /api/v3/userDataStream" {
                break;
            }
        }
        let dialled = feed.caller().await;
        assert_eq!(dialled.target(), format!("/ws/{key}"));
        dialled
    };
    let mut socket = give("k3y-1").await.accept().await;
    for _ in 0..3 {
        let (what, asked) = asked().await;
        assert_eq!(what, "PUT /api/v3/userDataStream?listenKey=k3y-1");
        asked.answer("{}").await;
    }
    // One that is not kept alive any more costs the connection, when the exchange says so.
    let (_, refused) = asked().await;
    refused.respond("400 Bad Request", &[], "k3y-1 does not exist").await;
    tokio::task::block_in_place(|| {
        let message = "the timer of a connector failed";
        host.logged("what was refused", |fields| (fields["message"] == message).then_some(()));
    });
    socket.close(None).await.unwrap();
    give("k3y-1").await.respond("403 Forbidden", &[], "").await;
    let mut socket = give("k3y-2").await.accept().await;
    let (what, alive) = asked().await;
    assert_eq!(what, "PUT /api/v3/userDataStream?listenKey=k3y-2");
    alive.answer("{}").await;
    socket.send(Message::text(r#"{"e":"executionReport"}"#)).await.unwrap();
    until(|| fs::read_to_string(folder.path("account.jsonl")).is_ok_and(|text| text.ends_with('\n'))).await;
    let (log, _) = stop(host, socket).await;
    assert!(!log.contains("s3cr3t") && !log.contains("k3y"), "{log}");
}

/// What the exchange answers to a login: whether it is signed with this secret.
fn is_signed(login: &str, secret: &[u8]) -> bool {
    let login: Value = serde_json::from_str(login).unwrap();
    let login = (&login["op"], &login["args"][0]);
    assert_eq!(
        (login.0, &login.1["apiKey"], &login.1["passphrase"]),
        (&json!("login"), &json!("0ne-api-key"), &json!("0ne-passphrase"))
    );
    let timestamp = login.1["timestamp"].as_str().unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(format!("{timestamp}GET/users/self/verify").as_bytes());
    login.1["sign"] == BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn connector_signed_login_is_let_in_by_its_signature_alone() {
    let Some((folder, config)) = folder("connector-signed-login") else { return };
    for (file, text) in
        [("key", "0ne-api-key"), ("passphrase", "0ne-passphrase\n"), ("secret", "wr0ng-s3cr3t")]
    {
        fs::write(folder.path(file), text).unwrap();
    }
    let feed = Door::open().await;
    let host = run(&folder, &config, feed.address, feed.address);
    // It has the interpreter of a language to compile.
    tokio::task::block_in_place(|| {
        host.says("plugin loaded");
    });
    let mut socket = feed.caller().await.accept().await;
    assert!(!is_signed(&text(&mut socket).await, b"r1ght-s3cr3t"));
    let reason = "Invalid sign of 0ne-api-key".into();
    socket.close(Some(CloseFrame { code: 4001.into(), reason })).await.unwrap();
    close_code_at_the_end(socket).await;

    // The secret in the file is another one from the next dial on.
    fs::write(folder.path("secret"), "r1ght-s3cr3t\n").unwrap();
    let mut socket = loop {
        let mut socket = feed.caller().await.accept().await;
        if is_signed(&text(&mut socket).await, b"r1ght-s3cr3t") {
            break socket;
        }
    };
    socket.send(Message::text(r#"{"event":"login","code":"0"}"#)).await.unwrap();
    let subscription: Value = serde_json::from_str(&text(&mut socket).await).unwrap();
    assert_eq!(subscription["args"][0]["channel"], "orders");
    let (log, _) = stop(host, socket).await;
    assert!(log.contains("4001 Invalid sign of ***"), "{log}");
    assert!(!log.contains("s3cr3t") && !log.contains("0ne-"), "{log}");
    assert_eq!(
        fs::read_to_string(folder.path("orders.jsonl")).unwrap(),
        "{\"event\":\"login\",\"code\":\"0\"}\n"
    );
}

fn packed(json: &Value) -> Message {
    let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(json.to_string().as_bytes()).unwrap();
    Message::binary(packer.finish().unwrap())
}

async fn ping(socket: &mut Socket, number: u64) {
    socket.send(packed(&json!({ "ping": number }))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connector_ping_pong_stays_connected_and_would_not_without_its_plugin() {
    let Some((folder, config)) = folder("connector-ping-pong") else { return };
    let feed = Door::open().await;
    let host = run(&folder, &config, feed.address, feed.address);
    let mut socket = feed.caller().await.accept().await;
    assert_eq!(text(&mut socket).await, r#"{"sub":"market.btcusdt.trade.detail","id":"1"}"#);
    for number in 1_492_420_473_027..1_492_420_473_030 {
        ping(&mut socket, number).await;
        assert_eq!(text(&mut socket).await, format!("{{\"pong\":{number}}}"));
        socket.send(packed(&json!({ "tick": number }))).await.unwrap();
    }
    // Once this is answered, what came before it has been read.
    ping(&mut socket, 1).await;
    assert_eq!(text(&mut socket).await, r#"{"pong":1}"#);
    let (_, output) = stop(host, socket).await;
    let trades = (27..30).map(|number| format!("{{\"tick\":14924204730{number}}}\n"));
    assert_eq!(output, trades.collect::<String>(), "no ping is a message");

    let (before, behind) = config.split_once("  [[pipelines.transforms]]").unwrap();
    let without = format!("{before}  [[pipelines.sinks]]\n  type = \"stdout\"\n");
    assert!(behind.contains("connector-ping-pong"), "{behind}");
    let host = run(&folder, &without, feed.address, feed.address);
    let mut socket = feed.caller().await.accept().await;
    text(&mut socket).await;
    ping(&mut socket, 1).await;
    // Its frames come and go, and a pong is not among them.
    socket.send(Message::Ping("alive".into())).await.unwrap();
    assert_eq!(pong(&mut socket).await, Message::Pong("alive".into()));
    socket.close(Some(CloseFrame { code: 1003.into(), reason: "no pong".into() })).await.unwrap();
    assert_eq!(closed(&mut socket).await.0, 1003);
    drop(socket);
    let socket = feed.caller().await.accept().await;
    let (log, _) = stop(host, socket).await;
    assert!(log.contains("closed by the peer: 1003 no pong"), "{log}");
}
