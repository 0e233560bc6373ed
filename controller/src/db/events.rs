//! What happened in the site: the newest 10,000 events of people and the newest 10,000 of nodes. The
//! oldest go first, and those of nodes never evict those of people.

use haar_protocol::rest::Event;
use rusqlite::{Connection, Row, params};

use crate::failure::Failure;

/// How many events are kept of each origin.
pub(crate) const EVENTS_MAX: u32 = 10_000;
/// Longer texts are cut; some of them come from nodes.
const TEXT_CHARACTERS_MAX: usize = 1_000;

/// Who caused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A person, by a request.
    Person = 0,
    /// A node, by a report; also what the site did because of it.
    Node = 1,
}

pub(super) fn insert(
    connection: &Connection,
    now_ms: u64,
    origin: Origin,
    kind: &str,
    subject: &str,
    message: &str,
) -> Result<Event, Failure> {
    let message: String = message.chars().take(TEXT_CHARACTERS_MAX).collect();
    connection
        .prepare_cached(
            "INSERT INTO events (time_ms, kind, subject, message, origin) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![now_ms, kind, subject, message, origin as u8])?;
    Ok(Event {
        id: connection.last_insert_rowid().unsigned_abs(),
        time_ms: now_ms,
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        message,
    })
}

pub(super) fn trim(connection: &Connection) -> Result<(), Failure> {
    for origin in [Origin::Person, Origin::Node] {
        connection
            .prepare_cached(
                "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE origin = ?1 ORDER BY id
                   LIMIT max(0, (SELECT events FROM event_usage WHERE origin = ?1) - ?2))",
            )?
            .execute(params![origin as u8, EVENTS_MAX])?;
    }
    Ok(())
}

/// The newest `count` events since a time by the controller's clock, oldest first.
pub(crate) fn tail(
    connection: &Connection,
    since_ms: u64,
    count: u32,
) -> Result<Vec<Event>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT id, time_ms, kind, subject, message FROM events WHERE time_ms >= ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let mut events = statement
        .query_map(params![since_ms, count], read)?
        .collect::<Result<Vec<_>, _>>()?;
    events.reverse();
    Ok(events)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        id: row.get(0)?,
        time_ms: row.get(1)?,
        kind: row.get(2)?,
        subject: row.get(3)?,
        message: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db;

    #[test]
    fn events_of_nodes_never_evict_those_of_people() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = db::open_connection(&directory.path().join("a.db")).unwrap();
        let transaction = connection.transaction().unwrap();
        let add = |origin, kind: &str| insert(&transaction, 1, origin, kind, "", "").unwrap();
        add(Origin::Person, "publisher_trusted");
        for _ in 0..EVENTS_MAX + 50 {
            add(Origin::Node, "node_online");
        }
        add(Origin::Person, "node_revoked");
        trim(&transaction).unwrap();
        let events = tail(&transaction, 0, 20_000).unwrap();
        assert_eq!(events.len(), EVENTS_MAX as usize + 2);
        assert_eq!(events[0].kind, "publisher_trusted");
        assert_eq!(events[1].id, 52, "the oldest of the nodes went first");
        assert_eq!(events.last().unwrap().kind, "node_revoked");
    }
}
