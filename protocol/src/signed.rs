//! The signed envelope around rare, important documents: assignments and statuses.
//!
//! ```text
//! "HAAR" | kind: u8 | version: u8 | signature: 64 bytes | JSON
//! ```
//! The signature covers a domain text, the kind, the version and the JSON, so that no document
//! can be passed off as one of another kind.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::keys::{PublicKey, SecretKey};
use crate::number;

const MAGIC: &[u8; 4] = b"HAAR";
const HEADER_BYTES: usize = 4 + 1 + 1 + 64;
/// The largest document that anybody parses, in bytes: below the relay's packet limit of 1 MiB.
pub const DOCUMENT_BYTES_MAX: usize = 960 * 1024;
/// The same with the envelope around it.
pub const ENVELOPE_BYTES_MAX: usize = HEADER_BYTES + DOCUMENT_BYTES_MAX;

/// A document that travels in a signed envelope.
pub trait Document: Serialize + DeserializeOwned {
    /// Tells one kind of document from another inside the signature.
    const KIND: u8;
    /// The version of the format that this code writes, and the newest that it reads.
    const VERSION: u8;
    /// What messages to people call it.
    const WHAT: &'static str;
}

/// Why an envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an envelope, or cut short.
    #[error("not a {0} (truncated, or something else)")]
    Malformed(&'static str),
    /// Larger than anybody accepts.
    #[error("a {what} of {bytes} bytes exceeds the limit of {DOCUMENT_BYTES_MAX}")]
    TooLarge {
        /// What it should be.
        what: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// Written by a newer release.
    #[error(
        "a {what} of format version {version} is newer than this release reads ({newest}): update this side"
    )]
    TooNew {
        /// What it should be.
        what: &'static str,
        /// The version found.
        version: u8,
        /// The newest version that is read.
        newest: u8,
    },
    /// The signature is not the expected key's.
    #[error("the signature of the {0} is not that of the expected key")]
    WrongSignature(&'static str),
    /// Signed, but the JSON inside is not a document of its kind, or a number in it is out of range.
    #[error("the {what} is not valid: {error}")]
    Content {
        /// What it should be.
        what: &'static str,
        /// What the parser says.
        error: String,
    },
}

fn signed_bytes(kind: u8, version: u8, json: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32 + json.len());
    bytes.extend_from_slice(b"haar signed document\n");
    bytes.extend_from_slice(&[kind, version]);
    bytes.extend_from_slice(json);
    bytes
}

/// Wraps and signs `document`.
///
/// # Errors
/// `TooLarge` when its JSON exceeds [`DOCUMENT_BYTES_MAX`], `Content` when one of its numbers exceeds
/// [`number::NUMBER_MAX`]: nobody would read either.
pub fn seal<D: Document>(document: &D, key: &SecretKey) -> Result<Vec<u8>, EnvelopeError> {
    let json = serde_json::to_vec(document).map_err(|error| EnvelopeError::Content {
        what: D::WHAT,
        error: error.to_string(),
    })?;
    if json.len() > DOCUMENT_BYTES_MAX {
        return Err(EnvelopeError::TooLarge {
            what: D::WHAT,
            bytes: json.len(),
        });
    }
    number::check(&json).map_err(|error| EnvelopeError::Content {
        what: D::WHAT,
        error: error.to_string(),
    })?;
    let signature = key.sign(&signed_bytes(D::KIND, D::VERSION, &json));
    let mut envelope = Vec::with_capacity(HEADER_BYTES + json.len());
    envelope.extend_from_slice(MAGIC);
    envelope.extend_from_slice(&[D::KIND, D::VERSION]);
    envelope.extend_from_slice(&signature);
    envelope.extend_from_slice(&json);
    Ok(envelope)
}

/// Checks the signature of `envelope` against `key`, then parses what is inside.
///
/// # Errors
/// See [`EnvelopeError`]. Nothing inside is parsed before the signature holds.
pub fn open<D: Document>(envelope: &[u8], key: &PublicKey) -> Result<D, EnvelopeError> {
    if envelope.len() > HEADER_BYTES + DOCUMENT_BYTES_MAX {
        return Err(EnvelopeError::TooLarge {
            what: D::WHAT,
            bytes: envelope.len(),
        });
    }
    if envelope.len() < HEADER_BYTES || &envelope[..4] != MAGIC || envelope[4] != D::KIND {
        return Err(EnvelopeError::Malformed(D::WHAT));
    }
    let version = envelope[5];
    let mut signature = [0; 64];
    signature.copy_from_slice(&envelope[6..HEADER_BYTES]);
    let json = &envelope[HEADER_BYTES..];
    if !key.verifies(&signed_bytes(D::KIND, version, json), &signature) {
        return Err(EnvelopeError::WrongSignature(D::WHAT));
    }
    if version > D::VERSION {
        return Err(EnvelopeError::TooNew {
            what: D::WHAT,
            version,
            newest: D::VERSION,
        });
    }
    number::from_slice(json).map_err(|error| EnvelopeError::Content {
        what: D::WHAT,
        error: error.to_string(),
    })
}
