//! The signatures of a file, apart from the file.

use sha2::{Digest as _, Sha256};

use super::encoding::Reader;
use super::{
    DOMAIN, ED25519, ModuleError, PREAMBLE, SECTION_NAME, SIGNATURES_MAX, check_header,
    check_sections, check_shortest, next_section,
};
use crate::keys::PublicKey;

/// Bytes of a key's identifier, where a signature has one.
const KEY_ID_BYTES: usize = 12;
/// Bytes of one signature in [`Signatures::to_bytes`].
const ENCODED_BYTES: usize = 1 + KEY_ID_BYTES + 64;

/// What publishers have signed of a file, and their signatures: enough to find out later whether a
/// key has signed the file, without the file. That they are of a certain file is the word of whoever
/// has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures {
    /// SHA-256 of everything behind the signature section.
    content: [u8; 32],
    each: Vec<Signature>,
}

/// Whose signatures a module needs to run on a node: of one key of each list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publishers<'a> {
    /// Those that the site trusts.
    pub of_site: &'a [PublicKey],
    /// Those that the owner of the device demands; none when the owner leaves it to the site.
    pub of_owner: Option<&'a [PublicKey]>,
    /// Signatures of the module that are not in its file: they came later.
    pub later: Option<&'a Signatures>,
}

/// One of them. It counts only when it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    /// Of the only key that it is good for; none: of any.
    key_id: Option<[u8; KEY_ID_BYTES]>,
    signature: [u8; 64],
}

impl Signature {
    /// Whether `key` has signed `message` with it.
    fn is_of(&self, key: &PublicKey, message: &[u8]) -> bool {
        let id = self.key_id.as_ref().map_or(&[][..], |id| &id[..]);
        is_id_of(id, key) && key.verifies(message, &self.signature)
    }
}

impl Signatures {
    /// Reads those of `file`, and makes sure that they are for exactly this file.
    ///
    /// # Errors
    /// Everything in [`ModuleError`]; `Untrusted` when the file was changed.
    pub fn of(file: &[u8]) -> Result<Self, ModuleError> {
        let mut reader = Reader(check_header(file)?);
        if reader.0.is_empty() {
            return Err(ModuleError::Unsigned);
        }
        let first_bytes = reader.0;
        let section = next_section(&mut reader)?;
        if section.custom_name != Some(SECTION_NAME) {
            return Err(ModuleError::Unsigned);
        }
        check_shortest(first_bytes)?;
        let content = <[u8; 32]>::from(Sha256::digest(reader.0));
        let claims = claims(section.payload)?;
        if claims.is_empty() {
            return Err(ModuleError::Unsigned);
        }
        if claims.iter().any(|claim| claim.hash != content) {
            return Err(ModuleError::Untrusted);
        }
        check_sections(reader)?;
        // An identifier of another length is no key's.
        let each = claims.into_iter().filter_map(|claim| {
            let key_id = match claim.key_id {
                [] => None,
                id => Some(id.try_into().ok()?),
            };
            let signature = claim.signature;
            Some(Signature { key_id, signature })
        });
        Ok(Self {
            content,
            each: each.collect(),
        })
    }

    /// These with those of `others` that are of the same content and not among them.
    #[must_use]
    pub fn with(mut self, others: &Self) -> Self {
        if self.is_of_same_content(others) {
            for one in &others.each {
                if !self.each.contains(one) {
                    self.each.push(one.clone());
                }
            }
        }
        self
    }

    /// These without the oldest that are of none of `keys`: as many as a file has no room for.
    #[must_use]
    pub fn making_room(mut self, keys: &[PublicKey]) -> Self {
        let message = message_to_sign(&self.content);
        let mut excess = self.count().saturating_sub(SIGNATURES_MAX as usize);
        self.each.retain(|one| {
            let is_left_out = excess > 0 && !keys.iter().any(|key| one.is_of(key, &message));
            excess -= usize::from(is_left_out);
            !is_left_out
        });
        self
    }

    /// Whether both are of the same code: files that differ in who has signed them, and in nothing else.
    pub fn is_of_same_content(&self, other: &Self) -> bool {
        self.content == other.content
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.each.len()
    }

    /// Whether a file could have all of them.
    pub fn fit(&self) -> bool {
        self.count() <= SIGNATURES_MAX as usize
    }

