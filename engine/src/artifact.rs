//! Compiled code with its binding: which module it was made from, for which engine and target,
//! and a signature of whoever compiled it. Compiled code is native code; an artifact that is not
//! wholly what the binding says is never given to the engine.
//!
//! ```text
//! "HAARCODE" | version: u8 | binding size: u32 LE | binding (postcard) | signature: 64 | code
//! ```

use haar_protocol::ids::Digest;
use haar_protocol::keys::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"HAARCODE";
const VERSION: u8 = 1;
const PREFIX_BYTES: usize = 8 + 1 + 4;
const BINDING_BYTES_MAX: usize = 1_024;
const DOMAIN: &[u8] = b"haar compiled code\n";

/// What an artifact was made from and for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// SHA-256 of the module.
    pub module: [u8; 32],
    /// See [`crate::configuration::fingerprint`].
    pub fingerprint: String,
    /// See [`crate::configuration::target`].
    pub target: String,
    /// SHA-256 of the code.
    pub code: [u8; 32],
}

/// Why an artifact was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// Not an artifact, or cut short.
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
}

/// Code that passed every check: it was compiled from `module` for this engine by somebody
/// trusted. Only [`open`] makes one.
#[derive(Debug)]
pub struct CheckedCode<'a> {
    code: &'a [u8],
}

impl CheckedCode<'_> {
    /// The code itself.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.code
    }
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
    };
    let binding = postcard::to_stdvec(&binding).expect("a binding always serialises");
    let size = u32::try_from(binding.len()).expect("a binding is small");
    let signature = key.sign(&[DOMAIN, &binding].concat());
    let mut artifact = Vec::with_capacity(PREFIX_BYTES + binding.len() + 64 + code.len());
    artifact.extend_from_slice(MAGIC);
    artifact.push(VERSION);
    artifact.extend_from_slice(&size.to_le_bytes());
    artifact.extend_from_slice(&binding);
    artifact.extend_from_slice(&signature);
    artifact.extend_from_slice(code);
    artifact
}

/// Checks that `artifact` is code that one of `trusted` compiled from `module` for the engine with
/// this `fingerprint` on this `target`.
///
/// # Errors
/// See [`ArtifactError`].
pub fn open<'a>(
    artifact: &'a [u8],
    module: &Digest,
    fingerprint: &str,
    target: &str,
    trusted: &[PublicKey],
) -> Result<CheckedCode<'a>, ArtifactError> {
    let malformed = ArtifactError::Malformed;
    let (prefix, rest) = artifact
        .split_at_checked(PREFIX_BYTES)
        .ok_or(malformed.clone())?;
    if &prefix[..8] != MAGIC || prefix[8] != VERSION {
        return Err(malformed);
    }
    let size = u32::from_le_bytes([prefix[9], prefix[10], prefix[11], prefix[12]]) as usize;
    if size > BINDING_BYTES_MAX {
        return Err(malformed);
    }
    let (binding_bytes, rest) = rest.split_at_checked(size).ok_or(malformed.clone())?;
    let (signature, code) = rest.split_first_chunk::<64>().ok_or(malformed.clone())?;
    let signed = [DOMAIN, binding_bytes].concat();
    if !trusted.iter().any(|key| key.verifies(&signed, signature)) {
        return Err(ArtifactError::WrongSignature);
    }
    let binding: Binding = postcard::from_bytes(binding_bytes).map_err(|_| malformed)?;
    if &binding.module != module.as_bytes()
        || binding.fingerprint != fingerprint
        || binding.target != target
    {
        return Err(ArtifactError::WrongBinding);
    }
    if Digest::of(code).as_bytes() != &binding.code {
        return Err(ArtifactError::Changed);
    }
    Ok(CheckedCode { code })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FINGERPRINT: &str = "0123456789abcdef";
    const TARGET: &str = "x86_64-linux";

    fn key() -> SecretKey {
        SecretKey::from_seed([3; 32])
    }

    fn module() -> Digest {
        Digest::of(b"module")
    }

    fn opened(artifact: &[u8]) -> Result<Vec<u8>, ArtifactError> {
        let trusted = [key().public()];
        let checked = open(artifact, &module(), FINGERPRINT, TARGET, &trusted)?;
        Ok(checked.bytes().to_vec())
    }

    #[test]
    fn code_of_another_module_engine_target_or_maker_is_refused() {
        let other = SecretKey::from_seed([4; 32]);
        let wrong = Err(ArtifactError::WrongBinding);
        let code = b"code";
        let sealed = |module: &Digest, fingerprint: &str, target: &str| {
            opened(&seal(module, fingerprint, target, code, &key()))
        };
        assert_eq!(sealed(&module(), FINGERPRINT, TARGET), Ok(code.to_vec()));
        assert_eq!(sealed(&Digest::of(b"other"), FINGERPRINT, TARGET), wrong);
        assert_eq!(sealed(&module(), "other", TARGET), wrong);
        assert_eq!(sealed(&module(), FINGERPRINT, "armv7-linux"), wrong);
        let foreign = seal(&module(), FINGERPRINT, TARGET, code, &other);
        assert_eq!(opened(&foreign), Err(ArtifactError::WrongSignature));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let good = seal(&module(), FINGERPRINT, TARGET, b"machine code", &key());
        for index in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[index] ^= 1 << bit;
                assert!(opened(&bad).is_err(), "bit {bit} of byte {index}");
            }
            assert!(opened(&good[..index]).is_err(), "cut at {index}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert!(opened(&bytes).is_err());
            let disguised = [MAGIC.as_slice(), &[VERSION], &bytes].concat();
            prop_assert!(opened(&disguised).is_err());
        }
    }
}
