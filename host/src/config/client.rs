//! What only client endpoints have: where they dial, whom they trust, and when they try again.

use super::endpoint::is_token;
use super::listen::is_host;
use super::report::Report;
use super::section::{Section, Span};
use super::{
    Client, ClientTls, Endpoint, EndpointText, Heartbeat, Identity, Mode, Pem, Reconnect, WebSocketUrl,
};

/// Headers that the handshake itself sets.
const RESERVED: [&str; 7] = [
    "host",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
];

pub(super) fn client(report: &mut Report<'_>, section: &Section) -> Option<Client> {
    let urls = section.texts("url");
    urls.iter().for_each(|(text, at)| url(report, text, at));
    let mut headers = Vec::new();
    for (name, value, at) in section.map("headers") {
        header(report, name, value, at);
        headers.push((name.clone(), value.clone()));
    }
    let Endpoint { mode: Mode::Client(defaults), .. } = Endpoint::client("") else { return None };
    let client = Client {
        urls: urls.iter().map(|(url, _)| url.clone()).collect(),
        headers,
        connect_timeout: section.duration("connect_timeout").unwrap_or(defaults.connect_timeout),
        tls: section.section("tls").map_or(defaults.tls, |section| tls(report, section)),
        reconnect: section
            .section("reconnect")
            .map_or(defaults.reconnect, |section| reconnect(report, section)),
        send_interval: section.duration("send_interval").unwrap_or_default(),
        heartbeat: section.section("heartbeat").and_then(heartbeat),
        proxies: defaults.proxies,
    };
    (!client.urls.is_empty()).then_some(client)
}

fn tls(report: &mut Report<'_>, section: &Section) -> ClientTls {
    let ca = pem(report, section, "ca", "ca_base64");
    let cert = pem(report, section, "cert", "cert_base64");
    let key = pem(report, section, "key", "key_base64");
    let lacks = match (&cert, &key) {
        (Some(_), None) => Some(("cert", "key")),
        (None, Some(_)) => Some(("key", "cert")),
        _ => None,
    };
    if let Some((there, missing)) = lacks {
        let base64 = format!("{there}_base64");
        let at = section.span(if section.is_written(there) { there } else { &base64 });
        let message = format!("a `{there}` is of no use without its `{missing}`");
        report.error_with_hint(&at, message, format!("give `{missing}` or `{missing}_base64` too"));
    }
    let server_name = section.text("server_name").cloned();
    if let Some(name) = &server_name
        && !is_host(name.expose())
    {
        let message = format!("`server_name` must be a name or an IP address, got \"{name}\"");
        report.error(&section.span("server_name"), message);
    }
    ClientTls {
        ca,
        identity: cert.zip(key).map(|(cert, key)| Identity { cert, key }),
        insecure_skip_verify: section.bool("insecure_skip_verify"),
        server_name,
    }
}

/// A file, or its content in base64; where both are written, the file.
fn pem(report: &mut Report<'_>, section: &Section, file: &str, base64: &str) -> Option<Pem> {
    if let Some(text) = section.endpoint_text(base64).filter(|text| !text.has_files())
        && let Err(what) = Pem::decode(text.known().expose())
    {
        report.error(&section.span(base64), format!("`{base64}` is {what}"));
    }
    let file = section.path(file).cloned().map(Pem::File);
    file.or_else(|| section.endpoint_text(base64).cloned().map(Pem::Base64))
}

/// `None` where a key that it needs is missing, which was reported.
fn heartbeat(section: &Section) -> Option<Heartbeat> {
    Some(Heartbeat {
        interval: section.duration("interval")?,
        message: section.endpoint_text("message")?.clone(),
        reply: section.endpoint_text("reply").cloned(),
        timeout: section.duration("timeout")?,
    })
}

fn reconnect(report: &mut Report<'_>, section: &Section) -> Reconnect {
    let defaults = Reconnect::default();
    let reconnect = Reconnect {
        enabled: section.bool("enabled"),
        delay: section.duration("delay").unwrap_or(defaults.delay),
        max_delay: section.duration("max_delay").unwrap_or(defaults.max_delay),
        max_attempts: section.integer("max_attempts").and_then(|attempts| u32::try_from(attempts).ok()),
        jitter: section.number("jitter"),
        reset_after: section.duration("reset_after").unwrap_or(defaults.reset_after),
    };
    if reconnect.delay > reconnect.max_delay {
        let at = section.span(if section.is_written("delay") { "delay" } else { "max_delay" });
        let hint = "every attempt waits `max_delay`";
        report.warning(&at, "`delay` is longer than `max_delay`", hint);
    }
    reconnect
}

fn url(report: &mut Report<'_>, url: &EndpointText, at: &Span) {
    // One that begins with the text of a file is looked at when it is dialled.
    let Some(text) = url.sketch() else { return };
    let Err(error) = WebSocketUrl::parse(&text) else { return };
    match error.hint() {
        Some(hint) => report.error_with_hint(at, error.of(url), hint),
        None => report.error(at, error.of(url)),
    }
}

fn header(report: &mut Report<'_>, name: &str, value: &EndpointText, at: &Span) {
    if !is_token(name) {
        report.error(at, format!("\"{name}\" is not the name of a header"));
    } else if RESERVED.contains(&&*name.to_ascii_lowercase()) {
        let message = format!("the header `{name}` is set by the handshake itself");
        if name.eq_ignore_ascii_case("sec-websocket-protocol") {
            report.error_with_hint(at, message, "use the key `subprotocols`");
        } else {
            report.error(at, message);
        }
    } else if value.known().expose().contains(|c: char| c.is_control() && c != '\t') {
        report.error(at, format!("the value of the header `{name}` must have no control characters"));
    }
}
