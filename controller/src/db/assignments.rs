//! The newest assignment of each node, signed. Numbers only ever go up, also when a node is deleted
//! and enrols again with the same key: its agent refuses lower ones.

use std::collections::BTreeMap;

use haar_protocol::ids::{Digest, NodeId};
use haar_protocol::number::NUMBER_MAX;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Write, parse};
use crate::failure::Failure;

/// The number and the content of a node's newest assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// Its number.
    pub(crate) number: u64,
    /// SHA-256 of what it says beside its number and date; none once the node is deleted.
    pub(crate) content_hash: Option<[u8; 32]>,
}

/// An assignment as the relay keeps it; without an envelope when there is to be none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// The node.
    pub(crate) node: NodeId,
    /// Its number.
    pub(crate) number: u64,
    /// The signed bytes.
    pub(crate) envelope: Option<Vec<u8>>,
}

/// What was made last for a node.
pub(crate) fn made(connection: &Connection, node: &NodeId) -> Result<Option<Made>, Failure> {
    let made = connection
        .prepare_cached("SELECT number, content_hash FROM assignments WHERE node = ?1")?
        .query_row([node.as_str()], |row| {
            Ok(Made {
                number: row.get(0)?,
                content_hash: row.get(1)?,
            })
        })
        .optional()?;
    Ok(made)
}

/// The numbers of all nodes.
pub(crate) fn numbers(connection: &Connection) -> Result<BTreeMap<NodeId, u64>, Failure> {
    let mut statement = connection.prepare_cached("SELECT node, number FROM assignments")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?))
    })?;
    rows.map(|row| {
        let (node, number) = row?;
        Ok((parse(&node)?, number))
    })
    .collect()
}

/// The signed assignment of a node.
pub(crate) fn sealed(connection: &Connection, node: &NodeId) -> Result<Option<Sealed>, Failure> {
    let sealed = connection
        .prepare_cached("SELECT number, envelope FROM assignments WHERE node = ?1")?
        .query_row([node.as_str()], |row| {
            Ok(Sealed {
                node: node.clone(),
                number: row.get(0)?,
                envelope: row.get(1)?,
            })
        })
        .optional()?;
    Ok(sealed)
}

/// Replaces the assignment of a node.
pub(crate) fn put(
    write: &Write<'_>,
    node: &NodeId,
    made: &Made,
    modules: &[Digest],
    envelope: &[u8],
) -> Result<(), Failure> {
    write
        .sql
        .prepare_cached(
            "INSERT INTO assignments (node, number, content_hash, modules, envelope) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (node) DO UPDATE SET number = excluded.number, content_hash = excluded.content_hash,
               modules = excluded.modules, envelope = excluded.envelope",
        )?
        .execute(params![
            node.as_str(),
            made.number,
            made.content_hash,
            serde_json::to_string(modules)?,
            envelope
        ])?;
    write.assignments_changed();
    Ok(())
}

/// Withdraws the assignments of nodes that are deleted; true when there were any. Their numbers stay.
pub(crate) fn withdraw_orphans(write: &Write<'_>) -> Result<bool, Failure> {
    let withdrawn = write.sql.execute(
        "UPDATE assignments SET number = min(number, ?1 - 1) + 1, content_hash = NULL, modules = '[]', envelope = NULL
         WHERE envelope IS NOT NULL AND node NOT IN (SELECT id FROM nodes)",
        [NUMBER_MAX],
    )?;
    if withdrawn > 0 {
        write.assignments_changed();
    }
    Ok(withdrawn > 0)
}

/// True when the newest assignment of `node` names the module.
pub(crate) fn names_module(
    connection: &Connection,
    node: &NodeId,
    digest: &Digest,
) -> Result<bool, Failure> {
    let modules: Option<String> = connection
        .prepare_cached("SELECT modules FROM assignments WHERE node = ?1")?
        .query_row([node.as_str()], |row| row.get(0))
        .optional()?;
    let modules: Vec<Digest> =
        modules.map_or(Ok(Vec::new()), |text| serde_json::from_str(&text))?;
    Ok(modules.contains(digest))
}
