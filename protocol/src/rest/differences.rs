//! In what a manifest differs from what is applied, told by an apply or before it.

use serde::{Deserialize, Serialize};

/// A part of a manifest that is not as it is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    /// What kind of thing it is.
    pub kind: DifferenceKind,
    /// Its name; a route is `FROM -> TO`.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
    /// The keys with other values, in order. Of what is added or removed only those that say what it
    /// is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyDifference>,
}

/// The parts of manifests that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// An application.
    Application,
    /// A microservice of one.
    Microservice,
    /// A route of one.
    Route,
    /// A relay.
    Relay,
}

impl std::fmt::Display for DifferenceKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            DifferenceKind::Application => "application",
            DifferenceKind::Microservice => "microservice",
            DifferenceKind::Route => "route",
            DifferenceKind::Relay => "relay",
        })
    }
}

/// What becomes of a part of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It was not there before.
    Added,
    /// Some of its keys have other values.
    Changed,
    /// It is no longer there.
    Removed,
}

/// A key with another value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyDifference {
    /// The key with those above it, such as `limits.memory`. `nodes` are those on which it runs, and
    /// `digest` is its module's where the reference in the manifest stays.
    pub key: String,
    /// Its value before, with defaults filled in; none when it had none. A secret is only named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its value after it, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}
