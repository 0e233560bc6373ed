//! How one microservice fares on its node: what it does, what it has used, which limits it exceeded
//! and why it last failed.

use serde::{Deserialize, Serialize};

use crate::assignment::MicroserviceName;
use crate::ids::Digest;

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
    /// The module of a change that was refused, for `reason`, while what ran before it goes on. Its own
    /// module when its `configuration-changed` refused other values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_module: Option<Digest>,
    /// True while it has not answered yet to other values of its configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub configuring: bool,
    /// Since when: milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// How many seconds after the agent's start its counters began.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub counted_after_s: u64,
    /// How often it was started again after a failure.
    pub restarts: u64,
    /// How often it hibernated, since the agent started.
    #[serde(default)]
    pub hibernations: u64,
    /// Calls into the instance.
    pub calls: u64,
    /// Calls that trapped, ran out of fuel or time, or were rejected.
    pub failures: u64,
    /// Messages that were discarded for good: its handler said so, or they are larger than it takes.
    /// They are among `failures`, too.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub discarded: u64,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// It is not run: its module or something that it is granted was refused. `reason` says why.
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
