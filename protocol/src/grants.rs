//! What a microservice may reach beyond its own memory, and which interfaces that makes linkable.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::quantity::ByteSize;

/// Everything granted to one microservice. What is not granted is not linked.
// Unknown fields are refused between machines too: a part of a grant that this release does not
// know might narrow it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Directories of the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<DirectoryGrant>,
    /// A key-value store of its own (`wasi:keyvalue`), as large as its limits say. It lives as long
    /// as the microservice is assigned to the node: over restarts and updates.
    #[serde(skip_serializing_if = "is_false")]
    pub key_value: bool,
    /// Absolute path under which it sees a directory of its own, as large as its limits say; kept
    /// as long as the key-value store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub data_directory: Option<String>,
    /// What it may read of the node's measurements (`haar:local/system`): `true` for everything, or a
    /// list of parts.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "system_schema"))]
    pub system: BTreeSet<SystemPart>,
}

/// A part of what a node measures of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SystemPart {
    /// Load, processor time, uptime.
    Cpu,
    /// Memory and swap space.
    Memory,
    /// Counters of network interfaces.
    Network,
    /// Counters of disks, room on file systems.
    Disks,
    /// Temperatures.
    Temperatures,
}

impl SystemPart {
    /// Each part by its name in manifests.
    pub const BY_NAME: [(&str, Self); 5] = [
        ("cpu", Self::Cpu),
        ("memory", Self::Memory),
        ("network", Self::Network),
        ("disks", Self::Disks),
        ("temperatures", Self::Temperatures),
    ];

    /// Everything that a node measures.
    pub fn all() -> BTreeSet<Self> {
        Self::BY_NAME.into_iter().map(|(_, part)| part).collect()
    }
}

#[cfg(feature = "schema")]
fn system_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let part = generator.subschema_for::<SystemPart>();
    schemars::json_schema!({
        "anyOf": [
            {"type": "boolean"},
            {"type": "array", "items": part, "uniqueItems": true}
        ]
    })
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// One directory of the node that the microservice sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DirectoryGrant {
    /// Absolute path on the node.
    pub host: String,
    /// Absolute path under which the microservice sees it.
    pub guest: String,
    /// Whether it may write there.
    #[serde(default)]
    pub access: Access,
    /// Bytes that everything in it may take, in blocks of 4 KiB, where the microservice may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "ByteSize"))]
    pub quota: Option<ByteSize>,
    /// The microservice runs without it on a node that does not have it, and with it from when it is
    /// there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    /// Whether something must be mounted there.
    #[serde(default, skip_serializing_if = "Mount::is_any")]
    pub mount: Mount,
}

/// Whether something must be mounted at a granted directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// Any directory is right.
    #[default]
    Any,
    /// A directory at which nothing is mounted counts as one that is not there.
    Required,
}

impl Mount {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

/// What may be done in a granted directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read files and list directories.
    #[default]
    ReadOnly,
    /// Change them too.
    ReadWrite,
}

/// Interfaces that every microservice may import, without their versions. Those of `wasi:cli` and
/// `wasi:filesystem` are there because every Rust program imports them as soon as it can panic:
/// nothing is behind them unless granted (no arguments, no environment, no directories). Those of
/// `wasi:sockets` are there because components of other toolchains import them whether they connect or
/// not: see [`denied`].
const ALWAYS: [&str; 35] = [
    "haar:local/types",
    "haar:local/messaging",
    "haar:local/timers",
    "haar:local/history",
    "haar:local/node",
    "wasi:config/store",
    "wasi:config/runtime",
    "wasi:logging/logging",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/types",
    "wasi:filesystem/preopens",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:sockets/network",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The package of which every call is answered with `access-denied`.
const SOCKETS: &str = "wasi:sockets/";

/// Interfaces of `wasi:keyvalue`, offered to microservices with the grant `key_value`.
const KEY_VALUE: [&str; 3] = [
    "wasi:keyvalue/store",
    "wasi:keyvalue/atomics",
    "wasi:keyvalue/batch",
];

/// The interface that is offered to microservices with the grant `system`.
const SYSTEM: &str = "haar:local/system";

/// Versions of `wasi:config/store`: of wasmtime, of Spin, and of wasmCloud.
pub const CONFIG_STORE_VERSIONS: [&str; 3] =
    ["0.2.0-rc.1", "0.2.0-draft-2024-09-27", "0.2.0-draft"];
/// Versions of `wasi:config/runtime`, as the interface was called before.
pub const CONFIG_RUNTIME_VERSIONS: [&str; 1] = ["0.2.0-draft"];
/// Versions of `wasi:keyvalue`.
pub const KEY_VALUE_VERSIONS: [&str; 2] = ["0.2.0-draft", "0.2.0-draft2"];

/// The imports of a component that nothing offers, given what its microservice is granted.
/// `imports` are names with versions, such as `wasi:sockets/tcp@0.2.6`, as the component has them.
pub fn lacking<'a>(imports: &'a [String], grants: &Grants) -> Vec<&'a str> {
    imports
        .iter()
        .map(String::as_str)
        .filter(|import| !offered(import, grants))
        .collect()
}

