//! The copy of the database that is kept before a release changes its tables, so that there is a way back:
//! one file, the newest. It is made within a minute or not at all, and removed after a week.
//!
//! ```text
//! agent.db ─ VACUUM INTO ─► agent.db.before-update.part ─ complete ─► agent.db.before-update ─ a week ─► removed
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::Connection;

use super::health::Fault;
use super::{Store, ages, integer, natural};
use crate::identity::{private_file, sync_directory};

/// What is appended to the name of the database.
pub(super) const SUFFIX: &str = ".before-update";

/// The longest time that making it takes. Service managers give up an agent that takes minutes to start.
const TIME_MAX: Duration = Duration::from_secs(60);
/// What was written is synced this often. Otherwise all of it would be left to the last sync, which can't
/// be interrupted.
const SYNC_PAUSE: Duration = Duration::from_millis(250);
/// Steps of SQLite between two looks at the clock: a few rows.
const STEPS: i32 = 100;
/// How long it is kept, in milliseconds.
const KEPT_MS: u64 = 7 * 86_400_000;
/// The age of the node when it was first seen, by [`ages`]: neither the file's times nor the wall clock
/// say reliably how old it is.
const SEEN_AT_AGE_MS: &str = "copy_seen_at_age_ms";

/// Copies the database as the earlier release left it. A node without room or time for that is updated all
/// the same, and keeps the copy that it has.
///
/// # Errors
/// When the database is damaged.
pub(super) fn keep(connection: &mut Connection) -> anyhow::Result<()> {
    keep_within(connection, TIME_MAX)
}

fn keep_within(connection: &mut Connection, time_max: Duration) -> anyhow::Result<()> {
    let Some(copy) = path(connection) else {
        return Ok(());
    };
    let part = format!("{copy}.part");
    let made = make(connection, &copy, &part, time_max);
    let _ = std::fs::remove_file(&part); // it is there only after a failure
    match made {
        Ok(()) => tracing::info!("the database of the release before is kept as {copy}"),
        Err(error) if Fault::of(&error) == Some(Fault::Damage) => return Err(error),
        Err(error) => {
            tracing::warn!("no copy of the database is kept before it is changed: {error:#}");
        }
    }
    Ok(())
}

/// Where the copy is; none for a database in memory.
fn path(connection: &Connection) -> Option<String> {
    let path = connection.path().filter(|path| !path.is_empty());
    path.map(|path| format!("{path}{SUFFIX}"))
}

/// Makes the copy, which replaces the one before when it is complete.
fn make(
    connection: &mut Connection,
    copy: &str,
    part: &str,
    time_max: Duration,
) -> anyhow::Result<()> {
    let number =
        |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0).map(natural));
    let bytes = number("page_count")? * number("page_size")?;
    private_file(Path::new(part), true)?;
    let space = rustix::fs::statvfs(part)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    anyhow::ensure!(
        has_room(bytes, free),
        "it takes {bytes} bytes, and {free} are free"
    );
    vacuum_into(connection, part, time_max)?;
    std::fs::rename(part, copy).context("it can't be renamed")?;
    sync_directory(Path::new(copy));
    Ok(())
}

/// Writes the copy and syncs it, or gives up when that takes too long.
fn vacuum_into(connection: &mut Connection, part: &str, time_max: Duration) -> anyhow::Result<()> {
    let file = private_file(Path::new(part), true)?;
    let written = file.try_clone()?;
    let began = Instant::now();
    let mut synced = began;
    let is_too_long = move || {
        if synced.elapsed() >= SYNC_PAUSE {
            let _ = written.sync_data(); // the last sync reports what is wrong
            synced = Instant::now();
        }
        began.elapsed() >= time_max
    };
    connection.progress_handler(STEPS, Some(is_too_long))?;
    let copied = connection.execute("VACUUM INTO ?1", [part]);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    if copied.is_err() && began.elapsed() >= time_max {
        anyhow::bail!("it takes more than {} s", time_max.as_secs());
    }
    copied?;
    Ok(file.sync_all()?)
}

/// Whether a copy of this many bytes leaves room for what the agent goes on to write.
fn has_room(bytes: u64, free: u64) -> bool {
    bytes.saturating_mul(2) <= free
}

