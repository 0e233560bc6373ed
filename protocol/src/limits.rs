//! What one microservice may use at most, and what a node has to give.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::number::NUMBER_MAX;
use crate::quantity::{ByteSize, Millis, Percent};

/// The limits of one microservice. In manifests each may be left out and has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
#[serde(default)]
pub struct Limits {
    /// Linear memory of the instance.
    pub memory: ByteSize,
    /// Elements of all tables of the instance together.
    #[cfg_attr(feature = "schema", schemars(range(min = *TABLE_ELEMENTS.start(), max = *TABLE_ELEMENTS.end())))]
    pub table_elements: u32,
    /// Core instances inside the component; likewise memories, and tables.
    #[cfg_attr(feature = "schema", schemars(range(min = *CORE_INSTANCES.start(), max = *CORE_INSTANCES.end())))]
    pub core_instances: u32,
    /// Processor time per time, of one core: a ceiling, and what the node sets aside. Without it
    /// the instance takes what others leave, up to one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Percent"))]
    pub cpu: Option<Percent>,
    /// Units of fuel that one call may burn (about one per WebAssembly instruction).
    #[cfg_attr(feature = "schema", schemars(range(min = *FUEL_PER_CALL.start(), max = *FUEL_PER_CALL.end())))]
    pub fuel_per_call: u64,
    /// Wall-clock time that one call may take, waiting included.
    pub call_timeout: Millis,
    /// How long the last call of an instance that is asked to stop may take.
    pub stop_grace: Millis,
    /// Messages that may wait in front of the instance.
    #[cfg_attr(feature = "schema", schemars(range(min = *INBOX_MESSAGES.start(), max = *INBOX_MESSAGES.end())))]
    pub inbox_messages: u32,
    /// Size of one message, body and headers together.
    pub message_size: ByteSize,
    /// Messages that the instance may publish in a second, on average over a second.
    #[cfg_attr(feature = "schema", schemars(range(min = *PUBLISH_PER_SECOND.start(), max = *PUBLISH_PER_SECOND.end())))]
    pub publish_per_second: u32,
    /// Log lines that the instance may write in a second; the rest is counted and dropped.
    #[cfg_attr(feature = "schema", schemars(range(min = *LOG_LINES_PER_SECOND.start(), max = *LOG_LINES_PER_SECOND.end())))]
    pub log_lines_per_second: u32,
    /// Bytes of log lines that the instance may write in a second; the rest is counted and dropped.
    pub log_bytes_per_second: ByteSize,
    /// Bytes that keys and values of its key-value store may take, 64 bytes each pair beside them.
    pub key_value_size: ByteSize,
    /// Operations on its key-value store in a second, on average over a second.
    #[cfg_attr(feature = "schema", schemars(range(min = *KEY_VALUE_PER_SECOND.start(), max = *KEY_VALUE_PER_SECOND.end())))]
    pub key_value_per_second: u32,
    /// Calls that write to its key-value store in a second, a batch as one: each is a commit, synced
    /// to the disk. What comes faster waits, after a quarter of a second's worth at once.
    #[cfg_attr(feature = "schema", schemars(range(min = *KEY_VALUE_WRITES_PER_SECOND.start(), max = *KEY_VALUE_WRITES_PER_SECOND.end())))]
    pub key_value_writes_per_second: u32,
    /// Bytes that its private data directory may take, in blocks of 4 KiB.
    pub files_size: ByteSize,
    /// Timers that may be set at one time.
    #[cfg_attr(feature = "schema", schemars(range(min = *TIMERS.start(), max = *TIMERS.end())))]
    pub timers: u32,
    /// An instance that has been idle for so long hibernates: it stops and its memory is given back,
    /// until a message, a timer or another configuration starts it again. Without it, it never does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Millis"))]
    pub hibernate_after: Option<Millis>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize(16 << 20),
            table_elements: 65_536,
            core_instances: 64,
            cpu: None,
            fuel_per_call: 1_000_000_000,
            call_timeout: Millis(5_000),
            stop_grace: Millis(5_000),
            inbox_messages: 1_024,
            message_size: ByteSize(256 << 10),
            publish_per_second: 10_000,
            log_lines_per_second: 100,
            log_bytes_per_second: ByteSize(64 << 10),
            key_value_size: ByteSize(1 << 20),
            key_value_per_second: 1_000,
            key_value_writes_per_second: 100,
            files_size: ByteSize(16 << 20),
            timers: 16,
            hibernate_after: None,
        }
    }
}

