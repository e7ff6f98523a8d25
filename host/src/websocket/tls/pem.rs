//! Certificates and private keys in PEM form, from files or as the configuration has them.
//!
//! Errors name the file, and never show what is in it.

use crate::config::Pem;
use crate::websocket::secret::resolved;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use tokio::io::AsyncReadExt as _;

/// The largest file that is read: a system's bundle of roots has some 200 KiB.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// A chain of certificates, at least one.
///
/// # Errors
/// A sentence that says why there is none.
pub(super) async fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    const WHAT: &str = "certificate";
    let text = read(pem, WHAT).await?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| unusable(pem, WHAT, said_of(&error)))?;
    if certificates.is_empty() {
        return Err(unusable(pem, WHAT, "it has none in PEM form"));
    }
    Ok(certificates)
}

/// The first private key there is.
///
/// # Errors
/// A sentence that says why there is none.
pub(super) async fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, String> {
    const WHAT: &str = "private key";
    let text = read(pem, WHAT).await?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| unusable(pem, WHAT, said_of(&error)))
}

/// Certificates as roots to trust, at least one.
///
/// # Errors
/// A sentence that says why there is none.
pub(super) async fn roots(pem: &Pem) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).await? {
        roots.add(certificate).map_err(|error| unusable(pem, "root certificate", error))?;
    }
    Ok(roots)
}

/// The PEM text.
///
/// # Errors
/// A sentence that says why there is none.
pub(super) async fn read(pem: &Pem, what: &str) -> Result<Vec<u8>, String> {
    match pem {
        Pem::File(path) => {
            let read = async {
                let file = tokio::fs::File::open(&**path).await?;
                let mut text = Vec::new();
                file.take(MAX_PEM_BYTES + 1).read_to_end(&mut text).await?;
                std::io::Result::Ok(text)
            };
            let text = read.await.map_err(|error| unusable(pem, what, error))?;
            if text.len() as u64 > MAX_PEM_BYTES {
                return Err(unusable(pem, what, "it is larger than 1 MiB"));
            }
            Ok(text)
        }
        Pem::Base64(text) => {
            let text = resolved(text).await.map_err(|why| unusable(pem, what, why))?;
            Pem::decode(text.expose()).map_err(|is| unusable(pem, what, format!("it is {is}")))
        }
    }
}

/// Where it is from, in words.
pub(super) fn name(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.to_string(),
        Pem::Base64(_) => "what is given in base64".to_owned(),
    }
}

fn unusable(pem: &Pem, what: &str, why: impl fmt::Display) -> String {
    format!("no usable {what} in {}: {why}", name(pem))
}

/// An error of parsing, without a piece of what was parsed.
fn said_of(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "it has none in PEM form",
        _ => "it is damaged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FilePath;

    #[tokio::test]
    async fn a_file_without_an_end_is_not_read_to_it() {
        let pem = Pem::File(FilePath::plain("/dev/zero"));
        assert_eq!(
            certificates(&pem).await,
            Err("no usable certificate in /dev/zero: it is larger than 1 MiB".to_owned())
        );
    }
}
