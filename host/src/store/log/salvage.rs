//! Recovers logs from a damaged database. The messages of each batch are filed one by one, so that a
//! missing batch does not make the batches after it unusable; then the rows of the logs are brought in
//! line with the messages that are there. The same for the logs of a sound database that is an older copy.

use rusqlite::{Connection, OptionalExtension as _};

use super::batch::{self, Found, Section};
use super::batches::{Batches, Room};
use super::{LogId, POSITION_BITS, filed};
use crate::store::ages::AgeClock;
use crate::store::health::Damage;
use crate::store::salvage::is_taken;
use crate::store::{integer, natural};

/// Files the messages of a batch that somebody needs. False when it can't be read, or not all of them
/// can be filed.
///
/// # Errors
/// When the database can't be written.
pub(in crate::store) fn file(
    connection: &Connection,
    batch: &[u8],
    stored_ms: u64,
) -> anyhow::Result<bool> {
    let Ok(found) = batch::all(batch) else {
        return Ok(false);
    };
    let mut all_taken = true;
    for found in &found {
        let Some(base) = base(connection, found.section.log)? else {
            continue; // the log is gone, or nobody wants its messages
        };
        tell(connection, found)?;
        if found.position > base && !has(connection, found.section.log, found.position)? {
            let message = batch::message(batch, found.offset)?;
            let filed = filed::insert(
                connection,
                found.section.log,
                found.position,
                &message,
                stored_ms,
            );
            all_taken &= match filed.map_err(anyhow::Error::downcast::<rusqlite::Error>) {
                Ok(()) => true,
                Err(Ok(error)) => is_taken(Err(error))?,
                Err(Err(error)) => return Err(error),
            };
        }
    }
    Ok(all_taken)
}

/// Up to where nobody needs the messages of a log.
fn base(connection: &Connection, log: LogId) -> rusqlite::Result<Option<u64>> {
    let base: Option<i64> = connection
        .prepare_cached("SELECT min(base) FROM consumer WHERE log = ?1")?
        .query_row([log.0], |row| row.get(0))?;
    Ok(base.map(natural))
}

fn has(connection: &Connection, log: LogId, position: u64) -> rusqlite::Result<bool> {
    let found = connection
        .prepare_cached("SELECT 1 FROM logged WHERE key = ?1")?
        .query_row([log.key(position)], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

/// A message says how far its log is, when the log's row does not say so yet.
fn tell(connection: &Connection, found: &Found) -> rusqlite::Result<()> {
    let Section { log, epoch, .. } = found.section;
    connection
        .prepare_cached(
            "UPDATE log SET head = ?2, sequence = ?3, epoch = max(epoch, ?4) WHERE id = ?1 AND head < ?2",
        )?
        .execute((
            log.0,
            integer(found.position),
            integer(found.sequence),
            integer(epoch),
        ))?;
    Ok(())
}

/// Moves what waits in logs of this node to positions above `numbers`, one log after the other.
fn number_above(connection: &Connection, numbers: u64) -> rusqlite::Result<()> {
    if numbers == 0 {
        return Ok(()); // it is not known what they have reached
    }
    let mut own = connection.prepare(
        "SELECT id, head, (SELECT coalesce(min(base), head) FROM consumer WHERE log = id)
         FROM log WHERE name NOT LIKE 'arrival %'",
    )?;
    let own = own.query_map([], |row| {
        let number = |index| row.get(index).map(natural);
        Ok((LogId(row.get(0)?), number(1)?, number(2)?))
    })?;
    for (log, head, base) in own.collect::<Result<Vec<_>, _>>()? {
        // Nobody needs what is up to the base. Everything moves by no less than there is beyond it, so no
        // two messages meet on their way.
        let by = integer(numbers.max(head) - base);
        connection.execute(
            "DELETE FROM logged WHERE key > ?1 AND key <= ?2",
            (log.key(0), log.key(base)),
        )?;
        connection.execute(
            "UPDATE logged SET key = key + ?3, sequence = sequence + ?3 WHERE key > ?1 AND key < ?2",
            (log.key(0), LogId(log.0 + 1).key(0), by),
        )?;
        connection.execute(
            "UPDATE consumer SET base = base + ?2 WHERE log = ?1",
            (log.0, by),
        )?;
        connection.execute(
            "UPDATE log SET head = head + ?2, sequence = sequence + ?2 WHERE id = ?1",
            (log.0, by),
        )?;
    }
    Ok(())
}

/// Brings logs in line with the messages that are there. The newest ones of an outlet may be missing, and
/// others have seen their sequences: so its log becomes another one, whose messages are all new and numbered
/// above `numbers`, which no message has reached. Returns how many messages that somebody needs are there,
/// and how many are missing at least.
///
/// # Errors
/// When the database can't be written.
pub(in crate::store) fn settle(
    connection: &Connection,
    now_ms: u64,
    numbers: u64,
) -> anyhow::Result<(u64, u64)> {
    connection.execute(
        "DELETE FROM logged WHERE key >> ?1 NOT IN (SELECT id FROM log)",
        [POSITION_BITS],
    )?;
    connection.execute(
        "UPDATE log SET head = max(head,
             (SELECT coalesce(max(base), 0) FROM consumer WHERE log = id),
             (SELECT coalesce(max(key), id << ?1) - (id << ?1) FROM logged
              WHERE key > id << ?1 AND key < (id + 1) << ?1))",
        [POSITION_BITS],
    )?;
    connection.execute(
        "UPDATE log SET sequence = max(sequence, head), epoch = max(epoch + 1, ?1)
         WHERE name NOT LIKE 'arrival %'",
        [integer(now_ms)],
    )?;
    connection.execute(
        "DELETE FROM run WHERE log IN (SELECT id FROM log WHERE name NOT LIKE 'arrival %')",
        [],
    )?;
    number_above(connection, numbers)?;
    let (wanted, there): (i64, i64) = connection.query_row(
        "SELECT coalesce(sum(head - base), 0), coalesce(sum(there), 0) FROM
         (SELECT head, base,
              (SELECT count(*) FROM logged WHERE key > (id << ?1) + base AND key < (id + 1) << ?1)
              AS there
          FROM (SELECT id, head, (SELECT coalesce(min(base), head) FROM consumer WHERE log = id)
                AS base FROM log))",
        [POSITION_BITS],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok((natural(there), natural(wanted - there)))
}

/// Files everything that waits in batches, and [settles](settle) the logs of a database that is whole and an
/// older copy: nothing of it is lost.
///
/// # Errors
/// When the database can't be read or written. What does not go together is damage.
pub(in crate::store) fn number_again(
    connection: &Connection,
    now_ms: u64,
    numbers: u64,
) -> anyhow::Result<()> {
    let ages = AgeClock::new();
    ages.resume(connection)?;
    let room = Room {
        batches_bytes: 0, // all of them are too large
        ..Room::default()
    };
    match Batches::new(room, ages).make_room(connection) {
        Err(error) if !error.is::<rusqlite::Error>() => {
            return Err(Damage(format!("{error:#}")).into());
        }
        filed => filed?,
    }
    settle(connection, now_ms, numbers)?;
    Ok(())
}
