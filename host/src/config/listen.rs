//! What only server endpoints have: where they are reached, and what they take from a handshake.

use super::auth::Auth;
use super::client::is_token;
use super::form::{
    AnyText, Connections, Element, Entry, List, ListAt, Map, One, PathOf, Port, SomeDuration, Sub, SubAs,
    Word,
};
use super::path::PathPattern;
use super::read::Reader;
use super::report::Span;
use super::shape::Kind;
use super::table::{Becomes, Form, Item, Read};
use super::{AllowedOrigins, EndpointText, FilePath, Pem, Redacted};
use std::net::IpAddr;
use std::time::Duration;

/// Metadata of the host itself.
const RESERVED: &str = "__meta_";

table! {
    /// Where a server endpoint is reached.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Listen / ListenAt {
        /// the address to listen on; from [server] if left out
        host: Redacted = key(One<HostName>, inherit(|server| server.host.clone()));
        /// the port to listen on; from [server] if left out
        port: u16 = key(Port, inherit(|server| server.port));
        /// the certificate, which makes it wss://; from [server] if left out
        tls: Option<ServerTls> = key(SubAs<ServerTlsKeys, ServerTls>, optional);
        /// the exact path, or with {name} for any one segment: /rooms/{room}
        path: Redacted = key(One<PathName>, default("/".into()));
        /// metadata of a connection's messages, from its handshake: "path:NAME", "query:NAME", "header:NAME",
        /// "cookie:NAME", "auth:user", "tls:cn", "tls:san", "tls:fingerprint"
        metadata: Vec<(String, FromHandshake)> = key(Map<FromHandshake>, default(Vec::new()));
        /// who may connect; others get 401; everybody may if left out
        auth: Option<Auth> = key(Sub<Auth>, optional);
        /// origins of web pages that may connect, with * for any name or for all; those of the same host if
        /// left out
        allowed_origins: AllowedOrigins = key(Origins, settled());
        /// most connections of this endpoint; from [server] if left out
        max_connections: usize = key(Connections, inherit(|server| server.max_connections));
        /// with check_connection: the longest wait for a peer
        connect_timeout: Duration = key(SomeDuration, default(Duration::from_secs(10)));
    }
    later ["subscribe", "client_protocol", "max_topics", "auto_reply"];
    check check_listen;
}

fn check_listen(listen: &mut Listen, at: &ListenAt, reader: &mut Reader<'_, '_>) {
    let most = reader.inherit(|server| server.max_connections);
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

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those that lead to its root.
    pub cert: Pem,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: Pem,
}

/// TLS of a listener. Its files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Who we are.
    pub identity: Identity,
    /// Who peers must be; `None` asks for no certificate.
    pub clients: Option<ClientCertificates>,
}

/// Certificates that a listener asks its peers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The roots they must lead to.
    pub ca: Pem,
    /// Whether a peer without one is refused.
    pub are_required: bool,
}

table! {
    /// `tls` in server mode.
    pub(super) struct ServerTlsKeys / ServerTlsAt {
        /// the certificate chain, PEM
        cert: FilePath = key(PathOf, required);
        /// its private key, PEM
        key: FilePath = key(PathOf, required);
        /// roots that clients' certificates must lead to, PEM; none are asked for if left out
        client_ca: Option<FilePath> = key(PathOf, optional);
        /// with client_ca: whether a client needs a certificate; required if left out
        client_auth: Option<ClientAuth> = key(Word<ClientAuth>, optional);
    }
    check check_client_auth;
}

words! {
    /// Whether a client needs a certificate.
    pub(super) enum ClientAuth {
        /// It does.
        Required = "required",
        /// It may have one.
        Optional = "optional",
    }
}

fn check_client_auth(tls: &mut ServerTlsKeys, at: &ServerTlsAt, reader: &mut Reader<'_, '_>) {
    if let (None, Some(at)) = (&tls.client_ca, &at.client_auth) {
        reader.report.error_with_hint(
            at,
            "`client_auth` without `client_ca`",
            "client_ca = \"clients.pem\" has the roots that clients' certificates must lead to",
        );
    }
}

