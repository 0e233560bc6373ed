//! Brings a database file to the schema of this release, step by step, and refuses files that are
//! somebody else's or newer. Called once, when the database is opened.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use rusqlite::{Connection, TransactionBehavior};

/// The schema after each step; the step's number is its place, from 1 up. Never edit a released one.
const STEPS: [&str; 4] = [
    include_str!("migrations/001_start.sql"),
    include_str!("migrations/002_link_keys.sql"),
    include_str!("migrations/003_link_key_generations.sql"),
    include_str!("migrations/004_relays.sql"),
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
}
