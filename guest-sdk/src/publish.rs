//! The way out of a microservice. Mirrors `haar:local/messaging`.

use crate::agent;

/// Publishes `body` to every route of `outlet`, with headers as pairs of name and value. Returns
/// the sequence that the message was given, counted per outlet, upwards. Sequences of an outlet never go
/// back; where the agent has restarted, or a route was changed, some may be skipped.
///
/// A message on a `live` route may be dropped on its way when a receiver is slower than the sender.
pub fn publish(
    outlet: &str,
    body: impl AsRef<[u8]>,
    headers: &[(&str, &str)],
) -> Result<u64, PublishError> {
    agent::publish(outlet, body.as_ref(), headers)
}

/// One message of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The message itself.
    pub body: &'a [u8],
    /// Headers as pairs of name and value.
    pub headers: &'a [(&'a str, &'a str)],
}

/// Publishes messages to every route of `outlet`, in their order: all of them or, on an error,
/// none. Cheaper than as many calls of [`publish`]. Returns the sequence of the first one; the
/// others follow it without a gap. An empty batch returns the sequence that comes next.
///
/// At most 1,024 messages, and no more than the instance may publish in a second.
///
/// ```no_run
/// # fn main() -> Result<(), haar_guest::PublishError> {
/// use haar_guest::{Outgoing, publish_batch};
///
/// let readings = ["20.5", "20.7", "20.6"];
/// let batch: Vec<Outgoing> = readings
///     .iter()
///     .map(|reading| Outgoing { body: reading.as_bytes(), headers: &[("unit", "celsius")] })
///     .collect();
/// publish_batch("readings", &batch)?;
/// # Ok(())
/// # }
/// ```
pub fn publish_batch(outlet: &str, messages: &[Outgoing<'_>]) -> Result<u64, PublishError> {
    agent::publish_batch(outlet, messages)
}

/// Why a message was not published, or a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// The microservice has no outlet of this name in its application's manifest.
    UnknownOutlet,
    /// Body and headers exceed the limit.
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// A batch holds more messages than can ever be published at once.
    TooMany {
        /// The most.
        limit: u32,
    },
    /// Too many messages for now.
    RateLimited {
        /// After how long to try again.
        retry_ms: u64,
    },
    /// A durable route's log is full.
    BacklogFull,
    /// The agent is stopping, or has not finished starting: nothing can be published now.
    NotReady,
}

impl std::fmt::Display for PublishError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the message was not published: ")?;
        match self {
            PublishError::UnknownOutlet => {
                formatter.write_str("the microservice has no such outlet")
            }
            PublishError::TooLarge { limit_bytes } => {
                write!(
                    formatter,
                    "it is larger than the limit of {limit_bytes} bytes"
                )
            }
            PublishError::TooMany { limit } => {
                write!(formatter, "a batch holds at most {limit} messages here")
            }
            PublishError::RateLimited { retry_ms } => {
                write!(formatter, "too many messages, try again in {retry_ms} ms")
            }
            PublishError::BacklogFull => formatter.write_str("the log of a durable route is full"),
            PublishError::NotReady => formatter.write_str("the agent is starting or stopping"),
        }
    }
}

impl std::error::Error for PublishError {}

/// For `?` in the functions of a microservice whose errors are texts.
impl From<PublishError> for String {
    fn from(error: PublishError) -> String {
        error.to_string()
    }
}
