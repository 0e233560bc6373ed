//! Trusted publishers: their keys.

use haar_protocol::keys::PublicKey;
use haar_protocol::rest::TrustedPublisher;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::parse;
use crate::failure::{Failure, Kind};

/// How many keys there may be: the list stands in every assignment.
pub(crate) const KEYS_MAX: usize = 100;

/// All keys, by the names of their publishers, the oldest first.
pub(crate) fn list(connection: &Connection) -> Result<Vec<TrustedPublisher>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT name, key, added_ms FROM publishers ORDER BY name, added_ms, key",
    )?;
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

/// Adds a key, which no other publisher may have.
pub(crate) fn add(connection: &Connection, publisher: &TrustedPublisher) -> Result<(), Failure> {
    let key = publisher.key.to_string();
    let owner: Option<String> = connection
        .query_row(
            "SELECT name FROM publishers WHERE key = ?1",
            [&key],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(owner) = owner {
        return Err(Failure::new(
            Kind::Conflict,
            "key_taken",
            format!("this key is trusted already, as publisher `{owner}`"),
        ));
    }
    connection.execute(
        "INSERT INTO publishers (name, key, added_ms) VALUES (?1, ?2, ?3)",
        params![publisher.name.as_str(), key, publisher.added_ms],
    )?;
    Ok(())
}

/// Removes all keys of a publisher, or one of them. Returns how many.
pub(crate) fn delete(
    connection: &Connection,
    name: &str,
    key: Option<PublicKey>,
) -> Result<usize, Failure> {
    let key = key.map(|key| key.to_string());
    Ok(connection.execute(
        "DELETE FROM publishers WHERE name = ?1 AND key = coalesce(?2, key)",
        params![name, key],
    )?)
}
