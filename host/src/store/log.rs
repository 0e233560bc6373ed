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
//! In the log of an outlet a message's position is its sequence. In that of a route from another node
//! positions are this node's own, because sequences may have gaps, and begin again when the other
//! node has lost its log.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId};
use rusqlite::{Connection, OptionalExtension as _};

use super::owners::ensure as owner_id;
use super::{Store, integer, natural};
use crate::bus::message::{Headers, Message, Source};

/// Bits of a key that are the position.
const POSITION_BITS: u32 = 43;
/// What a message costs beside body and headers, roughly.
const MESSAGE_BYTES: u64 = 64;

/// A log in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
}

impl LogName {
    fn text(&self) -> String {
        match self {
            LogName::Outlet(outlet) => format!("outlet {outlet}"),
            LogName::Arrival { route, from } => format!("arrival {route:016x} {from}"),
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
    /// See the table.
    pub epoch: u64,
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
    /// that of logs that are made for outlets.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn open_logs(
        &self,
        owners: Vec<MicroserviceName>,
        wanted: Vec<WantedLog>,
        epoch: u64,
    ) -> anyhow::Result<Vec<OpenLog>> {
        self.run(move |connection| {
            let opened = wanted
                .iter()
                .map(|log| open(connection, log, epoch))
                .collect::<anyhow::Result<Vec<_>>>()?;
            forget(connection, &owners, &opened)?;
            Ok(opened)
        })
        .await
    }

    /// Adds messages to the log of an outlet. Returns the sequence of the first one when all of them
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
        let work = move |connection: &Connection| {
            let count = integer(messages.len() as u64);
            let head: i64 = connection
                .prepare_cached(
                    "UPDATE log SET head = head + ?2, sequence = head + ?2 WHERE id = ?1
                     RETURNING head",
                )?
                .query_row((log.0, count), |row| row.get(0))
                .optional()?
                .context("the log is gone")?;
            let first = natural(head - count) + 1;
            for (position, (headers, body)) in (first..).zip(&messages) {
                insert(
                    connection,
                    log,
                    position,
                    position,
                    published_ms,
                    headers,
                    body,
                )?;
            }
            Ok((first, messages))
        };
        self.run_then(work, |(first, messages)| {
            committed(first, messages);
            first
        })
        .await
    }

    /// Keeps what came from other nodes. `committed` is told, for each, the position of its first
    /// message.
    ///
    /// # Errors
    /// When the database can't be written: then nothing of it is there.
    pub async fn keep_arrived(
        &self,
        arrived: Vec<Arrived>,
        committed: impl FnOnce(Vec<(u64, Arrived)>) + Send + 'static,
    ) -> anyhow::Result<()> {
        let work = move |connection: &Connection| {
            arrived
                .into_iter()
                .map(|arrived| Ok((keep(connection, &arrived)?, arrived)))
                .collect()
        };
        self.run_then(work, committed).await
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
        self.run(move |connection| read(connection, log, after, bytes, &source))
            .await
    }

    /// Notes what consumers need no more, and deletes what nobody needs. Returns how many bytes were
    /// deleted, for each.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn advance(&self, advances: Vec<Advance>) -> anyhow::Result<Vec<u64>> {
        self.run(move |connection| {
            let mut deleted = Vec::with_capacity(advances.len());
            for advance in &advances {
                connection
                    .prepare_cached(
                        "UPDATE consumer SET base = max(base, ?4)
                         WHERE log = ?1 AND route = ?2 AND node = ?3",
                    )?
                    .execute((
                        advance.log.0,
                        route(&advance.consumer),
                        advance.consumer.node.as_str(),
                        integer(advance.base),
                    ))?;
                deleted.push(delete_unneeded(connection, advance.log)?);
            }
            Ok(deleted)
        })
        .await
    }
}

/// SQLite has no unsigned numbers: the bits are kept.
fn route(consumer: &Consumer) -> i64 {
    consumer.route.cast_signed()
}

