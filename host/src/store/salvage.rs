//! Copies what can still be read of a damaged database into a new one. SQLite recognises a malformed
//! page; so each table is read in key order up to the damage, then from the other end. Rows that violate
//! a constraint, or whose parent row is missing, are skipped. A value that the disk changed within a row
//! is not recognised: rows have no checksums.

use std::path::Path;
use std::time::{Duration, Instant};

use haar_protocol::status::StoreDamage;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, Row, params_from_iter};

use super::key_value::PAIR_BYTES;
use super::{ages, integer, log, natural};
use crate::local_api::state::now_ms;

/// Copying takes no longer, because a service manager waits for the agent. The rest is missing then.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Each table with the columns that order its rows and the name that people see. Parents come before their
/// children, and messages and pairs before histories.
const TABLES: [(&str, &str, &str); 12] = [
    ("assignment", "id", "the assignment"),
    ("counter", "rowid", "counters"),
    ("owner", "id", "microservices"),
    ("log", "id", "logs"),
    ("consumer", "log, route, node", "consumers of logs"),
    ("logged", "key", "messages"),
    ("bucket", "id", "buckets"),
    ("pair", "rowid", "pairs"),
    ("timer", "owner, name", "timers"),
    ("dead_letter", "id", "dead letters"),
    ("history", "id", "histories"),
    ("remembered", "id", "messages in histories"),
];

/// Copies what can be read of the database at `path`. No message of this node had a number above `numbers`.
/// What is missing is in the answer.
///
/// # Errors
/// When the fresh database can't be written: then it has a part of it.
pub(super) fn copy(
    path: &Path,
    fresh: &mut Connection,
    numbers: u64,
) -> anyhow::Result<StoreDamage> {
    let mut damage = StoreDamage::default();
    let damaged = Connection::open(path)?;
    // Closing must not change the file that is kept for inspection.
    let _ = damaged.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    let copy = Copy {
        damaged,
        fresh: fresh.transaction()?,
        until: Instant::now() + TIME_MAX,
    };
    for (table, order, what) in TABLES {
        let is_complete = match table {
            // The newest messages are not among those that were filed.
            "logged" => copy.table(table, order)? & copy.batches()?,
            "log" => copy.table(table, order)? & copy.runs()?,
            _ => copy.table(table, order)?,
        };
        if !is_complete {
            damage.missing.push(what.to_owned());
        }
    }
    if damage.missing.len() == TABLES.len() {
        damage.missing = vec!["everything".to_owned()];
    }
    let connection = &copy.fresh;
    (damage.messages, damage.messages_missing) =
        log::salvage::settle(connection, now_ms(), numbers)?;
    connection.execute(
        "UPDATE owner SET key_value_bytes =
         (SELECT coalesce(sum(length(CAST(key AS BLOB)) + length(value) + ?1), 0)
          FROM pair JOIN bucket ON bucket.id = pair.bucket WHERE bucket.owner = owner.id),
         key_value_changes = max(key_value_changes,
         (SELECT coalesce(max(version), 0)
          FROM pair JOIN bucket ON bucket.id = pair.bucket WHERE bucket.owner = owner.id))",
        [integer(PAIR_BYTES)],
    )?;
    connection.execute(
        "UPDATE history SET bytes =
         (SELECT coalesce(sum(bytes), 0) FROM remembered WHERE history = history.id)",
        [],
    )?;
    // Ages are counted from there, also when the counters are lost.
    connection.execute(
        "INSERT INTO counter (name, value)
         SELECT ?1, max((SELECT coalesce(max(stored_ms), 0) FROM logged),
                        (SELECT coalesce(max(stored_ms), 0) FROM remembered))
         WHERE true
         ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        [ages::AGE_MS],
    )?;
    copy.fresh.commit()?;
    Ok(damage)
}

/// A copy on its way.
struct Copy<'a> {
    damaged: Connection,
    fresh: rusqlite::Transaction<'a>,
    until: Instant,
}

