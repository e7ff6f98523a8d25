//! What only server endpoints have: where they are reached, and what they take from a handshake.

use super::auth::auth;
use super::build::port;
use super::endpoint::is_token;
use super::path::PathPattern;
use super::report::Report;
use super::section::{Section, Span};
use super::{
    AllowedOrigins, Auth, ClientCertificates, FromHandshake, Identity, Listen, Pem, Redacted, Server,
    ServerTls,
};
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
    let auth = section.section("auth").map(|section| auth(report, section));
    Listen {
        host: host.unwrap_or(&server.host).clone(),
        port: port(section).unwrap_or(server.port),
        tls: section.section("tls").and_then(|section| tls(report, section)),
        metadata: metadata(report, section, pattern.as_ref().ok(), auth.as_ref()),
        path,
        auth,
        allowed_origins: allowed_origins(report, section),
        max_connections: max_connections(report, section, server),
    }
}

/// TLS of a listener. `None` where the certificate or its key is missing, which was reported.
pub(super) fn tls(report: &mut Report<'_>, section: &Section) -> Option<ServerTls> {
    let file = |key: &str| section.path(key).cloned().map(Pem::File);
    let ca = file("client_ca");
    if ca.is_none() && section.is_written("client_auth") {
        report.error_with_hint(
            &section.span("client_auth"),
            "`client_auth` without `client_ca`",
            "client_ca = \"clients.pem\" has the roots that clients' certificates must lead to",
        );
    }
    let are_required = section.word("client_auth") != "optional";
    Some(ServerTls {
        identity: Identity { cert: file("cert")?, key: file("key")? },
        clients: ca.map(|ca| ClientCertificates { ca, are_required }),
    })
}

fn metadata(
    report: &mut Report<'_>,
    section: &Section,
    path: Option<&PathPattern>,
    auth: Option<&Auth>,
) -> Vec<(String, FromHandshake)> {
    let mut metadata = Vec::new();
    for (name, text, at) in section.map("metadata") {
        if name.is_empty() || name.starts_with(RESERVED) {
            report.error(at, format!("metadata must have a name that does not start with `{RESERVED}`"));
        }
        let Some(from) = from_handshake(text.known().expose()) else {
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
            _ if auth.is_some_and(|auth| auth.is_in(&from)) => {
                report.error(at, format!("`{text}` has a credential of `auth`, which metadata would show"));
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

fn allowed_origins(report: &mut Report<'_>, section: &Section) -> AllowedOrigins {
    if !section.is_written("allowed_origins") {
        return AllowedOrigins::default();
    }
    let origins: Vec<_> =
        section.texts("allowed_origins").iter().map(|(origin, _)| origin.known().clone()).collect();
    for (origin, at) in section.texts("allowed_origins") {
        let origin = origin.known();
        if AllowedOrigins::listed(std::slice::from_ref(origin)).is_err() {
            let message = format!("\"{origin}\" is not an origin");
            let hint = "write \"https://example.com\", \"https://*.example.com\", \"app://name\", \"null\", or \"*\" \
                        for any page";
            report.error_with_hint(at, message, hint);
        }
    }
    AllowedOrigins::listed(&origins).unwrap_or_default()
}

fn max_connections(report: &mut Report<'_>, section: &Section, server: &Server) -> usize {
    if !section.is_written("max_connections") {
        return server.max_connections;
    }
    let most = section.count("max_connections");
    if most > server.max_connections {
        report.warning(
            &section.span("max_connections"),
            format!("the listener has {} connections at most", server.max_connections),
            "that is `max_connections` of [server]",
        );
    }
    most
}

/// Reports a host that is neither an IP address nor a name.
pub(super) fn check_host(report: &mut Report<'_>, host: &Redacted, at: &Span) {
    if !is_host(host.expose()) {
        let message = format!("`host` must be an IP address or a name, got \"{host}\"");
        report.error_with_hint(at, message, "the port has a key of its own, `port`");
    }
}

/// Whether this names the machine itself: `localhost`, or an address of the loopback without brackets.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether this is an IP address or could be a name.
pub(super) fn is_host(text: &str) -> bool {
    let is_of_a_name = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.bytes().all(is_of_a_name))
}
