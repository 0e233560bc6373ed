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

mod encoding;
mod signatures;
mod version;

use sha2::{Digest as _, Sha256};

use self::encoding::{Reader, put_slice, put_varint};
use self::signatures::{Claim, claims, is_id_of, message_to_sign};
pub use self::signatures::{Publishers, Signatures};
pub use self::version::{NAMING_HINT, check_version};
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
    /// As many signatures as a file may have.
    #[error(
        "it has {SIGNATURES_MAX} signatures, and may not have more: start again with `haar sign --replace`"
    )]
    TooManySignatures,
    /// Signed, but no signature is valid for the content under any of the trusted keys.
    #[error(
        "no trusted publisher has signed this content: it was changed after signing, or its publisher is not trusted"
    )]
    Untrusted,
    /// A publisher that the site trusts has signed it, and none of those that the owner of the device
    /// demands.
    #[error(
        "signed by {}, and by none of the publishers that the policy of this device names: add the key to `publishers` under [policy] in the device's agent.toml and restart the agent, or sign the module with a key that stands there",
        keys(.signers)
    )]
    NotAllowed {
        /// Who has signed it of those that the site trusts.
        signers: Vec<PublicKey>,
    },
    /// Larger than anybody reads.
    #[error("{0} bytes are more than the limit of {MODULE_BYTES_MAX}")]
    TooLarge(u64),
}

fn keys(keys: &[PublicKey]) -> String {
    let keys: Vec<String> = keys.iter().map(PublicKey::to_string).collect();
    keys.join(" and ")
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

/// Signs `file` with `key`, beside those who have signed the same content before. Signatures of other
/// content are taken out: they are good for nothing. Signing twice with one key changes nothing.
///
/// # Errors
/// `NotWasm`, `CoreModule`, `Malformed`, `TooLarge`; `UnknownSignature` when there are signatures of
/// another kind, `TooManySignatures` when there is no room for one more.
pub fn sign(file: &[u8], key: &SecretKey) -> Result<Vec<u8>, ModuleError> {
    let mut reader = Reader(check_header(file)?);
    let claims = match next_section(&mut reader) {
        Ok(first) if first.custom_name == Some(SECTION_NAME) => match claims(first.payload) {
            Err(ModuleError::Malformed(_)) => Vec::new(), // nobody's signature
            claims => claims?,
        },
        _ => Vec::new(),
    };
    sign_beside(file, key, &claims)
}

/// Signs `file` with `key` alone: signatures that were there are taken out.
///
/// # Errors
/// `NotWasm`, `CoreModule`, `Malformed`, `TooLarge`.
pub fn sign_alone(file: &[u8], key: &SecretKey) -> Result<Vec<u8>, ModuleError> {
    sign_beside(file, key, &[])
}

fn sign_beside(file: &[u8], key: &SecretKey, others: &[Claim<'_>]) -> Result<Vec<u8>, ModuleError> {
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
    let mut signatures: Vec<(&[u8], [u8; 64])> = others
        .iter()
        .filter(|claim| claim.hash == &hash[..])
        .map(|claim| (claim.key_id, claim.signature))
        .collect();
    // One that names another key is nobody's.
    signatures.retain(|(id, other)| *other != signature || is_id_of(id, &key.public()));
    if !signatures.iter().any(|(_, other)| *other == signature) {
        signatures.push((&[], signature)); // no key identifier
    }
    let count = u32::try_from(signatures.len()).unwrap_or(u32::MAX);
    if count > SIGNATURES_MAX {
        return Err(ModuleError::TooManySignatures);
    }

    let mut set = vec![1];
    set.extend_from_slice(&hash);
    put_varint(&mut set, count);
    for (key_id, signature) in signatures {
        let mut one = Vec::new();
        put_slice(&mut one, key_id);
        one.push(ED25519);
        put_slice(&mut one, &signature);
        put_slice(&mut set, &one);
    }
    let mut payload = Vec::new();
    put_slice(&mut payload, SECTION_NAME);
    payload.extend_from_slice(&PREAMBLE);
    payload.push(1);
    put_slice(&mut payload, &set);

    let mut signed = Vec::with_capacity(8 + 6 + payload.len() + content.len());
    signed.extend_from_slice(&COMPONENT_HEADER);
    signed.push(0);
    put_slice(&mut signed, &payload);
    signed.extend_from_slice(&content);
    Ok(signed)
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
    Signatures::of(file)?.verify(trusted)
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