impl Copy<'_> {
    /// Copies the rows of a table. False when some are missing.
    fn table(&self, table: &str, order: &str) -> anyhow::Result<bool> {
        let Ok(columns) = self.columns(table) else {
            return Ok(false);
        };
        if columns.is_empty() {
            return Ok(false);
        }
        let places: Vec<_> = (1..=columns.len())
            .map(|place| format!("?{place}"))
            .collect();
        let insert = format!(
            "INSERT OR IGNORE INTO {table} ({}) VALUES ({})",
            columns.join(", "),
            places.join(", ")
        );
        let rows = format!("SELECT {} FROM {table}", columns.join(", "));
        let count = columns.len();
        self.both_ways(&rows, order, |row| {
            let values = (0..count)
                .map(|column| row.get::<_, Value>(column))
                .collect::<Result<Vec<_>, _>>();
            let Ok(values) = values else {
                return Ok(false);
            };
            let inserted = self
                .fresh
                .prepare_cached(&insert)?
                .execute(params_from_iter(values));
            is_taken(inserted)
        })
    }

    /// Copies the runs of logs. False when some are missing. A database of an earlier release has none.
    fn runs(&self) -> anyhow::Result<bool> {
        match self.columns("run") {
            Ok(columns) if columns.is_empty() => Ok(true),
            _ => self.table("run", "log, epoch"),
        }
    }

    /// Files the messages of batches. False when some are missing.
    fn batches(&self) -> anyhow::Result<bool> {
        let has_ages = self
            .columns("batch")
            .is_ok_and(|columns| columns.iter().any(|column| column == "stored_ms"));
        let stored = if has_ages { "stored_ms" } else { "0" };
        let rows = format!("SELECT messages, {stored} FROM batch");
        self.both_ways(&rows, "id", |row| {
            let Ok((batch, stored_ms)) = read_batch(row) else {
                return Ok(false);
            };
            log::salvage::file(&self.fresh, &batch, stored_ms)
        })
    }

    /// The columns that a table has in both databases; none where the damaged one has no such table.
    fn columns(&self, table: &str) -> rusqlite::Result<Vec<String>> {
        const SQL: &str = "SELECT name FROM pragma_table_info(?1)";
        let names = |connection: &Connection| {
            let mut statement = connection.prepare(SQL)?;
            let names = statement.query_map([table], |row| row.get::<_, String>(0))?;
            names.collect::<rusqlite::Result<Vec<_>>>()
        };
        let mut columns = names(&self.fresh)?;
        let known = names(&self.damaged)?;
        columns.retain(|column| known.contains(column));
        Ok(columns)
    }

    /// Hands rows to `take` until one can't be read; then those from the other end. `take` may see a
    /// row twice, and says whether it was taken. False when not all were.
    fn both_ways(
        &self,
        rows: &str,
        order: &str,
        mut take: impl FnMut(&Row<'_>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let descending = order.replace(',', " DESC,");
        let ways = [
            format!("{rows} ORDER BY {order}"),
            format!("{rows} ORDER BY {descending} DESC"),
        ];
        let mut all_taken = true;
        for way in ways {
            if self.one_way(&way, &mut all_taken, &mut take)? {
                return Ok(all_taken);
            }
        }
        Ok(false)
    }

    /// True when it came to the end.
    fn one_way(
        &self,
        way: &str,
        all_taken: &mut bool,
        take: &mut impl FnMut(&Row<'_>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let Ok(mut statement) = self.damaged.prepare(way) else {
            return Ok(false);
        };
        let Ok(mut rows) = statement.query([]) else {
            return Ok(false);
        };
        while Instant::now() < self.until {
            match rows.next() {
                Ok(Some(row)) => *all_taken &= take(row)?,
                Ok(None) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
        Ok(false)
    }
}

fn read_batch(row: &Row<'_>) -> rusqlite::Result<(Vec<u8>, u64)> {
    Ok((row.get(0)?, natural(row.get(1)?)))
}

/// Whether a row was taken: one that violates a constraint is not, and does not end the copy.
///
/// # Errors
/// When the database can't be written.
pub(super) fn is_taken(inserted: rusqlite::Result<usize>) -> anyhow::Result<bool> {
    match inserted {
        Ok(rows) => Ok(rows > 0),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => Ok(false),
            _ => Err(error.into()),
        },
    }
}
