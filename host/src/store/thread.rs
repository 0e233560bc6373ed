//! The thread that owns the database. It takes all requests that wait, runs each in a savepoint of
//! one transaction, commits once and only then answers: many writers share one sync of the flash,
//! and what was answered survives a power cut.
//!
//! ```text
//! BEGIN ─► SAVEPOINT ─ request ─ RELEASE ─► … ─► COMMIT (one sync) ─► all are answered
//!                         └ fails: ROLLBACK TO, the others go on         └ fails: overwritten, all get the error
//! ```
//!
//! Requests that only add messages to logs need no savepoint: what all of them add is written at once,
//! before the commit.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::Connection;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};

use super::health::{self, Busy, Health, Trouble};
use super::log::batches::Batches;
use crate::service_manager::DISK_IS_SLOW;

/// Requests that may wait for the thread; so many take part in one transaction at most.
pub(super) const QUEUE_REQUESTS: usize = 64;

/// A database that could not be opened is tried again after this time, then twice that, and so on.
const REOPEN_PAUSE: Duration = Duration::from_secs(10);
/// And at least this often.
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(600);

/// Waiting for more requests takes this part of the time of the last commit at most.
const PATIENCE: u32 = 4;

/// What the thread owns.
pub(super) struct Database {
    pub(super) connection: Connection,
    /// The logs' part of the transaction, and what is known of earlier ones.
    pub(super) batches: Batches,
}

/// Something to do with the database, or the reason why it can't be done.
type Work = Box<dyn FnOnce(Result<&mut Database, String>) -> Done + Send>;

pub(super) struct Request {
    /// It only adds to the batch of the transaction, and nothing when it fails: it needs no savepoint.
    pub(super) only_adds: bool,
    pub(super) work: Work,
}

/// A request that has run and is not answered yet.
pub(super) struct Done {
    /// It failed: what it changed must not stay.
    pub(super) failed: bool,
    /// What the failure means for the whole database.
    pub(super) fault: Option<Trouble>,
    /// Answers; an error when what it changed could not be kept.
    pub(super) answer: Box<dyn FnOnce(Result<(), String>) + Send>,
}

/// Answers every request with the reason why there is no database, until all senders are gone. Reports
/// when the database can be opened.
pub(super) fn serve_without(
    reason: &str,
    queue: &mut mpsc::Receiver<Request>,
    is_back: impl Fn() -> bool,
    health: &watch::Sender<Health>,
) {
    let (mut looked, mut pause) = (Instant::now(), REOPEN_PAUSE);
    while let Some(request) = queue.blocking_recv() {
        ((request.work)(Err(reason.to_owned())).answer)(Ok(()));
        if looked.elapsed() >= pause {
            if is_back() {
                health.send_replace(Health::Back);
            }
            (looked, pause) = (Instant::now(), (pause * 2).min(REOPEN_PAUSE_MAX));
        }
    }
}

/// Serves requests until nobody can send any more.
pub(super) fn serve(
    database: &mut Database,
    queue: &mut mpsc::Receiver<Request>,
    health: &watch::Sender<Health>,
    busy: &Busy,
) {
    let mut waiting = Vec::with_capacity(QUEUE_REQUESTS);
    let (mut together, mut took) = (0, Duration::ZERO);
    let mut has_room = true;
    while queue.blocking_recv_many(&mut waiting, QUEUE_REQUESTS) > 0 {
        gather(queue, &mut waiting, together, took / PATIENCE);
        together = waiting.len();
        let began = Instant::now();
        busy.set(Some(began));
        let mut requests = waiting.drain(..);
        while requests.len() > 0 {
            commit_together(database, &mut requests, health);
            if database.batches.are_too_large() {
                has_room = make_room(database, has_room, health);
            }
        }
        busy.set(None);
        took = began.elapsed();
        if took >= DISK_IS_SLOW {
            tracing::warn!("the disk has taken {} s for one commit", took.as_secs());
        }
    }
}

