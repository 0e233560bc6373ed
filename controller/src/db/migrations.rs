//! Brings a database file to the schema of this release, step by step, and refuses files that are
//! somebody else's or newer. Called once, when the database is opened.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use rusqlite::{Connection, TransactionBehavior};

/// The schema after each step; the step's number is its place, from 1 up. Never edit a released one.
const STEPS: [&str; 6] = [
    include_str!("migrations/001_start.sql"),
    include_str!("migrations/002_link_keys.sql"),
    include_str!("migrations/003_link_key_generations.sql"),
    include_str!("migrations/004_relays.sql"),
    include_str!("migrations/005_bounds.sql"),
    include_str!("migrations/006_health.sql"),
];

/// Marks a SQLite file as a controller's (SQLite file format, section 1.3.1): "HAAC".
const APPLICATION_ID: i64 = 0x4841_4143;

/// Applies the steps that are missing, each in one transaction.
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
        bail!(
            "{file} was written by a newer release (schema {present}, this one knows {}): run that release, or a newer one",
            STEPS.len()
        );
    }
    for (index, step) in STEPS.iter().enumerate().skip(present) {
        let number = index + 1;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction
            .execute_batch(step)
            .and_then(|()| transaction.pragma_update(None, "application_id", APPLICATION_ID))
            .and_then(|()| {
                transaction.pragma_update(
                    None,
                    "user_version",
                    i64::try_from(number).unwrap_or(i64::MAX),
                )
            })
            .and_then(|()| transaction.commit())
            .with_context(|| format!("migrating {file} to schema {number}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
        ] {
            assert_eq!(found(query), expected, "{query}");
        }
    }
}
