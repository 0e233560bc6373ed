//! Stored log lines as people read them: the newest, or those behind the last one that a follower has.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::ids::Name;
use haar_protocol::rest::LogEntry;
use rusqlite::{Connection, OptionalExtension as _, ToSql};

use super::{BYTES_MAX, LINES_MAX, TRIMMED_BYTES_MAX};
use crate::db::parse;
use crate::failure::Failure;

/// A line with the number that the database gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredLine {
    /// Counts the site's lines.
    pub(crate) id: u64,
    /// The line and its node.
    pub(crate) entry: LogEntry,
}

/// Which lines somebody wants; what is left out does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Lines of this application.
    pub(crate) application: Option<Name>,
    /// Lines of this microservice.
    pub(crate) microservice: Option<Name>,
    /// Lines of this node.
    pub(crate) node: Option<Name>,
    /// Lines since this time: milliseconds since the Unix epoch by the clock of their node.
    pub(crate) since_ms: Option<u64>,
}

impl Filter {
    /// True when the filter lets `entry` through.
    pub(crate) fn admits(&self, entry: &LogEntry) -> bool {
        let is = |wanted: &Option<Name>, name: &Name| {
            wanted.as_ref().is_none_or(|wanted| wanted == name)
        };
        is(&self.application, &entry.line.name.application)
            && is(&self.microservice, &entry.line.name.microservice)
            && is(&self.node, &entry.node)
            && self
                .since_ms
                .is_none_or(|since_ms| entry.line.time_ms >= since_ms)
    }
}

/// The lines behind one that a follower has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All of them.
    Whole(Vec<StoredLine>),
    /// What is left of them.
    Incomplete(Vec<StoredLine>),
    /// The newest lines: the follower's line has a number that this database did not give yet, as after a
    /// backup was put back.
    Elsewhere(Vec<StoredLine>),
}

impl Found {
    /// Oldest first.
    pub(crate) fn lines(&self) -> &[StoredLine] {
        match self {
            Found::Whole(lines) | Found::Incomplete(lines) | Found::Elsewhere(lines) => lines,
        }
    }

    /// Oldest first.
    pub(crate) fn into_lines(self) -> Vec<StoredLine> {
        match self {
            Found::Whole(lines) | Found::Incomplete(lines) | Found::Elsewhere(lines) => lines,
        }
    }
}

/// The number of the newest line that was ever stored; 0 before the first.
pub(crate) fn newest(connection: &Connection) -> Result<u64, Failure> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'logs'";
    let newest = connection.query_row(sql, [], |row| row.get::<_, u64>(0));
    Ok(newest.optional()?.unwrap_or(0))
}

/// The newest `count` lines that `filter` admits, oldest first.
pub(crate) fn tail(
    connection: &Connection,
    filter: &Filter,
    count: u32,
) -> Result<Vec<StoredLine>, Failure> {
    select(connection, filter, 0, count)
}

/// The lines behind the line `last` that `filter` admits, the newest `count` of them.
pub(crate) fn after(
    connection: &Connection,
    filter: &Filter,
    last: u64,
    count: u32,
) -> Result<Found, Failure> {
    if last > newest(connection)? {
        return Ok(Found::Elsewhere(tail(connection, filter, count)?));
    }
    let mut lines = select(connection, filter, last, count + 1)?;
    let too_many = lines.len().saturating_sub(count as usize);
    lines.drain(..too_many);
    let is_whole = too_many == 0 && !is_trimmed(connection, &lines, last)?;
    Ok(match is_whole {
        true => Found::Whole(lines),
        false => Found::Incomplete(lines),
    })
}

/// True when lines between the line `last` and `lines` may have been removed. A microservice and a node lose
/// their oldest lines first: one of which a line up to `last` is there has lost none behind it.
fn is_trimmed(connection: &Connection, lines: &[StoredLine], last: u64) -> Result<bool, Failure> {
    let mut counts: BTreeMap<_, i64> = BTreeMap::new();
    for line in lines {
        let of = (&line.entry.node, &line.entry.line.name);
        *counts.entry(of).or_default() += 1;
    }
    if counts.values().any(|count| *count >= LINES_MAX) {
        return Ok(true);
    }
    let bytes: u64 = connection.query_row("SELECT bytes FROM log_usage", [], |row| row.get(0))?;
    if bytes < BYTES_MAX - TRIMMED_BYTES_MAX {
        return Ok(false);
    }
    let nodes: BTreeSet<&Name> = counts.keys().map(|(node, _)| *node).collect();
    for node in nodes {
        let oldest: u64 = connection.query_row(
            "SELECT min(logs.id) FROM logs JOIN nodes ON nodes.id = logs.node WHERE nodes.name = ?1",
            [node.as_str()],
            |row| row.get(0),
        )?;
        if oldest > last {
            return Ok(true);
        }
    }
    Ok(false)
}

fn select(
    connection: &Connection,
    filter: &Filter,
    above: u64,
    count: u32,
) -> Result<Vec<StoredLine>, Failure> {
    let mut sql = String::from(
        "SELECT logs.id, nodes.name, logs.line FROM logs JOIN nodes ON nodes.id = logs.node WHERE logs.id > ?",
    );
    let mut values: Vec<&dyn ToSql> = vec![&above];
    let columns = [
        ("logs.application", &filter.application),
        ("logs.microservice", &filter.microservice),
        ("nodes.name", &filter.node),
    ];
    let texts: Vec<(&str, &str)> = columns
        .iter()
        .filter_map(|(column, name)| name.as_ref().map(|name| (*column, name.as_str())))
        .collect();
    for (column, text) in &texts {
        sql.push_str(&format!(" AND {column} = ?"));
        values.push(text);
    }
    if let Some(since_ms) = &filter.since_ms {
        sql.push_str(" AND logs.time_ms >= ?");
        values.push(since_ms);
    }
    sql.push_str(" ORDER BY logs.id DESC LIMIT ?");
    values.push(&count);
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(values.as_slice(), |row| {
        Ok((
            row.get::<_, u64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
        ))
    })?;
    let mut lines = Vec::new();
    for row in rows {
        let (id, node, line) = row?;
        let entry = LogEntry {
            node: parse(&node)?,
            line: serde_json::from_str(&line)?,
        };
        lines.push(StoredLine { id, entry });
    }
    lines.reverse();
    Ok(lines)
}
