//! What lets somebody in: credentials, and the names that this machine has on its own loopback.
//!
//! Server endpoints and the HTTP API both ask here, so that there is one comparison of secrets. Which origins
//! of web pages may ask is said by [`crate::config::AllowedOrigins`].

use crate::config::is_loopback;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// The digest of a credential: a token, or a user and the user's password.
///
/// Credentials are compared by their digests, so that the time it takes tells nothing about them, their
/// length included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CredentialDigest([u8; 32]);

impl CredentialDigest {
    /// The digest of a token.
    pub(crate) fn of_token(token: &[u8]) -> Self {
        Self::of_parts(&[token])
    }

    /// The digest of a user and a password.
    pub(crate) fn of_password(user: &str, password: &str) -> Self {
        Self::of_parts(&[user.as_bytes(), password.as_bytes()])
    }

    /// The parts are told apart by what none of them has: a zero byte.
    fn of_parts(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part);
            digest.update([0]);
        }
        Self(digest.finalize().into())
    }

    /// Whether this is one of the credentials that somebody has shown. All of them are looked at.
    pub(crate) fn is_among(&self, shown: &[Self]) -> bool {
        let is_shown =
            shown.iter().fold(Choice::from(0), |is_shown, shown| is_shown | shown.0.ct_eq(&self.0));
        is_shown.into()
    }
}

/// Whether the value of a `Host` header is a name or an address of the loopback, with a port or without.
///
/// A page whose own name was made to lead to this machine (DNS rebinding) asks for another.
pub(crate) fn names_this_machine(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    match name.strip_prefix('[') {
        Some(address) => {
            address.strip_suffix(']').is_some_and(|address| address.contains(':') && is_loopback(address))
        }
        None => !name.contains(':') && is_loopback(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_among_those_shown_if_all_of_it_is_the_same() {
        let known = CredentialDigest::of_token(b"t-1");
        let shown = ["t-", "t-1x", "t-1"].map(|token| CredentialDigest::of_token(token.as_bytes()));
        assert!(known.is_among(&shown) && !known.is_among(&shown[..2]) && !known.is_among(&[]));
        let password = CredentialDigest::of_password("ann", "b");
        assert!(password.is_among(&[CredentialDigest::of_password("ann", "b")]));
        assert!(
            !password
                .is_among(&[CredentialDigest::of_password("an", "nb"), CredentialDigest::of_token(b"b")])
        );
    }

    #[test]
    fn a_name_of_the_loopback_has_a_port_or_none_and_nothing_else() {
        for own in ["localhost:81", "LocalHost", "127.0.0.1:81", "127.0.0.2", "[::1]:81", "[::1]"] {
            assert!(names_this_machine(own), "{own}");
        }
        for foreign in ["", "evil.example", "localhost.evil.example:81", "[::2]", "::1", "localhost:x"] {
            assert!(!names_this_machine(foreign), "{foreign}");
        }
    }
}
