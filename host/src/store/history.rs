//! What passed through ports, as far as the manifest keeps it: the newest messages that are neither
//! over the size nor over the age. Ids count up, so their order is the order of passing.

mod recall;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_protocol::assignment::MicroserviceName;
use rusqlite::{Connection, OptionalExtension as _};

use super::{Store, integer, natural, owners};
use crate::bus::history::{self, Direction, HistoryPort, Recorder};
use crate::bus::message::Message;

pub use recall::{Position, Query, Recalled};

/// Messages that are forgotten in one request at most, so that others get their turn.
const FORGET_MESSAGES: u32 = 1_000;

impl Store {
    /// Stores what waits in recorders, and drops what is over their retention by then.
    ///
    /// # Errors
    /// When the database can't be written: what waited is lost then.
    pub async fn remember(&self, recorders: Vec<Arc<Recorder>>) -> anyhow::Result<()> {
        let ages = self.ages.clone();
        self.run(move |connection| {
            let now_ms = ages.now_ms();
            for recorder in &recorders {
                store_pending(connection, recorder, now_ms)?;
            }
            Ok(())
        })
        .await
    }

    /// Reads a page of what passed a port; everything recorded until now is stored before.
    ///
    /// # Errors
    /// When the database can't be used.
    pub async fn recall(&self, recorder: Arc<Recorder>, query: Query) -> anyhow::Result<Recalled> {
        let ages = self.ages.clone();
        self.run(move |connection| {
            let now_ms = ages.now_ms();
            // Both in one request: nothing recorded before can be on its way elsewhere.
            store_pending(connection, &recorder, now_ms)?;
            match find(connection, &recorder.port)? {
                None => Ok(Recalled::default()),
                Some(history) => recall::page(connection, history, &recorder, &query, now_ms),
            }
        })
        .await
    }

    /// Forgets the histories of these microservices that are not among `kept`, a part at a time.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn follow_histories(
        &self,
        owners: Vec<MicroserviceName>,
        kept: Vec<HistoryPort>,
    ) -> anyhow::Result<()> {
        let unwanted = self
            .run(move |connection| unwanted(connection, &owners, &kept))
            .await?;
        for history in unwanted {
            while self
                .run(move |connection| forget(connection, history))
                .await?
            {}
        }
        Ok(())
    }
}

fn direction_number(direction: Direction) -> i64 {
    match direction {
        Direction::Inlet => 0,
        Direction::Outlet => 1,
    }
}

/// The history's number, if anything was ever stored in it.
fn find(connection: &Connection, port: &HistoryPort) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT history.id FROM history JOIN owner ON owner.id = history.owner
             WHERE application = ?1 AND microservice = ?2 AND direction = ?3 AND port = ?4",
        )?
        .query_row(
            (
                port.owner.application.as_str(),
                port.owner.microservice.as_str(),
                direction_number(port.direction),
                port.port.as_str(),
            ),
            |row| row.get(0),
        )
        .optional()
}

fn ensure(connection: &Connection, port: &HistoryPort) -> rusqlite::Result<i64> {
    if let Some(history) = find(connection, port)? {
        return Ok(history);
    }
    let owner = owners::ensure(connection, &port.owner)?;
    connection.execute(
        "INSERT INTO history (owner, direction, port) VALUES (?1, ?2, ?3)",
        (owner, direction_number(port.direction), port.port.as_str()),
    )?;
    Ok(connection.last_insert_rowid())
}

fn store_pending(connection: &Connection, recorder: &Recorder, now_ms: u64) -> anyhow::Result<()> {
    let mut messages = recorder.take();
    if messages.is_empty() && recorder.settled.load(Ordering::Relaxed) {
        return Ok(());
    }
    if let Some(life) = recorder.life
        && owners::life(connection, &recorder.port.owner)?.is_none_or(|(_, known)| known != life)
    {
        recorder.settled.store(true, Ordering::Relaxed);
        return Ok(()); // it was deleted with all that it had
    }
    let (oldest_ms, size) = (oldest_ms(recorder, now_ms), recorder.retention.size.0);
    let is_cut = keep_what_fits(&mut messages, size);
    let history = ensure(connection, &recorder.port)?;
    let mut bytes = natural(
        connection
            .prepare_cached("SELECT bytes FROM history WHERE id = ?1")?
            .query_row([history], |row| row.get(0))?,
    );
    if is_cut {
        connection.execute("DELETE FROM remembered WHERE history = ?1", [history])?;
        bytes = 0;
    }
    for message in &messages {
        insert(connection, history, recorder, message, now_ms)?;
        bytes += history::bytes(message);
    }
    bytes -= drop_old(connection, history, oldest_ms)?.min(bytes);
    bytes -= drop_over(connection, history, bytes, size)?.min(bytes);
    connection
        .prepare_cached("UPDATE history SET bytes = ?2 WHERE id = ?1")?
        .execute((history, integer(bytes)))?;
    recorder.settled.store(true, Ordering::Relaxed);
    Ok(())
}

