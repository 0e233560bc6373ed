//! The rows of logs and of their consumers: how logs come and go, and what is forgotten when.

use anyhow::{Context as _, ensure};
use haar_link::runs::{Runs, epoch_after};
use haar_protocol::assignment::MicroserviceName;
use haar_protocol::status::Overflow;
use rusqlite::Connection;

use super::batches::Batches;
use super::index::{Index, Indexed};
use super::{Advance, Consumer, Dropped, LogId, OpenLog, POSITION_BITS, WantedLog, runs};
use crate::store::owners::{ensure as owner_id, find};
use crate::store::{integer, natural, past};

/// SQLite has no unsigned numbers: the bits are kept.
fn route(consumer: &Consumer) -> i64 {
    consumer.route.cast_signed()
}

/// The position in a key.
pub(super) fn position(key: i64) -> u64 {
    natural(key & ((1 << POSITION_BITS) - 1))
}

/// The logs as their rows say; batches may know more.
pub(super) fn load_logs(connection: &Connection, index: &mut Index) -> anyhow::Result<()> {
    let mut logs = connection.prepare(
        "SELECT id, epoch, head, sequence,
             (SELECT max(key) FROM logged WHERE key > id << ?1 AND key < (id + 1) << ?1)
         FROM log",
    )?;
    let mut rows = logs.query([POSITION_BITS])?;
    while let Some(row) = rows.next()? {
        let number = |index| row.get(index).map(natural);
        let filed: Option<i64> = row.get(4)?;
        let filed_to = filed.map_or(0, position);
        let log = Indexed::new(number(1)?, number(2)?, number(3)?, filed_to);
        index.logs.insert(LogId(row.get(0)?), log);
    }
    let mut consumers = connection.prepare("SELECT log, route, node, base FROM consumer")?;
    let mut rows = consumers.query([])?;
    while let Some(row) = rows.next()? {
        let node: String = row.get(2)?;
        let consumer = Consumer {
            route: row.get::<_, i64>(1)?.cast_unsigned(),
            node: node.parse().context("a consumer's node")?,
        };
        let log = index.logs.get_mut(&LogId(row.get(0)?));
        let log = log.context("a consumer of no log")?;
        log.consumers.push((consumer, natural(row.get(3)?)));
    }
    Ok(())
}

/// Notes how far logs are of which only batches know it, which may be deleted then.
pub(super) fn store_heads(connection: &Connection, index: &mut Index) -> anyhow::Result<()> {
    let mut update = connection
        .prepare_cached("UPDATE log SET head = ?2, sequence = ?3, epoch = ?4 WHERE id = ?1")?;
    for (id, log) in &mut index.logs {
        if log.head > log.stored_head {
            let (head, sequence) = (integer(log.head), integer(log.sequence));
            update.execute((id.0, head, sequence, integer(log.epoch)))?;
            log.stored_head = log.head;
            runs::store(connection, *id, log)?;
        }
    }
    Ok(())
}

