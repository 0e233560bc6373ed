//! Nodes in the API: the tokens by which devices join, how they do, and what the site knows of each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Name, NodeId, SiteId};
use crate::keys::PublicKey;
use crate::limits::Budget;
use crate::rest::{Counted, Health, Observation};
use crate::status::{
    BacklogStatus, EngineStatus, FlashStatus, MicroserviceStatus, Omitted, PolicyStatus,
    RefusedAssignment, RelayStatus, RouteStatus, ServedStatus, StoreStatus,
};

/// What labels may be, as [`check_label`](crate::ids::check_label) has it.
#[cfg(feature = "schema")]
fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let text = serde_json::json!({ "type": "string", "pattern": r"^[A-Za-z0-9._/-]{1,63}$" });
    schemars::json_schema!({
        "type": "object",
        "propertyNames": text,
        "additionalProperties": text,
    })
}

/// A device asks to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EnrolmentRequest {
    /// The secret of the enrolment token.
    pub secret: String,
    /// The device's own public key.
    pub key: PublicKey,
    /// A controller proof ([`crate::proof`]) with the node's id as subject: the device owns the key.
    pub proof: String,
    /// The name that it would like; the token's name wins. Must be free in the site.
    pub name: Option<Name>,
    /// Labels that it brings; those of the token win.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(schema_with = "labels"))]
    pub labels: BTreeMap<String, String>,
    /// What it has to give.
    pub budget: Budget,
    /// Version of its agent.
    pub agent_version: String,
    /// The target that its agent was built for.
    pub target: String,
}

/// A device has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Enrolment {
    /// The site that it belongs to now.
    pub site: SiteId,
    /// The site's key: the device pins it.
    pub site_key: PublicKey,
    /// The device's id, derived from its key.
    pub node: NodeId,
    /// Its name in the site.
    pub name: Name,
    /// URLs of the site's relays, best first, such as `mqtts://192.0.2.7:7421`.
    pub relays: Vec<String>,
    /// The site's CA certificate in PEM.
    pub ca_pem: String,
}

/// Asks for an enrolment token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenRequest {
    /// Name of the node that will use it; the device chooses when left out.
    #[serde(default)]
    pub name: Option<Name>,
    /// Labels that the node gets.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(schema_with = "labels"))]
    pub labels: BTreeMap<String, String>,
    /// How long it may be used, in seconds; an hour when left out.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 31_536_000)))]
    pub expires_in_s: Option<u64>,
}

/// A new enrolment token. It is shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Token {
    /// The text for `haar-agent enrol`.
    pub token: String,
    /// When it stops working: milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// A node as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Node {
    /// Its name in the site.
    pub name: Name,
    /// Its id.
    pub id: NodeId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is connected now, as the relay knows.
    pub online: bool,
    /// When it last said something: milliseconds since the Unix epoch by the controller's clock.
    pub last_seen_ms: Option<u64>,
    /// How it does now. What follows from `applied` on is what it last said, however long ago.
    #[serde(default)]
    pub health: Health,
    /// When its last status was received: milliseconds since the Unix epoch by the controller's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_ms: Option<u64>,
    /// What the site has noticed of it, beside what it reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observations: Vec<Observation>,
    /// Number of the newest assignment made for it; 0 when there is none.
    pub assignment: u64,
    /// Number of the assignment that it has applied.
    pub applied: u64,
    /// An assignment that it refused, and why.
    pub refused: Option<RefusedAssignment>,
    /// Version of its agent.
    pub agent_version: String,
    /// The target that its agent was built for.
    pub target: String,
    /// What it has to give.
    pub budget: Budget,
    /// Resident memory of its agent in bytes, as last reported.
    pub resident_bytes: Option<u64>,
    /// What its agent has written to its flash, as last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash: Option<FlashStatus>,
    /// What is or was wrong with its agent's database, as last reported; none where nothing ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,
    /// How far its clock is ahead of the controller's in milliseconds, as last reported.
    pub clock_skew_ms: Option<i64>,
}

/// Everything about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeDetail {
    /// As lists show it.
    #[serde(flatten)]
    pub node: Node,
    /// When it joined: milliseconds since the Unix epoch.
    pub enrolled_ms: u64,
    /// The engine that runs modules there, when it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStatus>,
    /// Where the memory of its budget comes from, for people, when it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_source: Option<String>,
    /// What its owner allows the site, when it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// Sequence of its last status.
    pub status_sequence: Option<u64>,
    /// Statuses that never arrived.
    pub statuses_missed: u64,
    /// Over which time it has counted what it reports; none before its first status. What was put in
    /// force later has counted from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
    /// What it reported to run.
    pub microservices: Vec<MicroserviceStatus>,
    /// Its counters per route.
    pub routes: Vec<RouteStatus>,
    /// What waits in the logs of its outlets.
    #[serde(default)]
    pub backlogs: Vec<BacklogStatus>,
    /// Frames from other nodes that it refused: not sealed by them, repeated, or of no route from
    /// them.
    #[serde(default)]
    pub frames_refused: u64,
    /// The relays that it attaches to, the most preferred first; none for the controller's alone.
    #[serde(default)]
    pub relays: Vec<RelayStatus>,
    /// The brokers of plain MQTT devices that its routes need.
    #[serde(default)]
    pub brokers: Vec<RelayStatus>,
    /// Messages of devices that it dropped because no route takes them.
    #[serde(default)]
    pub device_messages_dropped: u64,
    /// User properties of devices' messages that did not become headers there.
    #[serde(default)]
    pub device_properties_dropped: u64,
    /// The relays that it runs for its neighbours.
    #[serde(default)]
    pub serves: Vec<ServedStatus>,
    /// What its last status left out because there was no room for it; none when it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<Omitted>,
}

/// A node makes another key for its links as soon as it gets its assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LinkKeyRotation {
    /// The node.
    pub node: Name,
    /// The generation of the new key.
    pub generation: u64,
}
