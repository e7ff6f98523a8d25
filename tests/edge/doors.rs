//! Who is let in, and what a peer can claim to be: what was agreed for a path outlives the endpoint it came
//! from, and what a handshake did not say no message says in its place.

use crate::drive::{nobody, says, soon};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tidemill_tests::host::{Folder, Host};
use tidemill_tests::peers::dial;
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
    for message in [soon(reader.next()).await, soon(peer.next()).await] {
        let text = message.unwrap().unwrap().into_text().unwrap();
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
    says(&host, "handshake refused");
    let lines = host.log().lines().filter(|line| line.contains("handshake refused")).count();
    assert!(lines < 20, "{lines} lines");
}
