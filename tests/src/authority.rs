//! Certificates of our own making, and the authorities that issue them.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::sync::atomic::{AtomicU64, Ordering};

/// An authority that nobody knows but who is told.
#[derive(Debug)]
pub struct Authority {
    /// Its own certificate, as PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
#[derive(Debug)]
pub struct Certified {
    /// The certificate, as PEM.
    pub certificate: String,
    /// Its private key, as PEM.
    pub key: String,
}

impl Default for Authority {
    fn default() -> Self {
        static AUTHORITIES: AtomicU64 = AtomicU64::new(0);
        let name = format!("authority {}", AUTHORITIES.fetch_add(1, Ordering::Relaxed));
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }
}

impl Authority {
    /// Issues a certificate for a host, by name or address, or for a person of this name.
    ///
    /// # Panics
    /// If no certificate can have this name.
    pub fn certify(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Certified {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Certified { certificate, key: key.serialize_pem() }
    }
}
