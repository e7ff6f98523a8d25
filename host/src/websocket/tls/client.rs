//! TLS of the connections we dial: whom to trust, and who we are.
//!
//! The system's roots are read once; files of the configuration are read at every dial, so that a
//! renewed one counts from the next connection on.

use super::{pem, provider};
use crate::config::ClientTls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// # Errors
/// A sentence that says why there is nothing to trust, or nothing to show.
pub(crate) async fn client_config(tls: &ClientTls) -> Result<Arc<ClientConfig>, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if tls.insecure_skip_verify {
        let unseen = Arc::new(AcceptAnyCertificate { provider });
        builder.dangerous().with_custom_certificate_verifier(unseen)
    } else {
        let roots = match &tls.ca {
            Some(ca) => Arc::new(pem::roots(ca).await?),
            None => system_roots().await?,
        };
        builder.with_root_certificates(roots)
    };
    let mut config = match &tls.identity {
        Some(identity) => {
            let chain = pem::certificates(&identity.cert).await?;
            let key = pem::private_key(&identity.key).await?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|error| format!("`tls.cert` and `tls.key` do not go together: {error}"))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceCell<Arc<RootCertStore>> = OnceCell::const_new();
    let load = || async {
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let found = found.map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
            return Err(format!("the system has no root certificates{why}"));
        }
        Ok(Arc::new(roots))
    };
    ROOTS.get_or_try_init(load).await.cloned()
}

/// `insecure_skip_verify`: any certificate will do. Signatures are checked still, so that the peer at
/// least holds the key of the certificate it shows.
#[derive(Debug)]
struct AcceptAnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
