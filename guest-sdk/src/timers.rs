//! Timers of the microservice, by name. Those that [`once`] and [`every`] set end with the instance;
//! those that [`keep_once`] and [`keep_every`] set go on over restarts of the instance, of the agent
//! and of the machine: a new instance finds them set. Mirrors `haar:local/timers`.

use std::time::Duration;

use crate::agent;

/// Ticks once, `delay` from now. A timer of the same name is replaced. Parts of a millisecond count
/// as a whole one; more than a year is an error.
pub fn once(name: &str, delay: Duration) -> Result<(), TimerError> {
    agent::set_timer_once(name, milliseconds(delay), Lifetime::Instance)
}

/// Ticks every `period`, the first time one period from now. A timer of the same name is replaced.
/// Parts of a millisecond count as a whole one; more than a year is an error.
pub fn every(name: &str, period: Duration) -> Result<(), TimerError> {
    agent::set_timer_repeating(name, milliseconds(period), Lifetime::Instance)
}

/// As [`once`], over restarts: stored on the node when this returns, until its tick was handled or
/// it is cancelled. Where handling fails, or the power does, the next instance sees the tick again.
pub fn keep_once(name: &str, delay: Duration) -> Result<(), TimerError> {
    agent::set_timer_once(name, milliseconds(delay), Lifetime::Kept)
}

/// As [`every`], over restarts: stored on the node when this returns, until it is cancelled. Ticks
/// that were due while the node was off come as one, with their number in [`Tick::missed`].
///
/// Setting it again, as in a `start` that is called for every instance, begins a new period; an
/// instance that wants to go on leaves the timer as it is.
pub fn keep_every(name: &str, period: Duration) -> Result<(), TimerError> {
    agent::set_timer_repeating(name, milliseconds(period), Lifetime::Kept)
}

/// Removes a timer, kept or not. False when there is none of this name.
pub fn cancel(name: &str) -> bool {
    agent::cancel_timer(name)
}

/// How long a timer lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    Instance,
    Kept,
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// One timer has run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// Name of the timer.
    pub name: String,
    /// When it should have ticked: milliseconds since 1970-01-01T00:00:00Z, by the node's clock.
    pub scheduled_ms: u64,
    /// How many ticks of a repeating timer passed unseen since the last one, because the instance
    /// was busy, or the node was off.
    pub missed: u32,
}

/// Why a timer was not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerError {
    /// The instance has as many timers as it may have.
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// The period of a repeating timer is too short.
    TooShort {
        /// The shortest that is allowed.
        period_ms_min: u64,
    },
    /// A kept timer can't be stored, or a timer is to tick later than in a year.
    NotStored {
        /// Why.
        reason: String,
    },
    /// The name is too long.
    NameTooLong {
        /// The limit.
        limit_bytes: u32,
    },
}

impl std::fmt::Display for TimerError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the timer was not set: ")?;
        match self {
            TimerError::TooMany { limit } => {
                write!(formatter, "the instance already has {limit}, its limit")
            }
            TimerError::TooShort { period_ms_min } => {
                write!(
                    formatter,
                    "it needs at least {period_ms_min} ms between two ticks"
                )
            }
            TimerError::NotStored { reason } => formatter.write_str(reason),
            TimerError::NameTooLong { limit_bytes } => {
                write!(formatter, "its name has more than {limit_bytes} bytes")
            }
        }
    }
}

impl std::error::Error for TimerError {}

/// For `?` in the functions of a microservice whose errors are texts.
impl From<TimerError> for String {
    fn from(error: TimerError) -> String {
        error.to_string()
    }
}
