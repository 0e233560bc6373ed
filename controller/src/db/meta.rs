//! Small facts, by name: about the site as a whole, and which log line of each node came last.

use rusqlite::{Connection, OptionalExtension as _};

use crate::failure::Failure;

/// The id of the site that the database belongs to.
pub(crate) const SITE: &str = "site";
/// The site's name.
pub(crate) const NAME: &str = "name";
/// The names that the server's certificate carries, and its end, as the site wrote them.
pub(crate) const CERTIFICATE: &str = "certificate";

/// The fact called `key`.
pub(crate) fn get(connection: &Connection, key: &str) -> Result<Option<String>, Failure> {
    let value = connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(value)
}

/// Keeps a fact; the one that was there is replaced.
pub(crate) fn set(connection: &Connection, key: &str, value: &str) -> Result<(), Failure> {
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [key, value],
    )?;
    Ok(())
}

/// Forgets a fact.
pub(crate) fn delete(connection: &Connection, key: &str) -> Result<(), Failure> {
    connection.execute("DELETE FROM meta WHERE key = ?1", [key])?;
    Ok(())
}