/// Waits for those who shared the last commit: who publishes one message after the other comes back
/// at once, and the first one would have a commit alone while the others wait for two. Who is alone
/// waits for nobody.
fn gather(
    queue: &mut mpsc::Receiver<Request>,
    waiting: &mut Vec<Request>,
    expected: usize,
    patience: Duration,
) {
    let began = Instant::now();
    while waiting.len() < expected && began.elapsed() < patience {
        match queue.try_recv() {
            Ok(request) => waiting.push(request),
            Err(TryRecvError::Empty) => std::thread::yield_now(),
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// Runs requests in one transaction until there are no more, or until the database gave the
/// transaction up, or it is large enough: then those after it want another one. What is wrong with
/// the database is noted before anybody is answered.
fn commit_together(
    database: &mut Database,
    requests: &mut impl Iterator<Item = Request>,
    health: &watch::Sender<Health>,
) {
    let changes = database.connection.total_changes();
    let begun = execute(&database.connection, "BEGIN");
    if let Err(error) = &begun {
        if let Some(trouble) = Trouble::of(&begun) {
            health::note(health, trouble);
        }
        if let Some(request) = requests.next() {
            ((request.work)(Err(format!("{error:#}"))).answer)(Ok(()));
        }
        return;
    }
    let mut done = Vec::new();
    let mut outcome = Ok(());
    for request in requests {
        done.push(run(database, request));
        // A full disk or a broken one ends the whole transaction, with what earlier requests
        // changed (SQLite, "Response To Errors Within A Transaction").
        if database.connection.is_autocommit() {
            outcome = Err(anyhow::Error::msg("the database gave the transaction up"));
            break;
        }
        if database.batches.is_full() {
            break;
        }
    }
    if outcome.is_ok() {
        outcome = write_batch(database);
    }
    if outcome.is_ok() {
        outcome = execute(&database.connection, "COMMIT");
    }
    give_up(&database.connection);
    if outcome.is_err() {
        database.batches.forget();
        overwrite(&database.connection);
    }
    let trouble = Trouble::of(&outcome);
    match trouble.or_else(|| done.iter_mut().find_map(|done| done.fault.take())) {
        Some(trouble) => health::note(health, trouble),
        None if database.connection.total_changes() > changes => health::works(health),
        None => {} // only read, which a full disk allows
    }
    let outcome = outcome.map_err(|error| format!("{error:#}"));
    for done in done {
        (done.answer)(outcome.clone());
    }
}

/// Runs one request so that, if it fails, it leaves nothing behind.
fn run(database: &mut Database, request: Request) -> Done {
    if request.only_adds {
        return (request.work)(Ok(database));
    }
    // What others have added must not be undone with it.
    let written = write_batch(database);
    if let Err(error) = &written {
        give_up(&database.connection);
        let mut done = (request.work)(Err(format!("{error:#}")));
        done.fault = Trouble::of(&written);
        return done;
    }
    let begun = execute(&database.connection, "SAVEPOINT request");
    if let Err(error) = &begun {
        let mut done = (request.work)(Err(format!("{error:#}")));
        done.fault = Trouble::of(&begun);
        return done;
    }
    database.batches.begin_request();
    let done = (request.work)(Ok(database));
    let mut is_undone = true;
    if done.failed {
        is_undone = execute(&database.connection, "ROLLBACK TO request").is_ok();
        database.batches.undo_request();
    }
    if !is_undone || execute(&database.connection, "RELEASE request").is_err() {
        give_up(&database.connection);
    }
    done
}

fn write_batch(database: &mut Database) -> anyhow::Result<()> {
    let written = database.batches.write(&database.connection);
    written.context("the database can't be used")
}

/// Makes room among batches, in a transaction of its own: what was published is published. When it
/// can't be done, it is tried after the next commit again, and said once. Returns whether it could.
fn make_room(database: &mut Database, could_before: bool, health: &watch::Sender<Health>) -> bool {
    let Database {
        connection,
        batches,
    } = database;
    let moved = execute(connection, "BEGIN")
        .and_then(|()| batches.make_room(connection))
        .and_then(|()| execute(connection, "COMMIT"));
    give_up(connection);
    if let Some(trouble) = Trouble::of(&moved) {
        health::note(health, trouble);
    }
    if let Err(error) = &moved {
        batches.forget();
        if could_before {
            tracing::warn!("messages that wait can't be moved together on the disk: {error:#}");
        }
    }
    moved.is_ok()
}

/// Ends a transaction that is still open without keeping anything of it.
fn give_up(connection: &Connection) {
    if !connection.is_autocommit() {
        // If even this fails, the next `BEGIN` fails, and says why to whoever asks.
        let _ = execute(connection, "ROLLBACK");
    }
}

/// Writes over what a commit that failed has left in the write-ahead log. When the sync failed, all of
/// it may stand there: the next process would take it for committed, and what was refused would be
/// there after all. Any other transaction takes its place, also one that can't be synced either.
fn overwrite(connection: &Connection) {
    let _ = execute(
        connection,
        "INSERT INTO counter (name, value) VALUES ('failed commits', 1)
         ON CONFLICT (name) DO UPDATE SET value = value + 1",
    );
}

fn execute(connection: &Connection, sql: &str) -> anyhow::Result<()> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .context("the database can't be used")
}
