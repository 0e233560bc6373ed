//! What enters a microservice, and how it says no. Mirrors `message`, `source` and `rejection` of
//! `haar:local`, as types that exist on the development machine too.

use std::sync::Arc;

use crate::publish::PublishError;
use crate::text::Text;

/// Where a message comes from. The agent stamps it: no microservice can choose it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// Id of the site.
    pub site: String,
    /// Name of the node in its site.
    pub node: String,
    /// Name of the application.
    pub application: String,
    /// Name of the microservice in its application.
    pub microservice: String,
    /// Name of the outlet of the microservice.
    pub outlet: String,
}

/// A message as it enters an inlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Name of the inlet that it enters.
    pub inlet: Text,
    /// Who published it. Shared by all messages of the source.
    pub source: Arc<Source>,
    /// Its number among the messages of its source's outlet, upwards. It never goes back, and may skip
    /// numbers where the agent of the source has restarted.
    pub sequence: u64,
    /// When it was published: milliseconds since 1970-01-01T00:00:00Z, by the publishing node's
    /// clock.
    pub published_ms: u64,
    /// Media type: the one that the route is registered for.
    pub content_type: Text,
    /// Headers that the publisher set, in its order. Names may repeat.
    pub headers: Vec<(String, String)>,
    /// The message itself.
    pub body: Vec<u8>,
    /// 1 on the first delivery, one more on each further one.
    pub attempt: u32,
}

impl Message {
    /// The value of the first header of this name. Names are compared exactly.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text. A body that is not UTF-8 gives a rejection that discards the message, so
    /// that `?` does the right thing in a handler.
    pub fn text(&self) -> Result<&str, Rejection> {
        std::str::from_utf8(&self.body)
            .map_err(|error| Rejection::discard(format!("the body is not UTF-8: {error}")))
    }
}

/// What becomes of a message that was not handled. The texts go to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// Deliver it again later.
    Retry(String),
    /// Never deliver it again.
    Discard(String),
}

impl Rejection {
    /// Deliver the message again later, for the reason given.
    pub fn retry(reason: impl Into<String>) -> Self {
        Rejection::Retry(reason.into())
    }

    /// Never deliver the message again, for the reason given.
    pub fn discard(reason: impl Into<String>) -> Self {
        Rejection::Discard(reason.into())
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rejection::Retry(reason) => write!(formatter, "to be delivered again: {reason}"),
            Rejection::Discard(reason) => write!(formatter, "discarded: {reason}"),
        }
    }
}

impl std::error::Error for Rejection {}

/// A handler that cannot publish because of the moment wants its message again; one that publishes
/// what never fits does not.
impl From<PublishError> for Rejection {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::UnknownOutlet
            | PublishError::TooLarge { .. }
            | PublishError::TooMany { .. } => Rejection::Discard(error.to_string()),
            PublishError::RateLimited { .. }
            | PublishError::BacklogFull
            | PublishError::NotReady => Rejection::Retry(error.to_string()),
        }
    }
}
