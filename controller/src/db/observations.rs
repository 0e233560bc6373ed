//! What the site has noticed of a node, beside what the node reports: each kind once, with when it
//! was noticed first and last.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::ids::NodeId;
use haar_protocol::rest::Observation;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Write, parse};
use crate::failure::Failure;

/// The site's relay refused the node.
pub(crate) const RELAY_REFUSED: &str = "relay_refused";
/// Two agents run with the node's identity.
pub(crate) const IDENTITY_IN_USE: &str = "identity_in_use";
/// A status of the node was not believed.
pub(crate) const STATUS_REFUSED: &str = "status_refused";

/// No assignment can be made for the node.
pub(crate) const UNASSIGNED: &str = "unassigned";
/// The code of what is noticed because of a node's clock.
pub(crate) const CLOCK: &str = "clock";

/// Notes something of a node. What goes on under the same `code` began when it was noticed first.
/// True when it is new, or of another code.
pub(crate) fn note(
    write: &Write<'_>,
    node: &NodeId,
    kind: &str,
    code: &str,
    message: &str,
) -> Result<bool, Failure> {
    let known: Option<String> = write
        .sql
        .prepare_cached("SELECT code FROM observations WHERE node = ?1 AND kind = ?2")?
        .query_row([node.as_str(), kind], |row| row.get(0))
        .optional()?;
    write
        .sql
        .prepare_cached(
            "INSERT INTO observations (node, kind, code, message, since_ms, last_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?5)
             ON CONFLICT (node, kind) DO UPDATE SET
               since_ms = CASE code WHEN excluded.code THEN since_ms ELSE excluded.since_ms END,
               code = excluded.code, message = excluded.message, last_ms = excluded.last_ms",
        )?
        .execute(params![node.as_str(), kind, code, message, write.now_ms])?;
    Ok(known.as_deref() != Some(code))
}

/// Forgets something of a node: it is over.
pub(crate) fn forget(connection: &Connection, node: &NodeId, kind: &str) -> Result<(), Failure> {
    connection
        .prepare_cached("DELETE FROM observations WHERE node = ?1 AND kind = ?2")?
        .execute([node.as_str(), kind])?;
    Ok(())
}

/// Forgets something of all nodes but `still`, of which it is still so.
pub(crate) fn forget_others(
    connection: &Connection,
    kind: &str,
    still: &BTreeSet<NodeId>,
) -> Result<(), Failure> {
    let mut statement =
        connection.prepare_cached("SELECT node FROM observations WHERE kind = ?1")?;
    let nodes = statement
        .query_map([kind], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    for node in nodes {
        let node = parse(&node)?;
        if !still.contains(&node) {
            forget(connection, &node, kind)?;
        }
    }
    Ok(())
}

/// What was noticed of one node, by kind.
pub(crate) fn of(connection: &Connection, node: &NodeId) -> Result<Vec<Observation>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT kind, code, message, since_ms, last_ms FROM observations WHERE node = ?1 ORDER BY kind",
    )?;
    let rows = statement.query_map([node.as_str()], |row| {
        Ok(Observation {
            kind: row.get(0)?,
            code: row.get(1)?,
            message: row.get(2)?,
            since_ms: row.get(3)?,
            last_ms: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What was noticed of all nodes.
pub(crate) fn all(connection: &Connection) -> Result<BTreeMap<NodeId, Vec<Observation>>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT DISTINCT node FROM observations ORDER BY node")?;
    let nodes = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut found = BTreeMap::new();
    for node in nodes {
        let node = parse(&node)?;
        let observations = of(connection, &node)?;
        found.insert(node, observations);
    }
    Ok(found)
}
