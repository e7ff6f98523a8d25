//! The `https://` and `http://` urls that plugins ask for: the one reader of them, for requests and for where
//! redirects lead.
//!
//! A url is brought into the one form that it is compared in and sent in, as the WHATWG URL Standard says: lower
//! case, no `.` and `..` in its path, no port that the scheme has anyway. What two readers could take for two
//! things is refused: backslashes, user info, text beyond ASCII, a dot at the end of a host.

use super::url::is_name;
use std::fmt;
use std::net::IpAddr;
use url::{Host, ParseError, Url};

/// Longer urls are refused by many servers, and by us.
const MAX_URL_BYTES: usize = 8 << 10;

/// A url that a plugin may ask for if the configuration grants it.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// Whether it is `https`.
    pub is_tls: bool,
    /// Whom it names.
    pub host: HttpHost,
    /// The port; the scheme's where the url has none.
    pub port: u16,
    /// The path, percent-encoded, without `.` and `..`.
    pub path: String,
    /// The query, percent-encoded.
    pub query: Option<String>,
}

/// The host of a url.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpHost {
    /// A name, in lower case.
    Name(String),
    /// An address, which no resolver is asked for.
    Address(IpAddr),
}

/// The reason why a text is no url that a plugin may ask for; completes "the url ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HttpUrlError(&'static str);

impl HttpUrlError {
    pub(super) const ASCII: Self = Self("must be plain ASCII without spaces");
    pub(super) const SCHEME: Self = Self("must start with https:// or http://");
    pub(super) const NO_HOST: Self = Self("names no host");
    pub(super) const HOST: Self = Self("has a host that is neither a name nor an address");
    pub(super) const DOT: Self = Self("has a host that ends in a dot");
    pub(super) const PORT: Self = Self("has a port that is none");
    pub(super) const USER: Self = Self("must have no user and no password");
    pub(super) const BACKSLASH: Self = Self("must have no backslash");
    pub(super) const LONG: Self = Self("is longer than 8 KiB");
}

impl HttpUrl {
    /// Reads a url. Its fragment, which is never sent, is left out.
    ///
    /// # Errors
    /// The reason why the text is no url that can be asked for.
    pub fn parse(text: &str) -> Result<Self, HttpUrlError> {
        check_text(text)?;
        let starts = |scheme: &&str| text.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
        let scheme = ["https://", "http://"].into_iter().find(starts).ok_or(HttpUrlError::SCHEME)?;
        let rest = &text[scheme.len()..];
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        if authority.contains('@') {
            return Err(HttpUrlError::USER);
        }
        if authority.is_empty() || authority.starts_with(':') {
            // The standard would take what follows the slashes for the host.
            return Err(HttpUrlError::NO_HOST);
        }
        if authority.contains('%') {
            return Err(HttpUrlError::HOST);
        }
        let url = Url::parse(text).map_err(|error| match error {
            ParseError::EmptyHost => HttpUrlError::NO_HOST,
            ParseError::InvalidPort => HttpUrlError::PORT,
            _ => HttpUrlError::HOST,
        })?;
        let host = match url.host().ok_or(HttpUrlError::NO_HOST)? {
            Host::Domain(name) if name.ends_with('.') => return Err(HttpUrlError::DOT),
            Host::Domain(name) if is_name(name) => HttpHost::Name(name.to_owned()),
            Host::Domain(_) => return Err(HttpUrlError::HOST),
            Host::Ipv4(address) => HttpHost::Address(address.into()),
            Host::Ipv6(address) => HttpHost::Address(address.into()),
        };
        Ok(Self {
            is_tls: url.scheme() == "https",
            host,
            port: url.port_or_known_default().filter(|port| *port != 0).ok_or(HttpUrlError::PORT)?,
            path: url.path().to_owned(),
            query: url.query().map(str::to_owned),
        })
    }

    /// Where a redirect of this url leads: `location` is absolute, or relative to it.
    ///
    /// # Errors
    /// The reason why it leads nowhere.
    pub fn join(&self, location: &str) -> Result<Self, HttpUrlError> {
        check_text(location)?;
        let base = format!("{}{}", self.origin(), self.path_and_query());
        let base = Url::parse(&base).expect("what was read is written as it is read");
        Self::parse(base.join(location).map_err(|_| HttpUrlError::HOST)?.as_str())
    }

    /// Scheme, host and port, as `https://example.com`.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }

