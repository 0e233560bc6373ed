//! The tables of the agent's database, and how older ones become newer ones.

use std::path::Path;

use anyhow::Context as _;
use rusqlite::Connection;

use super::health::Fault;
use super::natural;
use crate::identity::{private_file, sync_directory};

/// Marks the file as ours ("Haar" in ASCII), so that another program's database is never touched.
const APPLICATION_ID: i32 = 0x4861_6172;

/// Statements that stay prepared.
const STATEMENTS_MAX: usize = 48;

/// What is appended to the name of the copy that is kept before a migration.
const COPY: &str = ".before-update";

/// One step for each version; never change one that was released.
const MIGRATIONS: [&str; 8] = [
    START,
    MICROSERVICES,
    MESSAGES,
    BATCHES,
    AGES,
    DAMAGE,
    RUNS,
    LIVES,
];

const START: &str = "
    CREATE TABLE assignment (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        number INTEGER NOT NULL,
        envelope BLOB NOT NULL
    ) STRICT;
    CREATE TABLE counter (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT;
";

/// What is stored for microservices. Everything hangs on its owner and goes with it.
const MICROSERVICES: &str = "
    CREATE TABLE owner (
        id INTEGER PRIMARY KEY,
        application TEXT NOT NULL,
        microservice TEXT NOT NULL,
        -- For how long it has not been assigned, as far as that was seen; null while it is.
        gone_ms INTEGER,
        -- What its pairs take, counted with each change.
        key_value_bytes INTEGER NOT NULL DEFAULT 0,
        -- Counts changes of its pairs, for their versions.
        key_value_changes INTEGER NOT NULL DEFAULT 0,
        UNIQUE (application, microservice)
    ) STRICT;
    CREATE TABLE bucket (
        id INTEGER PRIMARY KEY,
        owner INTEGER NOT NULL REFERENCES owner (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        UNIQUE (owner, name)
    ) STRICT;
    CREATE TABLE pair (
        bucket INTEGER NOT NULL REFERENCES bucket (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        -- Number of the change that wrote it: tells it from every earlier value.
        version INTEGER NOT NULL,
        value BLOB NOT NULL,
        UNIQUE (bucket, key)
    ) STRICT;
    CREATE TABLE timer (
        owner INTEGER NOT NULL REFERENCES owner (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        scheduled_ms INTEGER NOT NULL,
        period_ms INTEGER,
        PRIMARY KEY (owner, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE dead_letter (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        owner INTEGER NOT NULL REFERENCES owner (id) ON DELETE CASCADE,
        bytes INTEGER NOT NULL,
        inlet TEXT NOT NULL,
        -- Site, node, application, microservice and outlet as JSON.
        source TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        published_ms INTEGER NOT NULL,
        content_type TEXT NOT NULL,
        -- Pairs of name and value as JSON.
        headers TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        reason TEXT NOT NULL,
        died_ms INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX dead_letter_owner ON dead_letter (owner, id, bytes);
    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        owner INTEGER NOT NULL REFERENCES owner (id) ON DELETE CASCADE,
        direction INTEGER NOT NULL CHECK (direction IN (0, 1)),
        port TEXT NOT NULL,
        -- What its messages take, counted with each change.
        bytes INTEGER NOT NULL DEFAULT 0,
        UNIQUE (owner, direction, port)
    ) STRICT;
    CREATE TABLE remembered (
        -- Ids count up, so they are in the order in which messages passed.
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        history INTEGER NOT NULL REFERENCES history (id) ON DELETE CASCADE,
        published_ms INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        node TEXT NOT NULL,
        application TEXT NOT NULL,
        microservice TEXT NOT NULL,
        outlet TEXT NOT NULL,
        content_type TEXT NOT NULL,
        headers TEXT NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX remembered_order ON remembered (history, id);
    CREATE INDEX remembered_age ON remembered (history, published_ms, id);
";

/// The messages of durable routes, from when they are published or received to when everybody who
/// wants them has them.
const MESSAGES: &str = "
    CREATE TABLE log (
        -- Up to 2^20: it is the upper part of a message's key.
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        owner INTEGER NOT NULL REFERENCES owner (id) ON DELETE CASCADE,
        -- The outlet; or route and node that the messages come from.
        name TEXT NOT NULL,
        -- Tells this log from earlier ones of the same name; of messages of another node, its word.
        epoch INTEGER NOT NULL,
        -- Position of the last message that was ever in it.
        head INTEGER NOT NULL DEFAULT 0,
        -- Sequence of that message, or of a later one that will never come.
        sequence INTEGER NOT NULL DEFAULT 0,
        UNIQUE (owner, name)
    ) STRICT;
    CREATE TABLE consumer (
        log INTEGER NOT NULL REFERENCES log (id) ON DELETE CASCADE,
        -- Id of the route, and of the node where it ends.
        route INTEGER NOT NULL,
        node TEXT NOT NULL,
        -- It needs nothing up to here any more.
        base INTEGER NOT NULL,
        PRIMARY KEY (log, route, node)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE logged (
        -- Log and position: 2^43 * log + position.
        key INTEGER PRIMARY KEY,
        sequence INTEGER NOT NULL,
        published_ms INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        headers BLOB NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
";

/// One order of arrival for all logs. What [`MESSAGES`] has of them stays where it is: as `logged` says,
/// in the order of logs, where from now on only what waits for long is moved.
const BATCHES: &str = "
    CREATE TABLE batch (
        -- Counts up, in the order of arrival.
        id INTEGER PRIMARY KEY,
        -- The messages of one commit, of whatever logs.
        messages BLOB NOT NULL
    ) STRICT;
";

/// When something was stored, by the clock that [`super::ages`] keeps: its age is counted from there.
/// What is there already counts from this migration on.
const AGES: &str = "
    ALTER TABLE batch ADD COLUMN stored_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE logged ADD COLUMN stored_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE remembered ADD COLUMN stored_ms INTEGER NOT NULL DEFAULT 0;
    DROP INDEX remembered_age;
    CREATE INDEX remembered_age ON remembered (history, stored_ms, id);
    DELETE FROM counter WHERE name = 'owners_looked_at_ms';
";

/// What is known of the file that this one replaced.
const DAMAGE: &str = "
    CREATE TABLE damage (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        found_ms INTEGER NOT NULL,
        -- A `StoreDamage` as JSON.
        report TEXT NOT NULL
    ) STRICT;
";

/// What different starts of an agent appended to a log: runs. The last one of a log is its own row.
const RUNS: &str = "
    CREATE TABLE run (
        log INTEGER NOT NULL REFERENCES log (id) ON DELETE CASCADE,
        -- Names the run.
        epoch INTEGER NOT NULL,
        -- Sequence of its last message here.
        upto INTEGER NOT NULL,
        PRIMARY KEY (log, epoch)
    ) STRICT, WITHOUT ROWID;
";

/// The life of a microservice that its data belong to: 0 is the first one, and that of everything that
/// was stored before there were lives.
const LIVES: &str = "
    ALTER TABLE owner ADD COLUMN life INTEGER NOT NULL DEFAULT 0;
";

/// Sets the connection up and brings the tables up to date.
pub(super) fn prepare(connection: &mut Connection) -> anyhow::Result<()> {
    prepare_as(connection, MIGRATIONS.len())
}

/// The same, as a release did that knew so many versions.
pub(super) fn prepare_as(connection: &mut Connection, versions: usize) -> anyhow::Result<()> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    anyhow::ensure!(
        tables == 0 || application == APPLICATION_ID,
        "the file is a database of another program"
    );
    if application != APPLICATION_ID {
        // Written only where it is not: opening needs no room on the disk.
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    // Write-ahead log with a sync at every commit: what was answered survives a power cut.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -256)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What one busy moment made of the log is given back at the next checkpoint.
    connection.pragma_update(None, "journal_size_limit", 1 << 20)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = usize::try_from(version)?;
    anyhow::ensure!(
        version <= versions,
        "the database is of version {version}, this release ({}) knows {versions}: update haar-agent, or go back to agent.db{COPY} (docs/durable-routes.md); until then nothing is stored",
        env!("CARGO_PKG_VERSION")
    );
    if (1..versions).contains(&version) {
        keep_copy(connection)?;
    }
    // All or nothing: what the copy is of is what is there until everything is new.
    let transaction = connection.transaction()?;
    for migration in &MIGRATIONS[version..versions] {
        transaction.execute_batch(migration)?;
    }
    if version < versions {
        transaction.pragma_update(None, "user_version", i64::try_from(versions)?)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Keeps the database as the earlier release left it, so that there is a way back: one file, the newest.
/// A node whose disk has no room for it is updated all the same.
///
/// # Errors
/// When the database is damaged.
fn keep_copy(connection: &Connection) -> anyhow::Result<()> {
    let Some(path) = connection.path().filter(|path| !path.is_empty()) else {
        return Ok(()); // in memory
    };
    let (copy, part) = (format!("{path}{COPY}"), format!("{path}{COPY}.part"));
    let make = || {
        for file in [&copy, &part] {
            let _ = std::fs::remove_file(file); // or there is none
        }
        let number =
            |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0).map(natural));
        let bytes = number("page_count")? * number("page_size")?;
        let space = rustix::fs::statvfs(path)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        anyhow::ensure!(
            has_room(bytes, free),
            "it takes {bytes} bytes, and {free} are free"
        );
        let file = private_file(Path::new(&part), true)?;
        connection.execute("VACUUM INTO ?1", [&part])?;
        file.sync_all()?;
        std::fs::rename(&part, &copy).context("it can't be renamed")?;
        sync_directory(Path::new(&copy));
        Ok(())
    };
    match make() {
        Ok(()) => tracing::info!("the database of the release before is kept as {copy}"),
        Err(error) if Fault::of(&error) == Some(Fault::Damage) => return Err(error),
        Err(error) => {
            let _ = std::fs::remove_file(&part); // or there is none
            tracing::warn!("no copy of the database is kept before it is changed: {error:#}");
        }
    }
    Ok(())
}

/// Whether a copy of so many bytes leaves room for what the agent goes on to write.
fn has_room(bytes: u64, free: u64) -> bool {
    bytes.saturating_mul(2) <= free
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn version(path: &Path) -> (i64, i64) {
        let connection = Connection::open(path).unwrap();
        let number = |pragma| {
            connection
                .pragma_query_value(None, pragma, |row| row.get(0))
                .unwrap()
        };
        (number("user_version"), number("application_id"))
    }

    #[test]
    fn the_database_of_the_release_before_is_kept_and_can_be_gone_back_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, latest) = (folder.path().join("agent.db"), MIGRATIONS.len());
        let copy = folder.path().join("agent.db.before-update");
        let mut connection = Connection::open(&path).unwrap();
        prepare_as(&mut connection, latest).unwrap();
        assert!(!copy.exists(), "a new database has nothing to go back to");
        drop(connection);
        for earlier in [3, latest - 1] {
            let _ = std::fs::remove_file(&path);
            let mut connection = Connection::open(&path).unwrap();
            prepare_as(&mut connection, earlier).unwrap();
            let insert = "INSERT INTO counter (name, value) VALUES ('status', 7)";
            connection.execute(insert, []).unwrap();
            prepare(&mut connection).unwrap();
            prepare(&mut connection).unwrap();
            drop(connection);
            let mark = i64::from(APPLICATION_ID);
            assert_eq!(version(&path), (i64::try_from(latest).unwrap(), mark));
            assert_eq!(version(&copy), (i64::try_from(earlier).unwrap(), mark));
            let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let files = std::fs::read_dir(folder.path()).unwrap();
            let names = files.map(|file| file.unwrap().file_name());
            let copies = names.filter(|name| name.to_str().unwrap().contains("before"));
            assert_eq!(copies.count(), 1);
            // The earlier release goes on with it.
            std::fs::copy(&copy, &path).unwrap();
            let mut connection = Connection::open(&path).unwrap();
            prepare_as(&mut connection, earlier).unwrap();
            let kept = "SELECT value FROM counter WHERE name = 'status'";
            let kept: i64 = connection.query_row(kept, [], |row| row.get(0)).unwrap();
            assert_eq!(kept, 7);
        }
    }

    #[test]
    fn a_copy_is_made_only_where_it_leaves_room() {
        assert!(has_room(10, 20));
        assert!(!has_room(11, 20));
        assert!(!has_room(u64::MAX, u64::MAX - 1));
    }
}
