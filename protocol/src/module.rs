//! Signatures inside module files, in the format of the WebAssembly tool conventions
//! ("WebAssembly module signatures", WebAssembly/tool-conventions `Signatures.md`; the same that
//! the tool `wasmsign2` reads and writes): a custom section `signature`, the first of the file,
//! signs the SHA-256 of everything behind it.
//!
//! ```text
//! header | 0 | size | "signature" | version content hash-function sets  | rest of the file
//!                                                                          '-- SHA-256, signed
//! ```
//! Stricter than the conventions where that costs nothing: every byte of the file is either
//! signed or has only one valid value, so that a flip anywhere is refused.

use sha2::{Digest as _, Sha256};

use crate::keys::{PublicKey, SecretKey};

/// The eight bytes that a component begins with.
pub const COMPONENT_HEADER: [u8; 8] = [0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00];
const CORE_MODULE_HEADER: [u8; 8] = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
const SECTION_NAME: &[u8] = b"signature";
const DOMAIN: &[u8] = b"wasmsig";
/// Specification version, content type (a whole module), hash function (SHA-256).
const PREAMBLE: [u8; 3] = [1, 1, 1];
const ED25519: u8 = 1;
/// How many signatures one file may carry: each costs a verification under every trusted key.
const SIGNATURES_MAX: u32 = 16;
/// The largest module that anybody reads, in bytes.
pub const MODULE_BYTES_MAX: u64 = 64 << 20;

/// Why a module file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// Not WebAssembly at all.
    #[error("not a WebAssembly file")]
    NotWasm,
    /// A core module.
    #[error(
        "a core module, not a component: build it for the target wasm32-wasip2 (`haar build` does)"
    )]
    CoreModule,
    /// Cut short, or with sections that do not fit.
    #[error("truncated or damaged: {0}")]
    Malformed(&'static str),
    /// No signature section.
    #[error("not signed: sign it with `haar sign`")]
    Unsigned,
    /// The signature section is not of the kind that is read here.
    #[error("its signature section is not understood: {0}")]
    UnknownSignature(&'static str),
    /// Signed, but no signature is valid for the content under any of the trusted keys.
    #[error(
        "no trusted publisher has signed this content: it was changed after signing, or its publisher is not trusted"
    )]
    Untrusted,
    /// Larger than anybody reads.
    #[error("{0} bytes are more than the limit of {MODULE_BYTES_MAX}")]
    TooLarge(u64),
}

/// Reads bytes from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ModuleError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(ModuleError::Malformed("a section is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ModuleError> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned LEB128 number of at most 32 bits (WebAssembly core specification, 5.2.2).
    fn varint(&mut self) -> Result<u32, ModuleError> {
        let mut value = 0u32;
        for shift in [0u32, 7, 14, 21, 28] {
            let byte = self.byte()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ModuleError::Malformed("a number is too long"))
    }

    /// A number in its shortest form only: what is not signed must have one valid value.
    fn shortest_varint(&mut self) -> Result<u32, ModuleError> {
        let before = self.0;
        let value = self.varint()?;
        let used = before.len() - self.0.len();
        let mut shortest = Vec::with_capacity(5);
        put_varint(&mut shortest, value);
        if shortest.len() == used {
            Ok(value)
        } else {
            Err(ModuleError::Malformed(
                "a number is not in its shortest form",
            ))
        }
    }

    fn slice(&mut self) -> Result<&'a [u8], ModuleError> {
        let length = self.shortest_varint()? as usize;
        self.take(length)
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u32) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn put_slice(bytes: &mut Vec<u8>, slice: &[u8]) {
    let length = u32::try_from(slice.len()).expect("sections that are written here are small");
    put_varint(bytes, length);
    bytes.extend_from_slice(slice);
}

fn check_header(file: &[u8]) -> Result<&[u8], ModuleError> {
    if file.len() as u64 > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge(file.len() as u64));
    }
    match file.split_at_checked(8) {
        Some((header, rest)) if header == COMPONENT_HEADER => Ok(rest),
        Some((header, _)) if header == CORE_MODULE_HEADER => Err(ModuleError::CoreModule),
        _ => Err(ModuleError::NotWasm),
    }
}

/// One section with its whole encoding.
struct Section<'a> {
    encoding: &'a [u8],
    custom_name: Option<&'a [u8]>,
    /// Behind the name of a custom section.
    payload: &'a [u8],
}

