//! The database: one thread that owns the SQLite connection, and a bounded queue of work in front
//! of it. Everybody else sends closures and gets numbered snapshots; SQL stands only below here.
//!
//! ```text
//! write(closure) ─► BEGIN ─► closure ─► COMMIT ─► events, log lines, node directory, assignment
//!                              └ error ─► ROLLBACK          generation go out, in commit order
//! ```

mod migrations;
mod write;

pub(crate) mod meta;
pub(crate) mod access_tokens;
pub(crate) mod enrolments;
pub(crate) mod nodes;
pub(crate) mod statuses;
pub(crate) mod publishers;
pub(crate) mod relays;
pub(crate) mod modules;
pub(crate) mod applications;
pub(crate) mod lives;
pub(crate) mod assignments;
pub(crate) mod logs;
pub(crate) mod events;
pub(crate) mod observations;
pub(crate) mod unplaced;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use haar_protocol::rest::Event;
use haar_relay::NodeDirectory;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(crate) use write::Write;

use crate::clock;
use crate::failure::{Failure, Kind};

/// Requests that may wait for the thread; whoever comes then waits for room.
const QUEUE_MAX: usize = 256;
/// Events and log lines that a slow follower may be behind before it misses some.
const FEED_MAX: usize = 1_024;
/// A database of no more bytes is checked whole when the controller starts.
const CHECKED_BYTES_MAX: i64 = 64 << 20;
/// Of a larger one these tables are.
const ESSENTIAL_TABLES: [&str; 8] = [
    "meta",
    "access_tokens",
    "nodes",
    "publishers",
    "modules",
    "applications",
    "placements",
    "assignments",
];
/// How long another process (`access-token`) may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What goes out after a commit.
#[derive(Debug, Clone)]
pub(crate) struct Feeds {
    /// New events.
    pub(crate) events: broadcast::Sender<Arc<Event>>,
    /// New log lines.
    pub(crate) logs: broadcast::Sender<Arc<logs::StoredLine>>,
    /// The keys of the nodes, as a whole.
    pub(crate) nodes: watch::Sender<Arc<NodeDirectory>>,
    /// Counts the commits that changed assignments.
    pub(crate) assignments: watch::Sender<u64>,
    /// Counts the commits that changed relays.
    pub(crate) relays: watch::Sender<u64>,
    /// Counts the plans that were made and committed.
    pub(crate) plans: watch::Sender<u64>,
}

type Work = Box<dyn FnOnce(&mut Connection, &Feeds) + Send>;

enum Request {
    Work(Work),
    Stop,
}

/// A handle to the database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Database {
    requests: mpsc::Sender<Request>,
    /// What goes out after a commit; subscribe here.
    pub(crate) feeds: Feeds,
}

/// The thread; joined at shutdown.
pub(crate) struct DatabaseThread(JoinHandle<()>);

