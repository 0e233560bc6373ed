//! The names of things: sites, nodes, modules, applications, ports, routes.
//! All are parsed at the border; a value is valid and safe in a topic, a path and a file name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::keys::PublicKey;

/// Why a text is not the id or name that it should be. The text is meant for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(pub String);

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Characters of a key-derived id after its letter: 16 bytes in base 32 without padding.
const KEY_ID_CHARACTERS: usize = 26;

fn key_derived(prefix: char, domain: &str, key: &PublicKey) -> String {
    let mut hash = Sha256::new();
    hash.update(domain.as_bytes());
    hash.update(key.as_bytes());
    let digest = hash.finalize();
    let mut text = String::with_capacity(1 + KEY_ID_CHARACTERS);
    text.push(prefix);
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in &digest[..16] {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(BASE32[((bits >> count) & 31) as usize]));
        }
    }
    text.push(char::from(BASE32[((bits << (5 - count)) & 31) as usize]));
    text
}

fn check_key_derived(prefix: char, what: &str, text: &str) -> Result<(), InvalidId> {
    let valid = text.len() == 1 + KEY_ID_CHARACTERS
        && text.starts_with(prefix)
        && text.bytes().skip(1).all(|byte| BASE32.contains(&byte));
    if valid {
        Ok(())
    } else {
        Err(InvalidId(format!(
            "`{text}` is not a {what} id: it must be `{prefix}` and {KEY_ID_CHARACTERS} characters of a to z and 2 to 7"
        )))
    }
}

/// Implements what every text-like newtype needs: `Display`, `FromStr`, `TryFrom<String>`, `AsRef`.
macro_rules! text_type {
    ($name:ident, $check:expr) => {
        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> Result<(), InvalidId> = $check;
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Identifies a site: `s` and 26 characters derived from the site's public key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^s[a-z2-7]{26}$")))]
#[serde(try_from = "String", into = "String")]
pub struct SiteId(String);
text_type!(SiteId, |text| check_key_derived('s', "site", text));

impl SiteId {
    /// The id of the site that owns `key`.
    pub fn of(key: &PublicKey) -> Self {
        Self(key_derived('s', "haar site id", key))
    }
}

/// Identifies a node: `n` and 26 characters derived from the node's public key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^n[a-z2-7]{26}$")))]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);
text_type!(NodeId, |text| check_key_derived('n', "node", text));

impl NodeId {
    /// The id of the node that owns `key`.
    pub fn of(key: &PublicKey) -> Self {
        Self(key_derived('n', "haar node id", key))
    }
}

/// A name that a person chose, for a node, an application, a microservice, a port or a publisher:
/// 1 to 63 characters of a-z, 0-9 and `-`, beginning and ending with a letter or digit
/// (a DNS label, RFC 1123 section 2.1, in lower case).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")))]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);
text_type!(Name, check_name);

fn check_name(text: &str) -> Result<(), InvalidId> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let valid = (1..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| alphanumeric(*byte) || *byte == b'-')
        && alphanumeric(bytes[0])
        && alphanumeric(bytes[bytes.len() - 1]);
    if valid {
        Ok(())
    } else {
        Err(InvalidId(format!(
            "`{text}` is not a name: use 1 to 63 of a-z, 0-9 and `-`, with a letter or digit first and last"
        )))
    }
}

/// Checks a label of a node, as it is given to nodes and asked for in places: key and value are 1
/// to 63 characters of A-Z, a-z, 0-9 and `.`, `_`, `/`, `-`.
///
/// # Errors
/// Says which of the two is wrong.
pub fn check_label(key: &str, value: &str) -> Result<(), InvalidId> {
    for (what, text) in [("key", key), ("value", value)] {
        let valid = (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte));
        if !valid {
            let quoted: String = text.chars().take(80).flat_map(char::escape_debug).collect();
            return Err(InvalidId(format!(
                "`{quoted}` is not a label's {what}: use 1 to 63 of A-Z, a-z, 0-9, `.`, `_`, `/` and `-`"
            )));
        }
    }
    Ok(())
}

