//! Urls that are dialled, and as they are shown.

use crate::config::{EndpointText, Redacted, WebSocketUrl, without_user_info};

/// Reads a url that is to be dialled.
///
/// # Errors
/// A sentence that says what is wrong with the url.
pub(super) fn parse(url: &Redacted) -> Result<WebSocketUrl, String> {
    WebSocketUrl::parse(url.expose()).map_err(|error| error.of(without_user_info(url.shown(), "")))
}

/// Whether a url can be dialled.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_url(url: &str) -> Result<(), String> {
    parse(&Redacted::plain(url)).map(drop)
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

    #[test]
    fn other_schemes_are_refused_by_name() {
        let error = check_url("http://me:secret@example.com/").expect_err("not a websocket url");
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
        assert_eq!(parse(&url).expect("valid").user_info.as_deref(), Some("me:secret"));
    }
}
