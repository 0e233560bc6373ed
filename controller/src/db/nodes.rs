//! The enrolled nodes. A node that is deleted is gone from here; only its assignment number stays.

use std::collections::BTreeMap;

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::keys::{LinkKey, PublicKey};
use haar_protocol::limits::Budget;
use haar_protocol::quantity::ByteSize;
use haar_relay::NodeDirectory;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Write, parse};
use crate::failure::Failure;

/// A node as it enrolled, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// Its id.
    pub(crate) id: NodeId,
    /// Its name.
    pub(crate) name: Name,
    /// Its key.
    pub(crate) key: PublicKey,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// What it has to give.
    pub(crate) budget: Budget,
    /// Version of its agent.
    pub(crate) agent_version: String,
    /// The target of its agent.
    pub(crate) target: String,
    /// When it joined.
    pub(crate) enrolled_ms: u64,
    /// Whether it is connected.
    pub(crate) online: bool,
    /// When something was last heard of it.
    pub(crate) last_seen_ms: Option<u64>,
    /// Its key for links, once it has told it.
    pub(crate) link_key: Option<LinkKey>,
    /// The least generation that this key must have.
    pub(crate) link_key_generation: u64,
}

const COLUMNS: &str = "id, name, key, labels, budget, agent_version, target, enrolled_ms, online, last_seen_ms, link_key, link_key_generation";

fn read(row: &Row<'_>) -> rusqlite::Result<Result<NodeRow, Failure>> {
    let texts: [String; 7] = [
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
    ];
    let (enrolled_ms, online): (u64, bool) = (row.get(7)?, row.get(8)?);
    let last_seen_ms: Option<u64> = row.get(9)?;
    let link_key: Option<String> = row.get(10)?;
    let link_key_generation: u64 = row.get(11)?;
    let [id, name, key, labels, budget, agent_version, target] = texts;
    let parsed = || {
        Ok(NodeRow {
            id: parse(&id)?,
            name: parse(&name)?,
            key: parse(&key)?,
            labels: serde_json::from_str(&labels)?,
            // One that an earlier release took and this one does not: the node has nothing to give
            // until its next status, and the others are not affected.
            budget: serde_json::from_str(&budget).unwrap_or(Budget::new(ByteSize(0), 0)),
            agent_version,
            target,
            enrolled_ms,
            online,
            last_seen_ms,
            link_key: link_key.as_deref().map(parse).transpose()?,
            link_key_generation,
        })
    };
    Ok(parsed())
}

/// All nodes, by name.
pub(crate) fn list(connection: &Connection) -> Result<Vec<NodeRow>, Failure> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM nodes ORDER BY name"))?;
    statement.query_map([], read)?.map(|row| row?).collect()
}

/// The node called `name`.
pub(crate) fn by_name(connection: &Connection, name: &str) -> Result<Option<NodeRow>, Failure> {
    one(connection, "name", name)
}

/// The node with this id.
pub(crate) fn by_id(connection: &Connection, id: &NodeId) -> Result<Option<NodeRow>, Failure> {
    one(connection, "id", id.as_str())
}

/// The id of the node called `name`: reads nothing else of it, so that nothing else can be wrong.
pub(crate) fn id_by_name(connection: &Connection, name: &Name) -> Result<Option<NodeId>, Failure> {
    let id: Option<String> = connection
        .prepare_cached("SELECT id FROM nodes WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    id.as_deref().map(parse).transpose()
}

fn one(connection: &Connection, column: &str, value: &str) -> Result<Option<NodeRow>, Failure> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM nodes WHERE {column} = ?1"))?
        .query_row([value], read)
        .optional()?
        .transpose()
}

/// The keys of all nodes.
pub(crate) fn keys(connection: &Connection) -> Result<NodeDirectory, Failure> {
    let mut statement = connection.prepare_cached("SELECT id, key FROM nodes")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.map(|row| {
        let (id, key) = row?;
        Ok((parse(&id)?, parse(&key)?))
    })
    .collect()
}

/// Adds the node, or replaces what is known of the one with its id.
pub(crate) fn put(write: &Write<'_>, node: &NodeRow) -> Result<(), Failure> {
    write.sql.execute(
        "INSERT INTO nodes (id, name, key, labels, budget, agent_version, target, enrolled_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, labels = excluded.labels, budget = excluded.budget,
           agent_version = excluded.agent_version, target = excluded.target, enrolled_ms = excluded.enrolled_ms",
        params![
            node.id.as_str(),
            node.name.as_str(),
            node.key.to_string(),
            serde_json::to_string(&node.labels)?,
            serde_json::to_string(&node.budget)?,
            node.agent_version,
            node.target,
            node.enrolled_ms,
        ],
    )?;
    write.nodes_changed();
    Ok(())
}

/// Removes a node with its status, its placements and its logs.
pub(crate) fn delete(write: &Write<'_>, id: &NodeId) -> Result<(), Failure> {
    write
        .sql
        .execute("DELETE FROM nodes WHERE id = ?1", [id.as_str()])?;
    super::logs::forget_last(&write.sql, id)?;
    write.nodes_changed();
    Ok(())
}

/// Notes whether a node is connected. `seen` is when something was heard of it, if it was now.
pub(crate) fn set_online(
    connection: &Connection,
    id: &NodeId,
    online: bool,
    seen: Option<u64>,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE nodes SET online = ?2, last_seen_ms = coalesce(?3, last_seen_ms) WHERE id = ?1",
        )?
        .execute(params![id.as_str(), online, seen])?;
    Ok(())
}

/// Notes what a node's status says of its agent.
pub(crate) fn set_agent(
    connection: &Connection,
    id: &NodeId,
    agent_version: &str,
    target: &str,
) -> Result<(), Failure> {
    connection
        .prepare_cached("UPDATE nodes SET agent_version = ?2, target = ?3 WHERE id = ?1")?
        .execute(params![id.as_str(), agent_version, target])?;
    Ok(())
}

/// Notes what a node has to give.
pub(crate) fn set_budget(
    connection: &Connection,
    id: &NodeId,
    budget: &Budget,
) -> Result<(), Failure> {
    connection
        .prepare_cached("UPDATE nodes SET budget = ?2 WHERE id = ?1")?
        .execute(params![id.as_str(), serde_json::to_string(budget)?])?;
    Ok(())
}

/// Notes the key for links that the node has told.
pub(crate) fn set_link_key(
    connection: &Connection,
    id: &NodeId,
    key: &LinkKey,
) -> Result<(), Failure> {
    connection.execute(
        "UPDATE nodes SET link_key = ?2 WHERE id = ?1",
        params![id.as_str(), key.to_string()],
    )?;
    Ok(())
}

/// Sets the least generation of the node's key for links.
pub(crate) fn set_link_key_generation(
    connection: &Connection,
    id: &NodeId,
    generation: u64,
) -> Result<(), Failure> {
    connection.execute(
        "UPDATE nodes SET link_key_generation = ?2 WHERE id = ?1",
        params![id.as_str(), generation],
    )?;
    Ok(())
}

/// Nobody is known to be connected when the controller starts.
pub(super) fn all_offline(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection
        .execute("UPDATE nodes SET online = 0", [])
        .map(drop)
}
