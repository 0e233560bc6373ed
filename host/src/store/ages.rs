//! The clock by which ages are counted: the lifetime of this node, in milliseconds. Setting the wall
//! clock does not move it. It counts while the system is up, even when the agent is down. Time while the
//! system was down is added when the kernel reports a synchronised wall clock, provided that it reported
//! one in an earlier boot as well. Otherwise that time is unknown and not counted: on a node without a
//! battery-backed clock messages live longer, but none is lost because the clock is set.
//!
//! ```text
//! boot A ── kept ──┐ power off ┌── boot B ──────── synchronised ───────►
//! age    0 … 7 000 │     ?     │ 7 000 … 9 000  │  + what B's wall clock says beyond A's
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _};

use super::{integer, natural};
use crate::local_api;

/// Names this boot of the system (`random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Names of the counters where the clock is kept.
pub(super) const AGE_MS: &str = "age_ms";
const AGE_BOOT: &str = "age_boot";
const AGE_UP_MS: &str = "age_up_ms";
const SYNCHRONISED_AGE_MS: &str = "age_synchronised_ms";
const SYNCHRONISED_BOOT: &str = "age_synchronised_boot";
const SYNCHRONISED_WALL_MS: &str = "age_synchronised_wall_ms";

/// The system's clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Names the boot; none where the system does not tell.
    pub boot: Option<i64>,
    /// Milliseconds since the boot, sleep included.
    pub up_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Whether the kernel takes that for right.
    pub is_synchronised: bool,
}

impl Reading {
    fn now() -> Self {
        Self {
            boot: boot(),
            up_ms: up_ms(),
            wall_ms: local_api::state::now_ms(),
            is_synchronised: local_api::node::clock_synchronised(),
        }
    }
}

/// The age at a moment when the kernel took the wall clock for synchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Synchronised {
    age_ms: u64,
    wall_ms: u64,
    boot: Option<i64>,
}

impl Synchronised {
    /// True when it is not known yet how long ago that was.
    fn is_earlier(&self, boot: Option<i64>) -> bool {
        self.boot.is_none() || self.boot != boot
    }
}

/// The clock as the disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    age_ms: u64,
    boot: Option<i64>,
    up_ms: u64,
    synchronised: Option<Synchronised>,
}

/// The clock, pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ages {
    /// The age when the system had been up for `up_ms`.
    age_ms: u64,
    up_ms: u64,
    boot: Option<i64>,
    /// The last such moment.
    synchronised: Option<Synchronised>,
}

impl Ages {
    /// Goes on where the last run ended. The disk has something that was stored at the age `newest_ms`.
    fn resume(kept: Option<Kept>, newest_ms: u64, now: &Reading) -> Self {
        let is_same_boot = kept.is_some_and(|kept| kept.boot.is_some() && kept.boot == now.boot);
        let passed_ms = kept
            .filter(|_| is_same_boot)
            .map_or(0, |kept| now.up_ms.saturating_sub(kept.up_ms));
        let kept_ms = kept.map_or(0, |kept| kept.age_ms);
        let mut ages = Self {
            age_ms: kept_ms.saturating_add(passed_ms).max(newest_ms),
            up_ms: now.up_ms,
            boot: now.boot,
            synchronised: kept.and_then(|kept| kept.synchronised),
        };
        ages.look(now);
        ages
    }

    fn now_ms(&self, up_ms: u64) -> u64 {
        self.age_ms.saturating_add(up_ms.saturating_sub(self.up_ms))
    }

    /// True while it is not known for how long the system was down.
    fn lacks_time(&self) -> bool {
        self.synchronised
            .is_some_and(|last| last.is_earlier(self.boot))
    }

    /// Counts the time while the system was down, once it is known.
    fn look(&mut self, now: &Reading) {
        if !now.is_synchronised {
            return;
        }
        let mut age_ms = self.now_ms(now.up_ms);
        if let Some(last) = self.synchronised.filter(|last| last.is_earlier(now.boot)) {
            let passed_ms = now.wall_ms.saturating_sub(last.wall_ms);
            age_ms = age_ms.max(last.age_ms.saturating_add(passed_ms));
        }
        (self.age_ms, self.up_ms) = (age_ms, now.up_ms);
        self.synchronised = Some(Synchronised {
            age_ms,
            wall_ms: now.wall_ms,
            boot: now.boot,
        });
    }

