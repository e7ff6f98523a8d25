//! The `ws://` and `wss://` urls of endpoints that dial: the one reader of them, for the check of a
//! configuration and for each dial.
//!
//! A url is read as the WHATWG URL Standard says, which browsers follow: schemes in any case, host
//! names beyond ASCII as punycode, other text percent-encoded. A url that is read can be dialled.

use std::fmt;
use url::{Host, ParseError, Url};

/// Most bytes of a host name, and of one of its labels (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// The parts of a url that dialling needs.
#[derive(Clone, PartialEq, Eq)]
pub struct WebSocketUrl {
    /// Whether it is a `wss://` url.
    pub is_tls: bool,
    /// A name in ASCII, or an address; IPv6 without brackets.
    pub host: String,
    /// The port; the scheme's where the url has none.
    pub port: u16,
    /// The `Host` header: with the port where it is not the scheme's.
    pub authority: String,
    /// Path and query, percent-encoded.
    pub path: String,
    /// `user:password`, percent-encoded.
    pub user_info: Option<String>,
}

/// The reason why a text is no url that can be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlError {
    /// Follows "websocket url ", and is followed by ": " and the url.
    says: &'static str,
    hint: Option<&'static str>,
}

impl UrlError {
    const SCHEME: Self = Self { says: "must start with ws:// or wss://, got", hint: None };
    const NO_HOST: Self = Self { says: "names no host", hint: None };
    const HOST: Self = Self { says: "has a host that is neither a name nor an address", hint: None };
    const PORT: Self = Self { says: "has a port that is none", hint: None };
    const SPACES: Self = Self { says: "must have no spaces", hint: None };
    const FRAGMENT: Self = Self { says: "must have no fragment", hint: Some("write `#` as `%23`") };

    /// What is wrong, in a sentence; `shown` is the url as it may be shown.
    pub fn of(&self, shown: impl fmt::Display) -> String {
        format!("websocket url {}: {shown}", self.says)
    }

    /// What to do about the error, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        self.hint
    }
}

