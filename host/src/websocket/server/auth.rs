//! Who may come in: credentials and origins, held against a handshake.
//!
//! All credentials are looked at, whichever is the right one. Those in files are read at each handshake that
//! shows one.
//!
//! A page whose own name was made to lead to this machine (DNS rebinding) has an `Origin` that is the same
//! as its `Host`. What listens on this machine alone and asks for no credential is therefore asked for by a
//! name of this machine, unless the pages that may connect are listed.

use super::request::Handshake;
use crate::access::{CredentialDigest, names_this_machine};
use crate::config::{AllowedOrigins, Auth, BearerFrom, Endpoint, EndpointText, is_loopback};
use crate::telemetry::RateLimit;
use crate::websocket::secret;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tracing::warn;

/// The subprotocol after which a token may be offered, and which is answered then.
pub(super) const BEARER: &str = "bearer";

/// Between two lines about a credential that cannot be read.
const SAID_INTERVAL: Duration = Duration::from_secs(1);

/// What an endpoint asks of a handshake.
#[derive(Debug, Default)]
pub(super) struct AccessPolicy {
    origins: AllowedOrigins,
    /// Whether `Host` must name this machine.
    is_of_this_machine: bool,
    credentials: Option<Credentials>,
}

#[derive(Debug)]
struct Credentials {
    bearer: Vec<Credential>,
    bearer_from: Vec<BearerFrom>,
    basic: Vec<Credential>,
}

#[derive(Debug)]
struct Credential {
    /// Whose password it is; a token is nobody's.
    user: Option<String>,
    secret: Secret,
}

#[derive(Debug)]
enum Secret {
    /// Its digest, with the user's name where there is one.
    Known(CredentialDigest),
    /// Some of it is in files.
    InFiles {
        text: EndpointText,
        /// Of saying that they cannot be read: anybody can make them be looked at.
        said: Mutex<RateLimit>,
    },
}

/// Why a peer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessDenied {
    /// It has asked for a name that is not this machine's.
    Host,
    /// It is the script of a page that may not connect.
    Origin,
    /// It has shown no credential that we know, of these kinds.
    Credentials { bearer: bool, basic: bool },
}

/// Who was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Authenticated {
    /// The user, where basic authentication says it.
    pub(super) user: Option<String>,
    /// Whether [`BEARER`] is a subprotocol that may be answered.
    pub(super) offers_bearer: bool,
}

impl AccessPolicy {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let Some(listen) = endpoint.listen() else { return Self::default() };
        Self {
            origins: listen.allowed_origins.clone(),
            is_of_this_machine: is_loopback(listen.host.expose())
                && listen.auth.is_none()
                && !listen.allowed_origins.are_listed(),
            credentials: listen.auth.as_ref().map(Credentials::new),
        }
    }

    pub(super) async fn check(&self, handshake: &Handshake) -> Result<Authenticated, AccessDenied> {
        if self.is_of_this_machine && !handshake.headers("host").all(names_this_machine) {
            return Err(AccessDenied::Host);
        }
        let host = handshake.headers("host").next();
        if !handshake.headers("origin").all(|origin| self.origins.allow(origin, host)) {
            return Err(AccessDenied::Origin);
        }
        match &self.credentials {
            Some(credentials) => credentials.check(handshake).await,
            None => Ok(Authenticated::default()),
        }
    }
}

impl Credentials {
    fn new(auth: &Auth) -> Self {
        Self {
            bearer: auth.bearer.iter().map(|token| Credential::new(None, token)).collect(),
            bearer_from: auth.bearer_from.clone(),
            basic: auth.basic.iter().map(|(user, password)| Credential::new(Some(user), password)).collect(),
        }
    }

