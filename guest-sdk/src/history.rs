//! What passed the microservice's own inlets and outlets, as far as its manifest keeps it. Mirrors
//! `haar:local/history`.
//!
//! ```no_run
//! # fn look_back() -> Result<(), String> {
//! use haar_guest::{history::Query, log};
//!
//! let query = Query {
//!     newest_first: true,
//!     ..Query::inlet("readings")
//! };
//! for message in query.messages().take(10) {
//!     let message = message?;
//!     log::info!("{} said {} bytes", message.source.node, message.body.len());
//! }
//! # Ok(())
//! # }
//! ```

use crate::agent_history as agent;
use crate::message::Message;

/// Which way messages went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// They entered an inlet.
    Inlet,
    /// They were published to an outlet.
    Outlet,
}

/// Which messages of a port are wanted. What is left out does not narrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Whether `port` is an inlet or an outlet.
    pub direction: Direction,
    /// Name of the port.
    pub port: String,
    /// Only messages published at this time or later: milliseconds since 1970-01-01T00:00:00Z, by
    /// the publishing node's clock.
    pub since_ms: Option<u64>,
    /// Only messages published before this time.
    pub until_ms: Option<u64>,
    /// Only messages from this node.
    pub node: Option<String>,
    /// Only messages from this microservice, as `APPLICATION/MICROSERVICE`.
    pub microservice: Option<String>,
    /// Only messages with this sequence or a later one.
    pub first_sequence: Option<u64>,
    /// Only messages with this sequence or an earlier one.
    pub last_sequence: Option<u64>,
    /// The newest first, instead of the oldest first.
    pub newest_first: bool,
    /// Messages in a page at most.
    pub limit: u32,
}

impl Query {
    /// Everything that entered an inlet, the oldest first.
    pub fn inlet(port: &str) -> Self {
        Self::everything(Direction::Inlet, port)
    }

    /// Everything that was published to an outlet, the oldest first.
    pub fn outlet(port: &str) -> Self {
        Self::everything(Direction::Outlet, port)
    }

    fn everything(direction: Direction, port: &str) -> Self {
        Self {
            direction,
            port: port.to_owned(),
            since_ms: None,
            until_ms: None,
            node: None,
            microservice: None,
            first_sequence: None,
            last_sequence: None,
            newest_first: false,
            limit: 100,
        }
    }

    /// The first page, or with the `next` of a page the one that follows.
    pub fn read(&self, next: Option<&str>) -> Result<Page, HistoryError> {
        agent::read(self, next)
    }

    /// All messages, read page by page as they are asked for. Ends after an error.
    pub fn messages(&self) -> impl Iterator<Item = Result<Message, HistoryError>> {
        let mut more = Some(None);
        let mut page = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(message) = page.next() {
                    return Some(Ok(message));
                }
                let next: Option<String> = more.take()?;
                match self.read(next.as_deref()) {
                    Ok(read) => {
                        page = read.messages.into_iter();
                        more = read.next.map(Some);
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }
}

/// A page of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The messages; there may be none in a page that is not the last. `attempt` is 0.
    pub messages: Vec<Message>,
    /// What the next page begins with; none when this is the last one.
    pub next: Option<String>,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryError {
    /// The microservice has no such port, or its manifest keeps no history of it.
    NoHistory,
    /// The `next` is not of a page of this query.
    BadToken,
    /// The node can't say; the text tells why.
    Unavailable(String),
}

impl std::fmt::Display for HistoryError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HistoryError::NoHistory => formatter.write_str("no history is kept of the port"),
            HistoryError::BadToken => formatter.write_str("the page is not one of this query"),
            HistoryError::Unavailable(reason) => {
                write!(formatter, "the history can't be read: {reason}")
            }
        }
    }
}

impl std::error::Error for HistoryError {}

/// For `?` in the functions of a microservice whose errors are texts.
impl From<HistoryError> for String {
    fn from(error: HistoryError) -> String {
        error.to_string()
    }
}
