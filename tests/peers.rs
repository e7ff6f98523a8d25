//! Real peers on both sides of the host, as servers and as clients: Python's `websockets` and Node's
//! `ws`. Text and binary come through unchanged and in order, and the peer sees the close code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
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

#[test]
fn a_python_server_is_dialled() {
    the_host_dials("python");
}

#[test]
fn a_python_client_dials() {
    the_peer_dials("python");
}

#[test]
fn a_node_server_is_dialled() {
    the_host_dials("node");
}

#[test]
fn a_node_client_dials() {
    the_peer_dials("node");
}
