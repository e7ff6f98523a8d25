//! The credentials that a server endpoint asks for. None of them is ever shown.

use super::endpoint::is_token;
use super::redacted::HIDDEN;
use super::report::Report;
use super::section::Section;
use super::{EndpointText, FromHandshake, Redacted};

/// Who may connect: whoever has one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Tokens.
    pub bearer: Vec<EndpointText>,
    /// Where a token may stand in the handshake.
    pub bearer_from: Vec<BearerFrom>,
    /// Users and their passwords, of basic authentication (RFC 7617).
    pub basic: Vec<(String, EndpointText)>,
}

/// Where a token may stand in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BearerFrom {
    /// `Authorization: Bearer` (RFC 6750).
    Header,
    /// A value of the query.
    Query(String),
    /// A cookie.
    Cookie(String),
    /// The subprotocol offered after `bearer`.
    Subprotocol,
}

impl Auth {
    /// One that lets in whoever has one of these tokens in a header.
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

pub(super) fn auth(report: &mut Report<'_>, section: &Section) -> Auth {
    let mut auth = Auth { bearer: Vec::new(), bearer_from: Vec::new(), basic: Vec::new() };
    for (place, at) in section.texts("bearer_from") {
        match bearer_from(place.known().expose()) {
            Some(place) => auth.bearer_from.push(place),
            None => report.error_with_hint(
                at,
                format!("`bearer_from` must say where a token stands, got \"{place}\""),
                "\"header\", \"query:NAME\", \"cookie:NAME\" or \"subprotocol\"",
            ),
        }
    }
    for (token, at) in section.texts("bearer") {
        let (known, is_in_file) = (token.known().expose(), token.has_files());
        if known.trim().is_empty() && !is_in_file {
            report.error(at, "`bearer` has an empty token");
        } else if auth.bearer_from.contains(&BearerFrom::Subprotocol)
            && !is_token(known)
            && !(known.is_empty() && is_in_file)
        {
            let message = "this token cannot be offered as a subprotocol";
            report.error_with_hint(at, message, "use letters, digits, `-`, `_` and `.` alone");
        }
        auth.bearer.push(token.hidden());
    }
    for (user, password, at) in section.map("basic") {
        if user.contains(':') || user.contains(char::is_control) {
            report.error(at, "a user of `basic` has no colon and no control characters in its name");
        } else if password.known().expose().is_empty() && !password.has_files() {
            report.error(at, format!("the password of `{user}` is empty"));
        }
        auth.basic.push((user.clone(), password.hidden()));
    }
    if !section.is_known {
        return auth;
    }
    if section.is_written("bearer_from")
        && (section.texts("bearer_from").is_empty() || auth.bearer.is_empty())
    {
        let message = if auth.bearer.is_empty() {
            "`bearer_from` without a token in `bearer`"
        } else {
            "`bearer_from` is empty: no token could be found"
        };
        report.error(&section.span("bearer_from"), message);
    } else if auth.bearer.is_empty() && auth.basic.is_empty() {
        let hint = "bearer = [\"${TOKEN}\"], or basic = { user = \"${PASSWORD}\" }";
        report.error_with_hint(&section.header, "`auth` lets nobody in", hint);
    }
    auth
}

fn bearer_from(text: &str) -> Option<BearerFrom> {
    match text {
        "header" => return Some(BearerFrom::Header),
        "subprotocol" => return Some(BearerFrom::Subprotocol),
        _ => {}
    }
    match text.split_once(':').filter(|(_, name)| !name.is_empty())? {
        ("query", name) => Some(BearerFrom::Query(name.to_owned())),
        ("cookie", name) => Some(BearerFrom::Cookie(name.to_owned())),
        _ => None,
    }
}
