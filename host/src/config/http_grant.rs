//! What a plugin may ask for over HTTP: the entries of `allow`, each an origin with or without a path.
//!
//! A request is compared in the one form of its url ([`HttpUrl`]). Which address the host of a url has, and
//! whether it may be reached, is looked at by whoever connects.

use super::form::Element;
use super::http_url::{HttpHost, HttpUrl, HttpUrlError};
use super::read::TableReader;
use super::report::Span;
use super::{EndpointText, Redacted};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// What stands for every name below one.
const BELOW: &str = "*.";

/// One entry of `allow`: `https://api.example.com`, `https://*.example.com/v1/*`, `http://127.0.0.1:9000`.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpGrant {
    is_tls: bool,
    host: GrantedHost,
    port: u16,
    path: GrantedPath,
    /// As it was written.
    text: Redacted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum GrantedHost {
    This(HttpHost),
    /// Every name that ends with this: a dot and a name.
    Below(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum GrantedPath {
    Any,
    This(String),
    /// Every path that begins with this.
    Below(String),
}

/// The reason why a text is no entry of `allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantError {
    /// Completes "the entry ...".
    says: String,
    hint: Option<String>,
}

/// The reason why a url is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// No entry has its scheme, host and port.
    #[error("{0} is not granted")]
    Origin(String),
    /// An entry has its origin, and none its path.
    #[error("this path of {0} is not granted")]
    Path(String),
    /// An entry has its path as it stands, and a server could take it for another.
    #[error(
        "this path of {0} has an encoded dot, slash or percent sign, which a server could take for another path"
    )]
    Ambiguous(String),
}

/// The first entry that grants a url.
///
/// # Errors
/// Why none does.
pub fn granted<'g>(grants: &'g [HttpGrant], url: &HttpUrl) -> Result<&'g HttpGrant, NotGranted> {
    let mut refusal = NotGranted::Origin(url.origin());
    for grant in grants.iter().filter(|grant| grant.has_origin_of(url)) {
        if !grant.path.has(&url.path) {
            refusal = NotGranted::Path(url.origin());
        } else if grant.path != GrantedPath::Any && is_ambiguous(&url.path) {
            refusal = NotGranted::Ambiguous(url.origin());
        } else {
            return Ok(grant);
        }
    }
    Err(refusal)
}

impl HttpGrant {
    /// Reads an entry.
    ///
    /// # Errors
    /// The reason why the text is none.
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        Self::read(&Redacted::plain(text))
    }

    fn read(text: &Redacted) -> Result<Self, GrantError> {
        let written = text.expose();
        let (scheme, rest) = written.split_once("://").unwrap_or((written, ""));
        if !["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(GrantError::new(HttpUrlError::SCHEME.to_string(), "write it as https://example.com"));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (below, authority) = match authority.strip_prefix(BELOW) {
            Some(rest) => (true, rest),
            None => (false, authority),
        };
        if authority.contains('*') {
            let hint = "`*` stands for the first part of a host: https://*.example.com";
            return Err(GrantError::new("has a `*` in the wrong place of its host", hint));
        }
        let url = HttpUrl::parse(&format!("{scheme}://{authority}")).map_err(GrantError::bare)?;
        let host = match url.host {
            HttpHost::Name(name) if below && !name.contains('.') => {
                let hint = "name at least two parts behind it: https://*.example.com";
                return Err(GrantError::new(
                    "has a `*` directly below a name of one part, which all share",
                    hint,
                ));
            }
            HttpHost::Name(name) if below => GrantedHost::Below(format!(".{name}")),
            HttpHost::Address(_) if below => {
                return Err(GrantError::new("has a `*` before an address", "name the address alone"));
            }
            HttpHost::Address(address) if !is_written_so(authority, address) => {
                let hint = format!("write the address as {}", HttpHost::Address(address));
                return Err(GrantError::new("has an address in a form that few would read as one", hint));
            }
            host => GrantedHost::This(host),
        };
        if !url.is_tls && !matches!(host, GrantedHost::This(HttpHost::Address(_))) {
            let hint = "http:// is only for an address, such as http://127.0.0.1:9000";
            return Err(GrantError::new("must start with https://, since it has a name", hint));
        }
        let path = GrantedPath::parse(path)?;
        Ok(Self { is_tls: url.is_tls, host, port: url.port, path, text: text.clone() })
    }

    /// Whether the entry names an address: then that address may be reached, whatever it is.
    pub fn names_an_address(&self) -> bool {
        matches!(self.host, GrantedHost::This(HttpHost::Address(_)))
    }

    fn has_origin_of(&self, url: &HttpUrl) -> bool {
        let has_host = match (&self.host, &url.host) {
            (GrantedHost::This(host), asked) => host == asked,
            (GrantedHost::Below(end), HttpHost::Name(name)) => name.len() > end.len() && name.ends_with(end),
            (GrantedHost::Below(_), HttpHost::Address(_)) => false,
        };
        has_host && self.is_tls == url.is_tls && self.port == url.port
    }
}

