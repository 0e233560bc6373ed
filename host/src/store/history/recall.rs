//! A page of a history.

use anyhow::Context as _;
use rusqlite::{Connection, Row};

use crate::bus::history::Recorder;
use crate::bus::message::{Message, Source};
use crate::store::{integer, natural};

/// Messages that are looked at for one page at most: a page may end before it is full, so that
/// nobody else waits for a long search.
const LOOKED_AT_MAX: u32 = 10_000;

/// Where the next page begins: after the message with this id.
pub type Position = u64;

/// Which messages of a port are wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Published at this time or later.
    pub since_ms: Option<u64>,
    /// Published before this time.
    pub until_ms: Option<u64>,
    /// From this node.
    pub node: Option<String>,
    /// From this microservice: application and name.
    pub microservice: Option<(String, String)>,
    /// With this sequence or a later one.
    pub first_sequence: Option<u64>,
    /// With this sequence or an earlier one.
    pub last_sequence: Option<u64>,
    /// The newest first.
    pub newest_first: bool,
    /// Messages at most.
    pub limit: usize,
    /// Bytes of bodies and headers at most, one message aside.
    pub bytes_max: u64,
    /// The page after this one.
    pub after: Option<Position>,
    /// Id of the site, for the sources.
    pub site: String,
}

/// A page.
#[derive(Debug, Default)]
pub struct Recalled {
    /// Messages with their media types.
    pub messages: Vec<(Message, String)>,
    /// Where the next page begins; none when this is the last one.
    pub next: Option<Position>,
}

/// What decides whether a message is wanted.
struct Passed {
    id: i64,
    published_ms: u64,
    sequence: u64,
    bytes: u64,
    node: String,
    application: String,
    microservice: String,
    stored_ms: u64,
}

impl Passed {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            published_ms: natural(row.get(1)?),
            sequence: natural(row.get(2)?),
            bytes: natural(row.get(3)?),
            node: row.get(4)?,
            application: row.get(5)?,
            microservice: row.get(6)?,
            stored_ms: natural(row.get(7)?),
        })
    }

    fn is_wanted(&self, query: &Query) -> bool {
        let from = |(application, microservice): &(String, String)| {
            *application == self.application && *microservice == self.microservice
        };
        query
            .since_ms
            .is_none_or(|since| self.published_ms >= since)
            && query.until_ms.is_none_or(|until| self.published_ms < until)
            && query.node.as_ref().is_none_or(|node| *node == self.node)
            && query.microservice.as_ref().is_none_or(from)
            && query
                .first_sequence
                .is_none_or(|first| self.sequence >= first)
            && query.last_sequence.is_none_or(|last| self.sequence <= last)
    }
}

/// Reads a page.
pub(super) fn page(
    connection: &Connection,
    history: i64,
    recorder: &Recorder,
    query: &Query,
    now_ms: u64,
) -> anyhow::Result<Recalled> {
    let oldest_ms = super::oldest_ms(recorder, now_ms);
    let (sql, start) = if query.newest_first {
        (OLDER, query.after.map_or(i64::MAX, integer))
    } else {
        (NEWER, query.after.map_or(0, integer))
    };
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((history, start, LOOKED_AT_MAX + 1), Passed::read)?;
    let mut page = Recalled::default();
    let (mut bytes, mut last) = (0, 0);
    for (looked_at, passed) in rows.enumerate() {
        let passed = passed?;
        let wanted = passed.stored_ms >= oldest_ms && passed.is_wanted(query);
        let over = wanted
            && !page.messages.is_empty()
            && (page.messages.len() >= query.limit || bytes + passed.bytes > query.bytes_max);
        if over || looked_at >= LOOKED_AT_MAX as usize {
            page.next = Some(natural(last));
            break;
        }
        last = passed.id;
        if wanted {
            bytes += passed.bytes;
            let message = whole(connection, passed, &query.site)?;
            page.messages.push(message);
        }
    }
    Ok(page)
}

/// What decides is read first, without the bodies.
const NEWER: &str = "SELECT id, published_ms, sequence, bytes, node, application, microservice,
    stored_ms FROM remembered WHERE history = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
const OLDER: &str = "SELECT id, published_ms, sequence, bytes, node, application, microservice,
    stored_ms FROM remembered WHERE history = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";

/// The message itself, with its media type.
fn whole(connection: &Connection, passed: Passed, site: &str) -> anyhow::Result<(Message, String)> {
    let (outlet, content_type, headers, body): (_, _, String, _) = connection
        .prepare_cached("SELECT outlet, content_type, headers, body FROM remembered WHERE id = ?1")?
        .query_row([passed.id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
    let message = Message {
        source: Source {
            site: site.to_owned(),
            node: passed.node,
            application: passed.application,
            microservice: passed.microservice,
            outlet,
        }
        .into(),
        sequence: passed.sequence,
        published_ms: passed.published_ms,
        headers: serde_json::from_str(&headers).context("the headers of a message")?,
        body,
    };
    Ok((message, content_type))
}
