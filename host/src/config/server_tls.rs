//! TLS of a listener: who we are, and who peers must be.

use super::form::{PathOf, Word};
use super::read::{Becomes, TableReader};
use super::{FilePath, Pem};

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those that lead to its root.
    pub cert: Pem,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: Pem,
}

/// TLS of a listener. Its files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate and the key that the listener shows.
    pub identity: Identity,
    /// The certificates that peers are asked for; `None` asks for none.
    pub clients: Option<ClientCertificates>,
}

/// Certificates that a listener asks its peers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The roots they must lead to.
    pub ca: Pem,
    /// Whether a peer without one is refused.
    pub are_required: bool,
}

table! {
    /// `tls` in server mode.
    pub(super) struct ServerTlsKeys / ServerTlsAt {
        /// the certificate chain, PEM
        cert: FilePath = key(PathOf, required);
        /// its private key, PEM
        key: FilePath = key(PathOf, required);
        /// Clients' certificates must lead to these roots, PEM; if left out, none are asked for.
        client_ca: Option<FilePath> = key(PathOf, optional);
        /// With client_ca, this says whether a client needs a certificate; if left out it does.
        client_auth: Option<ClientAuth> = key(Word<ClientAuth>, optional);
    }
    check check_client_auth;
}

words! {
    /// Whether a client needs a certificate.
    pub(super) enum ClientAuth {
        /// The client needs one.
        Required = "required",
        /// The client may have one.
        Optional = "optional",
    }
}

fn check_client_auth(tls: &mut ServerTlsKeys, at: &ServerTlsAt, reader: &mut TableReader<'_, '_>) {
    if let (None, Some(at)) = (&tls.client_ca, &at.client_auth) {
        reader.report.error_with_hint(
            at,
            "`client_auth` without `client_ca`",
            "client_ca = \"clients.pem\" has the roots that clients' certificates must lead to",
        );
    }
}

impl Becomes<ServerTls> for ServerTlsKeys {
    fn become_it(self) -> ServerTls {
        let are_required = self.client_auth != Some(ClientAuth::Optional);
        let clients = self.client_ca.map(|ca| ClientCertificates { ca: Pem::File(ca), are_required });
        ServerTls { identity: Identity { cert: Pem::File(self.cert), key: Pem::File(self.key) }, clients }
    }
}
