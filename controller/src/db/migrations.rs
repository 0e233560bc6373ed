//! Brings a database file to the schema of this release, step by step, and refuses files that are
//! somebody else's or newer. Called once, when the database is opened.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use rusqlite::{Connection, TransactionBehavior};

/// The schema after each step; the step's number is its place, from 1 up. Never edit a released one.
const STEPS: [&str; 8] = [
    include_str!("migrations/001_start.sql"),
    include_str!("migrations/002_link_keys.sql"),
    include_str!("migrations/003_link_key_generations.sql"),
    include_str!("migrations/004_relays.sql"),
    include_str!("migrations/005_bounds.sql"),
    include_str!("migrations/006_lives.sql"),
    include_str!("migrations/007_signatures.sql"),
    include_str!("migrations/008_health.sql"),
];

/// Marks a SQLite file as a controller's (SQLite file format, section 1.3.1): "HAAC".
const APPLICATION_ID: i64 = 0x4841_4143;

/// What is appended to the name of the copy that is kept before a migration.
const COPY: &str = ".before-update";

/// The release that this is, as a database names who brought it to its schema.
const RELEASE: &str = concat!("haar-controller ", env!("CARGO_PKG_VERSION"));

/// Applies the steps that are missing, in one transaction, and keeps the file as it was before.
///
/// # Errors
/// When the file is no controller's database, newer than this release, damaged, or a step fails.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> anyhow::Result<()> {
    let file = path.display();
    let pragma = |connection: &Connection, name: &str| {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
    };
    let damaged = || {
        format!(
            "{file} can't be read as a database: it is damaged, or something else; restore it from a backup"
        )
    };
    let application = pragma(connection, "application_id").with_context(damaged)?;
    let version = pragma(connection, "user_version").with_context(damaged)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .with_context(damaged)?;
    ensure!(
        application == APPLICATION_ID || (application == 0 && tables == 0),
        "{file} is the database of another program, not of a controller: choose another data directory"
    );
    let present = usize::try_from(version).with_context(damaged)?;
    if present > STEPS.len() {
        let query = "SELECT value FROM meta WHERE key = 'written_by'";
        let writer = connection.query_row(query, [], |row| row.get::<_, String>(0));
        let writer = writer.unwrap_or_else(|_| "one that does not say which".to_owned());
        bail!(
            "{file} was written by a newer release ({writer}, schema {present}; this is {RELEASE}, which knows {}): run that release or a newer one, or go back to {file}{COPY} (docs/durable-routes.md)",
            STEPS.len()
        );
    }
    if present == STEPS.len() {
        return Ok(());
    }
    if present > 0 {
        keep_copy(connection, path)?;
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let apply = || {
        for step in &STEPS[present..] {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        let number = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
        transaction.pragma_update(None, "user_version", number)?;
        transaction.execute(
            "INSERT INTO meta (key, value) VALUES ('written_by', ?1)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [RELEASE],
        )
    };
    apply()
        .and_then(|_| transaction.commit())
        .with_context(|| format!("migrating {file} to schema {}", STEPS.len()))
}

/// Keeps the database as the earlier release left it, so that there is a way back: one file, the newest.
///
/// # Errors
/// When there is no room for it, or it can't be written: then nothing was changed.
fn keep_copy(connection: &Connection, path: &Path) -> anyhow::Result<()> {
    if connection.path().is_none_or(str::is_empty) {
        return Ok(()); // in memory
    }
    let file = path.display();
    let (copy, part) = (format!("{file}{COPY}"), format!("{file}{COPY}.part"));
    let _ = std::fs::remove_file(&part); // or there is none
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    let bytes = number("page_count")?.saturating_mul(number("page_size")?);
    let space = rustix::fs::statvfs(path).with_context(|| format!("can't look at {file}"))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    check_room(bytes, free, path)?;
    let make = || {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        connection.execute("VACUUM INTO ?1", [&part])?;
        made.sync_all()?;
        std::fs::rename(&part, &copy)?;
        Ok::<_, anyhow::Error>(())
    };
    make().with_context(|| {
        format!("can't keep a copy of {file} as {copy} before this release changes it")
    })?;
    tracing::info!("the database of the release before is kept as {copy}");
    Ok(())
}

/// A copy must leave room for what is written next.
fn check_room(bytes: u64, free: u64, path: &Path) -> anyhow::Result<()> {
    let wanted = bytes.saturating_mul(2);
    ensure!(
        wanted <= free,
        "{} is to be changed by this release, and there is no room to keep a copy of it: {wanted} bytes must be free there, {free} are; make room and start again, or run the release before",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn version(connection: &Connection) -> i64 {
        connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_new_file_gets_every_step_and_a_second_run_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("new.db")).unwrap();
        assert_eq!(version(&connection), i64::try_from(STEPS.len()).unwrap());
        migrate(&mut connection, Path::new("new.db")).unwrap();
        connection
            .execute("INSERT INTO meta VALUES ('a', 'b')", [])
            .unwrap();
    }

    #[test]
    fn a_database_of_a_newer_release_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("new.db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut connection, Path::new("new.db"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("newer release") && error.contains("new.db"),
            "{error}"
        );
        assert!(error.contains(RELEASE), "{error}");
        let newer = "UPDATE meta SET value = 'haar-controller 9.8.7' WHERE key = 'written_by'";
        assert_eq!(connection.execute(newer, []).unwrap(), 1);
        let error = migrate(&mut connection, Path::new("new.db")).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("haar-controller 9.8.7") && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn the_database_of_the_release_before_is_kept_and_can_be_gone_back_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.db");
        let copy = folder.path().join("controller.db.before-update");
        let mut connection = Connection::open(&path).unwrap();
        for step in &STEPS[..4] {
            connection.execute_batch(step).unwrap();
        }
        let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 4;");
        connection.execute_batch(&marks).unwrap();
        migrate(&mut connection, &path).unwrap();
        migrate(&mut connection, &path).unwrap();
        assert_eq!(version(&connection), i64::try_from(STEPS.len()).unwrap());
        let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut before = Connection::open(&copy).unwrap();
        assert_eq!(version(&before), 4);
        migrate(&mut before, &copy).unwrap();
        assert_eq!(version(&before), version(&connection));
    }

    #[test]
    fn without_room_for_a_copy_nothing_is_changed_and_the_text_says_how_much_is_needed() {
        check_room(10, 20, Path::new("site.db")).unwrap();
        let error = check_room(11, 20, Path::new("site.db")).unwrap_err();
        assert!(error.to_string().contains("22 bytes"), "{error}");
    }

    #[test]
    fn a_database_of_another_program_is_refused_and_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
        let error = migrate(&mut connection, Path::new("other.db"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("another program"), "{error}");
        assert_eq!(version(&connection), 0);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("controller.db");
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        let mut connection = Connection::open(&path).unwrap();
        let error = migrate(&mut connection, &path).unwrap_err().to_string();
        assert!(
            error.contains("damaged") && error.contains("controller.db"),
            "{error}"
        );
    }

    #[test]
    fn numbers_that_an_earlier_release_took_of_a_node_are_brought_into_range() {
        let mut connection = Connection::open_in_memory().unwrap();
        for step in &STEPS[..4] {
            connection.execute_batch(step).unwrap();
        }
        let setup = r#"
            PRAGMA application_id = 1212236099;
            PRAGMA user_version = 4;
            INSERT INTO nodes (id, name, key, labels, budget, agent_version, target, enrolled_ms, link_key_generation)
                VALUES ('n', 'n', '', '{}', '{"storage":"18446744073709551615B"}', '', '', 1, 9223372036854775807);
            INSERT INTO nodes (id, name, key, labels, budget, agent_version, target, enrolled_ms)
                VALUES ('m', 'm', '', '{}', '{}', '', '', 1);
            INSERT INTO statuses VALUES ('n', '{"a":{"applied":18446744073709551615}}', 9223372036854775807, NULL);
            INSERT INTO statuses VALUES ('m', '{"applied":9007199254740991}', 3, NULL);
            INSERT INTO assignments VALUES ('n', 9223372036854775807, x'00', '[]', x'00'), ('m', 7, x'00', '[]', x'00');
            INSERT INTO events (time_ms, kind, subject, message) VALUES (1, 'node_online', '', ''), (1, 'node_revoked', '', '');
            INSERT INTO logs (node, application, microservice, sequence, time_ms, line) VALUES ('m', 'a', 'b', 1, 1, 'four');
            INSERT INTO publishers (name, key, added_ms) VALUES ('acme', 'k1', 7), ('other', 'k2', 8);
        "#;
        connection.execute_batch(setup).unwrap();
        migrate(&mut connection, Path::new("old.db")).unwrap();
        let found = |query: &str| -> String {
            connection
                .query_row(&format!("SELECT CAST(({query}) AS TEXT)"), [], |row| {
                    row.get(0)
                })
                .unwrap()
        };
        for (query, expected) in [
            (
                "SELECT group_concat(number) FROM (SELECT number FROM assignments ORDER BY node)",
                "7,4503599627370496",
            ),
            (
                "SELECT link_key_generation FROM nodes WHERE id = 'n'",
                "4503599627370496",
            ),
            (
                "SELECT budget FROM nodes WHERE id = 'n'",
                r#"{"storage":"9007199254740991B"}"#,
            ),
            ("SELECT group_concat(node || missed) FROM statuses", "m3"),
            ("SELECT group_concat(events) FROM event_usage", "1,1"),
            ("SELECT node || bytes FROM log_usage_by_node", "m104"),
            (
                "SELECT group_concat(name || key || added_ms) FROM (SELECT * FROM publishers ORDER BY name)",
                "acmek17,otherk28",
            ),
            // Damage of a free page would not be noticed.
            ("SELECT freelist_count FROM pragma_freelist_count", "0"),
        ] {
            assert_eq!(found(query), expected, "{query}");
        }
    }
}
