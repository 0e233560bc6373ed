//! What outlives logs and microservices: which numbers of messages must not be given again, and how
//! many messages were discarded because somebody changed or deleted what they waited for.
//!
//! ```text
//! numbers   1 …… retired            no new log begins at one of these
//!           1 …… reserved           an outlet without a log may have given these; after a start, and
//!                                   until it is told more exactly, it is taken to have given all
//!           1 …… bound              any outlet may have given these; grows with each start and end
//! ```
//!
//! The bound stands in a file as well. A higher one than in the database is there when this is an older copy of
//! the database ([`super::opening`]). A start that can't write the database keeps a bound in another file. Only
//! outlets without a log give numbers then, so that logs stay as they are, and the next start retires all
//! numbers up to there.

use std::sync::atomic::Ordering;

use haar_protocol::status::Overflow;
use rusqlite::Connection;

use super::{Store, ages, integer, natural};

const RETIRED: &str = "numbers_retired";
const RESERVED: &str = "numbers_reserved";
const BOUND: &str = "numbers_bound";
const DISCARDED_ROUTES: &str = "discarded_routes";
const DISCARDED_MESSAGES: &str = "discarded_messages";

/// See the head of this file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past {
    /// No new log begins below this number.
    pub retired: u64,
    /// Outlets without a log may have given numbers up to this one.
    pub reserved: u64,
    /// What was discarded: of how many routes, and how many messages.
    pub discarded: Overflow,
}

impl Store {
    /// Has no new log begin below `retired`, and lets outlets without a log give numbers up to
    /// `reserved`; either one is left as it is without a number. Returns what is known of the past.
    ///
    /// # Errors
    /// When the database can't be read or written.
    pub async fn past(&self, retired: u64, reserved: Option<u64>) -> anyhow::Result<Past> {
        self.run(move |connection| {
            retire(connection, retired)?;
            if let Some(reserved) = reserved {
                ages::put(connection, RESERVED, Some(integer(reserved)))?;
            }
            Ok(Past {
                retired: self::retired(connection)?,
                reserved: read(connection, RESERVED)?,
                discarded: Overflow {
                    episodes: read(connection, DISCARDED_ROUTES)?,
                    messages: read(connection, DISCARDED_MESSAGES)?,
                },
            })
        })
        .await
    }
}

impl Store {
    /// Notes in the database that no message of this node has a number above `highest`, or above one more than
    /// what was noted last. Returns what was noted.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn bound_numbers(&self, highest: u64) -> anyhow::Result<u64> {
        self.run(move |connection| {
            let noted = highest.max(bound(connection)? + 1);
            ages::put(connection, BOUND, Some(integer(noted)))?;
            Ok(noted)
        })
        .await
    }

    /// Keeps a bound in its file.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn keep_number(&self, kept: KeptNumber, highest: u64) -> anyhow::Result<()> {
        let essentials = self.essentials.clone();
        let write = move || essentials.set_number(kept.file(), highest);
        tokio::task::spawn_blocking(write).await??;
        self.kept_numbers[kept as usize].store(highest, Ordering::Relaxed);
        Ok(())
    }

    /// The bound in a file, as it was read when the store was opened, or written since; 0 where that is not
    /// known.
    pub fn kept_number(&self, kept: KeptNumber) -> u64 {
        self.kept_numbers[kept as usize].load(Ordering::Relaxed)
    }

    /// The higher one of both files.
    pub fn highest_kept_number(&self) -> u64 {
        let noted = self.kept_number(KeptNumber::Noted);
        noted.max(self.kept_number(KeptNumber::Ahead))
    }
}

/// Files with a number above all numbers of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptNumber {
    /// What the database has noted: one that has noted less is an older copy.
    Noted,
    /// What may have been given while the database could not be written.
    Ahead,
}

impl KeptNumber {
    pub(super) fn file(self) -> &'static str {
        match self {
            KeptNumber::Noted => "message-numbers",
            KeptNumber::Ahead => "message-numbers-ahead",
        }
    }
}

/// No message has a number above this, as far as this database knows.
pub(super) fn bound(connection: &Connection) -> rusqlite::Result<u64> {
    read(connection, BOUND)
}

/// Has nothing be numbered up to this any more. The logs that are there must be above it, or empty.
pub(super) fn skip(connection: &Connection, number: u64) -> rusqlite::Result<()> {
    for name in [RETIRED, RESERVED, BOUND] {
        let number = number.max(read(connection, name)?);
        ages::put(connection, name, Some(integer(number)))?;
    }
    Ok(())
}

fn read(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    Ok(ages::get(connection, name)?.map_or(0, natural))
}

/// Where a new log begins.
pub(super) fn retired(connection: &Connection) -> rusqlite::Result<u64> {
    read(connection, RETIRED)
}

/// Has no new log begin below this number.
pub(super) fn retire(connection: &Connection, number: u64) -> rusqlite::Result<()> {
    match number > retired(connection)? {
        true => ages::put(connection, RETIRED, Some(integer(number))),
        false => Ok(()),
    }
}

/// Counts messages that were discarded on so many routes.
pub(super) fn discard(connection: &Connection, discarded: Overflow) -> rusqlite::Result<()> {
    if discarded.messages == 0 {
        return Ok(());
    }
    for (name, more) in [
        (DISCARDED_ROUTES, discarded.episodes),
        (DISCARDED_MESSAGES, discarded.messages),
    ] {
        let count = read(connection, name)?.saturating_add(more);
        ages::put(connection, name, Some(integer(count)))?;
    }
    Ok(())
}