/// The least and most that each limit may be; outside of it a manifest is refused.
pub const MEMORY_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(2 << 30);
/// See [`MEMORY_BYTES`].
pub const FUEL_PER_CALL: std::ops::RangeInclusive<u64> = 100_000..=1_000_000_000_000;
/// See [`MEMORY_BYTES`].
pub const CALL_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1..=600_000;
/// See [`MEMORY_BYTES`].
pub const INBOX_MESSAGES: std::ops::RangeInclusive<u32> = 1..=65_536;
/// See [`MEMORY_BYTES`]. The upper end fits a relay's packet limit of 1 MiB.
pub const MESSAGE_BYTES: std::ops::RangeInclusive<u64> = 1..=(512 << 10);

/// See [`MEMORY_BYTES`].
pub const PUBLISH_PER_SECOND: std::ops::RangeInclusive<u32> = 1..=100_000;
/// See [`MEMORY_BYTES`].
pub const LOG_LINES_PER_SECOND: std::ops::RangeInclusive<u32> = 1..=10_000;
/// See [`MEMORY_BYTES`].
pub const TABLE_ELEMENTS: std::ops::RangeInclusive<u32> = 0..=10_000_000;
/// See [`MEMORY_BYTES`]. In percent of one core.
pub const CPU_PERCENT: std::ops::RangeInclusive<u32> = 1..=100;
/// See [`MEMORY_BYTES`].
pub const CORE_INSTANCES: std::ops::RangeInclusive<u32> = 1..=1_024;
/// See [`MEMORY_BYTES`].
pub const STOP_GRACE_MS: std::ops::RangeInclusive<u64> = 0..=600_000;
/// See [`MEMORY_BYTES`].
pub const LOG_BYTES_PER_SECOND: std::ops::RangeInclusive<u64> = 0..=(16 << 20);
/// See [`MEMORY_BYTES`].
pub const KEY_VALUE_BYTES: std::ops::RangeInclusive<u64> = 0..=(1 << 30);
/// See [`MEMORY_BYTES`].
pub const KEY_VALUE_PER_SECOND: std::ops::RangeInclusive<u32> = 0..=100_000;
/// See [`MEMORY_BYTES`].
pub const KEY_VALUE_WRITES_PER_SECOND: std::ops::RangeInclusive<u32> = 1..=100_000;
/// See [`MEMORY_BYTES`].
pub const FILES_BYTES: std::ops::RangeInclusive<u64> = 0..=(1 << 40);
/// See [`MEMORY_BYTES`].
pub const TIMERS: std::ops::RangeInclusive<u32> = 0..=1_024;
/// See [`MEMORY_BYTES`]. Starting again costs little, but more than waiting for a second.
pub const HIBERNATE_AFTER_MS: std::ops::RangeInclusive<u64> = 1_000..=(365 * 86_400_000);

/// What a node has to give to microservices; part of its enrolment and its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Budget {
    /// The sum of the memory limits of all its microservices may not exceed this.
    pub memory: ByteSize,
    /// How many microservices it runs at most.
    pub microservices: u32,
    /// The sum of what they set aside of processors (`cpu`), in percent of one core.
    #[serde(default = "unbounded")]
    pub cpu_percent: u32,
    /// The sum of what they may store: key-value data, private files, histories, and the logs of
    /// durable routes.
    #[serde(default = "unbounded_bytes", deserialize_with = "bytes_or_unbounded")]
    pub storage: ByteSize,
}

impl Budget {
    /// A budget of memory and number, with everything else unbounded.
    pub fn new(memory: ByteSize, microservices: u32) -> Self {
        Self {
            memory,
            microservices,
            cpu_percent: unbounded(),
            storage: unbounded_bytes(),
        }
    }
}

/// A node of an earlier release does not say.
fn unbounded() -> u32 {
    u32::MAX
}

fn unbounded_bytes() -> ByteSize {
    ByteSize(NUMBER_MAX)
}

/// What agents send that enrolled before budgets had storage, and databases hold of them.
const NO_LIMIT_BEFORE: &str = "18446744073709551615B";

