//! What the agent must not forget: one SQLite database in its data directory, owned by one thread.
//! Others send it requests over a bounded channel and wait for the answer. A crash at any instant
//! loses nothing that was answered. This file has what the agent keeps for itself; the others have
//! what it keeps for microservices.

mod schema;
mod thread;

pub mod ages;
mod owners;
pub mod key_value;
pub mod history;
pub mod timers;
pub mod dead_letters;
pub mod log;

use std::path::Path;

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::{mpsc, oneshot};

use ages::AgeClock;
use log::batches::{Batches, Room};
use thread::{Database, Done, QUEUE_REQUESTS, Request};

/// Statuses are numbered in blocks of this size, so that not every one costs a write to flash.
const STATUS_BLOCK: u64 = 1_000;

/// A handle to the database. Cheap to clone; the thread ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    timed: timers::Owners,
    ages: AgeClock,
}

/// The thread of the database. Join it after the last [`Store`] is gone.
#[derive(Debug)]
pub struct StoreThread(std::thread::JoinHandle<()>);

impl StoreThread {
    /// Waits for the thread to finish what it was asked and to close the database.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the database thread panicked");
        }
    }
}

impl Store {
    /// Opens the database of the data directory, and makes it when there is none.
    ///
    /// # Errors
    /// When the file is not a database of ours, is newer than this release, or can't be written.
    pub fn open(data: &Path) -> anyhow::Result<(Self, StoreThread)> {
        Self::open_with(data, Room::default())
    }

    fn open_with(data: &Path, room: Room) -> anyhow::Result<(Self, StoreThread)> {
        let path = data.join("agent.db");
        let mut connection =
            Connection::open(&path).with_context(|| format!("can't open {}", path.display()))?;
        schema::prepare(&mut connection)
            .with_context(|| format!("can't use {}", path.display()))?;
        let timed = timers::Owners::read(&connection)
            .with_context(|| format!("can't use {}", path.display()))?;
        let ages = AgeClock::new();
        ages.resume(&connection)
            .with_context(|| format!("can't use {}", path.display()))?;
        let (requests, mut queue) = mpsc::channel::<Request>(QUEUE_REQUESTS);
        let batches = Batches::new(room, ages.clone());
        let thread = std::thread::Builder::new()
            .name("haar-store".into())
            .spawn(move || {
                let mut database = Database {
                    connection,
                    batches,
                };
                thread::serve(&mut database, &mut queue);
            })?;
        let store = Self {
            requests,
            timed,
            ages,
        };
        Ok((store, StoreThread(thread)))
    }

    /// The clock by which the ages of what is stored are counted.
    pub fn ages(&self) -> &AgeClock {
        &self.ages
    }

    /// Has the thread do something. It is answered when what it changed is on the disk.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.run_then(work, |value| value).await
    }

    /// The same, and when what it changed is on the disk the thread does `then`, before anything
    /// else: in the order of the changes, whether somebody still waits or not.
    async fn run_then<T: Send + 'static, U: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> anyhow::Result<T> + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> anyhow::Result<U> {
        let work = |database: &mut Database| work(&database.connection);
        self.request(false, work, then).await
    }

    /// Has the thread do something with logs; see [`run`](Self::run).
    async fn run_logs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &mut Batches) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let work = |database: &mut Database| work(&database.connection, &mut database.batches);
        self.request(false, work, |value| value).await
    }

    /// Has the thread add something to logs, and nothing else; see [`run_then`](Self::run_then). When
    /// `work` fails it must have added nothing.
    async fn add_then<T: Send + 'static, U: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &mut Batches) -> anyhow::Result<T> + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> anyhow::Result<U> {
        let work = |database: &mut Database| work(&database.connection, &mut database.batches);
        self.request(true, work, then).await
    }

    async fn request<T: Send + 'static, U: Send + 'static>(
        &self,
        only_adds: bool,
        work: impl FnOnce(&mut Database) -> anyhow::Result<T> + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> anyhow::Result<U> {
        let (answer, answered) = oneshot::channel();
        let work = Box::new(move |database: Result<&mut Database, String>| {
            let result = match database {
                Ok(database) => work(database),
                Err(reason) => Err(anyhow::Error::msg(reason)),
            };
            Done {
                failed: result.is_err(),
                answer: Box::new(move |kept| {
                    let kept = kept.map_err(anyhow::Error::msg);
                    let outcome = result.and_then(|value| kept.map(|()| then(value)));
                    let _ = answer.send(outcome); // or nobody waits any more
                }),
            }
        });
        let request = Request { only_adds, work };
        self.requests
            .send(request)
            .await
            .ok()
            .context("the database thread has ended")?;
        answered.await.context("the database thread has ended")?
    }

    /// The envelope of the assignment in force.
    pub async fn assignment(&self) -> anyhow::Result<Option<Vec<u8>>> {
        self.run(|connection| {
            let envelope = connection
                .query_row("SELECT envelope FROM assignment", [], |row| row.get(0))
                .optional()?;
            Ok(envelope)
        })
        .await
    }

    /// Keeps the envelope of the assignment that comes into force, in the place of the last one.
    pub async fn set_assignment(&self, number: u64, envelope: Vec<u8>) -> anyhow::Result<()> {
        let number = i64::try_from(number)?;
        self.run(move |connection| {
            connection.execute(
                "INSERT INTO assignment (id, number, envelope) VALUES (1, ?1, ?2)
                 ON CONFLICT (id) DO UPDATE SET number = excluded.number, envelope = excluded.envelope",
                (number, envelope),
            )?;
            Ok(())
        })
        .await
    }

    /// The first of a block of status sequences that were never used: see [`StatusSequence`].
    pub async fn reserve_statuses(&self) -> anyhow::Result<u64> {
        let block = i64::try_from(STATUS_BLOCK)?;
        let end: i64 = self
            .run(move |connection| {
                let end = connection.query_row(
                    "INSERT INTO counter (name, value) VALUES ('status', 1 + ?1)
                     ON CONFLICT (name) DO UPDATE SET value = value + ?1 RETURNING value",
                    [block],
                    |row| row.get(0),
                )?;
                Ok(end)
            })
            .await?;
        Ok(u64::try_from(end - block)?)
    }
}

/// Counts statuses over restarts of the agent. After a restart it goes on at the next block, so
/// numbers never repeat, and only a restart leaves a gap that is not a lost status.
#[derive(Debug, Default)]
pub struct StatusSequence {
    next: u64,
    end: u64,
}

impl StatusSequence {
    /// The next number. The first one takes a block: an agent starts also where it can't.
    ///
    /// # Errors
    /// When a block must be taken and the database can't be written.
    pub async fn next(&mut self, store: &Store) -> anyhow::Result<u64> {
        if self.next == self.end {
            self.next = store.reserve_statuses().await?;
            self.end = self.next + STATUS_BLOCK;
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

/// A number as SQLite has it. Nothing that we count comes near the end; what another node says may,
/// and is cut.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The same back.
fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests;
