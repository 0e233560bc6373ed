//! Log lines of microservices, on their way from a node to the site.

use serde::{Deserialize, Serialize};

use crate::assignment::MicroserviceName;

/// Lines that a node sends in one go. JSON on the topic `up/log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    /// Format version: 1.
    pub version: u8,
    /// The lines, in order.
    pub lines: Vec<LogLine>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogLine {
    /// Who wrote it.
    #[serde(flatten)]
    pub name: MicroserviceName,
    /// Counts the lines that the node sends since its agent started, from 1 up: the site says where some
    /// did not arrive.
    pub sequence: u64,
    /// When: milliseconds since the Unix epoch by the node's clock.
    pub time_ms: u64,
    /// How important.
    pub level: Level,
    /// Where it came from.
    pub stream: Stream,
    /// Part of the microservice that speaks, as it says; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub context: String,
    /// The line, without its end.
    pub text: String,
    /// Lines are missing here, and this one says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<LogGap>,
}

/// Lines that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogGap {
    /// How many; none when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
    /// Why.
    pub cause: GapCause,
}

/// Why log lines are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum GapCause {
    /// They waited for the site, and the node's buffer was full.
    Buffer,
    /// The microservice wrote more than its limits allow.
    Rate,
    /// The node sent them, and they did not arrive: lines of all its microservices.
    Transport,
    /// The agent started again: what it had not sent is lost.
    Restart,
    /// They came faster than the reader read, or while it was not connected.
    Reader,
}

/// How important a line is, as in `wasi:logging`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The finest steps.
    Trace,
    /// For whoever debugs.
    Debug,
    /// Normal work.
    #[default]
    Info,
    /// Not as it should be.
    Warn,
    /// Something failed.
    Error,
    /// The microservice can't go on.
    Critical,
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// `wasi:logging`.
    Log,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The agent speaks about the microservice: a trap, a restart, a refusal.
    Agent,
}
