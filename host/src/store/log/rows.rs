//! The rows of logs, consumers and messages.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use haar_protocol::assignment::MicroserviceName;
use rusqlite::{Connection, OptionalExtension as _};

use super::{
    Arrived, Consumer, Dropped, LogId, LogName, Logged, OpenLog, POSITION_BITS, WantedLog,
    message_bytes,
};
use crate::bus::message::{Headers, Message, Source};
use crate::store::owners::{ensure as owner_id, find};
use crate::store::{integer, natural};

/// SQLite has no unsigned numbers: the bits are kept.
pub(super) fn route(consumer: &Consumer) -> i64 {
    consumer.route.cast_signed()
}

pub(super) fn open(
    connection: &Connection,
    wanted: &WantedLog,
    epoch: u64,
) -> anyhow::Result<OpenLog> {
    let owner = owner_id(connection, &wanted.owner)?;
    let epoch = match wanted.name {
        LogName::Outlet(_) | LogName::Topic { .. } => epoch,
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
pub(super) fn forget(
    connection: &Connection,
    owners: &[MicroserviceName],
    wanted: &[OpenLog],
) -> anyhow::Result<()> {
    let mut known = connection.prepare_cached("SELECT id FROM log WHERE owner = ?1")?;
    for owner in owners {
        let Some(owner) = find(connection, owner)? else {
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

pub(super) fn insert(
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

/// Keeps what is new. A link that was closed in the middle of a write and opened again may bring the
/// same messages once more: the disk decides what is new, in the transaction that keeps it.
pub(super) fn keep(
    connection: &Connection,
    mut arrived: Arrived,
) -> anyhow::Result<(u64, Arrived)> {
    let log = arrived.log;
    let (head, sequence, epoch) = connection
        .prepare_cached("SELECT head, sequence, epoch FROM log WHERE id = ?1")?
        .query_row([log.0], |row| {
            let number = |index| row.get(index).map(natural);
            Ok((number(0)?, number(1)?, number(2)?))
        })
        .optional()?
        .context("the log is gone")?;
    let is_new = |message: &Arc<Message>| {
        arrived.epoch > epoch || (arrived.epoch == epoch && message.sequence > sequence)
    };
    arrived.messages.retain(is_new);
    let Some(last) = arrived.messages.last() else {
        return Ok((head + 1, arrived));
    };
    let count = arrived.messages.len() as u64;
    connection
        .prepare_cached("UPDATE log SET head = ?2, sequence = ?3, epoch = ?4 WHERE id = ?1")?
        .execute((
            log.0,
            integer(head + count),
            integer(last.sequence),
            integer(arrived.epoch),
        ))?;
    for (position, message) in (head + 1..).zip(&arrived.messages) {
        insert(
            connection,
            log,
            position,
            message.sequence,
            message.published_ms,
            &message.headers,
            &message.body,
        )?;
    }
    Ok((head + 1, arrived))
}

pub(super) fn read(
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
pub(super) fn delete_unneeded(connection: &Connection, log: LogId) -> anyhow::Result<u64> {
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

pub(super) fn drop_oldest(
    connection: &Connection,
    log: LogId,
    bytes: u64,
) -> anyhow::Result<Dropped> {
    let mut dropped = Dropped {
        upto: 0,
        messages: 0,
        bytes: 0,
    };
    {
        let mut oldest = connection.prepare_cached(
            "SELECT key, bytes FROM logged WHERE key > ?1 AND key < ?2 ORDER BY key",
        )?;
        let mut rows = oldest.query((log.key(0), LogId(log.0 + 1).key(0)))?;
        while dropped.bytes < bytes
            && let Some(row) = rows.next()?
        {
            dropped.upto = natural(row.get::<_, i64>(0)? & ((1 << POSITION_BITS) - 1));
            dropped.messages += 1;
            dropped.bytes += natural(row.get(1)?);
        }
    }
    connection
        .prepare_cached("UPDATE consumer SET base = max(base, ?2) WHERE log = ?1")?
        .execute((log.0, integer(dropped.upto)))?;
    delete_unneeded(connection, log)?;
    Ok(dropped)
}
