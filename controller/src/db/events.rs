//! What happened in the site: the newest 10,000 events. The oldest go first.

use haar_protocol::rest::Event;
use rusqlite::{Connection, Row, params};

use super::{from_sql, to_sql};
use crate::failure::Failure;

/// How many events are kept.
pub(crate) const EVENTS_MAX: i64 = 10_000;
/// Longer texts are cut; some of them come from nodes.
const TEXT_CHARACTERS_MAX: usize = 1_000;

pub(super) fn insert(
    connection: &Connection,
    now_ms: u64,
    kind: &str,
    subject: &str,
    message: &str,
) -> Result<Event, Failure> {
    let message: String = message.chars().take(TEXT_CHARACTERS_MAX).collect();
    connection
        .prepare_cached(
            "INSERT INTO events (time_ms, kind, subject, message) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![to_sql(now_ms), kind, subject, message])?;
    Ok(Event {
        id: from_sql(connection.last_insert_rowid()),
        time_ms: now_ms,
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        message,
    })
}

pub(super) fn trim(connection: &Connection) -> Result<(), Failure> {
    connection
        .prepare_cached("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?1")?
        .execute([EVENTS_MAX])?;
    Ok(())
}

/// The newest `count` events, oldest first.
pub(crate) fn tail(connection: &Connection, count: u32) -> Result<Vec<Event>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT id, time_ms, kind, subject, message FROM events ORDER BY id DESC LIMIT ?1",
    )?;
    let mut events = statement
        .query_map([count], read)?
        .collect::<Result<Vec<_>, _>>()?;
    events.reverse();
    Ok(events)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        id: from_sql(row.get(0)?),
        time_ms: from_sql(row.get(1)?),
        kind: row.get(2)?,
        subject: row.get(3)?,
        message: row.get(4)?,
    })
}
