//! The health of the database, as everybody who depends on it sees it. Only the database thread writes it.
//!
//! ```text
//! Well ◄──► Failing ─────► (requests fail, and work again when there is room, or the disk is back)
//!   └──────────┴─────────► Damaged ─► the agent ends in order; the file is set aside
//! Absent ────────────────► Back ────► the agent ends in order; its next start opens the file
//! any ───────────────────► Dead ────► the agent ends
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use tokio::sync::watch;

use crate::service_manager::DISK_IS_SLOW;

/// The health of the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Health {
    /// Requests are served.
    #[default]
    Well,
    /// Requests fail for a reason that may pass, such as a disk that is full or can't be written.
    Failing(String),
    /// The file could not be opened, and is not in use: every request fails, with this reason.
    Absent(String),
    /// The file could not be opened, and can be now.
    Back,
    /// The file is damaged.
    Damaged(String),
    /// The thread of the database has panicked.
    Dead,
}

impl Health {
    /// Why requests fail, for a person; none when they are served.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Health::Well | Health::Back => None,
            Health::Failing(reason) | Health::Absent(reason) | Health::Damaged(reason) => {
                Some(reason)
            }
            Health::Dead => Some("its thread has panicked: a bug"),
        }
    }
}

/// When the thread of the database began its present transaction, most of which is waiting for the disk;
/// none while it is idle. That thread and readers lock it for a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<Mutex<Option<Instant>>>);

impl Busy {
    /// A transaction begins, or has ended.
    pub(super) fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// How long the transaction takes; none while that is usual.
    pub(super) fn slow_for(&self) -> Option<Duration> {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = since.map(|since| since.elapsed());
        busy.filter(|busy| *busy >= DISK_IS_SLOW)
    }
}

/// The file does not hold what was written to it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damage(pub(super) String);

/// What an error means for the whole database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It may pass.
    Passing,
    /// It does not pass.
    Damage,
}

impl Fault {
    /// None when the error is about the request alone.
    pub(super) fn of(error: &anyhow::Error) -> Option<Self> {
        error.chain().find_map(|cause| {
            if cause.is::<Damage>() {
                return Some(Self::Damage);
            }
            match cause
                .downcast_ref::<rusqlite::Error>()?
                .sqlite_error_code()?
            {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Some(Self::Damage),
                ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied => Some(Self::Passing),
                _ => None,
            }
        })
    }
}

/// Something failed that concerns the whole database.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) fault: Fault,
    pub(super) reason: String,
}

impl Trouble {
    /// None when there is none.
    pub(super) fn of<T>(result: &anyhow::Result<T>) -> Option<Self> {
        let error = result.as_ref().err()?;
        Some(Self {
            fault: Fault::of(error)?,
            reason: format!("{error:#}"),
        })
    }
}

/// Something could be written.
pub(super) fn works(health: &watch::Sender<Health>) {
    health.send_if_modified(|health| {
        let failed = matches!(health, Health::Failing(_));
        if failed {
            tracing::info!("the database can be used again");
            *health = Health::Well;
        }
        failed
    });
}

/// Notes that something failed. What is damaged stays so.
pub(super) fn note(health: &watch::Sender<Health>, trouble: Trouble) {
    let Trouble { fault, reason } = trouble;
    health.send_if_modified(|health| {
        let next = match (&*health, fault) {
            (Health::Damaged(_), _) => return false,
            (_, Fault::Damage) => {
                tracing::error!(
                    "the database is damaged: {reason}; the agent ends, and sets it aside"
                );
                Health::Damaged(reason)
            }
            (_, Fault::Passing) => Health::Failing(reason),
        };
        let is_another = *health != next;
        // Once, whatever fails meanwhile.
        if let Health::Failing(reason) = &next
            && health.problem().is_none()
        {
            tracing::error!("the database can't be used: {reason}; it is tried again");
        }
        *health = next;
        is_another
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_is_reported_and_one_that_is_waited_for_as_usual_is_not() {
        let (busy, now) = (Busy::default(), Instant::now());
        assert_eq!(busy.slow_for(), None);
        busy.set(Some(now));
        assert_eq!(busy.slow_for(), None);
        busy.set(now.checked_sub(DISK_IS_SLOW));
        assert!(busy.slow_for().unwrap() >= DISK_IS_SLOW);
        busy.set(None);
        assert_eq!(busy.slow_for(), None);
    }
}
