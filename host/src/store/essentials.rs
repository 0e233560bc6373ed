//! What the agent needs even when its database can't be used: its assignment, the sequence number of its
//! next status, and numbers that no message has reached, each in its own file in the data directory.
//!
//! ```text
//! assignment              the envelope, as the site signed it
//! status-sequence         the first number that was never used, in decimal digits
//! message-numbers         no message of the node has a number above this one, as the database has noted it
//! message-numbers-ahead   the same, of starts that could not write the database
//! ```

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rusqlite::OptionalExtension as _;

use super::health::Health;
use super::past::KeptNumber;
use super::{Store, natural};
use crate::identity::write_private;

/// Statuses are numbered in blocks of this size, so that not every one costs a write to flash.
const STATUS_BLOCK: u64 = 1_000;

/// The largest file that is read: no envelope is as large.
const BYTES_MAX: u64 = 16 << 20;

const ASSIGNMENT: &str = "assignment";
const STATUS_SEQUENCE: &str = "status-sequence";

/// The files.
#[derive(Debug, Clone)]
pub(super) struct Essentials {
    directory: PathBuf,
}

impl Essentials {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The envelope of the last assignment; none when there is no such file.
    ///
    /// # Errors
    /// When the file can't be read. Whether its content is the site's, only its signature says.
    pub(super) fn assignment(&self) -> anyhow::Result<Option<Vec<u8>>> {
        self.read(ASSIGNMENT)
    }

    /// True when this node has had an assignment.
    pub(super) fn has_assignment(&self) -> bool {
        self.directory.join(ASSIGNMENT).exists()
    }

    /// Keeps an envelope, whole or not at all.
    ///
    /// # Errors
    /// When the file can't be written: then the one before is there.
    pub(super) fn set_assignment(&self, envelope: &[u8]) -> anyhow::Result<()> {
        write_private(&self.directory.join(ASSIGNMENT), envelope)
    }

    /// The number in a file of those that are above all messages; 0 where that is not known.
    pub(super) fn message_number(&self, kept: KeptNumber) -> u64 {
        self.number(kept.file()).unwrap_or(0)
    }

    /// No message of the node has a number above this, as far as any file knows.
    pub(super) fn highest_message_number(&self) -> u64 {
        let noted = self.message_number(KeptNumber::Noted);
        noted.max(self.message_number(KeptNumber::Ahead))
    }

    /// The number in the file of that name; none where that is not known.
    fn number(&self, name: &str) -> Option<u64> {
        let text = self.read(name).ok()??;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn set_number(&self, name: &str, number: u64) -> anyhow::Result<()> {
        write_private(&self.directory.join(name), number.to_string().as_bytes())
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.directory.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", path.display()));
            }
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("can't read {}", path.display()))?;
        ensure!(
            bytes.len() as u64 <= BYTES_MAX,
            "{} is larger than any file of its name",
            path.display()
        );
        Ok(Some(bytes))
    }
}

impl Store {
    /// The envelopes of the last assignment: that of the file, and that of the database. Any may be
    /// missing, damaged, or older than the other.
    pub async fn assignments(&self) -> Vec<Vec<u8>> {
        let from_file = self.essentials.assignment().unwrap_or_else(|error| {
            tracing::error!("the file of the assignment: {error:#}");
            None
        });
        let from_database = self.run(|connection| {
            let envelope = connection
                .query_row("SELECT envelope FROM assignment", [], |row| row.get(0))
                .optional()?;
            Ok(envelope)
        });
        let from_database = from_database.await.unwrap_or_else(|error| {
            if !self.is_known_to_fail() {
                tracing::error!("the assignment in the database can't be read: {error:#}");
            }
            None
        });
        from_file.into_iter().chain(from_database).collect()
    }

