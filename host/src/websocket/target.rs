//! What a `ws://` or `wss://` url says: where to dial, whether with TLS, and what to ask for.

use crate::config::{EndpointText, Redacted, without_user_info};
use hyper::Uri;

/// The parts of a url that dialling needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) is_tls: bool,
    /// A name or an address, IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The `Host` header: with the port where it is not the scheme's.
    pub(super) authority: String,
    /// Path and query, as asked for.
    pub(super) path: String,
    /// `user:password`, as the url has it.
    pub(super) user_info: Option<String>,
}

impl Target {
    /// Host and port, as CONNECT names them.
    pub(super) fn address(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// # Errors
    /// A sentence that says what is wrong with the url.
    pub(super) fn parse(url: &Redacted) -> Result<Self, String> {
        let invalid = |why: &str| format!("{why}, got: {}", without_user_info(url.shown(), ""));
        let uri: Uri = url.expose().parse().map_err(|_| invalid("websocket url is not valid"))?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(invalid("websocket url must start with ws:// or wss://")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| invalid("websocket url has no host"))?;
        let default_port = if is_tls { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let user_info = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@'));
        Ok(Self {
            is_tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: if port == default_port { host.to_owned() } else { format!("{host}:{port}") },
            path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            user_info: user_info.map(|(user_info, _)| user_info.to_owned()),
        })
    }
}

/// Whether a url can be dialled.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_url(url: &str) -> Result<(), String> {
    Target::parse(&Redacted::plain(url)).map(drop)
}

/// A url as it may be shown: what came from the environment and the user info are left out.
pub fn shown(url: &EndpointText) -> String {
    without_user_info(url.shown(), "")
}

/// Where a redirect leads, without what it may repeat of the url's secrets: never its query, and no path if
/// the url hides something.
pub(super) fn shown_location(location: &str, url: &EndpointText) -> String {
    let location = without_user_info(location, "");
    let (head, query) = location.split_at(location.find(['?', '#']).unwrap_or(location.len()));
    let host_end = head.find("://").map_or(0, |scheme| {
        let host = scheme + 3;
        head[host..].find('/').map_or(head.len(), |path| host + path)
    });
    let kept = if url.is_open() { head } else { &head[..host_end] };
    let is_cut = kept.len() < head.len() || !query.is_empty();
    format!("{kept}{}", if is_cut { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, String> {
        Target::parse(&Redacted::plain(url))
    }

    #[test]
    fn ports_and_hosts_follow_the_scheme() {
        let plain = parse("ws://example.com/a?b=c").expect("valid");
        assert_eq!((plain.port, &*plain.authority, &*plain.path), (80, "example.com", "/a?b=c"));
        let tls = parse("wss://[::1]:9443").expect("valid");
        assert_eq!((&*tls.host, tls.port, &*tls.authority, &*tls.path), ("::1", 9443, "[::1]:9443", "/"));
    }

    #[test]
    fn other_schemes_are_refused_by_name() {
        let error = parse("http://example.com/").expect_err("not a websocket url");
        assert_eq!(error, "websocket url must start with ws:// or wss://, got: http://example.com/");
    }

    #[test]
    fn a_redirect_repeats_no_secret() {
        let (plain, secret) = (
            "ws://a/b".into(),
            EndpointText::from(Redacted::new("ws://a/s3cr3t?k=s3cr3t", "ws://a/***?k=***")),
        );
        assert_eq!(shown_location("wss://me:pw@c/d?e=f", &plain), "wss://c/d...");
        assert_eq!(shown_location("wss://c/d", &plain), "wss://c/d");
        assert_eq!(shown_location("wss://c/s3cr3t?k=s3cr3t", &secret), "wss://c...");
        assert_eq!(shown_location("/s3cr3t", &secret), "...");
    }

    #[test]
    fn user_info_is_used_and_never_shown() {
        let url = Redacted::plain("ws://me:secret@example.com:81/x@y");
        assert_eq!(shown(&url.clone().into()), "ws://example.com:81/x@y");
        assert_eq!(Target::parse(&url).expect("valid").user_info.as_deref(), Some("me:secret"));
    }
}