    /// Which of `trusted` have signed. Never empty.
    ///
    /// # Errors
    /// `Untrusted` when none of them has.
    pub fn verify<'k>(&self, trusted: &'k [PublicKey]) -> Result<Vec<&'k PublicKey>, ModuleError> {
        let message = message_to_sign(&self.content);
        let mut signers: Vec<&PublicKey> = Vec::new();
        for one in &self.each {
            let signer = trusted.iter().find(|key| one.is_of(key, &message));
            if let Some(key) = signer
                && !signers.contains(&key)
            {
                signers.push(key);
            }
        }
        if signers.is_empty() {
            Err(ModuleError::Untrusted)
        } else {
            Ok(signers)
        }
    }

    /// Whether those have signed who must.
    ///
    /// # Errors
    /// `Untrusted` when none of the site's publishers has, `NotAllowed` when none of the owner's has.
    pub fn check(&self, publishers: Publishers<'_>) -> Result<(), ModuleError> {
        let all = match publishers.later {
            Some(later) => &self.clone().with(later),
            None => self,
        };
        let signers = all.verify(publishers.of_site)?;
        match publishers.of_owner {
            Some(of_owner) if all.verify(of_owner).is_err() => Err(ModuleError::NotAllowed {
                signers: signers.into_iter().copied().collect(),
            }),
            _ => Ok(()),
        }
    }

    /// For [`Signatures::from_bytes`]: the content's hash, then for each signature whether it names
    /// a key, that name or zeros, and the signature. At most 1,264 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.content.to_vec();
        for one in &self.each {
            bytes.push(u8::from(one.key_id.is_some()));
            bytes.extend_from_slice(&one.key_id.unwrap_or_default());
            bytes.extend_from_slice(&one.signature);
        }
        bytes
    }

    /// [`Signatures::to_bytes`] in hexadecimal digits, as an assignment has it.
    pub fn to_text(&self) -> String {
        hex::encode(self.to_bytes())
    }

    /// What [`Signatures::to_text`] has written. None when it has not.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::from_bytes(&hex::decode(text).ok()?)
    }

    /// What [`Signatures::to_bytes`] has written. None when it has not.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (content, rest) = bytes.split_first_chunk()?;
        let (encoded, []) = rest.as_chunks::<ENCODED_BYTES>() else {
            return None;
        };
        if encoded.len() > SIGNATURES_MAX as usize {
            return None;
        }
        let each = encoded.iter().map(|one| {
            let (head, signature) = one.split_last_chunk::<64>()?;
            let key_id = match head {
                [0, zeros @ ..] if zeros.iter().all(|byte| *byte == 0) => None,
                [1, id @ ..] => Some(id.try_into().ok()?),
                _ => return None,
            };
            let signature = *signature;
            Some(Signature { key_id, signature })
        });
        Some(Self {
            content: *content,
            each: each.collect::<Option<_>>()?,
        })
    }
}

pub(super) fn message_to_sign(hash: &[u8]) -> Vec<u8> {
    [DOMAIN, &PREAMBLE, hash].concat()
}

/// The identifier that `wasmsign2` gives a key by default (`PublicKey::attach_default_key_id`): the
/// first 12 bytes of HMAC-SHA-256 (RFC 2104) with the public key as key and "key_id" as message.
fn default_key_id(key: &PublicKey) -> [u8; KEY_ID_BYTES] {
    let mut block = [0x36u8; 64];
    let mut outer = [0x5cu8; 64];
    for (index, byte) in key.as_bytes().iter().enumerate() {
        block[index] ^= byte;
        outer[index] ^= byte;
    }
    let inner = Sha256::new()
        .chain_update(block)
        .chain_update(b"key_id")
        .finalize();
    let whole = Sha256::new()
        .chain_update(outer)
        .chain_update(inner)
        .finalize();
    std::array::from_fn(|index| whole[index])
}

/// Whether a signature with this identifier may be of `key`: it names that key, or none.
pub(super) fn is_id_of(key_id: &[u8], key: &PublicKey) -> bool {
    key_id.is_empty() || key_id == default_key_id(key)
}

/// One signature of a file, as it claims.
pub(super) struct Claim<'a> {
    pub(super) hash: &'a [u8],
    pub(super) key_id: &'a [u8],
    pub(super) signature: [u8; 64],
}

pub(super) fn claims(payload: &[u8]) -> Result<Vec<Claim<'_>>, ModuleError> {
    let mut reader = Reader(payload);
    if reader.take(3)? != PREAMBLE {
        return Err(ModuleError::UnknownSignature(
            "only version 1, whole modules and SHA-256 are read",
        ));
    }
    let mut claims = Vec::new();
    for _ in 0..bounded(reader.shortest_varint()?)? {
        let mut set = Reader(reader.slice()?);
        if set.shortest_varint()? != 1 {
            return Err(ModuleError::UnknownSignature(
                "signatures of parts of a module are not read",
            ));
        }
        let hash = set.take(32)?;
        for _ in 0..bounded(set.shortest_varint()?)? {
            let mut one = Reader(set.slice()?);
            let key_id = one.slice()?;
            if one.byte()? != ED25519 {
                return Err(ModuleError::UnknownSignature("only ed25519 is read"));
            }
            let signature = one
                .slice()?
                .try_into()
                .map_err(|_| ModuleError::Malformed("a signature has a wrong length"))?;
            end(&one)?;
            bounded(u32::try_from(claims.len() + 1).unwrap_or(u32::MAX))?;
            claims.push(Claim {
                hash,
                key_id,
                signature,
            });
        }
        end(&set)?;
    }
    end(&reader)?;
    Ok(claims)
}

fn bounded(count: u32) -> Result<u32, ModuleError> {
    if count > SIGNATURES_MAX {
        Err(ModuleError::UnknownSignature("more than 16 signatures"))
    } else {
        Ok(count)
    }
}

fn end(reader: &Reader<'_>) -> Result<(), ModuleError> {
    if reader.0.is_empty() {
        Ok(())
    } else {
        Err(ModuleError::Malformed(
            "the signature section is longer than its content",
        ))
    }
}
