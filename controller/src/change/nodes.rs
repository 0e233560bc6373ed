//! Revoking nodes, and issuing assignments anew.

use haar_protocol::ids::{Name, NodeId};
use rusqlite::Connection;

use super::{assign, load_fleet, replan};
use crate::db::{self, Write};
use crate::failure::{Failure, Kind};
use crate::plan;
use crate::site::Site;

/// Revokes the key of a node and forgets the node. Returns its id.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn revoke(write: &Write<'_>, site: &Site, name: &Name) -> Result<NodeId, Failure> {
    let node = db::nodes::by_name(&write.sql, name.as_str())?
        .ok_or_else(|| unknown_node(&write.sql, name))?;
    let placements = db::applications::placements(&write.sql)?;
    let ran: Vec<String> = placements
        .iter()
        .filter(|(_, nodes)| nodes.contains(&node.id))
        .map(|(name, _)| name.to_string())
        .collect();
    db::nodes::delete(write, &node.id)?;
    db::assignments::withdraw(write, &node.id)?;
    replan(write, site, None)?;
    let ran = if ran.is_empty() {
        String::new()
    } else {
        format!("; it was to run {}", ran.join(", "))
    };
    write.event(
        "node_revoked",
        name.as_str(),
        &format!("the key of {} is revoked{ran}", node.id),
    )?;
    Ok(node.id)
}

/// Has a node make another key for its links: it finds the larger generation in its assignment.
/// Returns that generation.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn rotate_link_key(write: &Write<'_>, site: &Site, name: &Name) -> Result<u64, Failure> {
    let node = db::nodes::by_name(&write.sql, name.as_str())?
        .ok_or_else(|| unknown_node(&write.sql, name))?;
    let generation = node.link_key_generation + 1;
    db::nodes::set_link_key_generation(&write.sql, &node.id, generation)?;
    replan(write, site, None)?;
    write.event(
        "link_key_rotation",
        name.as_str(),
        &format!("{} is to make key {generation} for its links", node.id),
    )?;
    Ok(generation)
}

/// There is no such node; the hint names one that is called alike.
pub(crate) fn unknown_node(connection: &Connection, name: &Name) -> Failure {
    let failure = Failure::new(
        Kind::NotFound,
        "unknown_node",
        format!("the site has no node `{name}`"),
    );
    let nodes = db::nodes::list(connection).unwrap_or_default();
    match plan::nearest(name.as_str(), nodes.iter().map(|node| node.name.as_str())) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("see them with `haar get nodes`"),
    }
}

/// Issues the assignment of a node anew, with a number above `above`: the node has seen that one,
/// and our database, restored from an older copy, has not.
///
/// # Errors
/// When the database fails.
pub(crate) fn reissue(
    write: &Write<'_>,
    site: &Site,
    id: &NodeId,
    above: u64,
) -> Result<(), Failure> {
    let fleet = load_fleet(&write.sql, site)?;
    assign(write, site, &fleet, &fleet.placements, id, Some(above)).map(drop)
}

/// Makes a new plan after something changed that plans depend on.
///
/// # Errors
/// When the database fails.
pub(crate) fn plan_anew(write: &Write<'_>, site: &Site) -> Result<(), Failure> {
    replan(write, site, None).map(drop)
}
