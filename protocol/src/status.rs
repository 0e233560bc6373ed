//! Everything that one node says it runs: a complete, sequenced snapshot, signed by the node.

use serde::{Deserialize, Serialize};

use crate::assignment::MicroserviceName;
use crate::ids::{Digest, Name, NodeId, RouteId, SiteId};
use crate::limits::Budget;
use crate::signed::Document;

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
    /// Version of the agent.
    pub agent_version: String,
    /// The target that the agent was built for, such as `aarch64-unknown-linux-musl`.
    pub target: String,
    /// Number of the assignment that is in force; 0 before the first one.
    pub applied: u64,
    /// The last assignment that was refused since `applied` came into force, if any.
    pub refused: Option<RefusedAssignment>,
    /// What the node has to give.
    pub budget: Budget,
    /// Resident memory of the agent in bytes.
    pub resident_bytes: u64,
    /// What runs.
    pub microservices: Vec<MicroserviceStatus>,
    /// Counters per route and far end.
    pub routes: Vec<RouteStatus>,
    /// Live frames from other nodes that were refused: no such route, wrong type, malformed.
    pub frames_refused: u64,
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

/// How a microservice fares on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MicroserviceStatus {
    /// What it is called.
    #[serde(flatten)]
    pub name: MicroserviceName,
    /// Its module.
    pub module: Digest,
    /// The module's name and version.
    pub module_label: String,
    /// What it does now.
    pub state: State,
    /// Why it is in this state, for a person: the cause of a failure or refusal.
    pub reason: Option<String>,
    /// Since when: milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// How often it was started again after a failure.
    pub restarts: u64,
    /// Calls into the instance.
    pub calls: u64,
    /// Calls that trapped, ran out of fuel or time, or were rejected.
    pub failures: u64,
    /// Fuel burnt.
    pub fuel: u64,
    /// Linear memory in bytes.
    pub memory_bytes: u64,
    /// Log lines dropped by the limit.
    pub log_lines_dropped: u64,
}

/// What a microservice does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its module is fetched, verified or compiled.
    Preparing,
    /// It runs.
    Running,
    /// It failed, and starts again after a pause.
    BackOff,
    /// It is not run: the module was refused or can't be had. `reason` says why.
    Refused,
    /// It stops.
    Stopping,
}

impl std::fmt::Display for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            State::Preparing => "preparing",
            State::Running => "running",
            State::BackOff => "back-off",
            State::Refused => "refused",
            State::Stopping => "stopping",
        })
    }
}

/// Counters of a route as this node sees it, since the agent started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RouteStatus {
    /// The route.
    pub id: RouteId,
    /// The name of the node at the other end; this node's own name for a local route.
    pub peer: Name,
    /// Messages that entered the route here.
    pub sent: u64,
    /// Messages that were put into an inbox here.
    pub delivered: u64,
    /// Messages that were acknowledged by a handler here.
    pub handled: u64,
    /// Messages that were dropped here: a full queue or inbox, no connection, or discarded.
    pub dropped: u64,
}