impl GrantedPath {
    fn parse(path: &str) -> Result<Self, GrantError> {
        if path.is_empty() || path == "/*" {
            return Ok(Self::Any);
        }
        if path.contains(['?', '#']) {
            return Err(GrantError::new(
                "has a query or a fragment",
                "every query of a path is granted with it",
            ));
        }
        if path == "/" {
            let hint = "leave the `/` out to grant every path, or name one";
            return Err(GrantError::new("ends in a lone `/`", hint));
        }
        let (start, below) = match path.strip_suffix('*') {
            Some(start) => (start, true),
            None => (path, false),
        };
        if start.contains('*') {
            let hint = "`*` stands for the end of a path: https://example.com/v1/*";
            return Err(GrantError::new("has a `*` in the wrong place of its path", hint));
        }
        let read = HttpUrl::parse(&format!("https://h{start}")).map_err(GrantError::bare)?;
        if read.path != start || start.contains('%') {
            let hint = "write it without `%`, `.` and `..`, as it is sent";
            return Err(GrantError::new("has a path that is not in its plain form", hint));
        }
        Ok(if below { Self::Below(start.to_owned()) } else { Self::This(start.to_owned()) })
    }

    fn has(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::This(only) => path == only,
            Self::Below(start) => path.starts_with(start.as_str()),
        }
    }
}

/// Whether a server could take a path for another: one that decodes dots, slashes and backslashes before it
/// looks at the segments, decodes twice, or cuts off what follows a `;`.
fn is_ambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    ["%2e", "%2f", "%5c", "%25", "%00"].iter().any(|code| lower.contains(code))
        || path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

/// Whether an address is written in its usual form, as `127.0.0.1` and not as `127.1`.
fn is_written_so(authority: &str, address: IpAddr) -> bool {
    let host = match address {
        IpAddr::V4(_) => authority.split(':').next().unwrap_or_default(),
        IpAddr::V6(_) => authority.split(']').next().unwrap_or_default().trim_start_matches('['),
    };
    match address {
        IpAddr::V4(address) => host == address.to_string(),
        // Its text has many forms, and all are plain.
        IpAddr::V6(address) => host.parse::<Ipv6Addr>() == Ok(address),
    }
}

impl GrantError {
    fn new(says: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { says: says.into(), hint: Some(hint.into()) }
    }

    fn bare(error: HttpUrlError) -> Self {
        Self { says: error.to_string(), hint: None }
    }

    /// What to do about the error, where that is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.says)
    }
}

impl std::error::Error for GrantError {}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Debug for HttpGrant {
    /// As it was written, without what came from `${}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// An entry of `allow`.
pub(super) struct Granted;

impl Element for Granted {
    type Value = HttpGrant;

    fn of(reader: &mut TableReader<'_, '_>, key: &str, text: EndpointText, at: &Span) -> Option<HttpGrant> {
        let grant = HttpGrant::read(text.known());
        if let Err(error) = &grant {
            let message = format!("the entry \"{text}\" of `{key}` {error}");
            match error.hint() {
                Some(hint) => reader.report.error_with_hint(at, message, hint),
                None => reader.report.error(at, message),
            }
        }
        grant.ok()
    }

    fn show(value: &HttpGrant) -> String {
        format!("\"{value}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(entries: &[&str]) -> Vec<HttpGrant> {
        let parse = |entry: &&str| HttpGrant::parse(entry).unwrap_or_else(|error| panic!("{entry} {error}"));
        entries.iter().map(parse).collect()
    }

    #[track_caller]
    fn allows(entry: &str, url: &str) -> bool {
        let url = HttpUrl::parse(url).unwrap_or_else(|error| panic!("{url} {error}"));
        granted(&grants(&[entry]), &url).is_ok()
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let entry = "https://API.example.com";
        for same in
            ["https://api.example.com", "https://API.Example.com:443/a/b?c", "HTTPS://api.example.com/"]
        {
            assert!(allows(entry, same), "{same}");
        }
        for other in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://example.com/",
            "https://x.api.example.com/",
            "https://api.example.com.evil.example/",
            "https://apixexample.com/",
            "https://evil.example/https://api.example.com",
            "https://93.184.216.34/",
        ] {
            assert!(!allows(entry, other), "{other}");
        }
        assert!(allows("https://a.example:8443", "https://a.example:8443/x"));
        assert!(!allows("https://a.example:8443", "https://a.example/x"));
        assert!(!allows("https://a.example:443", "http://a.example:443/x"), "plain HTTP at the port of TLS");
        assert!(granted(&[], &HttpUrl::parse("https://a/").unwrap()).is_err());
    }

    #[test]
    fn a_star_stands_for_names_below_and_never_for_an_address() {
        let below = "https://*.example.com";
        assert!(allows(below, "https://a.example.com/") && allows(below, "https://b.a.EXAMPLE.com/"));
        for other in
            ["https://example.com/", "https://evilexample.com/", "https://a.example.com.evil.example/"]
        {
            assert!(!allows(below, other), "{other}");
        }
        assert!(!allows("https://*.0.0.1.example", "https://127.0.0.1/"));
    }

