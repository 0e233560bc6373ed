//! Log lines of microservices: the newest 2,000 of each microservice on each node, and 64 MiB of all
//! of them. When these are full, the node with the most bytes loses its oldest lines: one that has no
//! more than an equal share never loses any to the others.

mod reading;

use std::collections::BTreeSet;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::log::LogLine;
use haar_protocol::rest::LogEntry;
use rusqlite::{Connection, params};

use super::{Write, meta};
use crate::failure::Failure;
use crate::intake::gaps::LastLine;
pub(crate) use reading::{Filter, Found, StoredLine, after, newest, tail};

/// Lines that are kept of one microservice on one node.
pub(crate) const LINES_MAX: i64 = 2_000;
/// Bytes that all lines may take.
const BYTES_MAX: u64 = 64 << 20;
/// Lines that are removed in one step.
const STEP_LINES: u32 = 32;
/// Lines take at least `BYTES_MAX` less this after some were removed: a step, of long lines.
const TRIMMED_BYTES_MAX: u64 = 1 << 20;

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
                line.sequence,
                line.time_ms,
                serde_json::to_string(&line)?,
            ])?;
        if added == 1 {
            touched.insert(line.name.clone());
            let id = write.sql.last_insert_rowid().unsigned_abs();
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
    trim_total(&write.sql, BYTES_MAX)
}

fn last_key(node: &NodeId) -> String {
    format!("last log line of {node}")
}

/// The line of a node that came last, also when it is gone.
pub(crate) fn last(connection: &Connection, node: &NodeId) -> Result<Option<LastLine>, Failure> {
    let last = meta::get(connection, &last_key(node))?;
    Ok(last.and_then(|text| {
        let (sequence, time_ms) = text.split_once(' ')?;
        Some(LastLine {
            sequence: sequence.parse().ok()?,
            time_ms: time_ms.parse().ok()?,
        })
    }))
}

/// Notes the line of a node that came last.
pub(crate) fn set_last(
    connection: &Connection,
    node: &NodeId,
    last: LastLine,
) -> Result<(), Failure> {
    let text = format!("{} {}", last.sequence, last.time_ms);
    meta::set(connection, &last_key(node), &text)
}

/// Forgets which line of a node came last.
pub(crate) fn forget_last(connection: &Connection, node: &NodeId) -> Result<(), Failure> {
    meta::delete(connection, &last_key(node))
}

fn trim_total(connection: &Connection, bytes_max: u64) -> Result<(), Failure> {
    let bytes = || {
        connection.query_row("SELECT bytes FROM log_usage", [], |row| {
            row.get::<_, u64>(0)
        })
    };
    while bytes()? > bytes_max {
        let removed = connection
            .prepare_cached(
                "DELETE FROM logs WHERE id IN (SELECT id FROM logs WHERE node =
                   (SELECT node FROM log_usage_by_node ORDER BY bytes DESC LIMIT 1) ORDER BY id LIMIT ?1)",
            )?
            .execute([STEP_LINES])?;
        if removed == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::db;

    fn lines(connection: &Connection, node: &str) -> i64 {
        connection
            .query_row("SELECT count(*) FROM logs WHERE node = ?1", [node], |row| {
                row.get(0)
            })
            .unwrap()
    }

    #[test]
    fn the_node_with_the_most_bytes_loses_its_oldest_lines() {
        let directory = tempfile::tempdir().unwrap();
        let connection = db::open_connection(&directory.path().join("a.db")).unwrap();
        connection
            .pragma_update(None, "foreign_keys", false)
            .unwrap();
        let mut add = connection
            .prepare(
                "INSERT OR IGNORE INTO logs (node, application, microservice, sequence, time_ms, line)
                 VALUES (?1, 'a', 'm', ?2, 1, ?3)",
            )
            .unwrap();
        let line = "x".repeat(900);
        for sequence in 0..10 {
            add.execute(params!["quiet", sequence, line]).unwrap();
        }
        for sequence in 0..500 {
            add.execute(params!["loud", sequence, line]).unwrap();
            add.execute(params!["loud", sequence, line]).unwrap(); // a repeated line counts once
            trim_total(&connection, 100_000).unwrap();
        }
        assert_eq!(lines(&connection, "quiet"), 10);
        assert!((58..=90).contains(&lines(&connection, "loud")));
        let newest: i64 = connection
            .query_row("SELECT max(sequence) FROM logs", [], |row| row.get(0))
            .unwrap();
        assert_eq!(newest, 499);
        trim_total(&connection, 0).unwrap();
        let used: i64 = connection
            .query_row("SELECT count(*) FROM log_usage_by_node", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!((lines(&connection, "quiet"), used), (0, 0));
    }

    #[test]
    fn what_is_behind_a_line_is_whole_unless_lines_of_the_same_microservice_went() {
        let directory = tempfile::tempdir().unwrap();
        let connection = db::open_connection(&directory.path().join("a.db")).unwrap();
        connection
            .pragma_update(None, "foreign_keys", false)
            .unwrap();
        let node =
            "INSERT INTO nodes (id, name, key, labels, budget, agent_version, target, enrolled_ms)
                    VALUES ('n', 'gw', 'k', '{}', '{}', '', '', 1)";
        connection.execute(node, []).unwrap();
        let add = |microservice: &str, sequences: std::ops::RangeInclusive<i64>| {
            for sequence in sequences {
                let line = serde_json::json!({
                    "application": "a", "microservice": microservice, "sequence": sequence, "time_ms": 1,
                    "level": "info", "stream": "log", "text": ""
                });
                let sql =
                    "INSERT INTO logs (node, application, microservice, sequence, time_ms, line)
                           VALUES ('n', 'a', ?1, ?2, 1, ?3)";
                let line = line.to_string();
                connection
                    .execute(sql, params![microservice, sequence, line])
                    .unwrap();
            }
        };
        let found = |last: u64, count: u32| {
            let found = after(&connection, &Filter::default(), last, count).unwrap();
            let ids: Vec<u64> = found.lines().iter().map(|line| line.id).collect();
            let what = match found {
                Found::Whole(_) => "whole",
                Found::Incomplete(_) => "incomplete",
                Found::Elsewhere(_) => "elsewhere",
            };
            (what, ids)
        };
        add("quiet", 1..=3);
        assert_eq!(found(1, 10), ("whole", vec![2, 3]));
        assert_eq!(found(3, 10), ("whole", vec![]));
        assert_eq!(found(1, 1), ("incomplete", vec![3]));
        assert_eq!(found(99, 2), ("elsewhere", vec![2, 3]));
        add("loud", 4..=LINES_MAX + 3);
        connection
            .execute("DELETE FROM logs WHERE id = 1", [])
            .unwrap();
        let (what, ids) = found(2, 10_000);
        assert_eq!((what, ids.len()), ("incomplete", 2_001));
        assert_eq!(found(10, 10_000).0, "whole");
    }
}
