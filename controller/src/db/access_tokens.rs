//! People's bearer tokens, as SHA-256. There are few, so a check reads them all and compares each
//! in constant time.

use rusqlite::{Connection, params};

use crate::failure::{Failure, Kind};

const TOKENS_MAX: i64 = 1_000;

/// A new token for `name`; the one that the name had stops working.
pub(crate) fn put(
    connection: &Connection,
    name: &str,
    hash: &[u8; 32],
    now_ms: u64,
) -> Result<(), Failure> {
    let count: i64 =
        connection.query_row("SELECT count(*) FROM access_tokens", [], |row| row.get(0))?;
    if count >= TOKENS_MAX {
        return Err(Failure::new(
            Kind::Overloaded,
            "too_many_tokens",
            format!("there are {TOKENS_MAX} access tokens already"),
        ));
    }
    connection.execute(
        "INSERT INTO access_tokens (name, hash, created_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, created_ms = excluded.created_ms",
        params![name, hash, now_ms],
    )?;
    Ok(())
}

/// Whose token has this hash.
pub(crate) fn owner(connection: &Connection, hash: &[u8; 32]) -> Result<Option<String>, Failure> {
    let mut statement = connection.prepare_cached("SELECT name, hash FROM access_tokens")?;
    let mut rows = statement.query([])?;
    let mut owner = None;
    while let Some(row) = rows.next()? {
        let known: [u8; 32] = row.get(1)?;
        if same(&known, hash) {
            owner = Some(row.get(0)?);
        }
    }
    Ok(owner)
}

/// Compares without telling by its time where the two differ.
fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let difference = left
        .iter()
        .zip(right)
        .fold(0u8, |sum, (left, right)| sum | (left ^ right));
    std::hint::black_box(difference) == 0
}