/// The grants that `imports` need, as they stand in a manifest, each once.
pub fn needed(imports: &[String]) -> Vec<&'static str> {
    let none = Grants::default();
    let mut needed: Vec<_> = lacking(imports, &none)
        .into_iter()
        .filter_map(grant_for)
        .collect();
    needed.sort_unstable();
    needed.dedup();
    needed
}

/// True for an interface that no grant offers, and that is not offered without one.
pub fn is_beyond_all(import: &str) -> bool {
    !offered(import, &Grants::default()) && grant_for(import).is_none()
}

/// Of what a component imports, what is offered and denied with every call: for people, who may wonder
/// why their microservice does not get through.
pub fn denied(imports: &[String]) -> Option<&'static str> {
    let imports_sockets = imports.iter().any(|import| import.starts_with(SOCKETS));
    imports_sockets.then_some(
        "`wasi:sockets`: no grant opens sockets yet, so each call is answered with `access-denied`",
    )
}

/// What to do about an import that no grant offers, where that is known.
pub fn advice_for(import: &str) -> Option<&'static str> {
    if import.starts_with("wasi:http/") {
        return Some(
            "HTTP is not offered to microservices yet: build the module without `wasi:http` (componentize-js: `--disable http fetch-event`)",
        );
    }
    None
}

/// How to grant what offers `import`, as it stands in a manifest; none when no grant offers it.
pub fn grant_for(import: &str) -> Option<&'static str> {
    let everything = Grants {
        key_value: true,
        system: SystemPart::all(),
        ..Grants::default()
    };
    if !offered(import, &everything) {
        return None;
    }
    match import.split('@').next().unwrap_or_default() {
        SYSTEM => Some("grants: { system: true }"),
        name if KEY_VALUE.contains(&name) => Some("grants: { key_value: true }"),
        _ => None,
    }
}

/// True when the agents of this release offer the interface to a microservice with these grants.
/// Drafts have the versions that are named here; of the others every patch of one minor version is
/// compatible, as the component model has it below 1.0 (Component Model `Explainer.md`, "canonical
/// interface name").
fn offered(import: &str, grants: &Grants) -> bool {
    let Some((name, version)) = import.split_once('@') else {
        return false;
    };
    let family = match name {
        "wasi:config/store" => return CONFIG_STORE_VERSIONS.contains(&version),
        "wasi:config/runtime" => return CONFIG_RUNTIME_VERSIONS.contains(&version),
        "wasi:logging/logging" => return version == "0.1.0-draft",
        _ if KEY_VALUE.contains(&name) => {
            return grants.key_value && KEY_VALUE_VERSIONS.contains(&version);
        }
        _ if name.starts_with("haar:") => "0.1.",
        _ => "0.2.",
    };
    let is_patch =
        |patch: &str| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
    let is_there = ALWAYS.contains(&name) || (name == SYSTEM && !grants.system.is_empty());
    is_there && version.strip_prefix(family).is_some_and(is_patch)
}