/// Opens a log, and makes it when it is not there.
pub(super) fn open(
    connection: &Connection,
    batches: &mut Batches,
    wanted: &WantedLog,
    epoch: u64,
) -> anyhow::Result<OpenLog> {
    let index = batches.index(connection)?;
    let owner = owner_id(connection, &wanted.owner)?;
    let is_own = wanted.name.is_own();
    let epoch = if is_own { epoch } else { 0 };
    let is_made = connection
        .prepare_cached(
            "INSERT INTO log (owner, name, epoch) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute((owner, wanted.name.text(), integer(epoch)))?
        > 0;
    let id = connection
        .prepare_cached("SELECT id FROM log WHERE owner = ?1 AND name = ?2")?
        .query_row((owner, wanted.name.text()), |row| row.get(0).map(LogId))?;
    ensure!(
        id.0 < 1 << (63 - POSITION_BITS),
        "a million logs were made on this node: enrol it anew"
    );
    let begin = match is_made && is_own {
        true => begin_above(connection, id)?,
        false => 0,
    };
    let log = index.logs.entry(id);
    let log = log.or_insert_with(|| Indexed::new(epoch, begin, begin, 0));
    follow_consumers(connection, id, log, &wanted.consumers)?;
    let deleted = delete_unneeded(connection, index, id)?;
    let log = index.logs.get_mut(&id).context("it was opened")?;
    let mut consumers = Vec::with_capacity(wanted.consumers.len());
    for consumer in &wanted.consumers {
        consumers.push(backlog(connection, id, log, consumer)?);
    }
    if is_own {
        log.runs.pass(log.base());
    }
    let mut opened = OpenLog {
        id,
        runs: log.runs.clone(),
        own_run: None,
        head: log.head,
        sequence: log.sequence,
        consumers,
        deleted,
    };
    if is_own {
        let run = match is_made {
            true => epoch,
            false => epoch_after(log.epoch, epoch),
        };
        // Once for each start of the agent.
        opened.own_run = Some(*batches.own_runs.entry(id).or_insert(run));
    }
    Ok(opened)
}

/// Has a new log begin above every number that a message of this node may have had: who drops repeats
/// by them must not drop what is new.
fn begin_above(connection: &Connection, id: LogId) -> anyhow::Result<u64> {
    let begin = past::retired(connection)?;
    if begin > 0 {
        connection.execute(
            "UPDATE log SET head = ?2, sequence = ?2 WHERE id = ?1",
            (id.0, integer(begin)),
        )?;
    }
    Ok(begin)
}

/// Forgets who does not want the messages of a log any more. Who is new wants those that come from
/// now on.
fn follow_consumers(
    connection: &Connection,
    id: LogId,
    log: &mut Indexed,
    wanted: &[Consumer],
) -> anyhow::Result<()> {
    for (known, base) in &log.consumers {
        if !wanted.contains(known) {
            past::discard(connection, waiting(log.head, *base))?;
            connection.execute(
                "DELETE FROM consumer WHERE log = ?1 AND route = ?2 AND node = ?3",
                (id.0, route(known), known.node.as_str()),
            )?;
        }
    }
    log.consumers.retain(|(known, _)| wanted.contains(known));
    for consumer in wanted {
        if log.base_of(consumer).is_none() {
            let head = log.head;
            connection
                .prepare_cached(
                    "INSERT INTO consumer (log, route, node, base) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((id.0, route(consumer), consumer.node.as_str(), integer(head)))?;
            log.consumers.push((consumer.clone(), head));
        }
    }
    Ok(())
}

/// What a consumer has not got of a log, as one route.
fn waiting(head: u64, base: u64) -> Overflow {
    Overflow {
        episodes: 1,
        messages: head.saturating_sub(base),
    }
}

/// A log goes with what waits in it, which is counted; its numbers are not given again.
pub(super) fn retire(connection: &Connection, index: &Index, id: LogId) -> anyhow::Result<()> {
    let Some(log) = index.logs.get(&id) else {
        return Ok(());
    };
    for (_, base) in &log.consumers {
        past::discard(connection, waiting(log.head, *base))?;
    }
    // Positions in a log of another node's messages are nobody's numbers.
    let is_own = "SELECT name NOT LIKE 'arrival %' FROM log WHERE id = ?1";
    if connection.query_row(is_own, [id.0], |row| row.get(0))? {
        past::retire(connection, log.head)?;
    }
    Ok(())
}

/// Base of a consumer, and the bytes beyond it.
fn backlog(
    connection: &Connection,
    id: LogId,
    log: &mut Indexed,
    consumer: &Consumer,
) -> anyhow::Result<(u64, u64)> {
    let base = *log.base_of(consumer).context("it was opened")?;
    let filed: i64 = connection
        .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM logged WHERE key > ?1 AND key < ?2")?
        .query_row((id.key(base), LogId(id.0 + 1).key(0)), |row| row.get(0))?;
    let in_batches = log.after(base).map(|(_, place)| u64::from(place.bytes));
    Ok((base, natural(filed) + in_batches.sum::<u64>()))
}

/// Forgets the logs of `owners` that are not wanted. Those of others come back with them, or are
/// deleted when they have been gone for a day.
pub(super) fn forget(
    connection: &Connection,
    index: &mut Index,
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
            retire(connection, index, log)?;
            connection.execute(
                "DELETE FROM logged WHERE key > ?1 AND key < ?2",
                (log.key(0), LogId(log.0 + 1).key(0)),
            )?;
            connection.execute("DELETE FROM log WHERE id = ?1", [log.0])?;
            index.forget(log);
        }
    }
    Ok(())
}

