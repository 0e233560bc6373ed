//! The tables of the agent's database, and how older ones become newer ones.

use rusqlite::Connection;

use super::copy;

/// Marks the file as ours ("Haar" in ASCII), so that another program's database is never touched.
pub(super) const APPLICATION_ID: i32 = 0x4861_6172;

/// Statements that stay prepared.
const STATEMENTS_MAX: usize = 48;

/// One step for each version; never change one that was released.
pub(super) const MIGRATIONS: [&str; 8] = [
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
        "the database is of version {version}, this release ({}) knows {versions}: update haar-agent, or go back to agent.db{} (docs/durable-routes.md); until then nothing is stored",
        env!("CARGO_PKG_VERSION"),
        copy::SUFFIX
    );
    if (1..versions).contains(&version) {
        copy::keep(connection)?;
    }
    // All or nothing: until every step is done the database is what the copy was made of.
    let transaction = connection.transaction()?;
    for migration in &MIGRATIONS[version..versions] {
        transaction.execute_batch(migration)?;
    }
    if version < versions {
        transaction.pragma_update(None, "user_version", i64::try_from(versions)?)?;
        copy::begin_age(&transaction)?;
    }
    transaction.commit()?;
    Ok(())
}
