//! The thread that owns the database. It takes all requests that wait, runs each in a savepoint of
//! one transaction, commits once and only then answers: many writers share one sync of the flash,
//! and what was answered survives a power cut.
//!
//! ```text
//! BEGIN ─► SAVEPOINT ─ request ─ RELEASE ─► … ─► COMMIT (one sync) ─► all are answered
//!                         └ fails: ROLLBACK TO, the others go on         └ fails: overwritten, all get the error
//! ```

use rusqlite::Connection;
use tokio::sync::mpsc;

/// Requests that may wait for the thread; so many take part in one transaction at most.
pub(super) const QUEUE_REQUESTS: usize = 64;

/// Something to do with the database, or the reason why it can't be done.
pub(super) type Request = Box<dyn FnOnce(Result<&Connection, String>) -> Done + Send>;

/// A request that has run and is not answered yet.
pub(super) struct Done {
    /// It failed: what it changed must not stay.
    pub(super) failed: bool,
    /// Answers; an error when what it changed could not be kept.
    pub(super) answer: Box<dyn FnOnce(Result<(), String>) + Send>,
}

/// Serves requests until nobody can send any more.
pub(super) fn serve(connection: &Connection, queue: &mut mpsc::Receiver<Request>) {
    let mut waiting = Vec::with_capacity(QUEUE_REQUESTS);
    while queue.blocking_recv_many(&mut waiting, QUEUE_REQUESTS) > 0 {
        let mut requests = waiting.drain(..);
        while requests.len() > 0 {
            commit_together(connection, &mut requests);
        }
    }
}

/// Runs requests in one transaction until there are no more, or until the database gave the
/// transaction up: then those after it want another one.
fn commit_together(connection: &Connection, requests: &mut impl Iterator<Item = Request>) {
    if let Err(reason) = execute(connection, "BEGIN") {
        if let Some(request) = requests.next() {
            (request(Err(reason)).answer)(Ok(()));
        }
        return;
    }
    let mut done = Vec::new();
    let mut outcome = Ok(());
    for request in requests {
        done.push(run(connection, request));
        // A full disk or a broken one ends the whole transaction, with what earlier requests
        // changed (SQLite, "Response To Errors Within A Transaction").
        if connection.is_autocommit() {
            outcome = Err("the database gave the transaction up".to_owned());
            break;
        }
    }
    if outcome.is_ok() {
        outcome = execute(connection, "COMMIT");
    }
    give_up(connection);
    if outcome.is_err() {
        overwrite(connection);
    }
    for done in done {
        (done.answer)(outcome.clone());
    }
}

/// Runs one request so that, if it fails, it leaves nothing behind.
fn run(connection: &Connection, request: Request) -> Done {
    if let Err(reason) = execute(connection, "SAVEPOINT request") {
        return request(Err(reason));
    }
    let done = request(Ok(connection));
    let undone = !done.failed || execute(connection, "ROLLBACK TO request").is_ok();
    if !undone || execute(connection, "RELEASE request").is_err() {
        give_up(connection);
    }
    done
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

fn execute(connection: &Connection, sql: &str) -> Result<(), String> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .map_err(|error| format!("the database can't be used: {error}"))
}
