//! Compiled code with its binding: which module it was made from, who has signed that module, for
//! which engine and target, and a signature of whoever compiled it. Compiled code is native code; what
//! is not wholly what the binding says is never given to the engine.
//!
//! ```text
//! seal = "HAARCODE" | version: u8 | binding size: u32 LE | binding (postcard) | signature: 64
//!
//! on a node's disk   the code, as it is mapped | seal | its size: u32 LE      (`kept`)
//! from a controller  seal | the code, deflated in pieces                      (`packed`)
//! ```
//!
//! The order of checks: signature, binding, the publishers' signatures of the module, then the bytes
//! of the code. Nothing is unpacked that nobody trusted has signed, and no more of it than was signed.

mod kept;
mod packed;

use std::io::{self, Read};

use haar_protocol::ids::Digest;
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::module::{ModuleError, Publishers, Signatures};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub(crate) use self::kept::Where;
pub use self::kept::{CheckedCode, TRAILER_BYTES_MAX};
pub use self::packed::{PIECE_BYTES, Unpacking, pack};

/// The most code that one module may become, in bytes.
pub const CODE_BYTES_MAX: u64 = 64 << 20;
/// The most bytes of a seal.
pub const SEAL_BYTES_MAX: usize = PREFIX_BYTES + BINDING_BYTES_MAX + 64;

const MAGIC: &[u8; 8] = b"HAARCODE";
const VERSION: u8 = 3;
const PREFIX_BYTES: usize = 8 + 1 + 4;
const BINDING_BYTES_MAX: usize = 2_048;
const DOMAIN: &[u8] = b"haar compiled code 3\n";
/// Code is hashed in pieces of this size.
const READ_BYTES: usize = 64 << 10;

/// What code was made from and for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Binding {
    /// SHA-256 of the module.
    module: [u8; 32],
    /// See [`Signatures::to_bytes`].
    signatures: Vec<u8>,
    /// See [`crate::configuration::fingerprint`].
    fingerprint: String,
    /// See [`crate::configuration::target`].
    target: String,
    /// SHA-256 of the code.
    code: [u8; 32],
    /// Its size.
    code_bytes: u64,
}

/// Why code was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// No seal, or cut short.
    #[error("not compiled code, or truncated")]
    Malformed,
    /// Not signed by an expected key.
    #[error("the compiled code is not signed by an expected key")]
    WrongSignature,
    /// Made from another module, or for another engine or target.
    #[error("the compiled code was made from another module, or for another engine or target")]
    WrongBinding,
    /// No trusted publisher has signed the module that it was made from.
    #[error("{0}")]
    Publisher(ModuleError),
    /// The code is not what was signed.
    #[error("the compiled code was changed")]
    Changed,
    /// It could not be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
}

/// What code is made from and for, as whoever compiles it says.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The module.
    pub module: &'a Digest,
    /// Of the module: whoever seals has read them from the file of this digest.
    pub signatures: &'a Signatures,
    /// See [`crate::configuration::fingerprint`].
    pub fingerprint: &'a str,
    /// See [`crate::configuration::target`].
    pub target: &'a str,
}

/// What code is expected to be: made from `module`, which `publishers` have signed, for the
/// engine with this `fingerprint` on this `target`, by one of `trusted`.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The module.
    pub module: &'a Digest,
    /// Whose signatures the module needs.
    pub publishers: Publishers<'a>,
    /// See [`crate::configuration::fingerprint`].
    pub fingerprint: &'a str,
    /// See [`crate::configuration::target`].
    pub target: &'a str,
    /// Whose signature of the code is good.
    pub trusted: &'a [PublicKey],
}

/// A seal that was found to be good: what code it is for. Only [`Expected::read`] makes one.
#[derive(Debug, Clone)]
pub struct GoodSeal {
    bytes: Vec<u8>,
    code: [u8; 32],
    code_bytes: u64,
}

