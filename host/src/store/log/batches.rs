//! Batches: what all logs of the node were given in one commit, as one row, in the order of arrival.
//! Messages that are committed together share pages, however many logs they belong to. A batch that
//! nobody needs is deleted as a whole; when batches have grown too large together, what somebody
//! still needs of the oldest is *filed*: moved into rows of its own, in the order of logs.
//!
//! ```text
//! append, keep ─► batch of this commit ─ commit ─► row ─┬─ everybody has all of it ─► deleted
//!                  (memory)              (one sync)     └─ batches take too much ──► filed: `logged`
//! ```
//!
//! So a consumer that is away keeps its own messages on the disk and nothing of others', beyond
//! [`Room::batches_bytes`]. Only the store's thread is here. Where messages stand is known in memory
//! ([`super::index`]); it is read from the disk at the start, and after a change that was not kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rusqlite::Connection;

use super::batch::{self, Found, Record, Section};
use super::index::{Index, Place};
use super::{Arrived, LogId, filed, rows, runs};
use crate::bus::message::{Headers, Message};
use crate::store::ages::AgeClock;
use crate::store::health::Damage;
use crate::store::{integer, natural};

/// How much batches may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Room {
    /// All together, with what is remembered of them in memory. Beyond it, the oldest are filed.
    pub(in crate::store) batches_bytes: u64,
    /// Those that nobody needs: they are deleted when they take so much.
    pub(in crate::store) unneeded_bytes: u64,
    /// The one that is being made: then its commit takes no more requests.
    pub(in crate::store) commit_bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            batches_bytes: 2 << 20,
            unneeded_bytes: 64 << 10,
            commit_bytes: 256 << 10,
        }
    }
}

/// The batches of the database, and the one that is being made.
#[derive(Debug)]
pub(in crate::store) struct Batches {
    room: Room,
    ages: AgeClock,
    index: Index,
    is_loaded: bool,
    /// The running request may have changed the index.
    is_touched: bool,
    /// What the next commit adds, and its number.
    made: Vec<u8>,
    number: u64,
    /// The age when its first message came.
    stored_ms: u64,
    /// The runs that this start of the agent appends to logs: drawn when a log is opened, and on the
    /// disk with its first message.
    pub(super) own_runs: BTreeMap<LogId, u64>,
    /// Only a part of a request could be added to it: it must not be committed.
    is_spoiled: bool,
}

impl Batches {
    pub(in crate::store) fn new(room: Room, ages: AgeClock) -> Self {
        Self {
            room,
            ages,
            index: Index::default(),
            is_loaded: false,
            is_touched: false,
            made: Vec::new(),
            number: 0,
            stored_ms: 0,
            own_runs: BTreeMap::new(),
            is_spoiled: false,
        }
    }

    /// The logs as the running transaction leaves them.
    ///
    /// # Errors
    /// When the database can't be read.
    pub(super) fn index(&mut self, connection: &Connection) -> anyhow::Result<&mut Index> {
        self.is_touched = true;
        if !self.is_loaded {
            self.index = load(connection)?;
            self.number = self.index.next_batch();
            self.is_loaded = true;
        }
        Ok(&mut self.index)
    }

    /// A log goes with its owner, see [`rows::retire`].
    ///
    /// # Errors
    /// When the database can't be read or written.
    pub(in crate::store) fn retire(
        &mut self,
        connection: &Connection,
        log: i64,
    ) -> anyhow::Result<()> {
        let index = self.index(connection)?;
        rows::retire(connection, index, LogId(log))
    }

    /// Forgets the runs of logs that are gone.
    pub(super) fn forget_own_runs(&mut self) {
        let logs = &self.index.logs;
        self.own_runs.retain(|log, _| logs.contains_key(log));
    }

    /// Forgets what is not on the disk, and reads anew what is when it is needed.
    pub(in crate::store) fn forget(&mut self) {
        let own_runs = std::mem::take(&mut self.own_runs);
        *self = Self {
            own_runs,
            ..Self::new(self.room, self.ages.clone())
        };
    }

    /// A request begins.
    pub(in crate::store) fn begin_request(&mut self) {
        self.is_touched = false;
    }

    /// What the request changed was undone in the database.
    pub(in crate::store) fn undo_request(&mut self) {
        if self.is_touched {
            self.forget();
        }
    }

