//! What a peer's handshake said: where metadata and credentials are taken from.
//!
//! It is kept while the connection lives, since endpoints that come later take from it as well; in few
//! pieces, since there may be many idle connections.

use crate::config::{FromHandshake, PathPattern};
use crate::websocket::tls::PeerCertificate;
use hyper::header::{self, HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The request of a peer that was let in, or asks to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    path: Box<str>,
    query: Option<Box<str>>,
    /// `name: value` lines; bytes that are not UTF-8 are replaced.
    head: Box<str>,
    /// The headers in which some are: what they say is not known, so nothing is taken from them.
    unreadable: Box<[HeaderName]>,
    user: Option<Box<str>>,
    certificate: Option<PeerCertificate>,
}

impl Handshake {
    pub(super) fn new(uri: &hyper::Uri, headers: &HeaderMap, certificate: Option<PeerCertificate>) -> Self {
        let (mut head, mut unreadable) = (String::new(), Vec::new());
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            head.extend([name.as_str(), ": ", &value, "\n"]);
            if matches!(value, Cow::Owned(_)) {
                unreadable.push(name.clone());
            }
        }
        Self {
            path: uri.path().into(),
            query: uri.query().map(Into::into),
            head: head.into(),
            unreadable: unreadable.into(),
            user: None,
            certificate,
        }
    }

    pub(super) fn with_user(self, user: Option<String>) -> Self {
        Self { user: user.map(Into::into), ..self }
    }

    /// The path as it was asked for, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The values of a header, in order.
    pub(super) fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// A value of the query, the first of its name. What is not UTF-8 is as good as absent.
    pub(super) fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.query.as_deref()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = pairs.filter(|(known, _)| percent_decode_str(known).eq(name.bytes()));
        values.next().and_then(|(_, value)| percent_decode_str(value).decode_utf8().ok())
    }

    /// A cookie, the first of its name (RFC 6265, section 5.4).
    pub(super) fn cookie<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let cookies = self.headers("cookie").flat_map(|value| value.split(';'));
        let mut cookies = cookies.filter_map(|cookie| cookie.trim().split_once('='));
        let (_, value) = cookies.find(|(known, _)| *known == name)?;
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        Some(unquoted.unwrap_or(value))
    }

    /// Whether a header that metadata is taken from is UTF-8, or is none.
    pub(super) fn is_readable(&self, from: &FromHandshake) -> bool {
        match from {
            FromHandshake::Header(name) => {
                !self.unreadable.iter().any(|known| known.as_str().eq_ignore_ascii_case(name))
            }
            FromHandshake::Cookie(_) => !self.unreadable.contains(&header::COOKIE),
            _ => true,
        }
    }

    /// What metadata is given, for a connection to this path; `None` if the handshake does not say.
    pub(super) fn value<'a>(&'a self, from: &'a FromHandshake, path: &PathPattern) -> Option<Cow<'a, str>> {
        if !self.is_readable(from) {
            return None;
        }
        match from {
            FromHandshake::Path(name) => path.value(name, &self.path),
            FromHandshake::Query(name) => self.query(name),
            FromHandshake::Header(name) => {
                let values: Vec<_> = self.headers(name).collect();
                (!values.is_empty()).then(|| values.join(", ").into())
            }
            FromHandshake::Cookie(name) => self.cookie(name).map(Into::into),
            FromHandshake::User => self.user.as_deref().map(Into::into),
            FromHandshake::CommonName => self.certificate.as_ref()?.common_name.as_deref().map(Into::into),
            FromHandshake::AlternativeNames => {
                self.certificate.as_ref()?.alternative_names.as_deref().map(Into::into)
            }
            FromHandshake::Fingerprint => Some(Cow::Borrowed(&self.certificate.as_ref()?.fingerprint)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Redacted;
    use hyper::header::HeaderValue;

    fn handshake(uri: &str, headers: &[(&'static str, &'static str)]) -> Handshake {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Handshake::new(&uri.parse().expect("a path"), &headers.collect(), None)
    }

    #[test]
    fn what_a_handshake_says_is_found_and_what_it_does_not_say_is_absent() {
        let handshake = handshake(
            "/rooms/7?symbol=BTC%2FUSD&symbol=no&empty&bad=%ff&a+b=1+2",
            &[("x-user", "ann"), ("cookie", "sid=\"a=b\"; theme=dark")],
        );
        let path = PathPattern::parse(&Redacted::plain("/rooms/{room}")).expect("a path");
        let value = |from: FromHandshake| handshake.value(&from, &path).map(Cow::into_owned);
        let query = |name: &str| value(FromHandshake::Query(name.to_owned()));
        assert_eq!(value(FromHandshake::Path("room".to_owned())).as_deref(), Some("7"));
        assert_eq!(query("symbol").as_deref(), Some("BTC/USD"));
        assert_eq!(query("a+b").as_deref(), Some("1+2"));
        assert_eq!((query("empty").as_deref(), query("bad"), query("none")), (Some(""), None, None));
        assert_eq!(value(FromHandshake::Header("X-User".to_owned())).as_deref(), Some("ann"));
        assert_eq!(value(FromHandshake::Header("x-none".to_owned())), None);
        assert_eq!(value(FromHandshake::Cookie("sid".to_owned())).as_deref(), Some("a=b"));
        assert_eq!(value(FromHandshake::Cookie("theme".to_owned())).as_deref(), Some("dark"));
        assert_eq!(value(FromHandshake::Cookie("Sid".to_owned())), None);
        assert_eq!(value(FromHandshake::User), None);
    }

    #[test]
    fn nothing_is_taken_from_a_header_that_is_not_utf_8() {
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_bytes(b"caf\xe9").expect("opaque bytes are allowed"));
        headers.append("x-room", HeaderValue::from_bytes("café".as_bytes()).expect("so is UTF-8"));
        let handshake = Handshake::new(&"/".parse().expect("a path"), &headers, None);
        let path = PathPattern::parse(&Redacted::plain("/")).expect("a path");
        let [user, room] = ["X-User", "X-Room"].map(|name| FromHandshake::Header(name.to_owned()));
        assert!(!handshake.is_readable(&user) && handshake.is_readable(&room));
        assert_eq!(handshake.value(&user, &path), None);
        assert_eq!(handshake.value(&room, &path).as_deref(), Some("café"));
    }

    #[test]
    fn a_header_that_comes_more_than_once_is_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_static("a"));
        headers.append("x-user", HeaderValue::from_static("b"));
        let handshake = Handshake::new(&"/".parse().expect("a path"), &headers, None);
        let path = PathPattern::parse(&Redacted::plain("/")).expect("a path");
        let from = FromHandshake::Header("x-user".to_owned());
        assert_eq!(handshake.value(&from, &path).as_deref(), Some("a, b"));
    }
}
