//! Real peers on both sides of the host, as servers and as clients: Python's `websockets` and Node's
//! `ws`. Text and binary come through unchanged and in order, and the peer sees the close code; over TLS
//! it also says what it saw of the handshake.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use tidemill_tests::authority::{Authority, Certified};
use tidemill_tests::host::Folder;
use tidemill_tests::{Tool, plugin, root, tool};

/// A running peer; dropping it ends it.
struct Peer {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// None where its tools are not installed, which is said.
    fn start(language: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = match language {
            "python" => {
                let mut python = Command::new(tool(Tool::Python)?.join("python"));
                python.arg(root().join("tests/peers/peer.py"));
                python
            }
            _ => {
                let mut node = Command::new("node");
                node.env("NODE_TOOLS", tool(Tool::Node)?).arg(root().join("tests/peers/peer.mjs"));
                node
            }
        };
        let mut process = command.args(arguments).stdout(Stdio::piped()).spawn().expect("the tool is there");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Some(Self { process, lines })
    }

    /// What follows `word` on the next line.
    fn says(&mut self, word: &str) -> String {
        let line = self.lines.next().expect("the peer has not failed").expect("it writes text");
        let rest = line.strip_prefix(word).unwrap_or_else(|| panic!("not {word}: {line}"));
        rest.trim().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn the_host_dials(language: &str) {
    let Some(mut peer) = Peer::start(language, &["serve"]) else { return };
    let port = peer.says("listening");
    let folder = Folder::default();
    folder.install("forward", &plugin("forward"));
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "ws://127.0.0.1:{port}/feed" }}
        transforms = [{{ plugin = "forward" }}]
        sinks = [{{ type = "websocket", url = "ws://127.0.0.1:{port}/collect" }}]
        "#
    ));
    peer.says("received all");
    assert!(host.stop().status.success());
    assert_eq!(peer.says("closed"), "1001");
}

fn the_peer_dials(language: &str) {
    let folder = Folder::default();
    folder.install("forward", &plugin("forward"));
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/in" }
        transforms = [{ plugin = "forward" }]
        sinks = [{ type = "websocket", mode = "server", path = "/out" }]
        "#,
    );
    let address = host.listening("websocket");
    let Some(mut peer) = Peer::start(language, &["dial", &format!("ws://{address}")]) else { return };
    peer.says("received all");
    assert!(host.stop().status.success());
    assert_eq!(peer.says("closed"), "1001");
}

/// Puts a certificate and its key where `NAME.pem` and `NAME.key` are looked for.
fn write(folder: &Folder, name: &str, certified: &Certified) {
    std::fs::write(folder.path(&format!("{name}.pem")), &certified.certificate).unwrap();
    std::fs::write(folder.path(&format!("{name}.key")), &certified.key).unwrap();
}

fn the_host_dials_over_tls(language: &str) {
    let (folder, servers, clients) = (Folder::default(), Authority::default(), Authority::default());
    write(&folder, "server", &servers.certify("127.0.0.1", |_| {}));
    write(&folder, "client", &clients.certify("the host", |_| {}));
    std::fs::write(folder.path("servers.pem"), servers.certificate).unwrap();
    std::fs::write(folder.path("clients.pem"), clients.certificate).unwrap();
    let options = json!({
        "cert": folder.path("server.pem"), "key": folder.path("server.key"),
        "clients": folder.path("clients.pem"), "subprotocols": ["v2"],
    });
    let Some(mut peer) = Peer::start(language, &["serve", &options.to_string()]) else { return };
    let port = peer.says("listening");
    let keys = r#"
        headers = { Authorization = "Bearer t-1", X-Room = "blue" }
        subprotocols = ["v1", "v2"]
        tls = { ca = "servers.pem", cert = "client.pem", key = "client.key" }
    "#;
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"

        [pipelines.source]
        type = "websocket"
        url = "wss://127.0.0.1:{port}/feed"
        {keys}

        [[pipelines.sinks]]
        type = "websocket"
        url = "wss://127.0.0.1:{port}/collect"
        {keys}
        "#
    ));
    peer.says("received all");
    let seen = json!({
        "authorization": "Bearer t-1", "x-room": "blue", "offered": "v1, v2", "chosen": "v2",
        "client": "the host",
    });
    let handshakes: Value = serde_json::from_str(&peer.says("handshakes")).unwrap();
    assert_eq!(handshakes, json!({ "/feed": seen, "/collect": seen }));
    assert!(host.stop().status.success());
    assert_eq!(peer.says("closed"), "1001");
}

fn the_peer_dials_over_tls(language: &str) {
    let (folder, servers) = (Folder::default(), Authority::default());
    write(&folder, "server", &servers.certify("127.0.0.1", |_| {}));
    std::fs::write(folder.path("servers.pem"), servers.certificate).unwrap();
    std::fs::write(folder.path("others.pem"), Authority::default().certificate).unwrap();
    let host = folder.run(
        r#"
        [server]
        port = 0
        tls = { cert = "server.pem", key = "server.key" }

        [[pipelines]]
        name = "p"

        [pipelines.source]
        type = "websocket"
        mode = "server"
        path = "/in"
        subprotocols = ["v2"]
        auth = { bearer = ["t-1"] }
        metadata = { room = "header:x-room" }

        [[pipelines.sinks]]
        type = "websocket"
        mode = "server"
        path = "/out"
        subprotocols = ["v2"]
        auth = { bearer = ["t-1"] }
        include_metadata = true
        "#,
    );
    let url = format!("wss://{}", host.listening("websocket"));
    let options = |ca: &str| {
        let headers = json!({ "Authorization": "Bearer t-1", "X-Room": "blue" });
        json!({ "ca": folder.path(ca), "headers": headers, "subprotocols": ["v1", "v2"] }).to_string()
    };
    let Some(mut stranger) = Peer::start(language, &["dial", &url, &options("others.pem")]) else { return };
    stranger.says("refused");
    let mut peer = Peer::start(language, &["dial", &url, &options("servers.pem")]).unwrap();
    peer.says("received all");
    assert_eq!(peer.says("chosen"), "[\"v2\",\"v2\"]");
    let answer: Value = serde_json::from_str(&peer.says("answer")).unwrap();
    assert_eq!(answer["room"], "blue", "{answer}");
    assert!(answer["__meta_source"].as_str().unwrap().starts_with("wss://"), "{answer}");
    assert!(host.stop().status.success());
    assert_eq!(peer.says("closed"), "1001");
}

#[test]
fn a_python_server_is_dialled() {
    the_host_dials("python");
}

#[test]
fn a_python_client_dials() {
    the_peer_dials("python");
}

#[test]
fn a_python_server_is_dialled_over_tls() {
    the_host_dials_over_tls("python");
}

#[test]
fn a_python_client_dials_over_tls() {
    the_peer_dials_over_tls("python");
}

#[test]
fn a_node_server_is_dialled() {
    the_host_dials("node");
}

#[test]
fn a_node_client_dials() {
    the_peer_dials("node");
}

#[test]
fn a_node_server_is_dialled_over_tls() {
    the_host_dials_over_tls("node");
}

#[test]
fn a_node_client_dials_over_tls() {
    the_peer_dials_over_tls("node");
}