impl WebSocketUrl {
    /// Reads a url.
    ///
    /// # Errors
    /// The reason why the text cannot be dialled.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let starts = |scheme: &&str| text.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
        let scheme = ["ws://", "wss://"].into_iter().find(starts).ok_or(UrlError::SCHEME)?;
        let rest = &text[scheme.len()..];
        if rest.is_empty() || rest.starts_with(['/', '\\']) {
            // The standard would take what follows the slashes for the host.
            return Err(UrlError::NO_HOST);
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(UrlError::SPACES);
        }
        if rest.contains('#') {
            return Err(UrlError::FRAGMENT);
        }
        let url = Url::parse(text).map_err(|error| match error {
            ParseError::EmptyHost => UrlError::NO_HOST,
            // Of `ws://me:pass/word@example.com`, the port would be `pass`.
            ParseError::InvalidPort if rest.contains('@') => UrlError {
                hint: Some("write `/`, `?` and `\\` in a password as `%2F`, `%3F` and `%5C`"),
                ..UrlError::PORT
            },
            ParseError::InvalidPort => UrlError::PORT,
            _ => UrlError::HOST,
        })?;
        let is_tls = url.scheme() == "wss";
        let host = match url.host().ok_or(UrlError::NO_HOST)? {
            Host::Domain(name) if is_name(name) => name.to_owned(),
            Host::Domain(_) => return Err(UrlError::HOST),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(UrlError::PORT)?;
        let shown_host = url.host_str().unwrap_or_default();
        let authority = match url.port() {
            Some(port) => format!("{shown_host}:{port}"),
            None => shown_host.to_owned(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let (user, password) = (url.username(), url.password().unwrap_or_default());
        let has_user_info = !user.is_empty() || !password.is_empty();
        let user_info = has_user_info.then(|| format!("{user}:{password}"));
        Ok(Self { is_tls, host, port, authority, path, user_info })
    }

    /// Host and port, as CONNECT names them.
    pub fn address(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Debug for WebSocketUrl {
    /// Without user, password, path and query, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebSocketUrl").field(&self.address()).finish()
    }
}

/// Whether a resolver can be asked for a name.
pub(super) fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && name.split('.').all(|label| !label.is_empty() && label.len() <= MAX_LABEL_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Uri;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    fn parse(url: &str) -> WebSocketUrl {
        WebSocketUrl::parse(url).unwrap_or_else(|error| panic!("{}", error.of(url)))
    }

    #[test]
    fn ports_and_hosts_follow_the_scheme_in_any_case() {
        let plain = parse("WS://Example.com/a?b=c");
        assert_eq!((plain.is_tls, plain.port, &*plain.authority), (false, 80, "example.com"));
        assert_eq!((&*plain.path, &*plain.address()), ("/a?b=c", "example.com:80"));
        let tls = parse("Wss://[::1]:9443");
        assert_eq!((tls.is_tls, &*tls.host, tls.port), (true, "::1", 9443));
        assert_eq!((&*tls.authority, &*tls.path, &*tls.address()), ("[::1]:9443", "/", "[::1]:9443"));
        assert_eq!(parse("wss://example.com:443/").authority, "example.com");
        assert_eq!(parse("ws://example.com?a=b").path, "/?a=b");
        assert_eq!(parse("ws://under_score.local./").host, "under_score.local.");
    }

    #[test]
    fn what_is_not_ascii_is_encoded() {
        let url = parse("wss://bücher.example/größe/{id}|x?q=ä^b&\"c\"");
        assert_eq!((&*url.host, &*url.authority), ("xn--bcher-kva.example", "xn--bcher-kva.example"));
        assert_eq!(url.path, "/gr%C3%B6%C3%9Fe/%7Bid%7D|x?q=%C3%A4^b&%22c%22");
        assert_eq!(parse("ws://h/%2e%2Fa%zz").path, "/%2e%2Fa%zz", "what is encoded stays");
    }

    #[test]
    fn user_info_may_have_any_character_and_is_never_shown() {
        let decoded = |url: &str| {
            let user_info = parse(url).user_info.expect("it has one");
            percent_encoding::percent_decode_str(&user_info).decode_utf8().expect("text").into_owned()
        };
        assert_eq!(decoded("ws://me:p^w|{}\"<>`@host/"), "me:p^w|{}\"<>`");
        assert_eq!(decoded("ws://me:p@ss%2Fword@host/x@y"), "me:p@ss/word");
        assert_eq!(decoded("ws://mé:ü@host"), "mé:ü");
        assert_eq!(decoded("ws://me@host"), "me:");
        assert_eq!(parse("ws://@host").user_info, None);
        assert_eq!(format!("{:?}", parse("ws://me:s3cr3t@host/s3cr3t")), "WebSocketUrl(\"host:80\")");
    }

    #[test]
    fn what_cannot_be_dialled_is_told_why() {
        let long = format!("ws://{}.example/", "a".repeat(64));
        let cases = [
            ("http://example.com/", UrlError::SCHEME),
            ("example.com", UrlError::SCHEME),
            ("ws:/example.com", UrlError::SCHEME),
            ("", UrlError::SCHEME),
            ("wss://", UrlError::NO_HOST),
            ("ws:///path", UrlError::NO_HOST),
            ("ws://?x", UrlError::NO_HOST),
            ("ws://:80/", UrlError::NO_HOST),
            ("ws://me@/", UrlError::NO_HOST),
            ("ws://[::1", UrlError::HOST),
            ("ws://[::g]/", UrlError::HOST),
            ("ws://::1/", UrlError::NO_HOST),
            ("ws://a\"b/", UrlError::HOST),
            ("ws://a..b/", UrlError::HOST),
            ("ws://a%00b/", UrlError::HOST),
            ("ws://300.1.1.1/", UrlError::HOST),
            (&long, UrlError::HOST),
            ("ws://h:99999/", UrlError::PORT),
            ("ws://h:0/", UrlError::PORT),
            ("ws://h:x/", UrlError::PORT),
            ("ws://h/a b", UrlError::SPACES),
            ("ws://h/a\n", UrlError::SPACES),
            ("ws://h/#a", UrlError::FRAGMENT),
        ];
        for (url, expected) in cases {
            assert_eq!(WebSocketUrl::parse(url), Err(expected), "{url}");
        }
        let error = WebSocketUrl::parse("ws://me:pa/ss@host").expect_err("no port");
        assert!(error.hint().is_some_and(|hint| hint.contains("%2F")), "{error:?}");
        let message = UrlError::SCHEME.of("http://a/");
        assert_eq!(message, "websocket url must start with ws:// or wss://, got: http://a/");
    }

    proptest! {
        /// What the check lets pass, the dial can put into a request.
        #[test]
        fn what_is_read_can_be_asked_for(rest in ".{1,40}", tail in "[ -~]{0,40}") {
            for text in [format!("ws://{rest}"), format!("wss://me:{rest}@host/{tail}"), format!("ws://h/{rest}?{tail}")] {
                let Ok(url) = WebSocketUrl::parse(&text) else { continue };
                prop_assert!(url.path.parse::<Uri>().is_ok(), "{text} asks for {}", url.path);
                prop_assert!(HeaderValue::try_from(&url.authority).is_ok(), "{text}");
                prop_assert!(format!("http://{}/", url.authority).parse::<Uri>().is_ok(), "{text}");
                prop_assert!(url.address().parse::<Uri>().is_ok(), "{text}");
            }
        }
    }
}