impl Becomes<ServerTls> for ServerTlsKeys {
    fn become_it(self) -> ServerTls {
        let are_required = self.client_auth != Some(ClientAuth::Optional);
        let clients = self.client_ca.map(|ca| ClientCertificates { ca: Pem::File(ca), are_required });
        ServerTls { identity: Identity { cert: Pem::File(self.cert), key: Pem::File(self.key) }, clients }
    }
}

/// Something that a peer's handshake says, and none of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHandshake {
    /// What stands for a `{name}` of the path.
    Path(String),
    /// A value of the query.
    Query(String),
    /// A header; several of one name are joined by ", ".
    Header(String),
    /// A cookie.
    Cookie(String),
    /// The user of basic authentication.
    User,
    /// The common name of the peer's certificate.
    CommonName,
    /// The alternative names of the peer's certificate, joined by ",".
    AlternativeNames,
    /// The SHA-256 digest of the peer's certificate, in hexadecimal.
    Fingerprint,
}

impl FromHandshake {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auth:user" => return Some(Self::User),
            "tls:cn" => return Some(Self::CommonName),
            "tls:san" => return Some(Self::AlternativeNames),
            "tls:fingerprint" => return Some(Self::Fingerprint),
            _ => {}
        }
        let (form, name) = text.split_once(':').filter(|(_, name)| !name.is_empty())?;
        let name = name.to_owned();
        match form {
            "path" => Some(Self::Path(name)),
            "query" => Some(Self::Query(name)),
            "header" => Some(Self::Header(name)),
            "cookie" => Some(Self::Cookie(name)),
            _ => None,
        }
    }
}

impl Entry for FromHandshake {
    type Value = Self;

    fn of(reader: &mut Reader<'_, '_>, name: &str, text: EndpointText, at: &Span) -> Option<Self> {
        if name.is_empty() || name.starts_with(RESERVED) {
            let message = format!("metadata must have a name that does not start with `{RESERVED}`");
            reader.report.error(at, message);
        }
        let from = Self::parse(text.known().expose());
        match &from {
            None => reader.report.error_with_hint(
                at,
                format!("`{name}` must say where it is taken from, got \"{text}\""),
                "\"path:NAME\", \"query:NAME\", \"header:NAME\", \"cookie:NAME\", \"auth:user\", \"tls:cn\", \
                 \"tls:san\" or \"tls:fingerprint\"",
            ),
            Some(Self::Header(header)) if !is_token(header) => {
                reader.report.error(at, format!("\"{header}\" is not the name of a header"));
            }
            Some(_) => {}
        }
        from
    }
}

/// The path of an endpoint.
pub(super) struct PathName;

impl Element for PathName {
    type Value = Redacted;

    fn of(reader: &mut Reader<'_, '_>, _: &str, text: EndpointText, at: &Span) -> Option<Redacted> {
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

/// The address of a listener: an IP address or a name.
pub(super) struct HostName;

impl Element for HostName {
    type Value = Redacted;

    fn of(reader: &mut Reader<'_, '_>, key: &str, host: EndpointText, at: &Span) -> Option<Redacted> {
        if !is_host(host.known().expose()) {
            let message = format!("`{key}` must be an IP address or a name, got \"{host}\"");
            reader.report.error_with_hint(at, message, "the port has a key of its own, `port`");
        }
        Some(host.known().clone())
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

    fn read(reader: &mut Reader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let (origins, at) = List::<Origin>::read(reader, key, value)?;
        Some((AllowedOrigins::listed(&origins).unwrap_or_default(), at))
    }

    fn show(_: &AllowedOrigins) -> String {
        "[]".to_owned()
    }
}

/// The origin of a web page.
pub(super) struct Origin;

impl Element for Origin {
    type Value = Redacted;

    fn of(reader: &mut Reader<'_, '_>, _: &str, text: EndpointText, at: &Span) -> Option<Redacted> {
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

/// Whether this names the machine itself: `localhost`, or an address of the loopback without brackets.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether this is an IP address or could be a name.
pub(super) fn is_host(text: &str) -> bool {
    let is_of_a_name = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.bytes().all(is_of_a_name))
}
