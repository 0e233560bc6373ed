//! Everything that one node says it runs: a complete, sequenced snapshot, signed by the node.

use serde::{Deserialize, Serialize};

use crate::assignment::MicroserviceName;
use crate::ids::{Digest, Name, NodeId, RouteId, SiteId};
use crate::keys::LinkKey;
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
    /// The engine that runs modules there. None from agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStatus>,
    /// Number of the assignment that is in force; 0 before the first one.
    pub applied: u64,
    /// The last assignment that was refused since `applied` came into force, if any.
    pub refused: Option<RefusedAssignment>,
    /// What the node has to give.
    pub budget: Budget,
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
    /// What runs.
    pub microservices: Vec<MicroserviceStatus>,
    /// Counters per route and far end.
    pub routes: Vec<RouteStatus>,
    /// What waits in the logs of outlets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backlogs: Vec<BacklogStatus>,
    /// Frames from other nodes that were refused: not sealed by them, repeated, or of no route from
    /// them.
    pub frames_refused: u64,
    /// The relays that the node attaches to, the most preferred first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RelayStatus>,
    /// The relays that it runs for its neighbours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<ServedStatus>,
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
    /// Why it is not, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
    /// How often it hibernated, since the agent started.
    #[serde(default)]
    pub hibernations: u64,
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
    /// Processor time used, in milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Messages that wait in the inbox.
    #[serde(default)]
    pub inbox_messages: u64,
    /// Bytes in the key-value store.
    #[serde(default)]
    pub key_value_bytes: u64,
    /// Bytes in the private data directory, in blocks of 4 KiB, when last looked at.
    #[serde(default)]
    pub files_bytes: u64,
    /// Dead letters that are kept.
    #[serde(default)]
    pub dead_letters: u64,
    /// How often each limit was exceeded.
    #[serde(default)]
    pub exceeded: Exceeded,
    /// The last failure of an instance, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureReport>,
}

/// How often each limit of a microservice was exceeded, since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Exceeded {
    /// Calls that ran out of fuel.
    pub fuel: u64,
    /// Calls that took longer than `call_timeout`.
    pub call_timeout: u64,
    /// Growths of memory that were denied.
    pub memory: u64,
    /// Growths of tables that were denied.
    pub table_elements: u64,
    /// Instances that did not start because their component has more parts.
    pub core_instances: u64,
    /// Calls that recursed too deep.
    pub stack: u64,
    /// Times that the instance was held back for its processor share.
    pub cpu: u64,
    /// Publishes refused for their rate.
    pub publish_per_second: u64,
    /// Publishes refused for their size.
    pub message_size: u64,
    /// Messages dropped because the inbox was full.
    pub inbox_messages: u64,
    /// Log lines dropped for their rate in lines or bytes.
    pub log: u64,
    /// Publishes refused because the log of durable routes was full, or could not be written.
    pub backlog: u64,
    /// Timers not set because there were too many.
    pub timers: u64,
    /// Key-value writes refused for the store's size.
    pub key_value_size: u64,
    /// Key-value operations refused for their rate.
    pub key_value_per_second: u64,
    /// Key-value writes that waited for their rate.
    #[serde(default)]
    pub key_value_writes_per_second: u64,
    /// Writes to files refused for a quota.
    pub files_size: u64,
}

impl Exceeded {
    /// Each limit by its name, with how often it was exceeded.
    pub fn by_name(&self) -> [(&'static str, u64); 17] {
        let Exceeded {
            fuel,
            call_timeout,
            memory,
            table_elements,
            core_instances,
            stack,
            cpu,
            publish_per_second,
            message_size,
            inbox_messages,
            log,
            backlog,
            timers,
            key_value_size,
            key_value_per_second,
            key_value_writes_per_second,
            files_size,
        } = *self;
        [
            ("fuel", fuel),
            ("call_timeout", call_timeout),
            ("memory", memory),
            ("table_elements", table_elements),
            ("core_instances", core_instances),
            ("stack", stack),
            ("cpu", cpu),
            ("publish_per_second", publish_per_second),
            ("message_size", message_size),
            ("inbox_messages", inbox_messages),
            ("log", log),
            ("backlog", backlog),
            ("timers", timers),
            ("key_value_size", key_value_size),
            ("key_value_per_second", key_value_per_second),
            ("key_value_writes_per_second", key_value_writes_per_second),
            ("files_size", files_size),
        ]
    }
}

/// A failure of an instance, for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FailureReport {
    /// When: milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Why.
    pub cause: FailureCause,
    /// What exceeded which limit, or the engine's own words.
    pub details: String,
    /// Frames of the guest, the innermost first, with file and line where the module has debug
    /// information.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
    /// The last lines that the microservice wrote before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

/// Why an instance failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FailureCause {
    /// A call burnt more fuel than it may.
    Fuel,
    /// It needed more memory than its limit, or a larger table.
    Memory,
    /// It recursed too deep.
    Stack,
    /// A call took longer than it may.
    Deadline,
    /// It ran into `unreachable`: a panic, usually.
    Unreachable,
    /// It touched memory that it does not have: too deep a recursion, usually.
    OutOfBounds,
    /// `start` returned an error.
    Start,
    /// Anything else that WebAssembly traps on, or a failing host function.
    Other,
}

impl std::fmt::Display for FailureCause {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            FailureCause::Fuel => "out of fuel",
            FailureCause::Memory => "out of memory",
            FailureCause::Stack => "stack overflow",
            FailureCause::Deadline => "took too long",
            FailureCause::Unreachable => "panicked",
            FailureCause::OutOfBounds => "touched memory out of bounds (recursed too deep?)",
            FailureCause::Start => "`start` returned an error",
            FailureCause::Other => "trapped",
        })
    }
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
    /// It was idle for as long as its limits say: nothing of it is in memory until something comes
    /// for it.
    Hibernating,
    /// It failed, and starts again after a pause.
    BackOff,
    /// It is not run: the module was refused or can't be had. `reason` says why.
    Refused,
    /// It stops.
    Stopping,
}

impl State {
    /// True when it does what it was assigned for: it runs, or hibernates until there is something to
    /// do.
    pub fn is_up(self) -> bool {
        matches!(self, State::Running | State::Hibernating)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            State::Preparing => "preparing",
            State::Running => "running",
            State::Hibernating => "hibernating",
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
    /// The name of the node at the other end; this node's own name for a local route. That of the
    /// relay for a route whose other end is a topic.
    pub peer: Name,
    /// The topic at the other end: `mqtt:TOPIC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Messages that entered the route here.
    pub sent: u64,
    /// Messages that were put into an inbox here.
    pub delivered: u64,
    /// Messages that were acknowledged by a handler here.
    pub handled: u64,
    /// Messages that were dropped here: a full queue or inbox, no connection, or discarded.
    pub dropped: u64,
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