/// Makes another run of all that waits in a log, and of what is appended to it.
pub(super) fn renew(
    connection: &Connection,
    batches: &mut Batches,
    log: LogId,
    epoch: u64,
) -> anyhow::Result<()> {
    let index = batches.index(connection)?;
    // What batches tell of it is not asked again.
    store_heads(connection, index)?;
    connection.execute(
        "UPDATE log SET epoch = ?2 WHERE id = ?1",
        (log.0, integer(epoch)),
    )?;
    if let Some(indexed) = index.logs.get_mut(&log) {
        indexed.runs = Runs::new();
        indexed.reached(epoch, indexed.sequence);
        runs::store(connection, log, indexed)?;
    }
    batches.own_runs.insert(log, epoch);
    Ok(())
}

/// Deletes what every consumer is past, or everything where there is none. Returns its bytes.
fn delete_unneeded(connection: &Connection, index: &mut Index, log: LogId) -> anyhow::Result<u64> {
    let Some(indexed) = index.logs.get_mut(&log) else {
        return Ok(0);
    };
    let base = indexed.base();
    let mut deleted = 0;
    if base > indexed.passed && indexed.passed < indexed.filed_to {
        let mut delete = connection.prepare_cached(
            "DELETE FROM logged WHERE key > ?1 AND key <= ?2
             RETURNING bytes",
        )?;
        let mut rows = delete.query((log.key(0), log.key(base)))?;
        while let Some(row) = rows.next()? {
            deleted += natural(row.get(0)?);
        }
    }
    indexed.passed = base;
    Ok(deleted + index.pass(log, base))
}

/// See [`Store::advance`](crate::store::Store::advance).
pub(super) fn advance(
    connection: &Connection,
    index: &mut Index,
    advance: &Advance,
) -> anyhow::Result<u64> {
    let log = index.logs.get_mut(&advance.log);
    let Some(base) = log.and_then(|log| log.base_of(&advance.consumer)) else {
        return Ok(0);
    };
    if advance.base > *base {
        *base = advance.base;
        connection
            .prepare_cached(
                "UPDATE consumer SET base = ?4 WHERE log = ?1 AND route = ?2 AND node = ?3",
            )?
            .execute((
                advance.log.0,
                route(&advance.consumer),
                advance.consumer.node.as_str(),
                integer(advance.base),
            ))?;
    }
    delete_unneeded(connection, index, advance.log)
}

/// See [`Store::drop_oldest`](crate::store::Store::drop_oldest).
pub(super) fn drop_oldest(
    connection: &Connection,
    index: &mut Index,
    log: LogId,
    bytes: u64,
) -> anyhow::Result<Dropped> {
    let mut dropped = Dropped {
        upto: 0,
        messages: 0,
        bytes: 0,
    };
    let mut drop = |position, bytes_of_one| {
        dropped.upto = position;
        dropped.messages += 1;
        dropped.bytes += bytes_of_one;
        dropped.bytes < bytes
    };
    let indexed = index.logs.get_mut(&log).context("the log is gone")?;
    let mut goes_on = bytes > 0;
    if goes_on {
        let mut oldest = connection.prepare_cached(
            "SELECT key, bytes FROM logged WHERE key > ?1 AND key < ?2 ORDER BY key",
        )?;
        let mut rows = oldest.query((log.key(0), LogId(log.0 + 1).key(0)))?;
        while goes_on && let Some(row) = rows.next()? {
            goes_on = drop(position(row.get(0)?), natural(row.get(1)?));
        }
    }
    let mut places = indexed.after(0);
    while goes_on && let Some((position, place)) = places.next() {
        goes_on = drop(position, u64::from(place.bytes));
    }
    std::mem::drop(places);
    connection
        .prepare_cached("UPDATE consumer SET base = max(base, ?2) WHERE log = ?1")?
        .execute((log.0, integer(dropped.upto)))?;
    for (_, base) in &mut indexed.consumers {
        *base = (*base).max(dropped.upto);
    }
    delete_unneeded(connection, index, log)?;
    Ok(dropped)
}
