//! What the messages of a connection take as metadata from its handshake.

use super::EndpointText;
use super::form::MapEntry;
use super::names::is_token;
use super::read::TableReader;
use super::report::Span;

/// Metadata of the host itself.
const RESERVED: &str = "__meta_";

/// Something that a peer's handshake says, and none of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHandshake {
    /// The segment that stands for a `{name}` of the path.
    Path(String),
    /// The value of this name in the query of the url.
    Query(String),
    /// A header; several of one name are joined by ", ".
    Header(String),
    /// The cookie of this name.
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

impl MapEntry for FromHandshake {
    type Value = Self;

    fn of(reader: &mut TableReader<'_, '_>, name: &str, text: EndpointText, at: &Span) -> Option<Self> {
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
