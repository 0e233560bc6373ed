//! Modules in the API: who may publish them, how they are pushed, and what was compiled of them.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Name};
use crate::keys::PublicKey;

/// A key whose modules the site runs. A publisher with several keys is several of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrustedPublisher {
    /// Its name in the site.
    pub name: Name,
    /// Its key.
    pub key: PublicKey,
    /// Since when: milliseconds since the Unix epoch.
    pub added_ms: u64,
}

/// Trusts a key in the place of those that the publisher has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PublisherRequest {
    /// The key.
    pub key: PublicKey,
}

/// A pushed module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Module {
    /// Its digest.
    pub digest: Digest,
    /// Its name, from its metadata.
    pub name: Name,
    /// Its version, from its metadata.
    pub version: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Names of the trusted publishers that signed it.
    pub publishers: Vec<Name>,
    /// Interfaces that it imports, with versions.
    pub imports: Vec<String>,
    /// Interfaces that it exports, with versions.
    pub exports: Vec<String>,
    /// When it was pushed: milliseconds since the Unix epoch.
    pub pushed_ms: u64,
}

/// What the controller has compiled of a module for one kind of node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModuleCode {
    /// The fingerprint of the engine that the code is for.
    pub engine: String,
    /// The target that it is for, such as `aarch64-linux`.
    pub target: String,
    /// Its size in bytes as nodes fetch it, when there is code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_bytes: Option<u64>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Where there is none yet: how far it is, such as `compiling for 12 s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
}

/// How much of an upload has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UploadState {
    /// Bytes that are there; the next part begins here.
    pub offset: u64,
    /// True when the module is whole and was accepted.
    pub complete: bool,
}
