//! Log lines of microservices: the newest 2,000 of each microservice on each node, and 64 MiB of
//! all of them. The oldest go first.

use std::collections::BTreeSet;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::log::LogLine;
use haar_protocol::rest::LogEntry;
use rusqlite::{Connection, ToSql, params};

use super::{Write, from_sql, parse, to_sql};
use crate::failure::Failure;

/// Lines that are kept of one microservice on one node.
pub(crate) const LINES_MAX: i64 = 2_000;
/// Bytes that all lines may take.
const BYTES_MAX: i64 = 64 << 20;

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
    }
}

/// Stores lines of `node`, those that are there already excepted, and lets the oldest go.
pub(crate) fn insert(
    write: &Write<'_>,
    node: &NodeId,
    node_name: &Name,
    lines: Vec<LogLine>,
) -> Result<(), Failure> {
    let mut touched: BTreeSet<MicroserviceName> = BTreeSet::new();
    for line in lines {
        let added = write
            .sql
            .prepare_cached(
                "INSERT OR IGNORE INTO logs (node, application, microservice, sequence, time_ms, line)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                node.as_str(),
                line.name.application.as_str(),
                line.name.microservice.as_str(),
                to_sql(line.sequence),
                to_sql(line.time_ms),
                serde_json::to_string(&line)?,
            ])?;
        if added == 1 {
            touched.insert(line.name.clone());
            let id = from_sql(write.sql.last_insert_rowid());
            write.logged(StoredLine {
                id,
                entry: LogEntry {
                    node: node_name.clone(),
                    line,
                },
            });
        }
    }
    for name in touched {
        write
            .sql
            .prepare_cached(
                "DELETE FROM logs WHERE application = ?1 AND microservice = ?2 AND node = ?3 AND id <=
                   (SELECT id FROM logs WHERE application = ?1 AND microservice = ?2 AND node = ?3
                    ORDER BY id DESC LIMIT 1 OFFSET ?4)",
            )?
            .execute(params![name.application.as_str(), name.microservice.as_str(), node.as_str(), LINES_MAX])?;
    }
    trim_total(&write.sql)
}

fn trim_total(connection: &Connection) -> Result<(), Failure> {
    let bytes = || {
        connection.query_row("SELECT bytes FROM log_usage", [], |row| {
            row.get::<_, i64>(0)
        })
    };
    while bytes()? > BYTES_MAX {
        let removed = connection.execute(
            "DELETE FROM logs WHERE id IN (SELECT id FROM logs ORDER BY id LIMIT 1000)",
            [],
        )?;
        if removed == 0 {
            break;
        }
    }
    Ok(())
}

/// The newest `count` lines that `filter` admits, oldest first.
pub(crate) fn tail(
    connection: &Connection,
    filter: &Filter,
    count: u32,
) -> Result<Vec<StoredLine>, Failure> {
    let mut sql = String::from(
        "SELECT logs.id, nodes.name, logs.line FROM logs JOIN nodes ON nodes.id = logs.node WHERE true",
    );
    let mut values: Vec<&dyn ToSql> = Vec::new();
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
    sql.push_str(" ORDER BY logs.id DESC LIMIT ?");
    values.push(&count);
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(values.as_slice(), |row| {
        Ok((
            row.get::<_, i64>(0)?,
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
        lines.push(StoredLine {
            id: from_sql(id),
            entry,
        });
    }
    lines.reverse();
    Ok(lines)
}
