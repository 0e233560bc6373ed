//! What the agent must not forget: one SQLite database in its data directory, owned by one thread.
//! Others send it requests over a bounded channel and wait for the answer. A crash at any instant
//! loses nothing that was answered. This file has what the agent keeps for itself; the others have
//! what it keeps for microservices.

mod schema;
mod copy;
mod opening;
mod salvage;
mod health;
mod thread;

mod essentials;
pub mod ages;
pub mod owners;
mod past;
pub mod key_value;
pub mod history;
pub mod timers;
pub mod dead_letters;
pub mod log;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use haar_protocol::status::StoreDamage;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use ages::AgeClock;
use essentials::Essentials;
use health::{Busy, Trouble};
use log::batches::{Batches, Room};
use thread::{Database, Done, QUEUE_REQUESTS, Request};

pub use essentials::StatusSequence;
pub use health::Health;
pub use opening::set_aside;
pub use past::{KeptNumber, Past};

/// A handle to the database. Cheap to clone; the thread ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    timed: timers::Owners,
    ages: AgeClock,
    essentials: Essentials,
    /// What each file of a [`KeptNumber`] has: nobody reads it again while the disk may not answer.
    kept_numbers: Arc<[AtomicU64; 2]>,
    health: watch::Receiver<Health>,
    damage: Option<Arc<StoreDamage>>,
    busy: Busy,
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

/// What was read when the database was opened.
struct Opened {
    connection: Connection,
    timed: timers::Owners,
    damage: Option<StoreDamage>,
}

impl Opened {
    fn read(data: &Path, ages: &AgeClock) -> anyhow::Result<Self> {
        let connection = opening::open(data)?;
        let read = || {
            ages.resume(&connection)?;
            let timed = timers::Owners::read(&connection)?;
            Ok::<_, anyhow::Error>((timed, opening::damage(&connection)?))
        };
        let (timed, damage) =
            read().with_context(|| format!("can't use {}", opening::path(data).display()))?;
        Ok(Self {
            connection,
            timed,
            damage,
        })
    }
}

impl Store {
    /// Opens the database of the data directory, and makes it when there is none. A damaged one is set
    /// aside: see [`opening`].
    ///
    /// # Errors
    /// When the file is not a database of ours, is newer than this release, or can't be written.
    pub fn open(data: &Path) -> anyhow::Result<(Self, StoreThread)> {
        Self::open_with(data, Room::default())
    }

    /// The same; where that fails, the store is there without a database: every request fails with the
    /// reason, and what needs none works. It is tried again for as long as it lasts, see [`Health`].
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn open_or_lack(data: &Path) -> anyhow::Result<(Self, StoreThread)> {
        let ages = AgeClock::new();
        match Opened::read(data, &ages) {
            Ok(opened) => Self::start(data, Room::default(), ages, opened),
            Err(error) => Self::lack(data, ages, format!("{error:#}")),
        }
    }

    fn open_with(data: &Path, room: Room) -> anyhow::Result<(Self, StoreThread)> {
        let ages = AgeClock::new();
        let opened = Opened::read(data, &ages)?;
        Self::start(data, room, ages, opened)
    }

    fn start(
        data: &Path,
        room: Room,
        ages: AgeClock,
        opened: Opened,
    ) -> anyhow::Result<(Self, StoreThread)> {
        let batches = Batches::new(room, ages.clone());
        let mut database = Database {
            connection: opened.connection,
            batches,
        };
        let busy = Busy::default();
        let shown = busy.clone();
        let serve = move |mut queue, health: &watch::Sender<Health>| {
            thread::serve(&mut database, &mut queue, health, &busy);
        };
        let (damage, timed) = (opened.damage, opened.timed);
        let (mut store, thread) =
            Self::with_thread(data, ages, timed, damage, Health::Well, serve)?;
        store.busy = shown;
        Ok((store, thread))
    }

    fn lack(data: &Path, ages: AgeClock, reason: String) -> anyhow::Result<(Self, StoreThread)> {
        tracing::error!("the agent runs without its database: {reason}");
        let (health, directory) = (Health::Absent(reason.clone()), data.to_owned());
        let serve = move |mut queue, health: &watch::Sender<Health>| {
            let is_back = || opening::open(&directory).is_ok();
            thread::serve_without(&reason, &mut queue, is_back, health);
        };
        Self::with_thread(data, ages, timers::Owners::default(), None, health, serve)
    }

    fn with_thread(
        data: &Path,
        ages: AgeClock,
        timed: timers::Owners,
        damage: Option<StoreDamage>,
        health: Health,
        serve: impl FnOnce(mpsc::Receiver<Request>, &watch::Sender<Health>) + Send + 'static,
    ) -> anyhow::Result<(Self, StoreThread)> {
        let essentials = Essentials::new(data);
        let kept = [KeptNumber::Noted, KeptNumber::Ahead];
        let kept_numbers = kept.map(|kept| essentials.message_number(kept).into());
        let (requests, queue) = mpsc::channel::<Request>(QUEUE_REQUESTS);
        let (healths, health) = watch::channel(health);
        let thread = std::thread::Builder::new()
            .name("haar-store".into())
            .spawn(move || {
                // What is known of the database may be half a change then: nobody goes on with it.
                let served = catch_unwind(AssertUnwindSafe(|| serve(queue, &healths)));
                if served.is_err() {
                    healths.send_replace(Health::Dead);
                }
            })?;
        let store = Self {
            requests,
            timed,
            ages,
            essentials,
            kept_numbers: Arc::new(kept_numbers),
            health,
            damage: damage.map(Arc::new),
            busy: Busy::default(),
        };
        Ok((store, StoreThread(thread)))
    }

    /// The health of the database.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// How long the disk has not answered; none while that is usual.
    pub fn slow_for(&self) -> Option<Duration> {
        self.busy.slow_for()
    }

    /// True when requests are known to fail: this was logged once, and need not be logged again.
    pub fn is_known_to_fail(&self) -> bool {
        self.health.borrow().problem().is_some()
    }

    /// The last damage that was found, as long as the database that replaced the damaged one is in use.
    pub fn damage(&self) -> Option<&StoreDamage> {
        self.damage.as_deref()
    }

    /// The clock by which the ages of what is stored are counted.
    pub fn ages(&self) -> &AgeClock {
        &self.ages
    }

    /// Stores the clock of ages, so that the next run goes on from here.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn keep_ages(&self) -> anyhow::Result<()> {
        let ages = self.ages.clone();
        self.run(move |connection| Ok(ages.keep(connection)?)).await
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
                fault: Trouble::of(&result),
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
