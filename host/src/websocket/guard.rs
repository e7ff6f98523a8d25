//! Who may come in: credentials and origins, held against a handshake.
//!
//! Credentials are compared by their digests and always all of them, so that the time it takes tells
//! nothing about them, their length included.

use super::handshake::Handshake;
use crate::config::{AllowedOrigins, Auth, BearerFrom, Endpoint};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use subtle::{Choice, ConstantTimeEq as _};

/// The subprotocol after which a token may be offered, and which is answered then.
pub(super) const BEARER: &str = "bearer";

type Digest = [u8; 32];

/// What an endpoint asks of a handshake.
#[derive(Debug, Default)]
pub(super) struct Guard {
    origins: AllowedOrigins,
    credentials: Option<Credentials>,
}

#[derive(Debug)]
struct Credentials {
    bearer: Vec<Digest>,
    bearer_from: Vec<BearerFrom>,
    /// Users, and the digests of their names and passwords.
    basic: Vec<(String, Digest)>,
}

/// Why a peer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It is the script of a page that may not connect.
    Origin,
    /// It has shown no credential that we know, of these kinds.
    Credentials { bearer: bool, basic: bool },
}

/// Who was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The user, where basic authentication says it.
    pub(super) user: Option<String>,
    /// Whether [`BEARER`] is a subprotocol that may be answered.
    pub(super) offers_bearer: bool,
}

impl Guard {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let Some(listen) = endpoint.listen() else { return Self::default() };
        Self {
            origins: listen.allowed_origins.clone(),
            credentials: listen.auth.as_ref().map(Credentials::new),
        }
    }

    pub(super) fn check(&self, handshake: &Handshake) -> Result<Visitor, Denied> {
        let host = handshake.headers("host").next();
        if !handshake.headers("origin").all(|origin| self.origins.allow(origin, host)) {
            return Err(Denied::Origin);
        }
        match &self.credentials {
            Some(credentials) => credentials.check(handshake),
            None => Ok(Visitor::default()),
        }
    }
}

impl Credentials {
    fn new(auth: &Auth) -> Self {
        Self {
            bearer: auth.bearer.iter().map(|token| digest(&[token.expose()])).collect(),
            bearer_from: auth.bearer_from.clone(),
            basic: auth
                .basic
                .iter()
                .map(|(user, password)| (user.clone(), digest(&[user, password.expose()])))
                .collect(),
        }
    }

    fn check(&self, handshake: &Handshake) -> Result<Visitor, Denied> {
        let offers_bearer = self.bearer_from.contains(&BearerFrom::Subprotocol);
        let tokens = self.bearer_from.iter().flat_map(|place| tokens(place, handshake));
        let is_known = tokens.fold(Choice::from(0), |is_known, token| is_known | self.knows(&token));
        if is_known.into() {
            return Ok(Visitor { user: None, offers_bearer });
        }
        let mut users = authorizations(handshake, "basic").filter_map(|encoded| self.user(encoded));
        match users.next() {
            Some(user) => Ok(Visitor { user: Some(user), offers_bearer }),
            None => {
                Err(Denied::Credentials { bearer: !self.bearer.is_empty(), basic: !self.basic.is_empty() })
            }
        }
    }

    fn knows(&self, token: &str) -> Choice {
        let token = digest(&[token]);
        self.bearer.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&token))
    }

    /// The user of `base64(user:password)`, if the password is right.
    fn user(&self, encoded: &str) -> Option<String> {
        let pair = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
        let (user, password) = pair.split_once(':')?;
        let pair = digest(&[user, password]);
        let mut found = None;
        for (user, known) in &self.basic {
            if bool::from(known.ct_eq(&pair)) {
                found = Some(user.clone());
            }
        }
        found
    }
}

