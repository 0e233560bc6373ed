//! Messages that were filed, in rows of their own, and how messages are read: first those, then what is
//! in batches.

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::Context as _;
use rusqlite::Connection;

use super::batch::{self, Record};
use super::index::Index;
use super::rows::position;
use super::{LogId, Logged};
use crate::bus::message::{Headers, Message, Source};
use crate::store::{integer, natural};

/// Files a message.
pub(super) fn insert(
    connection: &Connection,
    log: LogId,
    position: u64,
    message: &Record<'_>,
    stored_ms: u64,
) -> anyhow::Result<()> {
    let headers = match message.headers.is_empty() {
        true => Vec::new(),
        false => postcard::to_stdvec(message.headers.as_ref())?,
    };
    connection
        .prepare_cached(
            "INSERT INTO logged (key, sequence, published_ms, bytes, headers, body, stored_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            log.key(position),
            integer(message.sequence),
            integer(message.published_ms),
            integer(message.bytes()),
            headers,
            message.body,
            integer(stored_ms),
        ))?;
    Ok(())
}

/// Messages that are read at a time.
struct Page {
    messages: Vec<Logged>,
    bytes: u64,
    bytes_max: u64,
    source: Arc<Source>,
}

impl Page {
    /// Adds a message. False when it does not fit.
    fn add(&mut self, position: u64, message: Record<'_>, stored_ms: u64) -> bool {
        self.bytes += message.bytes();
        if self.bytes > self.bytes_max && !self.messages.is_empty() {
            return false;
        }
        self.messages.push(Logged {
            position,
            message: Arc::new(Message {
                source: Arc::clone(&self.source),
                sequence: message.sequence,
                published_ms: message.published_ms,
                headers: message.headers.into_owned(),
                body: message.body.to_vec(),
            }),
            stored_ms,
        });
        true
    }
}

/// See [`Store::read_log`](crate::store::Store::read_log).
pub(super) fn read(
    connection: &Connection,
    index: &Index,
    log: LogId,
    after: u64,
    bytes: u64,
    source: Arc<Source>,
) -> anyhow::Result<Vec<Logged>> {
    let mut page = Page {
        messages: Vec::new(),
        bytes: 0,
        bytes_max: bytes,
        source,
    };
    let Some(indexed) = index.logs.get(&log) else {
        return Ok(page.messages);
    };
    if after < indexed.filed_to && !read_filed(connection, log, after, &mut page)? {
        return Ok(page.messages);
    }
    let (mut number, mut batch, mut stored_ms) = (0, Vec::new(), 0);
    for (position, place) in indexed.after(after) {
        if place.batch != number {
            number = place.batch;
            (batch, stored_ms) = connection
                .prepare_cached("SELECT messages, stored_ms FROM batch WHERE id = ?1")?
                .query_row([integer(number)], |row| {
                    Ok((row.get::<_, Vec<u8>>(0)?, natural(row.get(1)?)))
                })?;
        }
        if !page.add(position, batch::message(&batch, place.offset)?, stored_ms) {
            break;
        }
    }
    Ok(page.messages)
}

/// Reads what was filed. False when the page is full.
fn read_filed(
    connection: &Connection,
    log: LogId,
    after: u64,
    page: &mut Page,
) -> anyhow::Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT key, sequence, published_ms, headers, body, stored_ms FROM logged
         WHERE key > ?1 AND key < ?2 ORDER BY key",
    )?;
    let mut rows = statement.query((log.key(after), LogId(log.0 + 1).key(0)))?;
    while let Some(row) = rows.next()? {
        let headers = row.get_ref(3)?.as_blob()?;
        let headers: Headers = match headers.is_empty() {
            true => Headers::new(),
            false => postcard::from_bytes(headers).context("the headers of a message")?,
        };
        let message = Record {
            sequence: natural(row.get(1)?),
            published_ms: natural(row.get(2)?),
            headers: Cow::Owned(headers),
            body: row.get_ref(4)?.as_blob()?,
        };
        let stored_ms = natural(row.get(5)?);
        if !page.add(position(row.get(0)?), message, stored_ms) {
            return Ok(false);
        }
    }
    Ok(true)
}
