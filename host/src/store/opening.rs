//! How the database is opened: checked before anything in it is believed, and set aside when it is
//! damaged. What can be read of a damaged file is copied into a fresh one ([`salvage`](super::salvage)),
//! which takes its place only when it is complete. A sound one that is an older copy is changed in place.
//!
//! ```text
//! agent.db  damaged ─ salvaged into ─► agent.db.part ─ complete ─► agent.db.ready
//!     └─ renamed ─► agent.db.damaged-N                                  └─ renamed ─► agent.db
//! ```
//!
//! A power cut between any two steps does no harm: the next start continues, or begins again.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use haar_protocol::status::StoreDamage;
use rusqlite::{Connection, OptionalExtension as _};

use super::essentials::Essentials;
use super::health::{Damage, Fault};
use super::past::{self, KeptNumber};
use super::{integer, log, natural, salvage, schema};
use crate::identity::{private_file, sync_directory};
use crate::local_api::state::now_ms;

/// A database up to this size is checked completely before it is used: a second or two on slow flash. Of
/// a larger one only the essential tables are checked; damage elsewhere is found when it is read.
const CHECKED_BYTES_MAX: u64 = 32 << 20;
/// Without these tables nothing works. Each is small.
const ESSENTIAL_TABLES: [&str; 7] = [
    "assignment",
    "counter",
    "owner",
    "timer",
    "log",
    "consumer",
    "batch",
];
/// The files that one database consists of.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// Where the database of a data directory is.
pub(super) fn path(data: &Path) -> PathBuf {
    data.join("agent.db")
}

fn with_suffix(data: &Path, suffix: &str) -> PathBuf {
    data.join(format!("agent.db{suffix}"))
}

/// Opens the database, and makes it when there is none. A damaged one is set aside; a sound one that is older
/// than the node itself is brought up to it, whole.
///
/// # Errors
/// When the file can't be opened, or is not ours, or of a newer release: then it is left as it is.
pub(super) fn open(data: &Path) -> anyhow::Result<Connection> {
    finish_setting_aside(data)?;
    match open_current(data) {
        Err(error) if Fault::of(&error) == Some(Fault::Damage) => {
            set_aside(data, &format!("{error:#}"))?;
            open_sound(&path(data))
        }
        other => other,
    }
}

/// Opens the database and checks it. Reports one that is gone; one that is an older copy goes on above all
/// that messages have been numbered since.
fn open_current(data: &Path) -> anyhow::Result<Connection> {
    let mut connection = open_sound(&path(data))?;
    let essentials = Essentials::new(data);
    let numbers = essentials.highest_message_number();
    if is_new(&connection)? {
        note_loss(data, &connection)?;
        past::skip(&connection, numbers)?;
    } else if past::bound(&connection)? < essentials.message_number(KeptNumber::Noted) {
        tracing::warn!(
            "{} is an older copy of the database: what waits in its logs is numbered again",
            path(data).display()
        );
        catch_up(&mut connection, numbers)
            .with_context(|| format!("can't use {}", path(data).display()))?;
    }
    Ok(connection)
}

/// The logs of an older copy do not know which numbers messages have had since: what waits in them becomes
/// new messages above `numbers`. All or nothing, in the file itself.
fn catch_up(connection: &mut Connection, numbers: u64) -> anyhow::Result<()> {
    let transaction = connection.transaction()?;
    log::salvage::number_again(&transaction, now_ms(), numbers)?;
    past::skip(&transaction, numbers)?;
    Ok(transaction.commit()?)
}

/// Opens a database and checks it.
fn open_sound(path: &Path) -> anyhow::Result<Connection> {
    let open = || {
        make_private(path)?;
        let mut connection = Connection::open(path)?;
        schema::prepare(&mut connection)?;
        check(&connection)?;
        Ok::<_, anyhow::Error>(connection)
    };
    open().with_context(|| format!("can't use {}", path.display()))
}

/// Makes the file where there is none. SQLite gives the files beside it the mode of this one.
fn make_private(path: &Path) -> anyhow::Result<()> {
    match path.exists() {
        true => Ok(()),
        false => private_file(path, false).map(drop),
    }
}

fn check(connection: &Connection) -> anyhow::Result<()> {
    let number =
        |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0).map(natural));
    let bytes = number("page_count")? * number("page_size")?;
    if bytes <= CHECKED_BYTES_MAX {
        expect_ok(connection, "PRAGMA quick_check(1)")?;
    } else {
        for table in ESSENTIAL_TABLES {
            expect_ok(connection, &format!("PRAGMA quick_check({table})"))?;
        }
    }
    log::check(connection)
}

fn expect_ok(connection: &Connection, check: &str) -> anyhow::Result<()> {
    let answer: String = connection.query_row(check, [], |row| row.get(0))?;
    match answer.as_str() {
        "ok" => Ok(()),
        // A heading names the database, and each problem has a line.
        _ => {
            let problems = answer.lines().filter(|line| !line.starts_with("***"));
            Err(Damage(problems.collect::<Vec<_>>().join("; ")).into())
        }
    }
}

