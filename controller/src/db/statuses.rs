//! The last status of each node, and what is counted over all of them.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::ids::NodeId;
use haar_protocol::status::Status;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

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
    /// When it was received, by the controller's clock; 0 of those that an earlier release received.
    pub(crate) received_ms: u64,
}

/// The last status of a node.
pub(crate) fn get(connection: &Connection, node: &NodeId) -> Result<Option<StatusRow>, Failure> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE node = ?1"))?;
    let row = statement.query_row([node.as_str()], read).optional()?;
    Ok(row.and_then(|(_, row)| row))
}

/// The last statuses of all nodes.
pub(crate) fn all(connection: &Connection) -> Result<BTreeMap<NodeId, StatusRow>, Failure> {
    let mut statement = connection.prepare_cached(SELECT)?;
    let mut statuses = BTreeMap::new();
    for row in statement.query_map([], read)? {
        if let (node, Some(row)) = row? {
            statuses.insert(parse(&node)?, row);
        }
    }
    Ok(statuses)
}

const SELECT: &str = "SELECT node, document, missed, clock_skew_ms, received_ms FROM statuses";

fn read(row: &Row<'_>) -> rusqlite::Result<(String, Option<StatusRow>)> {
    let (node, document): (String, String) = (row.get(0)?, row.get(1)?);
    let (missed, clock_skew_ms, received_ms) = (row.get(2)?, row.get(3)?, row.get(4)?);
    let row = parsed(&document, &node).map(|status| StatusRow {
        status,
        missed,
        clock_skew_ms,
        received_ms,
    });
    Ok((node, row))
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
            "INSERT INTO statuses (node, document, missed, clock_skew_ms, received_ms) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (node) DO UPDATE SET document = excluded.document, missed = excluded.missed,
               clock_skew_ms = excluded.clock_skew_ms, received_ms = excluded.received_ms",
        )?
        .execute(params![
            node.as_str(),
            serde_json::to_string(&row.status)?,
            row.missed,
            row.clock_skew_ms,
            row.received_ms
        ])?;
    Ok(())
}

/// Forgets the last status: a node that enrols again may begin to count anew.
pub(crate) fn delete(connection: &Connection, node: &NodeId) -> Result<(), Failure> {
    connection.execute("DELETE FROM statuses WHERE node = ?1", [node.as_str()])?;
    Ok(())
}
