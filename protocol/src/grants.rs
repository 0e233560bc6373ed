//! What a microservice may reach beyond its own memory, and which interfaces that makes linkable.

use serde::{Deserialize, Serialize};

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
/// nothing is behind them unless granted (no arguments, no environment, no directories).
const ALWAYS: [&str; 25] = [
    "haar:local/types",
    "haar:local/messaging",
    "haar:local/timers",
    "wasi:config/store",
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
];

/// The imports of a component that nothing offers, given what its microservice is granted.
/// `imports` are names with versions, such as `wasi:sockets/tcp@0.2.6`, as the component has them.
pub fn lacking<'a>(imports: &'a [String], _grants: &Grants) -> Vec<&'a str> {
    imports
        .iter()
        .map(String::as_str)
        .filter(|import| !offered(import))
        .collect()
}

/// True when the agents of this release offer the interface to every microservice. Drafts have one
/// version each; of the others every patch of one minor version is compatible, as the component
/// model has it below 1.0 (Component Model `Explainer.md`, "canonical interface name").
fn offered(import: &str) -> bool {
    let Some((name, version)) = import.split_once('@') else {
        return false;
    };
    let family = match name {
        "wasi:config/store" => return version == "0.2.0-rc.1",
        "wasi:logging/logging" => return version == "0.1.0-draft",
        _ if name.starts_with("haar:") => "0.1.",
        _ => "0.2.",
    };
    let is_patch =
        |patch: &str| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
    ALWAYS.contains(&name) && version.strip_prefix(family).is_some_and(is_patch)
}