    async fn check(&self, handshake: &Handshake) -> Result<Authenticated, AccessDenied> {
        let offers_bearer = self.bearer_from.contains(&BearerFrom::Subprotocol);
        let tokens = self.bearer_from.iter().flat_map(|place| tokens(place, handshake));
        let tokens: Vec<CredentialDigest> =
            tokens.map(|token| CredentialDigest::of_token(token.as_bytes())).collect();
        if find(&self.bearer, &tokens).await.is_some() {
            return Ok(Authenticated { user: None, offers_bearer });
        }
        let passwords: Vec<CredentialDigest> =
            authorizations(handshake, "basic").filter_map(password).collect();
        match find(&self.basic, &passwords).await {
            Some(credential) => Ok(Authenticated { user: credential.user.clone(), offers_bearer }),
            None => Err(AccessDenied::Credentials {
                bearer: !self.bearer.is_empty(),
                basic: !self.basic.is_empty(),
            }),
        }
    }
}

/// The credential that is one of those shown. Nothing is read for a peer that shows none.
async fn find<'c>(credentials: &'c [Credential], shown: &[CredentialDigest]) -> Option<&'c Credential> {
    let mut found = None;
    for credential in credentials.iter().filter(|_| !shown.is_empty()) {
        let Some(known) = credential.digest().await else { continue };
        if known.is_among(shown) {
            found = Some(credential);
        }
    }
    found
}

impl Credential {
    fn new(user: Option<&String>, text: &EndpointText) -> Self {
        let user = user.cloned();
        let secret = if text.has_files() {
            Secret::InFiles { text: text.clone(), said: Mutex::new(RateLimit::new(SAID_INTERVAL)) }
        } else {
            Secret::Known(digest(user.as_deref(), text.known().expose()))
        };
        Self { user, secret }
    }

    /// As its files are now; `None` where they give none, and so nobody is let in by it.
    async fn digest(&self) -> Option<CredentialDigest> {
        let (text, said) = match &self.secret {
            Secret::Known(digest) => return Some(*digest),
            Secret::InFiles { text, said } => (text, said),
        };
        match secret::credential(text).await {
            Ok(secret) => Some(digest(self.user.as_deref(), secret.expose())),
            Err(error) => {
                if let Some(held_back) = said.lock().unwrap_or_else(PoisonError::into_inner).allow() {
                    warn!(error, held_back, "a credential lets nobody in");
                }
                None
            }
        }
    }
}

/// The digest of a token, or of a user's password.
fn digest(user: Option<&str>, secret: &str) -> CredentialDigest {
    match user {
        Some(user) => CredentialDigest::of_password(user, secret),
        None => CredentialDigest::of_token(secret.as_bytes()),
    }
}