    #[test]
    fn an_address_is_granted_by_its_number_however_it_was_asked_for() {
        for same in ["http://127.0.0.1:9000/x", "http://127.1:9000", "http://2130706433:9000"] {
            assert!(allows("http://127.0.0.1:9000", same), "{same}");
        }
        assert!(!allows("http://127.0.0.1:9000", "http://127.0.0.1/"), "another port");
        assert!(!allows("http://127.0.0.1:9000", "http://127.0.0.2:9000/"));
        assert!(!allows("http://127.0.0.1:9000", "http://[::ffff:127.0.0.1]:9000/"), "another address");
        assert!(allows("http://[::1]:9000", "http://[0:0::0001]:9000/"));
        assert!(grants(&["http://[::1]"])[0].names_an_address());
        assert!(!grants(&["https://localhost"])[0].names_an_address());
    }

    #[test]
    fn a_path_is_granted_alone_or_with_what_is_below() {
        assert!(
            allows("https://a/v1/*", "https://a/v1/") && allows("https://a/v1/*", "https://a/v1/x/y?z=..")
        );
        assert!(allows("https://a/v1", "https://a/v1?x"));
        assert!(allows("https://a/*", "https://a/x%2fy"), "every path is granted: none can be mistaken");
        for (entry, url) in [
            ("https://a/v1/*", "https://a/v1"),
            ("https://a/v1/*", "https://a/V1/x"),
            ("https://a/v1/*", "https://a/v2"),
            ("https://a/v1/*", "https://a/v1/../admin"),
            ("https://a/v1/*", "https://a/v1/%2e%2e/admin"),
            ("https://a/v1/*", "https://a/v1/..%2fadmin"),
            ("https://a/v1/*", "https://a/v1/%2e%2E%2Fadmin"),
            ("https://a/v1/*", "https://a/v1/..%5cadmin"),
            ("https://a/v1/*", "https://a/v1/%252e%252e%252fadmin"),
            ("https://a/v1/*", "https://a/v1/..;/admin"),
            ("https://a/v1/*", "https://a/v1/.;x=1/..;y/admin"),
            ("https://a/v1/*", "https://a/v1/x%00"),
            ("https://a/v1", "https://a/v1/"),
            ("https://a/v1", "https://a/v1/x"),
        ] {
            assert!(!allows(entry, url), "{entry} {url}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_not_granted() {
        let refused = |entry: &str, url: &str| {
            granted(&grants(&[entry]), &HttpUrl::parse(url).unwrap()).unwrap_err().to_string()
        };
        assert_eq!(refused("https://a", "https://b:81/s3cr3t"), "https://b:81 is not granted");
        assert_eq!(refused("https://a/v1", "https://a/s3cr3t"), "this path of https://a is not granted");
        assert!(
            refused("https://a/v1/*", "https://a/v1/..%2f")
                .starts_with("this path of https://a has an encoded")
        );
    }

    #[test]
    fn what_is_no_entry_is_told_why() {
        for (entry, says) in [
            ("api.example.com", "must start with https:// or http://"),
            ("ftp://a", "must start with https:// or http://"),
            ("*", "must start with https:// or http://"),
            ("https://", "names no host"),
            ("https://*", "has a `*` in the wrong place of its host"),
            ("https://a.*.example", "has a `*` in the wrong place of its host"),
            ("https://*a.example", "has a `*` in the wrong place of its host"),
            ("https://*.*.example", "has a `*` in the wrong place of its host"),
            ("https://*.127.0.0.1", "has a `*` before an address"),
            ("https://*.com", "has a `*` directly below a name of one part, which all share"),
            ("https://*.com/x/*", "has a `*` directly below a name of one part, which all share"),
            ("https://a:*", "has a `*` in the wrong place of its host"),
            ("http://example.com", "must start with https://, since it has a name"),
            ("http://localhost:9000", "must start with https://, since it has a name"),
            ("http://*.example.com", "must start with https://, since it has a name"),
            ("http://127.1", "has an address in a form that few would read as one"),
            ("http://2130706433", "has an address in a form that few would read as one"),
            ("https://me:pw@a", "must have no user and no password"),
            ("https://bücher.example", "must be plain ASCII without spaces"),
            ("https://a.", "has a host that ends in a dot"),
            ("https://a/", "ends in a lone `/`"),
            ("https://a/v1?x", "has a query or a fragment"),
            ("https://a/*/x", "has a `*` in the wrong place of its path"),
            ("https://a/**", "has a `*` in the wrong place of its path"),
            ("https://a/x/../y", "has a path that is not in its plain form"),
            ("https://a/%2e%2e/y", "has a path that is not in its plain form"),
            ("https://a/x y", "must be plain ASCII without spaces"),
            ("https://a:0", "has a port that is none"),
        ] {
            assert_eq!(HttpGrant::parse(entry).expect_err(entry).to_string(), says, "{entry}");
        }
    }
}
