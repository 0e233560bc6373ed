//! Compiled code with its binding: which module it was made from, for which engine and target,
//! and a signature of whoever compiled it. Compiled code is native code; what is not wholly what the
//! binding says is never given to the engine.
//!
//! ```text
//! seal = "HAARCODE" | version: u8 | binding size: u32 LE | binding (postcard) | signature: 64
//!
//! on a node's disk   HEX.seal = seal           HEX.code = the code, as it is mapped
//! from a controller  seal | the code, deflated (RFC 1951)
//! ```
//!
//! The order of checks: signature, binding, then the bytes of the code. Nothing is unpacked that
//! nobody trusted has signed, and no more of it than was signed.

use std::fs::File;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use haar_protocol::ids::Digest;
use haar_protocol::keys::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::load::Lease;

/// The most code that one module may become, in bytes.
pub const CODE_BYTES_MAX: u64 = 64 << 20;
/// The most bytes of a seal.
pub const SEAL_BYTES_MAX: usize = PREFIX_BYTES + BINDING_BYTES_MAX + 64;

const MAGIC: &[u8; 8] = b"HAARCODE";
const VERSION: u8 = 2;
const PREFIX_BYTES: usize = 8 + 1 + 4;
const BINDING_BYTES_MAX: usize = 1_024;
const DOMAIN: &[u8] = b"haar compiled code 2\n";
/// Code is hashed and unpacked in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// What code was made from and for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Binding {
    /// SHA-256 of the module.
    module: [u8; 32],
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
    /// The code is not what was signed.
    #[error("the compiled code was changed")]
    Changed,
    /// It could not be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
}

/// What code is expected to be: made from `module` for the engine with this `fingerprint` on this
/// `target`, by one of `trusted`.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The module.
    pub module: &'a Digest,
    /// See [`crate::configuration::fingerprint`].
    pub fingerprint: &'a str,
    /// See [`crate::configuration::target`].
    pub target: &'a str,
    /// Whose signature is good.
    pub trusted: &'a [PublicKey],
}

/// A seal that was found to be good: what code it is for. Only [`Expected::read`] makes one.
#[derive(Debug, Clone)]
pub struct GoodSeal {
    bytes: Vec<u8>,
    code: [u8; 32],
    code_bytes: u64,
}

/// Code that passed every check: it was compiled from the expected module for this engine by
/// somebody trusted. Only [`GoodSeal::check`] and [`GoodSeal::check_file`] make one.
#[derive(Debug)]
pub struct CheckedCode(pub(crate) Where);

/// Where checked code is.
#[derive(Debug)]
pub(crate) enum Where {
    /// In memory of ours.
    Memory(Vec<u8>),
    /// In a file that nobody can open for writing as long as the lease is held.
    File(Lease),
}

/// Binds `code` and signs the binding.
pub fn seal(
    module: &Digest,
    fingerprint: &str,
    target: &str,
    code: &[u8],
    key: &SecretKey,
) -> Vec<u8> {
    let binding = Binding {
        module: *module.as_bytes(),
        fingerprint: fingerprint.to_owned(),
        target: target.to_owned(),
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

/// A seal with its code, as controllers send it.
pub fn pack(seal: &[u8], code: &[u8]) -> Vec<u8> {
    let mut packed = DeflateEncoder::new(seal.to_vec(), Compression::best());
    let written = packed.write_all(code).and_then(|()| packed.finish());
    written.expect("a vector takes everything")
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
    /// The seal itself, to be kept beside the code.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Size of the code in bytes.
    pub fn code_bytes(&self) -> u64 {
        self.code_bytes
    }

    /// Unpacks the code that follows the seal into `output`.
    ///
    /// # Errors
    /// [`ArtifactError::Changed`] when it is not the code of this seal; what was written by then is
    /// of no use. Reading and writing may fail.
    pub fn unpack(&self, packed: impl Read, output: &mut impl Write) -> Result<(), ArtifactError> {
        // One byte more than there should be, so that too long a code is noticed.
        let code = DeflateDecoder::new(packed).take(self.code_bytes + 1);
        self.compare(code, |piece| output.write_all(piece))
    }

    /// Writes `code`, which must be the code of this seal, into `output`.
    ///
    /// # Errors
    /// [`ArtifactError::Changed`] when it is not; writing may fail.
    pub fn copy(&self, code: &[u8], output: &mut impl Write) -> Result<(), ArtifactError> {
        self.compare(code, |piece| output.write_all(piece))
    }

    /// Checks code in memory.
    ///
    /// # Errors
    /// When it is not the code of this seal.
    pub fn check(&self, code: Vec<u8>) -> Result<CheckedCode, ArtifactError> {
        self.compare(&code[..], |_| Ok(()))?;
        Ok(CheckedCode(Where::Memory(code)))
    }

    /// Checks the code in `file`. It can't change between this and the engine's use of it: nobody
    /// can open it for writing meanwhile. Where the system does not promise that (another process
    /// has it open for writing; a file system without leases), it is read into memory and checked
    /// there.
    ///
    /// # Errors
    /// When it can't be read, or is not the code of this seal.
    pub fn check_file(&self, file: File) -> Result<CheckedCode, ArtifactError> {
        match Lease::take(file) {
            Ok(lease) => {
                let code = lease.file().take(self.code_bytes + 1);
                self.compare(code, |_| Ok(()))?;
                Ok(CheckedCode(Where::File(lease)))
            }
            Err(file) => {
                let mut code = Vec::new();
                file.take(self.code_bytes + 1).read_to_end(&mut code)?;
                self.check(code)
            }
        }
    }

    /// Reads `code` to its end, in pieces, and compares it with what was signed.
    fn compare(
        &self,
        mut code: impl Read,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), ArtifactError> {
        let mut piece = vec![0; PIECE_BYTES];
        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        loop {
            let count = match code.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    return Err(ArtifactError::Changed); // it does not inflate
                }
                Err(error) => return Err(error.into()),
            };
            bytes += count as u64;
            if bytes > self.code_bytes {
                return Err(ArtifactError::Changed);
            }
            hash.update(&piece[..count]);
            each(&piece[..count])?;
        }
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
