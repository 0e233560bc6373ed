//! What one microservice may use at most, and what a node has to give.

use serde::{Deserialize, Serialize};

use crate::quantity::{ByteSize, Millis};

/// The limits of one microservice. In manifests each may be left out and has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
#[serde(default)]
pub struct Limits {
    /// Linear memory of the instance.
    pub memory: ByteSize,
    /// Units of fuel that one call may burn (about one per WebAssembly instruction).
    #[cfg_attr(feature = "schema", schemars(range(min = *FUEL_PER_CALL.start(), max = *FUEL_PER_CALL.end())))]
    pub fuel_per_call: u64,
    /// Wall-clock time that one call may take, waiting included.
    pub call_timeout: Millis,
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
    /// Timers that may be set at one time.
    #[cfg_attr(feature = "schema", schemars(range(min = *TIMERS.start(), max = *TIMERS.end())))]
    pub timers: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize(16 << 20),
            fuel_per_call: 1_000_000_000,
            call_timeout: Millis(5_000),
            inbox_messages: 1_024,
            message_size: ByteSize(256 << 10),
            publish_per_second: 10_000,
            log_lines_per_second: 100,
            timers: 16,
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
pub const TIMERS: std::ops::RangeInclusive<u32> = 0..=1_024;

/// What a node has to give to microservices; part of its enrolment and its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Budget {
    /// The sum of the memory limits of all its microservices may not exceed this.
    pub memory: ByteSize,
    /// How many microservices it runs at most.
    pub microservices: u32,
}
