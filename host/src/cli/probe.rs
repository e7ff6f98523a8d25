//! `tidemill probe`: dial a WebSocket server once, and say what happened.

use super::arguments::url;
use super::{Exit, answer, block_on, complain, environment};
use crate::config::{Endpoint, EndpointText, Mode, Proxies, Redacted};
use crate::foreign_text;
use crate::websocket::{ConnectError, ProbeError, Probed, TlsFacts};
use serde_json::{Value, json};
use std::time::SystemTime;

#[derive(Debug, clap::Args)]
pub(super) struct Probe {
    /// The server, `ws://` or `wss://`.
    #[arg(value_parser = url)]
    url: String,
    /// A header of the handshake; may be given several times.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// A subprotocol to offer; may be given several times.
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Probe {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            let endpoint = self.endpoint();
            let probed = tokio::select! {
                probed = endpoint.probe() => probed,
                () = shutdown.requested() => return Exit::Failure,
            };
            let exit = if probed.is_ok() { Exit::Success } else { Exit::Failure };
            match &probed {
                _ if self.json => {
                    let json = probed.as_ref().map_or_else(failure_as_json, as_json);
                    answer(&format!("{json}\n"), exit)
                }
                Ok(probed) => answer(&format!("{}\n", as_text(probed)), exit),
                Err(error) => {
                    let hint = error.hint().map_or(String::new(), |hint| format!("\nhint: {hint}"));
                    complain(format!("{error}{hint}"));
                    exit
                }
            }
        })
    }

    fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint::client(&*self.url);
        endpoint.subprotocols = self.subprotocol.iter().map(|name| name.as_str().into()).collect();
        if let Mode::Client(client) = &mut endpoint.mode {
            let secret = |value: &String| EndpointText::from(Redacted::new(value, "***"));
            client.headers = self.header.iter().map(|(name, value)| (name.clone(), secret(value))).collect();
            client.proxies = Proxies::of(&environment());
        }
        endpoint
    }
}

fn as_text(probed: &Probed) -> String {
    let mut lines = vec![format!("connected to {} in {} ms", probed.url, probed.took.as_millis())];
    let mut line = |name: &str, value: String| lines.push(format!("{name:12} {value}"));
    line("status", "101 Switching Protocols".to_owned());
    if let Some(peer) = probed.peer {
        line("peer", peer.to_string());
    }
    if let Some(tls) = &probed.tls {
        line("tls", tls.version.clone());
        let until = tls.valid_until.map_or(String::new(), |until| format!(", valid until {}", date(until)));
        line("certificate", format!("{}{until}", foreign_text::shown(&tls.subject)));
    }
    line("subprotocol", probed.subprotocol.clone().unwrap_or_else(|| "none".to_owned()));
    lines.join("\n")
}

fn as_json(probed: &Probed) -> Value {
    let tls = probed.tls.as_ref().map(|TlsFacts { version, subject, valid_until }| {
        json!({ "version": version, "subject": subject, "valid_until": valid_until.map(date) })
    });
    json!({
        "ok": true,
        "url": probed.url,
        "status": 101,
        "peer": probed.peer,
        "subprotocol": probed.subprotocol,
        "tls": tls,
        "took_ms": u64::try_from(probed.took.as_millis()).unwrap_or(u64::MAX),
    })
}

fn failure_as_json(error: &ProbeError) -> Value {
    // One url was dialled.
    let dialled = error.errors().last();
    json!({
        "ok": false,
        "status": dialled.and_then(ConnectError::status),
        "outcome": dialled.map(|error| error.outcome().as_str()),
        "error": { "message": error.to_string(), "hint": error.hint() },
    })
}

fn date(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "unknown".to_owned(), |time| time.to_string())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as \"Name: value\"")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