    /// True when the commit should take no more.
    pub(in crate::store) fn is_full(&self) -> bool {
        self.made.len() >= self.room.commit_bytes
    }

    /// True when the oldest batches have to be filed.
    pub(in crate::store) fn are_too_large(&self) -> bool {
        self.index.bytes() > self.room.batches_bytes
    }

    /// Adds messages to a log. Returns the position, and sequence, of the first one.
    ///
    /// # Errors
    /// When the log is gone, or the database can't be read.
    pub(super) fn append(
        &mut self,
        connection: &Connection,
        log: LogId,
        published_ms: u64,
        messages: &[(Headers, Vec<u8>)],
    ) -> anyhow::Result<u64> {
        let own_run = self.own_runs.get(&log).copied();
        let indexed = self.index(connection)?.logs.get_mut(&log);
        let indexed = indexed.context("the log is gone")?;
        let (first, epoch) = (indexed.head + 1, own_run.unwrap_or(indexed.epoch));
        let messages = (first..)
            .zip(messages)
            .map(|(sequence, (headers, body))| Record {
                sequence,
                published_ms,
                headers: Cow::Borrowed(headers),
                body,
            })
            .collect::<Vec<_>>();
        self.add(log, epoch, first, &messages)?;
        Ok(first)
    }

    /// Keeps what is new of its run. A link that was closed in the middle of a write and opened again may bring
    /// the same messages once more: the disk decides what is new. Returns what was kept, each with
    /// the position of its first message.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub(super) fn keep(
        &mut self,
        connection: &Connection,
        mut all: Vec<Arrived>,
    ) -> anyhow::Result<Vec<(u64, Arrived)>> {
        let logs = &self.index(connection)?.logs;
        let are_there = all.iter().all(|arrived| logs.contains_key(&arrived.log));
        ensure!(are_there, "the log is gone");
        let mut kept = Vec::with_capacity(all.len());
        for mut arrived in all.drain(..) {
            let log = &self.index.logs[&arrived.log];
            let (first, known) = (log.head + 1, log.runs.upto(arrived.epoch));
            let is_new =
                |message: &Arc<Message>| known.is_none_or(|known| message.sequence > known);
            arrived.messages.retain(is_new);
            let messages = arrived.messages.iter().map(|message| Record {
                sequence: message.sequence,
                published_ms: message.published_ms,
                headers: Cow::Borrowed(&message.headers),
                body: &message.body,
            });
            let messages: Vec<_> = messages.collect();
            self.add(arrived.log, arrived.epoch, first, &messages)?;
            kept.push((first, arrived));
        }
        Ok(kept)
    }

    /// Adds a section to the batch that is being made.
    fn add(
        &mut self,
        log: LogId,
        epoch: u64,
        first: u64,
        messages: &[Record<'_>],
    ) -> anyhow::Result<()> {
        let Some(last) = messages.last() else {
            return Ok(());
        };
        self.is_spoiled = true;
        if self.made.is_empty() {
            self.stored_ms = self.ages.now_ms();
        }
        let section = Section {
            log,
            epoch,
            first,
            messages: messages.len() as u64,
        };
        batch::begin_section(&mut self.made, &section)?;
        for (position, message) in (first..).zip(messages) {
            let offset = batch::add(&mut self.made, message)?;
            let place = place(self.number, offset, message.bytes())?;
            self.index.put(log, position, place)?;
        }
        if let Some(indexed) = self.index.logs.get_mut(&log) {
            indexed.reached(epoch, last.sequence);
        }
        self.is_spoiled = false;
        Ok(())
    }

    /// Writes the batch that was made into the running transaction.
    ///
    /// # Errors
    /// When the database can't be written: then the transaction must not be committed.
    pub(in crate::store) fn write(&mut self, connection: &Connection) -> anyhow::Result<()> {
        ensure!(!self.is_spoiled, "messages could not be put into a batch");
        if self.made.is_empty() {
            return Ok(());
        }
        connection
            .prepare_cached("INSERT INTO batch (id, messages, stored_ms) VALUES (?1, ?2, ?3)")?
            .execute((integer(self.number), &self.made, integer(self.stored_ms)))?;
        self.index.complete(self.number, self.made.len() as u64);
        self.number += 1;
        self.made.clear();
        if self.made.capacity() > 2 * self.room.commit_bytes {
            self.made = Vec::new();
        }
        Ok(())
    }

    /// Deletes batches that nobody needs, when they take so much that it is worth it.
    ///
    /// # Errors
    /// When the database can't be written.
    pub(super) fn delete_unneeded(&mut self, connection: &Connection) -> anyhow::Result<()> {
        match self.index.unneeded_bytes() >= self.room.unneeded_bytes {
            true => self.delete_all_unneeded(connection),
            false => Ok(()),
        }
    }

    fn delete_all_unneeded(&mut self, connection: &Connection) -> anyhow::Result<()> {
        rows::store_heads(connection, &mut self.index)?;
        for (from, upto) in self.index.take_unneeded() {
            connection
                .prepare_cached("DELETE FROM batch WHERE id BETWEEN ?1 AND ?2")?
                .execute((integer(from), integer(upto)))?;
        }
        Ok(())
    }

    /// Makes room in the running transaction: deletes batches that nobody needs, and files the oldest
    /// of the others, a quarter of all. Where logs wait for consumers that are away, so many
    /// messages of each are moved together that they fill pages.
    ///
    /// # Errors
    /// When the database can't be written.
    pub(in crate::store) fn make_room(&mut self, connection: &Connection) -> anyhow::Result<()> {
        self.index(connection)?;
        self.delete_all_unneeded(connection)?;
        let (upto, messages) = self.index.take_oldest(self.room.batches_bytes / 4 * 3);
        let batches = connection
            .prepare_cached("SELECT id, messages, stored_ms FROM batch WHERE id <= ?1")?
            .query_map([integer(upto)], |row| {
                let batch = (row.get(1)?, natural(row.get(2)?));
                Ok((natural(row.get(0)?), batch))
            })?
            .collect::<Result<BTreeMap<u64, (Vec<u8>, u64)>, _>>()?;
        // First, so that what is moved finds room in their pages.
        connection
            .prepare_cached("DELETE FROM batch WHERE id <= ?1")?
            .execute([integer(upto)])?;
        for (log, position, place) in messages {
            let batch = batches.get(&place.batch);
            let (batch, stored_ms) = batch.context("a batch is missing")?;
            let message = batch::message(batch, place.offset)?;
            filed::insert(connection, log, position, &message, *stored_ms)?;
        }
        // The newest batch told the clock of ages where it was.
        Ok(self.ages.keep(connection)?)
    }
}