/// Messages that passed before this are over the age: by the [`AgeClock`](super::ages::AgeClock) of the
/// node, which passed on messages whose publishers may have had any time.
fn oldest_ms(recorder: &Recorder, now_ms: u64) -> u64 {
    now_ms.saturating_sub(recorder.retention.age.0)
}

/// Leaves the newest messages of which the size allows all: the others, and everything older, would
/// be dropped at once. True when there are such.
fn keep_what_fits(messages: &mut VecDeque<Arc<Message>>, size: u64) -> bool {
    let mut bytes = 0;
    let fitting = messages
        .iter()
        .rev()
        .take_while(|message| {
            bytes += history::bytes(message);
            bytes <= size
        })
        .count();
    let over = messages.len() - fitting;
    messages.drain(..over);
    over > 0
}

fn insert(
    connection: &Connection,
    history: i64,
    recorder: &Recorder,
    message: &Message,
    stored_ms: u64,
) -> anyhow::Result<()> {
    let source = &message.source;
    connection
        .prepare_cached(
            "INSERT INTO remembered (history, published_ms, sequence, bytes, node, application,
             microservice, outlet, content_type, headers, body, stored_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute((
            history,
            integer(message.published_ms),
            integer(message.sequence),
            integer(history::bytes(message)),
            &source.node,
            &source.application,
            &source.microservice,
            &source.outlet,
            recorder.content_type.as_str(),
            serde_json::to_string(&message.headers)?,
            &message.body,
            integer(stored_ms),
        ))?;
    Ok(())
}

/// Drops what passed before `oldest_ms`. Returns the bytes of it.
fn drop_old(connection: &Connection, history: i64, oldest_ms: u64) -> rusqlite::Result<u64> {
    let old = (history, integer(oldest_ms));
    let bytes: i64 = connection
        .prepare_cached(
            "SELECT coalesce(sum(bytes), 0) FROM remembered
             WHERE history = ?1 AND stored_ms < ?2",
        )?
        .query_row(old, |row| row.get(0))?;
    if bytes > 0 {
        connection
            .prepare_cached("DELETE FROM remembered WHERE history = ?1 AND stored_ms < ?2")?
            .execute(old)?;
    }
    Ok(natural(bytes))
}

/// Drops the oldest until the rest is no more than `size`. Returns the bytes of what was dropped.
fn drop_over(
    connection: &Connection,
    history: i64,
    bytes: u64,
    size: u64,
) -> rusqlite::Result<u64> {
    let over = bytes.saturating_sub(size);
    if over == 0 {
        return Ok(0);
    }
    let mut statement = connection
        .prepare_cached("SELECT id, bytes FROM remembered WHERE history = ?1 ORDER BY id")?;
    let mut rows = statement.query([history])?;
    let (mut dropped, mut last) = (0, 0);
    while dropped < over
        && let Some(row) = rows.next()?
    {
        last = row.get(0)?;
        dropped += natural(row.get(1)?);
    }
    connection
        .prepare_cached("DELETE FROM remembered WHERE history = ?1 AND id <= ?2")?
        .execute([history, last])?;
    Ok(dropped)
}

/// The numbers of histories that these owners have and should not have.
fn unwanted(
    connection: &Connection,
    owners: &[MicroserviceName],
    kept: &[HistoryPort],
) -> anyhow::Result<Vec<i64>> {
    let mut unwanted = BTreeMap::new();
    let mut statement = connection.prepare_cached("SELECT id FROM history WHERE owner = ?1")?;
    for owner in owners {
        let Some(owner) = owners::find(connection, owner)? else {
            continue;
        };
        for history in statement.query_map([owner], |row| row.get::<_, i64>(0))? {
            unwanted.insert(history?, ());
        }
    }
    for port in kept {
        if let Some(history) = find(connection, port)? {
            unwanted.remove(&history);
        }
    }
    Ok(unwanted.into_keys().collect())
}

/// Forgets a part of a history. False when there is nothing left of it.
fn forget(connection: &Connection, history: i64) -> anyhow::Result<bool> {
    let forgotten = connection
        .prepare_cached(
            "DELETE FROM remembered WHERE id IN
             (SELECT id FROM remembered WHERE history = ?1 ORDER BY id LIMIT ?2)",
        )?
        .execute((history, FORGET_MESSAGES))?;
    if forgotten > 0 {
        // Counted anew: it may be wanted again before all of it is gone.
        connection.execute(
            "UPDATE history SET bytes = (SELECT coalesce(sum(bytes), 0) FROM remembered
             WHERE history = ?1) WHERE id = ?1",
            [history],
        )?;
        return Ok(true);
    }
    connection.execute("DELETE FROM history WHERE id = ?1", [history])?;
    Ok(false)
}

#[cfg(test)]
mod tests;