fn open(connection: &Connection, wanted: &WantedLog, epoch: u64) -> anyhow::Result<OpenLog> {
    let owner = owner_id(connection, &wanted.owner)?;
    let epoch = match wanted.name {
        LogName::Outlet(_) => epoch,
        LogName::Arrival { .. } => 0,
    };
    connection
        .prepare_cached(
            "INSERT INTO log (owner, name, epoch) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute((owner, wanted.name.text(), integer(epoch)))?;
    let (id, epoch, head, sequence) = connection
        .prepare_cached("SELECT id, epoch, head, sequence FROM log WHERE owner = ?1 AND name = ?2")?
        .query_row((owner, wanted.name.text()), |row| {
            let number = |index| row.get(index).map(natural);
            Ok((LogId(row.get(0)?), number(1)?, number(2)?, number(3)?))
        })?;
    ensure!(
        id.0 < 1 << (63 - POSITION_BITS),
        "a million logs were made on this node: enrol it anew"
    );
    let mut known = connection.prepare_cached("SELECT route, node FROM consumer WHERE log = ?1")?;
    let known: Vec<(i64, String)> = known
        .query_map([id.0], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (number, node) in known {
        let is_it = |one: &Consumer| route(one) == number && one.node.as_str() == node;
        if !wanted.consumers.iter().any(is_it) {
            connection.execute(
                "DELETE FROM consumer WHERE log = ?1 AND route = ?2 AND node = ?3",
                (id.0, number, node),
            )?;
        }
    }
    let mut consumers = Vec::with_capacity(wanted.consumers.len());
    for consumer in &wanted.consumers {
        connection
            .prepare_cached(
                "INSERT INTO consumer (log, route, node, base) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?
            .execute((id.0, route(consumer), consumer.node.as_str(), integer(head)))?;
        consumers.push(backlog(connection, id, consumer)?);
    }
    let deleted = delete_unneeded(connection, id)?;
    Ok(OpenLog {
        id,
        epoch,
        head,
        sequence,
        consumers,
        deleted,
    })
}

/// Base of a consumer, and the bytes beyond it.
fn backlog(connection: &Connection, log: LogId, consumer: &Consumer) -> anyhow::Result<(u64, u64)> {
    let base: i64 = connection
        .prepare_cached("SELECT base FROM consumer WHERE log = ?1 AND route = ?2 AND node = ?3")?
        .query_row((log.0, route(consumer), consumer.node.as_str()), |row| {
            row.get(0)
        })?;
    let base = natural(base);
    let bytes: i64 = connection
        .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM logged WHERE key > ?1 AND key < ?2")?
        .query_row((log.key(base), LogId(log.0 + 1).key(0)), |row| row.get(0))?;
    Ok((base, natural(bytes)))
}

/// Forgets the logs of `owners` that are not wanted. Those of others come back with them, or are
/// deleted when they have been gone for a day.
fn forget(
    connection: &Connection,
    owners: &[MicroserviceName],
    wanted: &[OpenLog],
) -> anyhow::Result<()> {
    let mut known = connection.prepare_cached("SELECT id FROM log WHERE owner = ?1")?;
    for owner in owners {
        let Some(owner) = super::owners::find(connection, owner)? else {
            continue;
        };
        let ids = known.query_map([owner], |row| Ok(LogId(row.get(0)?)))?;
        for log in ids.collect::<Result<Vec<_>, _>>()? {
            if wanted.iter().any(|wanted| wanted.id == log) {
                continue;
            }
            connection.execute(
                "DELETE FROM logged WHERE key > ?1 AND key < ?2",
                (log.key(0), LogId(log.0 + 1).key(0)),
            )?;
            connection.execute("DELETE FROM log WHERE id = ?1", [log.0])?;
        }
    }
    Ok(())
}

fn insert(
    connection: &Connection,
    log: LogId,
    position: u64,
    sequence: u64,
    published_ms: u64,
    headers: &Headers,
    body: &[u8],
) -> anyhow::Result<()> {
    let bytes = message_bytes(headers, body.len());
    let headers = match headers.is_empty() {
        true => Vec::new(),
        false => postcard::to_stdvec(headers)?,
    };
    connection
        .prepare_cached(
            "INSERT INTO logged (key, sequence, published_ms, bytes, headers, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((
            log.key(position),
            integer(sequence),
            integer(published_ms),
            integer(bytes),
            headers,
            body,
        ))?;
    Ok(())
}

fn keep(connection: &Connection, arrived: &Arrived) -> anyhow::Result<u64> {
    let count = integer(arrived.messages.len() as u64);
    let last = arrived.messages.last().map_or(0, |last| last.sequence);
    let head: i64 = connection
        .prepare_cached(
            "UPDATE log SET head = head + ?2, sequence = ?3, epoch = ?4 WHERE id = ?1
             RETURNING head",
        )?
        .query_row(
            (arrived.log.0, count, integer(last), integer(arrived.epoch)),
            |row| row.get(0),
        )
        .optional()?
        .context("the log is gone")?;
    let first = natural(head - count) + 1;
    for (position, message) in (first..).zip(&arrived.messages) {
        insert(
            connection,
            arrived.log,
            position,
            message.sequence,
            message.published_ms,
            &message.headers,
            &message.body,
        )?;
    }
    Ok(first)
}

fn read(
    connection: &Connection,
    log: LogId,
    after: u64,
    bytes: u64,
    source: &Arc<Source>,
) -> anyhow::Result<Vec<Logged>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, sequence, published_ms, headers, body FROM logged
         WHERE key > ?1 AND key < ?2 ORDER BY key",
    )?;
    let mut rows = statement.query((log.key(after), LogId(log.0 + 1).key(0)))?;
    let (mut messages, mut total) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let headers: Vec<u8> = row.get(3)?;
        let headers: Headers = match headers.is_empty() {
            true => Headers::new(),
            false => postcard::from_bytes(&headers).context("the headers of a message")?,
        };
        let body: Vec<u8> = row.get(4)?;
        total += message_bytes(&headers, body.len());
        if total > bytes && !messages.is_empty() {
            break;
        }
        let key: i64 = row.get(0)?;
        messages.push(Logged {
            position: natural(key & ((1 << POSITION_BITS) - 1)),
            message: Arc::new(Message {
                source: Arc::clone(source),
                sequence: natural(row.get(1)?),
                published_ms: natural(row.get(2)?),
                headers,
                body,
            }),
        });
    }
    Ok(messages)
}

/// Deletes what every consumer is past, or everything where there is none. Returns its bytes.
fn delete_unneeded(connection: &Connection, log: LogId) -> anyhow::Result<u64> {
    let base: i64 = connection
        .prepare_cached(
            "SELECT coalesce(min(consumer.base), log.head) FROM log
             LEFT JOIN consumer ON consumer.log = log.id WHERE log.id = ?1 GROUP BY log.id",
        )?
        .query_row([log.0], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    let mut delete = connection.prepare_cached(
        "DELETE FROM logged WHERE key > ?1 AND key <= ?2
         RETURNING bytes",
    )?;
    let mut deleted = 0;
    let mut rows = delete.query((log.key(0), log.key(natural(base))))?;
    while let Some(row) = rows.next()? {
        deleted += natural(row.get(0)?);
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests;