    fn keep(&mut self, now: &Reading) -> Kept {
        self.look(now);
        Kept {
            age_ms: self.now_ms(now.up_ms),
            boot: now.boot,
            up_ms: now.up_ms,
            synchronised: self.synchronised,
        }
    }
}

/// A handle to the clock. All clones show the same.
#[derive(Debug, Clone)]
pub struct AgeClock {
    /// Taken for a few instructions by who asks for the age, never across an await.
    ages: Arc<Mutex<Ages>>,
}

impl AgeClock {
    /// A clock that begins now.
    pub(super) fn new() -> Self {
        let ages = Ages::resume(None, 0, &Reading::now());
        Self {
            ages: Arc::new(Mutex::new(ages)),
        }
    }

    /// Goes on as the database says, in every clone.
    ///
    /// # Errors
    /// When the database can't be read.
    pub(super) fn resume(&self, connection: &Connection) -> rusqlite::Result<()> {
        let (kept, newest_ms) = (kept(connection)?, newest_ms(connection)?);
        *self.lock() = Ages::resume(kept, newest_ms, &Reading::now());
        Ok(())
    }

    /// How long the node has lived, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        let mut ages = self.lock();
        if ages.lacks_time() {
            ages.look(&Reading::now());
        }
        ages.now_ms(up_ms())
    }

    /// Keeps the clock in the database.
    ///
    /// # Errors
    /// When the database can't be written.
    pub(super) fn keep(&self, connection: &Connection) -> rusqlite::Result<()> {
        let kept = self.lock().keep(&Reading::now());
        let last = kept.synchronised;
        for (name, value) in [
            (AGE_MS, Some(integer(kept.age_ms))),
            (AGE_BOOT, kept.boot),
            (AGE_UP_MS, Some(integer(kept.up_ms))),
            (SYNCHRONISED_AGE_MS, last.map(|last| integer(last.age_ms))),
            (SYNCHRONISED_BOOT, last.and_then(|last| last.boot)),
            (SYNCHRONISED_WALL_MS, last.map(|last| integer(last.wall_ms))),
        ] {
            put(connection, name, value)?;
        }
        Ok(())
    }

    /// Lets time pass.
    #[cfg(test)]
    pub(crate) fn pass(&self, passed_ms: u64) {
        self.lock().age_ms += passed_ms;
    }

    fn lock(&self) -> MutexGuard<'_, Ages> {
        self.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kept(connection: &Connection) -> rusqlite::Result<Option<Kept>> {
    let Some(age_ms) = get(connection, AGE_MS)? else {
        return Ok(None);
    };
    let last_ms = get(connection, SYNCHRONISED_AGE_MS)?;
    let last_wall_ms = get(connection, SYNCHRONISED_WALL_MS)?;
    let last_boot = get(connection, SYNCHRONISED_BOOT)?;
    let synchronised = last_ms
        .zip(last_wall_ms)
        .map(|(age_ms, wall_ms)| Synchronised {
            age_ms: natural(age_ms),
            wall_ms: natural(wall_ms),
            boot: last_boot,
        });
    Ok(Some(Kept {
        age_ms: natural(age_ms),
        boot: get(connection, AGE_BOOT)?,
        up_ms: get(connection, AGE_UP_MS)?.map_or(0, natural),
        synchronised,
    }))
}

/// The age at which the newest message was stored: the clock was there at least.
fn newest_ms(connection: &Connection) -> rusqlite::Result<u64> {
    let newest: Option<i64> = connection
        .query_row(
            "SELECT stored_ms FROM batch ORDER BY id DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()?;
    Ok(newest.map_or(0, natural))
}

/// A counter of the database.
pub(super) fn get(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT value FROM counter WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

/// Writes a counter, or removes it.
pub(super) fn put(connection: &Connection, name: &str, value: Option<i64>) -> rusqlite::Result<()> {
    let Some(value) = value else {
        connection.execute("DELETE FROM counter WHERE name = ?1", [name])?;
        return Ok(());
    };
    connection
        .prepare_cached(
            "INSERT INTO counter (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute((name, value))?;
    Ok(())
}

/// Milliseconds since the system was booted, sleep included.
fn up_ms() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    natural(time.tv_sec) * 1_000 + natural(time.tv_nsec) / 1_000_000
}

/// Names this boot; none where the system does not tell.
fn boot() -> Option<i64> {
    let text = std::fs::read_to_string(BOOT_ID).ok()?;
    let digits: String = text
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    Some(u64::from_str_radix(&digits, 16).ok()?.cast_signed())
}

#[cfg(test)]
mod tests;
