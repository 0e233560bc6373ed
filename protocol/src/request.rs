//! What the site asks one node, and what the node answers: for things that no snapshot tells.
//!
//! ```text
//! site ─ ctl/request: Request, signed by the site ─► node ─ up/response: Response, signed by the node ─► site
//! ```
//! The relay may lose, repeat, delay and read both. So a request is good for a minute and once, and
//! an answer counts only for the request whose id it has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dead_letters::{
    DeadLetterPage, DeadLetterSelection, Dropped, Replayed, WholeDeadLetter,
};
use crate::ids::{InvalidId, Name, NodeId, SiteId};
use crate::signed::Document;

/// How far the time of a request may be from the node's clock, in milliseconds.
pub const REQUEST_AGE_MS_MAX: u64 = 60_000;

/// A question of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The site that asks.
    pub site: SiteId,
    /// The node that is asked.
    pub node: NodeId,
    /// Tells it from every other request.
    pub id: RequestId,
    /// When it was made: milliseconds since the Unix epoch by the controller's clock.
    pub issued_ms: u64,
    /// What is asked for.
    pub operation: Operation,
}

impl Document for Request {
    const KIND: u8 = 3;
    const VERSION: u8 = 1;
    const WHAT: &'static str = "request";
}

/// An answer of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The node's site.
    pub site: SiteId,
    /// The node that answers.
    pub node: NodeId,
    /// The request that it answers.
    pub id: RequestId,
    /// What became of it.
    pub outcome: Outcome,
}

impl Document for Response {
    const KIND: u8 = 4;
    const VERSION: u8 = 1;
    const WHAT: &'static str = "response";
}

/// 128 random bits, written in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl TryFrom<String> for RequestId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| InvalidId("not 32 hexadecimal digits".to_owned()))?;
        Ok(Self(bytes))
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> String {
        id.to_string()
    }
}

/// What a node can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Which dead letters it keeps.
    ListDeadLetters {
        /// Only those of this application.
        application: Option<Name>,
        /// Only those of this microservice of the application.
        microservice: Option<Name>,
        /// Only those with a higher id.
        after: u64,
        /// How many at most; fewer come when they are large.
        limit: u32,
    },
    /// One of them as a whole.
    ShowDeadLetter {
        /// Its id.
        id: u64,
    },
    /// Back into their inboxes.
    ReplayDeadLetters(DeadLetterSelection),
    /// Forget them.
    DropDeadLetters(DeadLetterSelection),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, on its way out or in"
)]
pub enum Outcome {
    /// The letters that were asked for.
    DeadLetters(DeadLetterPage),
    /// The letter that was asked for.
    DeadLetter(WholeDeadLetter),
    /// What was replayed.
    Replayed(Replayed),
    /// What was dropped.
    Dropped(Dropped),
    /// Nothing.
    Refused {
        /// Why, for programs.
        why: Refusal,
        /// Why, for people.
        message: String,
    },
}

/// Why a node did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It keeps no such letter.
    UnknownDeadLetter,
    /// The request is too old by its clock, or of the future.
    NotFresh,
    /// The answer does not fit into one packet of the relay.
    TooLarge,
    /// The node failed.
    #[serde(other)]
    Failed,
}

/// Why a node does not look at a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is of another site or for another node: nothing of ours.
    #[error("the request is of another site, or for another node")]
    NotOurs,
    /// It is too old, or of the future.
    #[error(
        "the request is {0} ms away from this node's clock: the clocks of controller and node must agree"
    )]
    NotFresh(u64),
}

impl Request {
    /// Whether the node `node` of `site` may take the request at `now_ms`.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn check(&self, site: &SiteId, node: &NodeId, now_ms: u64) -> Result<(), Unfit> {
        if &self.site != site || &self.node != node {
            return Err(Unfit::NotOurs);
        }
        match self.issued_ms.abs_diff(now_ms) {
            0..=REQUEST_AGE_MS_MAX => Ok(()),
            away => Err(Unfit::NotFresh(away)),
        }
    }
}
