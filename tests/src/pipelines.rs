//! Pipelines that many tests have, as they stand in a configuration file.

/// Whoever is dialled is dialled again at once.
pub const FAST: &str = r#"reconnect = { delay = "10ms", max_delay = "50ms" }"#;

/// A pipeline from one url to another, through the transforms that this text lists.
pub fn relay(name: &str, source: &str, transforms: &str, sink: &str) -> String {
    format!(
        r#"
        [[pipelines]]
        name = "{name}"
        source = {{ type = "websocket", url = "{source}", {FAST} }}
        transforms = [{transforms}]
        sinks = [{{ type = "websocket", url = "{sink}", {FAST} }}]
        "#
    )
}

/// A pipeline from the peers of `/in` to those of `/out`, on a free port, through the transforms that this text lists.
pub fn serve(transforms: &str) -> String {
    format!(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", mode = "server", path = "/in" }}
        transforms = [{transforms}]
        sinks = [{{ type = "websocket", mode = "server", path = "/out" }}]
        "#
    )
}