fn next_section<'a>(reader: &mut Reader<'a>) -> Result<Section<'a>, ModuleError> {
    let start = reader.0;
    let id = reader.byte()?;
    let length = reader.varint()? as usize;
    let content = reader.take(length)?;
    let encoding = &start[..start.len() - reader.0.len()];
    if id != 0 {
        return Ok(Section {
            encoding,
            custom_name: None,
            payload: content,
        });
    }
    let mut inner = Reader(content);
    let name_bytes = inner.varint()? as usize;
    let name = inner.take(name_bytes)?;
    Ok(Section {
        encoding,
        custom_name: Some(name),
        payload: inner.0,
    })
}

fn message_to_sign(hash: &[u8]) -> Vec<u8> {
    [DOMAIN, &PREAMBLE, hash].concat()
}

/// The identifier that `wasmsign2` gives a key by default (`PublicKey::attach_default_key_id`): the
/// first 12 bytes of HMAC-SHA-256 (RFC 2104) with the public key as key and "key_id" as message.
fn default_key_id(key: &PublicKey) -> Vec<u8> {
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
    Sha256::new()
        .chain_update(outer)
        .chain_update(inner)
        .finalize()[..12]
        .to_vec()
}

/// Signs `file` with `key`. A signature section that was there is replaced.
///
/// # Errors
/// `NotWasm`, `CoreModule`, `Malformed`, `TooLarge`.
pub fn sign(file: &[u8], key: &SecretKey) -> Result<Vec<u8>, ModuleError> {
    let mut reader = Reader(check_header(file)?);
    let mut content = Vec::with_capacity(file.len());
    while !reader.0.is_empty() {
        let section = next_section(&mut reader)?;
        if section.custom_name != Some(SECTION_NAME) {
            content.extend_from_slice(section.encoding);
        }
    }
    let hash = Sha256::digest(&content);
    let signature = key.sign(&message_to_sign(&hash));

    let mut one_signature = vec![0, ED25519]; // no key identifier
    put_slice(&mut one_signature, &signature);
    let mut set = vec![1];
    set.extend_from_slice(&hash);
    set.push(1);
    put_slice(&mut set, &one_signature);
    let mut payload = Vec::new();
    put_slice(&mut payload, SECTION_NAME);
    payload.extend_from_slice(&PREAMBLE);
    payload.push(1);
    put_slice(&mut payload, &set);

    let mut signed = Vec::with_capacity(8 + 2 + payload.len() + content.len());
    signed.extend_from_slice(&COMPONENT_HEADER);
    signed.push(0);
    put_slice(&mut signed, &payload);
    signed.extend_from_slice(&content);
    Ok(signed)
}

/// One signature of a file, as it claims.
struct Claim<'a> {
    hash: &'a [u8],
    key_id: &'a [u8],
    signature: [u8; 64],
}

fn claims(payload: &[u8]) -> Result<Vec<Claim<'_>>, ModuleError> {
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

/// Which of `trusted` have signed exactly this file. Never empty.
///
/// Signatures of publishers that are not trusted are passed over: a file may carry several.
///
/// # Errors
/// Everything in [`ModuleError`].
pub fn verify<'k>(
    file: &[u8],
    trusted: &'k [PublicKey],
) -> Result<Vec<&'k PublicKey>, ModuleError> {
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
    let content = reader.0;
    let hash = Sha256::digest(content);
    let claims = claims(section.payload)?;
    if claims.is_empty() {
        return Err(ModuleError::Unsigned);
    }
    let mut signers: Vec<&PublicKey> = Vec::new();
    for claim in &claims {
        if claim.hash != hash.as_slice() {
            return Err(ModuleError::Untrusted);
        }
        let message = message_to_sign(&hash);
        let signer = trusted.iter().find(|key| {
            (claim.key_id.is_empty() || claim.key_id == default_key_id(key))
                && key.verifies(&message, &claim.signature)
        });
        if let Some(key) = signer
            && !signers.contains(&key)
        {
            signers.push(key);
        }
    }
    check_sections(reader)?;
    if signers.is_empty() {
        Err(ModuleError::Untrusted)
    } else {
        Ok(signers)
    }
}

/// The two lengths in front of the signature section are not signed: only their shortest form is
/// accepted.
fn check_shortest(mut bytes: &[u8]) -> Result<(), ModuleError> {
    bytes = &bytes[1..];
    let mut reader = Reader(bytes);
    reader.shortest_varint()?;
    reader.shortest_varint()?;
    Ok(())
}

/// The rest of the file is made of whole sections, none of them a second signature.
fn check_sections(mut reader: Reader<'_>) -> Result<(), ModuleError> {
    while !reader.0.is_empty() {
        if next_section(&mut reader)?.custom_name == Some(SECTION_NAME) {
            return Err(ModuleError::Malformed("a second signature section"));
        }
    }
    Ok(())
}
