//! TLS of both sides: whom to trust, who we are, and where certificates come from.

mod client;
mod pem;
mod server;

pub(super) use client::client_config;
pub(super) use server::{PeerCertificate, ServerCertificates};

use rustls::crypto::CryptoProvider;
use std::sync::{Arc, LazyLock};

/// The cryptographic primitives of every connection.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}
