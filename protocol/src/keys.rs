//! ed25519 keys as people and files hold them: PKCS#8 and SPKI in PEM (RFC 8410), which openssl
//! and wasmsign2 read too. Keys are made by callers, who own the randomness.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes,
};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::InvalidId;
use crate::secret::SharedSecret;

/// The first byte of the two kinds of key files of the tool `wasmsign2` (its `keys.rs`).
const WASMSIGN2_PUBLIC: u8 = 0x01;
/// See [`WASMSIGN2_PUBLIC`].
const WASMSIGN2_SECRET: u8 = 0x81;

/// An ed25519 public key. Written as `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(with = "String", extend("pattern" = r"^ed25519:[0-9a-fA-F]{64}$"))
)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key that `bytes` encode (RFC 8032 section 5.1.2), if they are a point of the curve and
    /// not one of the few weak ones.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, InvalidId> {
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(bytes)),
            _ => Err(InvalidId(
                "these 32 bytes are not an ed25519 public key".into(),
            )),
        }
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// True when `signature` over `message` was made with the secret half of this key.
    /// Strict as in RFC 8032 section 5.1.7: no second encoding of a signature is accepted.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let key = VerifyingKey::from_bytes(&self.0).expect("checked when the value was made");
        key.verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    }

    /// Reads an SPKI key in PEM, as `haar key new` writes to `*.pub`.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidId> {
        let key = VerifyingKey::from_public_key_pem(pem.trim())
            .map_err(|error| InvalidId(format!("not an ed25519 public key in PEM: {error}")))?;
        Self::from_bytes(key.to_bytes())
    }

    /// Writes the key as SPKI in PEM.
    pub fn to_pem(&self) -> String {
        VerifyingKey::from_bytes(&self.0)
            .expect("checked when the value was made")
            .to_public_key_pem(LineEnding::LF)
            .expect("an ed25519 key always encodes")
    }

    /// Writes the key as the tool `wasmsign2` keeps it in files: the byte 1, then the 32 bytes.
    pub fn to_wasmsign2(&self) -> Vec<u8> {
        [&[WASMSIGN2_PUBLIC][..], &self.0].concat()
    }

    /// Reads a file of the tool `wasmsign2`.
    ///
    /// # Errors
    /// When it is not such a public key.
    pub fn from_wasmsign2(file: &[u8]) -> Result<Self, InvalidId> {
        match file.split_first() {
            Some((&WASMSIGN2_PUBLIC, key)) => {
                let key = key.try_into().map_err(|_| not_wasmsign2("public"))?;
                Self::from_bytes(key)
            }
            _ => Err(not_wasmsign2("public")),
        }
    }

    /// The first 12 hexadecimal digits of the key's SHA-256, for tables that people read.
    pub fn fingerprint(&self) -> String {
        hex::encode(&Sha256::digest(self.0)[..6])
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ed25519:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || {
            InvalidId(format!(
                "`{text}` is not a public key: write `ed25519:` and 64 hexadecimal digits"
            ))
        };
        let mut bytes = [0; 32];
        let digits = text.strip_prefix("ed25519:").ok_or_else(invalid)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid())?;
        Self::from_bytes(bytes)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

/// An ed25519 secret key. Never serialised, never printed.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key that grows from 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` (RFC 8032 section 5.1.6).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// What this key shares with the holder of `other` and with nobody else.
    pub fn shared_with(&self, other: &PublicKey) -> SharedSecret {
        let own = x25519_dalek::StaticSecret::from(self.0.to_scalar_bytes());
        let other = VerifyingKey::from_bytes(&other.0).expect("checked when the value was made");
        let other = x25519_dalek::PublicKey::from(other.to_montgomery().to_bytes());
        SharedSecret::new(own.diffie_hellman(&other).as_bytes())
    }

    /// Reads a PKCS#8 key in PEM, as `haar key new` writes.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidId> {
        SigningKey::from_pkcs8_pem(pem.trim())
            .map(Self)
            .map_err(|error| InvalidId(format!("not an ed25519 secret key in PEM: {error}")))
    }

    /// Writes the key as PKCS#8 in PEM. Keep it in files that only their owner reads.
    ///
    /// Without the public half (version 1 of the format, RFC 8410 section 7): older openssl and
    /// wasmsign2 do not read it with one.
    pub fn to_pem(&self) -> String {
        let bytes = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        bytes
            .to_pkcs8_pem(LineEnding::LF)
            .expect("an ed25519 key always encodes")
            .to_string()
    }

    /// Writes the key as the tool `wasmsign2` keeps it in files: the byte 0x81, the 32 bytes of the
    /// seed, the 32 bytes of the public half. Keep it in files that only their owner reads.
    pub fn to_wasmsign2(&self) -> Vec<u8> {
        [&[WASMSIGN2_SECRET][..], &self.0.to_keypair_bytes()].concat()
    }

    /// Reads a file of the tool `wasmsign2`.
    ///
    /// # Errors
    /// When it is not such a secret key.
    pub fn from_wasmsign2(file: &[u8]) -> Result<Self, InvalidId> {
        match file.split_first() {
            Some((&WASMSIGN2_SECRET, key)) => {
                let pair = key.try_into().map_err(|_| not_wasmsign2("secret"))?;
                SigningKey::from_keypair_bytes(pair)
                    .map(Self)
                    .map_err(|_| not_wasmsign2("secret"))
            }
            _ => Err(not_wasmsign2("secret")),
        }
    }
}

fn not_wasmsign2(half: &str) -> InvalidId {
    InvalidId(format!("not a {half} key of the tool wasmsign2"))
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretKey(of {})", self.public())
    }
}

/// A node's public key for links (X25519, RFC 7748): other nodes seal what they send to it with it.
/// Text: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(with = "String")
)]
#[serde(try_from = "String", into = "String")]
pub struct LinkKey([u8; 32]);

impl LinkKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for LinkKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for LinkKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| {
            InvalidId(format!(
                "`{text}` is not a link key: write 64 hexadecimal digits"
            ))
        })?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for LinkKey {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<LinkKey> for String {
    fn from(key: LinkKey) -> String {
        key.to_string()
    }
}
