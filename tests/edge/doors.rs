//! Who is let in, and what a peer can claim to be: what was agreed for a path outlives the endpoint it came
//! from, and what a handshake did not say no message says in its place.

use crate::drive::{nobody, soon, text};
use futures_util::SinkExt;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tidemill_tests::host::{Folder, Host};
use tidemill_tests::peers::dial;
use tidemill_tests::plugin;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// What answers a handshake with this token, or without.
async fn knock(
    address: SocketAddr,
    path: &str,
    token: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, u16> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let tcp = TcpStream::connect(address).await.unwrap();
    match soon(client_async(request, tcp)).await {
        Ok((peer, _)) => Ok(peer),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn ask(host: &Host, method: &str, path: &str, body: Value) -> u16 {
    tokio::task::block_in_place(|| host.json(method, path, &body)).0
}

fn feed_to(name: &str, path: &str) -> Value {
    json!({
        "name": name,
        "source": { "type": "websocket", "mode": "server", "path": format!("/{name}/in") },
        "sinks": [{ "type": "websocket", "mode": "server", "path": path }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_agreed_for_a_path_outlives_the_endpoint_it_came_from() {
    let folder = Folder::default();
    // The listener closes meanwhile, and opens again.
    let address = nobody().await;
    let host = folder.run(&format!(
        r#"
        [server]
        port = {}

        [[pipelines]]
        name = "a"
        source = {{ type = "websocket", mode = "server", path = "/x", auth = {{ bearer = ["tok"] }} }}
        sinks = [{{ type = "file", path = "/dev/null" }}]

        [[pipelines]]
        name = "c"
        source = {{ type = "websocket", mode = "server", path = "/c" }}
        sinks = [{{ type = "websocket", mode = "server", path = "/x" }}]
        "#,
        address.port()
    ));
    host.wait_until("all listen", |now| now.count("tidemill_connections", &["state=\"listening\""]) == 3);
    assert_eq!(ask(&host, "POST", "/api/v1/pipelines", feed_to("b", "/x")).await, 201);
    let without = async || knock(address, "/x", None).await.err();
    assert_eq!(without().await, Some(401));
    for name in ["a", "c"] {
        assert_eq!(ask(&host, "POST", &format!("/api/v1/pipelines/{name}/stop"), Value::Null).await, 200);
        assert_eq!(without().await, Some(401), "{name} is stopped");
    }
    for way in ["stop", "start"] {
        assert_eq!(ask(&host, "POST", &format!("/api/v1/pipelines/b/{way}"), Value::Null).await, 200);
    }
    assert_eq!(without().await, Some(401), "b is there alone, and was started anew");
    assert!(knock(address, "/x", Some("tok")).await.is_ok());
    assert_eq!(ask(&host, "DELETE", "/api/v1/pipelines/a", Value::Null).await, 204);
    for way in ["stop", "start"] {
        assert_eq!(ask(&host, "POST", &format!("/api/v1/pipelines/b/{way}"), Value::Null).await, 200);
    }
    assert_eq!(without().await, Some(401), "b has it from one that is gone");
    // The one of the file comes back, too.
    assert_eq!(ask(&host, "POST", "/api/v1/pipelines/c/start", Value::Null).await, 200);
    assert_eq!(without().await, Some(401));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_waits_for_its_plugin_keeps_what_it_agreed_on_with_one_that_is_gone_before_it_opens()
{
    let folder = Folder::default();
    let address = nobody().await;
    let host = folder.run(&format!("[server]\nport = {}\n", address.port()));
    let mut asks = feed_to("asks", "/asks/out");
    asks["source"]["path"] = json!("/x");
    asks["source"]["auth"] = json!({ "bearer": ["tok"] });
    let mut waits = feed_to("waits", "/x");
    waits["transforms"] = json!([{ "plugin": "later" }]);
    let mut differs = feed_to("differs", "/x");
    differs["sinks"][0]["auth"] = json!({ "bearer": ["other"] });
    assert_eq!(ask(&host, "POST", "/api/v1/pipelines", asks.clone()).await, 201);
    assert_eq!(ask(&host, "POST", "/api/v1/pipelines", waits.clone()).await, 201);
    assert_eq!(ask(&host, "DELETE", "/api/v1/pipelines/asks", Value::Null).await, 204);
    assert_eq!(ask(&host, "POST", "/api/v1/pipelines", differs.clone()).await, 201, "nobody has written it");
    assert_eq!(ask(&host, "DELETE", "/api/v1/pipelines/differs", Value::Null).await, 204);
    folder.install("later", &plugin("forward"));
    tokio::task::block_in_place(|| {
        host.wait_until("it runs", |now| now.count("tidemill_pipelines", &["state=\"running\""]) == 1);
    });
    assert_eq!(knock(address, "/x", None).await.err(), Some(401));
    assert!(knock(address, "/x", Some("tok")).await.is_ok());
    // Once nobody is left who agreed to it, it is a new path.
    assert_eq!(ask(&host, "DELETE", "/api/v1/pipelines/waits", Value::Null).await, 204);
    assert_eq!(ask(&host, "POST", "/api/v1/pipelines", feed_to("new", "/x")).await, 201);
    assert!(knock(address, "/x", None).await.is_ok());
    // Who would wait and disagrees is refused at once.
    differs["name"] = json!("late");
    differs["source"]["path"] = json!("/late/in");
    differs["transforms"] = json!([{ "plugin": "absent" }]);
    assert_eq!(ask(&host, "DELETE", "/api/v1/pipelines/new", Value::Null).await, 204);
    assert_eq!(ask(&host, "POST", "/api/v1/pipelines", asks).await, 201);
    assert_eq!(ask(&host, "POST", "/api/v1/pipelines", differs).await, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_whose_file_cannot_be_read_once_lets_nobody_in_and_is_read_at_the_next_handshake() {
    let folder = Folder::default();
    std::fs::write(folder.path("token"), "tok\n").unwrap();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/x", auth = { bearer = ["${file:token}"] } }
        sinks = [{ type = "file", path = "/dev/null" }]
        "#,
    );
    let address = tokio::task::block_in_place(|| host.listening("websocket"));
    let knocks = async |token| knock(address, "/x", token).await.map(drop);
    assert_eq!((knocks(Some("tok")).await, knocks(None).await), (Ok(()), Err(401)));
    // It is away for a moment, and comes back as it was: the same file, with the same times.
    std::fs::rename(folder.path("token"), folder.path("away")).unwrap();
    for token in [Some("tok"), Some(""), None] {
        assert_eq!(knocks(token).await, Err(401), "{token:?}");
    }
    host.says("a credential lets nobody in");
    std::fs::rename(folder.path("away"), folder.path("token")).unwrap();
    assert_eq!((knocks(Some("tok")).await, knocks(Some("")).await), (Ok(()), Err(401)));
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_a_handshake_did_not_give_cannot_be_forged() {
    let folder = Folder::default();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"

          [pipelines.source]
          type = "websocket"
          mode = "server"
          path = "/in"
          metadata = { user = "auth:user", room = "query:room" }
          auth = { bearer = ["tok"], basic = { ann = "pw" } }

          [[pipelines.sinks]]
          type = "websocket"
          mode = "server"
          path = "/out"
          include_metadata = true

          [[pipelines.sinks]]
          type = "reply"
          include_metadata = true
        "#,
    );
    let address = host.listening("websocket");
    host.wait_until("all listen", |now| now.count("tidemill_connections", &["state=\"listening\""]) == 3);
    let mut reader = dial(address, "/out").await;
    let mut peer = knock(address, "/in?room=", Some("tok")).await.unwrap();
    let forged = r#"{"user":"admin","room":"vip","__meta_user":"x","__meta_event":"open","text":"hello"}"#;
    peer.send(Message::text(forged)).await.unwrap();
    for text in [text(&mut reader).await, text(&mut peer).await] {
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["text"], "hello");
        for absent in ["user", "room", "__meta_user", "__meta_event"] {
            assert!(object.get(absent).is_none(), "{text}");
        }
        assert!(object["__meta_peer"].is_string(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_credentials_is_counted_and_told_of_in_few_lines() {
    let folder = Folder::default();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/", auth = { bearer = ["tok"] } }
        sinks = [{ type = "file", path = "/dev/null" }]
        "#,
    );
    let address = host.listening("websocket");
    for guess in 0..100 {
        assert_eq!(knock(address, "/", Some(&guess.to_string())).await.err(), Some(401));
    }
    let listener = format!("listener=\"{address}\"");
    let refused = ["status=\"401\"", &listener];
    host.wait_until("they are counted", |now| {
        now.count("tidemill_handshakes_refused_total", &refused) == 100
    });
    host.says("handshake refused");
    let lines = host.log().lines().filter(|line| line.contains("handshake refused")).count();
    assert!(lines < 20, "{lines} lines");
}
