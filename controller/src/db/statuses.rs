//! The last status of each node, and what is counted over all of them.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::ids::NodeId;
use haar_protocol::status::Status;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::parse;
use crate::compilation::Platform;
use crate::failure::Failure;

/// The last status of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusRow {
    /// The status.
    pub(crate) status: Status,
    /// Statuses that never arrived.
    pub(crate) missed: u64,
    /// How far the node's clock is ahead, when it could be told.
    pub(crate) clock_skew_ms: Option<i64>,
}

/// The last status of a node.
pub(crate) fn get(connection: &Connection, node: &NodeId) -> Result<Option<StatusRow>, Failure> {
    let row = connection
        .prepare_cached("SELECT document, missed, clock_skew_ms FROM statuses WHERE node = ?1")?
        .query_row([node.as_str()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get(2)?))
        })
        .optional()?;
    Ok(row.and_then(|(document, missed, clock_skew_ms)| {
        Some(StatusRow {
            status: parsed(&document, node.as_str())?,
            missed,
            clock_skew_ms,
        })
    }))
}

/// The last statuses of all nodes.
pub(crate) fn all(connection: &Connection) -> Result<BTreeMap<NodeId, StatusRow>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT node, document, missed, clock_skew_ms FROM statuses")?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, u64>(2)?,
            row.get(3)?,
        ))
    })?;
    let mut statuses = BTreeMap::new();
    for row in rows {
        let (node, document, missed, clock_skew_ms) = row?;
        if let Some(status) = parsed(&document, &node) {
            let row = StatusRow {
                status,
                missed,
                clock_skew_ms,
            };
            statuses.insert(parse(&node)?, row);
        }
    }
    Ok(statuses)
}

/// A status that an earlier release stored and this one does not read counts as none: the next one
/// replaces it, and those of other nodes are not affected.
fn parsed(document: &str, node: &str) -> Option<Status> {
    match serde_json::from_str(document) {
        Ok(status) => Some(status),
        Err(error) => {
            tracing::warn!(%node, %error, "the stored status of a node is not readable: ignoring it");
            None
        }
    }
}

/// The engines and targets of the fleet, as the nodes say that take compiled code.
pub(crate) fn platforms(connection: &Connection) -> Result<BTreeSet<Platform>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT json_extract(document, '$.engine.fingerprint'), json_extract(document, '$.engine.target')
         FROM statuses WHERE json_extract(document, '$.engine.precompiled')",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get::<_, Option<String>>(0)?,
            row.get::<_, Option<String>>(1)?,
        ))
    })?;
    let mut platforms = BTreeSet::new();
    for row in rows {
        if let (Some(engine), Some(target)) = row? {
            platforms.extend(Platform::new(&engine, &target));
        }
    }
    Ok(platforms)
}

/// Replaces the last status of a node.
pub(crate) fn put(connection: &Connection, node: &NodeId, row: &StatusRow) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO statuses (node, document, missed, clock_skew_ms) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (node) DO UPDATE SET document = excluded.document, missed = excluded.missed,
               clock_skew_ms = excluded.clock_skew_ms",
        )?
        .execute(params![node.as_str(), serde_json::to_string(&row.status)?, row.missed, row.clock_skew_ms])?;
    Ok(())
}

/// Forgets the last status: a node that enrols again may begin to count anew.
pub(crate) fn delete(connection: &Connection, node: &NodeId) -> Result<(), Failure> {
    connection.execute("DELETE FROM statuses WHERE node = ?1", [node.as_str()])?;
    Ok(())
}
