//! A browser as a peer: headless Chromium's own WebSocket, with the origins, cookies, subprotocols and
//! queries that a page can have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};
use tidemill_tests::host::Folder;
use tidemill_tests::{Tool, root, tool};

/// Where Debian has it.
const CHROMIUM: &str = "/usr/bin/chromium";

#[test]
fn chromium_is_let_in_by_origin_cookie_subprotocol_and_query() {
    let Some(tools) = tool(Tool::Browser) else { return };
    let folder = Folder::default();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "open"
        source = { type = "websocket", mode = "server", path = "/open" }
        sinks = [{ type = "websocket", mode = "server", path = "/open" }]

        [[pipelines]]
        name = "listed"
        source = { type = "websocket", mode = "server", path = "/listed", allowed_origins = ["http://*.example.test"] }
        sinks = [{ type = "websocket", mode = "server", path = "/listed" }]

        [[pipelines]]
        name = "token"

        [pipelines.source]
        type = "websocket"
        mode = "server"
        path = "/token"
        subprotocols = ["v1"]
        auth = { bearer = ["t-1"], bearer_from = ["query:token", "cookie:token", "subprotocol"] }

        [[pipelines.sinks]]
        type = "websocket"
        mode = "server"
        path = "/token"
        "#,
    );
    let mut node = Command::new("node");
    node.arg(root().join("tests/peers/browser.mjs")).arg(host.listening("websocket").to_string());
    node.env("NODE_TOOLS", &tools).env("CHROMIUM", CHROMIUM);
    let output = node.stdin(Stdio::null()).output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{said}{wrong}");
    assert_eq!(said.matches("ok ").count(), 12, "{said}");
    assert!(!host.log().contains("t-1"), "a token is in the log:\n{}", host.log());
    assert!(host.stop().status.success());
}
