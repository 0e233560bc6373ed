//! What a change takes away, told before it is made.

use serde::{Deserialize, Serialize};

use crate::ids::Name;

/// The answer to a change that is only tried (`dry_run`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Preview {
    /// What would stop or be lost.
    pub losses: Vec<Loss>,
}

/// Something that stops or is lost with a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Loss {
    /// What kind of thing it is.
    pub kind: LossKind,
    /// The microservice, the route as `FROM -> TO`, or the relay.
    pub subject: String,
    /// The nodes where that happens.
    pub nodes: Vec<Name>,
    /// Instances, messages, or bytes; as far as the nodes have reported them. 0 where nobody knows.
    pub count: u64,
    /// When the oldest report that this rests on was received: milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_ms: Option<u64>,
    /// The same for people.
    pub message: String,
}

/// What a change takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Instances stop.
    Stop,
    /// Messages that wait on a durable route, or at a broker for one, are lost.
    Messages,
    /// What is stored for a microservice is lost.
    Data,
}
