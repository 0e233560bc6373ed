//! The tables of the agent's database, and how older ones become newer ones.

use rusqlite::Connection;

/// Marks the file as ours ("Haar" in ASCII), so that another program's database is never touched.
const APPLICATION_ID: i32 = 0x4861_6172;

/// One step for each version; never change one that was released.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE assignment (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        number INTEGER NOT NULL,
        envelope BLOB NOT NULL
    ) STRICT;
    CREATE TABLE counter (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT;
"];

/// Sets the connection up and brings the tables up to date.
pub(super) fn prepare(connection: &mut Connection) -> anyhow::Result<()> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    anyhow::ensure!(
        tables == 0 || application == APPLICATION_ID,
        "the file is a database of another program"
    );
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    // Write-ahead log with a sync at every commit: what was answered survives a power cut.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -256)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = usize::try_from(version)?;
    anyhow::ensure!(
        version <= MIGRATIONS.len(),
        "the database is of version {version}, this release knows {}: update haar-agent",
        MIGRATIONS.len()
    );
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", i64::try_from(index + 1)?)?;
        transaction.commit()?;
    }
    Ok(())
}
