//! The credentials that a server endpoint asks for. None of them is ever shown.

use super::form::{Element, List, Map, MapEntry};
use super::from_handshake::FromHandshake;
use super::names::is_token;
use super::read::TableReader;
use super::redacted::HIDDEN;
use super::report::Span;
use super::{EndpointText, Redacted};

table! {
    /// The credentials of a server endpoint: a peer that shows one of them may connect.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Auth / AuthAt {
        /// Whoever shows one of these tokens is let in.
        bearer: Vec<EndpointText> = key(List<Token>, settled());
        /// A token may stand in these places: "header", "query:NAME", "cookie:NAME", "subprotocol".
        bearer_from: Vec<BearerFrom> = key(List<BearerFrom>, default(vec![BearerFrom::Header]));
        /// Whoever shows one of these users with its password is let in.
        basic: Vec<(String, EndpointText)> = key(Map<Password>, settled());
    }
    later ["forward", "jwt"];
    check check_auth;
}

/// A place of the handshake where a token may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BearerFrom {
    /// `Authorization: Bearer` (RFC 6750).
    Header,
    /// The value of this name in the query of the url.
    Query(String),
    /// The cookie of this name.
    Cookie(String),
    /// The subprotocol that is offered after `bearer`.
    Subprotocol,
}

impl Auth {
    /// Makes credentials that let in a peer with one of these tokens in its `Authorization` header.
    pub fn bearer(tokens: impl IntoIterator<Item = String>) -> Self {
        let bearer = tokens.into_iter().map(|token| Redacted::new(token, HIDDEN).into()).collect();
        Self { bearer, bearer_from: vec![BearerFrom::Header], basic: Vec::new() }
    }

    /// Whether a part of the handshake has a credential, which metadata would show.
    pub fn is_in(&self, from: &FromHandshake) -> bool {
        match from {
            FromHandshake::Header(name) => {
                let is_offer = name.eq_ignore_ascii_case("sec-websocket-protocol");
                let is_cookie = name.eq_ignore_ascii_case("cookie");
                name.eq_ignore_ascii_case("authorization")
                    || self.bearer_from.iter().any(|place| match place {
                        BearerFrom::Subprotocol => is_offer,
                        BearerFrom::Cookie(_) => is_cookie,
                        BearerFrom::Header | BearerFrom::Query(_) => false,
                    })
            }
            FromHandshake::Query(name) => self.bearer_from.contains(&BearerFrom::Query(name.clone())),
            FromHandshake::Cookie(name) => self.bearer_from.contains(&BearerFrom::Cookie(name.clone())),
            _ => false,
        }
    }
}

fn check_auth(auth: &mut Auth, at: &AuthAt, reader: &mut TableReader<'_, '_>) {
    let places = at.bearer.iter().flat_map(|at| &at.each);
    for (token, at) in auth.bearer.iter().zip(places) {
        let (known, is_in_file) = (token.known().expose(), token.has_files());
        if auth.bearer_from.contains(&BearerFrom::Subprotocol) && !known.trim().is_empty() && !is_token(known)
        {
            let message = "this token cannot be offered as a subprotocol";
            reader.report.error_with_hint(at, message, "use letters, digits, `-`, `_` and `.` alone");
        } else if known.trim().is_empty() && !is_in_file {
            reader.report.error(at, "`bearer` has an empty token");
        }
    }
    match &at.bearer_from {
        Some(places) if auth.bearer.is_empty() => {
            reader.report.error(&places.whole, "`bearer_from` without a token in `bearer`");
        }
        Some(places) if places.written == 0 => {
            reader.report.error(&places.whole, "`bearer_from` is empty: no token could be found");
        }
        _ if auth.bearer.is_empty() && auth.basic.is_empty() => {
            let hint = "bearer = [\"${TOKEN}\"], or basic = { user = \"${PASSWORD}\" }";
            reader.report.error_with_hint(&at.header, "`auth` lets nobody in", hint);
        }
        _ => {}
    }
}

/// A token that lets in.
pub(super) struct Token;

impl Element for Token {
    type Value = EndpointText;
    const TAKES_FILES: bool = true;

    fn of(_: &mut TableReader<'_, '_>, _: &str, text: EndpointText, _: &Span) -> Option<EndpointText> {
        Some(text.hidden())
    }

    fn show(_: &EndpointText) -> String {
        HIDDEN.to_owned()
    }
}

/// The password of a user.
pub(super) struct Password;

impl MapEntry for Password {
    type Value = EndpointText;
    const TAKES_FILES: bool = true;

    fn of(
        reader: &mut TableReader<'_, '_>,
        user: &str,
        password: EndpointText,
        at: &Span,
    ) -> Option<EndpointText> {
        if user.contains(':') || user.contains(char::is_control) {
            let message = "a user of `basic` has no colon and no control characters in its name";
            reader.report.error(at, message);
        } else if password.known().expose().is_empty() && !password.has_files() {
            reader.report.error(at, format!("the password of `{user}` is empty"));
        }
        Some(password.hidden())
    }
}

impl Element for BearerFrom {
    type Value = Self;

    fn of(reader: &mut TableReader<'_, '_>, key: &str, text: EndpointText, at: &Span) -> Option<Self> {
        let place = match text.known().expose() {
            "header" => Some(Self::Header),
            "subprotocol" => Some(Self::Subprotocol),
            other => match other.split_once(':').filter(|(_, name)| !name.is_empty()) {
                Some(("query", name)) => Some(Self::Query(name.to_owned())),
                Some(("cookie", name)) => Some(Self::Cookie(name.to_owned())),
                _ => None,
            },
        };
        if place.is_none() {
            reader.report.error_with_hint(
                at,
                format!("`{key}` must say where a token stands, got \"{text}\""),
                "\"header\", \"query:NAME\", \"cookie:NAME\" or \"subprotocol\"",
            );
        }
        place
    }

    fn show(value: &Self) -> String {
        match value {
            Self::Header => "\"header\"".to_owned(),
            Self::Query(name) => format!("\"query:{name}\""),
            Self::Cookie(name) => format!("\"cookie:{name}\""),
            Self::Subprotocol => "\"subprotocol\"".to_owned(),
        }
    }
}
