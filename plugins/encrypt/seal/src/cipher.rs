//! AES-256-GCM with nonces that are safe also where random numbers repeat.
//!
//! What is sealed is a nonce of 12 bytes, the ciphertext, and a tag of 16 bytes: what any other program reads that
//! knows the key. Two texts under one nonce would give both away. So a nonce is not just drawn: it is the HMAC, under
//! a key of its own, of random bytes and of the text. In a replay, where the random numbers are the same each time,
//! the same text is sealed to the same bytes, and another text has another nonce.

use crate::from_base64;
use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tidemill_plugin::Result;

/// The length of a key, in bytes.
const KEY_BYTES: usize = 32;
/// The length of a nonce, in bytes.
const NONCE_BYTES: usize = 12;
/// What the key of nonces is derived from the key by.
const NONCE_KEY: &[u8] = b"tidemill encrypt: nonces";

/// Random bytes for one nonce.
pub type Chance = [u8; 18];

/// A key, ready for use.
pub struct Cipher {
    aes: Aes256Gcm,
    /// Keyed, of nothing so far.
    nonces: Hmac<Sha256>,
}

impl Cipher {
    /// The cipher of a key in base64.
    ///
    /// # Errors
    /// It is no base64, or not of 32 bytes. The text does not say what it is.
    pub fn of_base64(key: &str) -> Result<Self> {
        const FIX: &str = "it must be 32 bytes in base64, as `openssl rand -base64 32` prints them";
        let key = from_base64(key.trim()).ok_or(format!("`key` is not base64: {FIX}"))?;
        let key: [u8; KEY_BYTES] =
            key.try_into().map_err(|key: Vec<u8>| format!("`key` has {} bytes: {FIX}", key.len()))?;
        Ok(Self::new(&key))
    }

    fn new(key: &[u8; KEY_BYTES]) -> Self {
        let nonce_key = hmac(key).chain_update(NONCE_KEY).finalize().into_bytes();
        Self { aes: Aes256Gcm::new(key.into()), nonces: hmac(&nonce_key) }
    }

    /// Seals bytes.
    ///
    /// # Errors
    /// There are more than AES-GCM takes, 64 GiB.
    pub fn seal(&self, open: &[u8], chance: Chance) -> Result<Vec<u8>> {
        let mac = self.nonces.clone().chain_update(chance).chain_update(open).finalize().into_bytes();
        let nonce = mac.first_chunk::<NONCE_BYTES>().expect("an HMAC of SHA-256 is longer");
        let sealed = self.aes.encrypt(&Nonce::from(*nonce), open).map_err(|_| "too long to be encrypted")?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what was sealed with this key, by `seal` or another program; none if it was not, or was changed.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        self.aes.decrypt(&Nonce::from(*nonce), sealed).ok()
    }
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("an HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        (0..hexadecimal.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
            .collect()
    }

    /// Test cases 13 to 15 of the GCM specification (McGrew and Viega), of which the last is without its end.
    #[test]
    fn it_is_aes_256_gcm() {
        for (key, nonce, text, ciphertext, tag) in [
            ("00".repeat(32), "00".repeat(12), "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
            (
                "00".repeat(32),
                "00".repeat(12),
                "00000000000000000000000000000000",
                "cea7403d4d606b6e074ec5d3baf39d18",
                "d0d1c8a799996bf0265b98b5d48ab919",
            ),
            (
                "feffe9928665731c6d6a8f9467308308".repeat(2),
                "cafebabefacedbaddecaf888".to_owned(),
                "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
                 b16aedf5aa0de657ba637b391aafd255",
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
                 c5f61e6393ba7a0abcc9f662898015ad",
                "b094dac5d93471bdec1a502270e3cc6c",
            ),
        ] {
            let key: [u8; KEY_BYTES] = bytes(&key).try_into().unwrap();
            let sealed = bytes(&format!("{nonce}{ciphertext}{tag}"));
            assert_eq!(Cipher::new(&key).open(&sealed), Some(bytes(text)));
        }
    }

    #[test]
    fn a_nonce_depends_on_chance_and_on_the_text_and_on_the_key() {
        let cipher = Cipher::new(&[7; KEY_BYTES]);
        let nonce = |cipher: &Cipher, text: &[u8], chance| {
            *cipher.seal(text, [chance; 18]).unwrap().first_chunk::<NONCE_BYTES>().unwrap()
        };
        assert_eq!(nonce(&cipher, b"a", 1), nonce(&cipher, b"a", 1));
        assert_ne!(nonce(&cipher, b"a", 1), nonce(&cipher, b"a", 2));
        assert_ne!(nonce(&cipher, b"a", 1), nonce(&cipher, b"b", 1));
        assert_ne!(nonce(&cipher, b"a", 1), nonce(&Cipher::new(&[8; KEY_BYTES]), b"a", 1));
    }

    #[test]
    fn a_key_is_32_bytes_and_is_not_told() {
        let error = |key: &str| Cipher::of_base64(key).err().unwrap().to_string();
        let fix = "it must be 32 bytes in base64, as `openssl rand -base64 32` prints them";
        assert_eq!(error("secret!"), format!("`key` is not base64: {fix}"));
        assert_eq!(error("c2VjcmV0"), format!("`key` has 6 bytes: {fix}"));
        assert!(Cipher::of_base64(" AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").is_ok());
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_unless_it_was_changed(
            text in prop::collection::vec(any::<u8>(), 0..100),
            chance in any::<Chance>(),
            key in any::<[u8; KEY_BYTES]>(),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let cipher = Cipher::new(&key);
            let mut sealed = cipher.seal(&text, chance).unwrap();
            prop_assert_eq!(sealed.len(), text.len() + 28);
            prop_assert_eq!(cipher.open(&sealed), Some(text));
            prop_assert_eq!(cipher.open(&sealed[..at.index(sealed.len())]), None);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(cipher.open(&sealed), None);
        }
    }
}
