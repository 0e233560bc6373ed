//! Everything that one node says it runs: a complete, sequenced snapshot, signed by the node. Here
//! what is true of the node as a whole; how what runs on it fares is a [`MicroserviceStatus`].

mod microservice;
mod fitting;
mod policy;

use serde::{Deserialize, Serialize};

use crate::assignment::MicroserviceName;
use crate::ids::{Name, NodeId, RouteId, SiteId};
use crate::keys::LinkKey;
use crate::limits::Budget;
use crate::signed::Document;

pub use fitting::{Omitted, fit};
pub use microservice::{Exceeded, FailureCause, FailureReport, MicroserviceStatus, State};
pub use policy::{AllowedDirectory, OUTLINE_ENTRIES_MAX, PolicyStatus};

/// The status of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node's site.
    pub site: SiteId,
    /// The node.
    pub node: NodeId,
    /// Counts the node's statuses over restarts, from 1 up; a gap is visible.
    pub sequence: u64,
    /// When it was made: milliseconds since the Unix epoch by the node's clock.
    pub sent_ms: u64,
    /// When the agent started, likewise.
    pub started_ms: u64,
    /// How long it had run then, in milliseconds, whatever its clock did meanwhile. None from agents that
    /// do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// How long the agent pauses between statuses at most, in milliseconds. None from agents that do
    /// not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// This start of the agent. None from agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartStatus>,
    /// Version of the agent.
    pub agent_version: String,
    /// The target that the agent was built for, such as `aarch64-unknown-linux-musl`.
    pub target: String,
    /// The engine that runs modules there. None from agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStatus>,
    /// Number of the assignment that is in force; 0 before the first one.
    pub applied: u64,
    /// The last assignment that was refused since `applied` came into force, if any.
    pub refused: Option<RefusedAssignment>,
    /// What the node has to give.
    pub budget: Budget,
    /// Where the budget's memory comes from, for people. None from agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_source: Option<String>,
    /// What its owner allows the site. None from agents of earlier releases, which have no policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// The node's key for links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_key: Option<LinkKey>,
    /// The generation of that key: how often it was made anew, as the site counts.
    #[serde(default)]
    pub link_key_generation: u64,
    /// Resident memory of the agent in bytes.
    pub resident_bytes: u64,
    /// What it has written to its flash; none where the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash: Option<FlashStatus>,
    /// What is or was wrong with the agent's database; none where nothing ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,
    /// What runs.
    pub microservices: Vec<MicroserviceStatus>,
    /// Counters per route and far end.
    pub routes: Vec<RouteStatus>,
    /// What waits in the logs of outlets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backlogs: Vec<BacklogStatus>,
    /// Messages that waited on durable routes and were discarded, because somebody has changed or
    /// deleted the routes: of how many routes, and how many, since the node has its database.
    #[serde(default, skip_serializing_if = "Overflow::is_none")]
    pub discarded: Overflow,
    /// Frames from other nodes that were refused: not sealed by them, repeated, or of no route from
    /// them.
    pub frames_refused: u64,
    /// The relays that the node attaches to, the most preferred first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RelayStatus>,
    /// The brokers of plain MQTT devices that its routes need, by name: sessions of their own, also
    /// where it attaches to the same broker as a relay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<RelayStatus>,
    /// Messages of devices that were dropped because no route takes them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device_messages_dropped: u64,
    /// User properties of devices' messages that did not become headers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device_properties_dropped: u64,
    /// The relays that it runs for its neighbours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<ServedStatus>,
    /// What is left out because there was no room for it; none when everything is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<Omitted>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What is or was wrong with the database of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreStatus {
    /// Why it can't be used now, for a person; none when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Since when, likewise: milliseconds since the Unix epoch by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Bytes that are free on the disk with the agent's data, where that is full or nearly so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// The last time that it was found damaged, or gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<StoreDamage>,
}

