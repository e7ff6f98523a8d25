//! What only server endpoints have: where they are reached, and what they take from a handshake.

use super::auth::Auth;
use super::form::{
    AnyText, ConnectionCount, Element, List, ListAt, Map, One, Port, SomeDuration, Sub, SubAs,
};
use super::from_handshake::FromHandshake;
use super::names::is_token;
use super::path::PathPattern;
use super::read::{Form, Item, Read, TableReader};
use super::report::Span;
use super::server::HostName;
use super::server_tls::{ServerTls, ServerTlsKeys};
use super::shape::Kind;
use super::{AllowedOrigins, EndpointText, Redacted};
use std::time::Duration;

table! {
    /// The settings of an endpoint in server mode: where it is reached, and by whom.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Listen / ListenAt {
        /// The endpoint listens on this address; if left out, on that of [server].
        host: Redacted = key(One<HostName>, inherit(host));
        /// The endpoint listens on this port; if left out, on that of [server].
        port: u16 = key(Port, inherit(port));
        /// The listener shows this certificate, which makes it wss://; if left out, that of [server].
        tls: Option<ServerTls> = key(SubAs<ServerTlsKeys, ServerTls>, optional);
        /// Peers ask for exactly this path; {name} stands for any one segment: /rooms/{room}.
        path: Redacted = key(One<PathName>, default("/".into()));
        /// The messages of a connection get this metadata from its handshake: "path:NAME", "query:NAME",
        /// "header:NAME", "cookie:NAME", "auth:user", "tls:cn", "tls:san", "tls:fingerprint". A handshake with
        /// such a header that is not UTF-8 gets 400.
        metadata: Vec<(String, FromHandshake)> = key(Map<FromHandshake>, default(Vec::new()));
        /// These may connect, and others get 401; if left out, everybody may.
        auth: Option<Auth> = key(Sub<Auth>, optional);
        /// Web pages of these origins may connect, with * for any name or for all; if left out, those of the
        /// same host.
        allowed_origins: AllowedOrigins = key(Origins, settled());
        /// The endpoint has at most so many connections, and more get 503; if left out, as many as [server]
        /// says. While a pipeline holds reading back, connections that have ended and whose messages wait for
        /// it count too, beyond as many again (64 at most).
        max_connections: usize = key(ConnectionCount, inherit(max_connections));
        /// With check_connection, a peer is waited for at most so long.
        connect_timeout: Duration = key(SomeDuration, default(Duration::from_secs(10)));
    }
    later ["subscribe", "client_protocol", "max_topics", "auto_reply"];
    check check_listen;
}

fn check_listen(listen: &mut Listen, at: &ListenAt, reader: &mut TableReader<'_, '_>) {
    let most = reader.inherited().max_connections;
    if let (Some(at), true) = (&at.max_connections, listen.max_connections > most) {
        reader.report.warning(
            at,
            format!("the listener has {most} connections at most"),
            "that is `max_connections` of [server]",
        );
    }
    let Some(places) = &at.metadata else { return };
    let path = PathPattern::parse(&listen.path).ok();
    for ((name, from), at) in listen.metadata.iter().zip(&places.each) {
        match (from, &path) {
            (FromHandshake::Path(segment), Some(path)) if !path.names().any(|name| name == segment) => {
                let known: Vec<_> = path.names().map(|name| format!("\"path:{name}\"")).collect();
                let hint = match &*known {
                    [] => format!("`path` names a segment like this: \"/rooms/{{{segment}}}\""),
                    known => format!("known here: {}", known.join(", ")),
                };
                reader.report.error_with_hint(at, format!("`path` has no segment `{{{segment}}}`"), hint);
            }
            (FromHandshake::Header(header), _) if !is_token(header) => {}
            _ if listen.auth.as_ref().is_some_and(|auth| auth.is_in(from)) => {
                let message = format!("`{name}` would show a credential of `auth`");
                reader.report.error(at, message);
            }
            _ => {}
        }
    }
}

/// The path of an endpoint.
pub(super) struct PathName;

impl Element for PathName {
    type Value = Redacted;

    fn of(reader: &mut TableReader<'_, '_>, _: &str, text: EndpointText, at: &Span) -> Option<Redacted> {
        if let Err(error) = PathPattern::parse(text.known()) {
            match &error.hint {
                Some(hint) => reader.report.error_with_hint(at, &error.message, hint),
                None => reader.report.error(at, &error.message),
            }
        }
        Some(text.known().clone())
    }

    fn show(value: &Redacted) -> String {
        AnyText::show(value)
    }
}

/// A list of origins.
pub(super) struct Origins;

impl Form for Origins {
    type Value = AllowedOrigins;
    type At = ListAt;
    const KIND: Kind = Kind::Texts;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let (origins, at) = List::<WebOrigin>::read(reader, key, value)?;
        Some((AllowedOrigins::listed(&origins).unwrap_or_default(), at))
    }

    fn show(_: &AllowedOrigins) -> String {
        "[]".to_owned()
    }
}

/// The origin of a web page.
pub(super) struct WebOrigin;

impl Element for WebOrigin {
    type Value = Redacted;

    fn of(reader: &mut TableReader<'_, '_>, _: &str, text: EndpointText, at: &Span) -> Option<Redacted> {
        let origin = text.known();
        if AllowedOrigins::listed(std::slice::from_ref(origin)).is_err() {
            let hint = "write \"https://example.com\", \"https://*.example.com\", \"app://name\", \"null\", \
                        or \"*\" for any page";
            reader.report.error_with_hint(at, format!("\"{origin}\" is not an origin"), hint);
        }
        Some(origin.clone())
    }

    fn show(value: &Redacted) -> String {
        AnyText::show(value)
    }
}