/// Opens the file at `path`, which is made when there is none, and migrates it.
///
/// # Errors
/// When it can't be opened, is damaged, somebody else's or newer than this release.
pub(crate) fn open_connection(path: &Path) -> anyhow::Result<Connection> {
    let mut connection = Connection::open(path)
        .with_context(|| format!("opening the database {}", path.display()))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    migrations::migrate(&mut connection, path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// Checks the database before anything in it is believed: all of it when it is small, otherwise the
/// tables without which there is no site.
///
/// # Errors
/// When it is damaged; the text says what to do.
pub(crate) fn check(connection: &Connection, path: &Path) -> anyhow::Result<()> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let quick_check = || {
        let is_small = number("page_count")? * number("page_size")? <= CHECKED_BYTES_MAX;
        let checks = match is_small {
            true => vec!["PRAGMA quick_check(1)".to_owned()],
            false => ESSENTIAL_TABLES
                .map(|table| format!("PRAGMA quick_check({table})"))
                .to_vec(),
        };
        let answers = checks
            .iter()
            .map(|check| connection.query_row(check, [], |row| row.get::<_, String>(0)));
        answers.collect::<rusqlite::Result<Vec<_>>>()
    };
    let damage = match quick_check() {
        Ok(answers) => answers.into_iter().find(|answer| answer != "ok"),
        Err(error) => Some(error.to_string()),
    };
    match damage {
        None => Ok(()),
        Some(damage) => bail!(
            "{} is damaged ({damage}): nothing in it was changed; keep the file, and restore the database from a backup",
            path.display()
        ),
    }
}

/// Starts the thread that owns `connection`.
///
/// # Errors
/// When what it holds can't be read, or no thread can be had.
pub(crate) fn start(connection: Connection) -> anyhow::Result<(Database, DatabaseThread)> {
    nodes::all_offline(&connection)?;
    let keys = nodes::keys(&connection).map_err(anyhow::Error::new)?;
    let feeds = Feeds {
        events: broadcast::Sender::new(FEED_MAX),
        logs: broadcast::Sender::new(FEED_MAX),
        nodes: watch::Sender::new(Arc::new(keys)),
        assignments: watch::Sender::new(0),
        relays: watch::Sender::new(0),
        plans: watch::Sender::new(0),
    };
    let (requests, queue) = mpsc::channel(QUEUE_MAX);
    let database = Database {
        requests,
        feeds: feeds.clone(),
    };
    let thread = std::thread::Builder::new()
        .name("database".into())
        .spawn(move || serve(connection, queue, &feeds))
        .context("starting the database thread")?;
    Ok((database, DatabaseThread(thread)))
}

fn serve(mut connection: Connection, mut queue: mpsc::Receiver<Request>, feeds: &Feeds) {
    while let Some(Request::Work(work)) = queue.blocking_recv() {
        // A bug in one request must not take the database from all others; its transaction has
        // been rolled back when it was dropped, and the caller sees its answer missing.
        if catch_unwind(AssertUnwindSafe(|| work(&mut connection, feeds))).is_err() {
            tracing::error!("a database request panicked; it was rolled back");
        }
    }
}

impl Database {
    /// Runs `work` on a consistent view of the database, changing nothing.
    ///
    /// # Errors
    /// Those of `work`, or when the database is stopped or fails.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.call(move |connection, _| {
            let transaction = connection.transaction()?;
            work(&transaction)
        })
        .await
    }

    /// Runs `work` in one transaction, which is kept when it succeeds.
    ///
    /// # Errors
    /// Those of `work`, or when the database is stopped or fails; nothing has changed then.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Write<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.call(move |connection, feeds| {
            let write = begin(connection)?;
            let result = work(&write)?;
            write.commit(feeds)?;
            Ok(result)
        })
        .await
    }

    /// Runs `work` as [`Database::write`] does, and undoes it: a dry run.
    ///
    /// # Errors
    /// As [`Database::write`].
    pub(crate) async fn rehearse<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Write<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.call(move |connection, _| work(&begin(connection)?))
            .await
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &Feeds) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Work(Box::new(move |connection, feeds| {
            let _ = answer.send(work(connection, feeds)); // nobody waits any more: that is fine
        }));
        let stopping = || Failure::new(Kind::Overloaded, "stopping", "the controller is stopping");
        self.requests.send(request).await.map_err(|_| stopping())?;
        answered.await.unwrap_or_else(|_| {
            if self.requests.is_closed() {
                Err(stopping())
            } else {
                Err(Failure::internal("a database request panicked"))
            }
        })
    }

    /// Ends the thread behind everything that is queued, and waits for it.
    pub(crate) async fn stop(self, thread: DatabaseThread) {
        let _ = self.requests.send(Request::Stop).await; // it has ended already: that is fine
        if tokio::task::spawn_blocking(move || thread.0.join())
            .await
            .is_err()
        {
            tracing::error!("the database thread could not be joined");
        }
    }
}

fn begin(connection: &mut Connection) -> Result<Write<'_>, Failure> {
    let sql = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    Ok(Write::new(sql, clock::now_ms()))
}

/// A text that was an id or a name when it was stored.
pub(crate) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| {
        Failure::internal(format_args!(
            "the database holds `{text}` where an id should be"
        ))
    })
}
