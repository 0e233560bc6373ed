//! The messages of durable routes. A *log* holds the messages of one outlet, or those that came for
//! one inlet over a route from another node, at ascending positions. Each who wants them, an inlet or
//! another node, is a *consumer* with a base: it needs nothing up to there. What no consumer needs is
//! deleted.
//!
//! ```text
//! positions   1 2 3 4 5 6 7 8 9        head 9
//!                 ▲     ▲
//!    deleted ◄────┘     └── bases of two consumers
//! ```
//!
//! In the log of an outlet, and in that of topics, a message's position is its sequence. In that of a route from another node
//! positions are this node's own, because sequences may have gaps, and begin again when the other
//! node has lost its log.

mod batch;
mod index;
pub(super) mod batches;
mod rows;
mod filed;
pub(super) mod salvage;
mod runs;

use std::sync::Arc;

use haar_link::runs::Runs;
use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Store, integer};
use crate::bus::message::{Headers, Message, Source};
use batches::Batches;

/// Bits of a key that are the position.
const POSITION_BITS: u32 = 43;
/// What a message costs beside body and headers, roughly.
const MESSAGE_BYTES: u64 = 64;

/// A log in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId(i64);

impl LogId {
    fn key(self, position: u64) -> i64 {
        (self.0 << POSITION_BITS) | integer(position)
    }
}

/// What a log is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogName {
    /// An outlet of the owner.
    Outlet(Name),
    /// A route from another node into an inlet of the owner.
    Arrival {
        /// Number of the route.
        route: u64,
        /// The other node.
        from: NodeId,
    },
    /// A route from topics of a broker into an inlet of the owner.
    Topic {
        /// Number of the route.
        route: u64,
    },
}

impl LogName {
    /// True where this node appends, and numbers what it appends.
    pub fn is_own(&self) -> bool {
        !matches!(self, LogName::Arrival { .. })
    }

    fn text(&self) -> String {
        match self {
            LogName::Outlet(outlet) => format!("outlet {outlet}"),
            LogName::Arrival { route, from } => format!("arrival {route:016x} {from}"),
            LogName::Topic { route } => format!("topic {route:016x}"),
        }
    }
}

/// Who wants the messages of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Consumer {
    /// Number of the route.
    pub route: u64,
    /// The node where it ends.
    pub node: NodeId,
}

/// A log that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedLog {
    /// Whose it is.
    pub owner: MicroserviceName,
    /// What it is of.
    pub name: LogName,
    /// Who wants its messages. One that is new wants those that come from now on.
    pub consumers: Vec<Consumer>,
}

/// A log as the disk has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLog {
    /// Names it in what follows.
    pub id: LogId,
    /// Its runs. Of a node's own log those of which something waits, in their order; of one that came
    /// from another node what is there of each, the most recently used last.
    pub runs: Runs,
    /// The run of what is appended from now on, where this node appends.
    pub own_run: Option<u64>,
    /// Position of the last message.
    pub head: u64,
    /// Sequence of the last message.
    pub sequence: u64,
    /// Base and bytes beyond it, of each consumer, in the order in which they were wanted.
    pub consumers: Vec<(u64, u64)>,
    /// Bytes that were deleted now, because a consumer is gone.
    pub deleted: u64,
}

/// A message in a log.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Where it stands.
    pub position: u64,
    /// The message.
    pub message: Arc<Message>,
    /// When this node stored it, by its [`AgeClock`](super::ages::AgeClock).
    pub stored_ms: u64,
}

impl Logged {
    /// True when this node has had it for more than `age_ms`.
    pub fn is_older(&self, age_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.stored_ms) > age_ms
    }
}

/// Messages that came from another node, to be kept before they are acknowledged.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The log of route and node.
    pub log: LogId,
    /// The epoch of the other node's log.
    pub epoch: u64,
    /// The messages, in ascending order of their sequences.
    pub messages: Vec<Arc<Message>>,
}

/// A consumer needs nothing up to a position any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// The log.
    pub log: LogId,
    /// Who.
    pub consumer: Consumer,
    /// Up to where.
    pub base: u64,
}

/// What nobody needs of a log any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Bytes that this freed.
    pub bytes: u64,
    /// Position of the last message that nobody needs.
    pub upto: u64,
}

/// Messages that made room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Position of the last of them.
    pub upto: u64,
    /// How many.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads all that is known of logs.
///
/// # Errors
/// When it can't be read, or does not go together.
pub(super) fn check(connection: &Connection) -> anyhow::Result<()> {
    batches::check(connection)
}