/// The database was changed: if there is a copy, its week begins with the next look.
pub(super) fn begin_age(connection: &Connection) -> rusqlite::Result<()> {
    ages::put(connection, SEEN_AT_AGE_MS, None)
}

impl Store {
    /// Removes the copy when it has been there for a week of the node's own clock.
    ///
    /// # Errors
    /// When the database can't be read or written, or the file can't be removed.
    pub async fn remove_old_copy(&self) -> anyhow::Result<()> {
        let ages = self.ages.clone();
        self.run(move |connection| remove_old(connection, ages.now_ms()))
            .await
    }
}

fn remove_old(connection: &Connection, now_ms: u64) -> anyhow::Result<()> {
    let seen_ms = ages::get(connection, SEEN_AT_AGE_MS)?.map(natural);
    let Some(copy) = path(connection).filter(|copy| Path::new(copy).exists()) else {
        if seen_ms.is_some() {
            ages::put(connection, SEEN_AT_AGE_MS, None)?;
        }
        return Ok(());
    };
    match seen_ms {
        // An age in the future is that of another database, which somebody has put here.
        Some(seen_ms) if seen_ms <= now_ms => {
            if now_ms - seen_ms >= KEPT_MS {
                std::fs::remove_file(&copy).with_context(|| format!("can't remove {copy}"))?;
                ages::put(connection, SEEN_AT_AGE_MS, None)?;
                tracing::info!("{copy} is removed: the update was a week ago");
            }
        }
        _ => ages::put(connection, SEEN_AT_AGE_MS, Some(integer(now_ms)))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::schema::{APPLICATION_ID, MIGRATIONS, prepare, prepare_as};
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

    /// A database of the release before.
    struct Old {
        folder: tempfile::TempDir,
        connection: Connection,
    }

    impl Old {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut connection = Connection::open(folder.path().join("agent.db")).unwrap();
            prepare_as(&mut connection, MIGRATIONS.len() - 1).unwrap();
            Self { folder, connection }
        }

        fn copy(&self) -> std::path::PathBuf {
            self.folder.path().join("agent.db.before-update")
        }
    }

    #[test]
    fn a_copy_that_takes_too_long_is_given_up_and_the_one_before_stays() {
        let mut old = Old::new();
        std::fs::write(old.copy(), "of an earlier update").unwrap();
        keep_within(&mut old.connection, Duration::ZERO).unwrap();
        let kept = std::fs::read_to_string(old.copy()).unwrap();
        assert_eq!(kept, "of an earlier update");
        assert!(!old.copy().with_extension("before-update.part").exists());
        // Nothing goes on interrupting.
        prepare(&mut old.connection).unwrap();
        assert_eq!(version(&old.copy()).0, integer(MIGRATIONS.len() as u64 - 1));
    }

    #[test]
    fn a_copy_is_removed_after_a_week_in_which_it_was_seen() {
        let mut old = Old::new();
        let weeks = |count: u64| 1_000 + count * KEPT_MS;
        prepare(&mut old.connection).unwrap();
        remove_old(&old.connection, weeks(5)).unwrap();
        remove_old(&old.connection, weeks(6) - 1).unwrap();
        assert!(old.copy().exists());
        // Another database has another age.
        remove_old(&old.connection, weeks(1)).unwrap();
        remove_old(&old.connection, weeks(2) - 1).unwrap();
        assert!(old.copy().exists());
        remove_old(&old.connection, weeks(2)).unwrap();
        assert!(!old.copy().exists());
        assert_eq!(ages::get(&old.connection, SEEN_AT_AGE_MS).unwrap(), None);
        // The week of the next one begins when it is there.
        std::fs::write(old.copy(), "").unwrap();
        remove_old(&old.connection, weeks(9)).unwrap();
        assert!(old.copy().exists());
    }

    #[test]
    fn a_copy_is_made_only_where_it_leaves_room() {
        assert!(has_room(10, 20));
        assert!(!has_room(11, 20));
        assert!(!has_room(u64::MAX, u64::MAX - 1));
    }
}
