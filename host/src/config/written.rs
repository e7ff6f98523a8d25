//! How a pipeline is shown: the tables it was read from, as JSON, without secrets.
//!
//! What came from variables is `***`, and so is what is a secret by its nature, wherever it came
//! from: values of headers, credentials, private keys, the user info of a url.

use super::interpolate::Files;
use super::read::TableReader;
use super::redacted::HIDDEN;
use super::text::without_user_info;
use super::units::{show_duration, show_size};
use super::{Admin, Config, EndpointText, Mode, Pem, Pipeline, ServerTls, SinkKind, SourceConfig, json};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

/// What stands for the user info of a url.
const NO_USER: &str = "***@";
/// Keys whose strings are secrets, however deep they are.
const SECRETS: [&str; 4] = ["headers", "bearer", "basic", "key_base64"];

/// A checked value as it may be shown.
pub(super) fn shown(reader: &mut TableReader<'_, '_>, value: &Spanned<DeValue<'_>>) -> Option<Value> {
    let mut text = EndpointText::plain("");
    let is_right = json::write(reader, Files::Secret, "pipelines", value, &mut text);
    let mut shown = serde_json::from_str(text.shown()).ok().filter(|_| is_right)?;
    hide(&mut shown);
    Some(shown)
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                match key.as_str() {
                    // The plugin's own.
                    "config" => {}
                    key if SECRETS.contains(&key) => hide_all(value),
                    "url" => each_text(value, &mut |url| *url = without_user_info(url, NO_USER)),
                    _ => hide(value),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(hide),
        _ => {}
    }
}

fn hide_all(value: &mut Value) {
    each_text(value, &mut |text| HIDDEN.clone_into(text));
}

fn each_text(value: &mut Value, change: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(elements) => elements.iter_mut().for_each(|value| each_text(value, change)),
        Value::Object(entries) => entries.values_mut().for_each(|value| each_text(value, change)),
        _ => {}
    }
}

impl Pipeline {
    /// Notes how the tables may be shown that the pipeline was read from. Files of plugins are shown by their paths.
    pub(super) fn set_written(&mut self, written: Option<Value>) {
        self.written = written;
        let transforms = self.written.as_mut().and_then(|written| written["transforms"].as_array_mut());
        for (shown, transform) in transforms.into_iter().flatten().zip(&self.transforms) {
            if let Some(shown) = shown.get_mut("config") {
                *shown = serde_json::from_str(transform.config.json().shown()).unwrap_or_default();
            }
        }
    }

    /// The pipeline as it was written, in the shape of the file, without secrets. One that was built in
    /// Rust is described by what its parts are.
    pub fn shown(&self) -> Value {
        if let Some(written) = &self.written {
            return written.clone();
        }
        let source = match &self.source {
            SourceConfig::WebSocket(source) => endpoint(&source.endpoint.mode),
            SourceConfig::File(file) => json!({ "type": "file", "path": file.path.to_string() }),
            SourceConfig::Stdin(_) => json!({ "type": "stdin" }),
        };
        let transforms = self.transforms.iter().map(|transform| {
            let config: Value = serde_json::from_str(transform.config.json().shown()).unwrap_or_default();
            json!({ "plugin": transform.plugin.shown(), "name": transform.name, "config": config })
        });
        let sinks = self.sinks.iter().map(|sink| with_name(sink_kind(&sink.kind), &sink.name));
        let mut shown = json!({
            "name": self.name,
            "source": source,
            "transforms": transforms.collect::<Vec<_>>(),
            "sinks": sinks.collect::<Vec<_>>(),
        });
        if let Some(dead_letter) = &self.dead_letter {
            shown["dead_letter"] = sink_kind(&dead_letter.kind);
        }
        shown
    }
}

impl Config {
    /// The tables beside the pipelines with the defaults filled in, without secrets.
    pub fn settings_shown(&self) -> Value {
        let Self { plugins, server, state, admin, .. } = self;
        let tls = |tls: &ServerTls| {
            let clients = tls.clients.as_ref().map(|clients| {
                let auth = if clients.are_required { "required" } else { "optional" };
                json!({ "client_ca": pem(&clients.ca), "client_auth": auth })
            });
            json!({ "cert": pem(&tls.identity.cert), "key": pem(&tls.identity.key), "clients": clients })
        };
        let admin = admin.as_ref().map(|Admin { listen, token }| {
            json!({ "listen": listen.to_string(), "token": token.as_ref().map(|_| HIDDEN) })
        });
        json!({
            "plugins": {
                "dir": plugins.dir.to_string(),
                "watch": plugins.watch,
                "cache": plugins.cache.to_string(),
                "max_size": show_size(plugins.max_size_bytes),
            },
            "server": {
                "host": server.host.shown(),
                "port": server.port,
                "max_connections": server.max_connections,
                "handshake_timeout": show_duration(server.handshake_timeout),
                "tls": server.tls.as_ref().map(tls),
            },
            "state": {
                "dir": state.dir.to_string(),
                "interval": show_duration(state.interval),
                "max_size": show_size(state.max_size_bytes),
            },
            "admin": admin,
        })
    }
}

fn pem(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.to_string(),
        Pem::Base64(_) => HIDDEN.to_owned(),
    }
}

fn sink_kind(kind: &SinkKind) -> Value {
    match kind {
        SinkKind::WebSocket(sink) => endpoint(&sink.endpoint.mode),
        SinkKind::File(file) => json!({ "type": "file", "path": file.path.to_string() }),
        SinkKind::Stdout(_) => json!({ "type": "stdout" }),
        SinkKind::Reply(_) => json!({ "type": "reply" }),
    }
}

fn endpoint(mode: &Mode) -> Value {
    match mode {
        Mode::Client(client) => {
            let urls: Vec<_> =
                client.urls.iter().map(|url| without_user_info(url.shown(), NO_USER)).collect();
            json!({ "type": "websocket", "mode": "client", "url": urls })
        }
        Mode::Server(listen) => json!({
            "type": "websocket", "mode": "server",
            "host": listen.host.shown(), "port": listen.port, "path": listen.path.shown(),
        }),
    }
}

fn with_name(mut shown: Value, name: &str) -> Value {
    shown["name"] = name.into();
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_were_written() {
        let mut value = json!({
            "source": { "url": ["wss://me:pw@a/x?y", "ws://b"], "headers": { "Authorization": "Bearer pw" } },
            "sinks": [{ "auth": { "bearer": ["pw"], "basic": { "user": "pw" }, "bearer_from": ["header"] } }],
            "tls": { "key_base64": "pw", "key": "file.pem" },
            "transforms": [{ "config": { "headers": "kept" } }],
        });
        hide(&mut value);
        assert_eq!(
            value,
            json!({
                "source": { "url": ["wss://***@a/x?y", "ws://b"], "headers": { "Authorization": "***" } },
                "sinks": [{
                    "auth": { "bearer": ["***"], "basic": { "user": "***" }, "bearer_from": ["header"] },
                }],
                "tls": { "key_base64": "***", "key": "file.pem" },
                "transforms": [{ "config": { "headers": "kept" } }],
            })
        );
    }
}