/// A media type such as `application/vnd.acme.reading+json` (RFC 6838 section 4.2), without
/// parameters, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$")))]
#[serde(try_from = "String", into = "String")]
pub struct MediaType(String);
text_type!(MediaType, check_media_type);

fn check_media_type(text: &str) -> Result<(), InvalidId> {
    let part = |part: &str| {
        (1..=127).contains(&part.len())
            && part.as_bytes()[0].is_ascii_alphanumeric()
            && part.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&-^_.+".contains(&byte)
            })
    };
    match text.split_once('/') {
        Some((kind, subtype)) if part(kind) && part(subtype) => Ok(()),
        _ => Err(InvalidId(format!(
            "`{text}` is not a media type: write it like `application/json` or `application/vnd.acme.reading+json`, in lower case, without parameters"
        ))),
    }
}

/// Names a module by the SHA-256 of its file. Written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^sha256:[0-9a-f]{64}$")))]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere, such as while a file streamed in.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits alone: the name of the module's file.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// The first 12 hexadecimal digits, for tables that people read.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || {
            InvalidId(format!(
                "`{text}` is not a digest: write `sha256:` and 64 hexadecimal digits"
            ))
        };
        let digits = text.strip_prefix("sha256:").ok_or_else(invalid)?;
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Identifies a route within its site: derived from its two ends, so that both nodes and the
/// controller name it alike without asking. Written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^[0-9a-f]{16}$")))]
#[serde(try_from = "String", into = "String")]
pub struct RouteId(u64);

impl RouteId {
    /// The id of the route of `application` from one end to another, whatever nodes they are on: ports
    /// ([`PortName`]), or topics and their relays ([`crate::manifest::Route::id`]).
    /// The type is part of it, so that two nodes that hold different revisions of an application
    /// never pass a message of one type off as another.
    pub fn of(
        application: &Name,
        from: &impl fmt::Display,
        to: &impl fmt::Display,
        content_type: &MediaType,
    ) -> Self {
        Self::hashed(&format!("{application}\n{from}\n{to}\n{content_type}"))
    }

    fn hashed(text: &str) -> Self {
        let digest = Sha256::digest(format!("haar route id\n{text}"));
        let bytes = digest[..8].iter();
        Self(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The id of the same route in these lives of the microservices at its ends: what is on its way from
    /// one that was deleted never enters what has taken its name. First lives, 0, change nothing.
    pub fn in_lives(self, lives: [u64; 2]) -> Self {
        match lives {
            [0, 0] => self,
            [from, to] => Self::hashed(&format!("{self}\n{from}\n{to}")),
        }
    }

    /// The number as frames carry it.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// A number from a frame; whether such a route exists is for the receiver to look up.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl TryFrom<String> for RouteId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let invalid = || {
            InvalidId(format!(
                "`{text}` is not a route id: 16 hexadecimal digits in lower case"
            ))
        };
        let mut bytes = [0; 8];
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid());
        }
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

impl From<RouteId> for String {
    fn from(id: RouteId) -> String {
        id.to_string()
    }
}

/// One port of one microservice of an application: `MICROSERVICE.PORT`, such as `sampler.readings`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")))]
#[serde(try_from = "String", into = "String")]
pub struct PortName {
    /// The microservice.
    pub microservice: Name,
    /// Its outlet or inlet.
    pub port: Name,
}

impl fmt::Display for PortName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.microservice, self.port)
    }
}

impl FromStr for PortName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (microservice, port) = text.split_once('.').ok_or_else(|| {
            InvalidId(format!("`{text}` does not name a port: write `MICROSERVICE.PORT`, such as `sampler.readings`"))
        })?;
        Ok(Self {
            microservice: microservice.parse()?,
            port: port.parse()?,
        })
    }
}

impl TryFrom<String> for PortName {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<PortName> for String {
    fn from(port: PortName) -> String {
        port.to_string()
    }
}