    /// The `Host` header: with the port where it is not the scheme's.
    pub fn authority(&self) -> String {
        let port = if self.is_tls { 443 } else { 80 };
        if self.port == port { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The host as certificates have it: an address without brackets.
    pub fn host_name(&self) -> String {
        match &self.host {
            HttpHost::Name(name) => name.clone(),
            HttpHost::Address(address) => address.to_string(),
        }
    }

    /// What is asked for at the host.
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

/// What the standard would silently take away, or take for something else.
fn check_text(text: &str) -> Result<(), HttpUrlError> {
    if text.len() > MAX_URL_BYTES {
        return Err(HttpUrlError::LONG);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HttpUrlError::ASCII);
    }
    if text.contains('\\') {
        return Err(HttpUrlError::BACKSLASH);
    }
    Ok(())
}

impl fmt::Display for HttpHost {
    /// As a url has it: IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Debug for HttpUrl {
    /// Without path and query, which may be secrets of the plugin's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpUrl").field(&self.origin()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(url: &str) -> String {
        let url = HttpUrl::parse(url).unwrap_or_else(|error| panic!("{url} {error}"));
        format!("{}{}", url.origin(), url.path_and_query())
    }

    #[test]
    fn a_url_has_one_form() {
        for (written, expected) in [
            ("HTTPS://API.Example.COM:443", "https://api.example.com/"),
            ("https://api.example.com:8443/a?b=c#d", "https://api.example.com:8443/a?b=c"),
            ("https://a/x/../y/./%2e%2E/z", "https://a/z"),
            ("https://a/../../etc", "https://a/etc"),
            ("http://127.1:80/", "http://127.0.0.1/"),
            ("http://0x7f000001/", "http://127.0.0.1/"),
            ("http://[0:0::1]:9/", "http://[::1]:9/"),
            ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ] {
            assert_eq!(read(written), expected, "{written}");
        }
        assert_eq!(
            format!("{:?}", HttpUrl::parse("https://a/s3cr3t?s3cr3t").unwrap()),
            "HttpUrl(\"https://a\")"
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let long = format!("https://a/{}", "a".repeat(MAX_URL_BYTES));
        for (url, expected) in [
            ("ftp://a/", HttpUrlError::SCHEME),
            ("//a/", HttpUrlError::SCHEME),
            ("https:a", HttpUrlError::SCHEME),
            ("", HttpUrlError::SCHEME),
            ("https:///a", HttpUrlError::NO_HOST),
            ("https://:80/", HttpUrlError::NO_HOST),
            ("https://api.example.com@evil.example/", HttpUrlError::USER),
            ("https://me:pw@a/", HttpUrlError::USER),
            ("https://a\\@evil.example/", HttpUrlError::BACKSLASH),
            ("https://a/\\..\\x", HttpUrlError::BACKSLASH),
            ("https://bücher.example/", HttpUrlError::ASCII),
            ("https://b%C3%BCcher.example/", HttpUrlError::HOST),
            ("https://ex%61mple.com/", HttpUrlError::HOST),
            ("https://[fe80::1%25eth0]/", HttpUrlError::HOST),
            ("https://a b/", HttpUrlError::ASCII),
            (" https://a/", HttpUrlError::ASCII),
            ("https://a/\r\nHost: b", HttpUrlError::ASCII),
            ("https://a\t/", HttpUrlError::ASCII),
            ("https://example.com./", HttpUrlError::DOT),
            ("https://a..b/", HttpUrlError::HOST),
            ("https://300.1.1.1/", HttpUrlError::HOST),
            ("https://a:0/", HttpUrlError::PORT),
            ("https://a:99999/", HttpUrlError::PORT),
            (&long, HttpUrlError::LONG),
        ] {
            assert_eq!(HttpUrl::parse(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn a_redirect_leads_where_browsers_go() {
        let from = HttpUrl::parse("https://a.example:8443/x/y?z").unwrap();
        let led = |location: &str| {
            from.join(location).map(|url| format!("{}{}", url.origin(), url.path_and_query()))
        };
        assert_eq!(led("/b?c").unwrap(), "https://a.example:8443/b?c");
        assert_eq!(led("../b").unwrap(), "https://a.example:8443/b");
        assert_eq!(led("//B.example/c").unwrap(), "https://b.example/c");
        assert_eq!(led("http://127.0.0.1/").unwrap(), "http://127.0.0.1/");
        assert_eq!(led("file:///etc/passwd"), Err(HttpUrlError::SCHEME));
        assert_eq!(led("https://me@b/"), Err(HttpUrlError::USER));
        assert_eq!(led("\\\\b/"), Err(HttpUrlError::BACKSLASH));
        assert_eq!(led("/ü"), Err(HttpUrlError::ASCII));
    }

    proptest! {
        /// What was read is read again as the same: nobody behind us sees another host or path.
        #[test]
        fn what_is_read_stays_what_it_is(rest in "[!-~]{1,40}", tail in "[./%2eEfF\\?#a;]{0,30}") {
            for text in [format!("https://{rest}"), format!("http://h.example:81/{tail}"), format!("https://{rest}/{tail}")] {
                let Ok(url) = HttpUrl::parse(&text) else { continue };
                let written = format!("{}{}", url.origin(), url.path_and_query());
                prop_assert_eq!(HttpUrl::parse(&written), Ok(url.clone()), "{}", text);
                prop_assert!(url.path.split('/').all(|segment| segment != "." && segment != ".."), "{}", text);
            }
        }
    }
}
