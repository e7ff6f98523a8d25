//! TLS of the connections we accept: who we are, whom we ask for a certificate, and what it says.
//!
//! The files are looked at again when connections come, at most once in a while: a renewed
//! certificate counts from the next connection on. One that is unusable changes nothing, and is tried again
//! with the next look, since whoever renews it may be halfway through.

use super::{pem, provider};
use crate::config::{Pem, ServerTls};
use crate::websocket::connection::Stream;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tracing::{debug, error, info};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The TLS of one listener.
#[derive(Debug)]
pub(crate) struct ServerCertificates {
    tls: ServerTls,
    state: Mutex<CertificateState>,
}

#[derive(Debug)]
struct CertificateState {
    config: Arc<ServerConfig>,
    /// What the files held that it was made of.
    digest: FileDigest,
    looked_at: Instant,
    /// Why what they hold now is not used, as it was said.
    refused: Option<String>,
}

type FileDigest = [u8; 32];

/// The certificate that a peer has shown, and that leads to a root we trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerCertificate {
    pub(crate) common_name: Option<Box<str>>,
    /// Names, addresses and URIs, joined by ",".
    pub(crate) alternative_names: Option<Box<str>>,
    /// SHA-256 of the whole certificate, in hexadecimal.
    pub(crate) fingerprint: Box<str>,
}

impl ServerCertificates {
    /// # Errors
    /// A sentence that names the file that cannot be used.
    pub(crate) async fn load(tls: &ServerTls) -> Result<Self, String> {
        let digest = digest(tls).await?;
        let state =
            CertificateState { config: config(tls).await?, digest, looked_at: Instant::now(), refused: None };
        Ok(Self { tls: tls.clone(), state: Mutex::new(state) })
    }

    /// As it is configured.
    pub(crate) fn tls(&self) -> &ServerTls {
        &self.tls
    }

    /// Makes the handshake. `None` if it fails, which the peer is told.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> Option<(Stream, Option<PeerCertificate>)> {
        let config = self.current().await;
        match TlsAcceptor::from(config).accept(tcp).await {
            Ok(stream) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let certificate = shown.map(PeerCertificate::read);
                Some((Stream::Tls(Box::new(TlsStream::Server(stream))), certificate))
            }
            Err(error) => {
                debug!(%error, "tls handshake failed");
                None
            }
        }
    }

    /// What the files say now, or said when they were usable.
    async fn current(&self) -> Arc<ServerConfig> {
        {
            let mut state = self.lock();
            if state.looked_at.elapsed() < LOOK_INTERVAL {
                return state.config.clone();
            }
            state.looked_at = Instant::now();
        }
        let refused = self.look().await.err();
        let mut state = self.lock();
        if let Some(error) = &refused
            && state.refused != refused
        {
            error!(error, "certificate not renewed; the one before stays, and the new is tried again");
        }
        state.refused = refused;
        state.config.clone()
    }

    async fn look(&self) -> Result<(), String> {
        // The digest comes first: of files that change meanwhile, the next look finds another one.
        let digest = digest(&self.tls).await?;
        if self.lock().digest == digest {
            return Ok(());
        }
        let config = config(&self.tls).await?;
        let mut state = self.lock();
        (state.config, state.digest) = (config, digest);
        info!(certificate = ?self.tls.identity.cert, "certificate renewed");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, CertificateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn digest(tls: &ServerTls) -> Result<FileDigest, String> {
    let mut digest = Sha256::new();
    let clients = tls.clients.as_ref().map(|clients| (&clients.ca, "root certificate"));
    let files: [(&Pem, &str); 2] = [(&tls.identity.cert, "certificate"), (&tls.identity.key, "private key")];
    for (pem, what) in files.into_iter().chain(clients) {
        let bytes = pem::read(pem, what).await?;
        digest.update(bytes.len().to_le_bytes());
        digest.update(&bytes);
    }
    Ok(digest.finalize().into())
}

async fn config(tls: &ServerTls) -> Result<Arc<ServerConfig>, String> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &tls.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let roots = Arc::new(pem::roots(&clients.ca).await?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = if clients.are_required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    let chain = pem::certificates(&tls.identity.cert).await?;
    let key = pem::private_key(&tls.identity.key).await?;
    let config = builder.with_single_cert(chain, key);
    let mut config = config.map_err(|error| {
        let (cert, key) = (pem::name(&tls.identity.cert), pem::name(&tls.identity.key));
        format!("{cert} and {key} do not go together: {error}")
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl PeerCertificate {
    fn read(der: &CertificateDer<'_>) -> Self {
        let fingerprint: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
        let fingerprint = fingerprint.into();
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self { fingerprint, ..Self::default() };
        };
        let common_name = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
        let names = certificate.subject_alternative_name().ok().flatten();
        let names: Vec<_> =
            names.iter().flat_map(|names| &names.value.general_names).filter_map(said).collect();
        Self {
            common_name: common_name.map(Into::into),
            alternative_names: (!names.is_empty()).then(|| names.join(",").into()),
            fingerprint,
        }
    }
}

/// An alternative name as text; other kinds than these name no peer.
fn said(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|bytes| Ipv6Addr::from(bytes).to_string())).ok()
        }
        _ => None,
    }
}