/// Bytes that a message counts for.
pub fn message_bytes(headers: &[(String, String)], body: usize) -> u64 {
    let headers: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    (headers + body) as u64 + MESSAGE_BYTES
}

impl Store {
    /// Opens the logs that are wanted, in their order, and makes those that are not there. Logs and
    /// consumers of these owners that are not wanted are forgotten, with their messages. `epoch` is
    /// a fresh one: it names the run of logs that this start of the agent opens for the first time.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn open_logs(
        &self,
        owners: Vec<MicroserviceName>,
        wanted: Vec<WantedLog>,
        epoch: u64,
    ) -> anyhow::Result<Vec<OpenLog>> {
        self.run_logs(move |connection, batches| {
            let opened = wanted
                .iter()
                .map(|log| rows::open(connection, batches, log, epoch))
                .collect::<anyhow::Result<Vec<_>>>()?;
            let index = batches.index(connection)?;
            rows::forget(connection, index, &owners, &opened)?;
            batches.forget_own_runs();
            batches.delete_unneeded(connection)?;
            Ok(opened)
        })
        .await
    }

    /// Makes another run of a log: receivers take what waits in it for messages that they never had.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn renew_log(&self, log: LogId, epoch: u64) -> anyhow::Result<()> {
        self.run_logs(move |connection, batches| rows::renew(connection, batches, log, epoch))
            .await
    }

    /// Adds messages to the log of an outlet, or of topics. Returns the sequence of the first one when all of them
    /// are on the disk; the others follow it without a gap. `committed` is told the same before, in
    /// the order of the log, also when nobody waits any more.
    ///
    /// # Errors
    /// When the database can't be written: then none of them is there.
    pub async fn append(
        &self,
        log: LogId,
        published_ms: u64,
        messages: Vec<(Headers, Vec<u8>)>,
        committed: impl FnOnce(u64, Vec<(Headers, Vec<u8>)>) + Send + 'static,
    ) -> anyhow::Result<u64> {
        let work = move |connection: &Connection, batches: &mut Batches| {
            let first = batches.append(connection, log, published_ms, &messages)?;
            Ok((first, messages))
        };
        self.add_then(work, |(first, messages)| {
            committed(first, messages);
            first
        })
        .await
    }

    /// Keeps what came from other nodes, but nothing that is there already or is of an older log.
    /// `committed` is told what was kept, each with the position of its first message.
    ///
    /// # Errors
    /// When the database can't be written: then nothing of it is there.
    pub async fn keep_arrived(
        &self,
        arrived: Vec<Arrived>,
        committed: impl FnOnce(Vec<(u64, Arrived)>) + Send + 'static,
    ) -> anyhow::Result<()> {
        let work =
            move |connection: &Connection, batches: &mut Batches| batches.keep(connection, arrived);
        self.add_then(work, committed).await
    }

    /// Messages after a position: as many as have so many bytes together, and one at least where
    /// there is one. All of one `source`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn read_log(
        &self,
        log: LogId,
        after: u64,
        bytes: u64,
        source: Arc<Source>,
    ) -> anyhow::Result<Vec<Logged>> {
        self.run_logs(move |connection, batches| {
            let index = batches.index(connection)?;
            filed::read(connection, index, log, after, bytes, source)
        })
        .await
    }

    /// Deletes the oldest messages of a log, at least so many bytes of them, whoever needs them.
    /// Returns up to which position, how many messages that were, and how many bytes.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn drop_oldest(&self, log: LogId, bytes: u64) -> anyhow::Result<Dropped> {
        self.run_logs(move |connection, batches| {
            let index = batches.index(connection)?;
            let dropped = rows::drop_oldest(connection, index, log, bytes)?;
            batches.delete_unneeded(connection)?;
            Ok(dropped)
        })
        .await
    }

    /// Notes what consumers need no more, and deletes what nobody needs. Returns what was deleted, for
    /// each.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn advance(&self, advances: Vec<Advance>) -> anyhow::Result<Vec<Deleted>> {
        self.run_logs(move |connection, batches| {
            let index = batches.index(connection)?;
            let deleted = advances
                .iter()
                .map(|advance| {
                    let bytes = rows::advance(connection, index, advance)?;
                    let upto = index.logs.get(&advance.log).map_or(0, |log| log.passed);
                    Ok(Deleted { bytes, upto })
                })
                .collect::<anyhow::Result<Vec<_>>>()?;
            batches.delete_unneeded(connection)?;
            Ok(deleted)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