    /// Keeps the envelope of the assignment that comes into force, in the place of the last one. It is
    /// in the database first: a node that has the file without a database has lost one.
    ///
    /// # Errors
    /// When it can't be kept where the next start finds it.
    pub async fn set_assignment(&self, number: u64, envelope: Vec<u8>) -> anyhow::Result<()> {
        if !matches!(*self.health.borrow(), Health::Absent(_)) {
            let (number, envelope) = (i64::try_from(number)?, envelope.clone());
            self.run(move |connection| {
                connection.execute(
                    "INSERT INTO assignment (id, number, envelope) VALUES (1, ?1, ?2)
                     ON CONFLICT (id) DO UPDATE SET number = excluded.number, envelope = excluded.envelope",
                    (number, envelope),
                )?;
                Ok(())
            })
            .await?;
        }
        self.set_assignment_file(envelope).await
    }

    /// Keeps the envelope in its file alone.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn set_assignment_file(&self, envelope: Vec<u8>) -> anyhow::Result<()> {
        let essentials = self.essentials.clone();
        tokio::task::spawn_blocking(move || essentials.set_assignment(&envelope)).await?
    }

    /// The first status number that was never used, as the database of an older release says.
    async fn last_status(&self) -> u64 {
        let last = self.run(|connection| {
            let last: Option<i64> = connection
                .query_row(
                    "SELECT value FROM counter WHERE name = 'status'",
                    [],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(last.map_or(1, natural))
        });
        last.await.unwrap_or(1)
    }
}

/// Counts statuses over restarts of the agent. After a restart it goes on at the next block, so
/// numbers never repeat, and only a restart leaves a gap that is not a lost status. Where a block can't
/// be kept, statuses are numbered all the same: after the next start the site tells them from these by
/// when the agent started.
#[derive(Debug, Default)]
pub struct StatusSequence {
    next: u64,
    end: u64,
    has_complained: bool,
}

impl StatusSequence {
    /// The next number, which stays the same until [`Self::advance`].
    pub async fn peek(&mut self, store: &Store) -> u64 {
        if self.next == self.end {
            if self.end == 0 {
                self.next = match store.essentials.number(STATUS_SEQUENCE) {
                    Some(next) => next,
                    None => store.last_status().await,
                };
            }
            self.end = self.next.saturating_add(STATUS_BLOCK);
            self.keep(store).await;
        }
        self.next
    }

    /// The number was used.
    pub fn advance(&mut self) {
        self.next += 1;
    }

    async fn keep(&mut self, store: &Store) {
        let (essentials, end) = (store.essentials.clone(), self.end);
        let kept =
            tokio::task::spawn_blocking(move || essentials.set_number(STATUS_SEQUENCE, end)).await;
        let kept = kept.map_err(anyhow::Error::from).and_then(|kept| kept);
        if let Err(error) = &kept
            && !self.has_complained
        {
            tracing::error!("the numbers of statuses can't be kept: {error:#}; they go on");
        }
        self.has_complained = kept.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_they_were_written_and_anything_but_a_number_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let essentials = Essentials::new(directory.path());
        assert!(!essentials.has_assignment());
        assert_eq!(essentials.assignment().unwrap(), None);
        assert_eq!(essentials.number(STATUS_SEQUENCE), None);
        for (envelope, next) in [(vec![1, 2, 3], 1_001), (vec![4; 100_000], u64::MAX)] {
            essentials.set_assignment(&envelope).unwrap();
            essentials.set_number(STATUS_SEQUENCE, next).unwrap();
            assert_eq!(essentials.assignment().unwrap(), Some(envelope));
            assert_eq!(essentials.number(STATUS_SEQUENCE), Some(next));
        }
        for text in [&b""[..], b"-1", b"x", b"\xff\xff", b"99999999999999999999"] {
            std::fs::write(directory.path().join(STATUS_SEQUENCE), text).unwrap();
            assert_eq!(essentials.number(STATUS_SEQUENCE), None);
        }
    }

    #[test]
    fn only_their_owner_reads_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let essentials = Essentials::new(directory.path());
        essentials.set_assignment(b"x").unwrap();
        essentials.set_number(STATUS_SEQUENCE, 1).unwrap();
        for name in [ASSIGNMENT, STATUS_SEQUENCE] {
            let file = std::fs::metadata(directory.path().join(name)).unwrap();
            assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
        }
    }
}