/// The tokens that stand in one place of a handshake.
fn tokens<'a>(place: &'a BearerFrom, handshake: &'a Handshake) -> Vec<Cow<'a, str>> {
    match place {
        BearerFrom::Header => authorizations(handshake, BEARER).map(Cow::Borrowed).collect(),
        BearerFrom::Query(name) => handshake.query(name).into_iter().collect(),
        BearerFrom::Cookie(name) => handshake.cookie(name).map(Cow::Borrowed).into_iter().collect(),
        BearerFrom::Subprotocol => {
            let mut offers = handshake.headers("sec-websocket-protocol").flat_map(|value| value.split(','));
            let _ = offers.find(|offer| offer.trim() == BEARER);
            offers.next().map(|token| Cow::Borrowed(token.trim())).into_iter().collect()
        }
    }
}

/// What follows a scheme in `Authorization`.
fn authorizations<'a>(handshake: &'a Handshake, scheme: &'a str) -> impl Iterator<Item = &'a str> {
    let values = handshake.headers("authorization").filter_map(|value| value.split_once(' '));
    values.filter(move |(known, _)| known.eq_ignore_ascii_case(scheme)).map(|(_, rest)| rest.trim())
}

/// Parts are told apart by what none of them has: a zero byte.
fn digest(parts: &[&str]) -> Digest {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Redacted, Server};
    use hyper::header::{HeaderMap, HeaderName};

    fn guard(auth: Auth) -> Guard {
        let mut endpoint = Endpoint::server("/", &Server::default());
        if let crate::config::Mode::Server(listen) = &mut endpoint.mode {
            listen.auth = Some(auth);
        }
        Guard::new(&endpoint)
    }

    fn handshake(uri: &str, headers: &[(&'static str, &str)]) -> Handshake {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), value.parse().expect("a value"));
        }
        Handshake::new(&uri.parse().expect("a path"), &map, None)
    }

    fn auth(from: &[BearerFrom]) -> Auth {
        Auth {
            bearer: vec![Redacted::plain("t-1"), Redacted::plain("t-2")],
            bearer_from: from.to_vec(),
            basic: vec![("ann".to_owned(), Redacted::plain("pa:ss"))],
        }
    }

    #[test]
    fn a_token_is_looked_for_where_it_may_stand_and_nowhere_else() {
        let places = [
            (BearerFrom::Header, "/", ("authorization", "Bearer t-2")),
            (BearerFrom::Query("token".to_owned()), "/?token=t%2D2", ("x-none", "")),
            (BearerFrom::Cookie("token".to_owned()), "/", ("cookie", "a=b; token=t-2")),
            (BearerFrom::Subprotocol, "/", ("sec-websocket-protocol", "v1, bearer, t-2")),
        ];
        for (right, _, _) in &places {
            let guard = guard(auth(std::slice::from_ref(right)));
            for (place, uri, header) in &places {
                let result = guard.check(&handshake(uri, &[*header]));
                assert_eq!(result.is_ok(), place == right, "{right:?} {place:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_or_missing_is_denied_with_what_would_do() {
        let guard = guard(auth(&[BearerFrom::Header]));
        let denied = Err(Denied::Credentials { bearer: true, basic: true });
        for value in ["Bearer t-3", "Bearer t-1x", "Bearer ", "Bearer", "t-1", "Basic dC0x", "Basic %"] {
            assert_eq!(guard.check(&handshake("/", &[("authorization", value)])), denied, "{value}");
        }
        assert_eq!(guard.check(&handshake("/?token=t-1", &[])), denied);
    }

    #[test]
    fn basic_authentication_names_the_user() {
        let guard = guard(auth(&[BearerFrom::Header]));
        let with = |pair: &str| {
            let value = format!("basic {}", BASE64_STANDARD.encode(pair));
            guard.check(&handshake("/", &[("authorization", &value)])).ok().and_then(|visitor| visitor.user)
        };
        assert_eq!(with("ann:pa:ss").as_deref(), Some("ann"));
        assert_eq!(
            (with("ann:pa:s"), with("bob:pa:ss"), with("annpa:ss"), with("ann:pa")),
            (None, None, None, None)
        );
    }
}
