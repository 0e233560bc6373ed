//! Trusted publishers.

use haar_protocol::rest::TrustedPublisher;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::parse;
use crate::failure::{Failure, Kind};

/// How many there may be: the list stands in every assignment.
pub(crate) const PUBLISHERS_MAX: usize = 100;

/// All of them, by name.
pub(crate) fn list(connection: &Connection) -> Result<Vec<TrustedPublisher>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT name, key, added_ms FROM publishers ORDER BY name")?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, u64>(2)?,
        ))
    })?;
    rows.map(|row| {
        let (name, key, added_ms) = row?;
        Ok(TrustedPublisher {
            name: parse(&name)?,
            key: parse(&key)?,
            added_ms,
        })
    })
    .collect()
}

/// Adds a publisher, or changes the key of the one with its name.
pub(crate) fn put(connection: &Connection, publisher: &TrustedPublisher) -> Result<(), Failure> {
    let other: Option<String> = connection
        .query_row(
            "SELECT name FROM publishers WHERE key = ?1 AND name <> ?2",
            [publisher.key.to_string(), publisher.name.to_string()],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(other) = other {
        return Err(Failure::new(
            Kind::Conflict,
            "key_taken",
            format!("this key is trusted already, as publisher `{other}`"),
        ));
    }
    connection.execute(
        "INSERT INTO publishers (name, key, added_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET key = excluded.key, added_ms = excluded.added_ms",
        params![
            publisher.name.as_str(),
            publisher.key.to_string(),
            publisher.added_ms
        ],
    )?;
    Ok(())
}

/// Removes a publisher; false when there was none.
pub(crate) fn delete(connection: &Connection, name: &str) -> Result<bool, Failure> {
    Ok(connection.execute("DELETE FROM publishers WHERE name = ?1", [name])? == 1)
}