fn bytes_or_unbounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        NO_LIMIT_BEFORE => Ok(unbounded_bytes()),
        text => text.parse().map_err(D::Error::custom),
    }
}

/// What happens after a failure of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
#[serde(default)]
pub struct RestartPolicy {
    /// The pause before the first start after a failure, the second one in a row, and so on; the
    /// last one holds for all further ones.
    pub pauses: Vec<Millis>,
    /// Up to so much of a pause is added to it by chance, so that a fleet does not start as one.
    pub jitter: Percent,
    /// An instance that has run for so long has recovered: its next failure counts as the first.
    pub recovered_after: Millis,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            pauses: [0, 10_000, 30_000, 60_000].map(Millis).to_vec(),
            jitter: Percent(25),
            recovered_after: Millis(600_000),
        }
    }
}

/// Pauses that a [`RestartPolicy`] may list.
pub const RESTART_PAUSES_MAX: usize = 16;
/// The longest of them, in milliseconds.
pub const RESTART_PAUSE_MS_MAX: u64 = 86_400_000;

/// What happens to a message that was not handled: rejected with `retry`, or handled by an
/// instance that failed over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
#[serde(default)]
pub struct RetryPolicy {
    /// Deliveries at most; after the last one the message becomes a dead letter.
    #[cfg_attr(feature = "schema", schemars(range(min = *RETRY_ATTEMPTS.start(), max = *RETRY_ATTEMPTS.end())))]
    pub attempts: u32,
    /// The pause before the second delivery; it doubles with each further one.
    pub pause: Millis,
    /// Dead letters kept at most; the oldest makes room and is counted.
    #[cfg_attr(feature = "schema", schemars(range(min = *DEAD_LETTERS.start(), max = *DEAD_LETTERS.end())))]
    pub dead_letters: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Millis(100),
            dead_letters: 100,
        }
    }
}

/// See [`MEMORY_BYTES`].
pub const RETRY_ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=100;
/// See [`MEMORY_BYTES`].
pub const DEAD_LETTERS: std::ops::RangeInclusive<u32> = 0..=10_000;
/// The longest pause before a second delivery, in milliseconds.
pub const RETRY_PAUSE_MS_MAX: u64 = 3_600_000;

/// How much of a port's messages is kept for the microservice's own queries: the newest ones that
/// are neither over the size nor over the age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Retention {
    /// Bytes of bodies and headers, 64 bytes each message beside them.
    pub size: ByteSize,
    /// Age by the publishing node's clock.
    pub age: Millis,
}

/// See [`MEMORY_BYTES`].
pub const RETENTION_BYTES: std::ops::RangeInclusive<u64> = 1..=(1 << 30);
/// The longest age of a [`Retention`], in milliseconds: ten years.
pub const RETENTION_AGE_MS_MAX: u64 = 3_650 * 86_400_000;

/// What a durable route does with messages that can't be delivered yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
#[serde(default)]
pub struct Backlog {
    /// Bytes that may wait in the log of the outlet, 64 for each message beside body and headers.
    /// The routes of one outlet share its log: the largest size counts.
    pub size: ByteSize,
    /// What happens when the log is full. Where routes of one outlet say different things the
    /// publisher is refused.
    pub when_full: WhenFull,
    /// Older messages are not delivered any more, and counted as dropped; by the clocks of both
    /// nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Millis"))]
    pub expiry: Option<Millis>,
    /// Between two nodes, routes of a higher priority are sent first.
    #[cfg_attr(feature = "schema", schemars(range(min = *PRIORITY.start(), max = *PRIORITY.end())))]
    pub priority: u8,
}

/// What happens to a message that does not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// `publish` returns `backlog-full`.
    #[default]
    Refuse,
    /// The oldest messages make room, and are counted as dropped.
    DropOldest,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            size: ByteSize(16 << 20),
            when_full: WhenFull::Refuse,
            expiry: None,
            priority: 0,
        }
    }
}

/// See [`MEMORY_BYTES`].
pub const BACKLOG_BYTES: std::ops::RangeInclusive<u64> = (4 << 10)..=(64 << 30);
/// The longest expiry of a [`Backlog`], in milliseconds: ten years.
pub const EXPIRY_MS_MAX: u64 = 3_650 * 86_400_000;
/// See [`MEMORY_BYTES`].
pub const PRIORITY: std::ops::RangeInclusive<u8> = 0..=9;