/// Binds `code` and signs the binding.
pub fn seal(origin: &Origin<'_>, code: &[u8], key: &SecretKey) -> Vec<u8> {
    let binding = Binding {
        module: *origin.module.as_bytes(),
        signatures: origin.signatures.to_bytes(),
        fingerprint: origin.fingerprint.to_owned(),
        target: origin.target.to_owned(),
        code: *Digest::of(code).as_bytes(),
        code_bytes: code.len() as u64,
    };
    let binding = postcard::to_stdvec(&binding).expect("a binding always serialises");
    let size = u32::try_from(binding.len()).expect("a binding is small");
    let signature = key.sign(&[DOMAIN, &binding].concat());
    [
        MAGIC.as_slice(),
        &[VERSION],
        &size.to_le_bytes(),
        &binding,
        &signature,
    ]
    .concat()
}

impl Expected<'_> {
    /// Reads a seal, and not a byte more, and checks it.
    ///
    /// # Errors
    /// See [`ArtifactError`].
    pub fn read(&self, reader: &mut impl Read) -> Result<GoodSeal, ArtifactError> {
        let mut bytes = vec![0; PREFIX_BYTES];
        read_exactly(reader, &mut bytes)?;
        if &bytes[..8] != MAGIC || bytes[8] != VERSION {
            return Err(ArtifactError::Malformed);
        }
        let size = u32::from_le_bytes([bytes[9], bytes[10], bytes[11], bytes[12]]) as usize;
        if size > BINDING_BYTES_MAX {
            return Err(ArtifactError::Malformed);
        }
        bytes.resize(PREFIX_BYTES + size + 64, 0);
        read_exactly(reader, &mut bytes[PREFIX_BYTES..])?;
        let (binding, signature) = bytes[PREFIX_BYTES..]
            .split_last_chunk::<64>()
            .ok_or(ArtifactError::Malformed)?;
        let signed = [DOMAIN, binding].concat();
        if !self
            .trusted
            .iter()
            .any(|key| key.verifies(&signed, signature))
        {
            return Err(ArtifactError::WrongSignature);
        }
        let binding: Binding =
            postcard::from_bytes(binding).map_err(|_| ArtifactError::Malformed)?;
        if &binding.module != self.module.as_bytes()
            || binding.fingerprint != self.fingerprint
            || binding.target != self.target
        {
            return Err(ArtifactError::WrongBinding);
        }
        if binding.code_bytes > CODE_BYTES_MAX {
            return Err(ArtifactError::Malformed);
        }
        Signatures::from_bytes(&binding.signatures)
            .ok_or(ArtifactError::Malformed)?
            .check(self.publishers)
            .map_err(ArtifactError::Publisher)?;
        Ok(GoodSeal {
            bytes,
            code: binding.code,
            code_bytes: binding.code_bytes,
        })
    }

    /// Reads a seal that is all of `bytes`, and checks it.
    ///
    /// # Errors
    /// See [`ArtifactError`].
    pub fn open(&self, mut bytes: &[u8]) -> Result<GoodSeal, ArtifactError> {
        let seal = self.read(&mut bytes)?;
        if bytes.is_empty() {
            Ok(seal)
        } else {
            Err(ArtifactError::Malformed)
        }
    }
}

impl GoodSeal {
    /// Size of the code in bytes.
    pub fn code_bytes(&self) -> u64 {
        self.code_bytes
    }

    /// Reads `code` to its end, in pieces, and compares it with what was signed.
    fn compare(&self, mut code: impl Read) -> Result<(), ArtifactError> {
        let mut piece = vec![0; READ_BYTES];
        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        loop {
            let count = match code.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            bytes += count as u64;
            hash.update(&piece[..count]);
        }
        self.is_code(hash, bytes)
    }

    fn is_code(&self, hash: Sha256, bytes: u64) -> Result<(), ArtifactError> {
        if bytes == self.code_bytes && hash.finalize()[..] == self.code {
            Ok(())
        } else {
            Err(ArtifactError::Changed)
        }
    }
}

fn read_exactly(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), ArtifactError> {
    reader
        .read_exact(bytes)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArtifactError::Malformed,
            _ => ArtifactError::File(error),
        })
}

#[cfg(test)]
mod tests;