/// What became of a damaged database. Another one is in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StoreDamage {
    /// When it was found: milliseconds since the Unix epoch by the node's clock.
    pub found_ms: u64,
    /// What was wrong with it, for a person.
    pub reason: String,
    /// Kinds of data of which something could not be copied, for a person.
    pub missing: Vec<String>,
    /// Messages of durable routes that were waiting and could be copied. They may be sent twice.
    pub messages: u64,
    /// Messages of durable routes that were waiting and are known to be lost. There may be more.
    pub messages_missing: u64,
}

/// What tells one start of an agent from every other one with the node's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StartStatus {
    /// Random: 16 hexadecimal digits.
    pub id: String,
    /// The address that its machine uses on the way to the relay, as far as it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What runs modules on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EngineStatus {
    /// Identifies the engine and its settings: code is compiled for one engine. 64 hexadecimal digits.
    pub fingerprint: String,
    /// What code it loads, such as `aarch64-linux` or `pulley32`.
    pub target: String,
    /// Whether the agent can compile modules itself.
    pub compiler: bool,
    /// Whether it takes code that the controller has compiled.
    pub precompiled: bool,
}

/// How much an agent has written. Flash wears by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FlashStatus {
    /// Bytes that it has given to disks since it started, as the kernel counts them: in whole pages,
    /// without what the file system writes for itself.
    pub written_bytes: u64,
    /// Of these, since the day began (UTC).
    pub today_bytes: u64,
    /// How much a day should take at most, if its owner has said so. Nothing stops at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_bytes: Option<u64>,
}

impl FlashStatus {
    /// True when more was written today than should be.
    pub fn is_over_budget(&self) -> bool {
        self.budget_bytes
            .is_some_and(|budget| self.today_bytes > budget)
    }
}

/// How a node fares with a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelayStatus {
    /// The relay's name in the site.
    pub name: Name,
    /// Whether the node is connected to it.
    pub connected: bool,
    /// Why it is not, for a person; while it is connected, what the relay refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is connected, or is not: milliseconds since the Unix epoch by the node's clock.
    /// None from agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// How a relay fares that the node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServedStatus {
    /// The relay's name in the site.
    pub name: Name,
    /// Why it does not run, for a person; none when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Document for Status {
    const KIND: u8 = 2;
    const VERSION: u8 = 1;
    const WHAT: &'static str = "status";
}

/// An assignment that the node did not accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RefusedAssignment {
    /// Its number, when it could be read.
    pub number: Option<u64>,
    /// Why, for a person.
    pub reason: String,
}

/// Counters of a route as this node sees it, since the agent started, or the route was put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RouteStatus {
    /// The route.
    pub id: RouteId,
    /// The name of the node at the other end; this node's own name for a local route. That of the
    /// relay for a route whose other end is a topic.
    pub peer: Name,
    /// The topic at the other end: `mqtt:TOPIC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// How many seconds after the agent's start they began to count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub counted_after_s: u64,
    /// Messages that entered the route here.
    pub sent: u64,
    /// Messages that were put into an inbox here.
    pub delivered: u64,
    /// Messages that were acknowledged by a handler here.
    pub handled: u64,
    /// Messages that were dropped here: a full queue or inbox, no connection, overtaken by newer ones of
    /// a live route, or discarded.
    pub dropped: u64,
    /// Messages that wait here on a durable route: to be acknowledged by the other node, or to be
    /// handled here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: u64,
    /// Why the route does not do all that its manifest says, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How many seconds after the agent's start that began. None from agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem_after_s: Option<u64>,
}

/// The log of an outlet with durable routes, as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BacklogStatus {
    /// The microservice.
    #[serde(flatten)]
    pub name: MicroserviceName,
    /// The outlet.
    pub outlet: Name,
    /// Bytes that wait.
    pub bytes: u64,
    /// Bytes that may wait.
    pub bytes_max: u64,
    /// Messages that were refused because the log was full.
    pub refused: Overflow,
    /// The oldest messages, which were dropped because the log was full.
    pub dropped: Overflow,
}

/// What a full log made of messages, since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Overflow {
    /// How often it began: the log was full, and half of it had been free before.
    pub episodes: u64,
    /// Messages in all.
    pub messages: u64,
}

impl Overflow {
    /// True when there was none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
