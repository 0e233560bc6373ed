//! What two holders of ed25519 keys can compute and nobody else: passwords that never travel, and
//! texts that only one of them can read. The site uses it with each of its nodes.
//!
//! The keys become X25519 keys (RFC 7748) as libsodium's `crypto_sign_ed25519_*_to_curve25519` makes
//! them; HKDF-SHA256 (RFC 5869) makes a key for each purpose, ChaCha20-Poly1305 (RFC 8439) the seal.
//!
//! ```text
//! sealed text = base64url( salt 16 B │ ciphertext │ tag 16 B )
//! ```
//! The salt is a keyed hash of the text, so that sealing needs no randomness and no two texts are
//! sealed under one key: what is sealed twice looks the same, and tells nothing else.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use serde::{Deserialize, Serialize};

use crate::ids::Name;

const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// The longest text that is sealed or opened, in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// A text that only the two can read. Written in base64url.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SealedText(String);

impl fmt::Debug for SealedText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealedText({} characters)", self.0.len())
    }
}

/// Why a sealed text was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Longer than [`SECRET_BYTES_MAX`].
    #[error("a secret of more than {SECRET_BYTES_MAX} bytes")]
    TooLarge,
    /// Not sealed by the two for this purpose, or altered.
    #[error("a secret that was not sealed for this node")]
    NotAuthentic,
}

/// What two holders of keys share. Never printed, never stored.
#[derive(Clone)]
pub struct SharedSecret(hkdf::Prk);

impl fmt::Debug for SharedSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedSecret(..)")
    }
}

impl SharedSecret {
    pub(crate) fn new(agreed: &[u8; 32]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"haar shared secret 1");
        Self(salt.extract(agreed))
    }

    fn derive(&self, purpose: &[&[u8]]) -> [u8; 32] {
        let mut key = [0; 32];
        let filled = self
            .0
            .expand(purpose, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key));
        filled.expect("32 bytes are what HKDF-SHA256 gives at once");
        key
    }

    /// The password of a node at a relay that is not ours: the site and the node compute it, each
    /// for itself.
    pub fn relay_password(&self, relay: &Name) -> String {
        URL_SAFE_NO_PAD.encode(self.derive(&[b"relay password\n", relay.as_str().as_bytes()]))
    }

    /// The password of those who try a relay that is not ours for the site.
    pub fn trial_password(&self, relay: &Name) -> String {
        URL_SAFE_NO_PAD.encode(self.derive(&[b"relay trial password\n", relay.as_str().as_bytes()]))
    }

    /// Seals `text` for `purpose`.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn seal(&self, purpose: &str, text: &str) -> Result<SealedText, SecretError> {
        if text.len() > SECRET_BYTES_MAX {
            return Err(SecretError::TooLarge);
        }
        let hashing = self.derive(&[b"salt\n", purpose.as_bytes()]);
        let hash = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &hashing),
            text.as_bytes(),
        );
        let salt = &hash.as_ref()[..SALT_BYTES];
        let mut bytes = text.as_bytes().to_vec();
        self.key(purpose, salt)
            .seal_in_place_append_tag(nonce(), Aad::empty(), &mut bytes)
            .map_err(|_| SecretError::TooLarge)?;
        Ok(SealedText(
            URL_SAFE_NO_PAD.encode([salt, &bytes[..]].concat()),
        ))
    }

    /// Opens what was sealed for `purpose`.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn open(&self, purpose: &str, sealed: &SealedText) -> Result<String, SecretError> {
        if sealed.0.len() > 2 * SECRET_BYTES_MAX {
            return Err(SecretError::TooLarge);
        }
        let not_authentic = |_| SecretError::NotAuthentic;
        let mut bytes = URL_SAFE_NO_PAD
            .decode(&sealed.0)
            .map_err(|_| SecretError::NotAuthentic)?;
        if bytes.len() < SALT_BYTES + TAG_BYTES {
            return Err(SecretError::NotAuthentic);
        }
        let (salt, ciphertext) = bytes.split_at_mut(SALT_BYTES);
        let text = self
            .key(purpose, salt)
            .open_in_place(nonce(), Aad::empty(), ciphertext)
            .map_err(not_authentic)?;
        String::from_utf8(text.to_vec()).map_err(|_| SecretError::NotAuthentic)
    }

    /// A key for one text: so the nonce need not differ.
    fn key(&self, purpose: &str, salt: &[u8]) -> LessSafeKey {
        let key = self.derive(&[b"seal\n", purpose.as_bytes(), b"\n", salt]);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("the key has 32 bytes");
        LessSafeKey::new(key)
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use crate::keys::SecretKey;

    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    #[test]
    fn both_compute_the_same_and_others_do_not() {
        let (site, node, other) = (key(1), key(2), key(3));
        let relay: Name = "plant".parse().unwrap();
        let of_site = site.shared_with(&node.public()).relay_password(&relay);
        let of_node = node.shared_with(&site.public()).relay_password(&relay);
        assert_eq!(of_site, of_node);
        assert_eq!(of_site.len(), 43);
        assert_ne!(
            of_site,
            other.shared_with(&site.public()).relay_password(&relay)
        );
        let elsewhere = "other".parse().unwrap();
        assert_ne!(
            of_site,
            site.shared_with(&node.public()).relay_password(&elsewhere)
        );
    }

    #[test]
    fn what_is_sealed_for_a_node_is_opened_by_it_alone_whole_and_for_its_purpose() {
        let (site, node, other) = (key(1), key(2), key(3));
        let ours = site.shared_with(&node.public());
        let theirs = node.shared_with(&site.public());
        for text in ["", "secret", "ß\n"] {
            let sealed = ours.seal("a", text).unwrap();
            assert_eq!(theirs.open("a", &sealed).as_deref(), Ok(text));
            assert_eq!(theirs.open("b", &sealed), Err(SecretError::NotAuthentic));
            let strange = other.shared_with(&site.public()).open("a", &sealed);
            assert_eq!(strange, Err(SecretError::NotAuthentic));
            let bytes = URL_SAFE_NO_PAD.decode(&sealed.0).unwrap();
            for at in 0..bytes.len() {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                let altered = SealedText(URL_SAFE_NO_PAD.encode(bytes));
                assert!(theirs.open("a", &altered).is_err(), "byte {at}");
            }
        }
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        assert_eq!(ours.seal("a", &long), Err(SecretError::TooLarge));
        assert!(theirs.open("a", &SealedText("AA".into())).is_err());
    }
}
