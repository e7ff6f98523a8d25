//! What only server endpoints have: where they are reached, and what they take from a handshake.

use super::build::port;
use super::endpoint::is_token;
use super::path::PathPattern;
use super::report::Report;
use super::section::{Section, Span};
use super::{FromHandshake, Listen, Redacted, Server};
use std::net::IpAddr;

/// Metadata of the host itself.
const RESERVED: &str = "__meta_";

pub(super) fn listen(report: &mut Report<'_>, section: &Section, server: &Server) -> Listen {
    let path = section.text("path").cloned().unwrap_or_else(|| Redacted::plain("/"));
    let pattern = PathPattern::parse(&path);
    if let Err(error) = &pattern {
        match &error.hint {
            Some(hint) => report.error_with_hint(&section.span("path"), &error.message, hint),
            None => report.error(&section.span("path"), &error.message),
        }
    }
    let host = section.text("host");
    if let Some(host) = host {
        check_host(report, host, &section.span("host"));
    }
    Listen {
        host: host.map_or_else(|| server.host.clone(), |host| host.expose().to_owned()),
        port: port(section).unwrap_or(server.port),
        metadata: metadata(report, section, pattern.as_ref().ok()),
        path,
        max_connections: server.max_connections,
        handshake_timeout: server.handshake_timeout,
    }
}

fn metadata(
    report: &mut Report<'_>,
    section: &Section,
    path: Option<&PathPattern>,
) -> Vec<(String, FromHandshake)> {
    let mut metadata = Vec::new();
    for (name, text, at) in section.map("metadata") {
        if name.is_empty() || name.starts_with(RESERVED) {
            report.error(at, format!("metadata must have a name that does not start with `{RESERVED}`"));
        }
        let Some(from) = from_handshake(text.expose()) else {
            let message = format!("`{name}` must say where it is taken from, got \"{text}\"");
            let hint = "\"path:NAME\", \"query:NAME\", \"header:NAME\", \"cookie:NAME\", \"auth:user\", \
                        \"tls:cn\", \"tls:san\" or \"tls:fingerprint\"";
            report.error_with_hint(at, message, hint);
            continue;
        };
        match (&from, path) {
            (FromHandshake::Path(segment), Some(path)) if !path.names().any(|name| name == segment) => {
                let known: Vec<_> = path.names().map(|name| format!("\"path:{name}\"")).collect();
                let hint = match &*known {
                    [] => format!("`path` names a segment like this: \"/rooms/{{{segment}}}\""),
                    known => format!("known here: {}", known.join(", ")),
                };
                report.error_with_hint(at, format!("`path` has no segment `{{{segment}}}`"), hint);
            }
            (FromHandshake::Header(header), _) if !is_token(header) => {
                report.error(at, format!("\"{header}\" is not the name of a header"));
            }
            _ => {}
        }
        metadata.push((name.clone(), from));
    }
    metadata
}

fn from_handshake(text: &str) -> Option<FromHandshake> {
    match text {
        "auth:user" => return Some(FromHandshake::User),
        "tls:cn" => return Some(FromHandshake::CommonName),
        "tls:san" => return Some(FromHandshake::AlternativeNames),
        "tls:fingerprint" => return Some(FromHandshake::Fingerprint),
        _ => {}
    }
    let (form, name) = text.split_once(':').filter(|(_, name)| !name.is_empty())?;
    let name = name.to_owned();
    match form {
        "path" => Some(FromHandshake::Path(name)),
        "query" => Some(FromHandshake::Query(name)),
        "header" => Some(FromHandshake::Header(name)),
        "cookie" => Some(FromHandshake::Cookie(name)),
        _ => None,
    }
}

/// Reports a host that is neither an IP address nor a name.
pub(super) fn check_host(report: &mut Report<'_>, host: &Redacted, at: &Span) {
    let text = host.expose();
    let is_name = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_');
    if text.parse::<IpAddr>().is_err() && !is_name {
        let message = format!("`host` must be an IP address or a name, got \"{host}\"");
        report.error_with_hint(at, message, "the port has a key of its own, `port`");
    }
}