/// True when nothing was stored in it yet.
fn is_new(connection: &Connection) -> anyhow::Result<bool> {
    let found = connection
        .query_row(
            "SELECT 1 FROM counter UNION ALL SELECT 1 FROM assignment LIMIT 1",
            [],
            |_| Ok(()),
        )
        .optional()?;
    Ok(found.is_none())
}

/// Reports a database that is gone: a node that has had an assignment has had a database.
fn note_loss(data: &Path, connection: &Connection) -> anyhow::Result<()> {
    if Essentials::new(data).has_assignment() && damage(connection)?.is_none() {
        let damage = StoreDamage {
            found_ms: now_ms(),
            reason: "the file was missing or empty".to_owned(),
            missing: vec!["everything".to_owned()],
            ..StoreDamage::default()
        };
        tracing::error!("{}: {}", path(data).display(), damage.reason);
        write_damage(connection, &damage)?;
    }
    Ok(())
}

/// Sets the database aside and replaces it by a new one, with everything that could be read.
///
/// # Errors
/// When the data directory can't be written: then everything is as it was.
pub fn set_aside(data: &Path, reason: &str) -> anyhow::Result<()> {
    let path = path(data);
    tracing::error!(
        "{} can't be used as it is: {reason}; it is set aside, and what can be read of it is copied",
        path.display()
    );
    let part = with_suffix(data, ".part");
    let fresh = || {
        for suffix in PARTS {
            remove(&with_suffix(data, &format!(".part{suffix}")))?;
        }
        make_private(&part)?;
        let mut fresh = Connection::open(&part)?;
        schema::prepare(&mut fresh)?;
        // Nobody needs a half of it: it is synced once, when it is whole.
        fresh.pragma_update(None, "journal_mode", "MEMORY")?;
        fresh.pragma_update(None, "synchronous", "OFF")?;
        Ok::<_, anyhow::Error>(fresh)
    };
    let mut connection = fresh()?;
    let numbers = Essentials::new(data).highest_message_number();
    let mut damage = match salvage::copy(&path, &mut connection, numbers) {
        Ok(damage) => damage,
        Err(error) => {
            // Such as no room for two of them.
            tracing::error!("nothing of it can be copied: {error:#}");
            drop(connection);
            connection = fresh()?;
            StoreDamage {
                missing: vec!["everything".to_owned()],
                ..StoreDamage::default()
            }
        }
    };
    (damage.found_ms, damage.reason) = (now_ms(), reason.to_owned());
    past::skip(&connection, numbers)?;
    write_damage(&connection, &damage)?;
    connection
        .close()
        .map_err(|(_, error)| error)
        .context("the copy can't be closed")?;
    std::fs::File::open(&part)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("can't write {}", part.display()))?;
    rename(&part, &with_suffix(data, ".ready"))?;
    finish_setting_aside(data)
}

/// Puts a copy that is complete in the place of the damaged file, of which the newest one is kept.
fn finish_setting_aside(data: &Path) -> anyhow::Result<()> {
    let (path, ready) = (path(data), with_suffix(data, ".ready"));
    if !ready.exists() {
        return Ok(());
    }
    let newest = set_aside_numbers(data)?.into_iter().max().unwrap_or(0);
    let number = match path.exists() {
        true => newest + 1,
        false => newest.max(1), // the power was cut in the middle
    };
    for suffix in PARTS {
        let from = with_suffix(data, suffix);
        if from.exists() {
            rename(
                &from,
                &with_suffix(data, &format!(".damaged-{number}{suffix}")),
            )?;
        }
    }
    rename(&ready, &path)?;
    for older in set_aside_numbers(data)? {
        for suffix in PARTS.iter().filter(|_| older < number) {
            remove(&with_suffix(data, &format!(".damaged-{older}{suffix}")))?;
        }
    }
    Ok(())
}

/// The numbers of the files that were set aside.
fn set_aside_numbers(data: &Path) -> anyhow::Result<Vec<u64>> {
    let entries = std::fs::read_dir(data)
        .with_context(|| format!("can't read {}", data.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let numbers = entries.iter().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?
            .strip_prefix("agent.db.damaged-")?
            .parse()
            .ok()
    });
    Ok(numbers.collect())
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::rename(from, to)
        .with_context(|| format!("can't rename {} to {}", from.display(), to.display()))?;
    sync_directory(to);
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The last damage that was found, as the database in its place says.
pub(super) fn damage(connection: &Connection) -> anyhow::Result<Option<StoreDamage>> {
    let text: Option<String> = connection
        .query_row("SELECT report FROM damage", [], |row| row.get(0))
        .optional()?;
    // A report of another release that can't be read still says that there was damage.
    Ok(text.map(|text| serde_json::from_str(&text).unwrap_or_default()))
}

fn write_damage(connection: &Connection, damage: &StoreDamage) -> anyhow::Result<()> {
    connection.execute(
        "INSERT INTO damage (id, found_ms, report) VALUES (1, ?1, ?2)
         ON CONFLICT (id) DO UPDATE SET found_ms = excluded.found_ms, report = excluded.report",
        (integer(damage.found_ms), serde_json::to_string(damage)?),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