fn place(batch: u64, offset: u32, bytes: u64) -> anyhow::Result<Place> {
    Ok(Place {
        batch,
        offset,
        bytes: u32::try_from(bytes).context("a message of 4 GiB")?,
    })
}

/// Reads where everything is, and forgets it.
///
/// # Errors
/// When it can't be read, or does not go together: that is damage too.
pub(super) fn check(connection: &Connection) -> anyhow::Result<()> {
    match load(connection) {
        Err(error) if !error.is::<rusqlite::Error>() => Err(Damage(format!("{error:#}")).into()),
        other => other.map(drop),
    }
}

/// Reads where everything is.
fn load(connection: &Connection) -> anyhow::Result<Index> {
    let mut index = Index::default();
    rows::load_logs(connection, &mut index)?;
    runs::load(connection, &mut index)?;
    let bases: BTreeMap<LogId, u64> = index
        .logs
        .iter()
        .map(|(id, log)| match log.consumers.is_empty() {
            true => (*id, u64::MAX),
            false => (*id, log.base()),
        })
        .collect();
    let mut statement = connection.prepare("SELECT id, messages FROM batch ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (number, batch) = (natural(row.get(0)?), row.get_ref(1)?.as_blob()?);
        for found in batch::all(batch)? {
            let Some(base) = bases.get(&found.section.log) else {
                continue; // the log is gone, and what it had goes with its batch
            };
            tell(&mut index, &found);
            if found.position > *base {
                let place = place(number, found.offset, found.bytes)?;
                index.put(found.section.log, found.position, place)?;
            }
        }
        index.complete(number, batch.len() as u64);
    }
    Ok(index)
}

/// A message says how far its log is, when the log's row does not say so yet.
fn tell(index: &mut Index, found: &Found) {
    if let Some(log) = index.logs.get_mut(&found.section.log)
        && found.position > log.head
    {
        log.head = found.position;
        log.reached(found.section.epoch, found.sequence);
    }
}

#[cfg(test)]
mod tests;
