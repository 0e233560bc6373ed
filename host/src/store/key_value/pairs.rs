//! The pairs of one bucket, inside one request: what changes is counted, and the count is written
//! once at the end.

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _};

use super::{BUCKETS_MAX, Bucket, KeyValueError, PAIR_BYTES};
use crate::store::{integer, natural, owners};

/// One bucket for the length of one request.
pub(super) struct Pairs<'a> {
    connection: &'a Connection,
    bucket: &'a Bucket,
    /// The owner's number, once it has one.
    owner: Option<i64>,
    /// The bucket's number, once it exists.
    id: Option<i64>,
    /// What the owner's pairs took at the beginning, in bytes.
    bytes_before: u64,
    /// What they take now.
    bytes: u64,
    /// The last change of the owner's pairs.
    changes: u64,
    changed: bool,
}

impl<'a> Pairs<'a> {
    pub(super) fn of(connection: &'a Connection, bucket: &'a Bucket) -> anyhow::Result<Self> {
        let found = connection
            .prepare_cached(
                "SELECT owner.id, bucket.id, key_value_bytes, key_value_changes
                 FROM owner LEFT JOIN bucket ON bucket.owner = owner.id AND bucket.name = ?3
                 WHERE application = ?1 AND microservice = ?2",
            )?
            .query_row(
                (
                    bucket.owner.application.as_str(),
                    bucket.owner.microservice.as_str(),
                    &*bucket.name,
                ),
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .optional()?;
        let (owner, id, bytes, changes) = found.unwrap_or((None, None, 0, 0));
        Ok(Self {
            connection,
            bucket,
            owner,
            id,
            bytes_before: natural(bytes),
            bytes: natural(bytes),
            changes: natural(changes),
            changed: false,
        })
    }

    /// The value of a key with its version.
    pub(super) fn get(&self, key: &str) -> anyhow::Result<Option<(u64, Vec<u8>)>> {
        let found = self
            .connection
            .prepare_cached("SELECT version, value FROM pair WHERE bucket = ?1 AND key = ?2")?
            .query_row((self.id, key), |row| {
                Ok((natural(row.get(0)?), row.get(1)?))
            })
            .optional()?;
        Ok(found)
    }

    /// The version of a key's value, and its length.
    pub(super) fn size(&self, key: &str) -> anyhow::Result<Option<(u64, u64)>> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT version, length(value) FROM pair WHERE bucket = ?1 AND key = ?2",
            )?
            .query_row((self.id, key), |row| {
                Ok((natural(row.get(0)?), natural(row.get(1)?)))
            })
            .optional()?;
        Ok(found)
    }

    /// At most `most` keys in their order, those after `after`.
    pub(super) fn keys(&self, after: Option<&str>, most: u32) -> anyhow::Result<Vec<String>> {
        // Two statements, so that each finds its beginning in the index.
        let sql = match after {
            None => "SELECT key FROM pair WHERE bucket = ?1 ORDER BY key LIMIT ?2",
            Some(_) => "SELECT key FROM pair WHERE bucket = ?1 AND key > ?3 ORDER BY key LIMIT ?2",
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let key = |row: &rusqlite::Row<'_>| row.get(0);
        let keys: rusqlite::Result<Vec<String>> = match after {
            None => statement.query_map((self.id, most), key)?.collect(),
            Some(after) => statement.query_map((self.id, most, after), key)?.collect(),
        };
        keys.context("keys can't be read")
    }

    pub(super) fn set(&mut self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        let bucket = self.ensure_bucket()?;
        if let Some((_, length)) = self.size(key)? {
            self.bytes = self.bytes.saturating_sub(cost(key, length));
        }
        self.bytes += cost(key, value.len() as u64);
        self.note_change();
        self.connection
            .prepare_cached(
                "INSERT INTO pair (bucket, key, version, value) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (bucket, key) DO UPDATE SET
                 version = excluded.version, value = excluded.value",
            )?
            .execute((bucket, key, integer(self.changes), value))?;
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &str) -> anyhow::Result<()> {
        let Some((_, length)) = self.size(key)? else {
            return Ok(());
        };
        self.bytes = self.bytes.saturating_sub(cost(key, length));
        self.note_change();
        self.connection
            .prepare_cached("DELETE FROM pair WHERE bucket = ?1 AND key = ?2")?
            .execute((self.id, key))?;
        Ok(())
    }

    fn note_change(&mut self) {
        self.changes += 1;
        self.changed = true;
    }

    /// Ends a change: refuses it when the owner's pairs take more than `limit` and more than
    /// before, and writes down what they take. Returns that, in bytes.
    pub(super) fn settle(&self, limit: Option<u64>) -> anyhow::Result<u64> {
        if let Some(limit) = limit
            && self.bytes > limit
            && self.bytes > self.bytes_before
        {
            return Err(KeyValueError::Full(limit).into());
        }
        if self.changed {
            self.connection
                .prepare_cached(
                    "UPDATE owner SET key_value_bytes = ?2, key_value_changes = ?3 WHERE id = ?1",
                )?
                .execute((self.owner, integer(self.bytes), integer(self.changes)))?;
        }
        Ok(self.bytes)
    }

    /// Refuses a bucket that does not exist when there are as many as there may be.
    pub(super) fn check_room_for_bucket(&mut self) -> anyhow::Result<()> {
        let (None, Some(owner)) = (self.id, self.owner) else {
            return Ok(());
        };
        let buckets: u32 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM bucket WHERE owner = ?1
                 AND EXISTS (SELECT 1 FROM pair WHERE pair.bucket = bucket.id)",
            )?
            .query_row([owner], |row| row.get(0))?;
        if buckets >= BUCKETS_MAX {
            return Err(KeyValueError::TooManyBuckets.into());
        }
        Ok(())
    }

    /// The bucket's number. A bucket that is made takes the place of those that have become empty.
    fn ensure_bucket(&mut self) -> anyhow::Result<i64> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        self.check_room_for_bucket()?;
        let owner = owners::ensure(self.connection, &self.bucket.owner)?;
        self.connection.execute(
            "DELETE FROM bucket WHERE owner = ?1
             AND NOT EXISTS (SELECT 1 FROM pair WHERE pair.bucket = bucket.id)",
            [owner],
        )?;
        self.connection.execute(
            "INSERT INTO bucket (owner, name) VALUES (?1, ?2)",
            (owner, &*self.bucket.name),
        )?;
        let id = self.connection.last_insert_rowid();
        (self.owner, self.id) = (Some(owner), Some(id));
        Ok(id)
    }
}

/// What a pair takes, in bytes.
fn cost(key: &str, value_bytes: u64) -> u64 {
    key.len() as u64 + value_bytes + PAIR_BYTES
}