/// The digest of `base64(user:password)`.
fn password(encoded: &str) -> Option<CredentialDigest> {
    let pair = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some(CredentialDigest::of_password(user, password))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;
    use hyper::header::{HeaderMap, HeaderName};

    fn access(auth: Auth) -> AccessPolicy {
        let mut endpoint = Endpoint::server("/", &Server::default());
        if let crate::config::Mode::Server(listen) = &mut endpoint.mode {
            listen.auth = Some(auth);
        }
        AccessPolicy::new(&endpoint)
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
            bearer: vec!["t-1".into(), "t-2".into()],
            bearer_from: from.to_vec(),
            basic: vec![("ann".to_owned(), "pa:ss".into())],
        }
    }

    #[tokio::test]
    async fn a_token_is_looked_for_where_it_may_stand_and_nowhere_else() {
        let places = [
            (BearerFrom::Header, "/", ("authorization", "Bearer t-2")),
            (BearerFrom::Query("token".to_owned()), "/?token=t%2D2", ("x-none", "")),
            (BearerFrom::Cookie("token".to_owned()), "/", ("cookie", "a=b; token=t-2")),
            (BearerFrom::Subprotocol, "/", ("sec-websocket-protocol", "v1, bearer, t-2")),
        ];
        for (right, _, _) in &places {
            let access = access(auth(std::slice::from_ref(right)));
            for (place, uri, header) in &places {
                let result = access.check(&handshake(uri, &[*header])).await;
                assert_eq!(result.is_ok(), place == right, "{right:?} {place:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_wrong_or_missing_is_denied_with_what_would_do() {
        let access = access(auth(&[BearerFrom::Header]));
        let denied = Err(AccessDenied::Credentials { bearer: true, basic: true });
        for value in ["Bearer t-3", "Bearer t-1x", "Bearer ", "Bearer", "t-1", "Basic dC0x", "Basic %"] {
            let said = access.check(&handshake("/", &[("authorization", value)])).await;
            assert_eq!(said, denied, "{value}");
        }
        assert_eq!(access.check(&handshake("/?token=t-1", &[])).await, denied);
    }

    #[tokio::test]
    async fn what_listens_on_this_machine_alone_is_asked_for_by_its_names() {
        let guard_of = |host: &str, auth: Option<Auth>, origins: Option<&[&str]>| {
            let mut endpoint = Endpoint::server("/", &Server { host: host.into(), ..Server::default() });
            if let crate::config::Mode::Server(listen) = &mut endpoint.mode {
                listen.auth = auth;
                let listed = origins.map(|origins| {
                    let origins: Vec<_> = origins.iter().map(|text| (*text).into()).collect();
                    AllowedOrigins::listed(&origins).expect("origins")
                });
                listen.allowed_origins = listed.unwrap_or_default();
            }
            AccessPolicy::new(&endpoint)
        };
        let origin = "http://evil.example:81";
        let rebound = handshake("/", &[("host", "evil.example:81"), ("origin", origin)]);
        for host in ["127.0.0.1", "localhost", "::1", "127.8.8.8"] {
            let open = guard_of(host, None, None);
            assert_eq!(open.check(&rebound).await, Err(AccessDenied::Host), "{host}");
            for named in ["localhost:81", "LocalHost", "127.0.0.1:81", "127.0.0.2", "[::1]:81", "[::1]"] {
                assert!(open.check(&handshake("/", &[("host", named)])).await.is_ok(), "{named}");
            }
            for foreign in
                ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:81", "[::2]"]
            {
                let asked = handshake("/", &[("host", foreign)]);
                assert_eq!(open.check(&asked).await, Err(AccessDenied::Host), "{foreign}");
            }
            let twice = handshake("/", &[("host", "localhost"), ("host", "evil.example")]);
            assert_eq!(open.check(&twice).await, Err(AccessDenied::Host));
            assert!(guard_of(host, None, Some(&[origin])).check(&rebound).await.is_ok());
        }
        assert!(guard_of("0.0.0.0", None, None).check(&rebound).await.is_ok());
        let denied = guard_of("127.0.0.1", Some(auth(&[BearerFrom::Header])), None).check(&rebound).await;
        assert_eq!(denied, Err(AccessDenied::Credentials { bearer: true, basic: true }));
    }

    #[tokio::test]
    async fn basic_authentication_names_the_user() {
        let access = access(auth(&[BearerFrom::Header]));
        let with = async |pair: &str| {
            let value = format!("basic {}", BASE64_STANDARD.encode(pair));
            access
                .check(&handshake("/", &[("authorization", &value)]))
                .await
                .ok()
                .and_then(|visitor| visitor.user)
        };
        assert_eq!(with("ann:pa:ss").await.as_deref(), Some("ann"));
        for wrong in ["ann:pa:s", "bob:pa:ss", "annpa:ss", "ann:pa"] {
            assert_eq!(with(wrong).await, None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_credential_whose_file_gives_none_lets_nobody_in_and_holds_up_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("secret");
        let access = access(Auth {
            bearer: vec![EndpointText::file(&file), "t-1".into()],
            bearer_from: vec![BearerFrom::Query("token".to_owned())],
            basic: vec![("ann".to_owned(), EndpointText::file(&file))],
        });
        // ann, without a password and with this one
        let (none, right) = (("authorization", "Basic YW5uOg=="), ("authorization", "Basic YW5uOnBhc3M="));
        let check = async |uri: &str, header| access.check(&handshake(uri, &[header])).await.is_ok();
        for text in [None, Some(""), Some(" \n")] {
            if let Some(text) = text {
                std::fs::write(&file, text).expect("it is ours");
            }
            assert!(!check("/?token=", none).await, "{text:?}");
            assert!(!check("/?token=pass", right).await, "{text:?}");
            assert!(check("/?token=t-1", none).await, "{text:?}");
        }
        std::fs::write(&file, "pass\n").expect("it is ours");
        assert!(check("/?token=pass", none).await);
        assert!(check("/", right).await);
        assert!(!check("/?token=", none).await);
    }
}
